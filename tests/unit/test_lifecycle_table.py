"""Every command in every phase: what becomes of the vault, what is to be done, or which error it is.

The vault of the table has a machine `i-1` and the host C; where a window is under way, C's run r1 lives
in it. A minute has passed since, and no claim is held. F and G were retired: F's volume is still attached, and
is to be deleted; G's lies apart. E's restore is over, and the volume that was made for it still attached. H's drill is
over, and its result not yet recorded.
"""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from msgspec.structs import replace

from chalicelib.commands import (
    AgentEnrolled,
    BeginDrill,
    Command,
    DrillRecorded,
    DrillSeen,
    Finish,
    GroupMade,
    GrowthPostponed,
    Hold,
    HostChanged,
    HostPlaced,
    HostRetired,
    KeyRevoked,
    Launched,
    LaunchIntended,
    Observe,
    PointSettled,
    PointsMade,
    PointVolumeAttached,
    PointVolumeGone,
    PointVolumeMade,
    PointVolumeRefused,
    PushesAccepted,
    PushJudged,
    Rebuild,
    Release,
    Report,
    Rest,
    SnapshotMissing,
    Start,
    VolumeDeleted,
    VolumeDetached,
    VolumeEnlarged,
    VolumeMade,
    VolumesAttached,
    VolumesMissing,
    WakeFailed,
)
from chalicelib.errors import NightvaultError
from chalicelib.lifecycle import decide
from chalicelib.model import (
    Agent,
    Ceiling,
    Checked,
    DrillState,
    InstanceState,
    Kind,
    Launch,
    Mount,
    Outcome,
    Phase,
    PointState,
    PointVolume,
    Policy,
    RestorePoint,
    Run,
    Slot,
    Vault,
    Window,
)

NOW = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
THEN = NOW - timedelta(seconds=60)
KEY = "ssh-ed25519 " + "A" * 68
SLOT = Slot(number=0, uid=20001, public_key=KEY, size_gib=5, every_seconds=86400, volume_id="vol-C", attached_to="i-1")
RUN = Run(
    run_id="r1",
    host="C",
    kind=Kind.BACKUP,
    started_at=THEN,
    source_address="192.0.2.1",
    lease_until=NOW + timedelta(seconds=600),
    pushed=True,
)
ENDED = replace(RUN, outcome=Outcome.COMPLETE, ended_at=THEN, committed_at=THEN)
DRILLED = replace(ENDED, run_id="d0", host="H", kind=Kind.DRILL, source_address="", committed_at=None, pushed=False)
POINT = RestorePoint(
    host="C",
    vault_id="vault-1",
    window_id="w1",
    volume_id="vol-C",
    run_id="r1",
    run_started_at=THEN,
    outcome=Outcome.COMPLETE,
    complete=True,
)


# Of C's volume, made after its last push; and one that is no longer all of it.
HOLDS_ALL = replace(POINT, snapshot_id="snap-9", state=PointState.COMPLETED, made_at=THEN + timedelta(seconds=30))
OF_G = replace(HOLDS_ALL, host="G", volume_id="vol-G")
OLDER = replace(HOLDS_ALL, made_at=THEN - timedelta(days=1))


