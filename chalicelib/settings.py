"""What the deployment decides: names of the stack's resources and the policy, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chalicelib.model import Policy

# Where deploy/packaging.py puts the vaults' program.
PROGRAM = Path(__file__).with_name("vault-program.tar.xz")


class SettingsError(Exception):
    """A variable is missing or no whole number of seconds; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read once a process.

    `launch_template` is a name, `kms_key` an ARN (empty: AWS's own key for EBS), `url_parameter` the name of the SSM
    parameter that holds the API's URL. `url` is that URL where the stack can say it (`operate`), else empty: the
    functions behind the API can't be told it by a template that makes them first. `instance_type` and `root_gib` are
    what the launch template says, where a bill is drawn (`timeline_widget`). `program` is the file that new vaults
    fetch. `copy_region`: where restore points are copied to (empty: nowhere), with `copy_kms_key`, an ARN of that
    region (empty: the account's EBS default key there).
    """

    stack: str
    table: str
    launch_template: str
    subnet: str
    topic_arn: str
    kms_key: str
    policy: Policy
    url_parameter: str = ""
    url: str = ""
    instance_type: str = ""
    root_gib: int = 8
    program: str = str(PROGRAM)
    copy_region: str = ""
    copy_kms_key: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises SettingsError that names the variable and what it should hold."""

        def required(name: str) -> str:
            try:
                return environment[f"NIGHTVAULT_{name}"]
            except KeyError:
                raise SettingsError(f"NIGHTVAULT_{name} is not set; the stack's template sets it") from None

        return cls(
            stack=required("STACK"),
            table=required("TABLE"),
            launch_template=required("LAUNCH_TEMPLATE"),
            subnet=required("SUBNET"),
            topic_arn=required("TOPIC_ARN"),
            kms_key=environment.get("NIGHTVAULT_KMS_KEY", ""),
            url_parameter=environment.get("NIGHTVAULT_URL_PARAMETER", ""),
            url=environment.get("NIGHTVAULT_URL", ""),
            instance_type=environment.get("NIGHTVAULT_INSTANCE_TYPE", ""),
            program=environment.get("NIGHTVAULT_PROGRAM", str(PROGRAM)),
            copy_region=environment.get("NIGHTVAULT_COPY_REGION", ""),
            copy_kms_key=environment.get("NIGHTVAULT_COPY_KMS_KEY", ""),
            root_gib=int(environment.get("NIGHTVAULT_ROOT_GIB", "8")),
            policy=_policy(environment),
        )


def _policy(environment: Mapping[str, str]) -> Policy:
    values: dict[str, int] = {}
    for budget in ("window", "restore", "drill"):  # CloudFormation can't multiply, and people think of these in hours
        name = f"NIGHTVAULT_{budget.upper()}_HOURS"
        if name in environment:
            values[f"{budget}_seconds"] = _hours(name, environment[name])
    for field in Policy.__struct_fields__:
        name = f"NIGHTVAULT_{field.upper()}"
        if name in environment:
            if not environment[name].isdecimal():
                raise SettingsError(f"{name} is {environment[name]!r}; it must be a whole number ≥ 0")
            values[field] = int(environment[name])
    return Policy(**values)


def _hours(name: str, text: str) -> int:
    """In whole seconds."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24:
        raise SettingsError(f"{name} is {text!r}; it must be a number of hours a day, over 0 and at most 24")
    return round(hours * 3600)
