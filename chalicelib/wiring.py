"""The composition root: which adapter stands behind which port. Nothing is made, or imported, before it is needed:

a cold start pays for every import, and the authorizer needs neither the vault's life nor telemetry.
"""

import os
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.ports import Clock, Cloud, Copier, Notifier, Pinger, Store, Telemetry
from chalicelib.settings import Settings
from chalicelib.store import DynamoStore

if TYPE_CHECKING:
    import boto3.session
    from botocore.config import Config

    from chalicelib.control import Control
    from chalicelib.enrolment import Enrolment
    from chalicelib.program import Program


class SystemClock:
    """ports.Clock on the machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class _LazyCloud:
    """Makes the EC2 client, which costs a cold start more than all else, at the first call that needs it."""

    def __init__(self, wiring: "Wiring") -> None:
        self._wiring = wiring

    def __getattr__(self, name: str) -> object:
        return getattr(self._wiring.ec2_cloud, name)


class Wiring:
    """Everything that a Lambda needs, each part made at its first use."""

    def __init__(
        self,
        settings: Settings,
        *,
        session: "boto3.session.Session | None" = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self._given_session = session

    @cached_property
    def session(self) -> "boto3.session.Session":
        if self._given_session:
            return self._given_session
        import boto3.session

        return boto3.session.Session()

    @cached_property
    def config(self) -> "Config":
        from botocore.config import Config

        # Shorter than API Gateway's 29 s, with room for a retry.
        return Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})

    @cached_property
    def store(self) -> Store:
        return DynamoStore(self.session.client("dynamodb", config=self.config), self.settings.table)

    @cached_property
    def ec2_cloud(self) -> Cloud:
        from chalicelib.cloud import Ec2Cloud

        return Ec2Cloud(
            self.session.client("ec2", config=self.config),
            stack=self.settings.stack,
            launch_template=self.settings.launch_template,
            subnet=self.settings.subnet,
            kms_key=self.settings.kms_key,
            control_url=lambda: self.control_url,
        )

    @cached_property
    def copier(self) -> Copier | None:
        """None: the stack copies nowhere."""
        region = self.settings.copy_region
        # In its own region the copies' tags would make them restore points; `make deploy` refuses that too.
        if not region or region == self.session.region_name:
            return None
        from chalicelib.copier import Ec2Copier

        return Ec2Copier(
            lambda: self.session.client("ec2", region_name=region, config=self.config),
            stack=self.settings.stack,
            home=str(self.session.region_name),
            region=region,
            kms_key=self.settings.copy_kms_key,
        )

    @cached_property
    def control_url(self) -> str:
        """Where the vault finds the control plane. Raises CloudRefused."""
        if self.settings.url:
            return self.settings.url
        from chalicelib.cloud import parameter

        return parameter(self.session.client("ssm", config=self.config), self.settings.url_parameter)

    @cached_property
    def notifier(self) -> Notifier:
        from chalicelib.notifier import SnsNotifier

        return SnsNotifier(self.session.client("sns", config=self.config), self.settings.topic_arn)

    @cached_property
    def pinger(self) -> Pinger:
        from chalicelib.pinger import HttpsPinger

        return HttpsPinger()

    @cached_property
    def telemetry(self) -> Telemetry:
        from chalicelib.telemetry import PowertoolsTelemetry

        return PowertoolsTelemetry(self.settings.stack)

    @cached_property
    def control(self) -> "Control":
        from chalicelib.control import Control

        return Control(
            store=self.store,
            cloud=_LazyCloud(self),  # type: ignore[arg-type]
            notifier=_LazyNotifier(self),
            telemetry=self.telemetry,
            clock=self.clock,
            policy=self.settings.policy,
            pause=time.sleep,
            pinger=_LazyPinger(self),
            copier=self.copier,
        )

    @cached_property
    def enrolment(self) -> "Enrolment":
        from chalicelib.enrolment import Enrolment

        return Enrolment(self.control)

    @cached_property
    def program(self) -> "Program":
        from chalicelib.program import Program

        return Program(Path(self.settings.program))


class _LazyNotifier:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def notify(self, subject: str, message: str) -> None:
        self._wiring.notifier.notify(subject, message)


class _LazyPinger:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def ping(self, urls: list[str]) -> dict[str, str]:
        return self._wiring.pinger.ping(urls)


_installed: Wiring | None = None


def install(wiring: Wiring | None) -> None:
    """Use this wiring from now on (tests, the local cloud); None: make one from the environment when needed."""
    global _installed  # noqa: PLW0603 (one process, one wiring: Lambda's own model)
    _installed = wiring


def wired() -> Wiring:
    """The wiring of this process. Raises SettingsError when the environment lacks a variable."""
    if _installed is None:
        install(Wiring(Settings.from_environment(os.environ)))
    if _installed is None:
        raise AssertionError("just installed")
    return _installed


def control() -> "Control":
    return wired().control


def enrolment() -> "Enrolment":
    return wired().enrolment


def program() -> "Program":
    return wired().program


def store() -> Store:
    return wired().store


def telemetry() -> Telemetry:
    return wired().telemetry
