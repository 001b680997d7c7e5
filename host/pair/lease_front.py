"""Serves a SQLite lease over HTTP, in the words of etcd's gateway.

A file cannot be cut off from one process and not from another; a connection can. So the nodes of a pair
reach their SQLite lease through this server, each over a link of its own, as they would reach a store on
another machine. The record is read and swapped by the same code that a node uses on such a file.
"""

import base64
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from failover.lease import LeaseError, LeaseStore, Record
from failover.lease.etcd import KEY_PREFIX
from failover.lease.record import decode_record, encode_record

__all__ = ["LeaseFront"]

DEADLINE_S: Final = 1.0
"""For one look into the file. The nodes give up earlier, by deadlines of their own."""

_Answer = dict[str, Any]


class LeaseFront:
    """Speaks the part of etcd's JSON gateway that `failover.lease.etcd` uses, on a free loopback port."""

    def __init__(self, store: LeaseStore) -> None:
        self.port = 0
        self._store: Final = store
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        app = web.Application()
        for path, answer in (
            ("/v3/kv/range", self._range),
            ("/v3/kv/txn", self._txn),
            ("/v3/cluster/member/list", self._members),
        ):
            app.router.add_post(path, _handler(answer))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Answer no more; the store is its owner's to close."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _range(self, query: _Answer) -> _Answer:
        if "range_end" in query:
            names = await self._store.cells(DEADLINE_S)
            return {"kvs": [{"key": _base64((KEY_PREFIX + name).encode())} for name in names]}
        record = await self._store.read(_cell(query["key"]), DEADLINE_S)
        if record is None:
            return {}
        return {"kvs": [{"key": query["key"], "value": _base64(encode_record(record))}]}

    async def _txn(self, query: _Answer) -> _Answer:
        (condition,), (act,) = query["compare"], query["success"]
        cell = _cell(condition["key"])
        expected = None if condition["target"] == "VERSION" else _record(condition["value"], cell)
        if "request_put" in act:
            new = _record(act["request_put"]["value"], cell)
            return {"succeeded": await self._store.swap(expected, new, DEADLINE_S)}
        if expected is None:
            raise web.HTTPBadRequest(text="a record is removed by its value")
        return {"succeeded": await self._store.remove(expected, DEADLINE_S)}

    async def _members(self, _query: _Answer) -> _Answer:
        return {"members": [{"name": "pair"}]}


def _handler(
    answer: Callable[[_Answer], Awaitable[_Answer]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = await answer(msgspec.json.decode(await request.read(), type=_Answer))
        except LeaseError as error:
            return _response({"error": str(error)}, 503)
        return _response(body, 200)

    return handle


def _response(body: _Answer, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _cell(key: str) -> str:
    return base64.b64decode(key).decode().removeprefix(KEY_PREFIX)


def _record(value: str, cell: str) -> Record:
    return decode_record(base64.b64decode(value), cell)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
