"""A second account fetches copies: two accounts of moto, and EC2's own word on who may copy what."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.exceptions import ConnectionClosedError
from moto.backends import get_backend
from moto.ec2.utils import random_snapshot_id
from msgspec.structs import replace

from chalicelib.copier import Ec2Copier
from chalicelib.errors import CloudRefused
from deploy import fetch
from tests.contract.test_copier import THERE, a_point
from tests.localcloud.account import TABLE, Account
from tests.localcloud.aws import LocalAws
from tests.localcloud.clock import OffsetClock
from tests.localcloud.events import ACCOUNT
from tests.localcloud.faults import Faults
from tests.localcloud.interposer import REGION, plain_client
from tests.localcloud.no_machines import NoMachines
from tests.localcloud.patience import wait_until
from tests.localcloud.regions import SlowCopy
from tests.localcloud.states import Delays

SECOND = "222222222222"
KEY = f"arn:aws:kms:{THERE}:{SECOND}:key/k"
ASKED = ["--first", "nobody", "--second", "b", "--home", REGION, "--region", THERE, "--key", KEY]
_numbers = count(1)


@dataclass
class Accounts:
    """The first, with a stack whose copies `copier` makes, and clients of both."""

    rig: Account
    copier: Ec2Copier
    first: Any
    second: Any
    stack: str

    def __post_init__(self) -> None:
        self.backend: Any = get_backend("ec2")[SECOND][THERE]
        self.refuses_key = False
        self.lose_answer = False
        self.calls = 0

    def copy(self, params: Any, **_: Any) -> Any:
        """moto copies within an account only. A snapshot must have been shared; its key may be refused later.

        https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html
        """
        body = params["body"]
        self.calls += 1
        source = get_backend("ec2")[ACCOUNT][THERE].snapshots.get(body["SourceSnapshotId"])
        if source is None or SECOND not in source.create_volume_permission_userids:
            error = {"Code": "InvalidSnapshot.NotFound", "Message": f"The snapshot {body['SourceSnapshotId']} ..."}
            return _Http(400), {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}
        assert (body["SourceRegion"], body["KmsKeyId"], body["Encrypted"]) == (THERE, KEY, "true")
        copy = SlowCopy(self.backend, random_snapshot_id(), source.volume, body["Description"], encrypted=True)
        tags = {
            body[f"TagSpecification.1.Tag.{n}.Key"]: body[f"TagSpecification.1.Tag.{n}.Value"] for n in range(1, 10)
        }
        copy.status = "pending"
        self.backend.snapshots[copy.id] = copy
        copy.add_tags(tags)
        if self.lose_answer:
            self.lose_answer = False
            raise ConnectionClosedError(endpoint_url="https://ec2")
        return _Http(200), {"SnapshotId": copy.id, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def arrive(self) -> None:
        """What is under way in the second account is complete, or has failed."""
        for copy in self.backend.snapshots.values():
            if copy.status == "pending":
                copy.status = "error" if self.refuses_key else "completed"
                copy.state_message = "Given key ID is not accessible" if self.refuses_key else ""

    def night(self, host: str, minutes: int) -> str:
        """A restore point of the first account, until its copy is complete; gives the copy's id."""
        made = str(self.rig.ec2.create_snapshot(VolumeId=self.rig.volume())["SnapshotId"])
        wait_until(lambda: self._state(self.rig.ec2, made) == "completed", 5.0)
        point = a_point(made, host)
        copy_id = self.copier.copy(replace(point, made_at=point.run_started_at.replace(minute=minutes)))
        wait_until(lambda: self._state(self.first, copy_id) == "completed", 5.0)
        return copy_id

    @staticmethod
    def _state(ec2: Any, snapshot_id: str) -> str:
        return str(ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"])

    def fetch(self) -> tuple[bool, str]:
        """Whether all went well, and what was said."""
        asked = fetch.parser().parse_args([*ASKED, "--stack", self.stack])
        fetching = fetch.fetching(self.first, self.second, SECOND, asked)
        lines = list(fetching.fetch())
        return not fetching.failed, "\n".join(lines)

    def fetched(self) -> list[str]:
        """Of which copies the second account has complete ones, oldest first."""
        found = self.second.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        tags = [{tag["Key"]: tag["Value"] for tag in each["Tags"]} for each in found if each["State"] == "completed"]
        return [each["nightvault:copy-of"] for each in sorted(tags, key=lambda each: each["nightvault:taken"])]


@dataclass(frozen=True)
class _Http:
    status_code: int


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Account, Any, Any]]:
    delays = Delays(volume=0.01, snapshot=0.01, copy=0.01)
    with LocalAws(hypervisor=NoMachines(), delays=delays, clock=OffsetClock(), faults=Faults()) as aws:
        rig = Account(aws, aws.make_stack("fetch", table=TABLE))
        role = plain_client("sts").assume_role(RoleArn=f"arn:aws:iam::{SECOND}:role/fetch", RoleSessionName="test")
        keys = role["Credentials"]
        session = boto3.session.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        second = session.client("ec2", region_name=THERE)
        yield rig, aws.session.client("ec2", region_name=THERE), second