def vault_in(phase: Phase) -> Vault:
    window = Window(
        window_id="w1",
        vault_id="vault-1",
        opened_at=THEN,
        woken_at=THEN,
        ceilings={Kind.BACKUP: Ceiling(since=THEN, closes_at=THEN + timedelta(seconds=12960))},
        runs={"r1": RUN},
    )
    vault = Vault(
        vault_id="vault-1",
        version=7,
        phase=phase,
        hosts={"C": replace(SLOT, pushed_at=THEN, committed="r1")},
        retired={
            "F": replace(SLOT, number=2, uid=20003, volume_id="vol-F", public_key="", doomed="snap-F"),
            "G": replace(SLOT, number=3, uid=20004, volume_id="vol-G", public_key="", attached_to=None),
        },
        point_volumes={
            "E": PointVolume(
                host="E",
                run_id="r0",
                point_id="snap-E",
                place=0,
                volume_id="vol-E0",
                attached_to="i-1",
                leaving_at=THEN,
            )
        },
        drilled={"H": DRILLED},
        instance_id="i-1",
        security_group_id="sg-1",
        agent=Agent(token_hash="h", host_key=KEY, reported_at=THEN),
        window=window,
    )
    over = replace(window, runs={"r1": ENDED}, closing_at=THEN, close_reason="no live run, and no host expected")
    match phase:
        case Phase.ASLEEP:
            pending = replace(POINT, snapshot_id="snap-0", made_at=THEN)
            return replace(vault, window=None, recent=over, pending_points={"snap-0": pending})
        case Phase.WAKING | Phase.OPEN:
            return vault
        case Phase.FAULTED:
            return replace(vault, retry_at=NOW)
        case Phase.CLOSING:
            return replace(vault, window=over)
        case Phase.SEALING:
            return replace(vault, window=replace(over, stopped_at=THEN, points={"C": POINT}))


def report(state: str) -> Report:
    return Report(
        instance_id="i-1",
        boot_id="b",
        state=state,
        address="203.0.113.9",
        port=22,
        host_key=KEY,
        mounts={"C": Mount(volume_id="vol-C", mounted=True)},
        transfers={"C": 5},
        commits={},
    )


COMMANDS: dict[str, Command] = {
    "start, new": Start(host="C", run_id="r2", kind=Kind.BACKUP, source_address="192.0.2.2"),
    "start, known": Start(host="C", run_id="r1", kind=Kind.BACKUP, source_address="192.0.2.1"),
    "start, another's": Start(host="H", run_id="r1", kind=Kind.BACKUP, source_address="192.0.2.1"),
    "start, restore": Start(host="C", run_id="r3", kind=Kind.RESTORE, source_address="192.0.2.2", point=OLDER),
    "finish": Finish(host="C", run_id="r1", outcome=Outcome.COMPLETE, exit_code=0),
    "finish, unknown": Finish(host="C", run_id="r9", outcome=Outcome.COMPLETE, exit_code=0),
    "finish, another's": Finish(host="H", run_id="r1", outcome=Outcome.COMPLETE, exit_code=0),
    "report, starting": report("starting"),
    "report, ready": report("ready"),
    "report, another machine": replace(report("ready"), instance_id="i-2"),
    "observe, lookup failed": Observe(state=None),
    **{f"observe, {state}": Observe(state=state) for state in InstanceState},
    "wake failed": WakeFailed(reason="refused"),
    "launch intended": LaunchIntended(launch=Launch(client_token="t", code="c")),
    "launched": Launched(instance_id="i-1"),
    "launched, another": Launched(instance_id="i-2"),
    "agent enrolled": AgentEnrolled(token_hash="n", host_key=KEY),
    "group made": GroupMade(security_group_id="sg-2"),
    "host placed": HostPlaced(host="N", slot=replace(SLOT, number=1, uid=20002, volume_id=None, attached_to=None)),
    "volume made": VolumeMade(host="C", volume_id="vol-C"),
    "volumes attached": VolumesAttached(instance_id="i-1", hosts=("C",)),
    "points made": PointsMade(snapshots={"C": "snap-1"}),
    "host changed": HostChanged(host="C", every_seconds=3600, max_size_gib=6, ping_url="https://ping.example/c"),
    "host changed, unknown": HostChanged(host="H", every_seconds=3600),
    "key revoked": KeyRevoked(host="C"),
    "key revoked, unknown": KeyRevoked(host="H"),
    "host retired": HostRetired(host="C"),
    "host retired, volume too": HostRetired(host="C", delete_volume=True, newest=HOLDS_ALL),
    "host retired, volume holds more": HostRetired(host="C", delete_volume=True, newest=OLDER),
    "host retired before": HostRetired(host="G"),
    "host retired before, volume too": HostRetired(host="G", delete_volume=True, newest=OF_G),
    "hold": Hold(seconds=3600),
    "release": Release(),
    "release, cut": Release(cut=True),
    "rebuild": Rebuild(),
    "volume enlarged": VolumeEnlarged(host="C", volume_id="vol-C", size_gib=8),
    "growth postponed": GrowthPostponed(host="C"),
    "volume detached": VolumeDetached(host="F", volume_id="vol-F"),
    "volume deleted": VolumeDeleted(host="F", volume_id="vol-F", snapshot_id="snap-F"),
    "rest": Rest(host="C", newest=HOLDS_ALL, state=InstanceState.STOPPED),
    "volumes missing": VolumesMissing(volumes={"C": "vol-C"}, points={}),
    "snapshot missing": SnapshotMissing(host="C", snapshot_id="snap-9", point=None),
    "point volume made": PointVolumeMade(host="E", run_id="r0", volume_id="vol-E0"),
    "point volume made, too late": PointVolumeMade(host="C", run_id="r8", volume_id="vol-C8"),
    "point volume attached": PointVolumeAttached(host="E", volume_id="vol-E0", instance_id="i-1"),
    "point volume refused": PointVolumeRefused(host="E", run_id="r0", reason="a limit", final=True),
    "point volume gone": PointVolumeGone(host="E", run_id="r0"),
    "begin drill": BeginDrill(host="C", run_id="d1", point=HOLDS_ALL),
    "begin drill, retired": BeginDrill(host="G", run_id="d1", point=OF_G),
    "report, drill passed": replace(
        report("ready"),
        drills={"C": DrillSeen(run_id="d1", volume_id="vol-C1", checked=Checked(state=DrillState.PASSED))},
    ),
    "drill recorded": DrillRecorded(host="H", run_id="d0"),
    "push judged": PushJudged(host="C", run_id="r1", why="90 % fewer files"),
    "push accepted": PushesAccepted(host="C"),
    "point completed": PointSettled(snapshot_id="snap-0", state=PointState.COMPLETED),
    "point failed": PointSettled(snapshot_id="snap-0", state=PointState.ERROR),
}

