"""What the deployment decides: names of the stack's resources and the policy, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.model import Policy


class SettingsError(Exception):
    """A variable is missing or no whole number of seconds; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read once a process. `kms_key` empty means AWS's own key for EBS."""

    stack: str
    table: str
    launch_template: str
    subnet: str
    topic_arn: str
    kms_key: str
    policy: Policy

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
            policy=_policy(environment),
        )


def _policy(environment: Mapping[str, str]) -> Policy:
    values: dict[str, int] = {}
    for field in Policy.__struct_fields__:
        name = f"NIGHTVAULT_{field.upper()}"
        if name in environment:
            if not environment[name].isdecimal():
                raise SettingsError(f"{name} is {environment[name]!r}; it must be a whole number ≥ 0")
            values[field] = int(environment[name])
    return Policy(**values)
