"""Lives of a vault by which each function comes to make every call that it may: what usually another does is refused
to that one, and left to the function in question, which sees it at its next look."""

import uuid
from collections.abc import Mapping
from typing import Any

from tests.e2e.nights import vault
from tests.localcloud.events import instance_changed, snapshot_changed
from tests.localcloud.hosts import FakeHost
from tests.localcloud.interposer import plain_client
from tests.localcloud.wire import call, made_up_key
from tests.stack.cloud import StackCloud
from tests.stack.nights import POLICY, finish, ready, start

# Hours pass in these lives: leases and windows outlast them. Only what is waited for by the clock is short.
LIVES = {**POLICY, "window_seconds": 14400, "lease_seconds": 7200}
REFUSED = "Unsupported"  # a code that botocore doesn't try again
PASSING = "InsufficientVolumeCapacity"  # another, of which we know that it passes
ELSEWHERE = "198.51.100.7"


def look(cloud: StackCloud, by: str) -> None:
    """The function looks at the vault: it sweeps, or is told of an event. Whatever it was waiting for is over."""
    cloud.clock.advance(seconds=LIVES["wake_timeout_seconds"] + 1)
    again(cloud, by)


def again(cloud: StackCloud, by: str) -> None:
    if by == "sweep":
        cloud.sweep()
    else:
        event = instance_changed(vault(cloud)["instance_id"], "stopped", cloud.clock.now())
        cloud.deployed.invoke("instance_changed", event)


def settled(cloud: StackCloud) -> None:
    """No instance is between two states."""
    cloud.wait_until(
        lambda: not set(cloud.instances().values()) & {"pending", "stopping", "shutting-down"},
        30,
        what="EC2 is at rest",
    )


def wakes(cloud: StackCloud, host: FakeHost) -> str:
    run_id = str(uuid.uuid4())
    start(cloud, host, run_id)
    ready(cloud, host, run_id)
    return run_id


def pushed(cloud: StackCloud, host: FakeHost) -> None:
    """A night up to its machine's standing still: what comes next is for whoever looks next."""
    run_id = wakes(cloud, host)
    cloud.vaults.commit(host.name, run_id)
    finish(cloud, host, run_id)
    settled(cloud)


def completed(cloud: StackCloud) -> None:
    states = [each["State"] for each in cloud.snapshots()]
    assert states
    cloud.wait_until(
        lambda: all(each["State"] != "pending" for each in cloud.snapshots()), 30, what="snapshots are made"
    )


def first_waking(cloud: StackCloud, host: FakeHost) -> None:
    """The group can't be made, by an operator's wake nor by the host's start, and the host has no volume yet: the sweep
    makes both, and launches."""
    cloud.faults.refuse("CreateVolume", REFUSED, times=2)
    cloud.faults.lose_response("CreateSecurityGroup")  # done, asked again, there already …
    cloud.faults.refuse("DescribeSecurityGroups", REFUSED, times=2)  # … and not found
    cloud.operate("wake", vault_id="vault-1")
    run_id = str(uuid.uuid4())
    start(cloud, host, run_id)
    look(cloud, "sweep")
    ready(cloud, host, run_id)
    cloud.operate("sleep", vault_id="vault-1", cut=True)
    settled(cloud)
    look(cloud, "sweep")


def never_boots(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """Each attempt is given up by who looks: switched off, started, at last replaced; then operators are told."""
    cloud.faults.never_boot(times=4)
    cloud.faults.refuse("StartInstances", REFUSED)
    start(cloud, host, str(uuid.uuid4()))
    for _ in range(12):
        look(cloud, by)
        settled(cloud)
        again(cloud, by)  # it runs: its volumes are attached
        settled(cloud)
        if vault(cloud)["phase"] == "asleep":
            break
    cloud.faults.clear()
    assert vault(cloud)["phase"] == "asleep", vault(cloud)


def doors(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """Someone has changed the group: whoever looks puts it right."""
    run_id = wakes(cloud, host)
    group = f"nightvault-{vault(cloud)['vault_id']}"
    with cloud.aws.ec2.lock:
        ec2 = plain_client("ec2")
        found = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [group]}])["SecurityGroups"][0]
        ec2.revoke_security_group_ingress(GroupId=found["GroupId"], IpPermissions=found["IpPermissions"])
        ec2.authorize_security_group_ingress(GroupId=found["GroupId"], IpPermissions=[_ssh_from(ELSEWHERE)])
    again(cloud, by)
    finish(cloud, host, run_id, "failed")
    settled(cloud)
    look(cloud, by)


