"""The live view: what it shows at each size, and what it does without a terminal."""

import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from rich.cells import cell_len
from rich.console import Console

from host.core import entries as e
from host.core.entries import VersionState
from host.reload_lines import ReloadLines
from host.terminal import (
    EventLine,
    InstanceRow,
    MarketRow,
    NodeView,
    ReloadLine,
    TerminalView,
    render,
    render_svg,
    status_line,
)

BTC = InstanceRow(
    name="mm-btc",
    plugin="two_sided",
    digest="a1b2c3d4e5f6",
    state="running",
    symbol="BTC-USDT",
    bid=Decimal("61650.10"),
    ask=Decimal("61675.20"),
    position=Decimal("0.150"),
    inventory_ratio=0.35,
    realised=Decimal("1250.75"),
    unrealised=Decimal("-16.24"),
    pnl=Decimal("1234.51"),
    currency="USDT",
    fills=1234,
)
VIEW = NodeView(
    node="a",
    state="running",
    epoch=3,
    mode="live",
    now_ns=1_754_650_000_000_000_000,
    uptime_s=754.0,
    events=123_456,
    events_per_s=12_345.6,
    tick_to_order_p50_us=21.4,
    tick_to_order_p99_us=48.9,
    open_orders=4,
    journal_lsn=1_234_567,
    store_lag=17,
    instances=(BTC,),
    markets=(MarketRow(symbol="BTC-USDT", bid=61655.12, ask=61655.14, age_ms=12.0),),
    log=(EventLine(1_754_650_000_000_000_000, "warning", "market data of ETH-USDT is stale"),),
)


def screen(view: NodeView, width: int, height: int, history: tuple[float, ...] = ()) -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=True, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(view, width, height, history), height=height)
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (150, 40)])
def test_view_fills_the_screen_exactly(width: int, height: int) -> None:
    lines = screen(VIEW, width, height, (1.0, 2.0, 3.0))

    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (150, 40)])
def test_every_figure_that_matters_is_whole_at_each_size(width: int, height: int) -> None:
    text = "\n".join(screen(VIEW, width, height))

    for figure in (
        "epoch 3", "0:12:34", "12,346", "21/49", "1,234,567", " lag 17", "+1,234.51 USDT",
        "61,650.10", "61,675.20", "+0.15", "1,234", "61,655.12", "61,655.14", "12 ms", "ETH-USDT is stale",
    ):  # fmt: skip
        assert figure in text, figure


def test_wide_screen_has_room_for_state_version_and_the_parts_of_the_profit() -> None:
    text = "\n".join(screen(VIEW, 150, 40))

    assert all(word in text for word in ("running", "two_sided", "a1b2c3", "+1,250.75", "-16.24", "┼██"))


@pytest.mark.parametrize("width", [80, 90, 100, 150])
def test_long_names_give_way_to_numbers(width: int) -> None:
    long = structs.replace(BTC, name="a-very-long-instance-name-of-forty-letters", symbol="NEXO-USDT-PERP")

    text = "\n".join(screen(structs.replace(VIEW, instances=(BTC, long)), width, 24))

    assert text.count("61,675.20 ") == 2
    assert text.count("+1,234.51 ") == 2
    assert text.count(" 1,234 ") == (2 if width > 80 else 0)  # fills are left out before a name is unreadable
    assert "a-very-l" in text


RELOAD = ReloadLine(plugin="two_sided", digest="c0ffee1234", text="probation 12 s")


def test_reload_shows_version_and_stage_without_taking_a_line() -> None:
    before = screen(VIEW, 80, 24)
    after = screen(structs.replace(VIEW, reloads=(RELOAD,)), 80, 24)

    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 1
    assert "two_sided c0ffee probation 12 s" in changed[0][1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (150, 40)])
def test_long_outcome_is_cut_at_the_frame_and_the_newest_comes_first(width: int, height: int) -> None:
    bad = ReloadLine(plugin="momentum", digest="badbad", text="rolled back:\n" + "why " * 99, level="error")
    lines = screen(structs.replace(VIEW, reloads=(bad, RELOAD)), width, height)

    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}
    [shown] = [line for line in lines if "momentum" in line]
    assert "momentum badbad rolled back: why" in shown
    assert "…" in shown
    assert "c0ffee" not in shown


DIGEST = "c0ffee" + "0" * 58


def story(*entries: e.Entry) -> ReloadLines:
    """Return the lines after these entries, one second apart from second 0 on."""
    lines = ReloadLines()
    for second, entry in enumerate(entries):
        lines.take(e.Record(second + 1, second * 1_000_000_000, entry))
    return lines


def at(lines: ReloadLines, second: float) -> list[tuple[str, str]]:
    return [(line.text, line.level) for line in lines.lines(int(second * 1e9))]


def moved(state: VersionState, reason: str = "") -> e.VersionMoved:
    return e.VersionMoved("two_sided", DIGEST, state, reason)


def test_reload_is_told_from_its_first_stage_to_its_end() -> None:
    validated = e.StageReported("two_sided", DIGEST, "validate", "passed", 80_000, "")

    assert at(story(validated), 0) == [("validate passed", "info")]
    swapped = e.StageReported("two_sided", DIGEST, "swap", "passed", 200, "")  # told once it is active
    live = story(validated, moved(VersionState.ACTIVE), swapped)
    assert at(live, 13.5) == [("probation 12 s", "info")]
    permanent = story(validated, moved(VersionState.ACTIVE), moved(VersionState.PERMANENT))
    assert at(permanent, 3) == [("permanent", "info")]
    assert at(permanent, 40) == []


