"""One strategy in a worker: it does what it does inline."""

import asyncio
from decimal import Decimal
from pathlib import Path

import msgspec
from desk_tools import BTC
from isolation_tools import QUOTER, WorkerDesk, children, is_alive, until, worker_desk

from host.api import OrderStatus
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.risk_limits import Limits, RiskConfig


def test_it_quotes_hears_of_fills_and_saves_what_it_heard(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q")
            await desk.started()
            await desk.top_and_quotes()
            bid = next(order for order in desk.desk.venue.open() if order.side == "buy")
            desk.desk.venue.trade(bid, "0.4")
            desk.desk.settle()
            await until(lambda: desk.saved().get("fills") == 1, "the fill is in the saved state")
            assert desk.saved()["traded"] == "0.4"
            await desk.handled()
            assert desk.unheard() == 0
            assert desk.desk.engine.state.position("q", BTC).qty == Decimal("0.4")

    asyncio.run(run())


def test_stopping_it_runs_on_stop_saves_and_ends_the_process(tmp_path: Path) -> None:
    source = QUOTER + "\n    def on_stop(self) -> None:\n        self.state.starts = 99\n"

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q", source)
            pid = await desk.started()
            await desk.top_and_quotes()
            desk.desk.engine.roster.stop(instance, "enough")
            desk.desk.settle()
            assert desk.workers.are_busy
            await until(lambda: not desk.workers.are_busy, "it says bye")
            assert desk.saved()["starts"] == 99
            assert desk.desk.venue.open() == []
            await until(lambda: not is_alive(pid), "its process ends")

    asyncio.run(run())


SLOW_STOP = """
    def on_stop(self) -> None:
        import time
        from pathlib import Path

        while not Path("LET_GO").exists():
            time.sleep(0.001)
        self.state.fills += 1
"""


def test_one_that_takes_its_place_at_once_has_the_state_of_its_last_moment(tmp_path: Path) -> None:
    let_go = tmp_path / "let go"
    source = QUOTER + SLOW_STOP.replace("LET_GO", str(let_go))

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q", source, stop_ns=30_000_000_000)
            await desk.started()
            await desk.top_and_quotes()
            desk.desk.engine.roster.stop(instance, "to be replaced")
            desk.desk.settle()
            again = desk.add("q", source, stop_ns=30_000_000_000)
            desk.add("other")
            await desk.started("other")
            assert desk.proxy().status().state == "waiting", (
                "not so long as the one before may still say something"
            )
            let_go.touch()
            await desk.started()
            desk.desk.engine.roster.stop(again, "enough")
            await until(lambda: not desk.workers.are_busy, "it says bye")
            assert (desk.saved()["starts"], desk.saved()["fills"]) == (2, 2)

    asyncio.run(run())


def test_what_one_raises_at_its_end_is_not_the_fault_of_the_one_that_took_its_place(tmp_path: Path) -> None:
    let_go = tmp_path / "let go"
    source = QUOTER + SLOW_STOP.replace("LET_GO", str(let_go)).replace(
        "self.state.fills += 1", "raise ValueError('at the end')"
    )

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q", source, stop_ns=30_000_000_000)
            await desk.started()
            await desk.top_and_quotes()
            desk.desk.engine.roster.stop(instance, "to be replaced")
            desk.desk.settle()
            desk.add("q")
            let_go.touch()
            await desk.started()
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            assert desk.desk.engine.state.instances["q"].state is InstanceState.RUNNING
            assert desk.alerts("quarantined") == []
            (text,) = desk.alerts("worker_lost")
            assert text.startswith("instance q, which was removed: on_stop raised ValueError: at the end (")

    asyncio.run(run())


def test_an_exception_quarantines_it_as_inline(tmp_path: Path) -> None:
    source = QUOTER.replace(
        "p = self.params", "p = self.params\n        if book.bid > 70_000: raise ValueError('too high')"
    )

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source)
            pid = await desk.started()
            await desk.top_and_quotes()
            desk.desk.top(70_001.0, 70_002.0)
            await desk.reach(InstanceState.QUARANTINED)
            desk.desk.settle()
            (text,) = desk.desk.alerts("quarantined")
            assert "on_book raised ValueError: too high (q.py" in text
            assert desk.desk.venue.open() == []
            await until(lambda: not is_alive(pid), "its process ends")
            assert desk.desk.alerts("worker_lost") == []

    asyncio.run(run())


