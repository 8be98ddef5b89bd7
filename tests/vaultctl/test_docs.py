"""The documentation says what the command does: every command and option in it is there, and none is missing."""

import re
import shlex
from pathlib import Path

import pytest

from tests.localcloud.paths import REPOSITORY
from tests.vaultctl.helm import vaultctl
from vaultctl.cli import app
from vaultctl.failures import MEANINGS

OPERATORS = REPOSITORY / "docs" / "operators.md"
GOLDEN = Path(__file__).parent / "golden"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SOURCES = sorted((REPOSITORY / "chalicelib").rglob("*.py"))
GLOBAL = {"--json", "--profile", "--region", "--stack", "--version", "--help", "--install-completion"}
# `vaultctl …` in backticks, or a line of a console block.
_MENTION = re.compile(r"`(vaultctl [a-z][^`\n]*)`|^(?:\$ )?(vaultctl [a-z][^\n#|]*)", re.MULTILINE)


def names() -> list[str]:
    """Every command."""
    return sorted(each.name or each.callback.__name__ for each in app.registered_commands if each.callback)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    done = vaultctl(command, "--help")
    assert done.exit_code == 0
    return capsys.readouterr().out


def options(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", text))


def mentions(path: Path) -> list[list[str]]:
    """Every `vaultctl …` of a page, in words."""
    found = (match[1] or match[2] for match in _MENTION.finditer(path.read_text()))
    return [shlex.split(each.rstrip("`.,"), comments=True) for each in found]


def test_the_page_has_each_command_and_each_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    page = OPERATORS.read_text()
    documented = {words[1] for words in mentions(OPERATORS)}
    assert documented == set(names())
    for name in names():
        for option in options(help_of(name, capsys)) - GLOBAL - {"--refresh", "--restore"}:
            assert f"{option}" in page, f"{name} {option}"


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_what_is_recommended_can_be_typed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in mentions(path):
        assert words[1] in names(), f"{path.name}: {shlex.join(words)}"
        known = options(help_of(words[1], capsys)) | GLOBAL
        for word in words[2:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{path.name}: {shlex.join(words)}"


def test_every_command_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    vaultctl("--help")
    overview = capsys.readouterr().out
    for name in names():
        text = help_of(name, capsys)
        assert text.startswith(f"Usage: vaultctl {name}")
        assert len(text.split("\n\n")[1].strip()) > 20
        assert re.search(rf"^  {name} +\w", overview, re.MULTILINE)


def test_exit_codes_are_the_same_everywhere() -> None:
    page = OPERATORS.read_text()
    assert re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE) == [
        (str(int(code)), meaning) for code, meaning in MEANINGS.items()
    ]


def test_examples_are_what_is_printed() -> None:
    blocks = re.findall(r"<!-- golden: (\S+) -->\n```console\n\$ ([^\n]*)\n(.*?)```", OPERATORS.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    for name, _, shown in blocks:
        printed = (GOLDEN / f"{name}.txt").read_text().splitlines(keepends=True)
        assert shown == "".join(line for line in printed if not line.startswith(("stderr: ", "exit: ")))