def test_bad_end_is_shown_longer_and_a_node_start_not_at_all() -> None:
    back = story(moved(VersionState.ACTIVE), moved(VersionState.ROLLED_BACK, "on_book raised"))

    assert at(back, 100) == [("rolled back: on_book raised", "error")]
    assert at(back, 1000) == []
    assert at(story(moved(VersionState.REFUSED, "no such name")), 1) == [("refused: no such name", "warning")]
    staged = story(moved(VersionState.STAGED, "waits to be activated"))
    assert at(staged, 100_000) == [("staged: waits to be activated", "info")]
    assert at(story(moved(VersionState.PERMANENT, "the first version")), 0) == []


def test_instances_that_do_not_fit_are_counted() -> None:
    rows = tuple(structs.replace(BTC, name=f"mm-{number}") for number in range(40))

    text = "\n".join(screen(structs.replace(VIEW, instances=rows), 80, 24))

    shown = sum(f"mm-{number} " in text for number in range(40))
    assert shown > 3
    assert f"… {40 - shown} more" in text
    assert "61,655.12" in text  # the markets and the events keep their place
    assert "ETH-USDT is stale" in text


def test_newest_events_are_the_ones_shown() -> None:
    log = tuple(EventLine(0, "info", f"event {number}.") for number in range(100))

    text = "\n".join(screen(structs.replace(VIEW, log=log), 80, 24))

    assert "event 99." in text
    assert "event 0." not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (150, 24), (150, 40), (200, 60)])
def test_newest_event_shows_on_the_last_line_and_bad_news_in_full(width: int, height: int) -> None:
    noise = [EventLine(n * 1_000_000_000, "info", f"event {n} " + "x" * 300) for n in range(50)]
    text = (
        "rolled_back: plugin two_sided ebb694: instance mm-btc: on_book raised RuntimeError: "
        "third event (two_sided.py@ebb69429d619, line 56)"
    )
    view = structs.replace(VIEW, log=(*noise, EventLine(60_000_000_000, "error", text)))

    lines = screen(view, width, height)
    told = " ".join(" ".join(line.replace("│", " ").split()) for line in lines[-6:])

    assert "56)" in lines[-2]
    assert all(word in told for word in text.split())


def test_a_kill_switch_that_is_on_is_what_the_header_says_first() -> None:
    lines = screen(structs.replace(VIEW, stopped=("node: panic by root",)), 100, 30)

    assert "STOPPED node: panic by root" in lines[1]
    assert "running" not in lines[1]


def test_stale_market_is_told_by_its_age_in_seconds() -> None:
    market = structs.replace(VIEW.markets[0], age_ms=7_200.0)

    assert "7.2 s" in "\n".join(screen(structs.replace(VIEW, markets=(market,)), 80, 24))


def test_profit_in_different_currencies_is_not_added_up() -> None:
    inverse = structs.replace(BTC, currency="BTC", pnl=Decimal("-0.5"))
    view = structs.replace(VIEW, instances=(BTC, BTC, inverse))

    assert view.pnl == {"USDT": Decimal("2469.02"), "BTC": Decimal("-0.5")}
    assert "+2,469.02 USDT" in status_line(view)
    assert "-0.50 BTC" in status_line(view)


def test_node_without_instances_orders_or_store_can_be_shown() -> None:
    empty = structs.replace(
        VIEW,
        instances=(),
        markets=(),
        log=(),
        tick_to_order_p50_us=None,
        tick_to_order_p99_us=None,
        store_lag=None,
    )

    text = "\n".join(screen(empty, 80, 24))

    assert "no instance" in text
    assert " lag " not in text


@given(
    count=st.integers(0, 50),
    markets=st.integers(0, 30),
    width=st.integers(80, 200),
    height=st.integers(24, 60),
    ratio=st.floats(-1, 1),
)
def test_any_number_of_rows_fits_any_screen(
    count: int, markets: int, width: int, height: int, ratio: float
) -> None:
    rows = tuple(structs.replace(BTC, inventory_ratio=ratio) for _ in range(count))
    view = structs.replace(VIEW, instances=rows, markets=VIEW.markets * markets)

    lines = screen(view, width, height, (ratio, -ratio, 0.0))

    assert len(lines) == height
    assert all(cell_len(line) == width for line in lines)


def test_without_a_terminal_a_plain_line_is_printed_every_few_seconds() -> None:
    out = io.StringIO()
    now = 100.0

    with TerminalView(Console(file=out, width=80), clock=lambda: now) as terminal:
        terminal.update(VIEW)
        now = 104.9
        terminal.update(VIEW)
        assert out.getvalue().count("\n") == 1
        now = 105.0
        terminal.update(VIEW)

    lines = out.getvalue().splitlines()
    assert lines == [status_line(VIEW)] * 2
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_screen_is_drawn_and_given_back() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"})

    with TerminalView(console) as terminal:
        terminal.update(VIEW)
        terminal.refresh()

    enter, leave = out.getvalue().find("\x1b[?1049h"), out.getvalue().rfind("\x1b[?1049l")
    assert 0 <= enter < out.getvalue().find("mm-btc") < leave


def test_picture_is_an_svg_of_the_view() -> None:
    svg = render_svg(VIEW)

    assert svg.startswith("<svg")
    assert "mm-btc" in svg
