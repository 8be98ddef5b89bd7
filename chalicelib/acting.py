"""Carrying out what was decided. Each effect may be repeated, and what comes of it is said to the vault again.

A refused call is told and counted, never swallowed: the intent is saved, so the next sweep derives the
effect again.
"""

import secrets
from typing import TYPE_CHECKING, assert_never

from chalicelib.auth import new_secret, sha256
from chalicelib.commands import (
    Command,
    GroupMade,
    GrowthPostponed,
    Launched,
    LaunchIntended,
    Observe,
    PointsMade,
    PointVolumeAttached,
    PointVolumeGone,
    PointVolumeMade,
    PointVolumeRefused,
    SnapshotMissing,
    VolumeDeleted,
    VolumeDetached,
    VolumeEnlarged,
    VolumeMade,
    VolumesAttached,
    VolumesMissing,
    WakeFailed,
)
from chalicelib.effects import (
    Admit,
    Attach,
    AttachPointVolume,
    CheckInstance,
    CheckPoints,
    DeleteVolume,
    Detach,
    Effect,
    Enlarge,
    FindVolumes,
    MakePoints,
    MakePointVolume,
    MakeVolume,
    RemovePointVolume,
    Revoke,
    SetIngress,
    Stop,
    Terminate,
    Wake,
)
from chalicelib.enrolment import agent_code
from chalicelib.errors import CloudRefused
from chalicelib.model import InstanceState, Launch, Phase, PointState, PointVolume, RestorePoint, Slot, Vault
from chalicelib.operated import NOTHING_THERE
from chalicelib.ports import PointDisk

if TYPE_CHECKING:
    from chalicelib.control import Control


