"""Clients of AWS that only operators' actions need, each made when first asked for."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from chalicelib.pricing.price_list import ENDPOINT_REGIONS

if TYPE_CHECKING:
    from chalicelib.wiring import Wiring


class Clients:
    """boto3's clients with the wiring's session and time limits. Their errors are botocore's."""

    def __init__(self, wired: "Wiring") -> None:
        self._wired = wired

    def _client(self, service: str, region: str | None = None) -> Any:
        make: Any = self._wired.session.client
        return make(service, config=self._wired.config, region_name=region or self.region)

    @property
    def region(self) -> str:
        """The stack's."""
        return str(self._wired.session.region_name)

    @cached_property
    def ec2(self) -> Any:
        return self._client("ec2")

    def ec2_in(self, region: str) -> Any:
        return self._client("ec2", region)

    @cached_property
    def dynamodb(self) -> Any:
        return self._client("dynamodb")

    @cached_property
    def sns(self) -> Any:
        return self._client("sns")

    @cached_property
    def quotas(self) -> Any:
        return self._client("service-quotas")

    @cached_property
    def watch(self) -> Any:
        return self._client("cloudwatch")

    @cached_property
    def pricing(self) -> Any:
        """The Price List API has few endpoints; the one of our own region if there is one, else us-east-1."""
        return self._client("pricing", self.region if self.region in ENDPOINT_REGIONS else ENDPOINT_REGIONS[0])
