"""Actions about the stack as a whole: what it is, whether it is well, what it costs."""

from datetime import datetime

from msgspec import Struct

from chalicelib import VERSION
from chalicelib.model import Policy
from chalicelib.operators.action import Action
from chalicelib.wiring import Wiring


class AboutAnswer(Struct, frozen=True, kw_only=True):
    stack: str
    region: str
    url: str
    version: str
    policy: Policy
    now: datetime
    dashboard_url: str
    topic_arn: str


class About(Action, tag="about"):
    """Which stack this is, and by what rules it lives."""

    def answer(self, wired: Wiring) -> AboutAnswer:
        settings = wired.settings
        region = wired.session.region_name
        return AboutAnswer(
            stack=settings.stack,
            region=region,
            url=wired.control_url,
            version=VERSION,
            policy=settings.policy,
            now=wired.clock.now(),
            dashboard_url=f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
            f"#dashboards/dashboard/{settings.stack}",
            topic_arn=settings.topic_arn,
        )


class Doctor(Action, tag="doctor"):
    """What is not as it should be."""

    fix: bool = False

    def answer(self, wired: Wiring) -> Struct:
        from chalicelib.operators.doctor import doctor

        return doctor(wired, fix=self.fix)


class Cost(Action, tag="cost"):
    """A month's usage, prices and bill."""

    month: str | None = None

    def answer(self, wired: Wiring) -> Struct:
        from chalicelib.operators.cost import cost

        return cost(wired, self.month)


class PricesAnswer(Struct, frozen=True, kw_only=True):
    prices: Struct


class RefreshPrices(Action, tag="refresh_prices"):
    """Prices asked of AWS, and kept."""

    def answer(self, wired: Wiring) -> PricesAnswer:
        from chalicelib.operators.cost import refresh_prices

        return PricesAnswer(prices=refresh_prices(wired))