# A command, then its phases and what it does in them: `stays` or `-> phase`, and the effects; or the error.
TABLE = """
start, new
    asleep                                      -> waking: Admit, Wake
    waking open faulted                         stays: Revoke, Admit
    closing sealing                             stays
start, known
    asleep waking open closing sealing faulted  stays
start, restore
    asleep                                      -> waking: Admit, Wake, MakePointVolume
    waking open faulted                         stays: Revoke, Admit, MakePointVolume
    closing sealing                             stays
start, another's
    asleep waking open closing sealing faulted  RunIdTaken
finish
    asleep closing sealing                      stays
    waking open faulted                         -> closing: Revoke, Stop
finish, unknown
    asleep waking open closing sealing faulted  UnknownRun
finish, another's
    asleep waking open closing sealing faulted  UnknownRun
report, starting
    asleep sealing                              StaleVault
    waking open closing faulted                 stays
report, ready
    asleep sealing                              StaleVault
    waking                                      -> open: RemovePointVolume
    open closing faulted                        stays: RemovePointVolume
report, another machine
    asleep waking open closing sealing faulted  StaleVault
observe, lookup failed
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes
    waking                                      stays
    open                                        stays: SetIngress
    closing                                     stays: Stop
    sealing                                     stays: MakePoints
    faulted                                     -> waking: Wake
observe, pending
    asleep                                      stays: Stop, SetIngress, CheckPoints, FindVolumes
    waking                                      stays
    open                                        stays: SetIngress
    closing                                     stays: Stop
    sealing                                     stays: MakePoints
    faulted                                     -> waking: Wake
observe, running
    asleep                                      stays: Stop, SetIngress, CheckPoints, FindVolumes
    waking                                      stays
    open                                        stays: SetIngress
    closing                                     stays: Stop
    sealing                                     stays: MakePoints
    faulted                                     -> waking: Wake
observe, stopping
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes
    waking faulted                              stays
    open                                        stays: SetIngress
    closing                                     stays: Stop
    sealing                                     stays: MakePoints
observe, stopped
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes, Detach,
                                                RemovePointVolume
    waking                                      stays: Wake, RemovePointVolume
    open faulted                                -> waking: Wake, RemovePointVolume
    closing                                     -> sealing: MakePoints, RemovePointVolume
    sealing                                     stays: MakePoints, RemovePointVolume
observe, shutting-down
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes, Detach,
                                                RemovePointVolume
    waking                                      stays
    open                                        stays: SetIngress
    closing                                     stays: Stop
    sealing                                     stays: MakePoints
    faulted                                     -> waking: Wake, RemovePointVolume
observe, terminated
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes, Detach,
                                                RemovePointVolume
    waking                                      stays: Wake, RemovePointVolume
    open faulted                                -> waking: Wake, RemovePointVolume
    closing                                     -> sealing: MakePoints, RemovePointVolume
    sealing                                     stays: MakePoints, RemovePointVolume
observe, gone
    asleep                                      stays: SetIngress, CheckPoints, FindVolumes, Detach,
                                                RemovePointVolume
    waking                                      stays: Wake, RemovePointVolume
    open faulted                                -> waking: Wake, RemovePointVolume
    closing                                     -> sealing: MakePoints, RemovePointVolume
    sealing                                     stays: MakePoints, RemovePointVolume
wake failed
    asleep open closing sealing faulted         stays
    waking                                      -> faulted: Stop
launch intended
    asleep waking open closing sealing faulted  stays
launched
    asleep waking open sealing faulted          stays
    closing                                     stays: Stop
launched, another
    asleep waking open closing sealing faulted  stays: Terminate
agent enrolled
    asleep waking open closing sealing faulted  stays
group made
    asleep waking open closing sealing faulted  stays
host placed
    asleep waking open closing sealing faulted  stays: MakeVolume
volume made
    asleep waking open closing sealing faulted  stays
volumes attached
    asleep waking open closing sealing faulted  stays
points made
    asleep waking open closing faulted          stays
    sealing                                     -> asleep, window archived
host changed
    asleep waking open closing sealing faulted  stays
host changed, unknown
    asleep waking open closing sealing faulted  UnknownHost
key revoked
    asleep closing sealing                      stays
    waking open faulted                         -> closing: Revoke, Stop
key revoked, unknown
    asleep waking open closing sealing faulted  UnknownHost
host retired
    asleep closing sealing                      stays
    waking open faulted                         -> closing: Revoke, Stop
host retired, volume too
    asleep waking open closing sealing faulted  VolumeHoldsMore
host retired, volume holds more
    asleep waking open closing sealing faulted  VolumeHoldsMore
host retired before
    asleep waking open closing sealing faulted  stays
host retired before, volume too
    asleep                                      stays: DeleteVolume
    waking open closing sealing faulted         stays
hold
    asleep                                      -> waking: Wake
    waking open closing sealing faulted         stays
release
    asleep waking open closing sealing faulted  stays
release, cut
    asleep closing sealing                      stays
    waking open faulted                         -> closing: Revoke, Stop
rebuild
    asleep                                      stays: Terminate
    waking open closing sealing faulted         VaultBusy
volume enlarged
    asleep waking open closing sealing faulted  stays
growth postponed
    asleep waking open closing sealing faulted  stays
volume detached
    asleep                                      stays: DeleteVolume
    waking open closing sealing faulted         stays
volume deleted
    asleep waking open closing sealing faulted  stays
rest
    asleep waking open closing sealing faulted  stays
volumes missing
    asleep waking open closing sealing faulted  stays
snapshot missing
    asleep waking open closing sealing faulted  stays
point volume made
    asleep waking open closing sealing faulted  stays
point volume made, too late
    asleep waking open closing sealing faulted  stays: RemovePointVolume
point volume attached
    asleep waking open closing sealing faulted  stays
point volume refused
    asleep waking open closing sealing faulted  stays
point volume gone
    asleep waking open closing sealing faulted  stays
begin drill
    asleep                                      -> waking: Wake
    waking open faulted                         stays
    closing sealing                             DrillHindered
begin drill, retired
    asleep waking open closing sealing faulted  UnknownHost
report, drill passed
    asleep sealing                              StaleVault
    waking                                      -> open: RemovePointVolume
    open closing faulted                        stays: RemovePointVolume
drill recorded
    asleep waking open closing sealing faulted  stays
point completed
    asleep waking open closing sealing faulted  stays
push judged
    asleep waking open closing sealing faulted  stays
push accepted
    asleep waking open closing sealing faulted  stays
point failed
    asleep                                      stays: MakePoints
    waking open closing sealing faulted         stays
"""


