"""What goes wrong: an intruder with the host's own key and token, and losses on the cloud's side."""

import shlex
import subprocess
import uuid
from pathlib import Path
from typing import Any

from tests.demo.player import Player
from tests.e2e.nights import asleep
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost


def empty_the_vault(cloud: LocalCloud, robbed: Player, scratch: Path) -> FakeHost:
    """With what lies on the host, and nothing else: wake the vault, push an empty folder, commit that, say complete.

    Returns the intruder, who still has the host's token.
    """
    state = robbed.folder / "state"
    facts = dict(line.split(" ", 1) for line in (state / "enrolment").read_text().splitlines())
    intruder = FakeHost(facts["url"], facts["name"], facts["token"])
    run_id = str(uuid.uuid4())
    began = intruder.start(run_id)
    if began.status != 202:
        raise RuntimeError(f"the intruder may not start: {began.document}")

    def ready() -> Any:
        document = intruder.status(run_id).document
        return document["ready"] and document["vault"]

    vault = cloud.wait_until(ready, 60, what="the vault is ready for the intruder")
    ssh = ["ssh", "-F", "/dev/null", "-i", str(state / "key"), "-p", str(vault["port"]), "-o", "IdentitiesOnly=yes"]
    ssh += ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no"]
    ssh += ["-o", "UserKnownHostsFile=/dev/null"]
    at = f"{vault['user']}@{vault['address']}"
    nothing = scratch / "nothing"
    nothing.mkdir()
    for command in (
        [*ssh, at, f"begin {run_id}"],
        ["rsync", "-a", "--delete", "-e", shlex.join(ssh), f"{nothing}/", f"{at}:."],
        [*ssh, at, f"commit {run_id}"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    intruder.finish(run_id)
    asleep(cloud)
    return intruder


def terminate_the_vault(cloud: LocalCloud) -> str:
    """As in EC2's console; returns which instance that was."""
    (instance_id,) = (each for each, state in cloud.instances().items() if state != "terminated")
    cloud.aws.session.client("ec2").terminate_instances(InstanceIds=[instance_id])
    cloud.wait_until(lambda: cloud.instances().get(instance_id, "terminated") == "terminated", 30, what="it is gone")
    return instance_id


def delete_the_volume(cloud: LocalCloud, host: str) -> str:
    """The live one of a host; returns which that was."""
    volume_id = str(cloud.operate("host", host=host)["host"]["volume_id"])
    cloud.aws.session.client("ec2").delete_volume(VolumeId=volume_id)
    return volume_id
