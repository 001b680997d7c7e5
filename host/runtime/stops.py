"""Stopping by hand, for the node or a part of it: cancel everything, refuse what comes, close positions."""

from typing import TYPE_CHECKING, Final

from host.api import Order, TandemError
from host.runtime.scope import check_scope, is_in_scope
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["NotStopped", "Stops"]


class NotStopped(TandemError):  # noqa: N818 - the answer, not a malfunction
    """There is no kill switch to release for a scope; `stopped` are those that there are."""

    def __init__(self, scope: str, stopped: list[str]) -> None:
        on = ", ".join(stopped) or "none"
        super().__init__(f"no kill switch is on for {scope}; on are: {on}")
        self.scope = scope
        self.stopped = stopped


class Stops:
    """What a person may do to whole scopes, written as in `host/runtime/scope.py`.

    Every method raises `NotKnown` for a scope in which there is nothing, and `Halted`. `by` is who asks.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine: Final = engine

    def orders_in(self, scope: str) -> list[Order]:
        """Return the orders of a scope that may still trade."""
        check_scope(self._engine, scope)
        return [
            order
            for order in self._engine.state.orders.values()
            if is_in_scope(scope, order.account, order.instance, order.symbol)
        ]

    def cancel_all(self, scope: str, by: str, reason: str = "by hand") -> int:
        """Ask for every order of a scope to be cancelled; return for how many.

        Strategies that run may quote again at once: pause them first, or use `panic_stop`.
        """
        orders = self.orders_in(scope)
        with turn(self._engine) as now_ns:
            return self._engine.oms.cancel_all(orders, reason, now_ns, by)

    def panic_stop(self, scope: str, by: str, reason: str = "by hand", *, flatten: bool = False) -> int:
        """Refuse new orders of a scope from here on, over restarts too, and cancel what is open.

        With `flatten` its positions are closed as well, until none is left. Returns how many orders
        were asked to be cancelled; what is stopped already is stopped again, for the new reason.
        """
        engine = self._engine
        check_scope(engine, scope)
        with turn(engine):
            before = engine.oms.outbox.cancels_sent
            engine.safety.set_kill_switch(scope, True, reason, by)
            asked = engine.oms.outbox.cancels_sent - before
            if flatten:
                engine.safety.flattening.begin(scope, reason, by)
        return asked

    def check_release(self, scope: str) -> None:
        """Raise `NotStopped` where there is nothing to release."""
        stopped = self._engine.state.kill_switches
        if scope not in stopped:
            raise NotStopped(scope, list(stopped))

    def release(self, scope: str, by: str, reason: str = "by hand") -> None:
        """Let a scope trade again, whoever or whatever stopped it; closing its positions ends."""
        engine = self._engine
        self.check_release(scope)
        with turn(engine):
            if scope in engine.state.flattening:
                engine.safety.flattening.end(scope, f"released: {reason}", by)
            engine.safety.set_kill_switch(scope, False, reason, by)
