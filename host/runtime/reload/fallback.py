"""What a version on probation is rolled back to: the one before it, kept warm.

It goes on muted, a few ms behind the events, so that a rollback is as quick after half a minute as
after the first event, and so that the journal always holds a state that the permanent version can
be restarted with.
"""

from typing import TYPE_CHECKING, Any, Final

from host.api import Quote, Strategy
from host.core import entries as e
from host.core.entries import InstanceState
from host.runtime.instance import Instance, encode_state
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.shadow import Shadow

if TYPE_CHECKING:
    from host.core.quoting import QuoteLane
    from host.runtime.engine import Engine

__all__ = ["RECEIVING", "Fallback"]

RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)
SLICE_NS: Final = 300_000
"""How long it may follow at a stretch: the loop has events to handle."""


class Fallback:
    """The strategy that ran in an instance before the one on probation.

    `failure` says why it cannot take over any more; the instance is then quarantined instead.
    """

    def __init__(self, engine: "Engine", instance: Instance, now_ns: int) -> None:
        self.strategy: Final[Strategy[Any]] = instance.strategy
        self.digest: Final = engine.state.instances[instance.instance].digest
        self.candle_makers: Final = instance.candle_makers
        self.failure = ""
        if instance.state is InstanceState.QUARANTINED:
            self.failure = engine.state.instances[instance.instance].reason
        self._engine = engine
        self._instance = instance
        self._history = engine.feeds[instance.account].history
        self._seen = self._history.sequence
        self._since_ns = now_ns
        self._checkpoints = list(instance.checkpoints)
        self._quotes = {symbol: _wanted(channel.quoting) for symbol, channel in instance.channels.items()}
        self._shadow = Shadow(
            instance,
            self.strategy,
            now_ns,
            engine.clock.stopwatch_ns,
            timers=instance.timers,
            keeps_intents=False,
        )

    def overrides(self, callback: str) -> bool:
        """Return whether this strategy's class defines `callback` itself."""
        return getattr(type(self.strategy), callback) is not getattr(Strategy, callback)

    def follow(self, now_ns: int, slice_ns: int = SLICE_NS) -> None:
        """Hear, muted, what happened meanwhile; for `slice_ns` at most, 0 for all of it."""
        if self.failure:
            return
        behind = self._history.sequence - self._seen
        events = self._history.since(self._seen)
        try:
            if len(events) < behind:
                self.failure = f"it missed {behind - len(events)} events while it was kept"
                return
            self._seen += self._shadow.run(events, slice_ns)
            if self._seen == self._history.sequence:
                self._shadow.advance(now_ns)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: it cannot take over
            self.failure = f"hearing muted what happened meanwhile raised {describe_error(error)}"

    def save_state(self, now_ns: int, *, force: bool) -> None:
        """Journal its state, up to date: what a restart gives back to the permanent version.

        With a failure nothing is written: the restart then hears again what came after the last time.
        """
        self.follow(now_ns, 0)
        if self.failure:
            return
        try:
            data = encode_state(self.strategy)
        except Exception as error:  # noqa: BLE001 - plugin boundary: it cannot take over
            self.failure = f"encoding its state raised {describe_error(error)}"
            return
        if force or data != self._instance.saved_state:
            version = self.strategy.state_type.state_version
            self._engine.roster.states.write(self._instance, version, data, now_ns)

    def restore(self, reason: str, policy: str, now_ns: int) -> None:
        """Bring it back as if it had never been away, but for what was traded.

        Its latest quotes are asserted once. Orders placed since it went (`policy` is `cancel` or
        `flatten`) are cancelled, or kept; positions are kept, or closed with `flatten`.
        """
        engine, instance = self._engine, self._instance
        self.follow(now_ns, 0)
        if not self.failure:
            self._shadow.end()
        instance.fallback = instance.probation = None
        instance.strategy, self.strategy.ctx = self.strategy, instance
        instance.candle_makers = self.candle_makers
        instance.checkpoints.clear()
        instance.checkpoints.extend(self._checkpoints)
        engine.record(e.InstanceRevised(instance.instance, self.digest, f"rolled back: {reason}"), now_ns)
        if instance.state not in RECEIVING:
            return
        instance.timers.clear()
        if self.failure:
            engine.roster.put_in_quarantine(instance, self.failure)
            return
        instance.timers.update(self._shadow.timers)
        engine.roster.set_trading(instance)
        engine.roster.states.save(instance, now_ns, force=True)
        if policy != "keep":
            self._cancel_placed(now_ns)
        self._assert_quotes(now_ns)
        if policy == "flatten":
            engine.safety.flattening.begin(f"instance:{instance.instance}", reason)

    def _cancel_placed(self, now_ns: int) -> None:
        placed = [
            order
            for order in self._engine.state.orders.values()
            if order.instance == self._instance.instance
            and order.slot < 0
            and order.created_ns >= self._since_ns
        ]
        self._engine.oms.cancel_all(placed, "rolled back", now_ns)

    def _assert_quotes(self, now_ns: int) -> None:
        instance, engine = self._instance, self._engine
        for symbol, channel in instance.channels.items():
            if symbol in self._shadow.quotes:
                instance.quote(symbol, self._shadow.quotes[symbol])
            elif instance.is_trading:
                # Said before it went, and adjusted by the models then: not once more.
                top = engine.top(instance.account, symbol)
                engine.oms.quoter.set_quotes(channel, self._quotes[symbol], top, now_ns)


def _wanted(lane: "QuoteLane") -> list[Quote]:
    """Return what is wanted in a lane, as the quotes that lead there again."""
    levels = zip(lane.bids, lane.asks, strict=True)
    return [
        Quote(
            float(lane.price(bid.wanted_ticks)) if bid.wanted_ticks else None,
            bid.wanted_qty,
            float(lane.price(ask.wanted_ticks)) if ask.wanted_ticks else None,
            ask.wanted_qty,
        )
        for bid, ask in levels
    ]
