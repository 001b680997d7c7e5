"""Settings of the account at the venue: margin mode, leverage, and what a lost connection sets off."""

from collections.abc import Sequence
from typing import Any, Final

from host.api import ExchangeError

from .answers import read_positions
from .errors import is_already_so
from .frames import BadFrame
from .params import BybitParams
from .products import EXCHANGE, Listing, Product
from .queries import position_of
from .requests import leverage_fields, margin_mode_fields
from .rest_client import RestClient, VenueRefused

__all__ = ["AccountSettings"]

_DCP_PRODUCTS: Final = {Product.SPOT: "SPOT", Product.LINEAR: "DERIVATIVES", Product.INVERSE: "DERIVATIVES"}


class AccountSettings:
    """Makes the account as `params` say; what they leave out stays as it is.

    Each method raises `ExchangeError` where the venue refuses. That a setting is so already is no refusal.
    """

    def __init__(self, rest: RestClient, params: BybitParams) -> None:
        self._rest: Final = rest
        self._params: Final = params
        self._disconnect_s = 0

    async def set_margin_mode(self) -> None:
        """Set cross or isolated margin, for the whole account."""
        if self._params.margin_mode:
            fields = margin_mode_fields(is_isolated=self._params.margin_mode == "isolated")
            await self._set("/v5/account/set-margin-mode", fields)

    async def check_one_way(self, listings: Sequence[Listing]) -> None:
        """Raise `ExchangeError` where a perpetual has a position for each side (hedge mode)."""
        for listing in listings:
            if listing.product is Product.SPOT:
                continue
            answer = await self._rest.ask(position_of(listing))
            try:
                page = read_positions(answer.result)
            except BadFrame as error:
                raise ExchangeError(f"{EXCHANGE}: {error}") from error
            if any(row.position_idx for row in page.list):
                raise ExchangeError(
                    f"{EXCHANGE}: {listing.symbol} is in hedge mode, expected one-way; "
                    "change the position mode at the venue while nothing is open"
                )

    async def set_leverage(self, listings: Sequence[Listing]) -> None:
        """Set the leverage of those perpetuals that `params.leverage` names."""
        for listing in listings:
            leverage = self._params.leverage.get(listing.symbol)
            if leverage is not None and listing.product is not Product.SPOT:
                await self._set("/v5/position/set-leverage", leverage_fields(listing, leverage))

    async def set_disconnect_cancel(self, seconds: int) -> None:
        """Have the venue cancel everything once the private connection has been away for so long."""
        if seconds == self._disconnect_s:
            return
        for name in dict.fromkeys(_DCP_PRODUCTS[product] for product in self._params.products):
            await self._set("/v5/order/disconnected-cancel-all", {"timeWindow": seconds, "product": name})
        self._disconnect_s = seconds

    async def _set(self, path: str, fields: dict[str, Any]) -> None:
        try:
            await self._rest.set(path, fields)
        except VenueRefused as refused:
            if not is_already_so(refused.code):
                raise
