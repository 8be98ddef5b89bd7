"""cfn-lint and checkov on the packaged template."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.packaging import Package
from tests.template.conftest import ROOT

pytestmark = pytest.mark.stack

CFN_LINT = ROOT / ".venv" / "bin" / "cfn-lint"
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"


def test_cfn_lint_finds_nothing(made: Package) -> None:
    done = subprocess.run([CFN_LINT, made.template_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_cfn_lint_would_find_something(made: Package, tmp_path: Path) -> None:
    broken = tmp_path / "template.json"
    broken.write_text(made.template_path.read_text().replace('"AttributeName": "pk"', '"AttributeNam": "pk"'))
    assert subprocess.run([CFN_LINT, broken], capture_output=True, check=False).returncode != 0


def _checkov(template: Path) -> dict[str, Any]:
    if not CHECKOV.exists():
        pytest.skip("no checkov: tools/prepare stack")
    done = subprocess.run(
        # It would ask its makers for guidelines, which it can do without.
        [CHECKOV, "-f", template.name, "--framework", "cloudformation", "--compact", "--skip-download", "-o", "json"],
        cwd=template.parent,
        env={"PATH": "/usr/bin:/bin", "HOME": str(template.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_checkov_finds_nothing_and_every_skip_is_explained(made: Package) -> None:
    report = _checkov(made.template_path)
    assert [f"{c['check_id']} {c['resource']}" for c in report["results"]["failed_checks"]] == []
    assert report["summary"]["passed"] > 50
    skips = {
        (skip["id"], name): skip["comment"]
        for name, resource in made.template["Resources"].items()
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    }
    assert all(len(reason) > 30 for reason in skips.values())
    assert report["summary"]["skipped"] == len(skips), "a skip that checkov does not ask for"


def test_checkov_would_find_something(made: Package, tmp_path: Path) -> None:
    template = made.template
    template["Resources"]["Table"]["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] = (
        False
    )
    (tmp_path / "template.json").write_text(json.dumps(template))
    assert _checkov(tmp_path / "template.json")["results"]["failed_checks"]