def _ssh_from(address: str) -> Mapping[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": f"{address}/32"}]}


def seals(cloud: StackCloud, host: FakeHost, by: str) -> None:
    pushed(cloud, host)
    look(cloud, by)
    completed(cloud)
    look(cloud, by)
    assert not vault(cloud)["pending_points"]


def grows(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """Its volume is nearly full: enlarged by who sees the machine at rest."""
    run_id = wakes(cloud, host)
    cloud.vaults.fill(host.name, 0.9)
    cloud.vaults.commit(host.name, run_id)
    finish(cloud, host, run_id)
    settled(cloud)
    cloud.clock.advance(seconds=86400)  # AWS takes one modification of a volume at a time, and not too soon another
    again(cloud, by)
    completed(cloud)
    look(cloud, by)


def retires(cloud: StackCloud, name: str, by: str) -> None:
    """A host, and its volume with it: taken off the stopped machine, then deleted."""
    seals(cloud, cloud.enroll(name), "sweep")
    given_up = vault(cloud)["instance_id"]
    if by == "operate":  # it detaches from a machine that is the vault's no more, and is still there
        cloud.faults.refuse("TerminateInstances", REFUSED)
        cloud.operate("rebuild_vault", vault_id="vault-1")
    for _ in range(3):
        answer = cloud.operate("retire", host=name, delete_volume=True)
        assert "error" not in answer, answer
        settled(cloud)
        if by != "operate":
            look(cloud, by)
    if by == "operate":
        terminate(cloud, given_up)


def restores(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """A volume is made of its oldest restore point: at the start, or, when EC2 has no room then, by who looks next. It
    is removed at the vault's reports, while an operator keeps that awake."""
    if by != "api_handler":
        cloud.faults.refuse("CreateVolume", PASSING)
    cloud.operate("wake", vault_id="vault-1")
    run_id = str(uuid.uuid4())
    assert host.start(run_id, "restore", host.points()[-1]["point_id"]).status == 202
    if by != "api_handler":
        again(cloud, by)
    ready(cloud, host, run_id)
    finish(cloud, host, run_id)
    cloud.wait_until(lambda: not lent(cloud), 30, what="the volume is gone")
    cloud.operate("sleep", vault_id="vault-1")
    settled(cloud)
    look(cloud, "sweep")


def lent(cloud: StackCloud) -> list[str]:
    """Volumes that were made from restore points, and are there."""
    with cloud.aws.ec2.lock:
        mine = [{"Name": "tag:nightvault:purpose", "Values": ["restore"]}]
        return [each["VolumeId"] for each in plain_client("ec2").describe_volumes(Filters=mine)["Volumes"]]


def woken_by_an_operator(cloud: StackCloud, host: FakeHost) -> None:
    """A stopped machine, with a volume that isn't attached; then, when it was given up, a new one; then told to sleep
    while a host is there."""
    seals(cloud, host, "sweep")
    late = volume_is_missing(cloud, "late-o", "instance_changed")
    cloud.operate("wake", vault_id="vault-1")
    run_id = wakes(cloud, late)
    cloud.operate("sleep", vault_id="vault-1", cut=True)
    settled(cloud)
    look(cloud, "sweep")
    cloud.operate("rebuild_vault", vault_id="vault-1")
    settled(cloud)
    cloud.operate("wake", vault_id="vault-1")
    settled(cloud)
    assert host.status(run_id).status == 404
    cloud.operate("sleep", vault_id="vault-1")
    settled(cloud)
    look(cloud, "sweep")


def lost_in_the_middle(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """The machine is terminated behind our back while a host pushes: another is launched by whoever sees it first."""
    run_id = wakes(cloud, host)
    cloud.vaults.commit(host.name, run_id)
    terminate(cloud)
    again(cloud, by)
    ready(cloud, host, run_id)
    finish(cloud, host, run_id)
    settled(cloud)
    look(cloud, by)
    completed(cloud)
    look(cloud, by)


def lost_for_good(cloud: StackCloud, host: FakeHost, by: str) -> None:
    """And that one can't be launched: whoever ends the run finds out that there is no machine, seals, and enlarges what
    could not be enlarged last night."""
    cloud.faults.refuse("ModifyVolume", REFUSED, times=9)
    grows(cloud, host, "sweep")
    cloud.faults.clear()
    run_id = wakes(cloud, host)
    cloud.vaults.commit(host.name, run_id)
    cloud.wait_until(lambda: host.status(run_id).document["committed"], 30, what="the commit is known")
    terminate(cloud)
    cloud.faults.refuse("RunInstances", REFUSED)
    again(cloud, "sweep")
    if by == "api_handler":
        finish(cloud, host, run_id)
    else:
        cloud.operate("sleep", vault_id="vault-1", cut=True)
    completed(cloud)
    look(cloud, "sweep")


def terminate(cloud: StackCloud, instance_id: str | None = None) -> None:
    """As its owner, behind the control plane's back."""
    instance_id = instance_id or str(vault(cloud)["instance_id"])
    cloud.aws.interposer.ask("ec2", "TerminateInstances", {"InstanceIds": [instance_id]})
    cloud.wait_until(lambda: cloud.instances()[instance_id] == "terminated", 30, what=f"{instance_id} is gone")


def strange_key(cloud: StackCloud, host: FakeHost) -> None:
    """The vault shows another ssh host key than it enrolled with: operators are told."""
    run_id = wakes(cloud, host)
    instance_id = vault(cloud)["instance_id"]
    token, _ = cloud.vaults._tokens[instance_id]
    body = {
        "instance_id": instance_id,
        "boot_id": str(uuid.uuid4()),
        "state": "ready",
        "address": "127.0.0.1",
        "port": 22,
        "host_keys": [made_up_key("strange")],
        "mounts": [],
        "transfers": [],
        "commits": [],
    }
    assert call(cloud.url, "POST", "/report", token=token, body=body).status == 200
    finish(cloud, host, run_id, "failed")
    settled(cloud)
    look(cloud, "sweep")


def snapshots_fail(cloud: StackCloud, host: FakeHost) -> None:
    """Each attempt fails, and EBS says so: made again, and at last given up."""
    pushed(cloud, host)
    cloud.faults.fail_snapshot(times=3)
    look(cloud, "sweep")
    for _ in range(4):
        completed(cloud)
        cloud.clock.advance(seconds=LIVES["claim_seconds"] + 1)
        tell_of_snapshots(cloud)
    assert not vault(cloud)["pending_points"]


def tell_of_snapshots(cloud: StackCloud) -> None:
    for each in cloud.snapshots():
        result = "succeeded" if each["State"] == "completed" else "failed"
        event = snapshot_changed(each["SnapshotId"], each["VolumeId"], result, each["StartTime"], cloud.clock.now())
        cloud.deployed.invoke("snapshot_changed", event)


def no_machine_at_a_snapshots_news(cloud: StackCloud, host: FakeHost) -> None:
    """The machine is lost and can't be launched, and the window ends: it asks whether there is one."""
    pushed(cloud, host)
    look(cloud, "sweep")
    completed(cloud)
    wakes(cloud, host)
    terminate(cloud)
    cloud.faults.refuse("RunInstances", REFUSED)
    again(cloud, "sweep")
    cloud.clock.advance(seconds=LIVES["window_seconds"] + 1)
    tell_of_snapshots(cloud)
    look(cloud, "sweep")


def overdue_at_a_snapshots_news(cloud: StackCloud, host: FakeHost) -> None:
    """A snapshot of last night completes late, and the next window's run is overdue by then: it closes the window."""
    pushed(cloud, host)
    look(cloud, "sweep")
    completed(cloud)
    wakes(cloud, host)
    cloud.pull_plug(then="running")  # no agent reports any more, and EC2 has not noticed
    cloud.clock.advance(seconds=LIVES["lease_seconds"] + 1)
    tell_of_snapshots(cloud)
    settled(cloud)
    look(cloud, "sweep")


def volume_is_missing(cloud: StackCloud, name: str, by: str) -> FakeHost:
    """A new host's volume could not be made when it enrolled."""
    cloud.faults.refuse("CreateVolume", REFUSED)
    host = cloud.enroll(name)
    look(cloud, by)
    cloud.faults.clear()
    return host


def loses_its_volume(cloud: StackCloud, name: str) -> None:
    """Somebody deletes it; the next is made of its newest restore point, by an operator's wake, since there was no room
    when the host started."""
    host = cloud.enroll(name)
    seals(cloud, host, "sweep")
    volume_id = str(cloud.operate("host", host=name)["host"]["volume_id"])
    for operation in ("DetachVolume", "DeleteVolume"):
        cloud.aws.interposer.ask("ec2", operation, {"VolumeId": volume_id})
        cloud.wait_until(lambda: not _attached(cloud, volume_id), 30, what=f"{volume_id} is attached to nothing")
    quiet_look(cloud)
    look(cloud, "sweep")
    assert cloud.operate("host", host=name)["host"]["rests_as"]
    cloud.faults.refuse("CreateVolume", REFUSED)
    run_id = str(uuid.uuid4())
    start(cloud, host, run_id)
    cloud.operate("wake", vault_id="vault-1")
    ready(cloud, host, run_id)
    finish(cloud, host, run_id, "failed")
    cloud.operate("sleep", vault_id="vault-1")
    settled(cloud)
    look(cloud, "sweep")
    cloud.operate("retire", host=name)
    look(cloud, "sweep")


def _attached(cloud: StackCloud, volume_id: str) -> bool:
    with cloud.aws.ec2.lock:
        found = plain_client("ec2").describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume_id]}])["Volumes"]
    return any(each["Attachments"] for each in found)