PLACER = '''
from decimal import Decimal

from host.api import BookTop, NoParams, Order, State, Strategy


class Seen(State):
    placed: list[str] = []
    statuses: list[str] = []


class Placer(Strategy[NoParams]):
    """Buys once at each book, too much where the bid is high, and writes down what it hears."""

    state: Seen

    def on_book(self, book: BookTop) -> None:
        qty = Decimal(10**9) if book.bid > 60_500 else Decimal(1)
        self.state.placed.append(self.buy_limit(book.symbol, qty, Decimal(50_000)))
        open_now = [order.client_id for order in self.ctx.open_orders()]
        assert self.state.placed[-1] in open_now

    def on_order(self, order: Order) -> None:
        self.state.statuses.append(f"{order.client_id} {order.status} {order.reason}")
'''


def test_an_order_of_its_own_has_its_id_at_once_and_a_refusal_is_told(tmp_path: Path) -> None:
    risk = RiskConfig(node=Limits(max_order_qty=Decimal(100)))

    async def run() -> None:
        async with worker_desk(tmp_path, risk) as desk:
            desk.add("q", PLACER)
            await desk.started()
            desk.desk.top()
            await until(desk.open, "its order rests")
            desk.desk.top(60_600.0, 60_601.0)
            await until(lambda: len(desk.saved().get("statuses", ())) >= 2, "it hears of both")
            first, second = desk.saved()["placed"]
            assert [order.client_id for order in desk.desk.venue.open()] == [first]
            opened, refused = desk.saved()["statuses"]
            assert opened == f"{first} {OrderStatus.OPEN} "
            assert refused.startswith(f"{second} rejected order_qty: ")
            ids = [entry.client_id for entry in desk.desk.entries if isinstance(entry, e.PlaceSent)]
            assert len(ids) == len(set(ids)) == 1

    asyncio.run(run())


NUMBER = """

class Number(float):
    \"\"\"Stands for the numbers of a library, such as NumPy's.\"\"\"
"""


def test_it_may_quote_in_a_librarys_own_kind_of_number(tmp_path: Path) -> None:
    source = QUOTER.replace("book.bid - p.away", "Number(book.bid - p.away)") + NUMBER

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source)
            await desk.started()
            await desk.top_and_quotes()
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_what_cannot_be_sent_quarantines_it_and_not_who_shares_its_process(tmp_path: Path) -> None:
    source = QUOTER.replace("book.bid - p.away", "object()")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("bad", source, group="makers")
            desk.add("good", group="makers")
            pid = await desk.started("bad")
            assert await desk.started("good") == pid
            desk.desk.top()
            await desk.reach(InstanceState.QUARANTINED, "bad")
            (text,) = desk.alerts("quarantined")
            assert "sending what it wants raised TypeError: object cannot be sent" in text
            await desk.top_and_quotes(60_100.0, 60_100.1)
            assert is_alive(pid)
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_new_parameters_reach_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q")
            await desk.started()
            await desk.top_and_quotes()
            instance.set_params(msgspec.structs.replace(instance.strategy.params, away=0.5))
            desk.desk.top(60_010.0, 60_011.0)
            await until(lambda: desk.rests_at(60_009.5, 60_011.5), "quotes by the new parameters")

    asyncio.run(run())


def test_a_restart_gives_it_its_state_and_what_it_has_not_heard(tmp_path: Path) -> None:
    async def first() -> WorkerDesk:
        desk = WorkerDesk(tmp_path)
        desk.add("q")
        await desk.started()
        await desk.top_and_quotes()
        bid = next(order for order in desk.desk.venue.open() if order.side == "buy")
        desk.workers.close()  # its worker hears no more
        desk.desk.venue.trade(bid, "0.25")
        desk.desk.settle()
        assert desk.unheard() > 0
        return desk

    async def second(before: WorkerDesk) -> None:
        desk = before.restart()
        desk.add("q")
        await desk.started()
        await until(lambda: desk.saved().get("fills") == 1, "the fill from before")
        assert desk.saved()["starts"] == 2
        assert desk.saved()["traded"] == "0.25"
        await desk.handled()
        assert desk.unheard() == 0
        desk.workers.close()
        desk.desk.journal.close()

    before = asyncio.run(first())
    asyncio.run(second(before))
    assert children() == []
