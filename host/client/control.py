"""The client of a node's control API, for Python programs; `tandem ctl` is one of them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self, TypeVar

from google.protobuf.message import Message

from host.client.address import Address
from host.client.calling import Caller, Unary
from host.client.credentials import Credentials
from host.client.nodes import Nodes
from host.client.services import NodeCalls, PluginCalls, TradingCalls, bind
from tandem.v1 import node_pb2, plugin_pb2, trading_pb2

__all__ = ["Control"]

TIMEOUT_S: Final = 10.0
PATIENCE_S: Final = 5.0
"""Long enough for a standby to take over, or for a node to be restarted."""


Request = TypeVar("Request", bound=Message)
Page = TypeVar("Page", bound=Message)


class Control:
    """Calls a node: `async with Control(["127.0.0.1:7600"]) as control: ...`.

    Each RPC is a method of `node`, `plugins` or `trading`, in snake case; it takes the request message of
    `tandem.v1`, and returns or yields the response message. Every call has a deadline (`timeout_s`), and
    raises one of the classes of `host.client` where it is not carried out. Whoever gives the addresses of
    both nodes of a pair always speaks with the primary. Used on one event loop, by any number of tasks.
    """

    def __init__(
        self,
        addresses: Sequence[str | Address],
        credentials: Credentials = Credentials(),  # noqa: B008 - it is immutable
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Connect when it is first used. Raises `AddressInvalid`.

        `patience_s` is how long a call tries a node that does not answer, within its deadline.
        """
        if not addresses:
            raise ValueError("addresses: expected at least one, was none")
        parsed = [one if isinstance(one, Address) else Address.parse(one) for one in addresses]
        self._nodes = Nodes(parsed, credentials)
        caller = Caller(self._nodes, credentials.metadata, timeout_s, patience_s)
        self.node: Final = bind(NodeCalls, node_pb2.DESCRIPTOR.services_by_name["NodeService"], caller)
        self.plugins: Final = bind(
            PluginCalls, plugin_pb2.DESCRIPTOR.services_by_name["PluginService"], caller
        )
        self.trading: Final = bind(
            TradingCalls, trading_pb2.DESCRIPTOR.services_by_name["TradingService"], caller
        )

    async def pages(self, call: "Unary[Request, Page]", request: Request) -> AsyncIterator[Page]:
        """Yield every page of a list, from the one that the request asks for on; raise `ControlError`."""
        wanted: Any = type(request)()
        wanted.CopyFrom(request)
        while True:
            page: Any = await call(wanted)
            yield page
            if not page.next_page_token:
                return
            wanted.page_token = page.next_page_token

    @property
    def address(self) -> str:
        """Return where the latest call went; empty before the first."""
        return self._nodes.address

    async def close(self) -> None:
        """End every connection; calls under way are cancelled."""
        await self._nodes.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