@pytest.fixture
def accounts(world: tuple[Account, Any, Any]) -> Iterator[Accounts]:
    """Two accounts for all tests, and a stack of its own for each: its tag keeps them apart."""
    rig, first, second = world
    stack = f"s{next(_numbers)}"
    copier = Ec2Copier(lambda: first, stack=stack, home=REGION, region=THERE, kms_key="")
    get_backend("ec2")[SECOND][THERE].snapshots.clear()
    made = Accounts(rig, copier, first, second, stack)
    second.meta.events.register("before-call.ec2.CopySnapshot", made.copy)
    yield made
    second.meta.events.unregister("before-call.ec2.CopySnapshot", made.copy)


def test_the_newest_copy_of_each_host_is_shared_fetched_and_thinned_out(accounts: Accounts) -> None:
    one, other = accounts.night("C", 1), accounts.night("H", 1)
    assert accounts.fetch()[0]
    well, said = accounts.fetch()
    assert well and "C: " in said and "is under way" in said
    accounts.arrive()
    assert set(accounts.fetched()) == {one, other}
    two = accounts.night("C", 2)
    accounts.fetch()
    accounts.arrive()
    three = accounts.night("C", 3)
    accounts.fetch()
    assert set(accounts.fetched()) == {one, two, other}, "none goes too soon"
    accounts.arrive()
    well, said = accounts.fetch()
    assert well and "is deleted" in said
    assert set(accounts.fetched()) == {two, three, other}
    assert accounts.calls == 4


def test_said_again_it_asks_for_nothing(accounts: Accounts) -> None:
    accounts.night("C", 1)
    for _ in range(3):
        accounts.fetch()
        accounts.arrive()
    assert accounts.calls == 1


def test_a_lost_answer_makes_no_second_one(accounts: Accounts) -> None:
    one = accounts.night("C", 1)
    accounts.lose_answer = True
    assert not accounts.fetch()[0]
    assert accounts.fetch()[0]
    accounts.arrive()
    assert accounts.fetched() == [one] and accounts.calls == 1


def test_one_that_failed_is_said_and_made_again(accounts: Accounts) -> None:
    one = accounts.night("C", 1)
    accounts.refuses_key = True
    accounts.fetch()
    accounts.arrive()
    accounts.refuses_key = False
    well, said = accounts.fetch()
    assert not well and "Given key ID is not accessible" in said
    accounts.arrive()
    assert accounts.fetch()[0]
    assert accounts.fetched() == [one] and len(accounts.backend.snapshots) == 1


def test_what_may_not_be_shared_is_said_and_keeps_no_other_host_from_its_turn(accounts: Accounts) -> None:
    accounts.night("A", 1)
    one = accounts.night("C", 1)
    accounts.rig.aws.interposer._faults.refuse("ModifySnapshotAttribute", "UnauthorizedOperation")
    well, said = accounts.fetch()
    assert not well and "A: ModifySnapshotAttribute: UnauthorizedOperation" in said
    accounts.arrive()
    assert accounts.fetched() == [one]


def test_what_is_not_shared_cannot_be_fetched(accounts: Accounts) -> None:
    copier = Ec2Copier(lambda: accounts.second, stack="s", home=THERE, region=THERE, kms_key=KEY)
    with pytest.raises(CloudRefused):
        copier.copy(a_point(accounts.night("C", 1)))


def test_a_profile_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert fetch.main(ASKED) == 1
    assert "nobody" in capsys.readouterr().err
