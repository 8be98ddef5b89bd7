"""Restore points checked against their manifests: the checking program by itself, and as the agent runs it."""

import json
import os
import select
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent_drills
import agent_orders
import drill
import pytest
from agent_config import Config
from drill import Drill

from tests.localcloud.patience import wait_until
from tests.vault import manifests, vaults
from tests.vault.vaults import IMAGE, Host, Machine, Rootless

Vault = Machine | Rootless
GOOD = b"1 " + b"0" * 64 + b"  "  # a line but for its path
RUN = "0A1B2C3D-0000-4000-8000-00000000000a"  # as uuidgen writes it on some hosts


def fill(tree: Path) -> None:
    """Files of every kind that matters here."""
    (tree / "folder" / "deep").mkdir(parents=True)
    (tree / "empty folder").mkdir()
    (tree / "empty").touch()
    (tree / "folder" / "file").write_text("content")
    (tree / "folder" / "twin").hardlink_to(tree / "folder" / "file")
    (tree / "folder" / "deep" / "large").write_bytes(os.urandom(2_500_000))
    for name in (b"new\nline", b"back\\slash", b"return\r", b"caf\xe9", b"- two  blanks "):
        (tree / os.fsdecode(name)).write_bytes(name)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The host's, and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    return vaults.keygen(folder / "key"), vaults.keygen(folder / "strange")


