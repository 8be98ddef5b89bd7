"""A restore point on a whole machine: what agent and sshd need for it is within what their units allow them."""

import shlex
import subprocess
import uuid
from pathlib import Path

from tests.e2e.nights import asleep, host, portrait
from tests.e2e.test_points import caller, pulled, pulling, ready
from tests.localcloud.cloud import LocalCloud
from tests.vm.machines import NIGHT_SECONDS, back_up, inside


def test_the_first_night_pulled_and_browsed(cloud: LocalCloud, tmp_path: Path) -> None:
    with host(cloud, "R", tmp_path, keep="mirror") as r:
        back_up(cloud, r)
        assert r.exit_code == 0, r.output
        first = portrait(r.archive / "cipher")
        r.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, r)
        assert r.exit_code == 0, r.output
        asking, run_id = caller(r), str(uuid.uuid4())
        asking.start(run_id, "restore", asking.points()[1]["point_id"])
        document = ready(cloud, asking, run_id, NIGHT_SECONDS)
        assert document["restore"]["source"] == "point"
        assert pulled(r, document, tmp_path / "pulled", NIGHT_SECONDS) == first

        command = pulling(r, document, tmp_path)
        ssh = shlex.split(command[command.index("-e") + 1])
        reader = f"{document['vault']['user']}r@{document['vault']['address']}"

        def sftp(line: str) -> int:
            options = ["-P" if word == "-p" else word for word in ssh[1:]]
            batch = ["sftp", "-q", "-b", "-", *options, reader]
            return subprocess.run(
                batch, input=line, text=True, capture_output=True, check=False, timeout=NIGHT_SECONDS
            ).returncode

        browsed = tmp_path / "browsed"
        browsed.mkdir()
        assert sftp(f"get -r . {browsed}\n") == 0
        got = portrait(browsed)
        plain = {name: told[2] for name, told in first.items() if told[0] == "-"}
        assert {name: got[name][2] for name in plain} == plain
        for line in ("get /etc/passwd /dev/null", "ls /proc", f"put {r.config} x", "rm gocryptfs.conf", "mkdir x"):
            assert sftp(line) != 0, line
        mounts = inside(cloud, "findmnt -rn -o TARGET,OPTIONS | grep '^/mnt/[.]'").splitlines()
        assert [line.split()[0] for line in mounts] == ["/mnt/.points/R", "/mnt/.sftp/R/archive"]
        assert all({"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[1].split(",")) for line in mounts)
        # A session that is open when the run ends keeps nothing from being unmounted.
        with subprocess.Popen([*ssh, reader, "-s", "sftp"], stdin=subprocess.PIPE) as forgotten:
            inside(cloud, "until pgrep -f '[i]nternal-sftp'; do sleep 1; done")
            asking.finish(run_id)
            asleep(cloud, NIGHT_SECONDS)
            assert forgotten.wait(60) != 0
        assert "All filesystems unmounted" in cloud.console()
        assert not cloud.failures