class Actor:
    """Turns effects into AWS calls, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control
        self._cloud = control.cloud

    def act(self, vault: Vault, effects: tuple[Effect, ...]) -> Vault:
        """Carry out effects in their order; returns the vault as it is after what came of them."""
        for effect in effects:
            try:
                vault = self._act(vault, effect)
            except CloudRefused as refused:
                self._tell(vault, type(effect).__name__, refused)
                if isinstance(effect, Wake):
                    vault = self._control.apply(vault.vault_id, WakeFailed(reason=str(refused)))
                if isinstance(effect, MakePointVolume | AttachPointVolume):
                    vault = self._say(vault, _refusal(effect, refused))
        return vault

    def _tell(self, vault: Vault, effect: str, refused: CloudRefused) -> None:
        self._control.telemetry.fault(
            "call_refused",
            vault_id=vault.vault_id,
            effect=effect,
            call=refused.call,
            aws_code=refused.aws_code,
            error=str(refused),
        )

    def try_terminate(self, instance_id: str) -> None:
        """Give up a machine that no vault knows; a refusal is told, and the next sweep tries again."""
        try:
            self._cloud.terminate(instance_id)
        except CloudRefused as refused:
            self._control.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)

    def _act(self, vault: Vault, effect: Effect) -> Vault:
        cloud = self._cloud
        match effect:
            case Wake():
                return self._wake(vault)
            case Attach():
                return self._attach(vault, ask=True)
            case MakeVolume(host=host):
                return self._make_volume(vault, host)
            case Admit(address=address):
                vault = self._with_group(vault)
                cloud.admit(_group(vault), address)
            case Revoke(address=address):
                return self._revoke(vault, address)
            case SetIngress(addresses=addresses):
                self._set_ingress(vault, addresses)
            case Stop(instance_id=instance_id, force=force):
                cloud.stop(instance_id, force=force)
            case Terminate(instance_id=instance_id):
                cloud.terminate(instance_id)
            case MakePoints(points=points):
                return self._make_points(vault, points)
            case CheckPoints(snapshot_ids=snapshot_ids):
                self._control.counting.check(vault, snapshot_ids)
                return self._reload(vault)
            case CheckInstance():
                return self._check_instance(vault)
            case Enlarge(host=host, volume_id=volume_id, size_gib=size_gib):
                return self._enlarge(vault, host, volume_id, size_gib)
            case Detach(host=host, volume_id=volume_id):
                if self._asleep(vault) and cloud.detach(volume_id):
                    return self._say(vault, VolumeDetached(host=host, volume_id=volume_id))
            case DeleteVolume():
                return self._delete_volume(vault, effect)
            case FindVolumes():
                return self._find_volumes(vault)
            case MakePointVolume(volume=volume):
                volume_id = cloud.make_point_volume(vault.vault_id, volume)
                made = PointVolumeMade(host=volume.host, run_id=volume.run_id, volume_id=volume_id)
                return self._say(vault, made)
            case AttachPointVolume(volume=volume):
                return self._attach_point_volume(vault, volume)
            case RemovePointVolume(host=host, run_id=run_id):
                return self._remove_point_volume(vault, host, run_id)
            case _:
                assert_never(effect)
        return vault

    def _say(self, vault: Vault, command: Command) -> Vault:
        return self._control.apply(vault.vault_id, command)

    def _reload(self, vault: Vault) -> Vault:
        return self._control.store.vault(vault.vault_id) or vault

    def _asleep(self, vault: Vault) -> bool:
        """It still is, a moment before a volume is taken from it: a host may have started since that was decided."""
        return self._reload(vault).phase is Phase.ASLEEP

    def _wake(self, vault: Vault) -> Vault:
        if vault.instance_id:
            instance_id = vault.instance_id
            try:
                vault = self._attach(vault)  # a stopped instance takes volumes too, and then boots with them
            except CloudRefused as refused:
                self._tell(vault, "Attach", refused)  # one host's volume; the others are waiting for the machine
            self._cloud.start(instance_id)
            return vault
        vault = self._with_group(vault)
        if vault.launch is None:
            launch = Launch(client_token=secrets.token_hex(16), code=new_secret())
            vault = self._control.apply(vault.vault_id, LaunchIntended(launch=launch))
        if vault.launch is None:
            return vault  # launched by someone else in between, or no longer wanted
        code = agent_code(vault.vault_id, sha256(vault.launch.code), self._control.clock.now())
        self._control.store.put_code(code)
        return self._say(vault, Launched(instance_id=self._cloud.launch(vault)))

    def _with_group(self, vault: Vault) -> Vault:
        if vault.security_group_id:
            return vault
        return self._say(vault, GroupMade(security_group_id=self._cloud.make_group(vault.vault_id)))

    def _attach(self, vault: Vault, *, ask: bool = False) -> Vault:
        """`ask`: EC2, also about volumes that are recorded as attached: one may have been detached since."""
        known = not any(_unattached(vault, slot) for slot in vault.hosts.values())
        if not vault.instance_id or (known and not ask):
            return vault
        hosts = self._cloud.attach(vault.instance_id, vault.hosts)
        news = tuple(h for h in hosts if _unattached(vault, vault.hosts[h]))
        return self._say(vault, VolumesAttached(instance_id=vault.instance_id, hosts=news)) if news else vault

    def _revoke(self, vault: Vault, address: str) -> Vault:
        if vault.security_group_id is None:
            return vault
        self._cloud.revoke(vault.security_group_id, address)
        # A host behind the same address may have started while we revoked: its Admit came first and is now undone.
        vault = self._reload(vault)
        if vault.window and any(run.source_address == address for run in vault.window.live_runs):
            self._cloud.admit(_group(vault), address)
        return vault

    def _set_ingress(self, vault: Vault, addresses: frozenset[str]) -> None:
        if vault.security_group_id is None:
            return
        there = self._cloud.ingress(vault.security_group_id)
        for address in sorted(addresses - there):
            self._cloud.admit(vault.security_group_id, address)
        for address in sorted(there - addresses):
            self._revoke(vault, address)

    def _make_points(self, vault: Vault, points: tuple[RestorePoint, ...]) -> Vault:
        made: dict[str, str] = {}
        for window_id in sorted({point.window_id for point in points}):
            # Looked up before any is made: whoever tried before may have died between the call and its record.
            made.update(self._cloud.find_snapshots(window_id))
        refused: CloudRefused | None = None
        for point in points:
            if point.host not in made:
                point = self._control.counting.judged(vault, point)  # noqa: PLW2901
                try:
                    made[point.host] = self._cloud.snapshot(point)
                except CloudRefused as error:
                    refused = error  # the other hosts' volumes are snapshotted all the same
        wanted = {point.host: made[point.host] for point in points if point.host in made}
        if wanted:
            vault = self._say(vault, PointsMade(snapshots=wanted))
        if refused:
            raise refused
        return vault

    def _make_volume(self, vault: Vault, host: str) -> Vault:
        slot = vault.hosts.get(host)
        if slot is None or slot.volume_id:
            return vault  # an effect before this one has brought it
        try:
            volume_id = self._cloud.make_volume(vault.vault_id, host, slot)
        except CloudRefused as refused:
            if refused.aws_code != "InvalidSnapshot.NotFound":
                raise
            point = self._control.choosing.sound(host, slot.rests_as)
            return self._say(vault, SnapshotMissing(host=host, snapshot_id=slot.rests_as, point=point))
        return self._say(vault, VolumeMade(host=host, volume_id=volume_id, remade=slot.remade))

    def _find_volumes(self, vault: Vault) -> Vault:
        """Says what it sees only if that is news."""
        wanted = {host: slot.volume_id for host, slot in vault.hosts.items() if slot.volume_id}
        gone = self._cloud.missing_volumes(wanted.values())
        missing = {host: volume_id for host, volume_id in wanted.items() if volume_id in gone}
        if not missing and not any(slot.missing_since for slot in vault.hosts.values()):
            return vault
        points = {host: point for host in missing if (point := self._control.choosing.sound(host))}
        return self._say(vault, VolumesMissing(volumes=missing, points=points))

    def _enlarge(self, vault: Vault, host: str, volume_id: str, size_gib: int) -> Vault:
        size = self._cloud.enlarge(volume_id, size_gib)
        if size is None:
            return self._say(vault, GrowthPostponed(host=host))
        return self._say(vault, VolumeEnlarged(host=host, volume_id=volume_id, size_gib=size))

    def _delete_volume(self, vault: Vault, effect: DeleteVolume) -> Vault:
        # What the volume is deleted for was there when that was decided; somebody may have deleted it since.
        if effect.snapshot_id != NOTHING_THERE:
            state = self._cloud.snapshot_states([effect.snapshot_id]).get(effect.snapshot_id)
            if state is not PointState.COMPLETED:
                self._control.telemetry.fault(
                    "volume_not_deleted",
                    vault_id=vault.vault_id,
                    host=effect.host,
                    volume_id=effect.volume_id,
                    error=f"snapshot {effect.snapshot_id}, which held all that it does, is {state or 'gone'}",
                )
                return vault
        if not self._asleep(vault) or not self._cloud.delete_volume(effect.volume_id):
            return vault
        deleted = VolumeDeleted(host=effect.host, volume_id=effect.volume_id, snapshot_id=effect.snapshot_id)
        return self._say(vault, deleted)

    def _attach_point_volume(self, vault: Vault, volume: PointVolume) -> Vault:
        if not vault.instance_id or not self._cloud.attach_point_volume(vault.instance_id, volume):
            return vault
        attached = PointVolumeAttached(
            host=volume.host, volume_id=volume.volume_id or "", instance_id=vault.instance_id
        )
        return self._say(vault, attached)

    def _remove_point_volume(self, vault: Vault, host: str, run_id: str) -> Vault:
        # Looked up by tag, recorded or not: whoever made it may have died before it could say so.
        there = [
            disk
            for disk in self._cloud.point_disks()
            if (disk.vault_id, disk.host, disk.run_id) == (vault.vault_id, host, run_id)
        ]
        if all(self._remove(disk.volume_id) for disk in there):
            return self._say(vault, PointVolumeGone(host=host, run_id=run_id))
        return vault

    def _remove(self, volume_id: str) -> bool:
        """A step towards its end; whether EC2 has it no more."""
        return self._cloud.detach(volume_id) and self._cloud.delete_volume(volume_id)

    def try_remove(self, disk: PointDisk) -> None:
        """Remove a restore's volume that no vault knows; a refusal is told, and the next sweep tries again."""
        try:
            self._remove(disk.volume_id)
        except CloudRefused as refused:
            self._control.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)

    def _check_instance(self, vault: Vault) -> Vault:
        if vault.launch is None:
            return vault
        instance_id = self._cloud.find_launched(vault.launch.client_token)
        if instance_id:
            return self._say(vault, Launched(instance_id=instance_id))
        return self._control.apply(vault.vault_id, Observe(state=InstanceState.GONE))


def _refusal(effect: MakePointVolume | AttachPointVolume, refused: CloudRefused) -> PointVolumeRefused:
    # Attaching waits for much that passes: another volume's detachment, a machine that is just starting.
    final = refused.call == "CreateVolume" and not refused.passing
    volume = effect.volume
    return PointVolumeRefused(host=volume.host, run_id=volume.run_id, reason=str(refused), final=final)


def _unattached(vault: Vault, slot: Slot) -> bool:
    return slot.volume_id is not None and slot.attached_to != vault.instance_id


def _group(vault: Vault) -> str:
    if vault.security_group_id is None:
        raise AssertionError("the group was made before anyone is let in")
    return vault.security_group_id
