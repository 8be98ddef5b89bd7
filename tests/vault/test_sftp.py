"""The archive over SFTP: each host its own committed tree, to read. Through the real sshd, sftp and sshfs."""

import os
import re
import shutil
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.test_isolation import SECRET, Both, no_secret, two, unharmed  # noqa: F401 # fixtures
from tests.vault.vaults import Host, Machine, Rootless

Vault = Machine | Rootless
Ask = Callable[..., tuple[int, bytes]]

needs_fuse = pytest.mark.skipif(
    not all(map(shutil.which, ("sshfs", "fusermount3", "gocryptfs"))) or not os.access("/dev/fuse", os.W_OK),
    reason="needs sshfs, gocryptfs and /dev/fuse",
)


def shown_at(vault: Vault) -> str:
    """Where a host's tree is, to the host."""
    return "" if vault.single else "/archive"


def text(*strings: bytes | str) -> bytes:
    """Strings as SFTP sends them."""
    raw = [os.fsencode(string) for string in strings]
    return b"".join(struct.pack(">I", len(string)) + string for string in raw)


@contextmanager
def session(host: Host) -> Iterator[tuple[Ask, "subprocess.Popen[bytes]"]]:
    """A session as bytes: `ask(kind, content)` gives the answer's kind and content."""
    command = [*replace(host, shared=None).ssh_command(), "-s", f"{host.reader}@127.0.0.1", "sftp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin and client.stdout
        to, fro = client.stdin, client.stdout

        def ask(kind: int, content: bytes = b"") -> tuple[int, bytes]:
            packet = bytes([kind]) + struct.pack(">I", 7) + content
            to.write(struct.pack(">I", len(packet)) + packet)
            to.flush()
            answer = fro.read(struct.unpack(">I", fro.read(4))[0])
            return answer[0], answer[5:]

        try:
            assert ask(1)[0] == 2
            yield ask, client
        finally:
            client.kill()


def status(answer: tuple[int, bytes]) -> int:
    """The code of a STATUS; -1 of what is none."""
    return int(struct.unpack_from(">I", answer[1])[0]) if answer[0] == 101 else -1


def test_reads_its_own_tree(two: Both, tmp_path: Path) -> None:  # noqa: F811
    vault, c, _h = two
    at = shown_at(vault)
    got = c.sftp("pwd", "ls -l", f"get secret {tmp_path}/one", f"get {at}/secret {tmp_path}/two")
    assert got.returncode == 0, got.stderr
    assert f"Remote working directory: {at or '/'}\n" in got.stdout
    assert re.search(r"^-rw-r--r-- .* 4 .* secret$", got.stdout, re.MULTILINE)
    assert {(tmp_path / name).read_text() for name in ("one", "two")} == {"mine"}


def test_writes_nothing(two: Both, tmp_path: Path) -> None:  # noqa: F811
    vault, c, _h = two
    (tmp_path / "new").write_text("new")
    before = vault.state(c)
    for line in (
        f"put {tmp_path}/new",
        f"put {tmp_path}/new secret",
        f"put {tmp_path}/new /new",
        f"reput {tmp_path}/new secret",
        "rm secret",
        "rename secret other",
        "mkdir folder",
        "rmdir .",
        "chmod 777 secret",
        "chown 0 secret",
        "ln secret hard",
        "ln -s secret soft",
    ):
        assert c.sftp(line).returncode != 0, line
    for program in ("scp", "scp -O"):
        name, *options = program.split()
        command = [*c.sftp_command(name), *options, f"{tmp_path}/new", f"{c.reader}@127.0.0.1:new"]
        assert subprocess.run(command, capture_output=True, check=False, timeout=20).returncode != 0, program
    with session(c) as (ask, _):
        mode = struct.pack(">II", 4, 0o777)
        for flags in (2, 3, 4 | 2, 8, 8 | 1, 16 | 1, 16 | 8 | 2, 32 | 8 | 2):
            assert status(ask(3, text("secret") + struct.pack(">II", flags, 0))) > 0, flags
        kind, handle = ask(3, text("secret") + struct.pack(">II", 1, 0))
        assert kind == 102
        for kind, content in (
            (6, handle + struct.pack(">Q", 0) + text("new")),
            (9, text("secret") + mode),
            (10, handle + mode),
            (13, text("secret")),
            (14, text("folder") + mode),
            (15, text(".")),
            (18, text("secret", "other")),
            (20, text("secret", "soft")),
            (200, text("posix-rename@openssh.com", "secret", "other")),
            (200, text("hardlink@openssh.com", "secret", "other")),
            (200, text("lsetstat@openssh.com", "secret") + mode),
            (200, text("fsync@openssh.com") + handle),
            (200, text("copy-data") + handle + struct.pack(">QQ", 0, 0) + handle + struct.pack(">Q", 0)),
        ):
            assert status(ask(kind, content)) > 0, (kind, content)
    assert vault.state(c) == before


@pytest.mark.usefixtures("unharmed")
def test_sees_nothing_else(two: Both, tmp_path: Path) -> None:  # noqa: F811
    vault, c, h = two
    listed = c.sftp("ls -1a /").stdout.split("\n")[1:]
    assert {Path(name).name for name in listed} - {"", ".", ".."} == ({"secret"} if vault.single else {"archive"})
    for number, path in enumerate(
        (
            "/etc/passwd",
            "../../etc/passwd",
            "/archive/../../../../etc/passwd",
            "/proc/self/environ",
            "/proc/1/root/etc/passwd",
            "../../H/archive/secret",
            "/../H/archive/secret",
            "/H/current/secret",
            "/mnt/H/current/secret",
            f"{vault.volume(h)}/current/secret",
            f"{vault.volume(h).resolve()}/current/secret",
            "../committed.json",
            "../staging/secret",
            "secret/../../H/secret",
            "/dev/zero",
        )
    ):
        place = tmp_path / str(number)
        place.mkdir()
        assert c.sftp(f"get -r {path} {place}/").returncode != 0, path
        assert c.sftp(f"ls -la {path}").returncode != 0, path
        assert list(place.iterdir()) == [], path
    with session(c) as (ask, _):
        # What OpenSSH's server answers besides: nothing of it tells of the vault.
        for content in (
            text("statvfs@openssh.com", "/"),
            text("limits@openssh.com"),
            text("expand-path@openssh.com", "~root/x"),
            text("users-groups-by-id@openssh.com") + text(struct.pack(">II", 0, c.uid), struct.pack(">I", 0)),
            text("no-such@openssh.com"),
        ):
            answer = ask(200, content)[1]
            assert not any(word in answer for word in (b"/root", b"nv20", b"root:", SECRET.encode())), content
        assert status(ask(19, text("secret"))) > 0  # READLINK
        # OpenSSH hangs up on a path with a NUL.
        for path in ("a" * 5000, *(["etc\0passwd"] if isinstance(vault, Rootless) else [])):
            assert status(ask(17, text(path))) > 0, path


@pytest.mark.usefixtures("unharmed")
def test_follows_no_symlink(two: Both, tmp_path: Path) -> None:  # noqa: F811
    """A pushed one is a small plain file; and should there ever be a real one, it leads nowhere."""
    vault, c, h = two
    victim = str(vault.volume(h).resolve() if isinstance(vault, Rootless) else "/mnt/H")
    links = {"etc": "/etc", "passwd": "/etc/passwd", "h": f"{victim}/current", "up": "../../H/current", "root": "/"}
    source = tmp_path / "source"
    source.mkdir()
    (source / "secret").write_text("mine")
    for name, target in links.items():
        (source / name).symlink_to(target)
    vaults.back_up(c, source, str(uuid.uuid4()))
    wait_until(lambda: "passwd" in c.sftp("ls -1").stdout)
    got = c.sftp("get passwd " + str(tmp_path / "passwd"))
    assert (got.returncode, (tmp_path / "passwd").read_text()) == (0, "/etc/passwd")
    real = vault.volume(c) / "current"
    for name, target in links.items():
        (real / f"real-{name}").symlink_to(target)
    back = tmp_path / "back"
    back.mkdir()
    for path in ("etc/passwd", "passwd", "h/secret", "up/secret", "root/etc/passwd", "root/mnt/H/current/secret"):
        for line in (f"get -r real-{path} {back}/", f"get -r {shown_at(vault)}/real-{path} {back}/"):
            assert c.sftp(line).returncode != 0, line
    assert list(back.iterdir()) == []
    for name in links:
        (real / f"real-{name}").unlink()
    assert no_secret(back)


@pytest.mark.usefixtures("unharmed")
def test_the_account_that_reads_runs_nothing(two: Both) -> None:  # noqa: F811
    vault, c, h = two
    if isinstance(vault, Rootless):
        pytest.skip("rootless, there is one account: test_isolation.py")
    c = replace(c, user=c.reader, shared=None)
    asked: list[tuple[list[str], list[str]]] = [
        (["-tt"], []),
        (["-tt"], ["id"]),
        (["-T"], ["/bin/sh", "-i"]),
        (["-s"], ["shell"]),
        ([], ["id"]),
        ([], ["internal-sftp"]),
        ([], ["/usr/lib/openssh/sftp-server"]),
        ([], ["rsync --server --sender -e.L . /"]),
        ([], ["begin", str(uuid.uuid4())]),
    ]
    for options, command in asked:
        said = c.ssh(*command, options=options, text="id\nexit\n")
        assert said.returncode != 0, (options, command)
        assert "uid=" not in said.stdout
    # And with another host's name.
    assert replace(c, reader=h.reader).sftp("ls").returncode == 255


def test_is_shown_what_is_current(vault: Vault, tmp_path: Path) -> None:
    """A new commit, and a restore point that comes and goes. A session that is open sees one tree, and ends."""
    [host] = vaults.mounted(vault, "C")
    assert host.sftp("ls file").returncode != 0  # nothing yet
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("first")

    def is_shown(what: str) -> bool:
        got = host.sftp(f"get file {tmp_path}/got")
        return got.returncode == 0 and (tmp_path / "got").read_text() == what

    vaults.back_up(host, source, str(uuid.uuid4()))
    wait_until(lambda: is_shown("first"))
    point = vault.restore_point(host)
    (source / "file").write_text("second")
    with session(host) as (ask, client):
        assert status(ask(17, text("file"))) == -1
        vaults.back_up(host, source, str(uuid.uuid4()))
        client.wait(10)
    wait_until(lambda: is_shown("second"))
    with session(host) as (_, client):
        vault.cloud.order(host, restores=[point])
        vault.poke()
        vault.cloud.wait_restores(point)
        assert is_shown("first")
        if isinstance(vault, Machine):
            client.wait(10)
    before = len(vault.cloud.reports)
    with session(host) as (_, client):
        vault.cloud.order(host, restores=[])
        vault.poke()
        client.wait(10)
    vault.cloud.wait_restores(after=before)
    assert is_shown("second")


@pytest.mark.parametrize("how", ["stopped", "not ordered"])
def test_sessions_end_with_the_volume(vault: Vault, tmp_path: Path, how: str) -> None:
    [host] = vaults.mounted(vault, "C")
    (tmp_path / "source").mkdir()
    vaults.back_up(host, tmp_path / "source", str(uuid.uuid4()))
    wait_until(lambda: host.sftp("ls").returncode == 0)
    with session(host) as (_, client):
        if how == "stopped":
            assert vault.stop_agent() == 0
        else:
            vault.cloud.order()
            vault.poke()
        client.wait(10)
    wait_until(lambda: host.sftp("ls").returncode != 0)
    if isinstance(vault, Machine):
        assert not re.search(" /mnt/(C|[.])", vault.run("cat", "/proc/mounts").stdout)


def test_a_host_that_got_past_its_gate_is_shown_no_other_tree(machine: Machine, tmp_path: Path) -> None:
    """It may write to its volume's root, then; what it puts there for root to follow is looked at first."""
    c, h = vaults.mounted(machine, "C", "H")
    source, run_id = tmp_path / "source", str(uuid.uuid4())
    source.mkdir(mode=0o755)
    (source / "secret").write_text(SECRET)
    for host in (c, h):
        vaults.back_up(host, source, run_id)
    wait_until(lambda: c.sftp("ls secret").returncode == 0)
    name = f"tree.{uuid.uuid4()}"
    script = f"cd /mnt/C && ln -s /mnt/H/tree.{run_id} {name} && ln -s {name} x && mv -T x current"
    done = machine.run("setpriv", f"--reuid={c.uid}", "--regid=nightvault", "--clear-groups", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    machine.poke()
    wait_until(lambda: "is no folder of its volume" in machine.log.read_text())
    assert c.sftp("ls secret").returncode != 0
    assert "/mnt/.sftp/C" not in machine.run("cat", "/proc/mounts").stdout
    assert "/mnt/.sftp/.new" not in machine.run("cat", "/proc/mounts").stdout
    assert h.sftp("ls secret").returncode == 0


def test_an_idle_session_is_no_transfer(vault: Vault, tmp_path: Path) -> None:
    """So a mount in use keeps its lease, and a forgotten one lets the vault sleep."""
    [host] = vaults.mounted(vault, "C", sftp_idle_seconds=1)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(3_000_000))
    vaults.back_up(host, source, str(uuid.uuid4()))
    vault.cloud.wait_for(lambda report: report["commits"] and not report["transfers"])
    with session(host) as (ask, client):
        _, handle = ask(3, text("file") + struct.pack(">II", 1, 0))
        before = len(vault.cloud.reports)
        for offset in range(0, 3_000_000, 30_000):
            kind, _ = ask(5, handle + struct.pack(">QI", offset, 30_000))
            assert kind == 103
            if offset == 300_000:
                told = vault.cloud.wait_for(lambda report: report["transfers"], after=before)
                assert told["transfers"][0]["host"] == "C"
        vault.cloud.wait_for(
            lambda report: report["transfers"] and report["transfers"][0]["transfer_bytes"] > 2_000_000, after=before
        )
        before = len(vault.cloud.reports)
        vault.cloud.wait_for(lambda report: not report["transfers"], after=before)
        assert client.poll() is None
        before = len(vault.cloud.reports)
        assert ask(5, handle + struct.pack(">QI", 0, 1000))[0] == 103
        vault.cloud.wait_for(lambda report: report["transfers"], after=before)


@contextmanager
def fuse(*command: str, at: Path) -> Iterator[Path]:
    """A FUSE filesystem, mounted by a command that ends once it is."""
    at.mkdir()
    subprocess.run([*command, str(at)], check=True, timeout=30)
    try:
        yield at
    finally:
        # A filesystem that stood on it may still be letting go.
        wait_until(lambda: subprocess.run(["fusermount3", "-q", "-u", str(at)], check=False).returncode == 0, 30)


@needs_fuse
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_browsing_with_sshfs_and_gocryptfs(vault: Vault, tmp_path: Path, mode: str) -> None:
    plain, cipher, password = tmp_path / "plain", tmp_path / "cipher", tmp_path / "password"
    password.write_text("secret\n")
    crypt = ("gocryptfs", "-q", "-passfile", str(password))

    def fill(folder: Path) -> None:
        (folder / "a folder" / ("n" * 200)).mkdir(parents=True)
        (folder / "a folder" / ("n" * 200) / "big").write_bytes(os.urandom(5_000_000))
        (folder / "empty").touch()
        (folder / "ümlaut\nline").write_text("x")
        (folder / "link").symlink_to("empty")
        (folder / "hard").hardlink_to(folder / "ümlaut\nline")

    [host] = vaults.mounted(vault, "C")
    if mode == "forward":
        cipher.mkdir()
        subprocess.run([*crypt, "-init", str(cipher)], check=True, capture_output=True)
        with fuse(*crypt, str(cipher), at=plain) as folder:
            fill(folder)
            want = files(folder)
        vaults.back_up(host, cipher, str(uuid.uuid4()))
    else:
        plain.mkdir()
        fill(plain)
        subprocess.run([*crypt, "-init", "-reverse", str(plain)], check=True, capture_output=True)
        want = files(plain)
        del want[".gocryptfs.reverse.conf"]
        with fuse(*crypt, "-reverse", str(plain), at=cipher) as folder:
            vaults.back_up(host, folder, str(uuid.uuid4()))
    wait_until(lambda: "gocryptfs.conf" in host.sftp("ls -1").stdout)
    with (
        fuse(*host.sftp_command("sshfs"), "-o", "ro", f"{host.reader}@127.0.0.1:", at=tmp_path / "far") as far,
        fuse(*crypt, "-ro", str(far), at=tmp_path / "browsed") as browsed,
    ):
        got = files(browsed)
        # A symlink is a plain file in the archive, which holds its encrypted target: `restore` makes it a link again.
        assert want.pop("link") == b"-> empty"
        assert got.pop("link").startswith(b"error")
        assert got == want
        with pytest.raises(OSError):  # whichever way it is said
            (browsed / "new").touch()


def files(folder: Path) -> dict[str, bytes]:
    """Contents by path."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}".encode()
        elif path.is_file():
            try:
                found[name] = path.read_bytes()
            except OSError as error:
                found[name] = f"error {error.errno}".encode()
    return found
