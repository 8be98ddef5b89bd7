"""Fakes that a Lambda can die on: after any write to the table or any call that changes something in EC2."""

from datetime import datetime

from chalicelib.control import Control
from chalicelib.enrolment import Enrolment
from chalicelib.model import (
    Code,
    Copy,
    Drill,
    Host,
    LastBackup,
    Marks,
    Policy,
    RestorePoint,
    RetentionLook,
    Vault,
    Window,
)
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud, Killed
from tests.fakes.copier import FakeCopier
from tests.fakes.store import MemoryStore
from tests.fakes.world import NO_DRILLS, World


class Fate:
    """Counts effects; the Lambda dies right after the one whose turn `dies_after` names, once."""

    def __init__(self) -> None:
        self.effects = 0
        self.dies_after: int | None = None

    def effect(self) -> None:
        self.effects += 1
        if self.dies_after is not None and self.effects >= self.dies_after:
            self.dies_after = None
            raise Killed


class MortalStore(MemoryStore):
    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    def save(self, vault: Vault, archive: Window | None = None, host: Host | None = None) -> Vault:
        saved = super().save(vault, archive, host)
        self._fate.effect()
        return saved

    def redeem(self, code: Code, vault: Vault, host: Host | None, now: datetime) -> Vault:
        saved = super().redeem(code, vault, host, now)
        self._fate.effect()
        return saved

    def put_code(self, code: Code) -> None:
        super().put_code(code)
        self._fate.effect()

    def put_point(self, point: RestorePoint) -> None:
        super().put_point(point)
        self._fate.effect()

    def mark(self, point: RestorePoint, marks: Marks) -> bool:
        marked = super().mark(point, marks)
        self._fate.effect()
        return marked

    def bury(self, point: RestorePoint) -> None:
        super().bury(point)
        self._fate.effect()

    def put_retention_look(self, host: str, look: RetentionLook | None) -> None:
        super().put_retention_look(host, look)
        self._fate.effect()

    def put_drill(self, host: str, drill: Drill) -> None:
        super().put_drill(host, drill)
        self._fate.effect()

    def put_copies(self, host: Host, copies: tuple[Copy, ...]) -> bool:
        put = super().put_copies(host, copies)
        self._fate.effect()
        return put

    def move_last_backup(self, host: str, last: LastBackup) -> bool:
        moved = super().move_last_backup(host, last)
        self._fate.effect()
        return moved


class MortalCloud(FakeCloud):
    def __init__(self, clock: FakeClock, fate: Fate) -> None:
        super().__init__(clock)
        self._fate = fate

    def make_group(self, vault_id: str) -> str:
        group_id = super().make_group(vault_id)
        self._done()
        return group_id

    def _done(self) -> None:
        super()._done()
        self._fate.effect()


class MortalWorld(World):
    """World whose Lambdas may die; `fate` says when."""

    def __init__(self, policy: Policy | None = None, *, copies: bool = False) -> None:
        super().__init__(policy)
        self.fate = Fate()
        self.cloud = MortalCloud(self.clock, self.fate)
        self.copier = FakeCopier(self.cloud, done=self.fate.effect)
        self.store = MortalStore(self.fate)
        self.control = Control(
            store=self.store,
            cloud=self.cloud,
            notifier=self.told,
            telemetry=self.told,
            clock=self.clock,
            policy=policy or NO_DRILLS,
            pause=lambda _: None,
            pinger=self.told,
            copier=self.copier if copies else None,
        )
        self.enrolment = Enrolment(self.control)
