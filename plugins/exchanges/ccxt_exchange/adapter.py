"""One account at a venue that ccxt knows."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from host.api import (
    AmendOrder,
    AmendSupport,
    CancelOrder,
    Command,
    ConnectionChanged,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    MarketEvent,
    PlaceOrder,
    Report,
)

from .account_queries import AccountQueries
from .account_watch import AccountWatch
from .calls import CallFailed, Calls
from .library import Client, make_client
from .market_feed import MarketFeed
from .order_entry import OrderEntry
from .order_finder import OrderFinder
from .order_tracker import OrderTracker
from .params import EXCHANGE, NATIVE_AMENDS, CcxtParams
from .products import Listings, listings_of
from .throttle import CancelsFirst, Turn

__all__ = ["CcxtExchange"]

_log = logging.getLogger("tandem.ccxt")
_TRADING: Final = (PlaceOrder, AmendOrder, CancelOrder)


class CcxtExchange(ExchangeAdapter[CcxtParams]):
    """Trades one account through ccxt.

    Requests have no validity window at the venue: what was sent may be taken as long as it is under way. And there
    is no dead man's switch.
    """

    amend_support = AmendSupport.NONE
    is_fenced = False

    def __init__(self, params: CcxtParams) -> None:
        super().__init__(params)
        if params.amend == "native" or (params.amend == "auto" and params.venue in NATIVE_AMENDS):
            self.amend_support = AmendSupport.NATIVE  # type: ignore[misc]  # it depends on the venue
        if params.unfenced_in_pair:
            self.is_fenced = True  # type: ignore[misc]  # the operator says so
        self._listings = Listings()
        self._followed: list[str] = []
        self._tracker = OrderTracker()
        self._client: Client | None = None
        self._orders: OrderEntry | None = None
        self._is_closed = False

    # -- life ------------------------------------------------------------------------------------

    async def connect(self) -> Sequence[Instrument]:
        """Load the venue's markets and see that the key is good; raise `ExchangeError`."""
        params, ctx = self.params, self.ctx
        # The first time it is read from disk for a second or two; the loop has other things to do.
        client: Client = await asyncio.to_thread(make_client, params)
        client.throttle = CancelsFirst(client.throttle, ctx.now_ns)
        calls = self._calls = Calls(client, params, ctx.spawn)
        self._client = client
        try:
            await calls(Turn(), "load_markets")
            self._listings.replace(listings_of(client, params.product))
            await calls(Turn(), "fetch_balance")
        except BaseException:
            await client.close()
            raise
        return self._listings.instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market data of `symbols` and what tells of the account; raise `ExchangeError`."""
        listings = [self._listings.listed(symbol) for symbol in symbols]
        if self._orders is None:
            self._begin()
        for listing in listings:
            self._followed.append(listing.symbol)
            self._market.follow(listing)
            self._watch.follow(listing)

    def send(self, command: Command, deadline_ns: int) -> None:
        """Hand one command over without waiting; raise `ExchangeError` when nothing will be sent."""
        if self._orders is None:
            raise ExchangeError(f"{EXCHANGE}: not subscribed yet, nothing was sent")
        if isinstance(command, _TRADING):
            self._orders.send(command, deadline_ns)
        else:
            self.ctx.spawn(self._queries.answer(command), f"answers {type(command).__name__}")

    def resync(self, symbol: str) -> None:
        """Ask for the whole book of `symbol`."""
        self._market.look_again(self._listings.known(symbol))

    async def close(self) -> None:
        """Close the connections; nothing is handed over after that."""
        self._is_closed = True
        if self._client is not None:
            self._calls.is_closed = True
            await self._client.close()

    # -- parts -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        params, ctx, calls = self.params, self.ctx, self._calls
        finder = OrderFinder(calls, self._tracker)
        self._market = MarketFeed(
            params,
            calls,
            ctx.now_ns,
            self._hand_event,
            lambda is_up, text: self._changed("market", is_up, text),
            ctx.spawn,
        )
        self._watch = AccountWatch(
            params, self._listings, calls, self._tracker, finder, ctx.now_ns, self._hand_report, ctx.spawn
        )
        self._queries = AccountQueries(
            params.product,
            self._listings,
            lambda: [self._listings.known(symbol) for symbol in self._followed],
            calls,
            self._tracker,
            finder,
            ctx.now_ns,
            self._hand_report,
        )
        self._orders = OrderEntry(
            params.product,
            self._listings,
            calls,
            self._tracker,
            finder,
            self._watch,
            ctx.now_ns,
            self._hand_report,
            ctx.spawn,
        )
        self._changed("private", True, "by streams and questions")
        self._changed("orders", True, "over REST")
        ctx.spawn(self._watch.keep(), "account")
        ctx.spawn(self._keep_instruments(), "instruments")

    async def _keep_instruments(self) -> None:
        while True:
            await asyncio.sleep(self.params.instruments_every_s)
            try:
                await self._calls(Turn(), "load_markets", True)
                for change in self._listings.replace(listings_of(self._client, self.params.product)):
                    _log.warning("%s: %s", EXCHANGE, change)
                if not self._is_closed:
                    self.ctx.listed(self._listings.instruments)
            except (CallFailed, ExchangeError) as error:
                _log.warning("%s: the instruments were not read again: %s", EXCHANGE, error)

    def _changed(self, channel: str, is_up: bool, text: str) -> None:
        self._hand_report(ConnectionChanged(channel, is_up, text, self.ctx.now_ns()))

    def _hand_report(self, report: Report) -> None:
        if not self._is_closed:
            self.ctx.report(report)

    def _hand_event(self, event: MarketEvent) -> None:
        if not self._is_closed:
            self.ctx.market(event)
