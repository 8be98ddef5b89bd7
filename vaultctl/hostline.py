"""What an operator pastes on a host, or pipes to it: a line that enrols, or a script that installs first."""

import shlex
import sys
import sysconfig
from pathlib import Path

from vaultctl.failures import usage

_CHECKOUT = Path(__file__).resolve().parents[1] / "host-client"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "nightvault"
_END = "NIGHTVAULT_END_OF_FILE"


def line(url: str, code: str, *, again: bool) -> str:
    """One line for a host that has the client. The code goes by stdin: argv is seen by everyone, and sudo logs it."""
    force = "--force " if again else ""
    return f"echo {shlex.quote(code)} | sudo nightvault enroll {force}{shlex.quote(url)} -"


def script(url: str, code: str, client: Path) -> str:
    """A POSIX sh script, for root, that installs the client, gives it the sample configuration if it has none, and
    enrols: `vaultctl enroll C --install | ssh root@c sh`. It is complete or does nothing: all is in a function.
    """
    sample = (client.parent / "config.sample").read_text()
    second = (client.parent / "nightvault-restore").read_text()
    return f"""#!/bin/sh
set -eu
umask 022
put() {{ # MODE FILE: what stdin holds, whole or not at all
    mkdir -p "${{2%/*}}"
    cat >"$2.new"
    chmod "$1" "$2.new"
    mv "$2.new" "$2"
}}
main() {{
    [ "$(id -u)" = 0 ] || {{ echo 'nightvault: run this as root, such as: ssh root@host sh' >&2; exit 2; }}
    put 755 /usr/local/bin/nightvault <<'{_END}'
{client.read_text().rstrip()}
{_END}
    put 755 /usr/local/bin/nightvault-restore <<'{_END}'
{second.rstrip()}
{_END}
    [ -e /etc/nightvault/config ] || put 600 /etc/nightvault/config <<'{_END}'
{sample.rstrip()}
{_END}
    echo {shlex.quote(code)} | /usr/local/bin/nightvault enroll {shlex.quote(url)} -
    echo 'nightvault: now name your sources in /etc/nightvault/config, then: nightvault doctor, nightvault key' >&2
}}
main; exit
"""


def client(given: Path | None) -> Path:
    """The host client's script: as given, beside this package, or where pip put it. Raises Failure (usage)."""
    for found in (given,) if given else (_CHECKOUT / "nightvault", _INSTALLED / "nightvault"):
        if found.is_file():
            return found
    raise usage(
        f"client: {given} is no file; name the script host-client/nightvault"
        if given
        else f"client: the script `nightvault` is not beside this package, nor in {_INSTALLED}; name it with --client "
        f"(this is vaultctl of {sys.prefix})"
    )
