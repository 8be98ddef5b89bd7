"""What `pip install '.[vaultctl]'` installs."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.localcloud.paths import REPOSITORY
from vaultctl import __version__


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"]


def test_the_wheel_holds_the_command_and_the_client(tmp_path: Path) -> None:
    # A copy: setuptools builds in the folder, and tests run beside each other.
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "vaultctl = vaultctl.__main__:script" in archive.read(entry).decode()
        client = next(name for name in names if name.endswith("data/share/nightvault/nightvault"))
        assert archive.read(client) == (REPOSITORY / "host-client" / "nightvault").read_bytes()
        parts = [path.name for path in (REPOSITORY / "host-client").glob("nightvault-*")]
        for beside in ("config.sample", *parts):
            assert any(name.endswith(f"data/share/nightvault/{beside}") for name in names)
    ours = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "vaultctl").rglob("*.py")}
    pure = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "chalicelib").rglob("*.py")}
    assert ours | pure <= names
    # And it runs from there, with nothing of this folder in reach.
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    code = f"""
import sys
sys.path[:] = [{str(unpacked)!r}, *(path for path in sys.path if path != {str(REPOSITORY)!r})]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import vaultctl
from vaultctl.main import main
assert vaultctl.__file__.startswith(sys.path[0]), vaultctl.__file__
sys.exit(main(["cost", "--scenario", "10"]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": libraries},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "rsync.net" in ran.stdout
