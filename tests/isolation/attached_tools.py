"""A desk that stand-alone clients attach to, each in a thread of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from desk_tools import ACCOUNT, BTC
from isolation_tools import QUOTER, WorkerDesk, until
from servers import free_ports

from host.api import Strategy
from host.client.trading import TradingClient
from host.config import ClientSection
from host.isolation.attached import Attached
from host.isolation.door import Door, door_of
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.settings import WorkerSettings
from host.isolation.workers import Workers
from host.loader import import_version
from host.runtime.instance import Instance
from host.runtime.roster import InstanceSpec


class ClientDesk(WorkerDesk):
    """A desk with doors for clients; instances of both kinds may stand beside each other."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.cls: dict[str, type[Strategy[Any]]] = {}
        self.doors: dict[str, Door] = {}
        self.attached: dict[str, Attached] = {}
        self.clients: list[TradingClient] = []

    def open_door(
        self, name: str = "q", source: str = QUOTER, section: ClientSection | None = None, **settings: Any
    ) -> Instance:
        """Create an instance that a client runs, and start it."""
        section = section or ClientSection()
        offer = self.offer(name, source)
        module = import_version(offer.version)
        self.cls[name] = getattr(module, offer.cls.__name__)
        proxy: Proxy = proxy_class(offer.cls)(offer.cls.params_type(), self.workers.item)
        door = self.doors[name] = door_of(self.folder / "clients", name, section, lambda _: None)
        wanted = WorkerSettings(**{"on_loss": section.on_loss, **settings})
        self.attached[name] = Attached(self.desk.engine, self.workers, name, proxy, door, wanted)
        spec = InstanceSpec(
            name=name,
            account=ACCOUNT,
            symbols=(BTC,),
            plugin=offer.name,
            digest=offer.version.digest,
            params_json=msgspec.json.encode(proxy.params),
            tolerance_bps=0.0,
        )
        instance = self.desk.engine.roster.add(spec, proxy, (), self.desk.feed.spawn)
        self.desk.engine.roster.start(instance)
        return instance

    def client(self, instance: str = "q", **options: Any) -> TradingClient:
        """Return a client that knows the instance's token; it ends with the desk."""
        client = TradingClient.of(self.folder, instance, **{"answer_s": 30.0, **options})
        self.clients.append(client)
        return client

    def restart(self) -> "ClientDesk":
        """Return the desk as a new process finds it."""
        self.workers.close()
        again = object.__new__(ClientDesk)
        again.folder, again.of = self.folder, {}
        again.cls, again.doors, again.attached, again.clients = {}, {}, {}, self.clients
        again.desk = self.desk.restart()
        again.workers = Workers(again.desk.engine, self.folder / "workers")
        return again

    def is_attached(self, name: str = "q") -> bool:
        session = self.proxy(name).session
        return session is not None and session.outlet is not None and session.outlet.handled > 0

    async def attached_to(self, name: str = "q") -> None:
        """Wait until a client is at work."""
        await until(lambda: self.is_attached(name), f"a client runs {name}")


def two_ports() -> int:
    """Return a free port whose next one is free as well."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class Running:
    """A client that runs a strategy in a thread; `stop` ends it and raises what it raised."""

    def __init__(self, client: TradingClient, work: Callable[[], Any]) -> None:
        self.client = client
        self.task = asyncio.ensure_future(asyncio.to_thread(work))

    async def stop(self) -> None:
        self.client.stop()
        await self.task


def running(client: TradingClient, strategy: type[Strategy[Any]], **options: Any) -> Running:
    """Have a client run a strategy."""
    return Running(client, lambda: client.run(strategy, **options))


@asynccontextmanager
async def client_desk(folder: Path) -> AsyncIterator[ClientDesk]:
    """A desk whose doors are all shut afterwards."""
    desk = ClientDesk(folder)
    try:
        yield desk
    finally:
        for client in desk.clients:
            client.stop()
        desk.workers.close()
        desk.desk.journal.close()
