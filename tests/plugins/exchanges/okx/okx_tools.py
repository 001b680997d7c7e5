"""What the tests of the OKX adapter share: listings, and vectors with holes filled in."""

import json
from decimal import Decimal
from typing import Any

from host.api import Instrument, InstrumentKind
from plugins.exchanges.okx.products import Listing, Listings

PLACEHOLDER_VALUES = {
    "instId": "BTC-USDT",
    "ordId": "1",
    "clOrdId": "c1",
    "side": "buy",
    "px": "10",
    "sz": "2",
    "fillSz": "2",
    "avgPx": "10",
    "sCode": "0",
    "code": "51000",
    "msg": "no",
    "uid": "1",
    "lever": "5",
    "notionalUsd": "20",
    "posSide": "long",
    "upl": "1",
}
"""What stands in for the `<expression>` holes of a vector that was taken from a test's source."""


def filled_in(message: Any, key: str = "") -> Any:
    """Return a vector's message with its holes filled."""
    if isinstance(message, dict):
        return {name: filled_in(value, name) for name, value in message.items()}
    if isinstance(message, list):
        return [filled_in(value, key) for value in message]
    if isinstance(message, str) and message.startswith("<"):
        return PLACEHOLDER_VALUES.get(key, "1")
    return message


def frame_of(message: Any) -> bytes:
    """Return a message as the bytes of a frame, its keys in their order."""
    return json.dumps(filled_in(message), separators=(",", ":")).encode()


def listing(inst_id: str, *, unit: str = "0.01", code: int | None = 7, tick: str = "0.1") -> Listing:
    """List an instrument as its name says; a linear contract is worth `unit` of the base coin."""
    base, quote, *rest = inst_id.split("-")
    perpetual = InstrumentKind.INVERSE if quote == "USD" else InstrumentKind.LINEAR
    kind = perpetual if rest else InstrumentKind.SPOT
    suffix = "-PERP" if rest else ""
    per_contract = Decimal(unit) if kind is InstrumentKind.LINEAR else Decimal(1)
    instrument = Instrument(
        symbol=f"{base}-{quote}{suffix}",
        kind=kind,
        base=base,
        quote=quote,
        tick_size=Decimal(tick),
        lot_size=Decimal("0.00000001"),
        contract_size=Decimal(100) if kind is InstrumentKind.INVERSE else Decimal(1),
    )
    return Listing("SWAP" if rest else "SPOT", inst_id, instrument, per_contract, code)


def listings(*inst_ids: str) -> Listings:
    """List instruments as their names say."""
    table = Listings()
    table.replace(listing(inst_id) for inst_id in inst_ids)
    return table
