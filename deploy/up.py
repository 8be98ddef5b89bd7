"""`make deploy`: package, upload, change. Whatever is done already is not done again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.account import Aws, Place, find_place, gateway_may_log, place_of
from deploy.artifacts import Bucket
from deploy.console import Screen, Stopped
from deploy.naming import stack_name
from deploy.packaging import Package
from deploy.stack import Stack, harmful


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the operator asked for: `settings` are the template's parameters by name."""

    stage: str
    subnet: str = ""
    settings: Mapping[str, str]


def deploy(aws: Aws, made: Package, wish: Wish, screen: Screen) -> dict[str, str]:
    """Deploy, and give the stack's outputs. Raises Stopped, BadName and botocore's errors."""
    stack = Stack(aws, stack_name(wish.stage), screen)
    screen.say(f"{stack.name} in account {aws.account}, {aws.region}")
    exists = stack.settle()
    parameters = _parameters(aws, made, wish, stack, screen)

    bucket = Bucket(aws)
    if bucket.ensure():
        screen.done(f"made the bucket {bucket.name}: private, encrypted")
    if bucket.upload(made.zip_key, made.zip_path.read_bytes()):
        screen.done(f"uploaded the code, {made.zip_path.stat().st_size / 1e6:.1f} MB")
    template = json.dumps(made.uploaded(bucket.name), separators=(",", ":"), sort_keys=True).encode()
    template_key = f"{hashlib.sha256(template).hexdigest()[:32]}.json"
    bucket.upload(template_key, template)

    change_set = "nightvault-" + hashlib.sha256(template + json.dumps(parameters).encode()).hexdigest()[:16]
    changes = stack.propose(change_set, bucket.url(template_key), parameters, exists=exists)
    if lost := harmful(changes):
        raise Stopped(
            f"this would put a new {lost[0].kind} in the place of {lost[0].name}, which holds data",
            "nothing was changed; tell us, please: no version of nightvault should do that",
        )
    if changes:
        screen.say(f"{len(changes)} changes:")
        stack.execute(change_set)
        screen.done(f"{stack.name} is deployed")
    else:
        screen.done(f"{stack.name} is as it should be; nothing to change")
    bucket.prune({made.zip_key, template_key})
    return stack.outputs()


def _parameters(aws: Aws, made: Package, wish: Wish, stack: Stack, screen: Screen) -> dict[str, str | None]:
    """Every parameter of the template: as asked, else as it was (None), else as the template says."""
    known: dict[str, Any] = made.template["Parameters"]
    for name in wish.settings:
        if name not in known:
            raise Stopped(f"there is no setting {name!r}", f"there are: {', '.join(sorted(known))}")
    before = stack.parameters()
    _copies(aws.region, {**before, **wish.settings})
    chosen: dict[str, str | None] = {}
    for name, parameter in known.items():
        if name in wish.settings:
            chosen[name] = wish.settings[name]
        elif name in before:
            chosen[name] = None
        elif "Default" in parameter:
            chosen[name] = str(parameter["Default"])
    kind = chosen["InstanceType"] or before["InstanceType"]
    place = _place(aws, wish, before, kind)
    if place is not None:
        screen.say(f"vaults live in {place.subnet} ({place.zone}) of {place.vpc}")
        chosen |= {"Vpc": place.vpc, "Subnet": place.subnet}
    if not gateway_may_log(aws) and "GatewayLogRole" not in wish.settings:
        chosen["GatewayLogRole"] = "make"
    return chosen


def _copies(home: str, settings: Mapping[str, str]) -> None:
    region, key = settings.get("CopyRegion", ""), settings.get("CopyKmsKey", "")
    if region == home:
        raise Stopped(f"CopyRegion: {region} is where the restore points are", "copies go to another region")
    if key and f":kms:{region}:" not in key:
        raise Stopped(f"CopyKmsKey: {key} is not of CopyRegion ({region or 'which is empty'})", "make a key there")


def _place(aws: Aws, wish: Wish, before: Mapping[str, str], kind: str) -> Place | None:
    """None: where it was."""
    asked = wish.subnet or wish.settings.get("Subnet", "")
    if asked and before.get("Subnet", asked) != asked:
        raise Stopped(
            f"the vaults live in {before['Subnet']}, and their volumes can't follow them to {asked}",
            "deploy another stage there (STAGE=…)",
        )
    if asked:
        return place_of(aws, asked, kind)
    return None if "Subnet" in before else find_place(aws, kind)


def show(outputs: Mapping[str, str], wish: Wish, screen: Screen) -> None:
    """What there is now, and what to do next."""
    said = ("Url", "OperateFunction", "TableName", "KeyArn", "TopicArn")
    screen.table("", ["", ""], [[name, outputs[name]] for name in said if name in outputs])
    if wish.settings.get("AlertEmail"):
        screen.warn(f"AWS has written to {wish.settings['AlertEmail']}: alerts come once that mail is confirmed")
    name = stack_name(wish.stage)
    which = "" if wish.stage == "prod" else f" --stack {name}"
    screen.say(f"next: .venv/bin/vaultctl{which} enroll HOST")


def read_settings(pairs: list[str]) -> dict[str, str]:
    """`Name=value` each. Raises Stopped."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Stopped(f"{pair!r} is no setting", "write Name=value, for example SET='WindowHours=2'")
        found[name] = value
    return found
