"""Every line of the gate's table (docs/protocol.md), through a real sshd."""

import json
import os
import shlex
import signal
import stat
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.vaults import Host, Machine, Rootless

Vault = Machine | Rootless


def run() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_bytes(os.urandom(100_000))
    (tree / "small").write_text("first")
    return tree


@pytest.fixture
def back(tmp_path: Path) -> Path:
    folder = tmp_path / "back"
    folder.mkdir()
    return folder


def test_a_night(vault: Vault, source: Path, back: Path) -> None:
    vault.cloud.order(report_every_seconds=60)  # so what is reported sooner was news, told at once
    [host] = vaults.mounted(vault, "C")
    first = run()
    begun = host.ssh("begin", first)
    assert begun.returncode == 0
    word, free, links = begun.stdout.splitlines()
    assert (word, links) == ("fresh", "hard_links 0")
    name, amount = free.split()
    assert (name, int(amount) > 1024 * 1024) == ("free_bytes", True)
    # rsync has exit codes of its own for a remote that went away (12 or 255); what the gate said is on stderr.
    assert "nothing has been committed" in host.pull(back).stderr
    assert host.ssh("rsync --server --sender -e.LsfxCIvu . /").returncode == 66
    assert host.push(source).returncode == 0
    assert host.ssh("commit", run()).returncode == 3
    committed = host.ssh("commit", first)
    assert (committed.returncode, committed.stdout) == (0, "committed\n")
    again = host.ssh("commit", first)
    assert (again.returncode, again.stdout) == (0, "committed\n")
    vault.cloud.wait_for(lambda report: report["commits"] == [{"host": "C", "run_id": first}])
    assert host.pull(back).returncode == 0
    assert vaults.listing(back) == vaults.listing(source)
    for kind in ("began", "ended"):
        vault.cloud.wait_for(lambda report, kind=kind: bool(report["transfers"]) == (kind == "began"))  # type: ignore[misc]

    # The next night: staging is what is current; a commit of nothing pushed changes nothing.
    second = run()
    assert host.ssh("begin", second).stdout.startswith("fresh\n")
    (source / "small").write_text("second")
    (source / "folder" / "file").unlink()
    assert host.push(source).returncode == 0
    # While it is under way the old one is what is pulled, and after its commit the new one; the old one goes.
    assert host.pull(back, "--delete").returncode == 0
    assert (back / "small").read_text() == "first"
    assert host.ssh("commit", second).returncode == 0
    assert host.pull(back, "--delete").returncode == 0
    assert vaults.listing(back) == vaults.listing(source)
    root = vault.volume(host)
    wait_until(lambda: {p.name for p in root.iterdir()} == {f"tree.{second}", "current", "committed.json"})
    commit = json.loads((root / "committed.json").read_text())
    assert (commit["run_id"], commit["change"]["files_deleted"], commit["change"]["files_changed"]) == (second, 1, 1)

    seen = len(vault.cloud.reports)
    assert vault.stop_agent() == 0
    last = vault.cloud.wait_for(lambda report: report["state"] == "stopping", after=seen)
    assert last["commits"] == [{"host": "C", **commit}]
    assert host.ssh("begin", run()).returncode != 0  # nobody is let in any more


