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


@pytest.mark.skipif(not may_root(), reason="needs root and namespaces: it installs into /usr/local/bin")
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_script_installs_and_enrols(cloud: LocalCloud, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"{shell} is not installed")
    printed = vaultctl("enroll", "C", "--install", invoke=OnLocalCloud(cloud))
    assert printed.exit_code == 0
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
    for folder in ("bin", "lib"):
        (tmp_path / folder).mkdir()
    # A machine of its own as far as the script can see: nothing of this one is written to.
    stage = (
        f"set -e; mount --bind {tmp_path}/etc /etc; mount --bind {tmp_path}/bin /usr/local/bin; "
        f"mount --bind {tmp_path}/lib /var/lib; exec {shell}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", stage], input=printed.out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "enrolled as C" in done.stdout
    assert (tmp_path / "bin" / "nightvault").read_text().rstrip() == CLIENT.read_text().rstrip()
    assert os.access(tmp_path / "bin" / "nightvault", os.X_OK)
    second = CLIENT.with_name("nightvault-restore").read_text()
    assert (tmp_path / "bin" / "nightvault-restore").read_text().rstrip() == second.rstrip()
    config = tmp_path / "etc" / "nightvault" / "config"
    assert config.read_text().rstrip() == (CLIENT.parent / "config.sample").read_text().rstrip()
    assert config.stat().st_mode & 0o077 == 0
    assert (tmp_path / "lib" / "nightvault" / "enrolment").exists()
    assert not Path("/etc/nightvault/config").exists() or config != Path("/etc/nightvault/config")
    assert [each["name"] for each in cloud.operate("hosts")["hosts"]] == ["C"]


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
