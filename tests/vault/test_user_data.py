"""What EC2 gives the machine: small enough, the same each time, and all the files of the folder."""

import ast
import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import user_data

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
def members(config: dict[str, Any]) -> dict[str, tuple[int, str]]:
    [written] = config["write_files"]
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(written["content"]))) as archive:
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
    here = {path.name for path in IMAGE.iterdir() if path.is_file()} - {"README.md", "user_data.py"}
    names = {"sshd-nightvault.conf": "nightvault.conf"}
    assert {Path(path).name for path in members} == {names.get(name, name) for name in here} | {"agent.json"}
    assert {path for path, (mode, _text) in members.items() if mode == 0o755} == {
        "/opt/nightvault/agent.py",
        "/opt/nightvault/gate.py",
    }


def test_the_programs_are_the_same_but_for_what_they_say(members: dict[str, tuple[int, str]]) -> None:
    for path, (_mode, text) in members.items():
        if path.endswith(".py"):
            source = (IMAGE / Path(path).name).read_text()
            assert _bare(text) == _bare(source), path
            assert [n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)] == [
                n.lineno for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)
            ]
            assert text.splitlines()[0] == source.splitlines()[0] or not source.startswith("#!")


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                del node.body[0]
            node.body = [child for child in node.body if not isinstance(child, ast.Pass)]
    return ast.dump(tree)


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


def test_the_first_boot(config: dict[str, Any], members: dict[str, tuple[int, str]]) -> None:
    assert set(config["packages"]) >= {"rsync", "xfsprogs", "python3", "openssh-server"}
    assert (config["users"], config["ssh_pwauth"]) == ([], False)
    assert all(isinstance(command, list) for command in config["runcmd"])  # no shell
    assert json.loads(members["/etc/nightvault/agent.json"][1]) == {}  # it is told by the instance's tags
    unit = members["/etc/systemd/system/nightvault-agent.service"][1]
    assert "ExecStart=/opt/nightvault/agent.py --config /etc/nightvault/agent.json" in unit
    # What gives a service mounts of its own hides what the agent mounts from sshd.
    for word in ("ProtectSystem", "PrivateTmp", "ProtectHome", "PrivateDevices", "ProtectKernel", "ReadOnlyPaths"):
        assert f"{word}" not in unit


@pytest.mark.parametrize("changes", [{}, {"port": 2222, "listen": "127.0.0.1", "strict_modes": False, "root": True}])
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
    assert not [line for line in said if line.startswith(("acceptenv", "subsystem"))]
