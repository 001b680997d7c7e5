"""Adapters that behave badly on their way in, at the swap, and on probation."""

import asyncio
from collections import deque
from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import BTC
from wire_tools import MS, WireDesk, assert_heard_once, play

from host.api import (
    BookTop,
    ConnectionChanged,
)
from host.core.entries import VersionState
from host.runtime.reload import ReloadSettings
from host.runtime.reload.probation import ProbationLimits


@pytest.fixture
def desk(tmp_path: Path) -> WireDesk:
    return WireDesk(tmp_path)


@pytest.mark.parametrize("lagging", ["neither", "old", "new"])
def test_change_between_connections_that_are_not_level_delivers_each_event_once(
    desk: WireDesk, lagging: str
) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10  # threads that import take real time, in which no connection lags for seconds
        resting = desk.resting
        reloading = asyncio.ensure_future(desk.edit("VERSION", "2"))
        await desk.until(lambda: len(wire.connections) == 2)
        new = wire.connections[1]
        await desk.let(3)
        if lagging != "neither":
            wire.lagging[old if lagging == "old" else new] = deque()
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.let(3)
        for adapter in list(wire.lagging):
            wire.catch_up(adapter)
        await desk.let(30)

        assert desk.feed.adapter is new
        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert desk.resting == resting, "the same orders, amended"
        await desk.until(lambda: wire.connections == [new])
        assert not desk.alerts("book_fault")

    play(desk, story)


@pytest.mark.parametrize("lagging", ["neither", "old", "new"])
def test_way_back_to_a_connection_that_is_still_open_delivers_each_event_once(
    desk: WireDesk, lagging: str
) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10
        await desk.leave_in_flight()  # keeps the old connection open
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        new = desk.feed.adapter
        await desk.let(10)
        if lagging != "neither":
            wire.lagging[old if lagging == "old" else new] = deque()
        await desk.let(10)
        assert desk.reloader.roll_back("wired", "said the operator")
        assert desk.feed.adapter is old
        filled = wire.fill(desk.resting[0], "0.5")
        await desk.let(10)
        for adapter in list(wire.lagging):
            wire.catch_up(adapter)
        await desk.let(10)
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [old])
        await desk.until(lambda: desk.feed.links[0].market == desk.feed.market)
        await desk.let(100)

        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert desk.strategy.fills == [filled.trade_id]
        assert not desk.alerts("book_fault")

    play(desk, story)


def test_version_saved_before_the_change_to_another_is_complete_takes_over_where_the_account_is(
    desk: WireDesk,
) -> None:
    async def story() -> None:
        wire = desk.wire
        desk.step_ns = MS // 10
        reloading = asyncio.ensure_future(desk.edit("VERSION", "2"))
        await desk.until(lambda: len(wire.connections) == 2)
        second = wire.connections[1]
        await desk.let(3)
        backlog = wire.lagging[second] = deque()
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.until(lambda: wire.connections == [second])
        assert backlog, "it is still to tell what the first one told"

        reloading = asyncio.ensure_future(desk.edit("VERSION", "3"))
        await desk.until(lambda: len(wire.connections) == 2)
        third = wire.connections[1]
        for _ in range(9):  # of which the account was told
            second.ctx.market(backlog.popleft())
        await desk.let(30)
        assert desk.feed.adapter is second, (
            "what comes before the beginning of the third one is still to come"
        )
        wire.catch_up(second)
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.let(30)

        assert desk.feed.adapter is third
        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("trade")[-1] == wire.seq
        await desk.until(lambda: len(desk.feed.links) == 1 and third.ctx.market == desk.feed.market)  # type: ignore[comparison-overlap]

    play(desk, story)


def test_wrong_numbers_of_a_version_taken_back_do_not_outlive_it(desk: WireDesk) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10
        await desk.leave_in_flight()
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        now_ns = desk.clock.now_ns()
        desk.feed.adapter.ctx.market(BookTop(BTC, 1.0, 1.0, 2.0, 1.0, now_ns, now_ns, 1 << 40))
        assert desk.reloader.roll_back("wired", "said the operator")
        wire.let_answers_out()
        desk.step_ns = 10 * MS
        await desk.until(lambda: desk.feed.links[0].market == desk.feed.market)
        await desk.let(100)

        assert desk.feed.adapter is old
        book = desk.feed.symbols[BTC].book
        assert book.is_valid and book.top is not None and book.top.seq == wire.seq
        assert desk.strategy.numbers("top")[-1] == wire.seq

    play(desk, story)


