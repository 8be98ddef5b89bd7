"""Settings come from the environment, and what is missing or wrong is named."""

import pytest

from chalicelib.model import Policy
from chalicelib.settings import Settings, SettingsError

WHOLE = {f"NIGHTVAULT_{name}": name.lower() for name in ("STACK", "TABLE", "LAUNCH_TEMPLATE", "SUBNET", "TOPIC_ARN")}


def test_defaults() -> None:
    settings = Settings.from_environment(WHOLE)
    assert (settings.stack, settings.table, settings.kms_key) == ("stack", "table", "")
    assert settings.policy == Policy()


@pytest.mark.parametrize("name", WHOLE)
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not set"):
        Settings.from_environment({key: value for key, value in WHOLE.items() if key != name})


@pytest.mark.parametrize("field", Policy.__struct_fields__)
def test_every_duration_can_be_set(field: str) -> None:
    policy = Settings.from_environment({**WHOLE, f"NIGHTVAULT_{field.upper()}": "17"}).policy
    assert getattr(policy, field) == 17


def test_the_daily_budgets_can_be_set_in_hours() -> None:
    policy = Settings.from_environment(
        {
            **WHOLE,
            "NIGHTVAULT_WINDOW_HOURS": "3.6",
            "NIGHTVAULT_RESTORE_HOURS": "24",
            "NIGHTVAULT_DRILL_HOURS": "0.5",
        }
    ).policy
    assert (policy.window_seconds, policy.restore_seconds, policy.drill_seconds) == (12960, 86400, 1800)


@pytest.mark.parametrize("value", ["", "x", "0", "-1", "24.01", "nan", "inf"])
def test_what_is_no_number_of_hours_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="NIGHTVAULT_WINDOW_HOURS"):
        Settings.from_environment({**WHOLE, "NIGHTVAULT_WINDOW_HOURS": value})


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", " 1", "\u00b2", "1e3"])
def test_what_is_no_whole_number_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="NIGHTVAULT_LEASE_SECONDS"):
        Settings.from_environment({**WHOLE, "NIGHTVAULT_LEASE_SECONDS": value})
