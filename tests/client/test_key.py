"""The recovery sheet: shown before the first backup, proven against the archive, and all that a new machine needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client import trees
from tests.client.harness import CODE, SHELLS, Host, in_every_shell
from tests.client.test_archive import DRIVERS
from tests.client.test_restore import inside


def bare(host: Host, *lines: str) -> None:
    """A config that says nothing of the key."""
    host.configure(*lines)
    host.config_file.write_text(host.config_file.read_text().replace("key_escrowed = yes\n", ""))


@in_every_shell
def test_no_backup_before_the_key_was_shown(host: Host, tmp_path: Path) -> None:
    bare(host, "keep = mirror")
    (host.source / "file").write_text("text")
    refused = host.run("backup")
    assert refused.returncode == 17
    assert "nightvault key" in refused.stderr
    assert host.plane.bodies("/start") == []
    assert not (host.archive / "cipher").exists()
    assert "-> nightvault key" in host.run("doctor").stdout
    page = tmp_path / "sheet.html"
    host.good("key", "--html", str(page))
    assert page.stat().st_mode & 0o077 == 0
    assert page.read_text().count("<svg") == (2 if shutil.which("qrencode") else 0)
    host.good("backup")
    # All of it lost: the next key is another one, which must be shown too.
    shutil.rmtree(host.archive)
    (host.state / "password").unlink()
    assert host.run("backup").returncode == 17
    assert len(host.plane.bodies("/start")) == 1


def test_escrowed_by_other_means(host: Host) -> None:
    bare(host, "keep = mirror")
    (host.source / "file").write_text("text")
    host.good("backup", "--key-escrowed")
    host.good("backup")
    assert host.run("backup", "--force").returncode == 2
    bare(host, "keep = directory")
    (host.state / "key-shown").unlink()
    host.good("backup")  # whose key is not ours


@pytest.mark.parametrize("driver", ["rdiff inplace", "mirror reverse", "encfs"])
def test_a_sheet_is_proven(host: Host, driver: str, tmp_path: Path) -> None:
    bare(host, *DRIVERS[driver])
    sheet, text = tmp_path / "sheet", host.good("key").stdout
    sheet.write_text(text)
    (host.source / "file").write_text("text")
    host.good("archive")
    # Typed: in another order, with other blanks, in part.
    facts = [line for line in text.splitlines() if ": " in line and not line.startswith((" ", "gocryptfs.conf"))]
    typed = "\n".join("  " + line.replace(" ", "  ") for line in reversed(facts))
    done = subprocess.run(
        host.command("key", "--check"), env=host.environment(), input=typed, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    good = host.good("key", "--check", str(sheet)).stdout
    assert "with its password" in good
    assert ("with its master key" in good) == (driver != "encfs" and shutil.which("gocryptfs-xray") is not None)
    assert "decrypts" in good
    # A mistyped letter is found, and a sheet with another key.
    word = next(line for line in facts if line.startswith("password: "))
    sheet.write_text(text.replace(word, word[:-1] + ("0" if word[-1] != "0" else "1")))
    wrong = host.run("key", "--check", str(sheet))
    assert wrong.returncode == 18
    assert "mistyped" in wrong.stderr
    lines = [line for line in sheet.read_text().splitlines() if not line.startswith("check:")]
    sheet.write_text("\n".join(lines))
    wrong = host.run("key", "--check", str(sheet))
    assert wrong.returncode == 18
    assert "does not open" in wrong.stderr
    sheet.write_text(text.replace("host: C", "host: H").replace("check: ", "was: "))
    assert "another host" in host.run("key", "--check", str(sheet)).stderr
    sheet.write_text("a letter: to you\n")
    assert host.run("key", "--check", str(sheet)).returncode == 2


@pytest.mark.parametrize(
    ("driver", "shell"),
    [
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(["mirror inplace", "mirror reverse"], ["dash", "busybox"], strict=True)
    ],
)
def test_a_new_machine(host: Host, driver: str, tmp_path: Path) -> None:
    """It has the sheet, a code and the two scripts; the old one is gone."""
    bare(host, *DRIVERS[driver])
    trees.first_night(host.source)
    sheet = tmp_path / "sheet"
    sheet.write_text(host.good("key").stdout)
    host.good("backup")
    keeps = "all" if driver == "mirror inplace" else "no xattrs"
    expected = trees.describe(host.source, keeps=keeps)
    shutil.rmtree(host.state)
    source = host.source.rename(tmp_path / "was the source")
    host.config_file.unlink()
    home = tmp_path / "new"
    home.mkdir()
    new = Host(home, host.vault, host.plane, host.shell)
    new.config_file.unlink()
    # Which key the vault lets in is for the control plane to say: the stand-in is told when the new one enrols.
    host.plane.on_call = lambda _: (
        new.vault.allow((default_state / "key.pub").read_text()) if (default_state / "key.pub").exists() else None
    )
    default_state = home / ".local/share/nightvault"
    root = {"HOME": str(home)}
    (home / "id").write_text("#!/bin/sh\necho 1000\n")
    (home / "id").chmod(0o755)
    root["PATH"] = f"{home}:{os.environ['PATH']}"  # so that the default places are below HOME
    config = home / ".config/nightvault/config"
    command = [*new.shell, new.command()[len(new.shell)], "recover"]
    dest = tmp_path / "dest"
    done = subprocess.run(
        [*command, str(sheet), "-", str(dest)],
        env=new.environment(**root),
        input=f"{CODE}\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert trees.describe(inside(dest, host.source, driver), keeps=keeps) == expected
    assert f"source = {host.source}" in config.read_text()
    again = subprocess.run(
        [*command, str(sheet), CODE, str(dest)],
        env=new.environment(**root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "nightvault restore DEST" in again.stderr
    source.rename(host.source)
    for line in (["key"], ["backup"]):
        done = subprocess.run(
            [*command[: len(new.shell) + 1], *line],
            env=new.environment(**root),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert host.plane.bodies("/finish")[-1]["stats"]["bytes_literal"] < 20_000, "only what has changed is pushed"
