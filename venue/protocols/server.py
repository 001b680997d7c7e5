"""Serves the protocols and the admin HTTP: one listening address each, one exchange behind all."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from venue.house import ServerError
from venue.opening import OpenVenue
from venue.protocols.accounts import Accounts
from venue.protocols.admin import Admin
from venue.protocols.audience import FeedListener, FrontListener
from venue.protocols.course import Course
from venue.protocols.faults import FaultPlan
from venue.protocols.front import Desk
from venue.protocols.market_feed import MarketFeed
from venue.protocols.registry import FRONTS
from venue.protocols.request_log import RequestLog
from venue.protocols.settings import Settings

__all__ = ["ProtocolServer"]

_log = logging.getLogger(__name__)
MAX_BODY_BYTES: Final = 1 << 20
HOUR_NS: Final = 3_600_000_000_000


class ProtocolServer:
    """The protocols of one venue. In-process tests use `faults`, `requests` and `urls` directly."""

    def __init__(self, venue: OpenVenue, settings: Settings, *, seed: int = 0) -> None:
        unknown = sorted(set(settings.listen) - set(FRONTS))
        if unknown:
            raise ServerError(f"protocol must be one of {', '.join(FRONTS)}, was {unknown[0]!r}")
        self.faults: Final = FaultPlan(seed)
        for fault in settings.fault:
            self.faults.add(fault)
        self.accounts: Final = Accounts(venue.running.exchange, settings.account)
        self.requests: Final = RequestLog(Path(settings.requests) if settings.requests else None)
        self.addresses: dict[str, str] = {}
        """`host:port` by protocol, and `admin`, once started: with the real port where 0 was asked."""
        self._running = venue.running
        self._settings = settings
        self._feed = MarketFeed(venue.running.exchange)
        self.courses: Final[Mapping[str, Course]] = {
            name: Course(
                FRONTS[name](
                    Desk(
                        name,
                        venue.running,
                        self.accounts,
                        self._feed,
                        self.faults,
                        is_recorded=venue.is_recorded,
                        has_rate_limits=settings.has_rate_limits,
                    )
                ),
                venue.running,
                self.faults,
                self.requests,
            )
            for name in settings.listen
        }
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen. Raises `ServerError` for an address that cannot be used."""
        exchange = self._running.exchange
        if self.courses:
            exchange.report_executions()
            every_ns = int(self._settings.funding_hours * HOUR_NS)
            if every_ns:
                exchange.funding.schedule(every_ns, self._settings.funding_rate, self._running.clock.now_ns())
            self._running.watch(FeedListener(self._feed))
            for course in self.courses.values():
                self._running.watch(FrontListener(course))
        for name, course in self.courses.items():
            app = web.Application(client_max_size=MAX_BODY_BYTES)
            app.router.add_route("*", "/{path:.*}", course.handle)
            await self._listen(name, app, self._settings.listen[name])
        if self._settings.admin:
            admin = Admin(self.faults, self.requests, self.courses, self._running, self.accounts)
            await self._listen("admin", admin.application(), self._settings.admin)

    async def close(self) -> None:
        """End all connections and stop listening."""
        for course in self.courses.values():
            await course.close()
        for runner in self._runners:
            await runner.cleanup()
        self.requests.close()

    async def _listen(self, name: str, app: web.Application, address: str) -> None:
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit():
            raise ServerError(f"{name}: listen must be host:port, was {address!r}")
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, host, int(port), reuse_address=True).start()
        except OSError as error:
            raise ServerError(
                f"{name}: cannot listen on {address}: {error}; choose another address"
            ) from error
        found = runner.addresses[0]
        self.addresses[name] = f"{found[0]}:{found[1]}"
        _log.info("venue speaks %s on %s", name, self.addresses[name])
