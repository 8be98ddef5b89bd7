"""What host C, with its own good key, can do to host H on the same vault: nothing."""

import dataclasses
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.vaults import Host, Machine, Rootless

SECRET = "the ciphertext of H"
Both = tuple[Machine | Rootless, Host, Host]


@pytest.fixture(scope="module", params=["machine", "rootless"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A vault with C and H, each with something committed and something staged; for all tests of this page."""
    if request.param == "machine" and os.geteuid() != 0:
        pytest.skip("needs root: accounts, mounts and loop devices; [rootless] asks the gate the same")
    kind = Machine if request.param == "machine" else Rootless
    with vaults.vault_of(kind, tmp_path_factory.mktemp(request.param)) as vault:
        c, h = vaults.mounted(vault, "C", "H")
        short = tempfile.mkdtemp(prefix="nv")
        c.shared = Path(short, "c")  # a unix socket's path is short
        for host, text in ((c, "mine"), (h, SECRET)):
            source = tmp_path_factory.mktemp(host.name)
            (source / "secret").write_text(text)
            source.chmod(0o755)  # so that it isn't its own mode that keeps others out
            vaults.back_up(host, source, str(uuid.uuid4()))
            host.ssh("begin", str(uuid.uuid4()))
            assert host.push(source).returncode == 0
        yield vault, c, h
        c.hang_up()
        shutil.rmtree(short)


@pytest.fixture
def alone(two: Both) -> Both:
    """The same, with a connection for each command: what is asked for is of the connection."""
    vault, c, h = two
    return vault, dataclasses.replace(c, shared=None), h


@pytest.fixture
def unharmed(two: Both) -> Iterator[None]:
    vault, _c, h = two
    before = vault.state(h)
    yield
    assert vault.state(h) == before


def no_secret(*folders: Path) -> bool:
    """Neither H's content nor anything of the machine's own came."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                text = path.read_bytes()
                if SECRET.encode() in text or b"root:" in text:
                    return False
    return True


PULLS = [
    "/../../H/current/secret",
    "/../H/staging/",
    "../../../H/staging/secret",
    "/mnt/H/staging/secret",
    "/srv/../etc/passwd",
    "/etc/passwd",
    "//etc//passwd",
    "/./../../../etc/passwd",
    "/secret/../../../H/current/secret",
    "{/secret,/../../H/current/secret}",
    "/*/../../../H/*/secret",
    "~root/",
    "$HOME/../etc/passwd",
    "`id`",
    "$(id)",
    "-s",
    "--files-from=/etc/passwd",
    ":/etc/passwd",
]


@pytest.mark.usefixtures("unharmed")
def test_reading_by_any_path(two: Both, tmp_path: Path) -> None:
    vault, c, h = two
    for number, path in enumerate([*PULLS, f"{vault.volume(h)}/staging/secret", f"{vault.volume(h).resolve()}/"]):
        for option in ("-r", "-rR", "-aL", "-ak", "-a"):
            if option != "-r" and (number + len(option)) % 4:
                continue  # each option with some paths
            back = tmp_path / f"{number}{option}"
            back.mkdir()
            c.rsync(option, f"127.0.0.1:{path}", f"{back}/")
            assert no_secret(back), (option, path)


OPTIONS = [
    "--backup-dir={h}/x -b",
    "--temp-dir={h}",
    "--partial-dir={h}",
    "--partial-dir=../../H/staging",
    "--link-dest={h}",
    "--link-dest=../../H/staging",
    "--copy-dest={h}",
    "--compare-dest={h}",
    "--write-devices",
    "-s",
    "--secluded-args",
    "--old-args",
    "-M--log-file={h}/log",
    "-M--daemon",
    "-M--config=/etc/passwd",
    "-M--files-from={h}/secret",
    "-M--super",
    "-M--keep-dirlinks",
    "-M--copy-links",
    "-M--no-fake-super",
    "-M--rsh=/bin/sh",
    "-M--sender",
    "-K",
    "--rsync-path=/bin/sh",
    "--rsync-path=rsync\\ --server\\ --sender\\ .\\ {h}",
    "--rsync-path=sh\\ -c\\ id;rsync",
    "-e.LsfxCIvu --copy-unsafe-links",
    "--remote-option=--temp-dir={h}",
    "--backup --suffix=/../../../H/x",
]


@pytest.mark.usefixtures("unharmed")
def test_writing_by_any_option(two: Both, tmp_path: Path) -> None:
    """Some of these rsync accepts, harmlessly; none writes to H's volume or brings H's content into C's."""
    vault, c, h = two
    (tmp_path / "new").write_text("from C")
    (tmp_path / "secret").write_text("x" * len(SECRET))
    os.utime(tmp_path / "secret", (1, 1))
    outside = vault.base if isinstance(vault, Rootless) else vault.path("/srv")
    names = {path.name for path in outside.iterdir()}
    for option in OPTIONS:
        victim = vault.volume(h) / "staging" if isinstance(vault, Rootless) else "/mnt/H/staging"
        c.rsync("-r", "--checksum", *option.format(h=victim).split(" ")[:2], f"{tmp_path}/", "127.0.0.1:.")
        assert no_secret(vault.volume(c)), option
    for target in ("/../../H/staging/", "../../H/staging/", "/mnt/H/staging/", f"{vault.volume(h)}/staging/", "/etc/"):
        c.rsync("-r", f"{tmp_path}/", f"127.0.0.1:{target}")
    assert {path.name for path in outside.iterdir()} == names
    assert no_secret(vault.volume(c))


@pytest.mark.usefixtures("unharmed")
def test_symlinks_that_were_pushed_are_never_followed(two: Both, tmp_path: Path) -> None:
    vault, c, h = two
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    back.mkdir()
    victim = vault.volume(h) / "staging" if isinstance(vault, Rootless) else Path("/mnt/H/staging")
    for name in ("current", "staging", "tree", "committed.json", "staging.run", "folder"):
        (source / name).symlink_to(victim)
    (source / "file").symlink_to(victim / "secret")
    (source / "up").symlink_to("../../H/staging")
    begun = str(uuid.uuid4())
    vaults.back_up(c, source, begun)
    assert c.ssh("begin", str(uuid.uuid4())).returncode == 0
    # Through them, pulling ...
    for path in ("/folder/", "/folder/secret", "/up/", "/up/secret", "/file", "/current/", "/current/secret", "/"):
        for option in ("-r", "-rL", "-rk") if path.endswith("/") else ("-r", "-rLR"):
            c.rsync(option, f"127.0.0.1:{path}", f"{back}/")
    assert no_secret(back)
    # ... and pushing.
    flat = tmp_path / "flat"
    for name in ("folder", "up", "current"):
        (flat / name).mkdir(parents=True)
        (flat / name / "planted").write_text("from C")
    for options in (["-r"], ["-rK"], ["-r", "--inplace"]):
        c.rsync(*options, f"{flat}/", "127.0.0.1:.")
        c.rsync(*options, f"{flat}/folder/planted", "127.0.0.1:folder/")
        c.rsync(*options, f"{flat}/folder/planted", "127.0.0.1:up/planted")
        c.rsync(*options, f"{flat}/folder/planted", "127.0.0.1:file")
    assert no_secret(vault.volume(c))
    # What the host pulls are its own links, as it pushed them.
    again = tmp_path / "again"
    again.mkdir()
    assert c.pull(again).returncode == 0
    assert (again / "folder").readlink() == victim


@pytest.mark.usefixtures("unharmed")
def test_no_shell_no_terminal_no_other_program(alone: Both) -> None:
    vault, c, _h = alone
    # Rootless, the gate serves SFTP itself: test_sftp.py.
    sftp = [] if isinstance(vault, Rootless) else [(["-s"], ["sftp"])]
    asked: list[tuple[list[str], list[str]]] = [
        *sftp,
        (["-tt"], []),
        (["-tt"], ["id"]),
        (["-T"], ["/bin/sh", "-i"]),
        (["-s"], ["shell"]),
        ([], ["cat", "/etc/passwd"]),
        ([], ["env"]),
        ([], ["rsync", "--version"]),
        ([], ["rsync --server --sender -e.L . /;id"]),
        ([], ["exec", "id"]),
    ]
    for options, command in asked:
        said = c.ssh(*command, options=options, text="id\nexit\n")
        assert said.returncode != 0, (options, command)
        assert "uid=" not in said.stdout + said.stderr
        assert "root:" not in said.stdout
    for program in ([] if isinstance(vault, Rootless) else ["sftp"]) + ["scp", "scp -O"]:
        name, *options = program.split()
        place = f"{c.user}@127.0.0.1:" + ("" if name == "sftp" else "/etc/passwd")
        command = [*c.sftp_command(name), *options, place, *([] if name == "sftp" else ["/dev/null"])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, input="ls\n", timeout=c.patience)
        assert done.returncode != 0, program


@pytest.mark.parametrize("account", ["gate", "reader"])
@pytest.mark.usefixtures("unharmed")
def test_no_forwarding(alone: Both, account: str) -> None:
    """-L, -R, -D, -W, a tunnel, the agent, X11: sshd itself says no, whatever key options say."""
    vault, c, _h = alone
    if account == "reader":
        if isinstance(vault, Rootless):
            pytest.skip("rootless, there is one account")
        c = dataclasses.replace(c, user=c.reader)
    with socket.socket() as inside:
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        inside.setblocking(False)
        port = inside.getsockname()[1]
        assert c.ssh(options=["-W", f"{vault.outside}:{port}"], text="hello").returncode != 0
        for option in ("-L", "-D"):
            local = vaults.free_port()
            way = f"127.0.0.1:{local}" + (f":{vault.outside}:{port}" if option == "-L" else "")
            command = [*c.ssh_command(), "-N", option, way, f"{c.user}@127.0.0.1"]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
                try:
                    wait_until(lambda local=local: _use(local, vault.outside, port), c.patience)  # type: ignore[misc]
                finally:
                    client.kill()
        with suppress(BlockingIOError):
            inside.accept()
            pytest.fail("someone came through")
    far = vaults.free_port()
    for where in (f"127.0.0.1:{far}:127.0.0.1:{far}", f"/run/{uuid.uuid4()}:127.0.0.1:{far}", str(far)):
        refused = c.ssh("x", options=["-N", "-o", "ExitOnForwardFailure=yes", "-R", where])
        assert refused.returncode != 0
        assert "forwarding failed" in refused.stderr.lower() or "disabled" in refused.stderr.lower()
    said = c.ssh("env", options=["-A", "-X", "-o", "SetEnv=LD_PRELOAD=/x NIGHTVAULT_HOST=H", "-o", "SendEnv=*"])
    assert (said.returncode, said.stdout) == (
        (126, "") if account == "gate" else (1, "This service allows sftp connections only.\n")
    )


def _use(local: int, address: str, port: int) -> bool:
    """Ask the client's own listener to bring us there, as SOCKS or as is; True once it has hung up on us."""
    try:
        with socket.create_connection(("127.0.0.1", local), 5) as way:
            way.sendall(b"\5\1\0" + b"\5\1\0\1" + socket.inet_aton(address) + port.to_bytes(2, "big"))
            while way.recv(100):
                pass
    except ConnectionRefusedError:
        return False  # the client is not that far yet
    except OSError:
        pass
    return True


@pytest.mark.usefixtures("unharmed")
def test_environment_is_not_smuggled(alone: Both, tmp_path: Path) -> None:
    """A gate that took PYTHONPATH or RSYNC_* from a host would run the host's code or options."""
    vault, c, _h = alone
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "argparse.py").write_text("raise SystemExit(42)")
    assert c.push(planted).returncode == 0
    staging = f"{vault.volume(c)}/staging" if isinstance(vault, Rootless) else "/mnt/C/staging"
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "BASH_ENV", "ENV", "HOME"):
        said = c.ssh("id", options=["-o", f"SetEnv={name}={staging}"])
        assert said.returncode == 126, name


