"""A strategy's end of the protocol, played by a test message by message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from desk_tools import ACCOUNT, BTC, Desk

from host.api import Candle, Depth, Fill, NoParams, Order, Strategy, Ticker, Trade
from host.isolation.outlet import Item
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.session import Session
from host.isolation.settings import WorkerSettings
from host.runtime.roster import InstanceSpec


class Everything(Strategy[NoParams]):
    """Hears of everything."""

    def on_depth(self, depth: Depth) -> None: ...

    def on_trade(self, trade: Trade) -> None: ...

    def on_ticker(self, ticker: Ticker) -> None: ...

    def on_candle(self, candle: Candle) -> None: ...

    def on_order(self, order: Order) -> None: ...

    def on_fill(self, fill: Fill) -> None: ...


class Peer:
    """A strategy's end, played by the test, in JSON; `said` is all that the host said to it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.desk = Desk(folder)
        self.said: list[dict[str, Any]] = []
        self.ends: list[str] = []
        self.is_listening = True
        self.is_reading = False
        self.later: list[Callable[[], None]] = []
        self.pauses: list[int] = []
        engine = self.desk.engine
        last: list[Item] = []

        def item(event: Any) -> Item:
            if not last or last[0].event is not event:
                last[:] = [Item(event)]
            return last[0]

        proxy: Proxy = proxy_class(Everything)(NoParams(), item)
        spec = InstanceSpec(
            name="q", account=ACCOUNT, symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}",
            tolerance_bps=0.0,
        )  # fmt: skip
        self.instance = engine.roster.add(spec, proxy, (), self.desk.feed.spawn)
        engine.roster.start(self.instance)
        self.settings = WorkerSettings(**settings)
        self.again()

    def again(self) -> "Peer":
        """Let another one begin, to whom nothing was said yet."""
        engine, proxy = self.desk.engine, self.instance.strategy
        assert isinstance(proxy, Proxy)
        self.said.clear()
        self.turns = 0
        self.session = proxy.session = Session(
            engine,
            self.instance,
            engine.roster.ids_of("q", engine.state.instances["q"].number),
            self.settings,
            self,
            takes_over=False,
            on_welcomed=lambda: None,
            on_failed=lambda why: self.ends.append(f"failed: {why}"),
            on_bye=lambda why: self.ends.append(f"bye: {why}"),
            on_cut_off=lambda why: self.ends.append(f"cut off: {why}"),
        )
        return self

    # -- the way ---------------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        self.said.append(json.loads(body))

    def is_subscribed(self) -> bool:
        return self.is_listening

    def soon(self, work: Callable[[], None]) -> None:
        if self.is_reading:
            self.later.append(work)
        else:
            work()

    def pause(self, for_ns: int) -> None:
        self.pauses.append(for_ns)

    # -- what the test says ----------------------------------------------------------------------

    def say(self, **message: Any) -> None:
        self.session.on_message(json.dumps(message).encode())

    def hello(self, **fields: Any) -> "Peer":
        self.say(**{"type": "hello", "protocol": 1, "run": "r", **fields})
        return self

    def turn(self, *requests: Any, **fields: Any) -> None:
        self.turns = fields.pop("seq", self.turns + 1)
        handled = fields.pop("handled", self.seq)
        self.say(type="turn", seq=self.turns, handled=handled, requests=requests, **fields)
        self.desk.settle()

    # -- what the host said ----------------------------------------------------------------------

    @property
    def seq(self) -> int:
        return max((message["seq"] for message in self.said if message["type"] == "events"), default=0)

    @property
    def welcome(self) -> dict[str, Any]:
        (welcome,) = (message for message in self.said if message["type"] == "welcome")
        return welcome

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        batches = [message["events"] for message in self.said if message["type"] == "events"]
        return [event for batch in batches for event in batch if kind in ("", event["type"])]

    def reports(self, kind: str) -> list[dict[str, Any]]:
        told = [report for event in self.events("reports") for report in event["reports"]]
        return [report["data"] for report in told if report["type"] == kind]

    def id(self, number: int) -> str:
        return f"{self.welcome['ids']['stem']}{self.welcome['ids']['first'] + number:x}"

    def place(self, client_id: str, **order: Any) -> dict[str, Any]:
        wanted = {"symbol": BTC, "side": "buy", "qty": "1", "price": "50000", **order}
        return {"type": "place", "client_id": client_id, "order": wanted}

    @property
    def refused(self) -> int:
        return self.session.conduct.refused
