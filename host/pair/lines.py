"""The pair without a terminal: a script, and a line for everything that happens."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from host.pair.cell import ActRefused
from host.pair.faults import Planned
from host.pair.pair import Pair

__all__ = ["run_lines"]

LOOK_S: Final = 0.05
AFTERWARDS_S: Final = 1.0
"""For so long orders are watched after the last story has ended."""


async def run_lines(
    pair: Pair,
    script: Sequence[Planned],
    until_s: float | None,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    """Carry out `script` and say what happens.

    Returns at `stop`, and otherwise `until_s` after the pair was ready, or without that when the script is
    done; in any case not before each story has ended. Raises `TandemError` where the pair does not come up.
    """
    teller = _Teller(pair, say)
    starting = asyncio.create_task(pair.start())
    try:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            return
        starting.result()
        await _carry_out(pair, list(script), until_s, stop, teller)
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        teller.tell()


async def _carry_out(
    pair: Pair, script: list[Planned], until_s: float | None, stop: asyncio.Event, teller: "_Teller"
) -> None:
    last_s = until_s if until_s is not None or not script else script[-1].at_s + AFTERWARDS_S
    while not stop.is_set():
        while script and script[0].at_s <= pair.now_s:
            deed = script.pop(0).deed
            try:
                pair.do(deed)
            except ActRefused as error:
                pair.refuse(deed, str(error))
        pair.look()
        teller.tell()
        if pair.has_open_stories and last_s is not None:
            last_s = max(last_s, pair.now_s + AFTERWARDS_S)
        if not script and last_s is not None and pair.now_s >= last_s:
            return
        await asyncio.sleep(LOOK_S)


class _Teller:
    def __init__(self, pair: Pair, say: Callable[[str], None]) -> None:
        self._pair = pair
        self._say = say
        self._told = 0

    def tell(self) -> None:
        for moment in self._pair.moments[self._told :]:
            self._say(f"{moment.at_s:8.2f} s  {moment.text}")
        self._told = len(self._pair.moments)
