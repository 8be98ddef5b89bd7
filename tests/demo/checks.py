"""What has to come out of the two nights, each as a check with its words."""

import filecmp
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.demo.night import Night
from tests.demo.player import Player
from tests.demo.proof import decrypted, restore
from tests.localcloud.cloud import LocalCloud

WHOLE = ("C", "H")  # on the second night; O is cut and L dies
SLACK_SECONDS = 5  # the machine's way down after the window's end


@dataclass(frozen=True)
class Check:
    """Something that had to come out, and whether it did."""

    what: str
    held: bool


def nights(cloud: LocalCloud, first: Night, second: Night, window_seconds: int, slack_seconds: int) -> list[Check]:
    """Outcomes, labels, counts of calls, times."""
    everyone = sorted(first.rows)
    outcomes = [{name: row.outcome for name, row in night.rows.items()} for night in (first, second)]
    labels = {name: point.label for name, point in second.points.items()}
    return [
        Check("night 1: all four are complete", outcomes[0] == dict.fromkeys(everyone, "complete")),
        Check(
            "night 2: C and H are complete, O was cut by the window, L is abandoned",
            outcomes[1] == {"C": "complete", "H": "complete", "O": "cut", "L": "abandoned"},
        ),
        Check(
            "night 2: only what was committed is labelled complete",
            labels == {name: "complete" if name in WHOLE else "incomplete" for name in everyone},
        ),
        Check("one stop a window", len(cloud.calls("StopInstances")) == first.windows + second.windows),
        Check(
            "one snapshot a host and night",
            sorted(first.points) == sorted(second.points) == everyone
            and first.snapshots == second.snapshots == len(everyone),
        ),
        Check(
            "the vault slept when its window was over",
            all(night.awake_seconds <= window_seconds + slack_seconds for night in (first, second)),
        ),
        Check(
            "the last backup of C and H is that of night 2, of O and L still that of night 1",
            second.last == {name: (second if name in WHOLE else first).points[name].snapshot_id for name in everyone},
        ),
        Check("nothing failed behind the scenes", not cloud.failures),
    ]


def restored(cloud: LocalCloud, night: Night, player: Player, path: Path, wanted: Path) -> Check:
    """`path` out of that night's restore point, against `wanted`, byte for byte."""
    snapshot_id = night.points[player.name].snapshot_id
    with (
        tempfile.TemporaryDirectory(prefix="nightvault-restored-") as folder,
        cloud.open_snapshot(snapshot_id) as snapshot,
        decrypted(snapshot, player) as repository,
    ):
        back = Path(folder) / path.name
        restore(repository, path, back)
        same = filecmp.cmp(back, wanted, shallow=False)
        size = back.stat().st_size
    what = (
        f"{player.name}: {path.name}, {size:,} bytes, restored out of night {night.number}'s {snapshot_id}: identical"
    )
    return Check(what, same)