def test_answer_to_a_request_in_flight_comes_through_the_old_connection(desk: WireDesk) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10  # so that the reload is done before the answers are overdue
        await desk.leave_in_flight()
        in_flight = [order.client_id for order in desk.engine.state.orders.values()]
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        assert desk.feed.adapter is not old
        assert old in wire.connections, "it is waited for"
        assert {order.status for order in desk.engine.state.orders.values()} == {"pending_new"}
        # A fill that both connections tell, before the answer.
        filled = wire.fill(in_flight[0], "0.5")
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [desk.feed.adapter])

        assert {order.status for order in desk.engine.state.orders.values()} <= {
            "open", "partially_filled", "pending_amend"
        }  # fmt: skip
        assert sorted(desk.resting) == sorted(in_flight)
        assert desk.strategy.fills == [filled.trade_id]
        assert desk.engine.state.position("mm", BTC).qty in (Decimal("0.5"), Decimal("-0.5"))

    play(desk, story)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("return self.wire.instruments", "1 / 0", "connect raised ZeroDivisionError"),
        ("return self.wire.instruments", "await asyncio.sleep(60)", "connect did not end within 0.05 s"),
        ("return self.wire.instruments", "return []", f"it does not list {BTC}, which is in use"),
        ("self.wire.attach(self)", "raise ValueError('no')", "subscribe raised ValueError: no"),
        ("self.wire.attach(self)", "__import__('sys').exit(3)", "subscribe raised RuntimeError: it called sys.exit(3)"),
        ("self.wire.attach(self)", "pass", f"not ready after 0.2 s: {BTC}: no data"),
        ("self.wire.take(self, command)", "1 / 0", "send raised ZeroDivisionError"),
        ("self.wire.take(self, command)", "pass", "no answer yet about open orders, fills, balances"),
        ("self.wire.attach(self)", "self.wire.attach(self); self.ctx.spawn(self.die(), 'die')\n\n"
         "    async def die(self): raise OSError('gone')", "its code raised OSError: gone"),
    ],
)  # fmt: skip
def test_version_that_cannot_serve_is_refused_and_the_old_one_never_noticed(
    desk: WireDesk, monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str
) -> None:
    monkeypatch.setattr("host.runtime.reload.candidate.CONNECT_DEADLINE_S", 0.05)
    monkeypatch.setattr("host.runtime.reload.candidate.READY_DEADLINE_S", 0.2)

    async def story() -> None:
        adapter, resting = desk.feed.adapter, desk.resting
        report = await desk.edit(old, new)
        assert report.state is VersionState.REFUSED
        assert reason in report.reason
        await desk.until(lambda: desk.wire.connections == [adapter] and len(desk.feed.links) == 1)
        await desk.let(5)
        assert desk.feed.adapter is adapter and desk.resting == resting
        assert desk.feed.is_settled
        assert_heard_once(desk.strategy)

    play(desk, story)


