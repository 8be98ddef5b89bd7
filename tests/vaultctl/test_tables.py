"""What is printed, to the character. `python -m tests.vaultctl.test_tables` writes the golden files anew."""

import json
import re
from pathlib import Path

import pytest

from chalicelib import timeline
from tests.vaultctl.answers import NOW, answers
from tests.vaultctl.helm import Canned, Done, vaultctl
from vaultctl.failures import Exit

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    "hosts": ["hosts"],
    "hosts-check": ["hosts", "--check"],
    "host": ["host", "L"],
    "restore-points": ["restore-points", "L"],
    "windows": ["windows"],
    "vaults": ["vaults"],
    "wake": ["wake", "vault-1", "--for", "30m"],
    "retention": ["retention", "C"],
    "doctor": ["doctor"],
    "enroll": ["enroll", "C"],
}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def shown(name: str, *, terminal: bool) -> Done:
    return vaultctl(*COMMANDS[name], invoke=Canned(answers()), now=lambda: NOW, terminal=terminal, width=110)


def text(done: Done) -> str:
    """What a person sees, without colours; a terminal's blanks at the ends of lines don't show."""
    lines = [line.rstrip() for line in _ESCAPE.sub("", done.out).splitlines()]
    notes = [f"stderr: {line}" for line in _ESCAPE.sub("", done.err).splitlines()]
    return "\n".join([*lines, *notes, f"exit: {done.exit_code}"]) + "\n"


def written(name: str) -> dict[str, str]:
    """The golden files of a command, by their names."""
    return {f"{name}.{kind}.txt": text(shown(name, terminal=kind == "terminal")) for kind in ("piped", "terminal")}


@pytest.mark.parametrize("name", COMMANDS)
def test_golden(name: str) -> None:
    for file, wanted in written(name).items():
        assert (GOLDEN / file).read_text() == wanted


@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_is_never_left(name: str) -> None:
    for line in text(shown(name, terminal=True)).splitlines():
        if name not in ("enroll", "doctor", "host") and not line.startswith("stderr"):
            assert len(line) <= 110, "a table folds rather than break its lines"


def test_what_is_wrong_stands_out_and_only_on_a_terminal() -> None:
    seen = shown("hosts", terminal=True).out
    bold_red = "\x1b[1;31m"
    assert f"{bold_red}OVERDUE" in seen
    assert seen.count(bold_red) >= 4, "name, time and age of an overdue host too"
    assert "\x1b" not in shown("hosts", terminal=False).out


@pytest.mark.parametrize(("said", "state"), [("unprovable", "not provable"), ("manifest_lost", "NO MANIFEST")])
def test_a_host_whose_pushes_carry_no_manifest(said: str, state: str) -> None:
    made = answers()
    (found,) = (each for each in made["hosts"]["hosts"] if each["name"] == "C")
    found["drill"] |= {"state": "unproven", said: True}
    canned = Canned(made | {"host": made["host"] | {"host": found}})
    assert re.search(rf"^C .* {state}$", vaultctl("hosts", invoke=canned, now=lambda: NOW).out, re.MULTILINE)
    shown = vaultctl("host", "C", invoke=canned, now=lambda: NOW).out
    assert f"state             {state}\n" in shown
    assert "`nightvault doctor` on C" in shown


def test_a_hostile_reason_does_not_reach_the_terminal() -> None:
    for terminal in (True, False):
        assert "\x1b[2J" not in shown("host", terminal=terminal).out
        assert "?[2J and more" in shown("host", terminal=terminal).out


def test_the_plot_and_the_page_are_the_timelines_own(tmp_path: Path) -> None:
    made = answers()
    windows, hosts = made["windows"]["windows"], made["hosts"]["hosts"]
    page = tmp_path / "nights.html"
    plot = ["windows", "--plot", "--days", "7", "--html", str(page)]
    drawn = vaultctl(*plot, invoke=Canned(made), now=lambda: NOW, terminal=True, width=110)
    wanted = timeline.text(windows, hosts, NOW, days=7, width=110)
    assert [line.rstrip() for line in _ESCAPE.sub("", drawn.out).splitlines()] == wanted.splitlines()
    assert "\x1b[" in drawn.out
    assert drawn.err == f"written: {page}\n"
    assert page.read_text() == timeline.html(windows, hosts, NOW, days=7, stack="nightvault")
    piped = vaultctl("windows", "--plot", invoke=Canned(made), now=lambda: NOW)
    assert "\x1b" not in piped.out
    lost = vaultctl("windows", "--html", str(tmp_path / "no" / "where"), invoke=Canned(made), now=lambda: NOW)
    assert (lost.exit_code, "html: cannot write" in lost.err) == (Exit.USAGE, True)


def test_json_is_the_answer_itself() -> None:
    for name, arguments in COMMANDS.items():
        action = {"restore-points": "restore_points", "enroll": "invite", "hosts-check": "hosts"}.get(name, name)
        done = vaultctl(*arguments, "--json", invoke=Canned(answers()), now=lambda: NOW)
        wanted = json.loads(json.dumps(answers()[action]))
        assert {key: done.document[key] for key in wanted} == wanted
        assert done.document.keys() - wanted.keys() <= {"line"}
        assert done.err == ""
        assert done.exit_code == shown(name, terminal=False).exit_code


def write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in COMMANDS:
        for file, wanted in written(name).items():
            (GOLDEN / file).write_text(wanted)


if __name__ == "__main__":
    write()
