"""The screen of a pair: what it shows, and how that is laid out from 80×24 on."""

import io
import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from rich import box
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from host.pair.pair import Moment

__all__ = ["NodePane", "PairView", "VenuePane", "log_lines", "render", "render_svg"]

BAR: Final = 12
NODE_LINES: Final = 7
"""Of a node's panel, without its last events."""
WIDE: Final = 120
"""From this width on, venue and timeline stand beside each other."""

_LEVEL: Final = {"info": "", "good": "green", "bad": "bold red"}
_CONDITION: Final = {
    "leads": ("●", "bold green"),
    "stands by": ("○", "cyan"),
    "starting": ("◌", "yellow"),
    "takes over": ("◐", "yellow"),
    "lapsed": ("◒", "yellow"),
    "no answer": ("?", "yellow"),
    "frozen": ("❄", "bold blue"),
    "gone": ("✗", "bold red"),
}

HELP: Final = (
    ("1 2 3", "choose the node that the other keys act on"),
    ("k", "kill -9 of the node; its guardian gives up the lease and starts it again"),
    ("K", "kill -9 of node and guardian: the machine is lost, its lease runs out"),
    ("f  u", "freeze it (SIGSTOP of node and guardian); thaw it"),
    ("c", "cut a link: then s store, p peers, v venue; a capital letter resets connections instead"),
    ("h", "heal all its links"),
    ("s", "planned switchover: to the chosen node, or from it to the best standby"),
    ("r", "restart a lost node"),
    ("q", "stop all in order and print what happened"),
)


class NodePane(Struct, frozen=True, kw_only=True):
    """One node, at one moment."""

    name: str
    condition: str
    """One of `leads`, `stands by`, `starting`, `takes over`, `lapsed`, `no answer`, `frozen`, `gone`."""
    epoch: int
    right_left_ms: float
    ttl_ms: float
    lag: int | None
    """Of a standby, by its leader's word; None where nobody says."""
    round_trip_ms: float | None
    why_not: str
    """Of a standby: why it could not take over; empty when it could."""
    orders: int
    fills: int
    open_orders: int
    positions: dict[str, str]
    instances: dict[str, int]
    cuts: tuple[str, ...]
    """Links that are not open, in words."""
    takeover: str
    log: tuple[str, ...]
    """The latest lines that it has said, oldest first."""


class VenuePane(Struct, frozen=True, kw_only=True):
    """What the venue's log says."""

    resting: dict[int, int]
    """Live orders by the epoch that placed them."""
    accepted: int
    fills: int
    refused: dict[str, int]
    last_switch: str
    """The latest change of leader and the time without an order; empty before the first."""
    lost: int
    doubled: int
    stale: int
    positions: dict[str, str]


class PairView(Struct, frozen=True, kw_only=True):
    """Everything that the screen shows, at one moment."""

    at_s: float
    phase: str
    """What is waited for; empty once the pair is ready."""
    setting: str
    """Such as `ttl 600 ms · durability process`."""
    folder: str
    nodes: tuple[NodePane, ...]
    venue: VenuePane
    moments: tuple[Moment, ...]
    """Oldest first."""
    chosen: int = 0
    prompt: str = ""
    """Instead of the list of keys: what is asked, or why something was refused."""
    shows_help: bool = False


def render(view: PairView, width: int, height: int) -> RenderableType:
    """Lay `view` out for a screen of this size."""
    layout = Layout()
    spare = height - 2 - (NODE_LINES + 2) - (_VENUE_LINES + 2) - 5
    log = max(0, min(5, spare))
    panes = Layout(name="nodes", size=NODE_LINES + 2 + log)
    share = width // max(len(view.nodes), 1)
    panes.split_row(
        *(
            Layout(_node(pane, share - 4, log, is_chosen=index == view.chosen))
            for index, pane in enumerate(view.nodes)
        )
    )
    below = Layout(name="below")
    left = height - 2 - (NODE_LINES + 2 + log)
    if view.shows_help:
        below.update(_help())
    elif width >= WIDE:
        half = width // 2
        below.split_row(
            Layout(_timeline(view, left - 2, width - half - 4)),
            Layout(_venue(view.venue, half - 4), size=half),
        )
    else:
        below.split_column(
            Layout(_venue(view.venue, width - 4), size=_VENUE_LINES + 2),
            Layout(_timeline(view, left - _VENUE_LINES - 4, width - 4)),
        )
    layout.split_column(
        Layout(_header(view, width), size=1), panes, below, Layout(_footer(view, width), size=1)
    )
    return layout


