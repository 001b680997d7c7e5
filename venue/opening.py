"""Open an exchange with its markets: the synthetic ones, or one that a recording plays."""

from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct

from host.api import Instrument
from venue.catalog import INSTRUMENTS, synthetic_market
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.ledger import Ledger
from venue.recording import Recording
from venue.replay_market import ReplayMarket
from venue.running import RunningExchange

__all__ = ["OpenVenue", "open_venue", "opening_balances"]

DEFAULT_BALANCE: Final = {"USDT": Decimal(1_000_000)}
OTHER_BALANCE: Final = Decimal(1_000)
"""What a new account gets of every other listed currency."""


class OpenVenue(Struct, frozen=True):
    """An exchange that is ready to run, and what was opened for it."""

    running: RunningExchange
    ledger: Ledger | None
    is_recorded: bool
    """Whether a recording plays: its depth messages are passed on one by one."""

    def close(self) -> None:
        """Close the log."""
        if self.ledger is not None:
            self.ledger.close()


def open_venue(
    *, seed: int = 1, log: Path | None = None, replay: Path | None = None, speed: float = 1.0
) -> OpenVenue:
    """Open the synthetic market, or a recording from its start at `speed` times its own pace.

    With `log`, accounts come back from it after a restart. Raises `LedgerError` and
    `RecordingError`.
    """
    recording = None if replay is None else Recording.open(replay)
    clock = VenueClock(None if recording is None else recording.first_ns, speed)
    instruments = list(INSTRUMENTS.values()) if recording is None else [recording.instrument]
    ledger = None if log is None else Ledger(log)
    exchange = Exchange(seed=seed, ledger=ledger)
    for instrument in instruments:
        exchange.list_instrument(instrument)
    exchange.restore(clock.now_ns())
    if recording is not None:
        exchange.add_market(ReplayMarket(recording))
    else:
        for instrument in instruments:
            last_price = exchange.last_price(instrument.symbol)
            exchange.add_market(synthetic_market(instrument, seed, clock.now_ns(), last_price))
    return OpenVenue(RunningExchange(exchange, clock), ledger, recording is not None)


def opening_balances(instruments: tuple[Instrument, ...]) -> dict[str, Decimal]:
    """Return what an account gets that the house protocol opens."""
    currencies = sorted({c for instrument in instruments for c in (instrument.base, instrument.quote)})
    return {currency: DEFAULT_BALANCE.get(currency, OTHER_BALANCE) for currency in currencies}