# Each must fail for C's account, with a shell. {c} and {h} are hosts' numbers, {state} and {keys} the agent's folders.
OTHERS = (
    "ls /mnt/H",
    "cat /mnt/H/committed.json",
    "echo x > /mnt/H/x",
    "echo x > /mnt/x",
    "ls /mnt/.points",
    "ls /mnt/.sftp",
    "ls /mnt/.sftp/H",
    "cat /mnt/.sftp/H/archive/secret",
    "ls /run/nightvault/H",
    "cat {state}/token",
    "echo x >> {keys}/nv{c}",
    "echo x > {keys}/nv{h}",
    "/mnt/C/staging/secret",
    "kill -0 {agent}",
)


def test_accounts_cannot_see_each_other(two: Both) -> None:
    """Should the gate ever fail: the accounts' own rights, from a shell that the test starts inside."""
    vault, c, h = two
    if isinstance(vault, Rootless):
        pytest.skip("rootless, hosts share an account: the gate alone keeps them apart")
    agent = vault.run("pgrep", "-o", "-f", "agent.py").stdout.strip()
    for attempt in OTHERS:
        script = attempt.format(c=c.uid, h=h.uid, agent=agent, state="/srv/state", keys="/srv/keys")
        done = vault.run("setpriv", f"--reuid={c.uid}", "--regid=nightvault", "--clear-groups", "sh", "-c", script)
        assert done.returncode != 0, script
    options = vault.run("findmnt", "-n", "-o", "OPTIONS", "/mnt/C").stdout
    assert {"nosuid", "nodev", "noexec"} <= set(options.strip().split(","))


@pytest.mark.usefixtures("unharmed")
def test_with_another_hosts_name(alone: Both) -> None:
    """C's key is C's wherever it says it goes."""
    vault, c, h = alone
    if isinstance(vault, Rootless):
        pytest.skip("rootless, there is but one account to log in to")
    impostor = vaults.Host("H", h.uid, h.volume_id, c.key, f"nv{h.uid}", h.port, h.known_hosts)
    assert impostor.ssh("begin", str(uuid.uuid4())).returncode == 255
    for name in ("root", "nobody", "admin"):
        stranger = vaults.Host("H", h.uid, h.volume_id, c.key, name, h.port, h.known_hosts)
        assert stranger.ssh("begin", str(uuid.uuid4())).returncode == 255
