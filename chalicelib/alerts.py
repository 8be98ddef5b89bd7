"""Which facts an operator is told of at once, and in what words. Everything slower is a CloudWatch alarm."""

from chalicelib.commands import (
    BudgetSpent,
    Fact,
    HostKeyUnexpected,
    PointCounted,
    PointFailed,
    RunEnded,
    RunStarted,
    VaultReady,
    WakeFaulted,
    WindowClosing,
    WindowSealed,
)


def alert_of(fact: Fact) -> tuple[str, str] | None:
    """Subject (at most 100 characters, SNS's limit) and message, or None for what is ordinary."""
    match fact:
        case WakeFaulted(window=window, reason=reason, final=True):
            hosts = ", ".join(sorted({run.host for run in window.runs.values()}))
            return (
                f"nightvault: {window.vault_id} would not wake",
                f"{window.vault_id} did not wake after {window.wake_attempts} attempts: {reason}.\n"
                f"Not backed up in window {window.window_id}: {hosts}. Nothing is lost: the next start tries again.",
            )
        case PointFailed(point=point, final=True):
            return (
                f"nightvault: no restore point of {point.host}",
                f"The snapshot of {point.host}'s volume {point.volume_id} for window {point.window_id} failed for "
                "good. The data is on the volume; the next complete push makes the next restore point.",
            )
        case HostKeyUnexpected(expected=expected, seen=seen):
            return (
                "nightvault: unexpected ssh host key",
                f"A vault showed the ssh host key\n{seen}\nbut had enrolled with\n{expected}\n"
                "Hosts go on insisting on the enrolled key. If you did not rebuild the machine, find out who did.",
            )
        case (
            RunStarted()
            | RunEnded()
            | VaultReady()
            | WakeFaulted()
            | WindowClosing()
            | WindowSealed()
            | PointCounted()
            | PointFailed()
            | BudgetSpent()
        ):
            return None