@pytest.mark.parametrize(
    ("orders", "fills", "balances", "reason"),
    [
        ("()", "()", "balances", "is open here, it does not see it"),
        ("orders[:1]", "()", "balances", "is open here, it does not see it"),
        ("(replace(orders[0], price=orders[0].price - 1), *orders[1:])", "()", "balances", "it sees"),
        ("(*orders, replace(orders[0], client_id='tdt1i1n99'))", "()", "balances", "is not open here"),
        ("orders", "(fill,)", "balances", "it sees fill 77 of order"),
        ("orders", "()", "balances[1:]", "balance "),
    ],
)
def test_version_that_sees_another_account_is_refused(
    desk: WireDesk, monkeypatch: pytest.MonkeyPatch, orders: str, fills: str, balances: str, reason: str
) -> None:
    monkeypatch.setattr("host.runtime.reload.candidate.READY_DEADLINE_S", 0.2)

    async def story() -> None:
        other = f"""
        from decimal import Decimal
        from msgspec.structs import replace
        from host.api import AccountSnapshot, Balance, FillsSnapshot, Liquidity, OpenOrdersSnapshot, OrderFilled
        now_ns = self.ctx.now_ns()
        orders = tuple(replace(order, ts_ns=now_ns) for order in self.wire.open())
        balances = tuple(Balance(c, total) for c, total in self.wire.balances.items())
        fill = OrderFilled(orders[0].client_id, orders[0].symbol, orders[0].side, "77", orders[0].price,
            Decimal("0.1"), Decimal(0), "USDT", Liquidity.MAKER, 1)
        self.ctx.report(OpenOrdersSnapshot({orders}, now_ns))
        self.ctx.report(FillsSnapshot({fills}, now_ns))
        self.ctx.report(AccountSnapshot({balances}, (), now_ns))
"""
        desk.is_still = True  # orders that are being amended are compared with nothing
        await desk.let(200)
        report = await desk.edit("        self.wire.take(self, command)\n", other)
        assert report.state is VersionState.REFUSED
        assert reason in report.reason

    play(desk, story)


@pytest.mark.parametrize(
    ("trouble", "is_old_open"),
    [("losses", True), ("losses", False), ("raises", True), ("raises", False), ("bad book", False)],
)
def test_version_that_breaks_on_probation_makes_way_for_the_one_before(
    desk: WireDesk, trouble: str, is_old_open: bool
) -> None:
    # Virtual time runs ahead of the threads that close the old version: probation must not end meanwhile.
    desk.reloader.settings = ReloadSettings(limits=ProbationLimits(seconds=36_000.0, events=1))

    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        if is_old_open:
            # An order whose answer is awaited keeps the old connection open.
            desk.step_ns = MS // 10
            await desk.leave_in_flight()
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        new = desk.feed.adapter
        if not is_old_open:
            await desk.until(lambda: wire.connections == [new])
        now_ns = desk.clock.now_ns()
        if trouble == "losses":
            for _ in range(3):
                for is_up in (False, True):
                    new.ctx.report(ConnectionChanged("market", is_up, "", now_ns))
        elif trouble == "raises":
            new.ctx.spawn(_die(), "die")
        else:
            wire.deaf.add(new)
            new.ctx.market(BookTop(BTC, 2.0, 1.0, 1.0, 1.0, now_ns, now_ns, 1 << 40))
        await desk.until(lambda: desk.feed.adapter is not new)
        desk.step_ns = 10 * MS
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [desk.feed.adapter] and desk.feed.is_settled)
        await desk.let(300)

        assert (desk.feed.adapter is old) == is_old_open
        assert type(desk.feed.adapter) is type(old)
        assert desk.feed.symbols[BTC].book.is_valid
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert len(desk.resting) == 2, "it quotes"
        assert desk.alerts("rolled_back")
        assert not desk.engine.must_stop

    play(desk, story)


async def _die() -> None:
    raise OSError("gone")


def test_reload_repairs_an_account_whose_adapter_lost_its_connection(desk: WireDesk) -> None:
    async def story() -> None:
        old = desk.feed.adapter
        desk.feed.adapter.ctx.report(ConnectionChanged("market", False, "", desk.clock.now_ns()))
        desk.wire.deaf.add(old)
        await desk.let(100)
        assert not desk.feed.is_settled and not desk.resting
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.until(lambda: desk.feed.is_settled and len(desk.resting) == 2)
        assert desk.strategy.numbers("top")[-1] == desk.wire.seq

    play(desk, story)


def test_staged_mode_leaves_nothing_behind(tmp_path: Path) -> None:
    desk = WireDesk(tmp_path, mode="stage")

    async def story() -> None:
        adapter = desk.feed.adapter
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.STAGED, report.reason
        await desk.until(lambda: desk.wire.connections == [adapter] and len(desk.feed.links) == 1)
        report = await desk.reloader.activate("wired", report.digest)
        assert report.state is VersionState.ACTIVE
        assert desk.feed.adapter is not adapter

    play(desk, story)
