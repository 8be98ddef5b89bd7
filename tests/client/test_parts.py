"""nightvault reads its parts from beside itself: all of one version, whole, and before it does anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.harness import CLIENT, Host, in_every_shell

PARTS = sorted(path.name for path in CLIENT.parent.glob("nightvault-*"))
# A command for each part that needs it, with what it takes.
NEEDED_BY = {
    "nightvault-archive": ["archive"],
    "nightvault-choose": ["list"],
    "nightvault-decrypt": ["list"],
    "nightvault-doctor": ["doctor"],
    "nightvault-drill": ["drill"],
    "nightvault-key": ["key"],
    "nightvault-manifest": ["backup"],
    "nightvault-mount": ["umount"],
    "nightvault-pull": ["list"],
    "nightvault-push": ["backup"],
    "nightvault-restore": ["list"],
}


def installed(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for script in CLIENT.parent.glob("nightvault*"):
        shutil.copy(script, folder)
    return folder / "nightvault"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_cut_short_or_of_another_version_is_named(
    new_host: Host, tmp_path: Path, part: str
) -> None:
    new_host.client = installed(tmp_path / "bin")
    file = tmp_path / "bin" / part
    whole = file.read_text()
    for text, says in {
        whole.replace("_version=0.", "_version=9."): "of another version, or cut short: install all parts of the same",
        whole[: len(whole) * 2 // 3]: "of another version, or cut short: install all parts of the same",
        "": "of another version, or cut short: install all parts of the same",
        None: "not there: install it beside nightvault",
    }.items():
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        done = new_host.run(*NEEDED_BY[part])
        assert (done.returncode, done.stdout, done.stderr) == (3, "", f"nightvault: {file} is {says}\n")
    assert not new_host.state.exists(), "nothing was begun"
    assert new_host.run("enroll").returncode == 2, "and what does not need it works"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_functions_only(part: str, tmp_path: Path, shell: list[str]) -> None:
    """Read in it does nothing by itself; and it says what it is to who runs it."""
    file = CLIENT.with_name(part)
    ran = subprocess.run([*shell, str(file)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("nightvault: this is a part of nightvault; run nightvault ")
    read = subprocess.run(
        [str(shutil.which(shell[0])), *shell[1:], "-euc", f". {file}"],
        cwd=tmp_path,
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (read.returncode, read.stdout, read.stderr, list(tmp_path.iterdir())) == (0, "", "", [])


@in_every_shell
def test_parts_are_found_through_symlinks_and_from_their_own_folder(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    client = installed(tmp_path / "opt" / "nightvault")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "nightvault").symlink_to("../opt/nightvault/nightvault")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nightvault").symlink_to(tmp_path / "lib" / "nightvault")
    other = tmp_path / "other" / "nightvault"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho another nightvault, on PATH\n")
    other.chmod(0o755)
    path = f"{other.parent}:{os.environ['PATH']}"
    for script, folder in ((str(tmp_path / "bin" / "nightvault"), tmp_path), ("nightvault", client.parent)):
        command = [*host.shell, script, "-c", str(host.config_file), "archive"]
        done = subprocess.run(
            command, cwd=folder, env=host.environment(PATH=path), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().endswith(f": {host.source}")
    client.chmod(0o755)
    by_name = subprocess.run(
        ["nightvault", "-c", host.config_file, "archive"],
        env=host.environment(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}"),
        check=False,
    )
    assert by_name.returncode == 0


@in_every_shell
def test_an_upgrade_in_the_middle_of_a_backup_does_not_touch_it(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.client = installed(tmp_path / "bin")

    def upgrade(_: str) -> None:
        for script in host.client.parent.iterdir():
            script.write_text("exit 99\n" * 20_000)  # in place, as cp does

    host.plane.on_call = upgrade
    assert "complete" in host.good("backup").stdout
