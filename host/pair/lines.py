"""The pair without a terminal: a script, and a line for everything that happens."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from host.pair.cell import ActRefused
from host.pair.faults import Planned, Since
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
    reached: dict[Since, float | None] = {Since.START: 0.0, Since.ENDED: 0.0, Since.READY: 0.0}
    busy_s = 0.0
    while not stop.is_set():
        now_s = pair.now_s
        is_calm = not pair.has_open_stories
        for since, is_so in ((Since.ENDED, is_calm), (Since.READY, is_calm and pair.is_whole)):
            # A moment counts from the last time at which it was not so.
            reached[since] = (now_s if reached[since] is None else reached[since]) if is_so else None
        if not is_calm:
            busy_s = now_s
        if script and _is_due(script[0], reached, now_s):
            deed = script.pop(0).deed
            busy_s = now_s
            reached[Since.ENDED] = reached[Since.READY] = None
            try:
                pair.do(deed)
            except ActRefused as error:
                pair.refuse(deed, str(error))
        pair.look()
        teller.tell()
        has_end = until_s is not None or busy_s > 0
        if not script and has_end and is_calm and now_s >= max(busy_s + AFTERWARDS_S, until_s or 0.0):
            return
        await asyncio.sleep(LOOK_S)


def _is_due(step: Planned, reached: dict[Since, float | None], now_s: float) -> bool:
    since_s = reached[step.since]
    return since_s is not None and now_s >= since_s + step.at_s


class _Teller:
    def __init__(self, pair: Pair, say: Callable[[str], None]) -> None:
        self._pair = pair
        self._say = say
        self._told = 0

    def tell(self) -> None:
        for moment in self._pair.moments[self._told :]:
            self._say(f"{moment.at_s:8.2f} s  {moment.text}")
        self._told = len(self._pair.moments)
