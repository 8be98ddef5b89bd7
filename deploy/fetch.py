"""`python -m deploy.fetch`: a second account fetches each host's newest copy. docs/copies.md says how it is set up.

It remembers nothing: what is there is found by its tags, so it may be said as often as wanted, and whatever was
interrupted is gone on with. In the first account it shares copies and nothing else; that account has no part in what
lies in the second.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.calling import calling
from chalicelib.copier import Ec2Copier
from chalicelib.copying import superfluous
from chalicelib.errors import CloudRefused
from chalicelib.model import Copy, Outcome, PointState, RestorePoint
from chalicelib.ports import Copier, CopyShot

LEAST_KEPT = 1


class Fetching:
    """From the copies of `theirs` to `ours`, which is of another account. `share` lets that account read one."""

    def __init__(self, theirs: Copier, ours: Copier, share: Callable[[str], None], *, keep: int, now: datetime) -> None:
        self._theirs = theirs
        self._ours = ours
        self._share = share
        self._keep = max(LEAST_KEPT, keep)
        self._now = now
        self.failed = False

    def fetch(self) -> Iterator[str]:
        """What was done and found, a line each. Raises CloudRefused if an account can't be asked at all."""
        complete = [shot for shot in self._theirs.copies() if shot.state is PointState.COMPLETED]
        fetched = self._ours.copies()
        for host in sorted({shot.host for shot in complete}):
            newest = max((shot for shot in complete if shot.host == host), key=_age)
            mine = [shot for shot in fetched if shot.host == host]
            try:
                for line in (*self._clear(mine), self._see_to(newest, mine), *self._thin_out(mine)):
                    yield f"{host}: {line}"
            except CloudRefused as refused:
                self.failed = True
                yield f"{host}: {refused}"

    def _clear(self, mine: list[CopyShot]) -> Iterator[str]:
        for shot in mine:
            if shot.state is PointState.ERROR:
                self.failed = True
                self._ours.delete(shot.copy_id, shot.host)
                yield f"{shot.copy_id} failed ({shot.detail or 'EC2 does not say why'}); it is made again"

    def _see_to(self, newest: CopyShot, mine: list[CopyShot]) -> str:
        there = [shot for shot in mine if shot.state is not PointState.ERROR]
        of = f"{newest.copy_id} of {newest.taken_at:%Y-%m-%dT%H:%M:%SZ}"
        for shot in there:
            if shot.point_id == newest.copy_id:
                done = "is here" if shot.state is PointState.COMPLETED else "is under way"
                return f"{of} {done}, as {shot.copy_id}"
        for shot in there:
            if shot.state is PointState.PENDING:
                return f"{of} waits for {shot.copy_id}, which is under way"
        self._share(newest.copy_id)
        return f"{of} is begun, as {self._ours.copy(_as_point(newest))}"

    def _thin_out(self, mine: list[CopyShot]) -> Iterator[str]:
        for copy in superfluous([_as_copy(shot, self._ours.region) for shot in mine], self._keep, self._now, None):
            self._ours.delete(copy.copy_id, next(shot.host for shot in mine if shot.copy_id == copy.copy_id))
            yield f"{copy.copy_id} is deleted: {self._keep} that are newer are complete"


def _age(shot: CopyShot) -> tuple[datetime, str]:
    return shot.taken_at, shot.copy_id


def _as_copy(shot: CopyShot, region: str) -> Copy:
    return Copy(
        point_id=shot.point_id,
        taken_at=shot.taken_at,
        region=region,
        asked_at=shot.taken_at,
        copy_id=shot.copy_id,
        state=shot.state,
    )


def _as_point(shot: CopyShot) -> RestorePoint:
    """As far as a copier looks at one."""
    return RestorePoint(
        host=shot.host,
        vault_id="",
        window_id=f"{shot.taken_at:%Y-%m-%d}",
        volume_id="",
        run_id="",
        run_started_at=shot.taken_at,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id=shot.copy_id,
        state=PointState.COMPLETED,
        made_at=shot.taken_at,
    )


def fetching(first: Any, second: Any, account: str, asked: argparse.Namespace) -> Fetching:
    """`first`, `second`: EC2 clients of the two accounts; `account`: the second one's number."""
    stack = f"{asked.stack}@{asked.home}"
    theirs = Ec2Copier(lambda: first, stack=asked.stack, home=asked.home, region=asked.region, kms_key="")
    ours = Ec2Copier(lambda: second, stack=stack, home=asked.region, region=asked.region, kms_key=asked.key)

    def share(snapshot_id: str) -> None:
        with calling("ModifySnapshotAttribute"):
            first.modify_snapshot_attribute(
                SnapshotId=snapshot_id, Attribute="createVolumePermission", OperationType="add", UserIds=[account]
            )

    return Fetching(theirs, ours, share, keep=asked.keep, now=datetime.now(UTC))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m deploy.fetch", description="Copies into a second account.")
    made.add_argument("--first", required=True, metavar="PROFILE", help="of the first account: may share copies")
    made.add_argument("--second", required=True, metavar="PROFILE", help="of the second account")
    made.add_argument("--home", required=True, metavar="REGION", help="where the stack is")
    made.add_argument("--region", required=True, help="where its copies are (CopyRegion), and are fetched to")
    made.add_argument("--key", required=True, metavar="ARN", help="a KMS key of the second account, in that region")
    made.add_argument("--stack", default="nightvault", help="its name (nightvault)")
    made.add_argument("--keep", type=int, default=2, metavar="N", help="so many complete ones of each host stay (2)")
    return made


def main(arguments: list[str]) -> int:
    """0: every host's newest copy is there, or under way. 1: something failed, and was said."""
    asked = parser().parse_args(arguments)
    try:
        first, second = (boto3.session.Session(profile_name=each) for each in (asked.first, asked.second))
        account = second.client("sts").get_caller_identity()["Account"]
        made = fetching(
            first.client("ec2", region_name=asked.region),
            second.client("ec2", region_name=asked.region),
            account,
            asked,
        )
        for line in made.fetch():
            sys.stdout.write(f"{line}\n")
    except (BotoCoreError, ClientError, CloudRefused) as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return int(made.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
