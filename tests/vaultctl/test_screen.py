"""The real command on a real terminal, in a pipe, and with a reader that leaves."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from tests.localcloud.paths import REPOSITORY
from tests.vaultctl.answers import answers
from tests.vaultctl.helm import Canned
from tests.vaultctl.lambda_front import LambdaFront, command, lambda_front, run
from vaultctl.failures import MEANINGS, Exit
from vaultctl.screen import clean


@pytest.fixture
def front() -> Iterator[LambdaFront]:
    with lambda_front({"nightvault-operate": Canned(answers())}) as made:
        yield made


def on_terminal(*arguments: str, environment: Mapping[str, str], typed: str = "") -> tuple[str, int]:
    """What a terminal of 120 characters gets to see, where somebody has `typed` ahead."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command(*arguments),
            cwd=REPOSITORY,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "120"},
        )
    finally:
        os.close(theirs)
    seen = b""
    os.write(ours, typed.encode())
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux says EIO when the last writer has gone
        pass
    finally:
        os.close(ours)
    return seen.decode(), process.wait()


def test_colours_are_for_terminals(front: LambdaFront) -> None:
    seen, code = on_terminal("hosts", environment=front.environment)
    assert (code, "\x1b[1;31mOVERDUE" in seen) == (0, True), seen
    plain, code = on_terminal("hosts", environment={**front.environment, "NO_COLOR": "1"})
    assert code == 0
    assert "OVERDUE" in plain
    assert "\x1b[1;31m" not in plain
    assert "\x1b[31m" not in plain
    piped = run("hosts", environment=front.environment)
    assert (piped.returncode, "\x1b" in piped.stdout) == (0, False)
    assert [line.split()[0] for line in piped.stdout.splitlines()] == ["host", "C", "H", "L", "new-one", "O"]


def test_json_is_no_matter_of_the_terminal(front: LambdaFront) -> None:
    seen, _ = on_terminal("hosts", "--json", environment=front.environment)
    assert json.loads(seen)["hosts"][0]["name"] == "C"


def test_options_of_all_commands_stand_anywhere(front: LambdaFront) -> None:
    for arguments in (["--json", "--stack=nightvault", "hosts"], ["hosts", "--stack", "nightvault", "--json"]):
        assert "hosts" in json.loads(run(*arguments, environment=front.environment).stdout)
    assert front.asked == ["nightvault-operate"] * 2
    by_environment = run("hosts", environment={**front.environment, "NIGHTVAULT_STACK": "other"})
    assert "other-operate" in by_environment.stderr


@pytest.mark.parametrize(("typed", "code"), [("n\n", Exit.DECLINED), ("\n", Exit.DECLINED), ("y\n", Exit.DONE)])
def test_retire_asks_and_says_what_is_kept(typed: str, code: Exit) -> None:
    asked = Canned(answers())
    with lambda_front({"nightvault-operate": asked}) as front:
        seen, came = on_terminal("retire", "L", environment=front.environment, typed=typed)
    assert came == code, seen
    assert "4 restore points are kept; its volume vol-0l0123456789abcde is kept. [y/N]" in seen
    assert [each["action"] for each in asked.asked] == ["host", *(["retire"] if code is Exit.DONE else [])]


def test_a_reader_that_has_seen_enough(front: LambdaFront) -> None:
    script = f"set -o pipefail; {' '.join(command('host', 'L'))} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script], cwd=REPOSITORY, env=front.environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("host              L\n", "", 0)


def test_usage_is_one_line_too(front: LambdaFront) -> None:
    for arguments, words in (
        (["nonsense"], "No such command 'nonsense'"),
        (["enroll"], "Missing argument 'HOST'"),
        (["enroll", "C", "--size-gib", "many"], "--size-gib"),
        (["enroll", "C", "--every", "24"], "did you mean 24h"),
        (["change", "C"], "nothing to change"),
        (["wake", "--for", "90s"], "whole minutes"),
        (["windows", "--plot", "--json"], "--json"),
        (["cost", "--scenario", "11"], "article, 10, 100, 1000"),
        (["wake"], "which one of vault-1, vault-2"),
        (["retire", "L"], "add --yes"),
    ):
        done = run(*arguments, environment=front.environment)
        assert done.returncode == Exit.USAGE, done.stderr
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_help_names_every_exit_code_and_needs_no_aws() -> None:
    done = run("--help", environment={"PATH": os.environ["PATH"]})
    assert done.returncode == 0
    for code, meaning in MEANINGS.items():
        assert f"{code:>3}  {meaning}" in done.stdout


def test_control_characters_are_shown_as_such() -> None:
    assert clean("a\x1b[31mb\nc\u202ed\x9be") == "a?[31mb?c?d?e"
    assert clean("é世 ok") == "é世 ok"
