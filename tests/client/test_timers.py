"""The timers are well formed and run the installed script."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.client.harness import CLIENT

TIMERS = CLIENT.with_name("timers")


def test_all_run_a_backup() -> None:
    for path in TIMERS.iterdir():
        text = path.read_text()
        assert "nightvault backup" in text or path.suffix == ".timer", path
    ElementTree.fromstring((TIMERS / "nightvault.xml").read_text())  # noqa: S314, our own file
    job = plistlib.loads((TIMERS / "nightvault.plist").read_bytes())
    assert job["StartCalendarInterval"] == {"Hour": 1, "Minute": 15}
    assert subprocess.run(["sh", "-n", "-c", job["ProgramArguments"][2]], check=False).returncode == 0


def test_cron_line() -> None:
    [line] = [line for line in (TIMERS / "nightvault.cron").read_text().splitlines() if not line.startswith("#")]
    minute, hour, *_, user, command = line.split(maxsplit=6)
    assert (minute, hour, user) == ("17", "1", "root")
    assert "%" not in command  # cron reads it as the end of the command
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_units(tmp_path: Path) -> None:
    for name in ("nightvault.service", "nightvault.timer"):
        text = (TIMERS / name).read_text().replace("/usr/local/bin/nightvault", "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "nightvault.service", tmp_path / "nightvault.timer"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr
