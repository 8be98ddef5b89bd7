"""What can go wrong, as an exit code and one line that names the remedy."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. docs/operators.md and `vaultctl --help` hold the same table."""

    DONE = 0
    UNFORESEEN = 1
    USAGE = 2
    NO_ACCESS = 3
    REFUSED = 4
    FOUND_WRONG = 5
    NO_ANSWER = 6
    DECLINED = 7
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.UNFORESEEN: "something nobody foresaw",
    Exit.USAGE: "usage: an option or argument is wrong",
    Exit.NO_ACCESS: "no credentials, no region, no right to ask, or no such stack",
    Exit.REFUSED: "the control plane refused; nothing has changed",
    Exit.FOUND_WRONG: "found wrong: by doctor, by hosts --check (overdue), or by verify-deployment",
    Exit.NO_ANSWER: "AWS does not answer, or asks us to wait: try again",
    Exit.DECLINED: "you said no; nothing has changed",
    Exit.INTERRUPTED: "interrupted",
}


class Failure(Exception):
    """Ends the command: `code` for `--json`, the message for people, `exit` for scripts."""

    def __init__(self, exit_code: Exit, code: str, message: str) -> None:
        super().__init__(message)
        self.exit = exit_code
        self.code = code


def usage(message: str) -> Failure:
    """An argument that cannot be meant; the message names it and says what would do."""
    return Failure(Exit.USAGE, "Usage", message)


def epilog() -> str:
    """The table of exit codes, for `--help`."""
    return "\n".join(["Exit codes", *(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())])
