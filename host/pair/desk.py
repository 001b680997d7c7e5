"""The pair at a terminal: keys in, pictures out."""

import asyncio
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from host.pair.cell import ActRefused
from host.pair.faults import Act, Deed, LinkKind
from host.pair.keys import keys_of
from host.pair.pair import Pair
from host.pair.screen import PairView, render
from host.pair.viewing import make_view

__all__ = ["Desk", "run_desk"]

REFRESH_PER_SECOND: Final = 5
LOOK_S: Final = 0.1

_ACTS: Final = {
    "k": Act.KILL,
    "K": Act.LOSE,
    "f": Act.FREEZE,
    "u": Act.THAW,
    "h": Act.HEAL,
    "s": Act.SWITCHOVER,
    "r": Act.RESTART,
}
_LINKS: Final = {"s": LinkKind.STORE, "p": LinkKind.PEERS, "v": LinkKind.VENUE}
_WHICH_LINK: Final = "cut {name} off from: s store  p peers  v venue   (S P V: reset connections instead)"


class Desk:
    """What the keys do to a pair. `view` is the picture of now."""

    def __init__(self, pair: Pair) -> None:
        self.quits: Final = asyncio.Event()
        self._pair: Final = pair
        self._chosen = 0
        self._asks_link = False
        self._shows_help = False
        self._refusal = ""
        """Why the latest key did nothing; it stands there until the next one."""

    def on_key(self, key: str) -> None:
        """Do what a key stands for; a key that stands for nothing does nothing."""
        names = self._pair.plan.names
        self._refusal = ""
        if self._shows_help:
            self._shows_help = False
        elif self._asks_link:
            self._asks_link = False
            if key.lower() in _LINKS:
                act = Act.CUT if key.islower() else Act.REFUSE
                self._do(Deed(act, names[self._chosen], _LINKS[key.lower()]))
        elif key == "q":
            self.quits.set()
        elif key == "?":
            self._shows_help = True
        elif key.isdigit() and 0 < int(key) <= len(names):
            self._chosen = int(key) - 1
        elif key == "c":
            self._asks_link = True
        elif key in _ACTS:
            self._do(Deed(_ACTS[key], names[self._chosen]))

    def view(self) -> PairView:
        """Return the picture of now."""
        name = self._pair.plan.names[self._chosen]
        prompt = _WHICH_LINK.format(name=name) if self._asks_link else self._refusal
        return make_view(self._pair, chosen=self._chosen, prompt=prompt, shows_help=self._shows_help)

    def _do(self, deed: Deed) -> None:
        try:
            if self._pair.phase:
                raise ActRefused("the pair is not ready yet")
            self._pair.do(deed)
        except ActRefused as error:
            self._refusal = str(error)


async def run_desk(pair: Pair, console: Console, fd: int, until_s: float | None, stop: asyncio.Event) -> None:
    """Show the pair on `console` and take keys from the terminal `fd`, until `q`, `stop` or `until_s` after ready.

    Raises `TandemError` where the pair does not come up.
    """
    desk = Desk(pair)
    view = desk.view()

    def draw() -> RenderableType:
        return render(view, console.width, console.height)

    starting = asyncio.create_task(pair.start())
    live = Live(console=console, screen=True, refresh_per_second=REFRESH_PER_SECOND, get_renderable=draw)
    try:
        with keys_of(fd, desk.on_key), live:
            while not (desk.quits.is_set() or stop.is_set()):
                if starting.done():
                    starting.result()
                    pair.look()
                    if until_s is not None and pair.now_s > until_s and not pair.has_open_stories:
                        break
                view = desk.view()
                await asyncio.sleep(LOOK_S)
    finally:
        starting.cancel()
        await asyncio.wait([starting])
    console.print(Text("stopping …", style="dim"))
