"""What operators paste on a host really enrols it: the printed line and script, run by real shells."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.player import CLIENT, Player
from tests.e2e.nights import SMALL
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root
from tests.vaultctl.helm import OnLocalCloud, vaultctl
from vaultctl import hostline
from vaultctl.failures import Exit, Failure


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "cloud", machines=False) as made:
        yield made


def commands(player: Player, to: Path) -> dict[str, str]:
    """`sudo` and `nightvault` as the host has them: sudo tells what it was given, as its log would."""
    to.mkdir()
    (to / "sudo").write_text(f'#!/bin/sh\necho "$*" >>{to}/sudo.log\nexec "$@"\n')
    (to / "nightvault").write_text(f'#!/bin/sh\nexec {player.client} -c {player.config} "$@"\n')
    for each in to.iterdir():
        each.chmod(0o755)
    return {**os.environ, "PATH": f"{to}:{os.environ['PATH']}"}


def test_the_line_enrols_and_its_code_is_in_no_log(cloud: LocalCloud, tmp_path: Path) -> None:
    player = Player("C", SMALL, tmp_path / "C", cloud.url)
    player.furnish()
    environment = commands(player, tmp_path / "bin")
    printed = vaultctl("enroll", "C", "--size-gib", "2", "--every", "12h", invoke=OnLocalCloud(cloud))
    assert printed.exit_code == 0
    assert printed.out.count("\n") == 1, "a line, so that it can be piped to ssh"
    done = subprocess.run(["sh", "-c", printed.out], env=environment, capture_output=True, text=True, check=False)
    assert "enrolled as C" in done.stdout, done.stderr
    (host,) = cloud.operate("hosts")["hosts"]
    assert (host["name"], host["size_gib"], host["max_size_gib"], host["every_seconds"]) == ("C", 2, 20, 43200)
    code = printed.out.split()[1]
    assert code not in (tmp_path / "bin" / "sudo.log").read_text()
    again = subprocess.run(["sh", "-c", printed.out], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2, "it is enrolled already, and says so"


# A shell, and what the host has: no client, that of one file, that of two.
EARLIER = [
    ("dash", {}),
    ("bash", {"nightvault": "echo one\n"}),
    ("busybox sh", {"nightvault": "echo two\n", "nightvault-restore": "echo second\n"}),
]
needs_root = pytest.mark.skipif(not may_root(), reason="needs root and namespaces: it installs into /usr/local/bin")


def on_a_machine(script: str, tmp_path: Path, shell: str, room: str = "16m") -> subprocess.CompletedProcess[str]:
    """Runs it by `shell` on a machine of its own as far as it can see: nothing of this one is written to. Its
    /usr/local/bin is a disk that has `room`, and holds what is in `tmp_path`/bin, then and before.
    """
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"{shell} is not installed")
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
    (tmp_path / "lib").mkdir()
    stage = (
        f"set -e; mount --bind {tmp_path}/etc /etc; mount --bind {tmp_path}/lib /var/lib; "
        f"mount -t tmpfs -o size={room} tmpfs /usr/local/bin; cp -a {tmp_path}/bin/. /usr/local/bin; "
        f"rc=0; {shell} || rc=$?; rm -r {tmp_path}/bin; cp -a /usr/local/bin {tmp_path}/bin; exit $rc"
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", stage], input=script, capture_output=True, text=True, check=False
    )


def install_earlier(files: dict[str, str], to: Path) -> None:
    to.mkdir()
    for name, text in files.items():
        (to / name).write_text(text)


@needs_root
@pytest.mark.parametrize(("shell", "earlier"), EARLIER)
def test_the_script_installs_and_enrols(cloud: LocalCloud, tmp_path: Path, shell: str, earlier: dict[str, str]) -> None:
    printed = vaultctl("enroll", "C", "--install", invoke=OnLocalCloud(cloud))
    assert printed.exit_code == 0
    install_earlier(earlier, tmp_path / "bin")
    done = on_a_machine(printed.out, tmp_path, shell)
    assert done.returncode == 0, done.stderr
    assert "enrolled as C" in done.stdout
    assert (tmp_path / "bin" / "nightvault").read_text().rstrip() == CLIENT.read_text().rstrip()
    assert os.access(tmp_path / "bin" / "nightvault", os.X_OK)
    scripts = sorted(CLIENT.parent.glob("nightvault*"))
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == [path.name for path in scripts]
    for script in scripts:
        assert (tmp_path / "bin" / script.name).read_text().rstrip() == script.read_text().rstrip()
    config = tmp_path / "etc" / "nightvault" / "config"
    assert config.read_text().rstrip() == (CLIENT.parent / "config.sample").read_text().rstrip()
    assert config.stat().st_mode & 0o077 == 0
    assert (tmp_path / "lib" / "nightvault" / "enrolment").exists()
    assert not Path("/etc/nightvault/config").exists() or config != Path("/etc/nightvault/config")
    assert [each["name"] for each in cloud.operate("hosts")["hosts"]] == ["C"]


@needs_root
@pytest.mark.parametrize(("shell", "earlier"), EARLIER)
def test_a_full_disk_leaves_the_older_client_whole(tmp_path: Path, shell: str, earlier: dict[str, str]) -> None:
    """There is room for most of the parts, and not for all."""
    install_earlier(earlier, tmp_path / "bin")
    script = hostline.script("https://example.org/api", "code", CLIENT)
    done = on_a_machine(script, tmp_path, shell, room=f"{len(script) * 3 // 4096}k")
    assert done.returncode != 0
    assert "space" in done.stderr
    assert {path.name: path.read_text() for path in (tmp_path / "bin").iterdir()} == earlier


def test_a_script_that_was_cut_short_does_nothing(tmp_path: Path) -> None:
    whole = hostline.script("https://example.org/api", "code", CLIENT)
    marker = tmp_path / "made"
    for end in range(0, len(whole) - len("main; exit\n"), 997):
        cut = whole[:end].replace("/usr/local/bin", str(marker)).replace("/etc/nightvault", str(marker))
        subprocess.run(["sh"], input=cut, capture_output=True, text=True, check=False)
        assert not marker.exists()


def test_the_script_passes_shellcheck(tmp_path: Path) -> None:
    script = tmp_path / "install.sh"
    script.write_text(hostline.script("https://example.org/api", "co'de", CLIENT))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, script], check=True)


def test_what_shells_would_take_apart_is_quoted() -> None:
    line = hostline.line("https://example.org/a b", "it's; rm", again=True)
    words = subprocess.run(
        ["sh", "-c", f'sudo() {{ cat; printf "%s|" "$@"; }}; {line}'], capture_output=True, text=True, check=True
    )
    assert words.stdout == "it's; rm\nnightvault|enroll|--force|https://example.org/a b|-|"


def test_the_client_is_found_or_its_absence_is_named(tmp_path: Path) -> None:
    assert hostline.client(None) == CLIENT
    with pytest.raises(Failure, match=r"client: .*nowhere is no file; name the script") as missing:
        hostline.client(tmp_path / "nowhere")
    assert missing.value.exit is Exit.USAGE
    for script in CLIENT.parent.glob("nightvault*"):
        shutil.copy(script, tmp_path)
    assert hostline.client(tmp_path / "nightvault") == tmp_path / "nightvault"
    for part in tmp_path.glob("nightvault-*"):
        part.rename(tmp_path / "elsewhere")
        with pytest.raises(Failure, match=f"nightvault is not whole: {part.name} must be beside it"):
            hostline.client(tmp_path / "nightvault")
        (tmp_path / "elsewhere").rename(part)