def estate_needs_mending(cloud: StackCloud) -> None:
    """What `doctor` mends: a machine that no vault knows and that is there for a while, an open door."""
    vault_id = vault(cloud)["vault_id"]
    tags = [{"Key": "nightvault:stack", "Value": "nightvault"}, {"Key": "nightvault:vault", "Value": vault_id}]
    image = cloud.deployed.template_of_vaults()["LaunchTemplateData"]["ImageId"]
    cloud.faults.never_boot()
    cloud.aws.interposer.ask(
        "ec2",
        "RunInstances",
        {
            "ImageId": image,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": "stray",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        },
    )
    settled(cloud)
    with cloud.aws.ec2.lock:
        ec2 = plain_client("ec2")
        mine = [{"Name": "group-name", "Values": [f"nightvault-{vault_id}"]}]
        group = ec2.describe_security_groups(Filters=mine)["SecurityGroups"][0]["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_ssh_from(ELSEWHERE)])
    cloud.clock.advance(seconds=3600)


def points_grow_old(cloud: StackCloud, host: FakeHost) -> None:
    """More nights than the host is to keep; an operator locks one by EBS, which stays until it is unlocked."""
    for _ in range(5):
        seals(cloud, host, "sweep")
    points = cloud.operate("restore_points", host=host.name)["restore_points"]
    oldest = [each["snapshot_id"] for each in points if each["complete"]][-1]
    cloud.operate("lock", point=oldest, days=30)
    cloud.operate("retention", host=host.name, daily=1, weekly=0, monthly=0)
    for _ in range(2):
        quiet_look(cloud)
    before = cloud.operate("retention", host=host.name)
    assert len(before["deleted"]) >= 1, before
    assert oldest in {each["point"]["snapshot_id"] for each in before["verdicts"]}
    cloud.operate("unlock", point=oldest)
    for _ in range(2):
        quiet_look(cloud)
    after = cloud.operate("retention", host=host.name)
    assert oldest in {each["snapshot_id"] for each in after["deleted"]}
    assert oldest not in {each["SnapshotId"] for each in cloud.snapshots()}


def quiet_look(cloud: StackCloud) -> None:
    """The sweep at the next quarter of an hour, when it looks at hosts too."""
    now = cloud.clock.now()
    cloud.clock.advance(seconds=900 - (now.minute % 15 * 60 + now.second) + 1)
    cloud.sweep()
