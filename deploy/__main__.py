"""`python -m deploy package [--out FOLDER]`, `python -m deploy policies`, `python -m deploy alarms`."""

import argparse
import json
import sys
from pathlib import Path

from deploy import alarms, packaging, policies


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy", description="nightvault into an AWS account.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("package", help="write template.json and deployment.zip")
    packing.add_argument("--out", type=Path, default=packaging.ROOT / "build" / "package")
    commands.add_parser("policies", help="print each function's policy")
    commands.add_parser("alarms", help="print what is watched, and how many metrics CloudWatch charges for")
    chosen = parser.parse_args(arguments)
    if chosen.command == "alarms":
        sys.stdout.write(alarms.table())
        return 0
    if chosen.command == "policies":
        whole = {function.name: policies.policy(function)["Statement"] for function in policies.FUNCTIONS}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return 0
    try:
        made = packaging.package(chosen.out)
    except packaging.PackagingFailed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    sys.stdout.write(f"{made.template_path}\n{made.zip_path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
