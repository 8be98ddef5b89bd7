#!/usr/bin/python3 -EsS
"""What a host's ssh key may do on the vault, and nothing else: the forced command of that key.

sshd runs `gate.py HOST` as the host's account, whatever the host asked for; that is in SSH_ORIGINAL_COMMAND.
The table of commands and exit codes is in docs/protocol.md, "Over ssh: the gate".
"""

import argparse
import os
import re
import runpy
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import registry
from gate_trees import RUN_ID, NotThisRun, Trees

NOT_THIS_RUN, NOTHING_COMMITTED, NOT_NOW, REFUSED = 3, 66, 75, 126
# A begin that copies millions of files holds the lock that long at most, or the next one is told to come back.
_LOCK_SECONDS = 600.0


class Stop(Exception):
    """The command ends here, with a message for the host and an exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("--mount-root", type=Path, default=Path("/mnt"))
    parser.add_argument("--run-dir", type=Path, default=Path("/run/nightvault"))
    parser.add_argument("--rrsync", type=Path, default=Path("/usr/bin/rrsync"))
    chosen = parser.parse_args(arguments)
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    # Nothing of the connection's environment reaches a program: rsync and popt read more than one would think.
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME="/nonexistent", SSH_CONNECTION="unknown")
    os.umask(0o077)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # so that a later begin can end this command with all its processes
    try:
        Gate(chosen.host, chosen.mount_root, chosen.run_dir, chosen.rrsync).do(asked)
    except Stop as stop:
        return _tell(stop.code, str(stop))
    except TimeoutError as error:
        return _tell(NOT_NOW, str(error))
    except (OSError, subprocess.CalledProcessError) as error:
        return _tell(1, str(error))
    return 0


class Gate:
    """One host's commands on its own volume."""

    def __init__(self, host: str, mount_root: Path, run_dir: Path, rrsync: Path) -> None:
        if not registry.HOST.fullmatch(host):
            raise Stop(REFUSED, "refused")
        self._volume = mount_root / host
        self._point = mount_root / registry.POINTS / host
        self._notes = run_dir / host
        self._run_dir = run_dir
        self._rrsync = rrsync
        self._trees = Trees(self._volume)

    def do(self, asked: str) -> None:
        """Do what the host asked for. An rsync does not return: this process becomes it. Raises Stop."""
        own = re.fullmatch(rf"(begin|commit) ({RUN_ID})", asked)
        rsync = re.match(r"rsync --server (--sender )?(?=\S)", asked)
        # What sshd_config calls SFTP. With accounts of their own, hosts have another one for that.
        sftp = asked == "internal-sftp" and self._volume.is_symlink()
        # --super would undo --fake-super: with it symlinks and devices would be real ones on the vault.
        if not (own or rsync or sftp) or " --super" in asked or len(asked) > 65536:
            raise Stop(REFUSED, "refused")
        pulled = sftp or (rsync and rsync[1])
        place = self._point if pulled and _is_mounted(self._point) else self._volume
        if not _is_mounted(place) or not self._notes.is_dir():
            raise Stop(NOT_NOW, "your volume is not mounted on this vault; ask /status until the run is ready")
        if own:
            self._begin(own[2]) if own[1] == "begin" else self._commit(own[2])
        elif sftp:
            import gate_sftp  # noqa: PLC0415 # which vaults with accounts don't have

            gate_sftp.serve(self._committed(place, "sftp"), sys.stdin.buffer, sys.stdout.buffer)
            registry.poke(self._run_dir)
        elif rsync:
            # How rsync sends --modify-window=-1 (compare nanoseconds), and how rrsync takes it.
            options = "--fake-super " + asked[rsync.end() :].replace(" -@-1 ", " --modify-window=-1 ", 1)
            if rsync[1]:
                tree = self._committed(place, "pull")
                self._become_rsync("-ro", tree, f"rsync --server --sender {options}")
            self._push(options)

    def _begin(self, run_id: str) -> None:
        with registry.alone(self._notes, _LOCK_SECONDS) as lock:
            if not registry.end(self._transfers()):
                raise Stop(NOT_NOW, "an older transfer of this host does not end; try again in a minute")
            registry.forget_ended(self._notes)
            noted = registry.note(self._notes, "begin")
            word = self._trees.begin(run_id, keep_open=(lock, noted))
            self._say(word, f"free_bytes {self._trees.free_bytes()}", "hard_links 0")
            self._clean(noted)
        registry.poke(self._run_dir)

    def _commit(self, run_id: str) -> None:
        with registry.alone(self._notes, _LOCK_SECONDS):
            # Who browses sees one tree: it is over for them (with accounts, the agent sees to it).
            registry.end(command for command in self._transfers() if command.kind == "sftp")
            if self._transfers():
                raise Stop(NOT_NOW, "a transfer of this host is still running; commit when it has ended")
            noted = registry.note(self._notes, "commit")
            try:
                self._trees.commit(run_id)
            except NotThisRun:
                message = f"staging is not run {run_id}'s; begin it and push again before committing it"
                raise Stop(NOT_THIS_RUN, message) from None
            registry.poke(self._run_dir)
            self._say("committed")
            self._clean(noted)

    def _push(self, options: str) -> NoReturn:
        with registry.alone(self._notes, _LOCK_SECONDS):
            if not self._trees.staging.is_dir():
                raise Stop(NOT_THIS_RUN, "there is no staging to push into; begin the run first")
            if any(command.kind == "push" for command in self._transfers()):
                raise Stop(NOT_NOW, "another push of this host is running; begin the run to end it")
            registry.note(self._notes, "push")
        self._become_rsync("-wo", self._trees.staging, f"rsync --server {options}")

    def _committed(self, place: Path, kind: str) -> Path:
        """The tree that is current at a place, and this process noted as one that reads it."""
        with registry.alone(self._notes, _LOCK_SECONDS):
            current = Trees(place).current()
            if current is None:
                raise Stop(NOTHING_COMMITTED, "nothing has been committed on this volume yet")
            registry.note(self._notes, kind)
        registry.poke(self._run_dir)
        return current

    def _become_rsync(self, way: str, directory: Path, command: str) -> NoReturn:
        """Let Debian's rrsync judge the options, then become the rsync it wants to run."""

        def execute(program: str, *argv: str) -> NoReturn:
            # rrsync 3.5 adds --drop-D so that no device is ever made; --fake-super never makes one, and with
            # --drop-D those in the host's archive would silently be missing from its backup.
            options, paths = argv[: argv.index("--")], argv[argv.index("--") :]
            os.execv(program, [*(option for option in options if option != "--drop-D"), *paths])  # noqa: S606

        registry.poke(self._run_dir)
        os.chdir("/")  # rrsync appends to a log file should one lie in its current folder
        os.environ["SSH_ORIGINAL_COMMAND"] = command
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        # -no-lock: rrsync's own lock outlives a dead connection, ours is ended by the next begin; and only
        # with it rrsync becomes rsync, so that rsync keeps the note's lock.
        sys.argv = [str(self._rrsync), "-no-lock", way, str(directory)]
        os.execlp = execute  # type: ignore[assignment]
        with suppress(SystemExit):
            runpy.run_path(str(self._rrsync), run_name="__main__")
        raise Stop(REFUSED, "refused")

    def _transfers(self) -> list[registry.Command]:
        return [c for c in registry.under_way(self._notes) if c.kind in registry.TRANSFERS]

    def _say(self, *lines: str) -> None:
        with suppress(BrokenPipeError):  # the client is gone; what it asked for is done all the same
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()

    def _clean(self, noted: int) -> None:
        """Remove trash in a process of its own: the host's answer, and the window's end, don't wait for it."""
        trash = self._trees.retire()
        if not trash or os.fork():
            return
        os.close(noted)
        os.setsid()
        registry.note(self._notes, "clean")
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.nice(19)
        os.execvp("rm", ["rm", "-rf", "--", *map(str, trash)])  # noqa: S606


def _is_mounted(place: Path) -> bool:
    # A symlink is a rootless agent's mark of a volume that is a plain folder; only the agent can make one.
    return place.is_symlink() or place.is_mount()


def _tell(code: int, message: str) -> int:
    with suppress(OSError):
        sys.stderr.write(f"nightvault: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
