"""What should be so of a stack, each a check with its remedy. Pure; doctor.py gathers the facts and mends."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from msgspec import Struct, field

from chalicelib.copying import missing
from chalicelib.model import Host, InstanceState, Phase, PointState, Policy, RestorePoint, Vault
from chalicelib.operators.estate import Estate
from chalicelib.ports import RESTORE_PURPOSE

SSH_PORT = 22
# A quarter of an hour lies between two signs of the sweep; CloudWatch shows a metric some minutes later.
SWEEP_SILENCE = timedelta(minutes=35)
SKEW_WARNING_SECONDS, SKEW_WRONG_SECONDS = 5, 60
NEARLY = 0.8  # of a quota
COPIED_WITHIN = timedelta(hours=36)  # a first copy of a large volume takes hours
DELETED_WITHIN = timedelta(days=2)  # after retention has decided so; years of history take a day


class Check(Struct, frozen=True, kw_only=True):
    """One finding. `level`: ok, warning or wrong. `resource`: what it is about, an id of AWS's or ours."""

    name: str
    ok: bool
    level: str
    what: str
    remedy: str
    resource: str | None = None
    fixable: bool = False
    fixed: bool = False


class StrayMachine(Struct, frozen=True, kw_only=True):
    """Mended by terminating it; it holds no data."""

    instance_id: str


class StrayIngress(Struct, frozen=True, kw_only=True):
    """Mended by revoking it. `address`: whom it lets in, if it is one address to the ssh port."""

    group_id: str
    vault_id: str
    address: str | None
    permission: dict[str, Any]


Mend = StrayMachine | StrayIngress


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be. With `mend`, doctor can see to it."""

    level: str
    what: str
    remedy: str
    resource: str | None = None
    mend: Mend | None = None


class Quota(Struct, frozen=True, kw_only=True):
    """`used`: what the account uses when all our vaults are awake, in the quota's unit."""

    name: str
    code: str
    used: float
    limit: float


class Subscription(Struct, frozen=True, kw_only=True):
    endpoint: str
    confirmed: bool


