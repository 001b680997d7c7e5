"""The venue's clock as seen from here, with a bound on how wrong we may be about it.

A request carries the time until which the venue may accept it. That time is the venue's, so a
deadline of the host's is translated, and shortened by what the translation may be wrong by: a
request whose window is over here is then over there too. The host's clock runs on a monotonic one,
so an offset, once measured, only ages.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from host.api import ExchangeError

__all__ = ["ClockUnsure", "VenueClock", "Window"]

DRIFT_PPM: Final = 100
"""How far two clocks may drift apart, in millionths: crystals are specified at 20 to 100."""
_MS: Final = 1_000_000


class ClockUnsure(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """The venue's time is not known well enough to give a request a window; nothing was sent."""


class Window(Struct, frozen=True, gc=False):
    """From when and until when the venue may accept a request, in its own milliseconds."""

    sent_ms: int
    last_ms: int

    @property
    def width_ms(self) -> int:
        """How long the venue may take, counted from `sent_ms` (Binance `recvWindow`, Bybit `recv_window`)."""
        return self.last_ms - self.sent_ms


class VenueClock:
    """Translates host time into the venue's.

    `now_ns` is the host's clock; while the error may be more than `most_error_ns`, `window` refuses.
    """

    def __init__(self, exchange: str, now_ns: Callable[[], int], most_error_ns: int) -> None:
        self._exchange: Final = exchange
        self._now_ns: Final = now_ns
        self._most_error_ns: Final = most_error_ns
        self._offset_ns = 0
        self._error_ns = -1
        self._measured_ns = 0
        self._wanted = asyncio.Event()

    # -- measuring -------------------------------------------------------------------------------

    def measured(self, sent_ns: int, received_ns: int, venue_ns: int, resolution_ns: int = _MS) -> None:
        """Take in that the venue said `venue_ns`, rounded down to `resolution_ns`, in between.

        The venue read its clock somewhere between our sending and receiving: in the middle, give or
        take half the round trip. A measurement less exact than what is known by now is not used, unless
        both cannot be true: then one of the clocks was set, and the newer one holds.
        """
        error_ns = (received_ns - sent_ns + resolution_ns) // 2 + 1
        offset_ns = venue_ns + resolution_ns // 2 - (sent_ns + received_ns) // 2
        known_ns = self.error_ns(received_ns)
        if 0 <= known_ns < error_ns and abs(offset_ns - self._offset_ns) <= known_ns + error_ns:
            return
        self._offset_ns = offset_ns
        self._error_ns = error_ns
        self._measured_ns = received_ns

    def doubt(self) -> None:
        """Forget what was measured and have it measured again: the venue refused our timestamp."""
        self._error_ns = -1
        self._wanted.set()

    async def keep(self, ask: Callable[[], Awaitable[int]], every_s: float, again_s: float = 1.0) -> None:
        """Measure now and then, for ever: at once when in doubt, else each `every_s` seconds.

        `ask` returns the venue's time in nanoseconds; when it raises `ExchangeError` it is asked again
        `again_s` later.
        """
        while True:
            try:
                await self.measure(ask)
                pause_s = every_s if self._is_sure(self._now_ns()) else again_s
            except ExchangeError:
                pause_s = again_s  # what the venue does not tell makes our error grow, and `window` refuse
            self._wanted.clear()
            try:
                await asyncio.wait_for(self._wanted.wait(), pause_s)
            except TimeoutError:
                continue

    async def measure(self, ask: Callable[[], Awaitable[int]]) -> None:
        """Ask once, and take in the answer; raise what `ask` raises."""
        sent_ns = self._now_ns()
        venue_ns = await ask()
        self.measured(sent_ns, self._now_ns(), venue_ns)

    # -- using -----------------------------------------------------------------------------------

    def error_ns(self, now_ns: int) -> int:
        """Return how far off `time_ns` may be; -1 when nothing is known."""
        if self._error_ns < 0:
            return -1
        return self._error_ns + (now_ns - self._measured_ns) * DRIFT_PPM // 1_000_000

    def time_ns(self, now_ns: int) -> int:
        """Return the most likely time at the venue when it is `now_ns` here."""
        return now_ns + self._offset_ns

    def window(self, deadline_ns: int) -> Window:
        """Return the window of a request sent now that must not take effect after `deadline_ns`.

        Raises `ClockUnsure` when the venue's time is not known well enough, or nothing is left of the
        window.
        """
        now_ns = self._now_ns()
        error_ns = self.error_ns(now_ns)
        if not 0 <= error_ns <= self._most_error_ns:
            known = "is not known" if error_ns < 0 else f"may be off by {error_ns / _MS:.0f} ms"
            raise ClockUnsure(
                f"{self._exchange}: the venue's clock {known}, at most {self._most_error_ns / _MS:.0f} ms "
                "are allowed; nothing was sent, and the clock is being measured"
            )
        sent_ms = (now_ns + self._offset_ns) // _MS
        last_ms = (deadline_ns + self._offset_ns - error_ns) // _MS
        if last_ms <= sent_ms:
            raise ClockUnsure(
                f"{self._exchange}: {(deadline_ns - now_ns) / _MS:.0f} ms are left to the deadline, but the "
                f"venue's clock may be off by {error_ns / _MS:.0f} ms; nothing was sent"
            )
        return Window(sent_ms, last_ms)

    def loose_window(self, width_ms: int) -> Window:
        """Return a window for what can do no harm late (queries), by the best guess of the venue's time."""
        sent_ms = (self._now_ns() + self._offset_ns) // _MS
        return Window(sent_ms, sent_ms + width_ms)

    def _is_sure(self, now_ns: int) -> bool:
        return 0 <= self.error_ns(now_ns) <= self._most_error_ns
