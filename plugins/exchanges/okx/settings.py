"""Settings of the account: checked when the adapter connects, set where the configuration says so."""

from collections.abc import Sequence
from typing import Final

from host.api import ExchangeError

from .answers import read_config
from .params import OkxParams
from .products import EXCHANGE, Listing
from .requests import leverage_fields
from .rest_client import RestClient

__all__ = ["AccountSettings"]

_NET: Final = "net_mode"
_SPOT_ONLY: Final = "1"


class AccountSettings:
    """What must be right in the account before orders are sent."""

    def __init__(self, rest: RestClient, params: OkxParams) -> None:
        self._rest: Final = rest
        self._params: Final = params
        self._is_net = True
        self._has_swaps = True

    async def read(self) -> None:
        """Read how the account is set; raise `ExchangeError`, also for a key that will not do."""
        config = read_config((await self._rest.ask("/api/v5/account/config")).data)
        self._is_net = config.pos_mode in ("", _NET)
        self._has_swaps = config.acct_lv != _SPOT_ONLY

    async def prepare(self, listings: Sequence[Listing]) -> None:
        """Check that these can be traded, and set their leverage; raise `ExchangeError`."""
        for listing in listings:
            if listing.is_spot:
                continue
            if not self._has_swaps:
                raise ExchangeError(
                    f"{EXCHANGE}: {listing.symbol}: the account is in spot mode; choose the futures mode in "
                    "its settings at the venue"
                )
            if not self._is_net:
                raise ExchangeError(
                    f"{EXCHANGE}: {listing.symbol}: the account must be in net position mode, was in "
                    "long/short mode; change it in its settings at the venue"
                )
            leverage = self._params.leverage.get(listing.symbol)
            if leverage is not None:
                fields = leverage_fields(listing, leverage, self._params.margin_mode)
                await self._rest.set("/api/v5/account/set-leverage", fields)
