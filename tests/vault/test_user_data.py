"""What EC2 gives the machine: small enough, the same each time, and all the files of the folder."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import first_boot
import pytest
import user_data

from tests.vault import vaults

IMAGE = Path(user_data.__file__).resolve().parent


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    text = gzip.decompress(user_data.user_data()).decode()
    first, rest = text.split("\n", 1)
    assert first == "#cloud-config"
    # JSON is YAML as long as it escapes nothing but what both know; cloud-init reads it as YAML.
    yaml = pytest.importorskip("yaml", reason="PyYAML reads it as cloud-init will") if _has_yaml() else json
    loaded: dict[str, Any] = yaml.safe_load(rest) if yaml is not json else json.loads(rest)
    assert loaded == json.loads(rest)
    return loaded


def _has_yaml() -> bool:
    try:
        import yaml  # type: ignore[import-untyped,unused-ignore] # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def members() -> dict[str, tuple[int, str]]:
    with tarfile.open(fileobj=io.BytesIO(user_data.program())) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file
            assert (member.uid, member.gid, member.mtime, member.name[0]) == (0, 0, 0, member.name[0])
            found["/" + member.name] = (member.mode, file.read().decode())
    return found


def test_small_enough_for_ec2() -> None:
    assert len(user_data.user_data()) <= user_data.LIMIT_BYTES == 16384


def test_the_same_each_time() -> None:
    """Else every deployment would make a new launch template version. In other processes, with other hash seeds."""
    seen = {
        subprocess.run(
            [sys.executable, str(IMAGE / "user_data.py")],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert seen == {user_data.user_data()}


def test_exactly_the_files_of_the_folder(members: dict[str, tuple[int, str]]) -> None:
    """A file that someone adds to the folder is on the vault, or this test says so."""
    not_there = {"README.md", "user_data.py", "first_boot.py", "gate_sftp.py"}
    here = {path.name: path.read_text() for path in IMAGE.iterdir() if path.is_file() and path.name not in not_there}
    here |= {"agent.json": "{}\n", "sshd_config": user_data.sshd_config()}
    assert sorted(text for _mode, text in members.values()) == sorted(here.values())
    assert {path for path, (mode, _text) in members.items() if mode == 0o755} == {
        "/opt/nightvault/agent.py",
        "/opt/nightvault/drill.py",
        "/opt/nightvault/gate.py",
        "/opt/nightvault/install.sh",
    }
    assert json.loads(members["/etc/nightvault/agent.json"][1]) == {}  # it is told by the instance's tags


def test_what_it_brings_runs(members: dict[str, tuple[int, str]], tmp_path: Path) -> None:
    """As it comes out of the archive, under the machine's own Python."""
    for path, (mode, text) in members.items():
        if path.startswith("/opt/nightvault/"):
            file = tmp_path / Path(path).name
            file.write_text(text)
            file.chmod(mode)
    refused = subprocess.run([tmp_path / "gate.py", "C"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (126, "nightvault: refused\n")
    helped = subprocess.run([tmp_path / "agent.py", "--config", "/nonexistent"], capture_output=True, check=False)
    assert helped.returncode == 2


def test_the_user_data_names_this_very_program(config: dict[str, Any]) -> None:
    [[runner, *_options, python, _c, source, digest], _stages] = config["bootcmd"]
    assert (runner, python, source) == ("systemd-run", "python3", (IMAGE / "first_boot.py").read_text())
    assert "$" not in source, "systemd would expand it"
    assert digest == hashlib.sha256(user_data.program()).hexdigest()
    assert (config["users"], config["ssh_pwauth"]) == ([], False)


def test_the_first_boot_installs_what_the_vault_needs(members: dict[str, tuple[int, str]]) -> None:
    needed = re.findall(r"^    need (\S+) ", members["/opt/nightvault/install.sh"][1], re.MULTILINE)
    assert tuple(needed) == user_data.PACKAGES


@pytest.fixture
def cloud() -> Iterator[vaults.Cloud]:
    made = vaults.Cloud()
    made.metadata["tags/instance/nightvault-url"] = made.url
    yield made
    made.close()


def test_a_new_machine_fetches_its_program(cloud: vaults.Cloud) -> None:
    cloud.program = user_data.program()
    digest = hashlib.sha256(cloud.program).hexdigest()
    assert first_boot.fetch(digest, cloud.url) == cloud.program


def test_another_program_than_the_one_named_is_refused(cloud: vaults.Cloud) -> None:
    cloud.program = user_data.program()
    with pytest.raises(ValueError, match="another program"):
        first_boot.fetch("0" * 64, cloud.url)


def test_no_program_is_an_error_that_is_tried_again(cloud: vaults.Cloud) -> None:
    with pytest.raises(OSError, match="404"):
        first_boot.fetch("0" * 64, cloud.url)
    del cloud.metadata["tags/instance/nightvault-url"]
    with pytest.raises(OSError, match="404"):
        first_boot.fetch("0" * 64, cloud.url)


@pytest.mark.parametrize(("unit", "below"), [("nightvault-agent", 3.0), ("ssh", 3.0)])
def test_what_units_may_do_is_the_least(
    members: dict[str, tuple[int, str]], tmp_path: Path, unit: str, below: float
) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze; tests/vm asks the machine's own")
    name = f"/etc/systemd/system/{unit}.service"
    text = members[name if name in members else f"{name}.d/nightvault.conf"][1]
    if name not in members:  # the drop-in alone; Debian's unit takes nothing away
        text = text.replace("ExecStart=\n", "")
    (tmp_path / f"{unit}.service").write_text(text)
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={below * 10:.0f}"]
    done = subprocess.run([*command, tmp_path / f"{unit}.service"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_checks_may_do_is_the_least(members: dict[str, tuple[int, str]], tmp_path: Path) -> None:
    """They are no unit of the image, but of systemd-run's: its options as one, seen with the same eyes."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    unit = members["/etc/systemd/system/nightvault-agent.service"][1].replace("\\\n", " ")
    [command] = re.findall(r'^Environment="NIGHTVAULT_DRILL_COMMAND=(.*)"$', unit, re.MULTILINE)
    assert command.split()[:5] == ["systemd-run", "--quiet", "--collect", "--pipe", "--wait"]
    assert "--uid=@UID@" in command.split()
    said = [word.removeprefix("--property=") for word in command.split() if word.startswith("--property=")]
    lines = ["[Service]", "ExecStart=/usr/bin/python3", "User=20001", *said]
    (tmp_path / "drill.service").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=11", tmp_path / "drill.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "drill.service"], capture_output=True, check=False
    )
    assert b"drill.service" not in verified.stderr, "systemd does not know, or take, one of them"


@pytest.mark.parametrize("changes", [{}, {"port": 2222, "listen": "127.0.0.1", "account": "root"}])
def test_sshd_takes_its_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    text = user_data.sshd_config(host_key=str(key), **changes)
    assert "@" not in text.replace("@openssh.com", "").replace("@libssh.org", "")
    (tmp_path / "config").write_text(text)
    sshd = "/usr/sbin/sshd"
    done = subprocess.run([sshd, "-T", "-f", tmp_path / "config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    for line in (
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "disableforwarding yes",
        "permittty no",
    ):
        assert line in said
    assert [line for line in said if line.startswith(("acceptenv", "subsystem"))] == ["subsystem sftp internal-sftp"]
