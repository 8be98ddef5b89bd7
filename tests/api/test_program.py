"""GET /program: a new machine gets exactly the program that its user data names, from this deployment."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from chalicelib import wiring
from tests.api.conftest import Api
from tests.fakes.world import SETTINGS

PROGRAM = bytes(range(256)) * 100
SHA256 = hashlib.sha256(PROGRAM).hexdigest()


@pytest.fixture
def brought(api: Api, tmp_path: Path) -> Api:
    (tmp_path / "program").write_bytes(PROGRAM)
    wired = wiring.wired()
    wired.settings = replace(SETTINGS, program=str(tmp_path / "program"))
    return api


def test_the_program_that_is_named(brought: Api) -> None:
    answer = brought.call("GET", f"/program?sha256={SHA256}")
    assert answer.status == 200
    assert base64.b64decode(answer.json["program"]) == PROGRAM


def test_another_program_is_not_here(brought: Api) -> None:
    answer = brought.call("GET", f"/program?sha256={'0' * 64}")
    assert (answer.status, answer.code) == (404, "UnknownProgram")


def test_a_deployment_without_one(api: Api) -> None:
    assert api.call("GET", f"/program?sha256={SHA256}").status == 404


@pytest.mark.parametrize("query", ["", "?sha256=", "?sha256=../../etc/passwd", f"?sha256={SHA256.upper()}", "?x=1"])
def test_a_bad_question_names_the_field(brought: Api, query: str) -> None:
    answer = brought.call("GET", f"/program{query}")
    assert (answer.status, answer.code) == (400, "BadRequest")
    assert "sha256" in answer.json["error"]["message"]