def cell(phase: Phase, command: Command) -> str:
    """What the command does in that phase, in the table's words."""
    vault = vault_in(phase)
    try:
        decision = decide(vault, command, NOW, Policy())
    except NightvaultError as error:
        return error.code
    effects = [type(effect).__name__ for effect in decision.effects]
    becomes = "stays" if decision.vault.phase is phase else f"-> {decision.vault.phase}"
    archived = ", window archived" if decision.archived else ""
    return f"{becomes}{archived}{': ' if effects else ''}{', '.join(effects)}"


def _expected() -> dict[tuple[str, Phase], str]:
    cells: dict[tuple[str, Phase], str] = {}
    command = ""
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            command = line
            continue
        words = line[:48].split()
        if not words:  # the line before goes on
            cells[list(cells)[-1]] += f" {line.strip()}"
        for phase in words:
            assert (command, Phase(phase)) not in cells, f"{command} in {phase} is there twice"
            cells[command, Phase(phase)] = line[48:].strip()
    return cells


EXPECTED = _expected()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("phase", Phase)
def test_cell(name: str, phase: Phase) -> None:
    assert cell(phase, COMMANDS[name]) == EXPECTED[name, phase]


def test_no_cell_is_missing() -> None:
    assert set(EXPECTED) == {(name, phase) for name in COMMANDS for phase in Phase}
    assert {type(command) for command in COMMANDS.values()} == set(get_args(Command))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("phase", Phase)
def test_nothing_outlives_its_window(name: str, phase: Phase) -> None:
    """Whatever is said to a vault after its window has ended, it is no longer meant to be awake."""
    vault = vault_in(phase)
    late = NOW + timedelta(days=1)
    try:
        decision = decide(vault, COMMANDS[name], late, Policy())
    except NightvaultError:
        return  # unchanged: the sweep's Observe, a row above, comes within a minute
    fresh = decision.vault.window and decision.vault.window.opened_at == late
    assert fresh or not decision.vault.awake
    assert fresh or not (decision.vault.window and decision.vault.window.live_runs)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("phase", Phase)
def test_saying_it_again_adds_nothing_but_effects(name: str, phase: Phase) -> None:
    """A repeated command decides the same vault again: what is late or doubled does no harm."""
    try:
        once = decide(vault_in(phase), COMMANDS[name], NOW, Policy()).vault
        twice = decide(once, COMMANDS[name], NOW, Policy()).vault
    except NightvaultError:
        return
    assert once.phase is twice.phase or name.startswith(("observe", "points made"))
    known = {point.snapshot_id for point in once.pending_points.values()}
    assert known >= {point.snapshot_id for point in twice.pending_points.values()}
