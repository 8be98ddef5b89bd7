"""An account with a stack, and the shortest ways to get what a test of the emulated EC2 needs."""

from typing import Any

from .aws import LocalAws, Stack
from .patience import wait_until

ZONE = "eu-central-1a"
TABLE = {
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


class Account:
    """`ec2` is a client as the application would have it."""

    def __init__(self, aws: LocalAws, stack: Stack) -> None:
        self.aws = aws
        self.stack = stack
        self.ec2: Any = aws.session.client("ec2")

    def launch(self, token: str = "t", **more: Any) -> str:  # noqa: S107 - a client token is no secret
        answer = self.ec2.run_instances(
            LaunchTemplate={"LaunchTemplateName": self.stack.launch_template, "Version": "$Latest"},
            MinCount=1,
            MaxCount=1,
            SubnetId=self.stack.subnet,
            ClientToken=token,
            **more,
        )
        return str(answer["Instances"][0]["InstanceId"])

    def running(self, token: str = "t") -> str:  # noqa: S107
        instance_id = self.launch(token)
        self.until(lambda: self.state(instance_id) == "running")
        return instance_id

    def stopped(self) -> str:
        instance_id = self.running()
        self.ec2.stop_instances(InstanceIds=[instance_id])
        self.until(lambda: self.state(instance_id) == "stopped")
        return instance_id

    def volume(self, zone: str = ZONE, **more: Any) -> str:
        made = self.ec2.create_volume(AvailabilityZone=zone, VolumeType="gp3", **{"Size": 1, **more})
        volume_id = str(made["VolumeId"])
        self.until(lambda: self.volume_state(volume_id) == "available")
        return volume_id

    def attach(self, volume_id: str, instance_id: str, device: str = "/dev/sdf") -> None:
        self.ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)

    def state(self, instance_id: str) -> str:
        found = self.ec2.describe_instances(InstanceIds=[instance_id])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def volume_state(self, volume_id: str) -> str:
        return str(self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"])

    def until(self, predicate: Any) -> None:
        wait_until(predicate, 5.0)
