"""A whole night, for real: the client under each shell and driver, sshd, agent, rsync, snapshot, restore."""

import os
import shutil
from pathlib import Path

import pytest

from tests.demo.proof import decrypted, restore
from tests.e2e.nights import POLICY, back_up, host, last_backups, points, portrait, windows
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}
NIGHTS = [
    ("dash", "rdiff", "inplace", True),
    ("busybox", "mirror", "inplace", True),
    ("bash", "rdiff", "reverse", True),
    ("dash", "mirror", "reverse", True),
    ("busybox", "encfs", "inplace", True),
    ("dash", "directory", "inplace", True),
    ("dash", "rdiff", "inplace", False),
]


@pytest.mark.parametrize(("shell", "keep", "encrypt", "rooted"), NIGHTS, ids=str)
def test_two_nights_and_a_restore(tmp_path: Path, shell: str, keep: str, encrypt: str, rooted: bool) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not installed")
    if rooted and not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    with (
        LocalCloud(tmp_path / "cloud", policy=POLICY, rooted=rooted) as cloud,
        host(cloud, "C", tmp_path, keep=keep, encrypt=encrypt) as c,
    ):
        c.shell = SHELLS[shell]
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        before = portrait(c.live)
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        assert c.last_line().startswith("complete: "), c.output

        assert [window["runs"] for window in windows(cloud)], "both windows are on record"
        assert len(cloud.calls("StopInstances")) == len(cloud.calls("CreateSnapshot")) == 2
        first, second = points(cloud, "C")
        assert second["tags"]["nightvault:label"] == "complete"
        assert last_backups(cloud)["C"] == second["SnapshotId"]
        for point, wanted in ((second, portrait(c.live)), (first, before)):
            with cloud.open_snapshot(point["SnapshotId"]) as snapshot, decrypted(snapshot, c) as plain:
                back = tmp_path / "back"
                if keep in ("rdiff", "encfs"):
                    restore(plain, c.live, back)
                else:
                    whole = keep == "directory" or encrypt == "reverse"
                    inside = plain if whole else plain / str(c.live).lstrip("/")
                    shutil.copytree(inside, back, symlinks=True)
                assert portrait(back) == wanted
                shutil.rmtree(back)
        if rooted:
            assert os.path.ismount(cloud.directory) is False
        assert not cloud.failures


def test_hosts_cannot_see_each_other_and_share_a_window(tmp_path: Path) -> None:
    with (
        LocalCloud(tmp_path / "cloud", policy={**POLICY, "linger_seconds": 5}) as cloud,
        host(cloud, "C", tmp_path) as c,
        host(cloud, "H", tmp_path) as h,
    ):
        back_up(cloud, c, h)
        assert (c.exit_code, h.exit_code) == (0, 0), c.output + h.output
        assert len(last_backups(cloud)) == 2
        secrets = [p.password_file.read_text().strip() for p in (c, h)]
        state = (c.folder / "state" / "enrolment").read_text()
        token = next(line.split()[1] for line in state.splitlines() if line.startswith("token "))
        for text in (cloud.console(), c.output, h.output):
            assert token not in text
            assert not any(secret in text for secret in secrets)
