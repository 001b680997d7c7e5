"""Calls with the conventions of the API: a deadline on each, and repeated where that is safe.

A call that only looks is repeated when its connection broke. A change is repeated because it carries a
request id, which the node carries out once; the client makes one where the caller gave none. Nothing
else is ever repeated, and nothing that a node answered, other than that it is starting, is not the
primary, or took another role meanwhile.
"""

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from host.client.errors import (
    ControlError,
    DeadlineExceeded,
    NotPrimary,
    Unavailable,
    Unreachable,
    error_of,
)
from host.client.nodes import Node, Nodes

__all__ = ["Caller", "Unary", "Watch"]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Answer = TypeVar("Answer")

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.5
_ROLE_CHANGED: Final = "ROLE_CHANGED"
_NOT_YET: Final = frozenset({"STARTING", _ROLE_CHANGED})
"""Reasons for which a node refuses a call that it, or another one, will take in a moment."""


class Caller:
    """Makes calls to whichever of the nodes is the primary.

    `timeout_s` is the deadline of a call that has none of its own. `patience_s` is how long a node that
    does not answer is tried again; a call's own deadline may end it before.
    """

    def __init__(self, nodes: Nodes, metadata: Any, timeout_s: float, patience_s: float) -> None:
        self.nodes = nodes
        self.metadata = metadata
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    async def call(
        self, ask: Callable[[Node, float], Awaitable[Answer]], timeout_s: float | None, request_id: str
    ) -> Answer:
        """Ask a node, given it and the seconds that are left; again where that is safe.

        Raises `ControlError`. `request_id` is the request's own, empty for one that only looks.
        """
        until_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        pauses = self.pauses(until_s)
        was_sent = False
        while True:
            try:
                node = await self.nodes.find(until_s)
                if time.monotonic() >= until_s:
                    raise DeadlineExceeded(
                        "the time was over before the call was sent; nothing was done",
                        code=grpc.StatusCode.DEADLINE_EXCEEDED,
                        address=str(node.address),
                    )
                was_sent = True
                answer = await self._ask(ask, node, until_s)
                self.nodes.served()
            except NotPrimary as refused:
                if not self.nodes.follow(refused, node) and not await pauses.wait():
                    raise
            except (Unavailable, DeadlineExceeded) as error:
                is_role = error.reason == _ROLE_CHANGED
                if (is_role or isinstance(error, Unreachable | DeadlineExceeded)) and was_sent:
                    error.request_id = request_id
                if is_role:
                    self.nodes.lost(node)
                is_worth_it = isinstance(error, Unreachable) or error.reason in _NOT_YET
                if not is_worth_it or not await pauses.wait():
                    raise
            else:
                return answer

    def pauses(self, until_s: float = math.inf) -> "Pauses":
        """Return the pauses between the attempts of one call that has until `until_s`."""
        return Pauses(min(until_s, time.monotonic() + self._patience_s))

    async def _ask(
        self, ask: Callable[[Node, float], Awaitable[Answer]], node: Node, until_s: float
    ) -> Answer:
        try:
            return await ask(node, until_s - time.monotonic())
        except grpc.aio.AioRpcError as error:
            failure = error_of(error, str(node.address))
            if isinstance(failure, Unreachable):
                self.nodes.lost(node)
            raise failure from error


class Unary(Generic[Request, Response]):
    """One RPC that answers once: `await control.node.get_status(GetStatusRequest())`."""

    def __init__(self, caller: Caller, method: MethodDescriptor) -> None:
        self._caller = caller
        self._path = _path(method)
        self._decode = message_factory.GetMessageClass(method.output_type).FromString
        self._mutates = "request_id" in method.input_type.fields_by_name

    async def __call__(self, request: Request, *, timeout_s: float | None = None) -> Response:
        """Return the answer; raise `ControlError`. `timeout_s` is this call's own deadline."""
        request_id = ""
        if self._mutates:
            if not request.request_id:  # type: ignore[attr-defined]
                own, request = request, type(request)()
                request.CopyFrom(own)  # the caller's stays as it is, and can be sent again as another
                request.request_id = uuid.uuid4().hex  # type: ignore[attr-defined]
            request_id = request.request_id  # type: ignore[attr-defined]
        data = request.SerializeToString()

        async def ask(node: Node, left_s: float) -> Response:
            rpc: Any = node.channel.unary_unary(self._path, response_deserializer=self._decode)
            answer: Response = await rpc(data, timeout=left_s, metadata=self._caller.metadata)
            return answer

        return await self._caller.call(ask, timeout_s, request_id)


class Watch(Generic[Request, Response]):
    """One RPC that goes on answering: `async for change in control.plugins.watch_instances(...)`.

    It has no deadline, but finding the node does. A broken connection is made again: where the request has
    `from_lsn` it goes on after the last answer, other watches begin again with all there is.
    """

    def __init__(self, caller: Caller, method: MethodDescriptor) -> None:
        self._caller = caller
        self._path = _path(method)
        self._decode = message_factory.GetMessageClass(method.output_type).FromString
        self._resumes = "from_lsn" in method.input_type.fields_by_name

    async def __call__(self, request: Request) -> AsyncGenerator[Response]:
        """Yield each answer; raise `ControlError`."""
        wanted = type(request)()
        wanted.CopyFrom(request)
        pauses: Pauses | None = None
        has_moved = False
        while True:
            node = await self._caller.call(_itself, None, "")
            if has_moved and not node.is_primary and self._caller.nodes.has_others:
                # Between two leaders: a standby would answer too, and without books and marks.
                pauses = pauses or self._caller.pauses()
                if await pauses.wait():
                    self._caller.nodes.lost(node)
                    continue
            rpc: Any = node.channel.unary_stream(self._path, response_deserializer=self._decode)
            call = rpc(wanted.SerializeToString(), metadata=self._caller.metadata)
            try:
                async for response in call:
                    pauses, has_moved = None, False
                    if self._resumes:
                        wanted.from_lsn = response.next_lsn  # type: ignore[attr-defined]
                    yield response
                return
            except grpc.aio.AioRpcError as error:
                failure = error_of(error, str(node.address))
                if isinstance(failure, NotPrimary):
                    if not self._caller.nodes.follow(failure, node):
                        raise failure from error
                    continue
                self._caller.nodes.lost(node)
                pauses = pauses or self._caller.pauses()
                has_moved = has_moved or failure.reason == _ROLE_CHANGED
                is_behind = has_moved and failure.reason == "LSN_TOO_NEW"  # a standby may be, for a moment
                if not (is_behind or self._may_go_on(failure, wanted)) or not await pauses.wait():
                    raise failure from error
            finally:
                call.cancel()

    def _may_go_on(self, failure: ControlError, wanted: Message) -> bool:
        """Return whether the watch can be taken up again without a gap that nobody hears of."""
        is_broken = isinstance(failure, Unreachable) or failure.reason == _ROLE_CHANGED
        return is_broken and (not self._resumes or bool(wanted.from_lsn))  # type: ignore[attr-defined]


class Pauses:
    """Waits longer each time, until the patience is at its end."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self._longest_s = FIRST_PAUSE_S

    async def wait(self) -> bool:
        """Wait a moment, and return True; or return False at once where there is no time for that."""
        # Drawn anew each time, so that many clients of one node do not come back all at once.
        pause_s = random.uniform(self._longest_s / 2, self._longest_s)
        if time.monotonic() + pause_s >= self._until_s:
            return False
        self._longest_s = min(2 * self._longest_s, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)
        return True


async def _itself(node: Node, _left_s: float) -> Node:
    return node


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
