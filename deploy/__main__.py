"""`python -m deploy up|down|package|policies|alarms`; `make deploy` and `make destroy` call it."""

import argparse
import json
import os
import sys
from pathlib import Path

import boto3.session
from botocore import exceptions

from deploy import alarms, down, packaging, policies, up
from deploy.account import Aws
from deploy.console import Screen, Stopped
from deploy.naming import BadName

_BUILD = packaging.ROOT / "build" / "package"
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)
_BAD_CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


def main(arguments: list[str], screen: Screen | None = None) -> int:
    """0 done; 1 it stopped, and said why; 2 bad usage; 3 the operator said no; 130 interrupted."""
    chosen = _parser().parse_args(arguments)
    screen = screen or Screen()
    if chosen.command == "alarms":
        sys.stdout.write(alarms.table())
        return 0
    if chosen.command == "policies":
        whole = {function.name: policies.policy(function)["Statement"] for function in policies.FUNCTIONS}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return 0
    try:
        return _run(chosen, screen)
    except KeyboardInterrupt:
        screen.warn("interrupted. CloudFormation goes on by itself with what it has begun; say it again to follow it")
        return 130
    except Exception as error:
        stopped = _told(error)
        if stopped is None:
            raise
        screen.stopped(stopped)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy", description="nightvault into an AWS account.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("package", help="write template.json and deployment.zip")
    packing.add_argument("--out", type=Path, default=_BUILD)
    commands.add_parser("policies", help="print each function's policy")
    commands.add_parser("alarms", help="print what is watched, and how many metrics CloudWatch charges for")
    raising = commands.add_parser("up", help="deploy, or bring what is deployed up to date")
    raising.add_argument("--subnet", default="", help="a public subnet; else one of the default VPC")
    raising.add_argument("--email", default="", help="who is told when something is wrong")
    raising.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the template")
    razing = commands.add_parser("down", help="remove everything but data")
    razing.add_argument("--yes", action="store_true", help="don't ask")
    for one in (raising, razing):
        one.add_argument("--stage", default="prod", help="several may stand beside each other (prod)")
    return parser


def _run(chosen: argparse.Namespace, screen: Screen) -> int:
    match chosen.command:
        case "package":
            made = packaging.package(chosen.out)
            screen.say(f"{made.template_path}\n{made.zip_path}")
        case "up":
            settings = up.read_settings(chosen.set)
            if chosen.email:
                settings["AlertEmail"] = chosen.email
            wish = up.Wish(stage=chosen.stage, subnet=chosen.subnet, settings=settings)
            aws = _aws()
            made = packaging.package(_BUILD)
            up.show(up.deploy(aws, made, wish, screen), wish, screen)
        case "down":
            return 0 if down.destroy(_aws(), chosen.stage, screen, yes=chosen.yes) else 3
    return 0


def _aws() -> Aws:
    # The command line and the other SDKs know AWS_REGION; boto3 knows AWS_DEFAULT_REGION and the profile's only.
    aws = Aws(boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None))
    _ = aws.region, aws.account  # who and where, before a second is spent on packaging
    return aws


def _told(error: Exception) -> Stopped | None:
    """What can be said better than by a traceback; None: nothing, it is a bug of ours."""
    match error:
        case Stopped():
            return error
        case BadName():
            return Stopped(str(error), "for example STAGE=test")
        case packaging.PackagingFailed():
            return Stopped(str(error), "look at the network and at requirements.txt")
        case exceptions.ClientError():
            code = error.response["Error"]["Code"]
            if code in _BAD_CREDENTIALS:
                return Stopped(f"AWS does not take these credentials: {error}", "sign in again, or set AWS_PROFILE")
            if code in _DENIED:
                return Stopped(f"you may not: {error}", "docs/permissions.md says what a deployer needs")
            return Stopped(f"AWS refused: {error}", "nothing is lost by saying it again")
        case _ if isinstance(error, _NO_CREDENTIALS):
            return Stopped(f"no AWS credentials: {error}", "sign in (aws sso login, aws configure) or set AWS_PROFILE")
        case exceptions.NoRegionError():
            return Stopped("no AWS region is set", "export AWS_REGION=eu-central-1, say")
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            return Stopped(f"AWS does not answer: {error}", "look at the network, then say it again")
        case _:
            return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
