"""A venue trades a symbol no more: an adapter is reloaded without it, unless something of ours is left in it."""

import asyncio
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from desk_tools import BTC, ETH, spot
from wire_tools import WireDesk, play

from host.api import BookTop, ConnectionChanged, Depth, Instrument, Side
from host.core.entries import VersionState
from host.runtime.reload import ReloadReport


@pytest.fixture
def desk(tmp_path: Path) -> WireDesk:
    desk = WireDesk(tmp_path)
    desk.wire.instruments = [spot(BTC), spot(ETH)]
    return desk


def quote(desk: WireDesk, symbol: str, bid: float) -> None:
    """Have the venue quote a symbol on the connection that is live."""
    now_ns = desk.clock.now_ns()
    desk.feed.adapter.ctx.market(BookTop(symbol, bid, 1.0, bid + 1.0, 1.0, now_ns, now_ns))


def list_(desk: WireDesk, *instruments: Instrument) -> None:
    """Have the venue list these, and the live adapter read the list."""
    desk.wire.instruments = list(instruments)
    desk.feed.adapter.ctx.listed(instruments)


async def delist(desk: WireDesk) -> None:
    quote(desk, ETH, 3_000.0)
    await desk.let(3)
    list_(desk, spot(BTC))
    await desk.until(
        lambda: not [order for order in desk.engine.state.orders.values() if order.symbol == ETH]
    )


async def reload(desk: WireDesk) -> ReloadReport:
    return await desk.edit(
        "self.wire.attach(self)", "self.wire.attach(self)\n        self.wire.followed = symbols"
    )


def test_the_new_version_goes_live_without_it(desk: WireDesk) -> None:
    async def story() -> None:
        old = desk.feed.adapter
        await delist(desk)
        report = await reload(desk)
        assert report.state is VersionState.ACTIVE, report.reason
        assert desk.wire.followed == [BTC]  # type: ignore[attr-defined]
        await desk.until(lambda: old not in desk.wire.connections)
        new = desk.feed.adapter
        for is_up in (False, True):
            new.ctx.report(ConnectionChanged("market", is_up, "", desk.clock.now_ns()))
        desk.wire.give_book(new)
        await desk.let(400)
        assert desk.feed.adapter is new, "on probation it is not blamed for a book that nobody can tell"
        assert desk.strategy.numbers("top")[-1] == desk.wire.seq

    play(desk, story)


def test_what_the_version_before_still_delivers_of_it_is_not_waited_for(
    desk: WireDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.runtime.reload.candidate.READY_DEADLINE_S", 2.0)

    async def story() -> None:
        old, tick = desk.feed.adapter, desk.wire.tick

        def tick_both() -> None:
            tick()
            if desk.feed.adapter is old:
                quote(desk, ETH, 3_000.0)

        desk.wire.tick = tick_both  # type: ignore[method-assign]
        await delist(desk)
        report = await reload(desk)
        assert report.state is VersionState.ACTIVE, report.reason

    play(desk, story)


def test_it_is_followed_again_once_it_is_listed_again(desk: WireDesk) -> None:
    async def story() -> None:
        await delist(desk)
        report = await reload(desk)
        assert report.state is VersionState.ACTIVE, report.reason
        list_(desk, spot(BTC), msgspec.structs.replace(spot(ETH), contract_size=Decimal(10)))
        await desk.let(10)
        assert desk.wire.followed == [BTC]  # type: ignore[attr-defined]
        list_(desk, spot(BTC), spot(ETH))
        await desk.until(lambda: desk.wire.followed == [ETH])  # type: ignore[attr-defined]
        quote(desk, ETH, 3_100.0)
        assert desk.feed.symbols[ETH].book.is_valid
        await desk.until(lambda: len([o for o in desk.engine.state.orders.values() if o.symbol == ETH]) == 2)

    play(desk, story)


def test_the_version_before_is_gone_back_to_and_goes_on_as_it_was(desk: WireDesk) -> None:
    async def story() -> None:
        old, now_ns = desk.feed.adapter, desk.clock.now_ns()
        old.ctx.market(Depth(ETH, ((3_000.0, 1.0),), ((3_001.0, 1.0),), True, 1, 1, -1, now_ns, now_ns))
        await delist(desk)
        desk.step_ns //= 100
        await desk.leave_in_flight()  # keeps the old connection open
        report = await reload(desk)
        assert report.state is VersionState.ACTIVE, report.reason
        assert desk.reloader.roll_back("wired", "said the operator")
        assert desk.feed.adapter is old
        assert desk.feed.symbols[ETH].book.is_valid
        list_(desk, spot(BTC), spot(ETH))
        quote(desk, ETH, 3_100.0)
        assert desk.feed.symbols[ETH].book.is_valid
        desk.wire.let_answers_out()

    play(desk, story)


def test_it_is_refused_while_something_of_ours_is_left_in_it_and_says_what_to_do(desk: WireDesk) -> None:
    async def story() -> None:
        quote(desk, ETH, 3_000.0)
        await desk.until(lambda: len([o for o in desk.wire.open() if o.symbol == ETH]) == 2)
        ask = next(o for o in desk.wire.open() if o.symbol == ETH and o.side is Side.SELL)
        desk.wire.fill(ask.client_id, "0.5")
        await delist(desk)
        report = await reload(desk)
        assert report.state is VersionState.REFUSED
        assert (
            "mm holds -0.5 of it, of which a version that connects now would know nothing; see"
            in report.reason
        )
        assert "or restart the node" in report.reason

    play(desk, story)


def test_an_order_of_which_the_fate_is_not_known_has_it_refused(desk: WireDesk) -> None:
    async def story() -> None:
        quote(desk, ETH, 3_000.0)
        await desk.let(3)
        desk.wire.is_deaf = True
        desk.wire.take = lambda adapter, command: None  # type: ignore[method-assign] # the venue answers nothing
        list_(desk, spot(BTC))
        (resting, *_) = [order for order in desk.engine.state.orders.values() if order.symbol == ETH]
        report = await reload(desk)
        assert report.state is VersionState.REFUSED
        assert f"{resting.client_id}" in report.reason
        assert "may still rest there" in report.reason

    play(desk, story)


def test_a_symbol_that_only_the_new_version_does_not_list_has_it_refused(desk: WireDesk) -> None:
    async def story() -> None:
        desk.wire.instruments = [spot(BTC)]
        report = await reload(desk)
        assert report.state is VersionState.REFUSED
        assert f"it does not list {ETH}, which is in use; if the venue has changed that, the" in report.reason
        list_(desk, spot(BTC))
        assert desk.alerts("instrument_gone")
        await desk.until(lambda: not any(o.symbol == ETH for o in desk.engine.state.orders.values()))
        report = await desk.reload(is_ordered=True)
        assert report.state is VersionState.ACTIVE, report.reason

    play(desk, story)


def test_one_that_comes_back_meanwhile_has_it_refused(desk: WireDesk) -> None:
    async def story() -> None:
        await delist(desk)
        desk.wire.is_mute = True  # so that the new version waits
        reloading = asyncio.ensure_future(reload(desk))
        await desk.until(lambda: len(desk.wire.connections) == 2)
        list_(desk, spot(BTC), spot(ETH))
        report = await reloading
        assert report.state is VersionState.REFUSED
        assert f"{ETH} is traded again by now; `tandem ctl reload` it" in report.reason

    play(desk, story)
