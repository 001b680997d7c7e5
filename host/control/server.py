"""The gRPC server of a node: its services, health and reflection, on the node's own event loop."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from host.control.callers import Callers
from host.control.door import DoorRefusal, TlsDoor
from host.control.front import Front
from host.control.listen import (
    Listener,
    ListenRefused,
    Security,
    TcpAddress,
    UnixAddress,
    claim_unix_socket,
)
from host.control.reflecting import Reflection
from host.control.tls import ServerTls

__all__ = ["PRIMARY", "ControlServer", "service_named"]

_log = logging.getLogger("tandem.control")

PRIMARY: Final = "tandem.primary"
"""The health service whose status says whether this node trades."""
INNER_SOCKET: Final = "control-tls.sock"
MAX_REQUEST_BYTES: Final = 1 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # Two nodes on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


def service_named(full_name: str) -> ServiceDescriptor:
    """Return a service of the protos that were imported."""
    return descriptor_pool.Default().FindServiceByName(full_name)


class ControlServer:
    """Serves a node's control API; `services` holds the methods of each service by its full name.

    `addresses` is where it listens, once started: port 0 is replaced by the one that was free.
    """

    def __init__(
        self, services: Mapping[str, object], front: Front, callers: Callers, data_dir: Path
    ) -> None:
        self.addresses: list[UnixAddress | TcpAddress] = []
        self.doors: list[TlsDoor] = []
        self._data_dir = data_dir
        self._callers = callers
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=None)
        self._names = tuple(services)
        for name, methods in services.items():
            handlers = front.handlers(service_named(name), methods)
            self._server.add_registered_method_handlers(name, handlers)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if front.has_reflection:
            names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
                Reflection(names, callers, front.note_stranger), self._server
            )
        self._sockets: list[Path] = []

    async def start(
        self,
        listeners: Sequence[Listener],
        tls: ServerTls | None = None,
        on_refused: Callable[[DoorRefusal], None] = lambda _refusal: None,
    ) -> None:
        """Listen everywhere that `listeners` says; raise `ListenRefused` for what cannot be.

        Every service is healthy from here on, `tandem.primary` is not until `set_primary`.
        """
        for listener in listeners:
            if listener.security is not Security.TLS:
                self._add(listener.address)
        behind_doors = [one.address for one in listeners if one.security is Security.TLS]
        inner = next((address for address in self.addresses if isinstance(address, UnixAddress)), None)
        if behind_doors and inner is None:
            inner = UnixAddress(self._data_dir / INNER_SOCKET)
            self._add(inner)
        await self._server.start()
        for address in behind_doors:
            assert isinstance(address, TcpAddress)
            assert inner is not None
            assert tls is not None  # `plan_listeners` made sure
            door = TlsDoor(address, tls, inner, on_refused)
            self._callers.listen_behind(door)
            self.doors.append(door)
            self.addresses.append(TcpAddress(address.host, door.start()))
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self.set_primary(is_primary=False)
        _log.info("control API on %s", ", ".join(map(str, self.addresses)) or "no address")

    async def set_primary(self, *, is_primary: bool) -> None:
        """Say through the health service whether this node trades."""
        answer = health_pb2.HealthCheckResponse
        await self._health.set(PRIMARY, answer.SERVING if is_primary else answer.NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Take no new calls, give those under way `grace_s` to end, and stop listening."""
        for door in self.doors:
            await asyncio.to_thread(door.close)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        for path in self._sockets:
            path.unlink(missing_ok=True)

    def _add(self, address: UnixAddress | TcpAddress) -> None:
        text = str(address)
        if isinstance(address, UnixAddress):
            claim_unix_socket(address, self._data_dir)
            self._sockets.append(address.path)
            text = f"unix:{address.path.absolute()}"
        try:
            port = self._server.add_insecure_port(text)
        except RuntimeError as error:
            raise ListenRefused(
                str(address),
                "cannot listen there: the port is in use, or the address is none of this machine's; "
                "stop what uses it, or set control.listen to another one, for one run with the variable "
                """TANDEM__CONTROL__LISTEN='["unix:var/b/control.sock", "127.0.0.1:7601"]'""",
            ) from error
        if isinstance(address, TcpAddress):
            address = TcpAddress(address.host, port)
            self._callers.listen_on_loopback(address)
        self.addresses.append(address)
