"""A version that misbehaves after it went live is taken back before the next event."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import BTC, ETH
from reload_tools import ReloadDesk, maker, taking

from host.api import CancelOrder, OrderType, PlaceOrder
from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.core.risk_limits import Limits, RiskConfig
from host.runtime.reload import ReloadSettings, Stage
from host.runtime.reload.probation import Baseline, Probation, ProbationLimits

LIMITS = ProbationLimits(seconds=2.0, events=20)


def make_rig(folder: Path, **options: object) -> ReloadDesk:
    options.setdefault("settings", ReloadSettings(limits=LIMITS))
    rig = ReloadDesk(folder, **options)  # type: ignore[arg-type]
    rig.write(maker())
    return rig.load()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReloadDesk]:
    rig = make_rig(tmp_path)
    yield rig
    rig.close()


def after(books: int, statement: str) -> str:
    """Return code for `on_book` that runs a statement from so many books after the tenth on."""
    return f"if self.state.books >= {10 + books}:\n    {statement}\n"


def test_exception_on_the_third_event_is_rolled_back_in_that_turn(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    old = instance.strategy
    report = rig.save(maker(0.05, at_book=after(3, "raise RuntimeError('third')")))
    rig.tops(2, seconds=0)
    assert rig.offsets() == {0.05}
    sent = len(rig.desk.venue.sent)

    rig.desk.top(60_010.0, 60_010.1)

    assert instance.strategy is old
    assert instance.strategy.state.books == 13, "its state as at the swap, and what happened since"
    assert rig.desk.state_of("mm") is InstanceState.RUNNING
    assert rig.offsets() == {0.02}
    assert not [c for c in rig.desk.venue.sent[sent:] if isinstance(c, CancelOrder | PlaceOrder)]
    assert rig.moves()[1:] == [VersionState.ACTIVE, VersionState.ROLLED_BACK]
    [alert] = rig.desk.alerts("rolled_back")
    assert alert.startswith(
        f"plugin maker {report.digest[:12]}: instance mm: on_book raised RuntimeError: third ("
    )
    assert "line" in alert
    assert rig.desk.engine.state.instances["mm"].digest != report.digest
    assert rig.reports[-1].state is VersionState.ROLLED_BACK


@pytest.mark.parametrize(
    ("callback", "argument"), [("on_fill", "fill"), ("on_order", "order"), ("on_timer", "name")]
)
def test_exception_in_any_callback_is_rolled_back(rig: ReloadDesk, callback: str, argument: str) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    old = instance.strategy
    text = maker(0.05, more="def on_start(self):\n    self.ctx.set_timer('t', 1.0)\n")
    if callback == "on_fill":
        text = text.replace("self.state.fills += 1", "raise RuntimeError('bad')")
    else:
        text = maker(
            0.05,
            more=f"""
                def on_start(self):
                    self.ctx.set_timer('t', 1.0)

                def {callback}(self, {argument}):
                    raise RuntimeError('bad')
            """,
        )
    assert rig.save(text).state is VersionState.ACTIVE
    rig.tops(1, seconds=0)
    rig.desk.venue.trade(rig.desk.venue.open()[0], "0.5")
    rig.desk.settle()
    rig.desk.advance(1.5)

    assert instance.strategy is old
    assert f"{callback} raised RuntimeError: bad" in rig.desk.alerts("rolled_back")[0]
    assert instance.strategy.state.fills == 1, "the old version heard of the fill"
    assert instance.timers == {}
    assert instance.position(BTC).qty in (Decimal("0.5"), Decimal("-0.5"))


def test_hang_is_rolled_back_as_soon_as_it_returns(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    old = instance.strategy
    rig.save(maker(0.05, at_book=after(2, taking(150.0))))
    rig.tops(1, seconds=0)
    assert instance.strategy is not old

    rig.desk.top(60_010.0, 60_010.1)

    assert instance.strategy is old
    assert "a callback held the loop for 150.0 ms, the limit is 100 ms" in rig.desk.alerts("rolled_back")[0]
    assert rig.offsets() == {0.02}


def test_slow_callbacks_are_rolled_back(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    rig.desk.engine.roster.states.take_checkpoints()
    rig.tops(10)
    rig.save(maker(0.05, at_book=after(12, taking(2.0))))
    rig.tops(30, seconds=0)

    assert "its callbacks take" in rig.desk.alerts("rolled_back")[0]
    assert rig.offsets() == {0.02}


def test_many_vetoes_are_rolled_back(tmp_path: Path) -> None:
    risk = RiskConfig(instances={"mm": Limits(max_order_qty=Decimal(5))})
    rig = make_rig(tmp_path, risk=risk)
    rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05, at_book=after(1, "book = book")).replace("Decimal(self.params.size)", "Decimal(9)"))
    rig.tops(40, seconds=2.0)

    assert "of its orders and amends were refused in" in rig.desk.alerts("rolled_back")[0]
    assert rig.offsets() == {0.02}
    rig.close()


def test_storm_of_orders_is_rolled_back(tmp_path: Path) -> None:
    limits = ProbationLimits(seconds=1e6, events=20, min_commands=50)
    rig = make_rig(tmp_path, settings=ReloadSettings(limits=limits))
    rig.run("mm")
    rig.tops(30)
    rig.desk.engine.roster.states.take_checkpoints()
    rig.tops(30)
    storm = "for n in range(20):\n        self.buy_limit(book.symbol, Decimal(1), Decimal(50_000 + n))"
    rig.save(maker(0.02, at_book="if self.state.books > 60:\n    " + storm))
    rig.tops(5)

    assert "orders and amends per event, the version before" in rig.desk.alerts("rolled_back")[0]
    assert {order.price for order in rig.desk.orders("mm")} & {Decimal(50_000)} == set()
    rig.close()


ORDER_THEN_RAISE = """
if self.state.books == 11:
    self.buy_limit(book.symbol, Decimal(2), Decimal(50_000))
