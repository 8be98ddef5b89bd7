"""Errors are facts: each says what is the case, carries its data, and knows nothing of HTTP (see http.py)."""

from datetime import datetime


class NightvaultError(Exception):
    """Something that a caller is told. The message names what is wrong and the remedy."""

    @property
    def code(self) -> str:
        return type(self).__name__


class BadRequest(NightvaultError):
    """The request cannot be understood: bad JSON, an unknown or missing field, a wrong type or value."""


class BodyTooLarge(NightvaultError):
    """The body is over 16 KiB."""


class WindowSpent(NightvaultError):
    """The day's budget of awake time is used up, or too little is left of it to be of use."""

    def __init__(self, kind: str, until: datetime, retry_after_seconds: int) -> None:
        super().__init__(
            f"today's {kind} window is used up; a new one begins at {until:%Y-%m-%dT%H:%M:%SZ}; "
            "nothing is lost: the next push goes on where the last one was cut"
        )
        self.retry_after_seconds = retry_after_seconds


class UnknownRun(NightvaultError):
    """No run of this host has that id, in the window under way or the one before."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run_id: this host has no run {run_id!r}; call start first")


class UnknownPoint(NightvaultError):
    """No completed restore point of this host has that id, or EC2 no longer has its snapshot."""

    def __init__(self, point_id: str) -> None:
        super().__init__(f"point: this host has no completed restore point {point_id!r}; GET /points lists them")


class NothingToRestore(NightvaultError):
    """No restore point of this host counts: none is of a complete run, completed, and still there."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host {host} has no restore point yet: one counts when a backup was complete and its snapshot is; "
            "that takes a while after the vault has stopped"
        )


class RunIdTaken(NightvaultError):
    """A run_id that another host uses; a client must make a fresh UUID for each run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run_id: {run_id!r} is taken; make a fresh UUID for each run")


class RunSuperseded(NightvaultError):
    """A newer run of the same host took over; what this one has to say no longer counts."""

    def __init__(self, run_id: str, by: str) -> None:
        super().__init__(f"run {run_id} was superseded by {by}, a newer run of the same host; stop this one")


class StaleVault(NightvaultError):
    """The machine that reports is not (or no longer) meant to run: it should power itself off."""


class CodeRefused(NightvaultError):
    """An enrolment code that is unknown, expired or used; one answer for all three, so that nobody can probe."""

    def __init__(self) -> None:
        super().__init__("code: unknown, expired or already used; ask the operator for a new one")


class UnknownProgram(NightvaultError):
    """A machine asks for a program that this deployment does not have."""


class NotForThisToken(NightvaultError):
    """A host's token on a vault's route, or the other way round."""


class UnknownHost(NightvaultError):
    """No host has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"host: there is no host {name!r}; see `hosts`")


class UnknownVault(NightvaultError):
    """No vault has that id."""

    def __init__(self, vault_id: str) -> None:
        super().__init__(f"vault_id: there is no vault {vault_id!r}; see `vaults`")


class VaultBusy(NightvaultError):
    """What was asked of the vault can only be done while it is asleep."""

    def __init__(self, vault_id: str, phase: str) -> None:
        super().__init__(
            f"vault_id: {vault_id} is {phase}; ask again when it is asleep (`sleep` ends what keeps it up)"
        )


class DrillHindered(NightvaultError):
    """No drill of this host can begin now."""

    def __init__(self, host: str, vault_id: str, why: str) -> None:
        super().__init__(f"host: no drill of {host} can begin, since {vault_id} is {why}")


class VolumeHoldsMore(NightvaultError):
    """The volume may hold what no restore point does, so it is not deleted."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"delete_volume: the volume of {host} may hold more than its restore points: {why}. Nothing has changed. "
            "Back the host up once more, or retire it without delete_volume"
        )


class LostRace(NightvaultError):
    """Others kept writing the same vault for as long as we may try; asking again will do."""

    retry_after_seconds = 2


# EC2 did nothing, and may be asked again at once: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
THROTTLED = frozenset({"EC2ThrottledException", "RequestLimitExceeded", "Throttling", "ThrottlingException"})
_PASSING = THROTTLED | {
    "InsufficientCapacity",
    "InsufficientVolumeCapacity",
    "InternalFailure",
    "RequestThrottled",
    "ServiceUnavailable",
    "Unavailable",
}


class CloudRefused(NightvaultError):
    """AWS refused or failed a call. `call` is the API's name, `aws_code` AWS's own error code."""

    retry_after_seconds = 10

    def __init__(self, call: str, aws_code: str, message: str) -> None:
        super().__init__(f"{call}: {aws_code}: {message}")
        self.call = call
        self.aws_code = aws_code

    @property
    def passing(self) -> bool:
        """AWS's own fault, throttling, or no answer at all (botocore's errors, named ...Error): asking again may help.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html#api-error-codes-table-server
        """
        return self.aws_code in _PASSING or self.aws_code.endswith("Error")
