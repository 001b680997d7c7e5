"""Takes over what a venue lists while a node trades: other ticks, lots and limits, symbols that trade no more."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from host.api import Instrument
from host.core import entries as e
from host.runtime.declared import check_declared
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["is_gone", "relist"]

_CONTRACT: Final = ("kind", "base", "quote", "contract_size")
"""What a position is a position in: with another one of these, its money would be counted wrongly."""


def relist(engine: "Engine", account: str, instruments: Sequence[Instrument]) -> None:
    """Have every symbol that was ever used on an account go by the venue's list from here on.

    What changed is journaled, and alerted. Resting quotes are rounded to the new grid. A symbol that is missing,
    or has become another contract under its old name, takes no orders until it is listed again, and its quotes
    are pulled. A standby remembers the list and leaves the rest to its primary.

    Raises `NotAsDeclared` for terms that could be journaled and not be read again; nothing has changed then.
    """
    listed = {instrument.symbol: instrument for instrument in instruments}
    for symbol in engine.state.instruments.get(account, {}).keys() & listed.keys():
        check_declared(listed[symbol], (Instrument,))
    engine.feeds[account].listed = listed
    if engine.is_following or engine.halted:
        return
    engine.begin_turn(engine.clock.now_ns())
    changed: dict[str, Instrument] = {}
    for symbol, known in list(engine.state.instruments.get(account, {}).items()):
        found = listed.get(symbol)
        kind, text = "", ""
        if found is None or is_gone(known, found):
            if known.is_trading:
                kind, text = _gone(known, found)
            found = msgspec.structs.replace(known, is_trading=False)
        elif found != known:
            kind, text = _changed(known, found)
        if found == known:
            continue
        engine.record(e.InstrumentSet(account, found), engine.now_ns)
        engine.oms.take_instrument(account, found, engine.now_ns)
        changed[symbol] = found
        if kind:
            engine.record_alert(kind, f"account {account}: {text}")
    _tell(engine, account, changed)
    engine.end_turn(engine.now_ns, 0)


def _tell(engine: "Engine", account: str, changed: Mapping[str, Instrument]) -> None:
    """Tell strategies in other processes; one in this process asks when it wants to know."""
    for instance in engine.roster.instances.values():
        if instance.account == account and isinstance(instance.strategy, RemoteStrategy):
            theirs = [changed[symbol] for symbol in instance.symbols if symbol in changed]
            if theirs:
                instance.strategy.relisted(theirs)


def is_gone(known: Instrument, found: Instrument | None) -> bool:
    """Return whether a symbol is listed no more, or as another contract under its old name."""
    return found is None or _contract(found) != _contract(known)


def _contract(instrument: Instrument) -> tuple[object, ...]:
    return tuple(getattr(instrument, name) for name in _CONTRACT)


def _gone(known: Instrument, found: Instrument | None) -> tuple[str, str]:
    if found is None:
        return "instrument_gone", f"{known.symbol} is not traded at the venue any more; its quotes are pulled"
    terms = ", ".join(
        f"{name} was {getattr(known, name)} and is {getattr(found, name)}"
        for name in _CONTRACT
        if getattr(known, name) != getattr(found, name)
    )
    text = f"{known.symbol} is another contract now: {terms}; its quotes are pulled, close what is held of the old one"
    return "instrument_gone", text


def _changed(known: Instrument, found: Instrument) -> tuple[str, str]:
    terms = ", ".join(
        f"{name} was {getattr(known, name)} and is {getattr(found, name)}"
        for name in Instrument.__struct_fields__
        if name != "is_trading" and getattr(known, name) != getattr(found, name)
    )
    if not known.is_trading:
        return "instrument_back", f"{known.symbol} is traded again" + (f"; {terms}" if terms else "")
    return "instrument_changed", f"{known.symbol}: {terms}"
