"""A relay of replication streams that can drop or damage what a primary sends: no wire is ever that bad twice."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tandem.v1 import replication_pb2 as pb

__all__ = ["Tamperer", "damage_a_batch", "drop_a_batch", "running_tamperer"]

METHOD = "/tandem.v1.ReplicationService/Replicate"
Alter = Callable[[pb.ReplicateResponse], bool]
"""Changes a message of the primary in place; returns False to drop it."""


class Tamperer(grpc.GenericRpcHandler):
    """Passes the streams of standbys on to `primary`. What `alter` says is done once, then it is None again."""

    def __init__(self, primary: str) -> None:
        self.primary = primary
        self.port = 0
        self.alter: Alter | None = None
        self.altered = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Take every method of every service as a stream of bytes both ways."""
        return grpc.stream_stream_rpc_method_handler(self._stream)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async with grpc.aio.insecure_channel(
            self.primary, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stream: Any = channel.stream_stream(METHOD)
            call = stream(requests)
            try:
                async for data in call:
                    passed = self._pass(data)
                    if passed is not None:
                        yield passed
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details(), error.trailing_metadata())

    def _pass(self, data: bytes) -> bytes | None:
        alter = self.alter
        if alter is None:
            return data
        message = pb.ReplicateResponse.FromString(data)
        before = message.SerializeToString()
        is_passed = alter(message)
        after = message.SerializeToString()
        if is_passed and after == before:
            return data
        self.alter = None
        self.altered += 1
        return after if is_passed else None


def drop_a_batch(message: pb.ReplicateResponse) -> bool:
    """Lose the next batch of entries."""
    return message.WhichOneof("kind") != "batch"


def damage_a_batch(message: pb.ReplicateResponse) -> bool:
    """Flip one bit in the middle of the next batch of entries."""
    if message.WhichOneof("kind") == "batch":
        frames = bytearray(message.batch.frames)
        frames[len(frames) // 2] ^= 1
        message.batch.frames = bytes(frames)
    return True


@contextmanager
def running_tamperer(primary: str) -> Iterator[Tamperer]:
    """Give a relay to the replication address `primary`, on a loop and a thread of its own."""
    tamperer = Tamperer(primary)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tamperer", daemon=True)
    thread.start()

    async def open_server() -> Any:
        server = grpc.aio.server(handlers=[tamperer])
        tamperer.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(open_server(), loop).result(10)
    try:
        yield tamperer
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
