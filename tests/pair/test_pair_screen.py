"""The screen of a pair at every size: nothing sticks out, and what matters is to be seen."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from rich.cells import cell_len
from rich.console import Console

from host.pair.pair import Moment
from host.pair.screen import HELP, NodePane, PairView, VenuePane, log_lines, render, render_svg

NODE = NodePane(
    name="a",
    condition="leads",
    epoch=217_437_729,
    right_left_ms=412.0,
    ttl_ms=600.0,
    lag=None,
    round_trip_ms=None,
    why_not="",
    orders=12_345,
    fills=67,
    open_orders=4,
    positions={"BTC-USDT": "0.010", "ETH-USDT": "-0.2"},
    instances={"RUNNING": 2},
    cuts=(),
    takeover="9 ms (apply 0, epoch 2, reconcile 3, instances 4)",
    log=("15:25:23 epoch 217437729: a leads, expired",),
)
STANDBY = structs.replace(NODE, name="b", condition="stands by", lag=3, round_trip_ms=1.25, right_left_ms=0.0)
VIEW = PairView(
    at_s=72.5,
    phase="",
    setting="ttl 600 ms · process",
    folder="/tmp/tandem-pair-x",
    nodes=(NODE, STANDBY),
    venue=VenuePane(
        resting={217_437_728: 1, 217_437_729: 3},
        accepted=2_087,
        fills=9,
        refused={"expired_request": 2},
        last_switch="a → b, 95 ms without an order; 2 so far",
        lost=0,
        doubled=0,
        stale=0,
        positions={"BTC-USDT": "0.01"},
    ),
    moments=(
        Moment(0.0, "good", "ready: a leads, b stands by"),
        Moment(2.4, "info", "kill -9 of node a; its guardian lives (leads)"),
        Moment(2.8, "good", "kill a: b took over after 70 ms"),
    ),
)


def shown(view: PairView, width: int, height: int) -> str:
    console = Console(width=width, height=height, force_terminal=True, color_system=None, file=io.StringIO())
    console.print(render(view, width, height), height=height)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (140, 36)])
def test_what_matters_is_to_be_seen_at_usual_sizes(width: int, height: int) -> None:
    text = shown(VIEW, width, height)
    for part in (
        "● leads",
        "○ stands by",
        "412 ms",
        "lag 3  trip 1.2 ms  ready to lead",
        "1 of epoch 217437728  3 of epoch 217437729",
        "0 lost, 0 doubled, 0 stale",
        "2 expired_request",
        "95 ms without an order",
        "b took over after 70 ms",
        "BTC 0.01",
        "q quit",
    ):
        assert part in text, f"{part!r} at {width}×{height}:\n{text}"


@given(
    width=st.integers(40, 220),
    height=st.integers(16, 70),
    nodes=st.integers(2, 3),
    shows_help=st.booleans(),
    words=st.lists(st.text(max_size=200), max_size=5),
)
def test_no_line_is_wider_than_the_screen_and_no_screen_is_too_long(
    width: int, height: int, nodes: int, shows_help: bool, words: list[str]
) -> None:
    printable = ["".join(char for char in word if char.isprintable()) for word in words]
    view = structs.replace(
        VIEW,
        nodes=(NODE, STANDBY, STANDBY)[:nodes],
        shows_help=shows_help,
        moments=tuple(Moment(1.0, "info", word) for word in printable),
    )
    lines = shown(view, width, height).rstrip("\n").split("\n")
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("condition", "mark"),
    [
        ("lapsed", "◒"),
        ("frozen", "❄"),
        ("gone", "✗"),
        ("starting", "◌"),
        ("takes over", "◐"),
        ("no answer", "?"),
    ],
)
def test_a_node_that_does_not_trade_has_no_right_to_be_seen(condition: str, mark: str) -> None:
    text = shown(structs.replace(VIEW, nodes=(structs.replace(NODE, condition=condition), STANDBY)), 100, 30)
    assert f"{mark} {condition}" in text
    assert "412 ms" not in text


def test_the_bar_is_as_long_as_the_right_that_is_left() -> None:
    full = structs.replace(VIEW, nodes=(structs.replace(NODE, right_left_ms=600.0), STANDBY))
    none = structs.replace(VIEW, nodes=(structs.replace(NODE, right_left_ms=0.0), STANDBY))
    assert "░" not in shown(full, 100, 30)
    assert "█" not in shown(none, 100, 30)


def test_a_standby_that_could_not_lead_says_why() -> None:
    lagging = structs.replace(STANDBY, why_not="it lags")
    text = shown(structs.replace(VIEW, nodes=(NODE, lagging)), 100, 30)
    assert "it lags" in text
    assert "ready to lead" not in text


def test_links_that_are_cut_are_named() -> None:
    cut = structs.replace(NODE, cuts=("store cut", "venue refused"))
    assert "links store cut, venue refused" in shown(structs.replace(VIEW, nodes=(cut, STANDBY)), 100, 30)


def test_the_latest_moments_stay_when_there_is_no_room_for_all() -> None:
    many = tuple(Moment(float(number), "info", f"moment {number}") for number in range(50))
    text = shown(structs.replace(VIEW, moments=many), 80, 24)
    assert "moment 49" in text
    assert "moment 10" not in text


def test_help_names_every_key() -> None:
    text = shown(structs.replace(VIEW, shows_help=True), 100, 30)
    for keys, _ in HELP:
        assert keys in text


def test_a_prompt_stands_where_the_keys_were() -> None:
    text = shown(structs.replace(VIEW, prompt="a is not frozen"), 80, 24)
    assert "a is not frozen" in text
    assert "q quit" not in text


def test_a_picture_can_be_made_of_it() -> None:
    assert render_svg(VIEW).startswith("<svg")


def test_what_a_node_says_is_shown_without_its_date() -> None:
    said = "2026-01-02 15:25:23,866 INFO     tandem.failover: epoch 7: a leads\n\nguardian: it ended\n"
    assert log_lines(said, 5) == ("15:25:23 epoch 7: a leads", "guardian: it ended")
