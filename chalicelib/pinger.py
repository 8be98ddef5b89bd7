"""HTTPS: the adapter behind ports.Pinger."""

import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from threading import Thread
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 3.0
Opener = Callable[[urllib.request.Request, float], IO[bytes]]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, not an order: it could lead to http, or to an address inside."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _open(request: urllib.request.Request, timeout: float) -> IO[bytes]:
    opener = urllib.request.build_opener(_NoRedirect)
    answer: IO[bytes] = opener.open(request, timeout=timeout)
    return answer


class HttpsPinger:
    """Asks with GET and reads no answer but its status. Tests give an `opener` of their own."""

    def __init__(self, opener: Opener = _open, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._open = opener
        self._timeout = timeout_seconds

    def ping(self, urls: list[str]) -> dict[str, str]:
        wrong: dict[str, str] = {}
        threads = [Thread(target=self._one, args=(url, wrong), daemon=True) for url in urls]
        for thread in threads:
            thread.start()
        # A socket's timeout is for each read: a server that drips would hold us longer than the request may take.
        deadline = time.monotonic() + self._timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = [url for url, thread in zip(urls, threads, strict=True) if thread.is_alive()]
        return {**dict(wrong), **dict.fromkeys(late, f"no answer in {self._timeout:g} s")}

    def _one(self, url: str, wrong: dict[str, str]) -> None:
        if urlsplit(url).scheme != "https":
            wrong[url] = "not https"
            return
        request = urllib.request.Request(url, headers={"User-Agent": "nightvault"})  # noqa: S310 (https, see above)
        try:
            self._open(request, self._timeout).close()
        except HTTPError as error:
            error.close()
            wrong[url] = f"HTTP {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            wrong[url] = f"{type(error).__name__}: {error}"[:200]
