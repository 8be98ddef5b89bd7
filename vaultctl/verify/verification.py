"""The steps of a verification in their order, and the cleaning up, which comes whatever happened."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from chalicelib.pricing.usage import Usage
from vaultctl.client import Operate
from vaultctl.documents import About, Check, Code, Host, Point, Retired, Run, Vault, Window, read
from vaultctl.failures import Exit, Failure
from vaultctl.verify import heard
from vaultctl.verify.house import House
from vaultctl.verify.pull import Pull, compare
from vaultctl.verify.steps import NotSo, Steps
from vaultctl.words import sent, span

WEEK_SECONDS = 7 * 86400


class Patience(Struct, frozen=True, kw_only=True):
    """How long each wait may last, in seconds. AWS promises nothing; these are far beyond what is usual."""

    ready: float = 900
    push: float = 900
    stop: float = 900
    snapshot: float = 1800
    sleep: float = 900


class Verification:
    """One verification. `host` is the throw-away host's name; `folder` is empty, and the caller removes it."""

    def __init__(
        self, operate: Operate, steps: Steps, *, host: str, client: Path, folder: Path, patience: Patience | None = None
    ) -> None:
        self.host = host
        self.left: list[str] = []
        self._operate = operate
        self._steps = steps
        self._client = client
        self._folder = folder
        self._patience = patience or Patience()
        self._house: House | None = None
        self._pull: Pull | None = None
        self._invited = False
        self._noticed: list[datetime] = []

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """What is done in it is undone at its end, also when it is interrupted."""
        try:
            yield
        finally:
            self._clean()

    def run(self, *, mib: int, restore: bool) -> None:
        """Raises NotSo or Failure at the first step that goes wrong."""
        house = self._enrol(mib)
        vault_id = self._quiet()
        run_id = self._back_up(house, vault_id)
        self._seal(vault_id, run_id)
        if restore:
            self._restore(house, vault_id)
        self._asleep(vault_id)
        if restore:  # one stop and one snapshot are too few to tell
            with self._steps.step("events") as step:
                step.level, step.what = heard.verdict(self._noticed)
        self._stack()

    def log(self) -> str:
        """What the client said so far."""
        return self._house.log.read_text(errors="replace") if self._house and self._house.log.exists() else ""

    # what is asked

    def _of_host(self) -> tuple[Host, list[Run], list[Point]]:
        answer = self._operate.ask("host", host=self.host)
        return (
            read(answer["host"], Host),
            read(answer["runs"], list[Run]),
            read(answer["restore_points"], list[Point]),
        )

    def _vault(self, vault_id: str) -> Vault:
        vaults = read(self._operate.ask("vaults")["vaults"], list[Vault])
        return next(each for each in vaults if each.vault_id == vault_id)

    def _window_of(self, kind: str) -> tuple[Window, Run] | None:
        """The newest window with a run of ours of that kind."""
        windows = read(self._operate.ask("windows", days=2)["windows"], list[Window])
        for window in windows:
            for run in window.runs:
                if run.host == self.host and run.kind == kind:
                    return window, run
        return None

    # steps

    def _enrol(self, mib: int) -> House:
        with self._steps.step("enrol") as step:
            about = read(self._operate.ask("about"), About)
            self._invited = True
            answer = self._operate.ask("invite", host=self.host, size_gib=1, max_size_gib=1, every_seconds=WEEK_SECONDS)
            code = read(answer, Code)
            house = self._house = House(self._folder, self._client, code.url)
            size = house.furnish(mib)
            house.enroll(code.code)
            step.what = f"{self.host} at {about.url}, with {sent(size)} of noise"
        with self._steps.step("token") as step:
            house.doctor()
            step.what = "the client's doctor is content, and the authorizer takes the token"
        return house

    def _quiet(self) -> str:
        vault_id = self._of_host()[0].vault_id
        with self._steps.step("vault") as step:
            phase = self._vault(vault_id).phase
            step.what = f"{vault_id} is {phase}"
            if phase != "asleep":
                step.level = "warning"
                step.what += " for other hosts: waking and closing are not only ours, and their times say little"
        return vault_id

    def _back_up(self, house: House, vault_id: str) -> str:
        patience = self._patience
        with self._steps.step("wake") as step:
            house.begin_backup()

            def open_window() -> Window | None:
                house.backup_ended()  # raises if the client gave up
                found = self._window_of("backup")
                return found[0] if found and found[0].ready_at else None

            window = self._steps.wait(open_window, patience.ready, f"{vault_id} is ready")
            step.what = f"{vault_id} was ready {_between(window.opened_at, window.ready_at)} after it was asked"
        with self._steps.step("push") as step:
            self._steps.wait(house.backup_ended, patience.push, "the client ends")
            step.what = house.last_line()
        with self._steps.step("commit") as step:

            def committed() -> Run | None:
                found = self._window_of("backup")
                if found is None or found[1].outcome != "complete":
                    said = found[1].outcome if found else "it knows no run"
                    raise NotSo(f"the client is done, but the control plane says: {said}")
                return found[1] if found[1].committed else None

            # The client's word is there at once; the vault's comes with its next report, or its last.
            run = self._steps.wait(committed, patience.stop, "the vault has seen the commit")
            step.what = f"run {run.run_id} is complete, and the vault saw its commit"
        return run.run_id

    def _seal(self, vault_id: str, run_id: str) -> None:
        with self._steps.step("closing") as step:
            stopped = self._stopped("backup")
            step.what = f"{vault_id} stopped {_between(stopped.closing_at, stopped.stopped_at)} after closing began"
        with self._steps.step("snapshot") as step:
            failed: set[str] = set()

            def completed() -> Point | None:
                point = next((each for each in self._of_host()[2] if each.run_id == run_id), None)
                if point and point.state == "error":  # the control plane makes it again
                    step.level = "warning"
                    failed.add(str(point.snapshot_id))
                return point if point and point.state == "completed" else None

            point = self._steps.wait(completed, self._patience.snapshot, "the snapshot is complete")
            if not point.complete:
                raise NotSo(f"the restore point {point.snapshot_id} is labelled incomplete ({point.outcome})")
            step.what = f"{point.snapshot_id} is completed, and labelled complete"
            if failed:
                step.what += f", after {', '.join(sorted(failed))} had failed"
        with self._steps.step("counts") as step:

            def counted() -> Host | None:
                host = self._of_host()[0]
                return host if host.last and host.last.run_id == run_id else None

            host = self._steps.wait(counted, self._patience.snapshot, "the last backup has moved to this run")
            if host.last:
                self._noticed.append(host.last.completed_at)
            step.what = f"the last good backup of {self.host} is this one"

    def _stopped(self, kind: str) -> Window:
        def look() -> Window | None:
            found = self._window_of(kind)
            return found[0] if found and found[0].stopped_at else None

        window = self._steps.wait(look, self._patience.stop, "the vault stops")
        if window.stopped_at:
            self._noticed.append(window.stopped_at)
        return window

    def _restore(self, house: House, vault_id: str) -> None:
        with self._steps.step("wake again") as step:
            # A restore is accepted while the vault still seals; the first waking is then over, though.
            pull = self._pull = Pull(house, self._steps)
            pull.start()
            document = pull.ready(self._patience.ready)
            step.what = f"{vault_id} lets {self.host} pull"
        with self._steps.step("pull back") as step:
            back = self._folder / "back"
            pull.fetch(document, back)
            count = compare(house.tree, back)
            pull.finish("complete", 0)
            step.what = f"{count} paths came back as they were pushed: content, modes, times, links"

    def _asleep(self, vault_id: str) -> None:
        with self._steps.step("sleep") as step:
            if self._pull:
                self._stopped("restore")

            def asleep() -> Vault | None:
                vault = self._vault(vault_id)
                return vault if vault.phase == "asleep" or self._others(vault) else None

            vault = self._steps.wait(asleep, self._patience.sleep, f"{vault_id} sleeps")
            step.what = f"{vault_id} is {vault.phase}"

    def _stack(self) -> None:
        with self._steps.step("doctor") as step:
            checks = read(self._operate.ask("doctor")["checks"], list[Check])
            amiss = [f"{each.name}: {each.what}" for each in checks if not each.ok]
            step.what = f"{len(checks)} checks of the stack, all well"
            if amiss:
                step.level = "warning"
                step.what = (
                    f"{len(amiss)} of {len(checks)} checks are not well; see vaultctl doctor: {'; '.join(amiss)}"
                )

    # cleaning up

    def _clean(self) -> None:
        if not self._invited:
            return
        try:
            with self._steps.step("clean up") as step:
                step.what = self._retire()
        except KeyboardInterrupt:
            self._by_hand("interrupted again")
            raise
        except (Failure, NotSo) as failure:
            self._by_hand(str(failure))

    def _by_hand(self, why: str) -> None:
        self.left.append(f"the host {self.host} ({why}); run: vaultctl retire {self.host} --delete-volume")

    def _retire(self) -> str:
        if self._house:
            self._house.stop()
        if self._pull:
            try:
                self._pull.finish()
            except NotSo as error:  # its lease will end it
                self.left.append(f"a restore run under way ({error}); its lease ends it")
        try:
            host = self._of_host()[0]
        except Failure as failure:
            if failure.exit is Exit.REFUSED:  # never enrolled: the code expires by itself
                return f"{self.host} was never enrolled; its code expires within a day"
            raise
        self._let_sleep(host.vault_id)
        try:
            answer = self._operate.ask("retire", host=self.host, delete_volume=True)
        except Failure as failure:
            if failure.exit is not Exit.REFUSED:
                raise
            # Without a whole restore point the control plane deletes no volume, and be it of noise.
            answer = self._operate.ask("retire", host=self.host)
            if host.volume_id:
                self.left.append(
                    f"the volume {host.volume_id} ({failure}); if you want it gone: "
                    f"aws ec2 delete-volume --volume-id {host.volume_id}"
                )
        retired = read(answer, Retired)
        if points := retired.kept.restore_points:
            self.left.append(f"{points} restore point{'s' if points > 1 else ''} of {self.host}, a few MiB")
        if retired.gone is None:
            return f"{self.host} is retired"
        self._steps.wait(lambda: self._without(retired.gone), self._patience.sleep, f"{retired.gone} is deleted")
        return f"{self.host} is retired, its volume {retired.gone} deleted"

    def _without(self, volume_id: str | None) -> bool | None:
        """True once AWS has no such volume; `cost` asks it."""
        there = read(self._operate.ask("cost")["usage"], Usage).volumes
        return None if any(each.volume_id == volume_id and each.until is None for each in there) else True

    def _let_sleep(self, vault_id: str) -> None:
        """Until no volume of ours is in use. Gives up quietly where other hosts go on: retiring will do then too."""

        def idle() -> Vault | None:
            vault = self._vault(vault_id)
            return vault if vault.phase == "asleep" or self._others(vault) else None

        try:
            self._steps.wait(idle, self._patience.sleep, f"{vault_id} sleeps")
        except NotSo as error:
            self.left.append(str(error))

    def _others(self, vault: Vault) -> bool:
        return vault.window is not None and any(not r.outcome and r.host != self.host for r in vault.window.runs)


def _between(since: datetime | None, until: datetime | None) -> str:
    return span((until - since).total_seconds()) if since and until else "at an unknown time"
