"""The timeline before it is drawn, and as text: nights, hours, marks, lanes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from rich.style import Style

from chalicelib import timeline
from chalicelib.timeline.axis import axis
from chalicelib.timeline.picture import Mark, at_most, picture
from chalicelib.timeline.words import about_run, duration, size
from tests.look.nights import NOW, history, host, run, stamp, window


def one(opened: datetime, *runs: dict[str, object]) -> list[dict[str, object]]:
    return [window("vault-1", opened, list(runs))]


def marks(windows: list[dict[str, object]], hosts: list[dict[str, object]]) -> dict[str, list[Mark]]:
    drawn = picture(windows, hosts, NOW, 14, UTC)
    return {lane.host.name: [seen.mark for night in lane.nights for seen in night] for lane in drawn.lanes}


def test_each_outcome_has_its_mark() -> None:
    opened = NOW - timedelta(hours=8)
    windows = one(
        opened,
        run("A", 1, opened, 10),
        run("B", 2, opened, 10, "failed"),
        run("C", 3, opened, 10, "cut"),
        run("D", 4, opened, 10, "abandoned"),
        run("E", 5, opened, 10, None),
        run("F", 6, opened, 10, kind="restore"),
        run("G", 7, opened, 10),
    )
    hosts = [host("A", "vault-1", opened)] + [host(name, "vault-1", None) for name in "BCDEFG"]
    assert marks(windows, hosts) == {
        "A": [Mark.COUNTED],
        "B": [Mark.FAILED],
        "C": [Mark.CUT],
        "D": [Mark.ABANDONED],
        "E": [Mark.LIVE],
        "F": [Mark.RESTORED],
        "G": [Mark.COMPLETE],  # its restore point is not the host's last backup: it has not completed
    }


def test_a_complete_run_whose_snapshot_failed_does_not_count() -> None:
    opened = NOW - timedelta(days=2)
    windows = one(opened, run("C", 1, opened, 10))
    windows[0]["points"] = [{"run_id": run("C", 1, opened, 10)["run_id"], "complete": True, "state": "error"}]
    assert marks(windows, [host("C", "vault-1", NOW)]) == {"C": [Mark.COMPLETE]}


def test_an_unusual_push_says_so_when_it_is_hovered_over() -> None:
    opened = NOW - timedelta(days=2)
    windows = one(opened, run("C", 1, opened, 10), run("H", 2, opened, 10))
    ids = [str(each["run_id"]) for each in windows[0]["runs"]]  # type: ignore[attr-defined]
    windows[0]["points"] = [{"run_id": ids[0], "complete": True, "unusual": "90 % fewer files"}]
    drawn = picture(windows, [], NOW, 14, UTC)
    said = {lane.host.name: about_run(seen, drawn.axis, NOW) for lane in drawn.lanes for n in lane.nights for seen in n}
    assert "\nunusual: 90 % fewer files\n" in said["C"]
    assert "unusual" not in said["H"]


def test_columns_show_the_busy_hours_and_leave_out_the_idle_ones() -> None:
    night = datetime(2026, 11, 2, 1, 0, tzinfo=UTC)
    spans = [(night + timedelta(days=n), night + timedelta(days=n, minutes=12)) for n in (-3, -2, 0)]
    quiet = axis(spans, NOW, 14, UTC)
    assert quiet.hours == "00:55-01:25"
    both = axis([*spans, (night + timedelta(hours=14), night + timedelta(hours=14, minutes=30))], NOW, 14, UTC)
    assert both.hours == "00:55-01:20, 14:55-15:35"
    (gap,) = both.breaks
    early, late = both.place(night, 12), both.place(night + timedelta(hours=14), 12)
    assert early < gap < late


def test_a_night_is_one_column_though_midnight_is_in_it() -> None:
    evening = datetime(2026, 11, 1, 23, 40, tzinfo=UTC)
    spans = [(evening - timedelta(days=n), evening - timedelta(days=n, minutes=-90)) for n in range(5)]
    across = axis(spans, NOW, 14, UTC)
    assert {across.night(end) - across.night(begin) for begin, end in spans} == {0}
    assert across.hours == "23:35-01:15"


def test_a_window_round_noon_is_not_cut_in_two() -> None:
    noon = datetime(2026, 11, 1, 11, 30, tzinfo=UTC)
    across = axis([(noon, noon + timedelta(hours=2))], NOW, 14, UTC)
    assert across.night(noon) == across.night(noon + timedelta(hours=2))


def test_times_are_shown_in_the_zone_asked_for_through_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/Berlin")  # from +02:00 to +01:00 on 25 October 2026
    opened = [datetime(2026, 10, day, 0 if day < 25 else 1, 0, tzinfo=UTC) for day in range(22, 30)]
    across = axis([(at, at + timedelta(minutes=20)) for at in opened], NOW, 14, zone)
    assert across.hours == "01:55-02:25"
    assert {round(across.place(at, across.night(at)), 3) for at in opened} == {round(5 / 30, 3)}


def test_hosts_that_did_not_run_are_seen_and_those_that_could_not_are_not() -> None:
    opened = NOW - timedelta(hours=8)
    hosts = [
        host("C", "vault-1", opened),
        host("new", "vault-1", None, enrolled_at=stamp(NOW - timedelta(days=3))),
        host("weekly", "vault-1", None, every_seconds=7 * 86400),
        host("gone", "vault-1", None, retired_at=stamp(NOW)),
    ]
    drawn = picture(one(opened, run("C", 1, opened, 10)), hosts, NOW, 14, UTC)
    missed = {lane.host.name: len(lane.missed) for lane in drawn.lanes}
    assert missed == {"C": 13, "new": 3, "weekly": 0}  # a retired one without runs has no lane at all


def test_a_host_that_nobody_names_still_has_its_lane() -> None:
    opened = NOW - timedelta(hours=8)
    assert marks(one(opened, run("ghost", 1, opened, 10)), []) == {"ghost": [Mark.COMPLETE]}


def test_lanes_are_in_natural_order_under_their_vault() -> None:
    drawn = picture(
        [], [host(n, v, NOW) for n, v in (("b10", "vault-2"), ("b2", "vault-2"), ("a", "vault-10"))], NOW, 14, UTC
    )
    assert [(s.vault_id, [lane.host.name for lane in s.lanes]) for s in drawn.sections] == [
        ("vault-2", ["b2", "b10"]),
        ("vault-10", ["a"]),
    ]


def test_where_there_are_too_many_hosts_those_in_trouble_are_kept() -> None:
    windows, hosts = history([f"h{n}" for n in range(60)])
    hosts[17]["overdue"] = True
    some = at_most(picture(windows, hosts, NOW, 14, UTC), 10)
    assert len(some.lanes) == 10
    assert some.left_out == 50
    late = {h["name"] for h in hosts if h["overdue"]}
    assert late
    assert late <= {lane.host.name for lane in some.lanes}


@pytest.mark.parametrize("days", [0, 63])
def test_too_many_days_are_refused(days: int) -> None:
    with pytest.raises(ValueError, match=r"days: .* must be from 1 to 62"):
        timeline.text([], [], NOW, days=days)


def test_a_field_of_the_wrong_type_is_named() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"opened_at"):
        timeline.text([{"window_id": "w", "vault_id": "v", "opened_at": "yesterday", "closes_at": stamp(NOW)}], [], NOW)


# --- text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [62, 80, 100, 160])
@pytest.mark.parametrize("count", [1, 4, 24, 100])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_fits_and_shows_every_host(width: int, count: int, ascii_only: bool) -> None:
    windows, hosts = history([f"machine-{n}" for n in range(count)])
    seen = timeline.text(windows, hosts, NOW, width=width, ascii_only=ascii_only).splitlines()
    lanes = [line for line in seen if line.startswith("machine-")]
    assert [line.split()[0] for line in lanes] == [f"machine-{n}" for n in range(count)]
    assert max(map(len, seen[1:])) <= width or width < 80
    assert max(map(len, lanes)) <= width
    if ascii_only:
        assert "\n".join(seen).isascii()


def test_text_shows_runs_in_their_nights() -> None:
    opened = datetime(2026, 11, 3, 1, 0, tzinfo=UTC)
    windows = [
        window("vault-1", opened, [run("C", 1, opened, 12)]),
        window("vault-1", opened - timedelta(days=1), [run("C", 2, opened - timedelta(days=1), 12, "failed")]),
    ]
    seen = timeline.text(windows, [host("C", "vault-1", opened)], NOW, days=3, width=40, ascii_only=True)
    (lane,) = [line for line in seen.splitlines() if line.startswith("C ")]
    assert [lane.index("-"), lane.index("X"), lane.index("O")] == sorted(
        [lane.index("-"), lane.index("X"), lane.index("O")]
    )
    assert "X failed" in seen
    assert "O counts" in seen


def test_text_without_hosts() -> None:
    assert timeline.text([], [], NOW) == "No host is enrolled."


def test_styled_lines_say_the_same_as_the_plain_ones() -> None:
    windows, hosts = history(["C", "H", "O", "L"])
    styled = timeline.lines(windows, hosts, NOW)
    assert "\n".join("".join(part for part, _ in line).rstrip() for line in styled) == timeline.text(
        windows, hosts, NOW
    )
    for line in styled:
        for _, style in line:
            Style.parse(style)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (12960, "3.6 h"), (86400, "24 h"), (200000, "2.3 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123456789, "123 MB"), (5 * 10**12, "5.0 TB")]
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words
