"""The live view of a running node: one screen that fits 80×24 and makes use of more.

The node fills a `NodeView` a few times a second; everything here only reads it. Drawing happens on
a thread of its own, so that `update` costs the event loop nothing but an assignment.
"""

import io
import textwrap
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from rich import box
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = [
    "EventLine",
    "InstanceRow",
    "MarketRow",
    "NodeView",
    "ReloadLine",
    "TerminalView",
    "render",
    "render_svg",
    "status_line",
]

REFRESH_PER_SECOND: Final = 4
STATUS_EVERY_S: Final = 5.0
"""How often a line is printed where there is no terminal to draw on."""

STALE_MS: Final = 5_000.0
SIDE_BY_SIDE: Final = 130
"""From this width on, markets and events stand beside each other."""

_STATE_STYLE: Final = {
    "running": "green",
    "primary": "green",
    "standby": "cyan",
    "taking": "yellow",
    "starting": "cyan",
    "loaded": "cyan",
    "paused": "yellow",
    "stopping": "yellow",
    "stopped": "dim",
    "quarantined": "bold red",
    "halted": "bold red",
}
_LEVEL_STYLE: Final = {"info": "", "warning": "yellow", "error": "bold red"}
_RELOAD_STYLE: Final = _LEVEL_STYLE | {"info": "cyan"}


class InstanceRow(Struct, frozen=True, kw_only=True):
    """One instance in one symbol. Money is in `currency`."""

    name: str
    plugin: str
    digest: str
    """Of the version that runs; its first characters are shown."""
    state: str
    symbol: str
    bid: Decimal | None
    """Our best resting quotes; None where there is none."""
    ask: Decimal | None
    position: Decimal
    inventory_ratio: float
    """Position / position limit, −1 to 1."""
    realised: Decimal
    unrealised: Decimal
    pnl: Decimal
    """Realised and unrealised, after fees."""
    currency: str
    fills: int


class MarketRow(Struct, frozen=True, kw_only=True):
    """The market of one symbol. `digits` is how many decimals its tick has."""

    symbol: str
    bid: float
    ask: float
    age_ms: float
    digits: int = 2

    @property
    def mid(self) -> float:
        """Return the middle of bid and ask."""
        return (self.bid + self.ask) / 2

    @property
    def spread_bps(self) -> float:
        """Return the spread in basis points of the mid."""
        return (self.ask - self.bid) / self.mid * 1e4 if self.mid else 0.0


class EventLine(Struct, frozen=True):
    """Something that happened. `level` is `info`, `warning` or `error`."""

    ts_ns: int
    level: str
    text: str


class ReloadLine(Struct, frozen=True, kw_only=True):
    """What the latest reload of a plugin is doing or came to. `level` is that of an `EventLine`."""

    plugin: str
    digest: str
    text: str
    """Such as `warm_up passed`, `probation 12 s` or `rolled back: …`."""
    level: str = "info"


class NodeView(Struct, frozen=True, kw_only=True):
    """Everything the view shows, at one moment. Durations in the units that the names say."""

    node: str
    state: str
    epoch: int
    mode: str
    """Such as `live` or `replay ×10`."""
    now_ns: int
    """The node's own time; recorded time in a replay."""
    uptime_s: float
    events: int
    events_per_s: float
    tick_to_order_p50_us: float | None
    """None before the first order."""
    tick_to_order_p99_us: float | None
    open_orders: int
    journal_lsn: int
    store_lag: int | None
    """Journal entries that the store has yet to take; None where it is off."""
    stopped: tuple[str, ...] = ()
    """What a kill switch holds, and why; empty while none is on."""
    instances: tuple[InstanceRow, ...] = ()
    markets: tuple[MarketRow, ...] = ()
    reloads: tuple[ReloadLine, ...] = ()
    """Newest first; as many are shown as fit below the instances."""
    log: tuple[EventLine, ...] = ()
    """Oldest first."""

    @property
    def pnl(self) -> dict[str, Decimal]:
        """Return profit and loss by currency: different moneys are never added up."""
        total: dict[str, Decimal] = {}
        for row in self.instances:
            total[row.currency] = total.get(row.currency, Decimal(0)) + row.pnl
        return total


