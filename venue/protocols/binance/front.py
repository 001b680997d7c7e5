"""Binance at one address: spot and futures, HTTP, market streams, user data, WebSocket API."""

import asyncio
from typing import Any, ClassVar, Final

import orjson

from host.api import InstrumentKind, MarketEvent
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params, from_frame, from_http
from venue.protocols.binance.product import Endpoint, Product, as_reply
from venue.protocols.binance.security import read_times
from venue.protocols.binance.sessions import Session, SessionKind, session_for
from venue.protocols.binance.spot import Spot
from venue.protocols.binance.stream_shapes import FuturesShapes, SpotShapes
from venue.protocols.binance.streams import Streams
from venue.protocols.binance.usdm import Usdm
from venue.protocols.binance.user_data import UserData
from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.front import Desk, Front
from venue.protocols.requests import Entry, Kind, Raw, Reply, Request, Verdict

__all__ = ["BinanceFront"]

SPOT_DEPTH_MS: Final = 1000
USDM_DEPTH_MS: Final = 250
FRAMES_PER_SECOND: Final = {False: 5, True: 10}
"""Frames that a stream connection may send: on spot, and on the futures."""
UNKNOWN: Final = (
    -1007,
    "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
)
_FUTURES: Final = frozenset({SessionKind.FUTURES_STREAMS, SessionKind.FUTURES_USER, SessionKind.FUTURES_API})
_CONTROL: Final = frozenset(
    {"SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"}
)


