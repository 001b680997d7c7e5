"""Closing the positions of a scope: tried with each housekeeping, until they are flat or cannot be.

Which scopes are being flattened is part of the journaled state, so a restart goes on with it. A
position is closed by its own instance, once no order of the scope is in the way. What the
venue keeps refusing, or is too small for an order, is left, and an alert says so.
"""

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from host.api import Order
from host.core import entries as e
from host.core.channel import Channel
from host.runtime.scope import is_in_scope

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Flattening", "OpenPosition"]

MOST_REFUSALS: Final = 5
"""After so many closing orders in a row that traded nothing, a position is left as it is."""


class OpenPosition(Struct, frozen=True):
    """A position of a scope: whose, and in what."""

    instance: str
    account: str
    symbol: str


class _Closing(Struct):
    """The latest order that closes one position, and how many in a row came to nothing."""

    client_id: str = ""
    refusals: int = 0


class Flattening:
    """Works on every scope of `TradingState.flattening`; each method is called within a turn."""

    def __init__(self, engine: "Engine") -> None:
        self._engine: Final = engine
        self._closing: dict[OpenPosition, _Closing] = {}

    def begin(self, scope: str, reason: str, by: str = "") -> None:
        """Close the positions of a scope, now and from here on until none is left."""
        engine = self._engine
        engine.record(e.FlattenSet(scope, True, reason, by), engine.now_ns)
        for position in self.positions(scope):
            self._closing.pop(position, None)
        self._work_on(scope, engine.now_ns)

    def end(self, scope: str, reason: str, by: str = "") -> None:
        """Close no more positions of a scope."""
        self._engine.record(e.FlattenSet(scope, False, reason, by), self._engine.now_ns)

    def go_on(self, now_ns: int) -> None:
        """Send what closes the positions still open; orders under way are waited for."""
        for scope in sorted(self._engine.state.flattening):
            self._work_on(scope, now_ns)

    def positions(self, scope: str) -> list[OpenPosition]:
        """Return the positions of a scope that are not flat."""
        state = self._engine.state
        return [
            OpenPosition(name, record.account, symbol)
            for name, by_symbol in state.holdings.items()
            if (record := state.instances.get(name)) is not None
            for symbol, holding in by_symbol.items()
            if holding.qty and is_in_scope(scope, record.account, name, symbol)
        ]

    def _work_on(self, scope: str, now_ns: int) -> None:
        left: list[str] = []
        is_over = True
        # Every one is worked on, also where the first is not flat yet.
        for position in self.positions(scope):
            why = self._close(position, now_ns)
            if why:
                left.append(why)
            else:
                is_over = False
        if not is_over or self._may_still_trade(scope):
            return
        if left:
            text = f"{scope} is not flat: {'; '.join(left)}; close what is left by hand"
            self._engine.record_alert("not_flat", text)
        self.end(scope, "; ".join(left) or "flat")

    def _may_still_trade(self, scope: str) -> bool:
        """Return whether a stopped scope has orders that are not proved over: one may fill yet.

        A scope that is not stopped goes on quoting: it is flat when it is flat at one moment.
        """
        engine = self._engine
        return scope in engine.state.kill_switches and any(
            order.account in engine.feeds and is_in_scope(scope, order.account, order.instance, order.symbol)
            for order in engine.state.orders.values()
        )

    def _close(self, position: OpenPosition, now_ns: int) -> str:
        """Take the next step towards flat; return why there is none."""
        engine = self._engine
        feed = engine.feeds.get(position.account)
        if feed is None:
            return f"{_title(position)}: account {position.account} is not connected"
        if not feed.is_settled or not engine.gate.permit(now_ns):
            return ""  # it is tried again when the account is in touch and the gate open
        closing = self._closing.setdefault(position, _Closing())
        order = self._order(closing.client_id)
        if order is not None and not order.status.is_terminal:
            return ""
        if order is not None:
            closing.refusals = 0 if order.filled else closing.refusals + 1
            if closing.refusals >= MOST_REFUSALS:
                return (
                    f"{_title(position)}: {closing.refusals} orders in a row traded nothing, {order.reason}"
                )
        channel = self._channel(position)
        sent = engine.oms.close_position(channel, now_ns)
        if sent is not None:
            closing.client_id = sent.client_id
            return ""
        qty, instrument = channel.risk.position, channel.instrument
        least = max(instrument.lot_size, instrument.min_qty)
        if abs(qty) < least:
            return f"{_title(position)}: {qty} is less than the venue's smallest order {least}"
        return ""  # orders that would close it are still open: they are waited for

    def _order(self, client_id: str) -> Order | None:
        state = self._engine.state
        return state.orders.get(client_id) or state.retired.get(client_id)

    def _channel(self, position: OpenPosition) -> Channel:
        """Return the channel to close through, also of an instance that does not run any more."""
        engine = self._engine
        channel = engine.oms.channel(position.instance, position.symbol)
        if channel is None:
            number = engine.state.instances[position.instance].number
            ids = engine.roster.ids_of(position.instance, number)
            channel = engine.oms.open_channel(position.instance, position.account, position.symbol, ids, 0.0)
        return channel


def _title(position: OpenPosition) -> str:
    return f"{position.instance} in {position.symbol}"
