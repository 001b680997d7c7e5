"""The ccxt library: whether it is there, its client of a venue, and whether that can do what trading needs."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from host.api import ExchangeError, Secret

from .._shared.signing import require
from .numbers import read_number
from .params import EXCHANGE, CcxtParams, Product

__all__ = ["Client", "make_client"]

Client = Any
"""A client of ccxt. The library has no types of its own that are worth the name."""

_CREDENTIALS: Final = {
    "apiKey": "api_key",
    "secret": "api_secret",
    "password": "passphrase",
    "uid": "uid",
    "walletAddress": "wallet_address",
    "privateKey": "private_key",
}
"""What ccxt calls credentials, and what the parameters do."""
_NEEDED: Final = (
    "createOrder",
    "cancelOrder",
    "fetchOrder",
    "fetchOpenOrders",
    "fetchMyTrades",
    "fetchBalance",
    "fetchOrderBook",
)
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Its recent orders alone can be asked for one by one, and ccxt wants that to be known.
    "bybit": {"fetchOrder": {"acknowledged": True}},
}


def make_client(params: CcxtParams) -> Client:
    """Make ccxt's client for an account; nothing is sent yet. Takes a second the first time: ccxt is large.

    Raises `ExchangeError` where the library is missing, or the venue or a credential, or what the venue must offer.
    """
    cls = _client_class(_library(), params.venue)
    client = cls(
        {
            **_credentials(cls, params),
            "enableRateLimit": params.rate_limit,
            "timeout": round(params.request_timeout_s * 1e3),
            "options": {
                "defaultType": "spot" if params.product is Product.SPOT else "swap",
                "defaultSubType": params.product.value,
                "adjustForTimeDifference": True,
                **_OPTIONS.get(params.venue, {}),
                **params.options,
            },
        }
    )
    client.number = read_number
    _require_calls(client, params)
    if params.sandbox:
        if not client.urls.get("test"):
            raise ExchangeError(f"{EXCHANGE}: {params.venue} has no test site; take sandbox = true out")
        client.set_sandbox_mode(True)
    if params.url:
        client.urls["api"] = _led_to(client.urls["api"], _own_address(params.url))
    return client


def _library() -> Any:
    try:
        return importlib.import_module("ccxt.pro")
    except ImportError as error:
        raise ExchangeError(
            f"{EXCHANGE}: the ccxt library cannot be imported ({error}); install it with `pip install 'tandem[ccxt]'`"
        ) from error


def _client_class(library: Any, venue: str) -> Any:
    plain = importlib.import_module("ccxt.async_support")
    if venue in library.exchanges:
        return getattr(library, venue)
    if venue in plain.exchanges:
        return getattr(plain, venue)  # no WebSockets there
    near = difflib.get_close_matches(venue, plain.exchanges, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "ccxt.exchanges lists them all"
    raise ExchangeError(f'{EXCHANGE}: params.venue should be a venue that ccxt knows, was "{venue}"; {hint}')


def _credentials(cls: Any, params: CcxtParams) -> dict[str, str]:
    wanted = {name for name, is_needed in cls().requiredCredentials.items() if is_needed}
    found = {}
    for theirs, ours in _CREDENTIALS.items():
        secret: Secret | None = getattr(params, ours)
        if theirs in wanted:
            secret = require(EXCHANGE, ours, secret)
        if secret is not None:
            found[theirs] = secret.reveal()
    return found


def _require_calls(client: Client, params: CcxtParams) -> None:
    """Raise `ExchangeError` where the venue lacks what trading needs, or a setting asks for."""
    missing = list(_missing(client.has, params))
    if missing:
        raise ExchangeError(
            f"{EXCHANGE}: {params.venue} cannot be traded on through ccxt: it does not offer {', '.join(missing)}"
        )


def _missing(has: Mapping[str, Any], params: CcxtParams) -> Iterator[str]:
    yield from (name for name in _NEEDED if not has.get(name))
    if params.product is not Product.SPOT and not has.get("fetchPositions"):
        yield "fetchPositions"
    if not has.get("fetchOrders") and not has.get("fetchClosedOrders"):
        yield "fetchOrders or fetchClosedOrders"
    if params.amend == "native" and has.get("editOrder") is not True:
        yield 'editOrder (take amend = "native" out)'


def _own_address(url: str) -> tuple[str, str]:
    scheme, separator, address = url.rstrip("/").partition("://")
    if not separator or scheme not in ("http", "https") or not address:
        raise ExchangeError(f'{EXCHANGE}: url must be http://host:port or https://..., was "{url}"')
    return scheme, address


def _led_to(urls: Any, own: tuple[str, str]) -> Any:
    """Return ccxt's addresses with their host replaced, paths as they were.

    ccxt tells Binance's market streams by a host that begins with `stream`: that part stays, as a user name.
    """
    if isinstance(urls, dict):
        return {name: _led_to(url, own) for name, url in urls.items()}
    if not isinstance(urls, str):
        return urls
    scheme, address = own
    kind, _, rest = urls.partition("://")
    host, slash, path = rest.partition("/")
    user = "stream@" if host.startswith("stream.binance") else ""
    is_secure = "s" if scheme == "https" else ""
    return f"{'ws' if kind.startswith('ws') else 'http'}{is_secure}://{user}{address}{slash}{path}"