class BinanceFront(Front):
    """The protocol `binance`."""

    name: ClassVar[str] = "binance"
    ping_s: ClassVar[float] = 20.0
    pong_s: ClassVar[float] = 60.0

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._spot = Spot(desk)
        self._user_data = UserData(desk, self._spot)
        self._spot_streams = Streams(desk, self._spot.listing, SpotShapes(desk), SPOT_DEPTH_MS)
        self._usdm = Usdm(desk)
        shapes = FuturesShapes(desk, self._usdm.listing)
        self._usdm_streams = Streams(desk, self._usdm.listing, shapes, USDM_DEPTH_MS)

    # -- reading ---------------------------------------------------------------------------------

    def read(self, raw: Raw, arrived_ns: int) -> Request:
        """Read a request as far as it can be read."""
        if raw.connection is not None:
            return self._read_frame(raw, arrived_ns)
        method = f"{raw.method} {raw.path}"
        endpoint = self._endpoint(method)
        kind = Kind.QUERY if endpoint is None else endpoint.kind
        request = Request(self.name, "rest", method, kind, raw, arrived_ns)
        params = from_http(raw.query, raw.body)
        request.params = params.logged()
        self._note(request, params, raw.headers.get("x-mbx-apikey", ""))
        return request

    def _read_frame(self, raw: Raw, arrived_ns: int) -> Request:
        request = Request(self.name, "ws", "", Kind.QUERY, raw, arrived_ns)
        try:
            frame = orjson.loads(raw.body)
        except orjson.JSONDecodeError:
            return request
        if not isinstance(frame, dict):
            return request
        request.id = frame.get("id")
        request.method = str(frame.get("method", ""))
        params = frame.get("params")
        if request.method in _CONTROL:
            request.kind = Kind.SUBSCRIBE
            request.params = {"params": params}
            return request
        request.params = params if isinstance(params, dict) else {}
        endpoint = self._named(raw.connection, request.method)
        if endpoint is not None:
            request.kind = endpoint.kind
        elif request.method.startswith(("session", "userDataStream")):
            request.kind = Kind.LOGIN
        texts = from_frame(request.params)
        session: Session | None = None if raw.connection is None else raw.connection.state
        self._note(request, texts, texts.text("apiKey"))
        if not request.account and session is not None and session.logged_in is not None:
            request.account = session.logged_in.name
        return request

    def _note(self, request: Request, params: Params, api_key: str) -> None:
        account = self.desk.accounts.by_key(api_key)
        request.account = "" if account is None else account.name
        request.symbol = params.text("symbol")
        request.client_id = params.text("newClientOrderId") or params.text("origClientOrderId")
        read_times(request, params)

    # -- answering -------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Reply | None:
        """Carry a request out."""
        connection = request.raw.connection
        if connection is None:
            return await self._answer_http(request)
        session: Session = connection.state
        if session.kind in (SessionKind.SPOT_API, SessionKind.FUTURES_API):
            return await self._answer_api(request, connection, session)
        return self._control(request, connection, session)

    async def _answer_http(self, request: Request) -> Reply:
        endpoint = self._endpoint(request.method)
        product = self._product_of(request.raw.path)
        if endpoint is None:
            refusal = BinanceRefusal(-1000, f"{request.method} is not served.", status=404)
            self._note_refused(request, from_http(request.raw.query, b""), refusal)
            return as_reply(refusal)
        try:
            params = from_http(request.raw.query, request.raw.body)
            result = await product.carry_out(endpoint, request, params)
        except BinanceRefusal as refusal:
            reply = as_reply(refusal)
        else:
            reply = Reply(result)
        reply.headers |= product.headers(request, endpoint)
        return reply

    async def _answer_api(self, request: Request, connection: Connection, session: Session) -> Reply:
        product = self._product_for(session)
        params = from_frame(request.params)
        try:
            is_session = request.method.startswith("session.")
            if is_session or (product is self._spot and request.method in UserData.METHODS):
                status, result = 200, self._user_data.control(request, params, connection, session)
            else:
                endpoint = product.by_name.get(request.method)
                if endpoint is None:
                    raise BinanceRefusal(-1000, f"Unknown method {request.method!r}.")
                status = 200
                result = await product.carry_out(endpoint, request, params, session.logged_in)
        except BinanceRefusal as refusal:
            entry_missing = not request.entries
            status, body = refusal.status, {"error": refusal.body()}
            if entry_missing:
                self._note_refused(request, params, refusal)
        else:
            body = {"result": result}
        told = {"id": request.id, "status": status, **body}
        if params.boolean("returnRateLimits", session.is_limits_shown):
            account = request.account if request.kind in (Kind.PLACE, Kind.AMEND) else ""
            told["rateLimits"] = product.limits.used(
                request.account or "anybody", account, self.desk.now_ns()
            )
        return Reply(told)

    @staticmethod
    def _note_refused(request: Request, params: Params, refusal: BinanceRefusal) -> None:
        text = f"{refusal.code} {refusal.text}"
        request.entries.append(
            Entry(request.client_id, request.symbol, params.logged(), None, Verdict.REFUSED, text)
        )

    def _control(self, request: Request, connection: Connection, session: Session) -> Reply | None:
        if self.desk.has_rate_limits and _is_too_fast(session):
            connection.abort()
            return None
        streams, names = self._streams_for(session), request.params.get("params")
        if request.method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                return _bad_control(request, 2, "Invalid request: params must be an array of strings")
            if session.kind is SessionKind.FUTURES_USER:
                self._usdm.listen_keys.change(connection, names, is_added=request.method == "SUBSCRIBE")
            elif request.method == "SUBSCRIBE":
                streams.subscribe(connection, names, session.route)
            else:
                streams.unsubscribe(connection, names)
            return Reply({"result": None, "id": request.id})
        if request.method == "LIST_SUBSCRIPTIONS":
            return Reply({"result": list(session.streams), "id": request.id})
        if request.method == "SET_PROPERTY" and isinstance(names, list) and names[:1] == ["combined"]:
            session.is_combined = bool(names[1:] and names[1])
            return Reply({"result": None, "id": request.id})
        if request.method == "GET_PROPERTY":
            return Reply({"result": session.is_combined, "id": request.id})
        return _bad_control(request, 2, "Invalid request: unknown variant or not JSON")

    # -- faults ----------------------------------------------------------------------------------

    def failure(self, fault: Fault, request: Request) -> Reply:
        """Say what goes wrong the way Binance does."""
        if fault.kind is FaultKind.RATE_LIMIT:
            status, code, text = fault.status or 429, -1003, "Too many requests."
        elif fault.kind is FaultKind.MAINTENANCE:
            status, code, text = fault.status or 503, -1001, "Internal error; unable to process your request."
        else:
            status, (code, text) = fault.status or 503, UNKNOWN
        body: dict[str, Any] = {"code": code, "msg": text}
        headers = {"Retry-After": str(fault.retry_after_s)} if status in (418, 429) else {}
        if request.raw.connection is not None:
            if headers:
                now_ms = self.desk.now_ns() // 1_000_000
                body["data"] = {"serverTime": now_ms, "retryAfter": now_ms + fault.retry_after_s * 1_000}
            return Reply({"id": request.id, "status": status, "error": body})
        return Reply(body, status, headers)

    def halve(self, request: Request, reply: Reply) -> Reply:
        """Tell the outcome of the first half of a batch's orders."""
        if isinstance(reply.body, list):
            known = len(reply.body) // 2
            unknown = {"code": UNKNOWN[0], "msg": UNKNOWN[1]}
            reply.body = [*reply.body[:known], *([unknown] * (len(reply.body) - known))]
        return reply

    # -- connections and events ------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """Take a connection for what its path says."""
        session = session_for(connection)
        if session is None:
            return False
        session.connected_ms = self.desk.now_ns() // 1_000_000
        connection.state = session
        if session.kind is SessionKind.FUTURES_USER:
            for key in session.listen_keys:
                self._usdm.listen_keys.listen(connection, key)
        elif session.streams:
            self._streams_for(session).subscribe(connection, list(session.streams), session.route)
        return True

    def closed(self, connection: Connection) -> None:
        """Forget its streams and its user data."""
        session: Session = connection.state
        if session.streams:
            self._streams_for(session).unsubscribe(connection, list(session.streams))
        self._user_data.closed(connection)
        self._usdm.listen_keys.forget(connection)

    def on_market(self, event: MarketEvent) -> None:
        """Send public data to whoever listens."""
        if self.desk.exchange.instrument(event.symbol).kind is InstrumentKind.SPOT:
            self._spot_streams.on_market(event)
        else:
            self._usdm_streams.on_market(event)

    def on_execution(self, report: ExecutionReport, account: str, wallet: str) -> None:
        """Send private data to whose it is."""
        if wallet == self._spot.wallet_name:
            for symbol, event in self._spot.events(report, account):
                self._user_data.tell(account, event, symbol)
        elif wallet == self._usdm.wallet_name:
            self._usdm.on_execution(report, account)

    def on_funding(self, payment: FundingPayment, account: str, wallet: str) -> None:
        """Tell whose funding was paid."""
        if wallet == self._usdm.wallet_name:
            self._usdm.on_funding(payment, account)

    def close(self) -> None:
        """Stop the timers."""
        self._spot_streams.close()
        self._usdm_streams.close()
        self._usdm.close()

    # -- which product ---------------------------------------------------------------------------

    def _endpoint(self, method: str) -> Endpoint | None:
        return self._product_of(method.partition(" ")[2]).by_address.get(method)

    def _named(self, connection: Connection | None, name: str) -> Endpoint | None:
        if connection is None:
            return None
        return self._product_for(connection.state).by_name.get(name)

    def _product_of(self, path: str) -> Product:
        return self._usdm if path.startswith(("/fapi/", "/dapi/")) else self._spot

    def _product_for(self, session: Session) -> Product:
        return self._usdm if session.kind in _FUTURES else self._spot

    def _streams_for(self, session: Session) -> Streams:
        return self._usdm_streams if session.kind in _FUTURES else self._spot_streams


def _is_too_fast(session: Session) -> bool:
    now_s = asyncio.get_running_loop().time()
    session.frame_times_s = [time_s for time_s in session.frame_times_s if time_s > now_s - 1.0]
    session.frame_times_s.append(now_s)
    return len(session.frame_times_s) > FRAMES_PER_SECOND[session.kind in _FUTURES]


def _bad_control(request: Request, code: int, text: str) -> Reply:
    entry = Entry("", "", {}, None, Verdict.REFUSED, f"{code} {text}")
    request.entries.append(entry)
    return Reply({"error": {"code": code, "msg": text}, "id": request.id})
