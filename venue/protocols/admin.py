"""The venue's admin HTTP: faults on command, the request log, and what an account really has.

For tests and demonstrations, on a port of its own and without credentials: listen on loopback only.

    GET    /faults                 every fault, with how often it matched and struck
    POST   /faults                 put one in force (JSON as in `[[fault]]`); its number
    DELETE /faults[/NUMBER]        take back one, or all
    GET    /requests?since=N       lines of the request log after number N, as JSON lines
    POST   /disconnect?protocol=P  break every WebSocket of a protocol, or of all
    GET    /accounts               names of the accounts
    GET    /accounts/NAME/WALLET   balances, positions and open orders as the engine has them
    GET    /clock                  wall and market time in ns
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from host.api import TandemError
from venue.protocols.accounts import Accounts
from venue.protocols.course import Course
from venue.protocols.faults import FaultPlan, parse_fault
from venue.protocols.request_log import RequestLog
from venue.running import RunningExchange

__all__ = ["Admin"]

_encoder = msgspec.json.Encoder(decimal_format="string")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The handlers."""

    def __init__(
        self,
        faults: FaultPlan,
        requests: RequestLog,
        courses: Mapping[str, Course],
        running: RunningExchange,
        accounts: Accounts,
    ) -> None:
        self._faults = faults
        self._requests = requests
        self._courses = courses
        self._running = running
        self._accounts = accounts

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[_say_what_is_wrong])
        app.router.add_get("/faults", self._list_faults)
        app.router.add_post("/faults", self._add_fault)
        app.router.add_delete("/faults", self._clear_faults)
        app.router.add_delete("/faults/{number:\\d+}", self._remove_fault)
        app.router.add_get("/requests", self._list_requests)
        app.router.add_post("/disconnect", self._disconnect)
        app.router.add_get("/accounts", self._list_accounts)
        app.router.add_get("/accounts/{name}/{wallet}", self._show_account)
        app.router.add_get("/clock", self._show_clock)
        return app

    async def _list_faults(self, request: web.Request) -> web.Response:
        return _json(self._faults.listed())

    async def _add_fault(self, request: web.Request) -> web.Response:
        data = msgspec.json.decode(await request.read(), type=dict[str, Any])
        return _json({"number": self._faults.add(parse_fault(data))})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return _json({})

    async def _remove_fault(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if not self._faults.remove(number):
            raise web.HTTPNotFound(text=f"there is no fault {number}; GET /faults lists them")
        return _json({})

    async def _list_requests(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdigit():
            raise web.HTTPBadRequest(text=f"since must be a line's number, was {since!r}")
        lines = self._requests.since(int(since))
        body = b"".join(_encoder.encode(line) + b"\n" for line in lines)
        return web.Response(body=body, content_type="application/x-ndjson")

    async def _disconnect(self, request: web.Request) -> web.Response:
        protocol = request.query.get("protocol", "")
        cut = sum(course.cut() for name, course in self._courses.items() if protocol in ("", name))
        return _json({"disconnected": cut})

    async def _list_accounts(self, request: web.Request) -> web.Response:
        return _json({"accounts": self._accounts.names(), "protocols": tuple(self._courses)})

    async def _show_account(self, request: web.Request) -> web.Response:
        wallet = f"{request.match_info['name']}/{request.match_info['wallet']}"
        exchange = self._running.exchange
        if not exchange.has_account(wallet):
            raise web.HTTPNotFound(text=f"no wallet {wallet} was used yet; GET /accounts lists the accounts")
        snapshot = exchange.account(wallet).snapshot(self._running.clock.now_ns())
        orders = [record.snapshot(0) for record in exchange.records(wallet).open()]
        fills = exchange.records(wallet).fills_since(0)
        return _json(
            {
                "balances": [msgspec.structs.asdict(each) for each in snapshot.balances],
                "positions": [msgspec.structs.asdict(each) for each in snapshot.positions],
                "open_orders": [msgspec.structs.asdict(each) for each in orders],
                "fills": [msgspec.structs.asdict(each) for each in fills],
            }
        )

    async def _show_clock(self, request: web.Request) -> web.Response:
        clock = self._running.clock
        return _json({"wall_ns": clock.wall_now_ns(), "market_ns": clock.now_ns()})


@web.middleware
async def _say_what_is_wrong(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (TandemError, msgspec.DecodeError) as error:
        return web.Response(status=400, text=str(error))


def _json(data: object) -> web.Response:
    return web.Response(body=_encoder.encode(data), content_type="application/json")
