"""What both products share: endpoints, the checks before a request is carried out, and weights.

An endpoint has one name (Binance's WebSocket API's where it has one) and is reached by HTTP, by a
frame, or by both. The checks come in Binance's order: weight, key, parameters, signature, time.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final

from msgspec import Struct

from venue.execution import Answer
from venue.protocols.accounts import KeyedAccount
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.limits import Limits
from venue.protocols.binance.params import Params
from venue.protocols.binance.security import (
    check_signature,
    check_time,
    frame_payload,
    http_payload,
    key_owner,
)
from venue.protocols.front import Desk
from venue.protocols.requests import Entry, Kind, Reply, Request, Verdict

__all__ = ["Call", "Endpoint", "Product", "Security"]


class Security(Enum):
    """What an endpoint asks for."""

    NONE = 0
    KEY = 1
    SIGNED = 2


class Call(Struct):
    """A request on its way through the checks."""

    request: Request
    params: Params
    account: KeyedAccount | None = None
    wallet: str = ""
    weight: int = 0

    def entry(
        self, params: Params | None = None, symbol: str = "", client_id: str = "", kind: Kind | None = None
    ) -> Entry:
        """Begin a line of the request log for one order of this request."""
        source = params or self.params
        entry = Entry(client_id, symbol or source.text("symbol"), source.logged(), kind)
        self.request.entries.append(entry)
        return entry

    def now_ms(self, now_ns: int) -> int:
        """Return a time as Binance writes it."""
        return now_ns // 1_000_000


Handler = Callable[[Call], Awaitable[Any]]
Weight = int | Callable[[Params], int]


class Endpoint(Struct, frozen=True):
    """One thing that a client can ask for."""

    name: str
    kind: Kind
    security: Security
    handler: Handler
    weight: Weight = 1
    http: tuple[str, ...] = ()
    """`VERB /path` of each address."""
    is_free_on_success: bool = False
    """Placing and the like cost their weight only where they fail."""
    is_order: bool = False
    """Counts against the order limits."""


class Product:
    """One product: its endpoints by name and by address, its limits, its wallet."""

    wallet_name: str = ""

    def __init__(self, desk: Desk, limits: Limits, endpoints: tuple[Endpoint, ...]) -> None:
        self.desk: Final = desk
        self.limits: Final = limits
        self.by_name: Final[Mapping[str, Endpoint]] = {each.name: each for each in endpoints}
        self.by_address: Final[Mapping[str, Endpoint]] = {
            address: each for each in endpoints for address in each.http
        }

    def open_wallet(self, account: KeyedAccount) -> str:
        """Return the exchange's name of the account's wallet, opened if need be."""
        raise NotImplementedError

    async def carry_out(
        self, endpoint: Endpoint, request: Request, params: Params, session: KeyedAccount | None = None
    ) -> Any:
        """Check and carry out; return the result's JSON. Raises `BinanceRefusal`.

        `session` is who logged in on the connection: such frames need no signature.
        """
        call = Call(request, params)
        now_ns = self.desk.now_ns()
        source = self._source(request)
        try:
            weight = endpoint.weight if isinstance(endpoint.weight, int) else endpoint.weight(params)
            self.limits.add_request(source, weight, now_ns)
            self.limits.check_requests(source, now_ns)
            if endpoint.security is not Security.NONE:
                call.account = self._authenticate(endpoint, request, params, session)
                call.wallet = self.open_wallet(call.account)
            if endpoint.is_order and call.account is not None:
                self.limits.check_orders(call.account.name, now_ns)
            result = await endpoint.handler(call)
        except BinanceRefusal as refusal:
            self._note_refusal(call, refusal)
            raise
        if endpoint.is_free_on_success:
            self.limits.add_request(source, -weight, now_ns)
        return result

    def headers(self, request: Request, endpoint: Endpoint | None) -> dict[str, str]:
        """Return the rate limit headers of an HTTP answer."""
        now_ns = self.desk.now_ns()
        account = request.account if endpoint is not None and endpoint.is_order else ""
        return self.limits.headers(self._source(request), account, now_ns)

    def unless_refused(self, answer: Answer, refuse: Callable[[Answer], BinanceRefusal]) -> Answer:
        """Return an answer of the engine that is no refusal; raise it in Binance's words otherwise."""
        if answer.refusal is not None:
            raise refuse(answer)
        return answer

    def _authenticate(
        self,
        endpoint: Endpoint,
        request: Request,
        params: Params,
        session: KeyedAccount | None,
    ) -> KeyedAccount:
        is_frame = request.raw.connection is not None
        if session is not None and not params.text("signature"):
            if endpoint.security is Security.SIGNED:
                check_time(request, params, self.desk.arrived_ns(request))
            return session
        key = params.text("apiKey") if is_frame else request.raw.headers.get("x-mbx-apikey", "")
        account = key_owner(self.desk.accounts, key)
        if endpoint.security is Security.SIGNED:
            params.required("timestamp")
            payload, signature = frame_payload(request.params) if is_frame else http_payload(request.raw)
            check_signature(account, payload, signature)
            check_time(request, params, self.desk.arrived_ns(request))
        if not account.can_trade and endpoint.kind not in (Kind.QUERY, Kind.LOGIN, Kind.SUBSCRIBE):
            raise BinanceRefusal(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        return account

    @staticmethod
    def _source(request: Request) -> str:
        # All clients of a simulated venue come from one machine: a limit per address would have
        # them share one budget, so the key tells them apart where there is one.
        return request.account or "anybody"

    @staticmethod
    def _note_refusal(call: Call, refusal: BinanceRefusal) -> None:
        # A batch notes its orders itself; otherwise the last line is the one that was refused.
        entry = (
            call.request.entries[-1] if call.request.entries else call.entry(client_id=call.request.client_id)
        )
        if entry.verdict is not Verdict.ACCEPTED:
            entry.verdict = Verdict.REFUSED
            entry.reason = f"{refusal.code} {refusal.text}" + (f" ({entry.reason})" if entry.reason else "")


def as_reply(refusal: BinanceRefusal) -> Reply:
    """Return a refusal as an HTTP answer."""
    return Reply(refusal.body(), refusal.status, dict(refusal.headers))
