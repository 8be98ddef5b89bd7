"""`make worst-day`. Exit code 0 only if the data came back, and nothing wrong was given as if it were right."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

from rich.console import Console

from tests.demo.view import View
from tests.e2e.nights import POLICY
from tests.localcloud.cloud import LocalCloud
from tests.worst_day.story import Story

# How long a restore waits for a volume that somebody has deleted goes by the lease.
QUICK = {**POLICY, "lease_seconds": 30}


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(prog="make worst-day", description=__doc__)
    options.add_argument("--keep", type=Path, help="work in this folder and leave it behind, to look at")
    options.add_argument("--rootless", action="store_true", help="plain folders instead of filesystems, though root")
    chosen = options.parse_args(arguments)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="nightvault-worst-day-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The application's log lines and metrics go to stdout, as on Lambda; here to a file beside the rest.
        with (folder / "control-plane.log").open("w") as log, redirect_stdout(log), ExitStack() as stack:
            rooted = False if chosen.rootless else None
            cloud = stack.enter_context(LocalCloud(folder / "cloud", policy=QUICK, rooted=rooted))
            wrong = Story(cloud, View(console), folder, stack).play()
    finally:
        if chosen.keep:
            console.print(f"left behind in {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    console.print(
        f"\n[red]{wrong} came out wrong[/]" if wrong else "\n[green]all came out as it should[/]", highlight=False
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
