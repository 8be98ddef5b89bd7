"""A file out of a restore point: ciphertext from the frozen snapshot, decrypted with the host's own key."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.demo.player import Player


@contextmanager
def decrypted(snapshot: Path, player: Player) -> Iterator[Path]:
    """What a restore point holds, readable: an rdiff-backup repository, or the sources themselves (`keep`).

    The ciphertext is copied out of the snapshot first, with the ownership that the vault keeps in extended
    attributes (rsync's --fake-super; -M--super, or the copy would be kept that way too); gocryptfs then needs
    nothing but that copy and the password.
    """
    with tempfile.TemporaryDirectory(prefix="nightvault-restore-") as scratch:
        cipher, plain = Path(scratch) / "cipher", Path(scratch) / "plain"
        plain.mkdir()
        copy = ["rsync", "-aHAX", "--exclude=/.nightvault", "--fake-super", "-M--super"]
        subprocess.run([*copy, f"{snapshot}/current/", f"{cipher}/"], check=True)
        keep = player.settings.get("keep", "rdiff")
        if keep == "directory":  # was encrypted before we saw it, or not at all
            yield cipher
            return
        # Not read-only: rdiff-backup wants to write its log into the repository, and this one is a copy.
        mount = ["gocryptfs", "-q", "-nosyslog", "-passfile", str(player.password_file)]
        if player.settings.get("encrypt") == "reverse":
            # Each view of `gocryptfs -reverse` is a folder, beside the configuration that they share.
            mount += ["-config", str(cipher / "gocryptfs.conf")]
            (cipher,) = (folder for folder in cipher.iterdir() if folder.is_dir())
        mount += [str(cipher), str(plain)]
        if keep == "encfs":
            mount = ["encfs", "--extpass", f"cat {player.password_file}", str(cipher), str(plain)]
        subprocess.run(mount, check=True)
        try:
            yield plain
        finally:
            subprocess.run([shutil.which("fusermount3") or "fusermount", "-u", str(plain)], check=True)


def restore(repository: Path, path: Path, to: Path) -> None:
    """One file, by rdiff-backup, as it was at the newest increment."""
    command = ["rdiff-backup", "--new", "restore", str(repository / path.relative_to("/")), str(to)]
    subprocess.run(command, check=True, capture_output=True)
