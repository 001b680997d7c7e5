"""What the tests of exchange adapters share: the host's side, a scripted venue, and the vectors."""

import asyncio
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
import uvloop
from aiohttp import WSMsgType, web

from host.api import Instrument, MarketEvent, Report

REPO = Path(__file__).parents[3]
FIXTURES = Path(os.environ.get("TANDEM_FIXTURES", REPO.parent / "shared" / "venues"))
DEADLINE_S = 30.0

R = TypeVar("R")
P = ParamSpec("P")


def story(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine on the loop that a node runs on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(asyncio.wait_for(test(*args, **kwargs), 2 * DEADLINE_S))

    return run


def vector_files(pattern: str) -> list[Any]:
    """Return a test parameter per file of the vectors; one that is skipped where there are none."""
    files = sorted(FIXTURES.glob(pattern))
    if not files:
        skip = pytest.mark.skip(
            reason=f"no {pattern} in {FIXTURES}; set TANDEM_FIXTURES to the venue vectors"
        )
        return [pytest.param(FIXTURES / pattern, marks=skip, id="absent")]
    return [pytest.param(file, id=str(file.relative_to(FIXTURES))) for file in files]


def vectors(pattern: str) -> list[Any]:
    """Return a test parameter per vector in the files; one that is skipped where there are none."""
    out = []
    for file in sorted(FIXTURES.glob(pattern)):
        for index, vector in enumerate(json.loads(file.read_text())):
            name = vector.get("id") or vector.get("call") or vector.get("name") or str(index)
            out.append(pytest.param(vector, id=f"{file.stem}:{name}"))
    return out or vector_files(pattern)


async def eventually(is_so: Callable[[], object], what: str = "it") -> None:
    """Wait until `is_so()`; fail after a generous deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0.001)
    assert is_so(), what


class FakeHost:
    """The host's side of an adapter: the wall's time, unless set, and everything that was handed over."""

    def __init__(self, account: str = "main") -> None:
        self.account = account
        self.data_dir = ""
        self.shared: dict[str, Any] = {}
        self.events: list[MarketEvent] = []
        self.reports: list[Report] = []
        self.lists: list[Sequence[Instrument]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.shift_ns = 0
        """How far this host's clock is ahead of the wall's."""

    def now_ns(self) -> int:
        return time.time_ns() + self.shift_ns

    def market(self, event: MarketEvent) -> None:
        self.events.append(event)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def listed(self, instruments: Sequence[Instrument]) -> None:
        self.lists.append(instruments)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.append(task)
        return task

    def of(self, kind: type[R]) -> list[R]:
        """Return what was handed over of one type, oldest first."""
        return [item for item in [*self.events, *self.reports] if isinstance(item, kind)]

    async def heard(self, kind: type[R], count: int = 1) -> R:
        """Wait until `count` of a type were handed over, and return the last of these."""
        await eventually(lambda: len(self.of(kind)) >= count, f"{count} of {kind.__name__}")
        return self.of(kind)[count - 1]

    async def stop(self) -> None:
        """End the tasks; raise what one of them raised."""
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


class ScriptedVenue:
    """A server whose WebSocket and HTTP answers are a test's own, on a port of its own.

    `on_message(socket, text)` is called for each message of a client; `on_request(request)` answers HTTP.
    """

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.paths: list[str] = []
        self.messages: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.on_connect: Callable[[web.WebSocketResponse], Awaitable[None]] | None = None
        self.on_message: Callable[[web.WebSocketResponse, str], Awaitable[None]] | None = None
        self.on_request: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.answers_pings = True
        self.refuses = False
        self.port = 0

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> list[web.WebSocketResponse]:
        return [socket for socket in self.sockets if not socket.closed]

    def live_at(self, part: str) -> list[web.WebSocketResponse]:
        """Return the open sockets whose address contains `part`."""
        pairs = zip(self.sockets, self.paths, strict=True)
        return [socket for socket, path in pairs if part in path and not socket.closed]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            self.requests.append((request.method, request.path_qs))
            assert self.on_request is not None, f"unexpected request {request.path_qs}"
            return await self.on_request(request)
        if self.refuses:
            return web.Response(status=503)
        socket = web.WebSocketResponse(autoping=self.answers_pings, max_msg_size=0)
        await socket.prepare(request)
        self.sockets.append(socket)
        self.paths.append(request.path_qs)
        if self.on_connect is not None:
            await self.on_connect(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.messages.append(message.data)
                if self.on_message is not None:
                    await self.on_message(socket, message.data)
        return socket


@asynccontextmanager
async def scripted_venue() -> AsyncIterator[ScriptedVenue]:
    """Serve a scripted venue until the block ends."""
    venue = ScriptedVenue()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", venue._serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    venue.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield venue
    finally:
        await runner.cleanup()