class Volume:
    """A restore point in a plain folder, as the gate leaves it."""

    def __init__(self, place: Path, key: Path) -> None:
        self.place = place
        self.key = key
        self.tree = place / f"tree.{RUN}"

    def make(self) -> None:
        self.tree.mkdir(parents=True)
        (self.place / "current").symlink_to(self.tree.name)
        (self.place / "committed.json").write_text(json.dumps({"run_id": RUN}))
        fill(self.tree)
        self.sign()

    def sign(self, **changes: Any) -> None:
        all_of_it: dict[str, Any] = {"run_id": RUN, "host": "C", "key": self.key} | changes
        manifests.sign(self.tree, **all_of_it)

    def order(self, **changes: Any) -> dict[str, Any]:
        public = " ".join(self.key.with_suffix(".pub").read_text().split()[:2])
        return {"place": str(self.place), "host": "C", "run_id": RUN.lower(), "public_keys": [public]} | changes

    def check(self, **changes: Any) -> tuple[str, str]:
        """The verdict and its detail."""
        return Drill(**self.order(**changes)).verdict()

    def run(self) -> dict[str, Any]:
        """What the program says in the end."""
        with subprocess.Popen([IMAGE / "drill.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdin and program.stdout
            program.stdin.write(json.dumps(self.order()).encode() + b"\n")
            program.stdin.flush()
            told: dict[str, Any] = json.loads(program.stdout.read().splitlines()[-1])
        assert program.returncode == 0
        return told


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Volume:
    made = Volume(tmp_path_factory.mktemp("pattern") / "point", keys[0])
    made.make()
    return made


@pytest.fixture
def volume(tmp_path: Path, pattern: Volume) -> Volume:
    shutil.copytree(pattern.place, tmp_path / "point", symlinks=True)
    return Volume(tmp_path / "point", pattern.key)


def test_a_tree_as_it_was_pushed(volume: Volume) -> None:
    told = volume.run()
    files = [path for path in volume.tree.rglob("*") if path.is_file() and ".nightvault" not in path.parts]
    size = sum(path.stat().st_size for path in files)
    assert (told["state"], told["detail"]) == ("passed", "")
    assert (told["files"], told["checked_bytes"], told["total_bytes"]) == (len(files), size, size)
    # By hand, as the documentation says.
    command = "sed 1d .nightvault/manifest | cut -d' ' -f2- | sha256sum -c --quiet"
    assert subprocess.run(["sh", "-c", command], cwd=volume.tree, check=False).returncode == 0


def test_any_of_the_keys_may_have_signed(volume: Volume, keys: tuple[Path, Path]) -> None:
    public = [" ".join(key.with_suffix(".pub").read_text().split()[:2]) for key in keys]
    assert volume.check(public_keys=public[::-1])[0] == "passed"
    assert volume.check(public_keys=public[1:])[0] == "failed"


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2_000_000)
        byte = file.read(1)
        file.seek(2_000_000)
        file.write(bytes([byte[0] ^ 1]))


def replaced(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


def moved(path: Path) -> Path:
    """A place that is free now: what was there is beside the tree."""
    path.rename(path.parents[1] / "away")
    return path


def another_tree(tree: Path) -> None:
    tree.rename(tree.parent / f"tree.{uuid.UUID(int=1)}")
    replaced(tree.parent / "current", lambda path: path.symlink_to(f"tree.{uuid.UUID(int=1)}"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (lambda tree: flip(tree / "folder/deep/large"), "folder/deep/large: another content than listed"),
    "truncated": (lambda tree: os.truncate(tree / "folder/file", 3), "folder/file: 3 bytes, listed with 7"),
    "longer": (lambda tree: os.truncate(tree / "empty", 5), "empty: 5 bytes, listed with 0"),
    "missing": (lambda tree: (tree / "folder/file").unlink(), "folder/file: missing"),
    "missing folder": (lambda tree: shutil.rmtree(tree / "folder"), "folder/deep/large: missing; and 2 more"),
    "extra": (lambda tree: (tree / "folder/new\n").touch(), "folder/new\\x0a: not listed in the manifest"),
    "extra folder": (
        lambda tree: shutil.copytree(tree / "folder", tree / "copy"),
        "not listed in the manifest; and 2 more",
    ),
    "renamed": (lambda tree: (tree / "empty").rename(tree / "other"), "empty: missing; and 1 more"),
    "manifest changed": (lambda tree: (tree / ".nightvault/manifest").open("a").write("x"), "signature"),
    "no signature": (
        lambda tree: (tree / ".nightvault/manifest.sig").unlink(),
        ".nightvault/manifest.sig: cannot be read",
    ),
    "rubbish signature": (lambda tree: (tree / ".nightvault/manifest.sig").write_bytes(os.urandom(9000)), "signature"),
    "symlink for a file": (
        lambda tree: replaced(tree / "folder/file", lambda path: path.symlink_to("twin")),
        "folder/file: cannot be read, Too many levels of symbolic links",
    ),
    "symlink for a folder": (
        lambda tree: moved(tree / "folder").symlink_to("../away"),
        "folder/deep/large: missing; and 3 more",
    ),
    "pipe for a file": (lambda tree: replaced(tree / "empty", os.mkfifo), "empty: not a regular file"),
    "extra pipe": (lambda tree: os.mkfifo(tree / "pipe"), "pipe: not listed"),
    "pipe for a manifest": (
        lambda tree: replaced(tree / ".nightvault/manifest", os.mkfifo),
        ".nightvault/manifest is not a regular file",
    ),
    "symlink for a manifest": (
        lambda tree: replaced(tree / ".nightvault/manifest", lambda path: path.symlink_to("/etc/passwd")),
        ".nightvault: cannot be read, Too many levels of symbolic links",
    ),
    "a file for the folder": (
        lambda tree: moved(tree / ".nightvault").touch(),
        ".nightvault: cannot be read",
    ),
    "stored as a symlink": (
        lambda tree: os.setxattr(tree / "empty", "user.rsync.%stat", b"120777 0,0 0:0"),
        "empty: stored as something else than a regular file",
    ),
    "nothing committed": (lambda tree: (tree.parent / "current").unlink(), "nothing is committed"),
    "committed by another run": (
        lambda tree: (tree.parent / "committed.json").write_text(json.dumps({"run_id": str(uuid.UUID(int=1))})),
        "committed.json is of run 00000000-0000-0000-0000-000000000001",
    ),
    "another tree": (
        another_tree,
        "current is of run 00000000-0000-0000-0000-000000000001",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_tree_that_is_not_as_it_was_pushed(volume: Volume, damage: str) -> None:
    do, said = DAMAGE[damage]
    do(volume.tree)
    state, detail = volume.check()
    assert state == "failed", detail
    assert said in detail
    assert len(detail) <= 200


def test_what_is_no_regular_file_of_the_host_is_not_listed(volume: Volume) -> None:
    """As rsync --fake-super stores it."""
    for mode, name in ((b"120777", "link"), (b"20600", "device"), (b"140700", "socket"), (b"10600", "pipe")):
        (volume.tree / name).write_text("/etc/passwd")
        os.setxattr(volume.tree / name, "user.rsync.%stat", mode + b" 5,1 0:0")
    os.setxattr(volume.tree / "empty", "user.rsync.%stat", b"100640 0,0 0:0")
    assert volume.check() == ("passed", "")


def test_unsure_files_need_only_be_there(volume: Volume) -> None:
    large = volume.tree / "folder/deep/large"
    listed = [each for each in manifests.lines(volume.tree) if b"/large" not in each]
    volume.sign(listed=[*listed, manifests.line(volume.tree, large, manifests.UNSURE)])
    flip(large)
    os.truncate(large, 2_100_000)
    told = volume.run()
    assert (told["state"], told["checked_bytes"]) == ("passed", told["total_bytes"])
    assert told["detail"] == f"1 of {told['files']} files changed while they were pushed"
    large.unlink()
    assert volume.check() == ("failed", "folder/deep/large: missing")


def test_what_came_or_went_meanwhile_may_be_there_or_not(volume: Volume) -> None:
    listed = [each for each in manifests.lines(volume.tree) if not each.endswith(b"  empty\n")]
    unsure = manifests.UNSURE.encode()
    names = (b"empty", b"gone", b"folder/gone", b"empty folder/gone/gone", b"now a folder")
    maybe = [b"- %s  %s\n" % (unsure, name) for name in names]
    (volume.tree / "now a folder").mkdir()
    os.setxattr(volume.tree / "empty", "user.rsync.%stat", b"120777 0,0 0:0")  # now a symlink
    volume.sign(listed=[*listed, *maybe, b"- \\%s  came\\nhere\n" % unsure])
    assert volume.check() == ("passed", "")
    (volume.tree / "came\nhere").write_text("just now")
    assert volume.check() == ("passed", f"1 of {len(listed) + 6} files changed while they were pushed")
    (volume.tree / "another").touch()
    assert volume.check() == ("failed", "another: not listed in the manifest")


@pytest.mark.parametrize("what", ["folder", "manifest"])
def test_no_manifest_proves_nothing(volume: Volume, what: str) -> None:
    if what == "folder":
        shutil.rmtree(volume.tree / ".nightvault")
    else:
        (volume.tree / ".nightvault/manifest").unlink()
    assert volume.check() == ("unproven", "")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "of another run": ({"run_id": str(uuid.UUID(int=7))}, "is of run 00000000-0000-0000-0000-000000000007 of C"),
    "of another host": ({"host": "H"}, "of H, the restore point of"),
    "another version": ({"first": "nightvault-manifest 2 x\n"}, "not one of version 1"),
    "no line at all": ({"first": "nightvault-manifest 1 " + "x" * 100_000}, "not one of version 1"),
    "counts fewer": ({"first": f"nightvault-manifest 1 {RUN} C 3 7\n"}, "names another number"),
    "counts without end": ({"first": f"nightvault-manifest 1 {RUN} C 3 {'9' * 19}\n"}, "names another number"),
    "climbs": ({"listed": [GOOD + b"../committed.json\n"]}, "line 2 of the manifest"),
    "a folder": ({"listed": [GOOD + b"folder\n"]}, "folder: not a regular file"),
    "huge line": ({"listed": [GOOD + b"x" * 1_000_000 + b"\n"]}, "line 2 of the manifest"),
    "long name": ({"listed": [GOOD + b"x" * 4000 + b"\n"]}, "x...: missing; and 9 more"),
    "deep name": ({"listed": [GOOD + b"x/" * 2000 + b"x\n"]}, "missing"),
}


@pytest.mark.parametrize("manifest", HOSTILE)
def test_a_manifest_that_is_signed_and_hostile(volume: Volume, manifest: str) -> None:
    changes, said = HOSTILE[manifest]
    volume.sign(**changes)
    state, detail = volume.check()
    assert state == "failed", detail
    assert said in detail
    assert len(detail) <= 200
    assert detail.isascii()
    assert detail.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        GOOD + b"half a line",
        GOOD + b"\n",
        GOOD + b"folder/../../climbs\n",
        GOOD + b"..\n",
        GOOD + b"/absolute\n",
        GOOD + b"./dot\n",
        GOOD + b"a//b\n",
        GOOD + b"a/\n",
        GOOD + b".nightvault/manifest\n",
        GOOD + b"zero\0byte\n",
        b"-" + GOOD + b"negative\n",
        GOOD.replace(b"0", b"A") + b"capitals\n",
        GOOD.replace(b" 0", b" 00") + b"too long\n",
        GOOD.replace(b"  ", b" *") + b"binary\n",
        GOOD.replace(b" 0", b" \\0") + b"bad\\escape\n",
        GOOD.replace(b" 0", b" \\0") + b"half\\\n",
        GOOD.replace(b" 0", b" \\0") + b"escaped/..\\n/../..\n",
        b"-" + GOOD[1:] + b"no size, yet a checksum\n",
        b"9" * 20 + GOOD + b"huge\n",
    ],
)
def test_a_line_that_is_none(line: bytes) -> None:
    assert drill.parse_line(line) is None


def test_names_are_escaped_as_sha256sum_does_it(tmp_path: Path) -> None:
    """Which leaves a CR as it is in older versions."""
    for name in (b"new\nline", b"back\\slash", b"back\\nslash", b"return\r", b"plain", b"\\"):
        (tmp_path / os.fsdecode(name)).touch()
        line = subprocess.check_output([b"sha256sum", name], cwd=tmp_path)
        found = drill.parse_line(b"0 " + line)
        assert found
        assert found.path == name
        assert found == drill.parse_line(manifests.line(tmp_path, tmp_path / os.fsdecode(name)))


def test_a_file_that_is_listed_twice_hides_none(volume: Volume) -> None:
    listed = manifests.lines(volume.tree)
    volume.sign(listed=[*listed, listed[0]])
    assert volume.check() == ("failed", "the manifest lists a file more than once")


def test_want_of_rights_says_nothing_about_the_tree(volume: Volume) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything; test_a_check_of_the_agents covers the rest")
    (volume.tree / "empty").chmod(0)
    assert volume.check()[0] == "error"


# The agent's checks.


def ordered(point: dict[str, str], host: Host, run_id: str) -> dict[str, Any]:
    """A restore's order that is a drill."""
    keys = [host.key.with_suffix(".pub").read_text().strip()]
    return {**point, "drill": {"run_id": str(uuid.uuid4()), "point_run_id": run_id, "public_keys": keys}}


def told(vault: Vault, order: dict[str, Any], state: str, after: int) -> dict[str, Any]:
    """What the first report says that tells of the drill in this state."""
    want = (order["host"], order["volume_id"], order["drill"]["run_id"], state)

    def found(report: dict[str, Any]) -> list[dict[str, Any]]:
        drills = report.get("drills", [])
        return [d for d in drills if (d["host"], d["volume_id"], d["run_id"], d["state"]) == want]

    return found(vault.cloud.wait_for(found, after=after))[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    fill(tree)
    (tree / "link").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    if os.geteuid() == 0:
        os.mknod(tree / "device", 0o20600, os.makedev(1, 3))
        os.chown(tree / "folder" / "file", 12345, 54321)
    (tree / "folder" / "file").chmod(0o4000)
    return tree


def test_a_check_of_the_agents(vault: Vault, source: Path) -> None:
    """What a host has pushed with its manifest passes; a byte that flips in the point makes the next one fail."""
    [host] = vaults.mounted(vault, "C")
    run_id = str(uuid.uuid4())
    manifests.sign(source, run_id, "C", host.key)
    vaults.back_up(host, source, run_id)
    point = vault.restore_point(host)
    assert "drills" not in vault.cloud.reports[-1]
    order = ordered(point, host, run_id)
    before = vault.cloud.order(host, restores=[order])
    vault.poke()
    passed = told(vault, order, "passed", before)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    size -= sum(path.stat().st_size for path in (source / ".nightvault").iterdir())
    assert (passed["checked_bytes"], passed["total_bytes"], passed["detail"]) == (size, size, "")
    # Another drill of the same point; the tree is of another run than was ordered.
    again = ordered(point, host, str(uuid.uuid4()))
    before = vault.cloud.order(host, restores=[again])
    vault.poke()
    assert "is of run" in told(vault, again, "failed", before)["detail"]
    # A damaged point.
    flip(vault.volume(host) / f"tree.{run_id}/folder/deep/large")
    other = vault.restore_point(host, 1)
    damaged = ordered(other, host, run_id)
    before = vault.cloud.order(host, restores=[damaged])
    vault.poke()
    assert told(vault, damaged, "failed", before)["detail"] == "folder/deep/large: another content than listed"
    # One that is a restore now, and no drill.
    before = vault.cloud.order(host, restores=[other])
    vault.poke()
    vault.cloud.wait_for(lambda report: report.get("restores") and "drills" not in report, after=before)


def endless(vault: Vault, host: Host, source: Path) -> dict[str, Any]:
    """The order of a drill that will take longer than any test."""
    run_id = str(uuid.uuid4())
    vaults.back_up(host, source, run_id)
    tree = vault.volume(host) / f"tree.{run_id}"
    os.truncate(tree / "empty", 2**42)
    manifests.sign(tree, run_id, "C", host.key, listed=[manifests.line(tree, tree / "empty", "0" * 64)])
    if isinstance(vault, Machine):
        for path in (tree / ".nightvault", *(tree / ".nightvault").iterdir()):
            os.chown(path, host.uid, -1)
    return ordered(vault.restore_point(host), host, run_id)


def done_on(vault: Vault, *command: str) -> str:
    return vault.run(*command).stdout if isinstance(vault, Machine) else subprocess.check_output(command, text=True)


def check_of(vault: Vault, agent: int) -> list[int]:
    """The process with which an agent checks something: its number, its user's, how nice it is."""
    listed: list[str] = []

    def found() -> list[int]:
        # -ww: where COLUMNS is set, as in CI, ps cuts its lines, a pipe or not.
        listed[:] = done_on(vault, "ps", "-ww", "-eo", "pid,uid,ni,ppid,args").splitlines()
        fits = (line.split() for line in listed if "/drill.py" in line)
        return [
            int(word) for words in fits if isinstance(vault, Machine) or int(words[3]) == agent for word in words[:3]
        ]

    try:
        return wait_until(found)
    except TimeoutError:
        near = [line for line in listed if "drill" in line or f" {agent} " in line]
        pytest.fail("\n".join([f"no check by {agent}", *near, *map(str, vault.cloud.reports[-3:])]))


def is_there(vault: Vault, pid: int) -> bool:
    process = f"/proc/{pid}/cmdline"
    try:  # empty of one that has ended, and that nobody has asked about
        return bool((vault.path(process) if isinstance(vault, Machine) else Path(process)).read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_check_is_ended_in_the_middle(vault: Vault, source: Path) -> None:
    """When it is no longer ordered, when another one is, with its agent however that ends; then it begins anew."""
    host = vault.host("C")
    vault.attach(host.volume_id)
    vault.cloud.order(host)
    agent = vault.start_agent()
    vault.cloud.wait_mounted(host)
    order = endless(vault, host, source)
    before = vault.cloud.order(host, restores=[order])
    vault.poke()
    assert told(vault, order, "checking", before)["total_bytes"] == 0  # told at once
    first, uid, nice = check_of(vault, agent)
    assert (uid, nice) == (host.uid if isinstance(vault, Machine) else os.geteuid(), 19)
    vault.cloud.wait_for(
        lambda report: any(d["checked_bytes"] for d in report.get("drills", ())), after=before
    )  # it flows

    other = {**order, "drill": {**order["drill"], "run_id": str(uuid.uuid4())}}
    before = vault.cloud.order(host, restores=[other])
    vault.poke()
    told(vault, other, "checking", before)
    assert not is_there(vault, first)

    # Without its volume; and though it does not hear that it should end.
    second = check_of(vault, agent)[0]
    if isinstance(vault, Machine):  # where it is another account's process
        done_on(vault, "kill", "-STOP", str(second))
    before = vault.cloud.order(host, restores=[])
    vault.poke()
    assert "drills" not in vault.cloud.wait_restores(after=before)
    assert not is_there(vault, second)

    before = vault.cloud.order(host, restores=[order])
    vault.poke()
    told(vault, order, "checking", before)
    third = check_of(vault, agent)[0]
    vault.stop_agent(signal.SIGKILL)
    wait_until(lambda: not is_there(vault, third))
    before = len(vault.cloud.reports)
    agent = vault.start_agent()
    told(vault, order, "checking", before)
    fourth = check_of(vault, agent)[0]
    # One that is ended by someone else says nothing about the tree.
    done_on(vault, "kill", "-KILL", str(fourth))
    assert "was ended, exit code -9" in told(vault, order, "error", before)["detail"]

    before = vault.cloud.order(host, restores=[other])
    vault.poke()
    told(vault, other, "checking", before)
    fifth = check_of(vault, agent)[0]
    assert vault.stop_agent() == 0
    assert not is_there(vault, fifth)


def test_a_check_that_cannot_be_started(tmp_path: Path) -> None:
    config = Config(run_dir=tmp_path, mount_root=tmp_path / "none", accounts="single")
    host = agent_orders.HostOrder("C", "", 20001, "nv20001", "")
    order = agent_orders.RestoreOrder("C", "vol-12345678", agent_orders.DrillOrder(RUN, RUN, ("key",)))
    drills = agent_drills.Drills(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_drills, "_POLITE", ("/nonexistent",))
        drills.apply([order], [host], ["C"])
    [told] = drills.told()
    assert (told["state"], drills.ends()) == ("error", [])
    assert "could not be started" in told["detail"]
    drills.apply(())
    assert drills.told() == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no JSON",
        "[]",
        "[" * 100_000,
        '{"state":"passed"}',
        '{"state":"perfect","files":1,"checked_bytes":1,"total_bytes":1,"detail":""}',
        '{"state":"passed","files":-1,"checked_bytes":1,"total_bytes":1,"detail":""}',
        '{"state":"passed","files":Infinity,"checked_bytes":1,"total_bytes":1,"detail":""}',
        '{"state":"passed","files":true,"checked_bytes":1,"total_bytes":1,"detail":""}',
        '{"state":"passed","files":1,"checked_bytes":1,"total_bytes":1,"detail":"\\u001b[2J"}',
        '{"state":"passed","files":1,"checked_bytes":1,"total_bytes":1,"detail":5}',
        '{"state":["passed"],"files":1,"checked_bytes":1,"total_bytes":1,"detail":""}',
        '{"state":"passed","files":1,"checked_bytes":1,"total_bytes":1,"detail":""}' + " " * 70_000,
        '{"state":"passed","files":1,"checked_bytes":1,"total_bytes":' + "9" * 5000 + ',"detail":""}',
    ],
)
def test_what_a_check_says_is_believed_in_its_shape_alone(tmp_path: Path, line: str) -> None:
    """It runs as the host's account. Here `cat` has taken its place."""
    config = Config(run_dir=tmp_path, mount_root=tmp_path, accounts="single")
    host = agent_orders.HostOrder("C", "", 20001, "nv20001", "")
    order = agent_orders.RestoreOrder("C", "vol-12345678", agent_orders.DrillOrder(RUN, RUN, ("key",)))
    (tmp_path / "said").write_text(line + "\n")
    drills = agent_drills.Drills(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_drills, "_POLITE", ("sh", "-c", f"cat {tmp_path}/said"))
        drills.apply([order], [host], ["C"])

    def verdict() -> str:
        select.select(drills.ends(), [], [], 0.1)  # a pipe holds less than some of these
        return str(drills.told()[0]["state"]).removeprefix("checking")

    assert wait_until(verdict) == "error"
    [told] = drills.told()
    assert told["total_bytes"] <= 2**53