class TerminalView:
    """Shows the latest `NodeView` until it is left; without a terminal, prints a line now and then."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console()
        self._clock = clock
        self._view: NodeView | None = None
        self._pnl: deque[float] = deque(maxlen=60)
        self._next_line_s = clock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                screen=True,
                refresh_per_second=REFRESH_PER_SECOND,
                get_renderable=self._draw,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, view: NodeView) -> None:
        """Show `view` from now on. Cheap enough for the event loop; call it about four times a second."""
        self._view = view
        self._pnl.append(float(max(view.pnl.values(), key=abs, default=Decimal(0))))
        if self._live is None and self._clock() >= self._next_line_s:
            self._next_line_s = self._clock() + STATUS_EVERY_S
            self._console.print(status_line(view), markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw now, on the caller's thread: for the last picture before a stop."""
        if self._live is not None:
            self._live.refresh()

    def _draw(self) -> RenderableType:
        if self._view is None:
            return Text("starting …", style="dim")
        return render(self._view, self._console.width, self._console.height, tuple(self._pnl))


def status_line(view: NodeView) -> str:
    """Return the whole node on one line."""
    return "  ".join(
        [
            f"{_clock_time(view.now_ns)} {view.node} {view.state}",
            f"up {_duration(view.uptime_s)}",
            f"{view.events_per_s:,.0f} events/s",
            f"tick to order {_latency(view)} µs",
            f"pnl {_pnl_text(view).plain}",
            f"open {view.open_orders}",
            f"fills {sum(row.fills for row in view.instances)}",
            f"journal {view.journal_lsn}",
        ]
    )


