"""What a node does when something must not go on: kill switches, flattening, untrusted books."""

import logging
from typing import TYPE_CHECKING

from host.api import (
    CancelOrder,
    CancelRejected,
    ExchangeError,
    OrderCancelled,
    OrderExpired,
    OrderRejected,
    Report,
    TandemError,
)
from host.core import entries as e
from host.core.risk_limits import Action, Refusal
from host.journal import JournalError, JournalTrouble, TroubleKind
from host.runtime.feed import AccountFeed, SymbolFeed
from host.runtime.flattening import Flattening
from host.runtime.plugin_errors import describe_error
from host.runtime.scope import is_in_scope

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Safety"]

_log = logging.getLogger("tandem.safety")


class Safety:
    """Carries out what risk checks, the journal and the feeds ask for when trading must stop."""

    def __init__(self, engine: "Engine") -> None:
        self.flattening = Flattening(engine)
        self.unconfirmed: set[str] = set()
        """Orders that were live when the node halted, until the venue says that they are over."""
        self._engine = engine

    def set_kill_switch(self, scope: str, is_on: bool, reason: str, by: str = "") -> None:
        """Trip or release a kill switch; tripping cancels every order of the scope. `by` is who asked."""
        now_ns = self._engine.now_ns
        self._engine.record(e.KillSwitchSet(scope, is_on, reason, by), now_ns)
        self._engine.risk.set_kill(scope, is_on, reason)
        if is_on:
            self._engine.record_alert("kill_switch", f"{scope}: {reason}")
            self._cancel_scope(scope, reason, now_ns, by)

    def _cancel_scope(self, scope: str, reason: str, now_ns: int, by: str = "") -> None:
        orders = [
            order
            for order in self._engine.state.orders.values()
            if is_in_scope(scope, order.account, order.instance, order.symbol)
        ]
        self._engine.oms.cancel_all(orders, f"kill switch: {reason}", now_ns, by)

    def enforce_kill_switches(self) -> None:
        """Cancel what is live in scopes that were switched off before this process started."""
        engine = self._engine
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        for scope, reason in engine.state.kill_switches.items():
            self._cancel_scope(scope, reason, now_ns)
        engine.end_turn(now_ns, 0)

    def breach(self, refusal: Refusal, instance: str) -> None:
        """Do what a refusal asks for beyond refusing."""
        if refusal.action is Action.REFUSE:
            return
        if refusal.action is Action.PULL:
            name = instance or refusal.scope.partition(":")[2]
            if name in self._engine.roster.instances:
                self._engine.oms.pull_quotes(name, refusal.reason, self._engine.now_ns)
            return
        if refusal.scope in self._engine.state.kill_switches:
            return
        self.set_kill_switch(refusal.scope, True, f"{refusal.reason}: {refusal.detail}")
        if refusal.action is Action.FLATTEN:
            self.flattening.begin(refusal.scope, str(refusal.reason))

    def journal_trouble(self, trouble: JournalTrouble) -> None:
        """Ask for a clean stop while there is still room to journal it.

        No kill switch: that would outlive the restart after somebody made room. A failed sync is
        told by the thread that syncs; the next append raises it on this one.
        """
        engine = self._engine
        if trouble.kind is TroubleKind.LOW_SPACE:
            engine.alert("journal_low", trouble.text)
            self._ask_to_stop(trouble.text)

    def adapter_failed(self, account: str, error: BaseException) -> None:
        """Give up an account whose adapter raised; without another one the node stops."""
        engine = self._engine
        feed = engine.feeds[account]
        if feed.failure or engine.halted:
            return
        feed.failure = (
            str(error) if isinstance(error, TandemError) else f"its adapter raised {describe_error(error)}"
        )
        feed.is_settled = False
        text = f"account {account}: {feed.failure}"
        try:
            engine.alert("account_failed", text)
            if engine.is_following:
                self.market_data_lost(feed, feed.failure)
                return
            engine.begin_turn(engine.clock.now_ns())
            self.market_data_lost(feed, feed.failure)
            self.out_of_touch(feed, "account failed", engine.now_ns)
            engine.end_turn(engine.now_ns, 0)
        except JournalError as trouble:
            engine.abort_turn(trouble)
        if all(other.failure for other in engine.feeds.values()):
            self._ask_to_stop(text)

    def _ask_to_stop(self, why: str) -> None:
        """Have the node stop, and let nobody quote until it does."""
        engine = self._engine
        if engine.must_stop:
            return
        engine.must_stop = why
        engine.begin_turn(engine.clock.now_ns())
        for feed in engine.feeds.values():
            self.out_of_touch(feed, "the node stops", engine.now_ns)
        engine.end_turn(engine.now_ns, 0)

    def cancel_past_the_journal(self, now_ns: int) -> None:
        """Ask for every order to be cancelled though the journal takes no intents any more.

        The one command that may go without: it can only take risk away, and the next start asks the
        venue for the fate of every order anyway.
        """
        engine = self._engine
        if not engine.gate.permit(now_ns):
            return
        deadline_ns = engine.gate.deadline_ns(now_ns)
        for order in engine.state.orders.values():
            self.unconfirmed.add(order.client_id)
            try:
                command = CancelOrder(order.client_id, order.symbol, order.venue_id)
                engine.oms.outbox.ports[order.account].send(command, deadline_ns)
            except ExchangeError as error:
                _log.error("order %s may still be live: %s", order.client_id, error)

    def note_last_answer(self, report: Report) -> None:
        """Take note that an order asked for by `cancel_past_the_journal` is over."""
        if isinstance(report, OrderCancelled | OrderExpired | OrderRejected | CancelRejected):
            self.unconfirmed.discard(report.client_id)

    def market_data_lost(self, feed: AccountFeed, why: str) -> None:
        """Trust no book of an account any more."""
        for symbol_feed in feed.symbols.values():
            symbol_feed.book.invalidate(f"market data connection lost: {why}")

    def out_of_touch(self, feed: AccountFeed, why: str, now_ns: int) -> None:
        """Let nobody trade on an account for now, and pull its quotes."""
        for instance in self._engine.roster.instances.values():
            if instance.account == feed.account:
                self._engine.roster.set_trading(instance)
                self._engine.oms.pull_quotes(instance.instance, why, now_ns)

    def in_touch(self, feed: AccountFeed) -> None:
        """Let the instances of an account trade again: it agrees with its venue."""
        for instance in self._engine.roster.instances.values():
            if instance.account == feed.account:
                self._engine.roster.set_trading(instance)

    def book_fault(self, feed: SymbolFeed, fault: str) -> None:
        """Say once, until it is good again, that a book cannot be trusted; nothing is quoted on it."""
        kind = fault.partition(":")[0]
        if feed.fault != kind:
            feed.fault = kind
            self._engine.record_alert("book_fault", f"{feed.account} {feed.symbol}: {fault}")
