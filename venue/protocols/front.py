"""What a protocol is: it reads requests, answers them, and turns what happens into events.

A front holds no course of its own: `venue.protocols.course` brings requests to it and takes care
of faults, the log and the transport. `docs/venue.md` ("Adding a protocol") shows the way.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from host.api import Command, MarketEvent
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.execution import HOUSE_RULES, Answer, EntryRules, ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.accounts import Accounts
from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultPlan
from venue.protocols.market_feed import MarketFeed
from venue.protocols.requests import Entry, Raw, Reply, Request, Verdict
from venue.running import RunningExchange

__all__ = ["Desk", "Front"]

NO_DEADLINE_NS: Final = 1 << 62


class Desk:
    """What every front works with. One is shared by all of them but for the protocol's name."""

    def __init__(
        self,
        protocol: str,
        running: RunningExchange,
        accounts: Accounts,
        feed: MarketFeed,
        faults: FaultPlan,
        *,
        is_recorded: bool,
        has_rate_limits: bool,
    ) -> None:
        self.protocol: Final = protocol
        self.running: Final = running
        self.exchange: Final[Exchange] = running.exchange
        self.clock: Final[VenueClock] = running.clock
        self.accounts: Final = accounts
        self.feed: Final = feed
        self.faults: Final = faults
        self.is_recorded: Final = is_recorded
        """A recording's depth messages go out one by one instead of in batches."""
        self.has_rate_limits: Final = has_rate_limits

    def now_ns(self) -> int:
        """Return the wall time that this protocol shows and judges by, a skew on command included."""
        return self.clock.wall_now_ns() + self.faults.skew_ns(self.protocol)

    def arrived_ns(self, request: Request) -> int:
        """Return when a request arrived, by this protocol's clock.

        Its timestamp is judged by this first: a fault may hold it for long before the matching
        engine, which judges it once more.
        """
        return request.arrived_ns + self.faults.skew_ns(self.protocol)

    def shown_ns(self, market_ns: int) -> int:
        """Return which wall time this protocol shows for a moment of the market."""
        return self.clock.to_wall_ns(market_ns) + self.faults.skew_ns(self.protocol)

    async def ask(
        self,
        request: Request,
        entry: Entry,
        wallet: str,
        command: Command,
        *,
        rules: EntryRules = HOUSE_RULES,
        terms: Any = None,
    ) -> Answer:
        """Bring a command before the matching engine, which judges the request's deadline once more.

        Notes in `entry` what came of it; the reason of a refusal is the engine's until the protocol
        puts its own words there.
        """
        future = self.running.submit(
            wallet, command, self._market_deadline_ns(request), rules=rules, terms=terms
        )
        self.running.step()
        answer = await future
        self.note(entry, answer)
        return answer

    def note(self, entry: Entry, answer: Answer) -> None:
        """Note in a line of the log what the engine decided."""
        entry.decided_ns = self.clock.to_wall_ns(answer.ts_ns)
        entry.verdict = Verdict.ACCEPTED if answer.refusal is None else Verdict.REFUSED
        if answer.refusal is not None:
            entry.reason = f"{answer.refusal[0]}: {answer.refusal[1]}"
        if answer.record is not None:
            entry.order_id = str(answer.record.order.order_id)

    def _market_deadline_ns(self, request: Request) -> int:
        deadline_ns = request.deadline_ns
        if deadline_ns is None:
            return NO_DEADLINE_NS
        return self.clock.to_market_ns(deadline_ns - self.faults.skew_ns(self.protocol))


class Front(ABC):
    """One protocol. Nothing in it may wait but `answer`, and that only for `Desk.ask`."""

    name: ClassVar[str]
    """In the log, the faults' addresses and the command line."""
    ping_s: ClassVar[float] = 0.0
    """How often the server pings a WebSocket; 0 for protocols in which the client does."""
    pong_s: ClassVar[float] = 0.0
    """How long it waits for a pong before it cuts the connection."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @abstractmethod
    def read(self, raw: Raw, arrived_ns: int) -> Request:
        """Return what a request asks for, without judging it; never raise.

        The account is looked up by the key it carries, so that faults and the log can name it: who
        it really is, `answer` checks. Bad requests are read as far as they go.
        """

    @abstractmethod
    async def answer(self, request: Request) -> Reply | None:
        """Judge a request, carry it out and return the answer; None for a frame that gets none.

        Fills in `request.entries`.
        """

    @abstractmethod
    def failure(self, fault: Fault, request: Request) -> Reply:
        """Return how this venue says what `fault` is about: `server_error`, `rate_limit` or
        `maintenance`."""

    def halve(self, request: Request, reply: Reply) -> Reply:
        """Return the answer of a batch that knows the outcome of the first half only.

        Protocols with batches override it.
        """
        return reply

    def opened(self, connection: Connection) -> bool:
        """Take a new WebSocket connection; return whether its path is one that is served."""
        return True

    def closed(self, connection: Connection) -> None:  # noqa: B027 - not every protocol needs it
        """Forget a connection: its subscriptions, its session."""

    def on_market(self, event: MarketEvent) -> None:  # noqa: B027 - not every protocol needs it
        """Take public market data."""

    def on_execution(self, report: ExecutionReport, account: str, wallet: str) -> None:  # noqa: B027 - not every protocol needs it
        """Take one thing that happened to an order of `wallet` of `account`."""

    def on_funding(self, payment: FundingPayment, account: str, wallet: str) -> None:  # noqa: B027 - not every protocol needs it
        """Take what a wallet got or paid for a position."""

    def close(self) -> None:  # noqa: B027 - not every protocol needs it
        """Stop timers."""
