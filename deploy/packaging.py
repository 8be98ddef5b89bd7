"""From sources to what CloudFormation takes: `template.json` and `deployment.zip`, by `chalice package`."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chalicelib.settings import PROGRAM
from deploy import parts, policies

ROOT = parts.ROOT
# What `chalice package` makes of our sources anew each time; the rest of a zip are wheels, kept between packagings.
_OURS = ("app.py", "chalicelib/", "chalice/")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows


class PackagingFailed(Exception):
    """`chalice package` did not succeed; the message holds what it said."""


@dataclass(frozen=True)
class Package:
    """The template's functions have `./deployment.zip` for code; `uploaded` names the bucket instead."""

    template_path: Path
    zip_path: Path

    @property
    def template(self) -> dict[str, Any]:
        template: dict[str, Any] = json.loads(self.template_path.read_text())
        return template

    @property
    def zip_key(self) -> str:
        """Names the content: the same code is the same object, and then nothing is deployed."""
        return f"{hashlib.sha256(self.zip_path.read_bytes()).hexdigest()[:32]}.zip"

    def uploaded(self, bucket: str) -> dict[str, Any]:
        """The template with the code in `bucket` under `zip_key`."""
        template = self.template
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = {"Bucket": bucket, "Key": self.zip_key}
        return template


def package(out: Path, *, architecture: str = "arm64", build: Path = ROOT / "build") -> Package:
    """Write `template.json` and `deployment.zip` into `out`: the same bytes for the same sources.

    `architecture` is Lambda's word, arm64 or x86_64; the second is for a test that runs the zip on such a machine.
    Wheels are downloaded once and kept in `build`. Raises PackagingFailed.
    """
    out.mkdir(parents=True, exist_ok=True)
    wheels = build / "wheels" / _wheels_key(architecture)
    with tempfile.TemporaryDirectory(prefix="nightvault-package-") as folder:
        project = Path(folder) / "project"
        made = Path(folder) / "made"
        _stage(project, architecture, wheels)
        _chalice(project, made)
        if not wheels.exists():
            _keep_wheels(made / "deployment.zip", wheels)
        _write_zip(made / "deployment.zip", out / "deployment.zip")
        template = json.loads((made / "sam.json").read_text())
        (out / "template.json").write_text(json.dumps(template, indent=1, sort_keys=True) + "\n")
    return Package(out / "template.json", out / "deployment.zip")


def _wheels_key(architecture: str) -> str:
    requirements = (ROOT / "requirements.txt").read_bytes()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(requirements + version("chalice").encode()).hexdigest()[:16]
    return f"{digest}-python{python}-{architecture}"


def _stage(project: Path, architecture: str, wheels: Path) -> None:
    """A Chalice project with the computed files in it; the working tree is left as it is."""
    chalice = project / ".chalice"
    chalice.mkdir(parents=True)
    shutil.copy(ROOT / "app.py", project)
    # Chalice would pack compiled files too, and whatever else lies there.
    shutil.copytree(ROOT / "chalicelib", project / "chalicelib", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (project / "chalicelib" / PROGRAM.name).write_bytes(parts.vault_image().program())
    if wheels.exists():
        (project / "vendor").symlink_to(wheels.resolve())
        (project / "requirements.txt").write_text("")
    else:
        shutil.copy(ROOT / "requirements.txt", project)
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    config["lambda_architecture"] = architecture
    stage = config["stages"]["prod"]
    for function in policies.FUNCTIONS:
        file = f"policy-{function.suffix}.json"
        (chalice / file).write_text(json.dumps(policies.policy(function)))
        stage["lambda_functions"].setdefault(function.name, {})["iam_policy_file"] = file
    # Chalice reads the API's own policy here, and nowhere else.
    stage["iam_policy_file"] = stage["lambda_functions"]["api_handler"].pop("iam_policy_file")
    (chalice / "config.json").write_text(json.dumps(config))
    (project / "merge.json").write_text(json.dumps(parts.merged()))


def _chalice(project: Path, made: Path) -> None:
    # `app.py` is imported: without our variables, since packaging must not depend on them. The region matters to
    # nothing, but boto3 wants one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTVAULT_", "AWS_"))}
    chalice = Path(sys.executable).with_name("chalice")
    done = subprocess.run(
        [chalice, "package", "--stage", "prod", "--merge-template", "merge.json", made],
        cwd=project,
        env={**kept, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    # A wheel that it can't get is no failure to Chalice, only a line of text.
    if done.returncode != 0 or "Could not install dependencies" in said:
        raise PackagingFailed(f"`chalice package` failed; it fetches wheels from PyPI the first time. It said:\n{said}")


def _keep_wheels(zip_path: Path, wheels: Path) -> None:
    wheels.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=wheels.parent))
    with zipfile.ZipFile(zip_path) as archive:
        archive.extractall(half, [name for name in archive.namelist() if not name.startswith(_OURS)])
    try:
        half.rename(wheels)
    except OSError:  # another packaging was quicker
        shutil.rmtree(half)


def _write_zip(source: Path, target: Path) -> None:
    """With bytecode, in order, and without times: what did not change has the same bytes."""
    half = target.with_suffix(".half")
    with tempfile.TemporaryDirectory(prefix="nightvault-bytecode-") as folder:
        task = Path(folder) / "task"
        with zipfile.ZipFile(source) as old:
            old.extractall(task)
        _compile(task)
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
            for path in sorted(each for each in task.rglob("*") if each.is_file()):
                member = zipfile.ZipInfo(path.relative_to(task).as_posix(), _EPOCH)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = 0o644 << 16
                new.writestr(member, path.read_bytes())
    half.replace(target)


def _compile(task: Path) -> None:
    """Bytecode beside every source: Lambda cannot write it, so without it each cold start compiles everything anew.

    That is more than half of a cold start's imports (benchmarks/cold_start.py). AWS advises against packing bytecode,
    because it may be another Python's (https://docs.aws.amazon.com/lambda/latest/dg/python-package.html). Ours is of
    the Python that runs Chalice, which takes the same version for the functions' runtime, and bears its name: another
    version does not look at it. It does not depend on the machine's architecture. Not held against the source's time,
    which the zip does not keep; in an interpreter of its own with a fixed hash seed, so that it is always the same.
    """
    command: list[str | Path] = [sys.executable, "-m", "compileall", "-q", "-s", task, "-p", "/var/task"]
    # Status 1: a file that cannot be compiled, such as a template of a wheel's; it has no bytecode then.
    subprocess.run(
        [*command, "--invalidation-mode", "unchecked-hash", task],
        env={"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
