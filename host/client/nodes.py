"""Finds the node to call: of the addresses given, the one that trades.

Which one that is, each node says itself, through the standard health service. It is asked again
whenever a connection broke, because then another one may have taken over.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import Struct

from host.client.address import Address, AddressInvalid
from host.client.credentials import Credentials
from host.client.errors import NotPrimary, Unreachable

__all__ = ["Node", "Nodes"]

PRIMARY: Final = "tandem.primary"
"""The health service whose status says whether a node trades."""
LOOK_S: Final = 2.0
"""A node that does not say within this time what it is, is passed over."""
MOST_HINTS: Final = 3
"""So often in a row a standby's word for where the primary is, is followed."""


class Node(Struct, frozen=True):
    """A node that answered, and the channel to it."""

    address: Address
    channel: grpc.aio.Channel
    is_primary: bool


class Nodes:
    """The nodes that may be called, one of which is in use at a time."""

    def __init__(self, addresses: Sequence[Address], credentials: Credentials) -> None:
        self._addresses = tuple(addresses)
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._in_use: Node | None = None
        self._hint: Address | None = None
        self._hints = 0

    @property
    def address(self) -> str:
        """Return the address of the node in use; empty where none is."""
        return "" if self._in_use is None else str(self._in_use.address)

    @property
    def has_others(self) -> bool:
        """Return whether there is more than one node to choose from."""
        return len(self._addresses) > 1

    async def find(self, until_s: float) -> Node:
        """Return the primary, or, where no node says it is one, the first that answers.

        `until_s` is on the monotonic clock. Raises `Unreachable` where none answers; nothing was sent
        to any node then.
        """
        if self._in_use is not None:
            return self._in_use
        hinted = () if self._hint is None else (self._hint,)
        wanted = tuple(dict.fromkeys((*hinted, *self._addresses)))
        found = await asyncio.gather(*(self._look(address, until_s) for address in wanted))
        nodes = [one for one in found if isinstance(one, Node)]
        if not nodes:
            problems = [one for one in found if isinstance(one, Unreachable)]
            if len(problems) == 1:
                raise problems[0]
            text = "; ".join(problem.text for problem in problems)
            raise Unreachable(text, code=grpc.StatusCode.UNAVAILABLE, address=problems[0].address)
        self._in_use = next((node for node in nodes if node.is_primary), nodes[0])
        return self._in_use

    def lost(self, node: Node) -> None:
        """Have the nodes looked at again before the next call: this one's connection broke."""
        if self._in_use is node:
            self._in_use = None

    def follow(self, refused: NotPrimary, node: Node) -> bool:
        """Go where a standby says the primary is; return False where that leads nowhere new.

        An address is followed only if it is as safe as the one that was given: over TLS, or on this
        machine.
        """
        self.lost(node)
        self._hints += 1
        if not refused.primary or self._hints > MOST_HINTS:
            return False
        try:
            hint = Address.parse(refused.primary)
        except AddressInvalid:
            return False
        if hint.target == node.address.target:
            return False
        self._hint = hint
        return True

    def served(self) -> None:
        """Note that the node in use did what it was asked for."""
        self._hints = 0

    async def close(self) -> None:
        """End every connection."""
        for channel in self._channels.values():
            await channel.close()

    async def _look(self, address: Address, until_s: float) -> "Node | Unreachable":
        channel = self._channels.get(address.target)
        if channel is None:
            channel = self._channels[address.target] = self._credentials.channel(address)
        health: Any = health_pb2_grpc.HealthStub(channel)
        left_s = max(min(LOOK_S, until_s - time.monotonic()), 0.001)
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=PRIMARY), timeout=left_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return Node(address, channel, is_primary=False)
            text = f"no node answers at {address}: {_why(error, is_tls=address.is_tls)}"
            return Unreachable(text, code=grpc.StatusCode.UNAVAILABLE, address=str(address))
        return Node(address, channel, answer.status == health_pb2.HealthCheckResponse.SERVING)


def _why(error: grpc.aio.AioRpcError, *, is_tls: bool) -> str:
    """Return what kept a connection from being made, in a few words."""
    details = error.details() or error.code().name
    if "CERTIFICATE_VERIFY_FAILED" in details:
        why = details.partition("CERTIFICATE_VERIFY_FAILED: ")[2].removesuffix(": OK")
        return f"its certificate is not to be trusted ({why}); name who signed it (ca)"
    if "Hostname Verification Check failed" in details:
        return "its certificate is for another name; if it is the right node, say that name (server_name)"
    if "WRONG_VERSION_NUMBER" in details:
        return "what listens there does not speak TLS"
    if details.endswith("Socket closed") and not is_tls:
        return "what listens there closed the connection; if it wants TLS, write tls: before the address"
    # gRPC tells of every layer that it went through; the last word is the system's.
    return details.removesuffix("]").rpartition("error: ")[2].rpartition(": ")[2]
