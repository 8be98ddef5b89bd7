"""What doctor looks at, and what it finds: facts, findings, and what can be mended."""

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field

from chalicelib.model import Host, Policy, RestorePoint, Vault
from chalicelib.operators.estate import Estate


class Check(Struct, frozen=True, kw_only=True):
    """One finding. `level`: ok, warning or wrong. `resource`: what it is about, an id of AWS's or ours."""

    name: str
    ok: bool
    level: str
    what: str
    remedy: str
    resource: str | None = None
    fixable: bool = False
    fixed: bool = False


class StrayMachine(Struct, frozen=True, kw_only=True):
    """Mended by terminating it; it holds no data."""

    instance_id: str


class StrayIngress(Struct, frozen=True, kw_only=True):
    """Mended by revoking it. `address`: whom it lets in, if it is one address to the ssh port."""

    group_id: str
    vault_id: str
    address: str | None
    permission: dict[str, Any]


Mend = StrayMachine | StrayIngress


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be. With `mend`, doctor can see to it."""

    level: str
    what: str
    remedy: str
    resource: str | None = None
    mend: Mend | None = None


class Quota(Struct, frozen=True, kw_only=True):
    """`used`: what the account uses when all our vaults are awake, in the quota's unit."""

    name: str
    code: str
    used: float
    limit: float


class Subscription(Struct, frozen=True, kw_only=True):
    endpoint: str
    confirmed: bool


class Facts(Struct, frozen=True, kw_only=True):
    """What doctor saw. `gaps`: what it could not see, by the name of the check, with AWS's words."""

    now: datetime
    stack: str
    table: str
    policy: Policy
    vaults: tuple[Vault, ...]
    points: tuple[RestorePoint, ...]
    estate: Estate
    hosts: tuple[Host, ...] = ()
    copy_region: str = ""
    left_over: frozenset[str] = frozenset()  # copies in other regions than that
    quotas: tuple[Quota, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    recovery: bool = True
    sweep_at: datetime | None = None
    skew_seconds: float | None = None
    newest_template: int | None = None
    public: tuple[str, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)

    def settled(self, since: datetime) -> bool:
        """Long enough ago that no Lambda can be about to record it."""
        return self.now - since > timedelta(seconds=self.policy.claim_seconds)
