"""Turn the files of this folder into what a stock Debian image needs to become a vault: EC2 user data.

    python3 vault-image/user_data.py > user-data.gz

It is the same for every stack and host: the control plane's URL and the code to enrol with come as the instance's
tags. cloud-init runs it on an instance's first boot. On later boots nothing runs but the two systemd units.
"""

import argparse
import ast
import base64
import bz2
import gzip
import io
import json
import sys
import tarfile
import tokenize
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html: before base64.
LIMIT_BYTES = 16384
PACKAGES = ("openssh-server", "python3", "rsync", "xfsprogs")  # Debian's rsync brings /usr/bin/rrsync
_ARCHIVE = "/opt/nightvault.tar.bz2"


class TooLarge(Exception):
    """EC2 would refuse the user data."""


def sshd_config(
    *,
    port: int = 22,
    listen: str = "0.0.0.0",  # noqa: S104 # the security group lets in whose run is live
    host_key: str = "/etc/ssh/ssh_host_ed25519_key",
    keys_dir: str = "/etc/nightvault/keys",
    allow: str = "AllowGroups nightvault",
    strict_modes: bool = True,
    root: bool = False,
) -> str:
    """The sshd configuration, by default EC2's.

    For a rootless sshd: `allow` "AllowUsers NAME" of the one account, `strict_modes` False where a folder
    above keys_dir is writable by others (/tmp), `root` True only where that one account is root.
    """
    filled = {
        "PORT": str(port),
        "LISTEN": listen,
        "HOST_KEY": host_key,
        "KEYS_DIR": keys_dir,
        "ALLOW": allow,
        "STRICT_MODES": "yes" if strict_modes else "no",
        "ROOT": "forced-commands-only" if root else "no",
    }
    text = (_HERE / "sshd_config").read_text()
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text


def files() -> dict[str, tuple[int, str]]:
    """Every file that a vault gets, by path: its mode and text."""
    found = {
        "/etc/nightvault/agent.json": (0o644, "{}\n"),
        "/etc/nightvault/sshd_config": (0o644, sshd_config()),
        "/etc/systemd/system/nightvault-agent.service": (0o644, (_HERE / "nightvault-agent.service").read_text()),
        "/etc/systemd/system/ssh.service.d/nightvault.conf": (0o644, (_HERE / "sshd-nightvault.conf").read_text()),
    }
    for path in sorted(_HERE.glob("*.py")):
        if path.name != Path(__file__).name:
            mode = 0o755 if path.name in ("agent.py", "gate.py") else 0o644
            found[f"/opt/nightvault/{path.name}"] = (mode, path.read_text())
    return found


def cloud_config() -> str:
    """What cloud-init is to do, as JSON, which is YAML.

    The files travel as one tar.bz2 without their comments, since 16 KiB is all there is; base64 costs next to
    nothing, for the gzip around it undoes it.
    """
    return "#cloud-config\n" + json.dumps(
        {
            "users": [],  # no login but the hosts', and theirs only to the gate
            "disable_root": True,
            "ssh_pwauth": False,
            "ssh_genkeytypes": ["ed25519"],
            "package_update": True,
            "packages": list(PACKAGES),
            "write_files": [
                {
                    "path": _ARCHIVE,
                    "permissions": "0600",
                    "encoding": "b64",
                    "content": base64.b64encode(_archive()).decode(),
                }
            ],
            # Python's tarfile and not tar, which would want a package for that.
            "runcmd": [
                ["python3", "-c", f"import tarfile; tarfile.open({_ARCHIVE!r}).extractall('/')"],
                ["groupadd", "--force", "--system", "nightvault"],
                ["mkdir", "-p", "/etc/nightvault/keys"],
                ["systemctl", "daemon-reload"],
                ["systemctl", "restart", "ssh.service"],
                ["systemctl", "enable", "--now", "nightvault-agent.service"],
            ],
        },
        indent=1,
    )


def user_data() -> bytes:
    """The user data, before EC2's base64. The same bytes for the same files. Raises TooLarge."""
    data = gzip.compress(cloud_config().encode(), 9, mtime=0)
    if len(data) > LIMIT_BYTES:
        raise TooLarge(f"{len(data)} bytes of user data, {LIMIT_BYTES} allowed; make vault-image/ smaller")
    return data


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (mode, text) in sorted(files().items()):
            data = (bare_python(text) if path.endswith(".py") else bare_lines(text)).encode()
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return bz2.compress(buffer.getvalue(), 9)  # for text this small it beats xz


def bare_lines(text: str) -> str:
    """A configuration file without its comments."""
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() and not line.startswith("#"))


def bare_python(source: str) -> str:
    """A program without comments and docstrings; what is left stands on the same lines, for tracebacks."""
    lines = source.splitlines(keepends=True)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.start for token in tokens if token.type == tokenize.COMMENT and token.start != (1, 0)]
    for row, column in comments:
        lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    for text, alone in _docstrings(ast.parse(source)):
        first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
        lines[first] = lines[first][: text.col_offset] + ("pass" if alone else "")
        lines[first] = lines[first].rstrip() + "\n"
        lines[first + 1 : last + 1] = ["\n"] * (last - first)
    return "".join(lines)


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Expr, bool]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            text = node.body[0]
            if isinstance(text, ast.Expr):
                yield text, len(node.body) == 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Print a vault's EC2 user data (gzip, before base64).")
    parser.add_argument("--plain", action="store_true", help="what cloud-init reads, not compressed")
    chosen = parser.parse_args(arguments)
    try:
        data = cloud_config().encode() if chosen.plain else user_data()
    except TooLarge as error:
        sys.stderr.write(f"user_data: {error}\n")
        return 1
    sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
