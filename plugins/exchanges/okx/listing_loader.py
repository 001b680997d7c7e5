"""Fetching what the venue lists, with the account's own fees, at the start and now and then."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from host.api import ExchangeError, Instrument

from .answers import Fees, no_fees, read_fees, read_instruments
from .frames import BadFrame
from .products import EXCHANGE, PRODUCTS, Listing, Listings, listing_of, with_fee
from .rest_client import RestClient, VenueRefused

__all__ = ["ListingLoader"]

_log = logging.getLogger("tandem.okx")


class ListingLoader:
    """Keeps `listings` as the venue has them."""

    def __init__(self, rest: RestClient, listings: Listings) -> None:
        self._rest: Final = rest
        self._listings: Final = listings
        self._is_noted = False

    async def load(self) -> list[str]:
        """Fetch the lists of all products; return what changed, in words. Raises `ExchangeError`."""
        found: list[Listing] = []
        for product in PRODUCTS:
            found += await self._load(product)
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

    async def _load(self, product: str) -> list[Listing]:
        answer = await self._rest.ask_public("/api/v5/public/instruments", {"instType": product})
        rows, bad = read_instruments(answer.data)
        if not answer.data:
            return []
        fees = await self._fees(product)
        found: list[Listing] = []
        for row in rows:
            try:
                listing = listing_of(row)
                if listing is not None:
                    found.append(with_fee(listing, *fees.of(listing)))
            except BadFrame as error:
                bad.append(error)
        if bad and not self._is_noted:
            self._is_noted = True
            _log.warning(
                "%s: %d instruments could not be read and are left out: %s", EXCHANGE, len(bad), bad[0]
            )
        return found

    async def _fees(self, product: str) -> Fees:
        try:
            answer = await self._rest.ask("/api/v5/account/trade-fee", {"instType": product})
        except VenueRefused as error:
            if product == "SPOT":
                raise
            # An account in spot mode need not be told what swaps would cost it.
            _log.warning("%s: the fees of %s are not known and count as 0: %s", EXCHANGE, product, error)
            return no_fees()
        return read_fees(answer.data)