def render(view: NodeView, width: int, height: int, history: Sequence[float] = ()) -> RenderableType:
    """Lay `view` out for a screen of this size. `history` is past profit, oldest first."""
    room = height - _HEADER_LINES - _LOG_MIN_LINES
    stacked = 0 if width >= SIDE_BY_SIDE else min(len(view.markets), 3) + _FRAME_LINES
    instances = _visible(len(view.instances), room - _FRAME_LINES - stacked)
    left = room - instances - _FRAME_LINES
    layout = Layout()
    header = Layout(_header(view, width, history), size=_HEADER_LINES)
    upper = Layout(_instances(view, instances, width), size=instances + _FRAME_LINES)
    if width >= SIDE_BY_SIDE:
        lower = Layout()
        markets = _visible(len(view.markets), left + _LOG_MIN_LINES - _FRAME_LINES)
        log = Layout(_log(view, left + _LOG_MIN_LINES - 2, width - width // 2))
        lower.split_row(Layout(_markets(view, markets, width // 2)), log)
        layout.split_column(header, upper, lower)
    else:
        markets = _visible(len(view.markets), left - _FRAME_LINES)
        middle = Layout(_markets(view, markets, width), size=markets + _FRAME_LINES)
        log = Layout(_log(view, left - markets - _FRAME_LINES + _LOG_MIN_LINES - 2, width))
        layout.split_column(header, upper, middle, log)
    return layout


def _visible(rows: int, room: int) -> int:
    """Return how many lines a table of `rows` rows gets; the last one may say how many are left out."""
    return max(1, min(rows, room))


def render_svg(view: NodeView, width: int = 100, height: int = 24, history: Sequence[float] = ()) -> str:
    """Return a picture of the view."""
    console = Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())
    console.print(render(view, width, height, history), height=height)
    return console.export_svg(title=f"tandem · {view.node}")


_HEADER_LINES: Final = 4
_FRAME_LINES: Final = 3
_LOG_MIN_LINES: Final = 5
_READABLE: Final = 16
"""Letters that a shortened name keeps."""


def _header(view: NodeView, width: int, history: Sequence[float]) -> RenderableType:
    state, style = view.state, _STATE_STYLE.get(view.state.partition(" ")[0].rstrip(","), "")
    if view.stopped and state != "halted":
        state, style = f"STOPPED {'; '.join(view.stopped)}", "bold red"
    first = Text.assemble(
        ("● ", style),
        (state, style),
        ("  epoch ", "dim"),
        str(view.epoch),
        ("  up ", "dim"),
        _duration(view.uptime_s),
        ("  ", ""),
        _clock_time(view.now_ns),
        (" UTC", "dim"),
    )
    second = Text.assemble(
        (f"{view.events_per_s:,.0f}", "bold"),
        (" events/s", "dim"),
        ("  tick→order ", "dim"),
        (_latency(view), "bold"),
        (" µs", "dim"),
        ("  orders ", "dim"),
        str(view.open_orders),
        ("  journal ", "dim"),
        f"{view.journal_lsn:,}",
        *(() if view.store_lag is None else ((" lag ", "dim"), f"{view.store_lag:,}")),
    )
    spark = Text(_sparkline(history, min(width - 6 - second.cell_len, 40)), style="cyan")
    lines = Group(_ends(first, Text.assemble(("pnl ", "dim"), _pnl_text(view))), _ends(second, spark))
    title = Text.assemble((f" tandem · {view.node} ", "bold"), (f"{view.mode} ", "dim"))
    return Panel(lines, box=box.ROUNDED, title=title, title_align="left", border_style="blue", padding=(0, 1))


def _ends(left: Text, right: Text) -> Table:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, right)
    return grid


class _Column(Struct):
    """A column of a table. Numbers are never cut; `flexible` text gives way to them."""

    title: str
    cells: list[Text]
    is_number: bool = False
    flexible: bool = False
    optional: int = 0
    """0 is always shown; the others come in this order while there is room."""

    @property
    def width(self) -> int:
        """Return the columns of the screen it would like, padding included."""
        return max(len(self.title), *(cell.cell_len for cell in self.cells), 0) + 2

    @property
    def least(self) -> int:
        """Return the columns of the screen it can live with."""
        return min(self.width, _READABLE + 2) if self.flexible else self.width


def _table(columns: list[_Column], lines: int, width: int, nothing: str) -> Table:
    used = sum(column.least for column in columns if not column.optional)
    shown = {column.title for column in columns if not column.optional}
    for column in sorted((column for column in columns if column.optional), key=lambda c: c.optional):
        used += column.least
        if used <= width:
            shown.add(column.title)
    columns = [column for column in columns if column.title in shown]
    fixed = sum(column.width for column in columns if not column.flexible)
    share = (width - fixed) // max(1, sum(column.flexible for column in columns)) - 2
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if column.flexible else column.width - 2,
            max_width=max(share, 4) if column.flexible and column.width - 2 > share else None,
        )
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for row in rows if len(rows) <= lines else rows[: lines - 1]:
        table.add_row(*row)
    if not rows:
        table.add_row(Text(nothing, style="dim"))
    elif len(rows) > lines:
        table.add_row(Text(f"… {len(rows) - lines + 1} more", style="dim"))
    return table


def _instances(view: NodeView, lines: int, width: int) -> RenderableType:
    rows = view.instances
    columns = [
        _Column("instance", [_named(row) for row in rows], flexible=True),
        _Column("state", [Text(row.state, _style(row)) for row in rows], optional=2),
        _Column("plugin", [Text(row.plugin) for row in rows], flexible=True, optional=4),
        _Column("version", [Text(row.digest[:6], "dim") for row in rows], optional=5),
        _Column("symbol", [Text(row.symbol) for row in rows]),
        _Column("bid", [_price(row.bid) for row in rows], is_number=True),
        _Column("ask", [_price(row.ask) for row in rows], is_number=True),
        _Column("position", [_quantity(row.position) for row in rows], is_number=True),
        _Column("inventory", [_gauge(row.inventory_ratio) for row in rows], optional=3),
        _Column("realised", [_signed(row.realised) for row in rows], is_number=True, optional=6),
        _Column("unrealised", [_signed(row.unrealised) for row in rows], is_number=True, optional=7),
        _Column("pnl", [_signed(row.pnl) for row in rows], is_number=True),
        _Column("fills", [Text(f"{row.fills:,}") for row in rows], is_number=True, optional=1),
    ]
    return _framed(_table(columns, lines, width - 2, "no instance"), "instances", _reloads(view))


def _markets(view: NodeView, lines: int, width: int) -> RenderableType:
    rows = view.markets
    columns = [
        _Column("market", [Text(row.symbol) for row in rows], flexible=True),
        _Column("bid", [Text(f"{row.bid:,.{row.digits}f}") for row in rows], is_number=True),
        _Column(
            "mid",
            [Text(f"{row.mid:,.{row.digits + 1}f}", "bold") for row in rows],
            is_number=True,
            optional=2,
        ),
        _Column("ask", [Text(f"{row.ask:,.{row.digits}f}") for row in rows], is_number=True),
        _Column("spread bps", [Text(f"{row.spread_bps:.2f}") for row in rows], is_number=True, optional=1),
        _Column("age", [_age(row.age_ms) for row in rows], is_number=True),
    ]
    return _framed(_table(columns, lines, width - 2, "no market data"), "markets")


def _framed(body: RenderableType, title: str, below: Text | None = None) -> Panel:
    return Panel(
        body,
        box=box.ROUNDED,
        title=title,
        title_align="left",
        subtitle=below,
        subtitle_align="left",
        border_style="dim",
        padding=0,
    )


def _reloads(view: NodeView) -> Text | None:
    """Return the reloads as one line, which the frame cuts where it ends."""
    if not view.reloads:
        return None
    parts = [
        Text.assemble(
            (line.plugin, "bold"), " ", (line.digest[:6], "dim"), " ", (line.text, _RELOAD_STYLE[line.level])
        )
        for line in view.reloads
    ]
    text = Text("  ·  ").join(parts)
    text.overflow = "ellipsis"
    return text


def _named(row: InstanceRow) -> Text:
    return Text.assemble(("● ", _style(row)), (row.name, "bold"))


def _style(row: InstanceRow) -> str:
    return _STATE_STYLE.get(row.state.partition(",")[0], "")


def _log(view: NodeView, lines: int, width: int) -> RenderableType:
    """Return the newest events that fit: bad news in full, on as many lines as it takes."""
    rows: list[Text] = []
    for line in reversed(view.log):
        if len(rows) >= max(lines, 1):
            break
        style = _LEVEL_STYLE.get(line.level, "")
        parts = [line.text] if line.level == "info" else textwrap.wrap(line.text, max(width - 13, 20))
        first, *others = parts or [""]
        rows += [Text(f"{' ' * 9}{part}", style) for part in reversed(others)]
        rows.append(Text.assemble((_clock_time(line.ts_ns) + " ", "dim"), (first, style)))
    rows = rows[: max(lines, 1)][::-1]
    for row in rows:
        row.no_wrap, row.overflow = True, "ellipsis"
    body: RenderableType = Group(*rows) if rows else Text("nothing yet", style="dim")
    return Panel(
        body, box=box.ROUNDED, title="events", title_align="left", border_style="dim", padding=(0, 1)
    )


# -- figures -------------------------------------------------------------------------------------


def _latency(view: NodeView) -> str:
    if view.tick_to_order_p50_us is None or view.tick_to_order_p99_us is None:
        return "-"
    return f"{view.tick_to_order_p50_us:.0f}/{view.tick_to_order_p99_us:.0f}"


def _pnl_text(view: NodeView) -> Text:
    parts = [Text.assemble(_signed(amount), (f" {currency}", "dim")) for currency, amount in view.pnl.items()]
    return Text("  ").join(parts) if parts else Text("0")


def _signed(amount: Decimal) -> Text:
    return Text(f"{amount:+,.2f}", style="green" if amount > 0 else "red" if amount < 0 else "dim")


def _quantity(qty: Decimal) -> Text:
    shown = f"{qty.normalize():+,f}" if qty else "0"
    return Text(shown, style="" if qty else "dim")


def _price(price: Decimal | None) -> Text:
    return Text("-", style="dim") if price is None else Text(f"{price:,f}")


def _gauge(ratio: float) -> Text:
    """Draw −1 to 1 as a bar to the left or the right of a middle line."""
    half = 4
    filled = min(half, round(abs(ratio) * half + 0.25)) if ratio else 0
    left = "─" * (half - filled) + "█" * filled if ratio < 0 else "─" * half
    right = "█" * filled + "─" * (half - filled) if ratio > 0 else "─" * half
    style = "red" if abs(ratio) > 0.9 else "yellow" if abs(ratio) > 0.6 else "cyan"
    return Text.assemble(
        (left, style if ratio < 0 else "dim"), ("┼", "dim"), (right, style if ratio > 0 else "dim")
    )


def _sparkline(values: Sequence[float], width: int) -> str:
    values = values[-max(width, 0) :]
    if len(values) < 2 or width < 2:
        return ""
    low, high = min(values), max(values)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[round((value - low) / (high - low) * 7) if high > low else 0] for value in values)


def _age(age_ms: float) -> Text:
    shown = f"{age_ms:.0f} ms" if age_ms < 1_000 else f"{age_ms / 1_000:,.1f} s"
    return Text(shown, "bold red" if age_ms > STALE_MS else "dim")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _clock_time(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).strftime("%H:%M:%S")