REFUSED = [
    ["sh"],
    ["id"],
    ["true"],
    ["begin"],
    ["begin", "x"],
    ["begin", "../../../../tmp/aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"],
    ["begin", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "more"],
    ["begin aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\nid"],
    ["begin aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa; id"],
    ["commit"],
    ["commit", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa/"],
    ["rsync"],
    ["rsync", "--daemon", "--server", "."],
    ["rsync --server --daemon ."],
    ["rsync  --server -e.LsfxCIvu . ."],
    ["rsync --server --super -logDtpre.iLsfxCIvu . ."],
    ["rsync --server -s"],
    ["scp", "-t", "."],
    ["/usr/lib/openssh/sftp-server"],
    ["gate.py", "H"],
]


def test_anything_else_is_refused(vault: Vault) -> None:
    [host] = vaults.mounted(vault, "C")
    host.ssh("begin", run())
    assert host.ssh(text="id\n").returncode == 126  # no command: a shell
    with tempfile.TemporaryDirectory(prefix="nv") as short:
        host.shared = Path(short, "s")
        for command in REFUSED:
            _refused(host, command)
        host.hang_up()


def _refused(host: Host, command: list[str]) -> None:
    said = host.ssh(*command, text="id\n")
    assert (said.returncode, said.stdout) == (126, ""), command
    assert said.stderr.endswith("nightvault: refused\n"), command


def test_a_volume_that_is_not_mounted(vault: Vault, source: Path) -> None:
    host = vault.host("C")
    vault.cloud.order(host)
    vault.start_agent()
    vault.cloud.wait_for(lambda report: [mount["state"] for mount in report["mounts"]] == ["absent"])
    for said in (host.ssh("begin", run()), host.ssh("commit", run()), host.ssh("rsync --server -r . .")):
        assert said.returncode == 75
        assert "not mounted" in said.stderr
    assert "not mounted" in host.push(source).stderr
    assert not vault.volume(host).exists() or not list(vault.volume(host).iterdir())
    # The disk comes: nobody has to be told.
    before = len(vault.cloud.reports)
    vault.attach(host.volume_id)
    vault.cloud.wait_mounted(host, after=before)
    assert host.ssh("begin", run()).returncode == 0


def stuck_push(vault: Vault, host: Host, source: Path) -> subprocess.Popen[bytes]:
    """A push whose client is stopped in its middle, like a laptop whose lid was closed."""
    (source / "big").write_bytes(os.urandom(8_000_000))
    client = subprocess.Popen(
        host.rsync_command("-a", "--inplace", "--bwlimit=4000", f"{source}/", "127.0.0.1:."),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    vault.cloud.wait_for(
        lambda report: [t["host"] for t in report["transfers"]] == [host.name] and report["transfers"][0]["live"]
    )
    os.killpg(client.pid, signal.SIGSTOP)
    return client


def test_begin_ends_an_older_transfer(vault: Vault, source: Path) -> None:
    [host] = vaults.mounted(vault, "C")
    old = run()
    host.ssh("begin", old)
    client = stuck_push(vault, host, source)
    try:
        assert host.ssh("commit", old).returncode == 75
        assert "another push" in host.push(source).stderr
        seen = len(vault.cloud.reports)
        new = host.ssh("begin", run())
        assert (new.returncode, new.stdout.split()[0]) == (0, "resumed")
        vault.cloud.wait_for(lambda report: report["transfers"] == [], after=seen)
        assert host.push(source).returncode == 0
        assert host.ssh("commit", old).returncode == 3
    finally:
        os.killpg(client.pid, signal.SIGKILL)
        client.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_cut_push_is_resumed(vault: Vault, source: Path, back: Path, number: signal.Signals) -> None:
    [host] = vaults.mounted(vault, "C")
    first = run()
    vaults.back_up(host, source, first)
    before = vaults.listing(source)
    host.ssh("begin", run())
    (source / "big").write_bytes(os.urandom(12_000_000))
    (source / "small").write_text("of another size, so that rsync sees it within the same second")
    client = subprocess.Popen(
        host.rsync_command("-a", "--inplace", "--bwlimit=16000", f"{source}/", "127.0.0.1:."),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    staged = vault.volume(host) / "staging" / "big"
    wait_until(lambda: staged.exists() and staged.stat().st_size > 6_000_000)
    notes = vault.path(f"/run/nightvault/{host.name}") if isinstance(vault, Machine) else vault.base / "run" / host.name
    [note] = [path.name for path in notes.glob("push.*")]
    kill = ["kill", f"-{int(number)}", f"-{note.split('.')[1]}"]
    if isinstance(vault, Machine):
        assert vault.run("/bin/sh", "-c", shlex.join(kill)).returncode == 0
    else:
        os.killpg(int(note.split(".")[1]), number)
    assert client.wait(20) != 0
    # What is current is whole, and as it was.
    assert host.pull(back).returncode == 0
    assert vaults.listing(back) == before
    new = run()
    assert host.ssh("begin", new).stdout.split()[0] == "resumed"
    pushed = host.push(source, "--stats", "--no-whole-file")
    assert pushed.returncode == 0
    [literal] = [line for line in pushed.stdout.splitlines() if line.startswith("Literal data")]
    assert int(literal.split()[2].replace(",", "")) < 8_000_000  # of 12 million
    assert host.ssh("commit", new).returncode == 0
    assert host.pull(back).returncode == 0
    assert vaults.listing(back) == vaults.listing(source)


def test_what_a_host_pushes_comes_back_as_it_was(vault: Vault, source: Path, back: Path) -> None:
    """Owners, modes, devices, attributes, links: through a push, a reflink copy, and a pull."""
    (source / "link").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("no/such/thing")
    (source / "hard").hardlink_to(source / "small")
    (source / "odd\nname \\ \"'").write_text("odd")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "small", "user.note", b"kept")
    (source / "readonly").mkdir()
    (source / "readonly" / "file").write_text("x")
    (source / "small").chmod(0o000)
    if os.geteuid() == 0:
        os.mknod(source / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(source / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        for number, path in enumerate(sorted(source.rglob("*"))):
            os.chown(path, 1000 + number, 2000 + number, follow_symlinks=False)
        os.setxattr(source / "folder", "trusted.note", b"dropped or kept, never an error")
        os.removexattr(source / "folder", "trusted.note")
    (source / "folder" / "file").chmod(0o6755)
    (source / "readonly").chmod(0o555)
    want = vaults.listing(source)
    [host] = vaults.mounted(vault, "C")
    vaults.back_up(host, source, run())
    second = run()
    host.ssh("begin", second)
    # `begin` parted the hard links in its reflink copy; all else in it is as it was, and this joins them again.
    again = host.push(source, "--itemize-changes")
    sent = [line for line in again.stdout.splitlines() if not line.startswith((".d..t", "hf"))]
    assert (again.returncode, sent) == (0, [])
    assert host.ssh("commit", second).returncode == 0
    assert host.pull(back).returncode == 0
    assert vaults.listing(back) == want
    # On the vault all of it is data: no link to follow, no device, nothing setuid.
    kinds = {(stat.S_IFMT(p.lstat().st_mode), p.lstat().st_mode & 0o7000) for p in vault.volume(host).rglob("*/*")}
    assert kinds <= {(stat.S_IFREG, 0), (stat.S_IFDIR, 0)}


def test_a_committed_backup_survives_the_plug(machine: Machine, source: Path) -> None:
    """After "committed", what is on the disk that instant is the new tree, whole: no unmount, no sync."""
    [host] = vaults.mounted(machine, "C")
    new = run()
    vaults.back_up(host, source, new)
    pulled = machine.image("vol-0badc0ffee0000000", 1)
    subprocess.run(["cp", "--sparse=always", machine.base / f"{host.volume_id}.img", pulled], check=True)
    machine.tell(do="attach", volume_id="vol-0badc0ffee0000000", image=str(pulled))
    script = "mkdir /srv/plug && mount -t xfs -o nouuid /srv/dev/vol-0badc0ffee0000000 /srv/plug"
    assert machine.run("/bin/sh", "-c", script).returncode == 0
    root = machine.path("/srv/plug")
    assert json.loads((root / "committed.json").read_text())["run_id"] == new
    for path in ("small", "folder/file"):
        assert (root / f"tree.{new}" / path).read_bytes() == (source / path).read_bytes()
    assert os.readlink(root / "current") == f"tree.{new}"  # noqa: PTH115