class Facts(Struct, frozen=True, kw_only=True):
    """What doctor saw. `gaps`: what it could not see, by the name of the check, with AWS's words."""

    now: datetime
    stack: str
    table: str
    policy: Policy
    vaults: tuple[Vault, ...]
    points: tuple[RestorePoint, ...]
    estate: Estate
    hosts: tuple[Host, ...] = ()
    copy_region: str = ""
    left_over: frozenset[str] = frozenset()  # copies in other regions than that
    quotas: tuple[Quota, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    recovery: bool = True
    sweep_at: datetime | None = None
    skew_seconds: float | None = None
    newest_template: int | None = None
    public: tuple[str, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)

    def settled(self, since: datetime) -> bool:
        """Long enough ago that no Lambda can be about to record it."""
        return self.now - since > timedelta(seconds=self.policy.claim_seconds)


def diagnose(facts: Facts) -> list[tuple[Check, Mend | None]]:
    """Every check, in its order: what was found, or one that says that all is well."""
    made: list[tuple[Check, Mend | None]] = []
    for name, (look, well) in CHECKS.items():
        if name in facts.gaps:
            found = [
                Finding(
                    level="warning",
                    what=f"could not be looked at: {facts.gaps[name]}",
                    remedy="`make deploy` gives the operate function every right it needs; then ask again",
                )
            ]
        else:
            found = list(look(facts))
        made += [(_check(name, finding), finding.mend) for finding in found]
        if not found:
            made.append((Check(name=name, ok=True, level="ok", what=well, remedy="nothing to do"), None))
    return made


def _check(name: str, finding: Finding) -> Check:
    return Check(
        name=name,
        ok=False,
        level=finding.level,
        what=finding.what,
        remedy=finding.remedy,
        resource=finding.resource,
        fixable=finding.mend is not None,
    )


# --- who is told, what is kept ----------------------------------------------------------------------------


def _alerts(facts: Facts) -> Iterator[Finding]:
    if not facts.subscriptions:
        yield Finding(
            level="warning",
            what="nobody is told when something is wrong",
            remedy="`make deploy ALERT_EMAIL=you@example.org`, then confirm the e-mail that AWS sends",
        )
    for each in facts.subscriptions:
        if not each.confirmed:
            yield Finding(
                level="warning",
                what=f"{each.endpoint} has not confirmed, so it is told nothing",
                remedy="follow the link in AWS's e-mail (look among spam); it is good for two days, then deploy again",
                resource=each.endpoint,
            )


def _recovery(facts: Facts) -> Iterator[Finding]:
    if not facts.recovery:
        yield Finding(
            level="wrong",
            what="the table's point-in-time recovery is off: a lost table could not be brought back",
            remedy=f"aws dynamodb update-continuous-backups --table-name {facts.table}"
            " --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
            resource=facts.table,
        )


def _sweep(facts: Facts) -> Iterator[Finding]:
    if facts.sweep_at is None or facts.now - facts.sweep_at > SWEEP_SILENCE:
        last = f"last at {facts.sweep_at:%Y-%m-%dT%H:%M:%SZ}" if facts.sweep_at else "not in the last three hours"
        yield Finding(
            level="wrong",
            what=f"the sweep gives no sign of life ({last}): nothing would end a window or repair what broke",
            remedy="look into the log group of the stack's Sweep function, and whether its EventBridge rule is enabled;"
            " in the first half hour of a stack this is ordinary",
        )


def _clock(facts: Facts) -> Iterator[Finding]:
    skew = abs(facts.skew_seconds or 0)
    if skew > SKEW_WARNING_SECONDS:
        yield Finding(
            level="wrong" if skew > SKEW_WRONG_SECONDS else "warning",
            what=f"our clock and AWS's are {skew:.0f} s apart: windows and leases end at the wrong time",
            remedy="ask again; if it stays, it is Lambda's own clock, and a case for AWS support",
        )


# --- quotas -----------------------------------------------------------------------------------------------


def _quotas(facts: Facts) -> Iterator[Finding]:
    for quota in facts.quotas:
        if quota.used > quota.limit * NEARLY:
            over = quota.used > quota.limit
            yield Finding(
                level="wrong" if over else "warning",
                what=f"{quota.name}: {quota.used:g} of {quota.limit:g} with every vault awake",
                remedy=f"ask for more in the Service Quotas console (quota {quota.code}), before a night needs it",
                resource=quota.code,
            )


# --- machines ---------------------------------------------------------------------------------------------


def _machines(facts: Facts) -> Iterator[Finding]:
    known = {vault.instance_id: vault for vault in facts.vaults}
    launching = {vault.vault_id for vault in facts.vaults if vault.launch}
    for machine in facts.estate.machines:
        vault = known.get(machine.instance_id)
        if not facts.settled(machine.launched_at):
            continue
        if vault is None and machine.vault_id not in launching:
            yield Finding(
                level="wrong",
                what=f"instance {machine.instance_id} ({machine.state}) carries our tag, and no vault knows it",
                remedy="`vaultctl doctor --fix` terminates it; it holds no data",
                resource=machine.instance_id,
                mend=StrayMachine(instance_id=machine.instance_id),
            )
        elif vault and vault.phase is Phase.ASLEEP and machine.state == InstanceState.RUNNING:
            yield Finding(
                level="wrong",
                what=f"{vault.vault_id} is asleep, and its instance {machine.instance_id} runs and costs",
                remedy="the sweep stops it within a quarter of an hour; if it does not, stop it in the EC2 console",
                resource=machine.instance_id,
            )


def _templates(facts: Facts) -> Iterator[Finding]:
    names = {vault.instance_id: vault.vault_id for vault in facts.vaults if vault.instance_id}
    for machine in facts.estate.machines:
        old = machine.template_version
        if machine.instance_id in names and old and facts.newest_template and old < facts.newest_template:
            name = names[machine.instance_id]
            yield Finding(
                level="warning",
                what=f"{name} was launched from version {old} of its template; the newest is {facts.newest_template}",
                remedy=f"`vaultctl rebuild-vault {name}` while it is asleep; its volumes stay",
                resource=machine.instance_id,
            )


# --- volumes and snapshots --------------------------------------------------------------------------------


def _volumes(facts: Facts) -> Iterator[Finding]:
    named = {slot.volume_id: host for vault in facts.vaults for host, slot in vault.hosts.items() if slot.volume_id}
    there = {disk.volume_id for disk in facts.estate.disks}
    for volume_id, host in named.items():
        if volume_id not in there:
            yield Finding(
                level="wrong",
                what=f"the volume {volume_id} of host {host} is gone",
                remedy="nothing to do: its next backup makes one of its newest restore point; find out in CloudTrail"
                " who deleted it (DeleteVolume)",
                resource=volume_id,
            )
    lent = {volume.volume_id for vault in facts.vaults for volume in vault.point_volumes.values()}
    for disk in facts.estate.disks:
        if disk.volume_id in named or disk.volume_id in lent or disk.attached_to or not facts.settled(disk.made_at):
            continue
        if disk.purpose == RESTORE_PURPOSE:
            yield Finding(
                level="warning",
                what=f"volume {disk.volume_id} ({disk.gib} GiB) was made for a restore of {disk.host} that is over",
                remedy="the sweep removes it within a quarter of an hour; if it does not:"
                f" aws ec2 delete-volume --volume-id {disk.volume_id} (the restore point stays)",
                resource=disk.volume_id,
            )
            continue
        whose = f"host {disk.host}, which is retired or has another" if disk.host else "a vault that is gone"
        yield Finding(
            level="warning",
            what=f"volume {disk.volume_id} ({disk.gib} GiB) was of {whose}; it costs and nobody uses it",
            remedy=f"if you want nothing from it: aws ec2 delete-volume --volume-id {disk.volume_id}",
            resource=disk.volume_id,
        )


def _points(facts: Facts) -> Iterator[Finding]:
    there = {shot.snapshot_id for shot in facts.estate.shots}
    listed = {point.snapshot_id for point in facts.points}
    coming = {i for vault in facts.vaults for i in vault.pending_points}
    for point in facts.points:
        expected = point.snapshot_id and point.state is PointState.COMPLETED and not point.marks.dropped_at
        if expected and point.snapshot_id not in there:
            yield Finding(
                level="wrong",
                what=f"host {point.host}'s restore point {point.snapshot_id} is listed, and EC2 has no such snapshot",
                remedy="find out in CloudTrail who deleted it (DeleteSnapshot); the next night makes a new one",
                resource=point.snapshot_id,
            )
    for shot in facts.estate.shots:
        known = shot.snapshot_id in listed | coming or shot.state == PointState.ERROR
        if not known and facts.settled(shot.started_at):
            yield Finding(
                level="warning",
                what=f"snapshot {shot.snapshot_id} of host {shot.host or 'nobody'} carries our tag; no record names it",
                remedy=f"if you want nothing from it: aws ec2 delete-snapshot --snapshot-id {shot.snapshot_id}",
                resource=shot.snapshot_id,
            )


def _retention(facts: Facts) -> Iterator[Finding]:
    for point in facts.points:
        marks = point.marks
        named = f"restore point {point.snapshot_id} of host {point.host}"
        if marks.refusals:
            times = "once" if marks.refusals == 1 else f"{marks.refusals} times"
            yield Finding(
                level="warning",
                what=f"{named} is needed no more, and AWS refused {times} to delete it: {marks.refused}",
                remedy="an image or a copy that uses it must go first; it is asked again, at least daily."
                f" To keep it for good: `vaultctl lock {point.snapshot_id}`",
                resource=point.snapshot_id,
            )
        elif marks.dropped_at and facts.now - marks.dropped_at > DELETED_WITHIN:
            yield Finding(
                level="wrong",
                what=f"{named} was to be deleted on {marks.dropped_at:%Y-%m-%d}, and is still there",
                remedy="look for `retention_failed` in the log group of the stack's Sweep function",
                resource=point.snapshot_id,
            )
    for host in facts.hosts:
        if host.kept_since and host.name not in _flagged(facts):
            yield Finding(
                level="warning",
                what=f"every restore point of {host.name} made up to {host.kept_since:%Y-%m-%dT%H:%M:%SZ} is kept, and"
                " costs, until somebody says otherwise",
                remedy=f"once all is well: `vaultctl retention {host.name} --release`",
                resource=host.name,
            )


def _copies(facts: Facts) -> Iterator[Finding]:
    for host in facts.hosts:
        here = [copy for copy in host.copies if copy.region == facts.copy_region]
        for copy in host.copies:
            if copy.copy_id in facts.left_over:
                yield Finding(
                    level="warning",
                    what=f"{copy.copy_id} in {copy.region} is a copy of {host.name}'s restore point {copy.point_id};"
                    " the stack copies there no more, so nobody deletes it, and it costs",
                    remedy="if you want nothing from it: aws ec2 delete-snapshot"
                    f" --region {copy.region} --snapshot-id {copy.copy_id}",
                    resource=copy.copy_id,
                )
        refused = [copy for copy in here if copy.refusals]
        for copy in refused:
            doing = f"delete {copy.copy_id}, an old copy" if copy.complete else f"copy restore point {copy.point_id}"
            times = "once" if copy.refusals == 1 else f"{copy.refusals} times"
            yield Finding(
                level="warning",
                what=f"AWS refused {times} to {doing} of host {host.name} in {copy.region}: {copy.refused}",
                remedy="it is asked again, at least daily; docs/copies.md says what it may be",
                resource=copy.copy_id or copy.point_id,
            )
        late = missing(here, (point for point in facts.points if point.host == host.name), facts.now)
        complete = [copy.taken_at for copy in here if copy.complete and copy.sound]
        since = late[0 if complete else -1].made_at if late else None
        if facts.copy_region and since and not refused and facts.now - since > COPIED_WITHIN:
            newest = f"the newest is of {max(complete):%Y-%m-%dT%H:%M:%SZ}" if complete else "there is none"
            yield Finding(
                level="wrong",
                what=f"the copies of host {host.name} in {facts.copy_region} are behind its restore points: {newest}",
                remedy="look for `copy_` and `copying_failed` in the log group of the stack's Sweep function",
                resource=host.name,
            )


def _drills(facts: Facts) -> Iterator[Finding]:
    for host in facts.hosts:
        drill = host.drill
        if drill and drill.failed_taken_at and not host.retired_at:
            yield Finding(
                level="wrong",
                what=f"a restore point of {host.name}, made {drill.failed_taken_at:%Y-%m-%dT%H:%M:%SZ}, failed its"
                " drill, and no newer one has passed",
                remedy=f"docs/runbooks/drill-failed.md; the next backup of {host.name} compares every byte",
                resource=host.name,
            )
        if drill and drill.manifest_lost and not host.retired_at:
            yield Finding(
                level="wrong",
                what=f"{host.name} pushes no manifest any more: its restore points from"
                f" {drill.bare_taken_at:%Y-%m-%dT%H:%M:%SZ} on cannot be proven, those before could",
                remedy=f"`nightvault doctor` on {host.name} says whether it can sign; if it can, somebody has left it"
                " out: docs/runbooks/drill-failed.md",
                resource=host.name,
            )
        if drill and drill.unprovable and not host.retired_at:
            yield Finding(
                level="warning",
                what=f"no restore point of {host.name} can be proven: it pushes no manifest (OpenSSH before 8.1, or an"
                " old nightvault)",
                remedy=f"`nightvault doctor` on {host.name} says what it lacks; when that is there: back up once, then"
                f" `vaultctl drill {host.name}`",
                resource=host.name,
            )
        if host.drill_overdue(facts.now):
            last = f"the last drill said: {drill.state} {drill.detail}".rstrip() if drill else "there was no drill"
            yield Finding(
                level="warning",
                what=f"no restore point of {host.name} was judged for 30 days; {last}",
                remedy=f"docs/runbooks/drill-overdue.md; `vaultctl drill {host.name}` begins one now",
                resource=host.name,
            )


def _flagged(facts: Facts) -> dict[str, str]:
    """Why the newest unusual push of a host is, by host: also of those whose snapshot is under way."""
    coming = (point for vault in facts.vaults for point in vault.pending_points.values())
    return {point.host: point.marks.unusual for point in (*facts.points, *coming) if point.marks.unusual}


def _unusual(facts: Facts) -> Iterator[Finding]:
    held = {host.name for host in facts.hosts if host.kept_since}
    for host, why in _flagged(facts).items():
        kept = "are kept, and cost, until somebody says otherwise" if host in held else "are NOT held (any more)"
        yield Finding(
            level="warning",
            what=f"{host} pushed something unusual: {why}; its restore points from before {kept}",
            remedy=f"`vaultctl restore-points {host}` shows which; once you know why: `vaultctl accept {host}`."
            " If nobody knows: docs/runbooks/unusual-push.md",
            resource=host,
        )


def _encryption(facts: Facts) -> Iterator[Finding]:
    plain = [disk.volume_id for disk in facts.estate.disks if not disk.encrypted]
    plain += [shot.snapshot_id for shot in facts.estate.shots if not shot.encrypted]
    for resource in plain:
        yield Finding(
            level="wrong",
            what=f"{resource} is not encrypted by EBS (what hosts put there is, by themselves)",
            remedy="copy it encrypted (aws ec2 copy-snapshot --encrypted) and delete this one;"
            " `aws ec2 enable-ebs-encryption-by-default` keeps it from happening again",
            resource=resource,
        )


def _public(facts: Facts) -> Iterator[Finding]:
    for snapshot_id in facts.public:
        yield Finding(
            level="wrong",
            what=f"snapshot {snapshot_id} is shared with every AWS account",
            remedy=f"aws ec2 modify-snapshot-attribute --snapshot-id {snapshot_id} --attribute createVolumePermission"
            " --operation-type remove --group-names all; and forbid it: aws ec2 enable-snapshot-block-public-access"
            " --state block-all-sharing",
            resource=snapshot_id,
        )


# --- who may reach a vault --------------------------------------------------------------------------------


def live_addresses(vault: Vault | None) -> frozenset[str]:
    """Whom a vault's security group should let in."""
    window = vault.window if vault else None
    return frozenset(run.source_address for run in window.live_runs if run.source_address) if window else frozenset()


def _ingress(facts: Facts) -> Iterator[Finding]:
    by_group = {vault.security_group_id: vault for vault in facts.vaults if vault.security_group_id}
    for group in facts.estate.groups:
        vault = by_group.get(group.group_id)
        wanted = live_addresses(vault)
        for stray in _rules(group.group_id, vault.vault_id if vault else "", group.ingress):
            if stray.address is None or stray.address not in wanted:
                who = stray.address or "more than one address, or another port"
                yield Finding(
                    level="wrong",
                    what=f"security group {group.group_id} lets in {who}, whom no live run needs",
                    remedy="`vaultctl doctor --fix` closes it; so does the next sweep of a vault that is busy",
                    resource=group.group_id,
                    mend=stray,
                )


def _rules(group_id: str, vault_id: str, permissions: tuple[dict[str, Any], ...]) -> Iterator[StrayIngress]:
    """Every single rule of a group, as a permission that names it alone."""
    for permission in permissions:
        ours = (permission.get("IpProtocol"), permission.get("FromPort"), permission.get("ToPort")) == (
            "tcp",
            SSH_PORT,
            SSH_PORT,
        )
        plain: dict[str, Any] = {
            key: permission[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in permission
        }
        for kind, key in (
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("PrefixListIds", ""),
            ("UserIdGroupPairs", ""),
        ):
            for source in permission.get(kind, []):
                network = ip_network(source[key], strict=False) if key else None
                single = network is not None and network.num_addresses == 1
                yield StrayIngress(
                    group_id=group_id,
                    vault_id=vault_id,
                    address=str(network.network_address) if ours and network and single else None,
                    permission={**plain, kind: [_without_description(source)]},
                )


def _without_description(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "Description"}


def _groups(facts: Facts) -> Iterator[Finding]:
    named = {vault.security_group_id for vault in facts.vaults}
    for group in facts.estate.groups:
        if group.group_id not in named:
            yield Finding(
                level="warning",
                what=f"security group {group.group_id} carries our tag, and no vault names it",
                remedy=f"aws ec2 delete-security-group --group-id {group.group_id} (EC2 refuses while it is in use)",
                resource=group.group_id,
            )


CHECKS: dict[str, tuple[Callable[[Facts], Iterator[Finding]], str]] = {
    "alerts": (_alerts, "alerts reach those who have asked for them"),
    "sweep": (_sweep, "the sweep runs"),
    "clock": (_clock, "our clock is AWS's"),
    "recovery": (_recovery, "the table can be brought back to any second of the last 35 days"),
    "quotas": (_quotas, "the account's quotas leave room"),
    "machines": (_machines, "every instance is a vault's, and none runs that should sleep"),
    "templates": (_templates, "vaults are of the newest launch template"),
    "volumes": (_volumes, "every host has its volume, and every volume its host"),
    "points": (_points, "every restore point has its snapshot, and every snapshot its restore point"),
    "retention": (_retention, "what retention needs no more is deleted, and no host's history is held"),
    "copies": (_copies, "no copy in another region is behind, refused or left over"),
    "unusual": (_unusual, "no host has pushed anything unusual that nobody has accepted"),
    "drills": (_drills, "every host has a restore point that was proven within 30 days"),
    "encryption": (_encryption, "volumes and snapshots are encrypted"),
    "public": (_public, "no snapshot is shared with the world"),
    "ingress": (_ingress, "only hosts with a live run are let in"),
    "groups": (_groups, "every security group is a vault's"),
}
