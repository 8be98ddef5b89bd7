"""Tokens: what is believed, and that only hashes are kept."""

import pytest

from chalicelib.auth import HOST_ROUTES, VAULT_ROUTES, authenticate, new_secret, sha256, token
from tests.fakes.world import KEY, World


@pytest.fixture
def world() -> World:
    return World()


def enrolled(world: World, name: str = "C") -> str:
    return world.enrolment.enroll(world.enrolment.invite(name, 5, 86400).code, KEY).token


def test_a_hosts_token_opens_a_hosts_routes(world: World) -> None:
    caller = authenticate(f"Bearer {enrolled(world)}", world.store)
    assert caller
    assert (caller.name, caller.routes) == ("C", HOST_ROUTES)


def test_an_agents_token_opens_the_report(world: World) -> None:
    enrolled(world)
    world.start("C", "00000000-0000-4000-8000-000000000001")
    world.cloud.settle()
    launched = [code for code in world.store._codes.values() if code.name == "@vault-1"]
    assert len(launched) == 1
    world.boot()
    assert authenticate("Bearer nv1.@vault-1." + "x" * 43, world.store) is None
    assert VAULT_ROUTES == ("/report",)


def test_hosts_whose_names_differ_by_case_alone_are_two(world: World) -> None:
    upper, lower = enrolled(world, "C"), enrolled(world, "c")
    assert authenticate(f"Bearer {upper}", world.store) != authenticate(f"Bearer {lower}", world.store)
    assert authenticate(f"Bearer {upper.replace('.C.', '.c.')}", world.store) is None


@pytest.mark.parametrize(
    "change", [str.upper, str.strip, lambda t: t + "\n", lambda t: t[:-1], lambda t: t + "x", lambda t: t[::-1]]
)
def test_nothing_but_the_very_header_is_believed(world: World, change: object) -> None:
    header = f"Bearer {enrolled(world)}"
    changed = change(header)  # type: ignore[operator]
    assert (authenticate(changed, world.store) is None) == (changed != header)


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer nv1", "Bearer nv1..", "Bearer nv1.C." + "\u00e9" * 43])
def test_nonsense_is_nobody(world: World, header: str) -> None:
    enrolled(world)
    assert authenticate(header, world.store) is None


def test_a_code_is_no_token(world: World) -> None:
    code = world.enrolment.invite("C", 5, 86400).code
    enrolled(world)
    assert authenticate(f"Bearer {token('C', code)}", world.store) is None


def test_secrets_are_long_and_plain() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret) == 43 and secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)
    assert len(sha256("x")) == 64
