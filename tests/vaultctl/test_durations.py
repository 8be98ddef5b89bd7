"""Durations as people write them."""

import pytest

from vaultctl import durations
from vaultctl.failures import Exit, Failure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("1h30m", 5400), ("1d12h", 129600)],
)
def test_what_is_understood(text: str, seconds: int) -> None:
    assert durations.seconds(text, "every") == seconds
    assert durations.seconds(durations.text(seconds), "every") == seconds


@pytest.mark.parametrize(
    "text",
    ["", "24", "24 h", "h", "1.5h", "-1h", "24H", "one day", "1h 30m", "1h1h", "0m", "0d0h", "1y", "\u0661h", "24h\n"],
)
def test_what_is_not_names_the_option_and_what_would_do(text: str) -> None:
    with pytest.raises(Failure) as refused:
        durations.seconds(text, "every")
    assert refused.value.exit is Exit.USAGE
    assert str(refused.value).startswith("every: ")
    assert repr(text) in str(refused.value)


def test_a_bare_number_is_asked_back() -> None:
    with pytest.raises(Failure, match="did you mean 24h"):
        durations.seconds("24", "every")


@pytest.mark.parametrize("text", ["90s", "1h1s"])
def test_minutes_are_whole(text: str) -> None:
    with pytest.raises(Failure, match=r"for: .* whole minutes"):
        durations.minutes(text, "for")
    assert durations.minutes("1h30m", "for") == 90
