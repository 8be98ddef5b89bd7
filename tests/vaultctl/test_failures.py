"""Every way in which AWS says no: the real command and the real client, against Lambda's protocol."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vaultctl.lambda_front import LambdaFront, lambda_front, run
from vaultctl.failures import Exit, Failure
from vaultctl.transport import LambdaTransport


@pytest.fixture
def front() -> Iterator[LambdaFront]:
    with lambda_front({"nightvault-operate": lambda _: (b'{"hosts":[]}', None)}) as made:
        yield made


def assert_told(front: LambdaFront, exit_code: Exit, *words: str, arguments: tuple[str, ...] = ("hosts",)) -> None:
    """One line on stderr with these words, and the same as a document on stdout."""
    done = run(*arguments, "--json", environment=front.environment)
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith("vaultctl: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert json.loads(done.stdout)["error"]["message"] == done.stderr.removeprefix("vaultctl: ").rstrip("\n")


def test_all_is_well(front: LambdaFront) -> None:
    done = run("hosts", "--json", environment=front.environment)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"hosts": []}, "")


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        (403, "AccessDeniedException", Exit.NO_ACCESS, ("lambda:InvokeFunction", "nightvault-operate")),
        (403, "ExpiredTokenException", Exit.NO_ACCESS, ("expired", "sign in again")),
        (403, "UnrecognizedClientException", Exit.NO_ACCESS, ("does not know these credentials", "--profile")),
        (403, "InvalidSignatureException", Exit.NO_ACCESS, ("clock",)),
        (429, "TooManyRequestsException", Exit.NO_ANSWER, ("slow down", "try again")),
        (409, "ResourceConflictException", Exit.NO_ANSWER, ("being updated", "try again")),
        (500, "ServiceException", Exit.NO_ANSWER, ("try again",)),
        (502, "KMSAccessDeniedException", Exit.NO_ANSWER, ("KMSAccessDeniedException",)),
        (413, "RequestTooLargeException", Exit.UNFORESEEN, ("RequestTooLargeException",)),
    ],
)
def test_aws_refuses(front: LambdaFront, status: int, code: str, exit_code: Exit, words: tuple[str, ...]) -> None:
    front.refuse(status, code)
    assert_told(front, exit_code, *words)
    if code in ("TooManyRequestsException", "ServiceException"):
        assert len(front.asked) == 3


def test_another_stack_has_another_function(front: LambdaFront) -> None:
    assert_told(
        front,
        Exit.NO_ACCESS,
        "no function nightvault-test-operate in eu-central-1",
        "--stack",
        "make deploy",
        arguments=("hosts", "--stack", "nightvault-test"),
    )
    assert front.asked[-1] == "nightvault-test-operate"


def test_no_region_no_credentials_no_profile(front: LambdaFront) -> None:
    aware = front.environment
    for missing, words in (
        (("AWS_DEFAULT_REGION",), ("region", "--region")),
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("credentials", "--profile", "aws configure")),
        (("AWS_SECRET_ACCESS_KEY",), ("credentials", "aws configure")),
    ):
        left = {name: value for name, value in aware.items() if name not in missing}
        done = run("hosts", environment=left)
        assert done.returncode == Exit.NO_ACCESS, done.stderr
        assert done.stderr.count("\n") == 1
        assert all(word in done.stderr for word in words), done.stderr
    for arguments, words in (
        (("--profile", "elsewhere"), ("elsewhere", "aws configure list-profiles")),
        (("--region", "no region!"), ("no region!", "eu-central-1")),
    ):
        assert_told(front, Exit.NO_ACCESS, *words, arguments=("hosts", *arguments))
    assert front.asked == []


def test_an_sso_session_that_has_ended(front: LambdaFront, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile work]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-central-1\n"
        "sso_account_id = 123456789012\nsso_role_name = operators\nregion = eu-central-1\n"
    )
    left = {name: value for name, value in front.environment.items() if not name.startswith("AWS_ACCESS_KEY")}
    del left["AWS_SECRET_ACCESS_KEY"]
    done = run(
        "hosts",
        "--profile",
        "work",
        environment={**left, "AWS_CONFIG_FILE": str(tmp_path / "config"), "HOME": str(tmp_path)},
    )
    assert done.returncode == Exit.NO_ACCESS
    assert done.stderr == "vaultctl: your sign-in has expired; run: aws sso login --profile work\n"


def test_nobody_answers(front: LambdaFront) -> None:
    environment = {**front.environment, "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:1"}
    done = run("hosts", environment=environment)
    assert done.returncode == Exit.NO_ANSWER
    assert "eu-central-1 does not answer" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_answer_that_does_not_come(front: LambdaFront, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    front.silent = threading.Event()
    transport = LambdaTransport("nightvault-operate", read_timeout_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(Failure, match="does not answer") as told:
        transport(b"{}")
    assert told.value.exit is Exit.NO_ANSWER
    assert time.monotonic() - began < 15
    assert len(front.asked) == 3


@pytest.mark.parametrize(
    ("payload", "exit_code", "words"),
    [
        (
            {"errorMessage": "2026-11-24T10:00:00Z 6f0c Task timed out after 60.00 seconds"},
            Exit.NO_ANSWER,
            ("ran out of time", "ask again"),
        ),
        (
            {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: 6f0c Error: Task timed out"},
            Exit.NO_ANSWER,
            ("ran out of time",),
        ),
        (
            {"errorType": "KeyError", "errorMessage": "'x'\nand more"},
            Exit.UNFORESEEN,
            ("KeyError: 'x' and more", "aws logs tail /aws/lambda/nightvault-operate"),
        ),
    ],
)
def test_the_function_fails(payload: dict[str, str], exit_code: Exit, words: tuple[str, ...]) -> None:
    with lambda_front({"nightvault-operate": lambda _: (json.dumps(payload).encode(), "Unhandled")}) as front:
        assert_told(front, exit_code, *words)


@pytest.mark.parametrize("payload", [b"", b"null", b"[1]", b"<html>"])
def test_the_function_is_another(payload: bytes) -> None:
    with lambda_front({"nightvault-operate": lambda _: (payload, None)}) as front:
        assert_told(front, Exit.UNFORESEEN, "no document")


def test_the_control_plane_refuses() -> None:
    answer = {"error": {"code": "UnknownHost", "message": "host: there is no host 'X'; see `hosts`"}}
    with lambda_front({"nightvault-operate": lambda _: (json.dumps(answer).encode(), None)}) as front:
        assert_told(front, Exit.REFUSED, "there is no host 'X'", arguments=("host", "X"))
        quiet = run("host", "X", environment=front.environment)
        assert (quiet.stdout, quiet.returncode) == ("", Exit.REFUSED), "without --json nothing but the line on stderr"


def test_a_stack_of_another_version() -> None:
    with lambda_front({"nightvault-operate": lambda _: (b'{"hosts":[{"name":"C"}]}', None)}) as front:
        done = run("hosts", environment=front.environment)
        assert done.returncode == Exit.UNFORESEEN
        assert "missing required field `vault_id`" in done.stderr
        assert "same version" in done.stderr
