"""What an operator pastes on a host, or pipes to it: a line that enrols, or a script that installs first."""

import shlex
import sys
import sysconfig
from pathlib import Path

from vaultctl.failures import usage

_CHECKOUT = Path(__file__).resolve().parents[1] / "host-client"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "nightvault"
_PARTS = (
    "nightvault-archive",
    "nightvault-manifest",
    "nightvault-push",
    "nightvault-doctor",
    "nightvault-choose",
    "nightvault-pull",
    "nightvault-decrypt",
    "nightvault-restore",
    "nightvault-drill",
    "nightvault-mount",
    "nightvault-key",
)
_END = "NIGHTVAULT_END_OF_FILE"


def line(url: str, code: str, *, again: bool) -> str:
    """One line for a host that has the client. The code goes by stdin: argv is seen by everyone, and sudo logs it."""
    force = "--force " if again else ""
    return f"echo {shlex.quote(code)} | sudo nightvault enroll {force}{shlex.quote(url)} -"


def script(url: str, code: str, client: Path) -> str:
    """A POSIX sh script, for root, that installs the client, gives it the sample configuration if it has none, and
    enrols: `vaultctl enroll C --install | ssh root@c sh`. It is complete or does nothing: all is in a function. A
    client that is there is replaced by all parts of this one, or stays as it is.
    """
    scripts = {"nightvault": client, **{part: client.with_name(part) for part in _PARTS}}
    files = "\n".join(_staged(755, f"/usr/local/bin/{name}", script) for name, script in scripts.items())
    sample = _staged(600, "/etc/nightvault/config", client.with_name("config.sample"))
    return f"""#!/bin/sh
set -eu
umask 022
stage() {{ # MODE FILE: what stdin holds, as FILE.new
    staged="$2 $staged" # what comes first is put in its place last: nightvault, when its parts are there
    mkdir -p "${{2%/*}}"
    cat >"$2.new"
    chmod "$1" "$2.new"
}}
main() {{
    staged=
    trap 'for file in $staged; do rm -f "$file.new"; done' EXIT
    [ "$(id -u)" = 0 ] || {{ echo 'nightvault: run this as root, such as: ssh root@host sh' >&2; exit 2; }}
{files}
    [ -e /etc/nightvault/config ] ||
{sample}
    trap '' HUP INT TERM # now all of them
    for file in $staged; do mv "$file.new" "$file"; done
    trap - HUP INT TERM
    echo {shlex.quote(code)} | /usr/local/bin/nightvault enroll {shlex.quote(url)} -
    echo 'nightvault: now name your sources in /etc/nightvault/config, then: nightvault doctor, nightvault key' >&2
}}
main; exit
"""


def _staged(mode: int, path: str, file: Path) -> str:
    return f"    stage {mode} {path} <<'{_END}'\n{file.read_text().rstrip()}\n{_END}"


def client(given: Path | None) -> Path:
    """The host client's script, whose parts are beside it: as given, beside this package, or where pip put it. Raises
    Failure (usage).
    """
    for found in (given,) if given else (_CHECKOUT / "nightvault", _INSTALLED / "nightvault"):
        if found.is_file():
            missing = [part for part in _PARTS if not found.with_name(part).is_file()]
            if missing:
                raise usage(f"client: {found} is not whole: {', '.join(missing)} must be beside it")
            return found
    raise usage(
        f"client: {given} is no file; name the script host-client/nightvault"
        if given
        else f"client: the script `nightvault` is not beside this package, nor in {_INSTALLED}; name it with --client "
        f"(this is vaultctl of {sys.prefix})"
    )