if self.state.books == 12:
    raise RuntimeError('bad')
"""


@pytest.mark.parametrize("policy", ["cancel", "keep", "flatten"])
def test_policy_says_what_becomes_of_the_bad_versions_orders_and_position(
    tmp_path: Path, policy: str
) -> None:
    settings = ReloadSettings(rollback_policy=policy, limits=LIMITS)  # type: ignore[arg-type]
    rig = make_rig(tmp_path, settings=settings)
    rig.write(
        maker(
            at_book="if self.state.books == 5:\n    self.buy_limit(book.symbol, Decimal(1), Decimal(40_000))"
        )
    )
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05, at_book=ORDER_THEN_RAISE))
    rig.tops(1, seconds=0)
    [placed] = [order for order in rig.desk.venue.open() if order.price == 50_000]
    rig.desk.venue.trade(placed, "1.5")
    rig.desk.settle()
    rig.tops(1, seconds=0)

    prices = {order.price for order in rig.desk.venue.open()}
    assert Decimal(40_000) in prices, "the good version's order is its own"
    assert (Decimal(50_000) in prices) is (policy == "keep")
    assert instance.position(BTC).qty == Decimal("1.5")
    # The quote that sells 1 is closing already.
    closing = [c for c in rig.desk.venue.sent if isinstance(c, PlaceOrder) and c.type is OrderType.MARKET]
    assert [c.qty for c in closing] == ([Decimal("0.5")] if policy == "flatten" else [])
    rig.close()


def test_symbol_without_an_event_since_the_swap_gets_its_quotes_back(rig: ReloadDesk) -> None:
    """The bad version pulls the quotes of a symbol in which nothing happened since."""
    rig.run("mm", BTC, ETH)
    rig.tops(9)
    rig.desk.top(3_000.0, 3_000.1, ETH)
    rig.save(maker(0.05, at_book=after(1, "self.quote('ETH-USDT')") + after(2, "raise RuntimeError('bad')")))
    rig.tops(1, seconds=0)
    assert rig.desk.venue.open(ETH) == []
    rig.tops(1, seconds=0)

    assert rig.offsets() == {0.02}
    assert rig.offsets(ETH) == {0.02}


def test_bytes_that_failed_are_not_tried_again_by_themselves(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    bad = maker(0.05, at_book=after(1, "raise RuntimeError('bad')"))
    rig.save(bad)
    rig.tops(1)

    again = rig.save(bad)
    assert again.state is None
    assert again.reason.startswith(
        "these bytes were tried before: instance mm: on_book raised RuntimeError: bad"
    )

    ordered = rig.save(bad, is_ordered=True)
    assert ordered.stages[-1].stage is Stage.WARM_UP, "tried, and found to raise on what happened lately"


def test_three_rollbacks_in_five_minutes_stop_automatic_reload_until_an_operator_says_so(
    rig: ReloadDesk,
) -> None:
    rig.run("mm")
    rig.tops(10)
    for attempt in range(3):
        at = f"if self.state.books >= {11 + attempt}:\n    raise RuntimeError('{attempt}')"
        assert rig.save(maker(0.05, at_book=at)).state is VersionState.ACTIVE
        rig.tops(1)
    assert rig.desk.alerts("reload_stopped") == [
        "plugin maker: 3 rollbacks within 300 s; reload it by hand to go on"
    ]

    assert rig.save(maker(0.07)).reason == "automatic reload of this plugin is off"
    assert rig.save(maker(0.08), is_ordered=True).state is VersionState.ACTIVE
    rig.reloader.set_auto("maker", True, "fixed")
    assert rig.save(maker(0.09)).state is VersionState.ACTIVE


def test_rollbacks_that_are_far_apart_do_not_stop_automatic_reload(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    for attempt in range(4):
        at = f"if self.state.books >= {11 + attempt}:\n    raise RuntimeError('{attempt}')"
        assert rig.save(maker(0.05, at_book=at)).state is VersionState.ACTIVE
        rig.tops(1)
        rig.desk.advance(151.0)

    assert rig.desk.alerts("reload_stopped") == []


def test_probation_ends_with_time_and_events_and_not_with_one_of_them(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05))
    rig.tops(25, seconds=0.01)
    assert rig.moves()[-1] is VersionState.ACTIVE
    rig.desk.advance(2.5)
    assert rig.moves()[-1] is VersionState.PERMANENT

    rig.save(maker(0.06))
    rig.desk.advance(30.0)
    assert rig.moves()[-1] is VersionState.ACTIVE, "it has seen nothing yet"
    rig.tops(20)
    rig.desk.advance(1.0)
    assert rig.moves()[-1] is VersionState.PERMANENT


def test_probation_of_a_stopped_instance_ends_with_time(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05))
    rig.desk.engine.roster.stop(instance, "test")
    rig.desk.advance(3.0)

    assert rig.moves()[-1] is VersionState.PERMANENT


def test_operator_promotes_and_rolls_back(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    assert not rig.reloader.promote("maker")
    rig.save(maker(0.05))
    assert rig.reloader.promote("maker")
    assert rig.moves()[-1] is VersionState.PERMANENT
    assert not rig.reloader.roll_back("maker", "too late")

    rig.save(maker(0.06))
    rig.tops(1)
    assert rig.reloader.roll_back("maker", "I do not like it")
    rig.desk.settle()
    assert rig.offsets() == {0.05}
    assert rig.moves()[-1] is VersionState.ROLLED_BACK


def test_version_saved_during_probation_goes_back_to_what_earned_its_place(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    old = instance.strategy
    permanent = rig.desk.engine.state.plugin("maker").permanent
    rig.save(maker(0.05))
    rig.tops(1)
    rig.save(maker(0.06, at_book=after(3, "raise RuntimeError('bad')")))
    assert rig.desk.engine.state.plugin("maker").permanent == permanent
    rig.tops(1)
    assert rig.offsets() == {0.06}
    assert instance.strategy.state.books == 12

    rig.tops(1)

    assert instance.strategy is old
    assert instance.strategy.state.books == 13
    assert rig.offsets() == {0.02}
    assert rig.reloader.catalog.versions["maker"].digest == permanent


def test_version_is_not_taken_back_for_one_bad_moment_of_the_machine(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05, at_book=f"if self.state.books == 15:\n    {taking(90.0)}"))
    rig.tops(40)

    assert rig.desk.alerts("rolled_back") == []
    assert rig.offsets() == {0.05}


def test_rollback_late_in_probation_replays_nothing_much(rig: ReloadDesk) -> None:
    """The old version follows while the new one trades: a rollback is no longer turn after a long time."""
    instance = rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05))
    fallback = instance.fallback
    assert fallback is not None
    rig.desk.engine.upkeep.duties.clear()  # nobody promotes it meanwhile
    for _ in range(30):
        rig.tops(30)

    assert fallback.strategy.state.books == instance.strategy.state.books == 910  # type: ignore[attr-defined]


def test_old_version_that_fails_while_it_is_kept_leaves_the_instance_quarantined(rig: ReloadDesk) -> None:
    rig.write(maker(at_book=after(2, "raise RuntimeError('the old one too')")))
    rig.reloader.close()
    rig.load()
    rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05, at_book=after(3, "raise RuntimeError('bad')")))
    rig.tops(3)

    assert rig.desk.state_of("mm") is InstanceState.QUARANTINED
    assert "the old one too" in rig.desk.engine.state.instances["mm"].reason
    assert rig.desk.venue.open() == []


def test_parameters_set_during_probation_hold_after_a_rollback(rig: ReloadDesk) -> None:
    instance = rig.run("mm", size=1)
    rig.tops(10)
    rig.save(maker(0.05, at_book=after(2, "raise RuntimeError('bad')")))
    use = rig.reloader.uses["mm"]
    rig.reloader.uses["mm"] = type(use)(use.offer, {"size": 4})
    rig.tops(2)

    assert instance.strategy.params.size == 4
    rig.tops(1)
    assert {order.qty for order in rig.desk.venue.open()} == {Decimal(4)}


def test_journal_tells_every_stage_of_a_reload_that_came_back(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(10)
    rig.save(maker(0.05, at_book=after(1, "raise RuntimeError('bad')")))
    rig.tops(1)

    assert rig.stages()[-3:] == [("swap", "passed"), ("probation", "failed"), ("roll_back", "passed")]
    digests = [m.digest for m in rig.desk.entries if isinstance(m, e.InstanceRevised)]
    assert len(digests) == 2
    assert digests[1] == rig.desk.engine.state.plugin("maker").permanent


class _Counts:
    commands = refusals = 0

    def __call__(self) -> tuple[int, int]:
        return self.commands, self.refusals


def test_guards_say_nothing_of_a_version_that_does_what_the_one_before_did() -> None:
    counts, said = _Counts(), list[str]()
    before = Baseline(events=100, commands=200, refusals=60, handler_ns=100 * 800_000)
    clock = iter(range(0, 10**12, 700_000))
    probation = Probation(
        ProbationLimits(), before, 0, counts=counts, stopwatch_ns=lambda: next(clock), on_fault=said.append
    )

    def handle(_event: object) -> None:
        counts.commands += 3
        counts.refusals += 1

    watched = probation.watch(handle)
    for _ in range(200):
        watched(None)
    assert said == []
    assert probation.counted.events == 200
    assert watched.__name__ == "handle"


def offering(*names: str, offset: float = 0.02) -> str:
    """Return a plugin whose one strategy goes by these names."""
    given = ", ".join(f'"{name}": Maker' for name in names)
    text = maker(offset, head="from host.api import hookimpl")
    return f"{text}\n@hookimpl\ndef provide_strategies():\n    return {{{given}}}\n"


def test_name_that_a_version_on_probation_gave_up_is_kept_for_the_version_before(rig: ReloadDesk) -> None:
    rig.reloader.close()
    rig.write(offering("maker", "spare"))
    rig.write(offering("other", offset=0.03), "other.py")
    rig.load()
    rig.run("mm")
    rig.tops(10)
    assert rig.save(offering("maker", offset=0.05)).state is VersionState.ACTIVE

    rig.write(offering("other", "spare"), "other.py")
    refused = rig.reload("other")
    rig.reloader.roll_back("maker", "said the operator")

    assert refused.reason.startswith('strategy "spare" is offered by the version that plugin maker may yet')
    assert rig.reloader.catalog.strategy("spare").version.name == "maker"
    rig.save(offering("maker", offset=0.06))
    rig.reloader.promote("maker")
    assert rig.reload("other", is_ordered=True).state is VersionState.PERMANENT
    assert rig.reloader.catalog.strategy("spare").version.name == "other"
