"""Fetching what the venue lists, with the account's own fees, at the start and now and then."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from host.api import ExchangeError, Instrument

from . import queries
from .answers import read_fees, read_instruments
from .frames import BadFrame
from .products import EXCHANGE, Listing, Listings, Product, listing_of, with_fee
from .rest_client import RestClient

__all__ = ["ListingLoader"]

_log = logging.getLogger("tandem.bybit")


class ListingLoader:
    """Keeps `listings` as the venue has them."""

    def __init__(self, rest: RestClient, listings: Listings, products: tuple[Product, ...]) -> None:
        self._rest: Final = rest
        self._listings: Final = listings
        self._products: Final = products

    async def load(self) -> list[str]:
        """Fetch the lists of all products; return what changed, in words. Raises `ExchangeError`."""
        found: list[Listing] = []
        try:
            for product in self._products:
                found += await self._load(product)
        except BadFrame as error:
            raise ExchangeError(f"{EXCHANGE}: {error}") from error
        return self._listings.replace(found)

    async def keep(self, every_s: float, hand_over: Callable[[Sequence[Instrument]], None]) -> None:
        """Fetch them again and again, for ever, say what changed and hand the lists over."""
        while True:
            await asyncio.sleep(every_s)
            try:
                changes = await self.load()
            except ExchangeError as error:
                _log.warning("%s: the list of instruments was not renewed: %s", EXCHANGE, error)
                continue
            for change in changes:
                _log.warning("%s: %s", EXCHANGE, change)
            hand_over(self._listings.instruments)

    async def _load(self, product: Product) -> list[Listing]:
        fees = await self._fees(product)
        found: list[Listing] = []
        cursor = ""
        while True:
            answer = await self._rest.ask_public(queries.instruments(product, cursor))
            page = read_instruments(answer.result)
            rows = filter(None, map(listing_of, page.list))
            found += [with_fee(listing, fees.get(listing.venue_symbol)) for listing in rows]
            if not page.list or page.next_page_cursor in {"", cursor}:
                return found
            cursor = page.next_page_cursor

    async def _fees(self, product: Product) -> dict[str, tuple[Decimal, Decimal]]:
        answer = await self._rest.ask(queries.fee_rates(product))
        return read_fees(product, answer.result)
