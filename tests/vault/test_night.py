"""A whole night against a real vault: mount, push, commit, pull, stop."""

import os
import uuid
from pathlib import Path

from tests.vault import vaults


def test_a_night(vault: vaults.Machine | vaults.Rootless, tmp_path: Path) -> None:
    host = vault.host("C")
    vault.attach(host.volume_id)
    vault.cloud.order(host)
    vault.start_agent()
    report = vault.cloud.wait_mounted(host)
    assert report["commits"] == []
    run_id = str(uuid.uuid4())
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(100_000))
    begun = host.ssh("begin", run_id)
    assert (begun.returncode, begun.stdout.split()[:2]) == (0, ["fresh", "free_bytes"]), begun.stderr
    pushed = host.push(source)
    assert pushed.returncode == 0, pushed.stderr
    committed = host.ssh("commit", run_id)
    assert (committed.returncode, committed.stdout) == (0, "committed\n"), committed.stderr
    vault.cloud.wait_for(lambda report: report["commits"] == [{"host": "C", "run_id": run_id}])
    back = tmp_path / "back"
    back.mkdir()
    pulled = host.pull(back)
    assert pulled.returncode == 0, pulled.stderr
    assert (back / "file").read_bytes() == (source / "file").read_bytes()
    seen = len(vault.cloud.reports)
    assert vault.stop_agent() == 0
    last = vault.cloud.wait_for(lambda report: report["state"] == "stopping", after=seen)
    assert last["commits"] == [{"host": "C", "run_id": run_id}]
