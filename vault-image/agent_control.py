"""The agent's calls: to the instance metadata service for who it is, to the control plane for its orders."""

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

_ANSWER_LIMIT = 256 * 1024


class ControlRefused(Exception):
    """The control plane answered with an error document."""

    def __init__(self, status: int, code: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class NotEnrolled(Exception):
    """There is no control plane to ask, or no token and no code to get one with that has not been refused."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:  # the token goes to no other place
        return None


# No proxy: metadata is link-local, and the vault's environment is nobody's to set.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


class Metadata:
    """EC2's instance metadata, version 2 (session tokens).

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, name: str) -> str | None:
        """One item below meta-data/, or None if the instance has none such. Raises OSError."""
        ask = urllib.request.Request(  # noqa: S310
            f"{self._url}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        with _OPENER.open(ask, timeout=3) as answer:
            token = answer.read(4096).decode("ascii")
        ask = urllib.request.Request(  # noqa: S310
            f"{self._url}/latest/meta-data/{name}", headers={"X-aws-ec2-metadata-token": token}
        )
        try:
            with _OPENER.open(ask, timeout=3) as answer:
                return str(answer.read(4096).decode("utf-8").strip()) or None
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise


class Control:
    """The control plane, as the vault that this machine enrolled as.

    Without a `url` it is where the instance's tag nightvault-url says: user data, the same for every stack, can't.
    """

    def __init__(self, url: str | None, token_file: Path, metadata: Metadata) -> None:
        self._url = url
        self._token_file = token_file
        self._metadata = metadata
        self._refused_codes: set[str] = set()

    def report(self, body: dict[str, Any], public_key: str, timeout_seconds: float = 10.0) -> Any:
        """Report; gives the decoded orders. Enrols first without a token, and again when it is rejected.

        Raises ControlRefused, NotEnrolled, OSError (no answer), ValueError (no JSON).
        """
        token = self._token() or self._enroll(public_key)
        try:
            return self._post("/report", body, token, timeout_seconds)
        except ControlRefused as refusal:
            if refusal.status not in (401, 403):
                raise
            return self._post("/report", body, self._enroll(public_key), timeout_seconds)

    def _token(self) -> str | None:
        with suppress(FileNotFoundError):
            return self._token_file.read_text().strip() or None
        return None

    def _enroll(self, public_key: str) -> str:
        code = self._metadata.get("tags/instance/nightvault-code")
        if not code or code in self._refused_codes:
            raise NotEnrolled("the instance's tag nightvault-code holds no fresh code; relaunch the vault")
        try:
            document = self._post("/enroll", {"code": code, "public_key": public_key}, None, 10.0)
        except ControlRefused as refusal:
            if refusal.status == 403:
                self._refused_codes.add(code)
            raise
        token = document.get("token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the answer to /enroll has no token")
        self._refused_codes.add(code)  # single use
        self._keep(token)
        return token

    def _keep(self, token: str) -> None:
        # On disk before it is used: the code that bought it buys no other.
        new = self._token_file.with_name("token.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:  # noqa: PTH123
            file.write(token + "\n")
            file.flush()
            os.fsync(descriptor)
        new.rename(self._token_file)
        folder = os.open(self._token_file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _post(self, path: str, body: dict[str, Any], token: str | None, timeout_seconds: float) -> Any:
        self._url = self._url or self._metadata.get("tags/instance/nightvault-url")
        if not self._url:
            raise NotEnrolled("neither control_url nor the instance's tag nightvault-url is set; relaunch the vault")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = json.dumps(body, separators=(",", ":")).encode()
        ask = urllib.request.Request(self._url.rstrip("/") + path, data=data, headers=headers, method="POST")  # noqa: S310
        try:
            with _OPENER.open(ask, timeout=timeout_seconds) as answer:
                return json.loads(answer.read(_ANSWER_LIMIT))
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None


def _refusal(error: urllib.error.HTTPError) -> ControlRefused:
    code, message = "", ""
    with suppress(ValueError, KeyError, TypeError, OSError):
        inner = json.loads(error.read(16384))["error"]
        code, message = str(inner["code"])[:80], str(inner["message"])[:300]
    wait = error.headers.get("Retry-After", "")
    return ControlRefused(error.code, code, message, float(wait) if wait.isdigit() else 0.0)
