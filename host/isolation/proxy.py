"""The class that stands in an instance for a plugin's class that runs in a worker."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from host.api import BookTop, Candle, Depth, Fill, Instrument, Order, Params, Strategy, Ticker, Trade
from host.core.entries import InstanceState
from host.isolation.outlet import Item
from host.isolation.session import Session
from host.runtime.instance import Instance
from host.runtime.reload.revision import RevisionFailed
from host.runtime.reload.uses import Revision
from host.runtime.reload.version_change import VersionChange
from host.runtime.remote import RemoteStatus, RemoteStrategy
from host.wire.messages import Instruments, TimerEvent

if TYPE_CHECKING:
    from host.isolation.supervised import Worker

__all__ = ["Proxy", "proxy_class"]

_log = logging.getLogger("tandem.clients")


class Proxy(RemoteStrategy):
    """Passes an instance's callbacks on to its session, while there is one.

    `on_moved` is told each state that the instance reaches: by it the worker is started and ended. Whoever looks
    after the other side sets it, and what else is asked of that.
    """

    session: Session | None = None
    worker: "Worker | None" = None
    """Whose process the strategy runs in; None where that is a program of its own."""

    def __init__(self, params: Params, last_item: Callable[[Any], Item]) -> None:
        super().__init__(params)
        self.takes_over = False
        self.on_moved: Callable[[InstanceState], None] = lambda _state: None
        self.get_status: Callable[[], RemoteStatus] = lambda: RemoteStatus(state="ended")
        self.get_revision: Callable[[VersionChange], Revision] = _no_revision
        self.last_item: Final = last_item
        self.readable_as = self.params_type
        """The parameters that whoever is attached can read: those of the class when it was let in."""

    @property
    def instance(self) -> Instance:
        """Return the instance that it stands in."""
        assert isinstance(self.ctx, Instance)
        return self.ctx

    def revision(self, change: VersionChange) -> Revision:
        """Return what takes the instance to another version."""
        return self.get_revision(change)

    # -- what the roster asks --------------------------------------------------------------------

    def status(self) -> RemoteStatus:
        """Return how things are with the worker."""
        return self.get_status()

    @property
    def is_there(self) -> bool:
        """Return whether a strategy is in, and so hears."""
        return self.session is not None and self.session.outlet is not None

    def restore(self, version: int, data: bytes) -> None:
        """Keep a saved state: the worker is given it with its `welcome`."""
        self.state = msgspec.Raw(data)

    def tell(self) -> None:
        """Let what was reported out."""
        if self.session is not None:
            self.session.tell()

    def ask_state(self) -> None:
        """Ask for the state that the strategy has by now."""
        if self.session is not None:
            self.session.ask_state()

    @property
    def owes_state(self) -> bool:
        """Return whether that has not come yet."""
        return self.session is not None and self.session.owes_state

    def relisted(self, instruments: Sequence[Instrument]) -> None:
        """Pass other terms of its symbols on; a peer that comes later is given them with its `welcome`."""
        if self.session is not None:
            self.session.put(Instruments(tuple(instruments)))

    def moved(self, state: InstanceState) -> None:
        """Tell whoever runs the worker."""
        self.on_moved(state)

    # -- callbacks -------------------------------------------------------------------------------

    def on_stop(self) -> None:
        """Have the worker run its own, and end."""
        self.on_moved(InstanceState.STOPPED)

    def on_timer(self, name: str) -> None:
        """Pass on that the instance's schedule triggers it; the strategy's own timers are the worker's."""
        if self.session is not None:
            self.session.put(TimerEvent(name))

    def on_takeover(self) -> None:
        """Have the worker run its own."""
        self.takes_over = True

    def on_params(self, old: Params) -> None:
        """Pass the new parameters on, but not to a program that was let in with a class that knows no such ones."""
        if self.session is None:
            return
        data = msgspec.json.encode(self.params)
        try:
            msgspec.json.decode(data, type=self.readable_as)
        except msgspec.ValidationError as error:
            _log.warning(
                "instance %s: its program is not told the new parameters before it attaches again, for it cannot "
                "read them: %s; restart it with the plugin's new class",
                self.instance.instance,
                error,
            )
        else:
            self.session.tell_params(msgspec.json.decode(data))

    def on_book(self, book: BookTop) -> None:
        """Pass it on."""
        if self.session is not None:
            self.session.market(self.last_item(book))

    def on_order(self, order: Order) -> None:
        """Pass it on at the end of the turn."""
        if self.session is not None:
            self.session.reported(order)

    def on_fill(self, fill: Fill) -> None:
        """Pass it on at the end of the turn."""
        if self.session is not None:
            self.session.reported(fill)


def _no_revision(_change: VersionChange) -> Revision:
    raise RevisionFailed("nobody looks after the other side")


def _on_market(self: Proxy, event: Depth | Trade | Ticker) -> None:
    if self.session is not None:
        self.session.market(self.last_item(event))


def _on_candle(self: Proxy, candle: Candle) -> None:
    if self.session is not None:
        self.session.candle(self.last_item(candle))


_FORWARDED: Final[dict[str, Callable[[Proxy, Any], None]]] = {
    "on_depth": _on_market,
    "on_trade": _on_market,
    "on_ticker": _on_market,
    "on_candle": _on_candle,
}
"""What only a strategy is sent that handles it."""


def proxy_class(cls: type[Strategy[Any]]) -> type[Proxy]:
    """Return what stands for a strategy class: it hears what that hears, and has its kinds of data."""
    forwarded = {
        name: handle
        for name, handle in _FORWARDED.items()
        if getattr(cls, name) is not getattr(Strategy, name)
    }
    proxy = cast("type[Proxy]", type(f"{cls.__name__}InWorker", (Proxy,), forwarded))
    proxy.params_type, proxy.state_type, proxy.stands_for = cls.params_type, cls.state_type, cls
    proxy.candle_seconds = cls.candle_seconds
    return proxy