def render_svg(view: PairView, width: int = 100, height: int = 30) -> str:
    """Return a picture of the view."""
    console = Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())
    console.print(render(view, width, height), height=height)
    return console.export_svg(title="tandem pair")


_VENUE_LINES: Final = 4
_ROOMY: Final = 92
_KEYS: Final = (
    "k kill", "K lose", "f freeze", "u thaw", "c cut", "h heal", "s switch", "r restart", "? help", "q quit"
)  # fmt: skip


def _header(view: PairView, width: int) -> Text:
    minutes, seconds = divmod(max(view.at_s, 0.0), 60)
    line = Text.assemble(
        (" tandem pair ", "bold reverse"),
        ("  ", ""),
        (view.phase, "yellow") if view.phase else (f"{minutes:.0f}:{seconds:04.1f}", "bold"),
        (f"  {view.setting}  ", ""),
        (view.folder, "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    line.truncate(width, overflow="ellipsis")
    return line


def _footer(view: PairView, width: int) -> Text:
    if view.prompt:
        text = Text(f" {view.prompt}", style="yellow")
    else:
        gap = "  " if width >= _ROOMY else " "
        keys = gap.join(_KEYS)
        name = view.nodes[view.chosen].name if view.nodes else ""
        text = Text.assemble((f" {name} ", "bold reverse"), f" {keys}")
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis")
    return text


def _node(pane: NodePane, width: int, log: int, *, is_chosen: bool) -> Panel:
    mark, style = _CONDITION[pane.condition]
    first = Text.assemble(
        (f"{mark} {pane.condition}", style), ("  epoch ", "dim"), str(pane.epoch) if pane.epoch else "-"
    )
    lines = [first, _standing(pane, width)]
    lines.append(
        Text.assemble(
            ("orders ", "dim"), f"{pane.orders:,}", ("  fills ", "dim"), f"{pane.fills:,}",
            ("  open ", "dim"), str(pane.open_orders),
        )
    )  # fmt: skip
    lines.append(Text.assemble(("position ", "dim"), _positions(pane.positions)))
    states = "  ".join(f"{count} {state.lower()}" for state, count in sorted(pane.instances.items()))
    lines.append(Text.assemble(("instances ", "dim"), states or "-"))
    if pane.cuts:
        lines.append(Text.assemble(("links ", "dim"), (", ".join(pane.cuts), "bold red")))
    else:
        lines.append(Text.assemble(("links ", "dim"), "store, peers, venue open"))
    lines.append(Text.assemble(("takeover ", "dim"), pane.takeover or "-"))
    lines += [Text(line, style="dim") for line in pane.log[-log:]] if log else []
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Panel(
        Group(*lines),
        box=box.HEAVY if is_chosen else box.ROUNDED,
        title=f"[bold]{pane.name}[/]",
        title_align="left",
        border_style="bold white" if is_chosen else style,
        padding=(0, 1),
    )


def _standing(pane: NodePane, width: int) -> Text:
    """Return a leader's right to trade as a bar, or how near a standby is."""
    if pane.condition == "leads":
        share = min(pane.right_left_ms / pane.ttl_ms, 1.0) if pane.ttl_ms else 0.0
        bar = max(4, min(BAR, width - 20))
        full = round(share * bar)
        style = "green" if share > 0.5 else "yellow" if share > 0.2 else "bold red"
        return Text.assemble(
            ("right ", "dim"),
            ("█" * full, style),
            ("░" * (bar - full), "dim"),
            f" {pane.right_left_ms:,.0f} ms",
        )
    if pane.condition == "lapsed":
        return Text("its right is over: it sends nothing", style="yellow")
    if pane.condition != "stands by":
        return Text("-", style="dim")
    if pane.lag is None:
        return Text(pane.why_not or "its leader does not hear of it", style="yellow")
    trip = "-" if pane.round_trip_ms is None else f"{pane.round_trip_ms:.1f} ms"
    text = Text.assemble(("lag ", "dim"), str(pane.lag), ("  trip ", "dim"), trip)
    if pane.why_not:
        return Text.assemble(text, "  ", (pane.why_not, "yellow"))
    return Text.assemble(text, "  ", ("ready to lead", "green"))


def _venue(venue: VenuePane, width: int) -> Panel:
    resting = "  ".join(f"{count} of epoch {epoch}" for epoch, count in venue.resting.items())
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(venue.refused.items()))
    wrong = venue.lost + venue.doubled + venue.stale
    verdict_style = "bold red" if wrong else "bold green"
    verdict = f"{venue.lost} lost, {venue.doubled} doubled, {venue.stale} stale"
    lines = [
        Text.assemble(("resting ", "dim"), resting or "none"),
        Text.assemble(
            ("accepted ", "dim"), f"{venue.accepted:,}", ("  fills ", "dim"), f"{venue.fills:,}",
            ("  position ", "dim"), _positions(venue.positions),
        ),
        Text.assemble(("last switch ", "dim"), venue.last_switch or "none yet"),
        Text.assemble(
            ("orders ", "dim"), (verdict, verdict_style), ("  refused ", "dim"), refused or "none"
        ),
    ]  # fmt: skip
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    title = "the venue's log"
    return Panel(
        Group(*lines), box=box.ROUNDED, title=title, title_align="left", border_style="blue", padding=(0, 1)
    )


def _timeline(view: PairView, lines: int, width: int) -> Panel:
    shown: list[Text] = []
    for moment in reversed(view.moments):
        text = Text.assemble((f"{_stamp(moment.at_s)} ", "dim"), (moment.text, _LEVEL[moment.level]))
        wrapped = text.wrap(Console(width=width), width)
        for index in range(1, len(wrapped)):
            wrapped[index].pad_left(len(_stamp(moment.at_s)) + 1)
            wrapped[index].truncate(width)
        shown = [*wrapped, *shown]
        if len(shown) >= lines:
            break
    return Panel(
        Group(*shown[-max(lines, 1) :]),
        box=box.ROUNDED,
        title="what happened",
        title_align="left",
        border_style="blue",
        padding=(0, 1),
    )


def _help() -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for keys, text in HELP:
        table.add_row(keys, text)
    return Panel(
        table,
        box=box.ROUNDED,
        title="keys · any key goes on",
        title_align="left",
        border_style="blue",
        padding=(0, 1),
    )


def _positions(positions: dict[str, str]) -> str:
    return (
        "  ".join(f"{symbol.partition('-')[0]} {_short(qty)}" for symbol, qty in sorted(positions.items()))
        or "flat"
    )


def _short(qty: str) -> str:
    return qty.rstrip("0").rstrip(".") if "." in qty else qty


def _stamp(at_s: float) -> str:
    return f"{at_s:6.1f}"


_LINE: Final = re.compile(r"\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d),\d+ \w+ +tandem\.[\w.]+: (.*)")


def log_lines(said: str, most: int) -> tuple[str, ...]:
    """Return the latest lines of a node's output, without the date and the logger's name."""
    lines: Sequence[str] = [line for line in said.splitlines() if line.strip()]
    return tuple(_LINE.sub(r"\1 \2", line) for line in lines[-most:])
