"""An exchange that runs: stepped when something is due, asked by connections, watched by protocols.

All of it happens in one event loop, and each step is one synchronous act, so protocols never see a
half-done instant. What comes out is handed to the listeners in order, before whoever asked gets the
answer. A listener that fails on something misses that alone and is told so; the exchange and the
other listeners go on.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from host.api import Command, TandemError
from venue.clock import VenueClock
from venue.exchange import Exchange, Output
from venue.execution import HOUSE_RULES, Answer, EntryRules, ExecutionReport
from venue.perpetuals import FundingPayment

__all__ = ["Listener", "RunningExchange"]

_log = logging.getLogger(__name__)
MAX_WAIT_S: Final = 1.0


class Listener(Protocol):
    """Gets everything that comes out of the exchange, at the moment it does. It must not wait."""

    def on_output(self, account: str | None, output: Any) -> None:
        """Take one `venue.exchange.Output`: public market data (no account) or an account's report."""

    def on_execution(self, report: ExecutionReport) -> None:
        """Take one thing that happened to an order."""

    def on_funding(self, payment: FundingPayment) -> None:
        """Take what an account got or paid for a position."""

    def on_failure(self, error: Exception) -> None:
        """Take note that one of the above raised: what it was about is missing, so its clients must begin anew.

        Must not raise.
        """


class RunningExchange:
    """One `Exchange` on one clock. `run` it in a task as long as it is in use."""

    def __init__(self, exchange: Exchange, clock: VenueClock) -> None:
        self.exchange: Final = exchange
        self.clock: Final = clock
        self._listeners: tuple[Listener, ...] = ()
        self._has_work = asyncio.Event()
        self._failure: TandemError | None = None
        self._reported: set[tuple[str, str]] = set()

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Hand everything from now on to `listener`; the result ends that."""
        self._listeners = (*self._listeners, listener)

        def unwatch() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unwatch

    def submit(
        self,
        account: str,
        command: Command,
        deadline_ns: int,
        *,
        rules: EntryRules = HOUSE_RULES,
        terms: Any = None,
    ) -> "asyncio.Future[Answer]":
        """Hand a command over at this moment; it is decided in the next step.

        `deadline_ns` is in market time. Several commands submitted one after the other without an
        await are decided at the same instant, with nothing between them.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def on_answer(found: Answer) -> None:
            if not answer.done():  # whoever asked may have left
                answer.set_result(found)

        self.exchange.submit(
            account,
            command,
            self.clock.now_ns(),
            deadline_ns,
            rules=rules,
            terms=terms,
            on_answer=on_answer,
        )
        self._has_work.set()
        return answer

    async def ask(
        self,
        account: str,
        command: Command,
        deadline_ns: int,
        *,
        rules: EntryRules = HOUSE_RULES,
        terms: Any = None,
    ) -> Answer:
        """Hand a command over and return what came of it."""
        answer = self.submit(account, command, deadline_ns, rules=rules, terms=terms)
        self.step()
        return await answer

    def wake(self) -> None:
        """Look at once what is due: something was submitted."""
        self._has_work.set()

    def step(self) -> None:
        """Let everything due happen now, and tell the listeners."""
        try:
            outputs: list[Output] = self.exchange.step(self.clock.now_ns())
        except TandemError as error:
            # Raised once, by whoever stepped: `run` must end with it as well.
            self._failure = error
            self._has_work.set()
            raise
        # Executions first: an account hears of its fill no later than the public does.
        for report in self.exchange.take_executions():
            for listener in self._listeners:
                try:
                    listener.on_execution(report)
                except Exception as error:  # noqa: BLE001 - it is reported, and the others go on
                    self._missed(listener, error)
        for payment in self.exchange.funding.take():
            for listener in self._listeners:
                try:
                    listener.on_funding(payment)
                except Exception as error:  # noqa: BLE001 - as above
                    self._missed(listener, error)
        for account, output in outputs:
            for listener in self._listeners:
                try:
                    listener.on_output(account, output)
                except Exception as error:  # noqa: BLE001 - as above
                    self._missed(listener, error)

    def _missed(self, listener: Listener, error: Exception) -> None:
        """Report a listener's failure, in full once for each kind of it, and have it begin anew."""
        seen = (str(listener), f"{type(error).__name__}: {error}")
        if seen not in self._reported:
            self._reported.add(seen)
            _log.error(
                "%s failed and its clients are cut off; the venue goes on. The same will not be logged again",
                listener,
                exc_info=error,
            )
        listener.on_failure(error)

    async def run(self) -> None:
        """Step whenever something is due, until cancelled; raise what the exchange raises."""
        loop = asyncio.get_running_loop()
        while True:
            if self._failure is not None:
                raise self._failure
            self.step()
            self._has_work.clear()
            due_ns = self.exchange.next_time_ns()
            wait_s = MAX_WAIT_S if due_ns is None else self.clock.wait_s(due_ns)
            if wait_s <= 0:
                await asyncio.sleep(0)  # behind: let the connections have their turn all the same
                continue
            timer = loop.call_later(min(wait_s, MAX_WAIT_S), self._has_work.set)
            await self._has_work.wait()
            timer.cancel()
