"""Windows, triggers and order between instances, on a desk whose clock the test moves."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, Desk, ScriptedVenue

from host.config import AccountSection, InstanceSection, NodeConfig, ScheduleSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.loader import Catalog, Version
from host.runtime.instance import Instance
from host.runtime.instance_control import InstanceControl, NotNow
from host.runtime.instance_maker import InstanceMaker
from host.runtime.reload import ProbationLimits, Reloader, ReloadSettings

PLUGIN = """
from decimal import Decimal
from host.api import BookTop, Params, Quote, State, Strategy

class MakerParams(Params, frozen=True):
    fails_on_bid: float = 0.0
    buys_on_timer: bool = False
    is_silent: bool = False

class MakerState(State):
    books: int = 0

class Maker(Strategy[MakerParams]):
    state: MakerState
    heard = []

    def note(self, what):
        self.heard.append(f"{self.ctx.instance} {what}")

    def on_start(self) -> None:
        self.note("start")

    def on_stop(self) -> None:
        self.note("stop")

    def on_timer(self, name) -> None:
        self.note(name)
        if self.params.buys_on_timer:
            self.buy_market("BTC-USDT", Decimal("0.001"))

    def on_book(self, book: BookTop) -> None:
        self.note("book")
        self.state.books += 1
        if book.bid == self.params.fails_on_bid:
            raise ValueError("told to")
        if not self.params.is_silent:
            self.quote(book.symbol, Quote(book.bid - 1, Decimal(1), book.ask + 1, Decimal(1)))
"""
RUNNING, PAUSED, STOPPED = InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPED
QUARANTINED = InstanceState.QUARANTINED
ZURICH = "Europe/Zurich"
OFFICE = ScheduleSection(time_zone=ZURICH, windows=("mon-fri 09:00-17:30",))
SECOND = 1_000_000_000


def ns(text: str) -> int:
    """Return a time of a week without changes of the clock, such as `Mon 09:00`, or `Mon 09:00:30`."""
    day, clock = text.split()
    date = 16 + ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun").index(day)
    moment = datetime.fromisoformat(f"2026-11-{date}T{clock}").replace(tzinfo=ZoneInfo(ZURICH))
    return int(moment.timestamp()) * SECOND


class ScheduleDesk(Desk):
    """A desk whose instances come from sections of a configuration, as a node's do."""

    def __init__(
        self, folder: Path, sections: tuple[InstanceSection, ...], venue: ScriptedVenue | None, now_ns: int
    ) -> None:
        super().__init__(folder / "journal", venue, now_ns=now_ns)
        self.home = folder
        plugins = folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "maker.py").write_text(PLUGIN)
        catalog = Catalog.load([plugins], entry_points=False)
        self.config = NodeConfig(account=(AccountSection(name=ACCOUNT, exchange="x"),), instance=sections)
        limits = ReloadSettings(limits=ProbationLimits(seconds=5.0, events=3))
        self.reloader = Reloader(self.engine, catalog, limits, _no_probe, lambda _version: None)
        self.maker = InstanceMaker(self.engine, lambda: self.reloader.catalog)
        self.control = InstanceControl(self.engine, self.reloader, self.maker, lambda: self.config, {})
        prepared = [self.maker.prepare(section) for section in sections]
        made = []
        for one in prepared:
            made.append(self.maker.install(one))
            self.reloader.take_on(one.section.name, one.use, one.model_uses)
        by_name = {section.name: section for section in sections}
        made[0].strategy.heard.clear()  # the class, and what is written there, is as old as its bytes
        for instance in self.engine.scheduler.in_order(made):
            self.maker.start(instance, by_name[instance.instance])
        self.engine.scheduler.started()
        self.settle()

    def again(self, now_ns: int) -> "ScheduleDesk":
        """Return the desk as the next process finds it at some later time."""
        self.journal.close()
        self.venue.waiting.clear()
        return ScheduleDesk(self.home, self.config.instance, self.venue, now_ns)

    def until(self, text: str, week: int = 0) -> None:
        """Let time pass up to a moment of that week, or a later one, with what is scheduled on the way."""
        until_ns = ns(text) + week * 7 * 86_400 * SECOND
        while self.clock.now_ns() < until_ns:
            due_ns = max(self.engine.scheduler.due_ns, self.clock.now_ns() + 1)
            self.clock.set(min(due_ns, until_ns))
            self.engine.upkeep.on_time(self.clock.now_ns())
            self.settle()

    def instance(self, name: str) -> Instance:
        return self.engine.roster.instances[name]

    def where(self, name: str) -> tuple[InstanceState, str]:
        """Return the state of an instance, and what of the scheduler put it there."""
        record = self.engine.state.instances[name]
        assert record.state is self.instance(name).state
        return record.state, record.by

    def quotes(self) -> int:
        return len(self.venue.open(BTC))

    @property
    def heard(self) -> list[str]:
        """Take what the instances heard since this was last asked."""
        heard: list[str] = next(iter(self.engine.roster.instances.values())).strategy.heard  # type: ignore[attr-defined]
        taken = heard[:]
        heard.clear()
        return taken


async def _no_probe(_version: Version) -> None:
    return None


def section(name: str = "mm", **settings: Any) -> InstanceSection:
    settings = {"schedule": OFFICE, **settings}
    return InstanceSection(name=name, plugin="maker", account=ACCOUNT, symbols=(BTC,), **settings)


def office(**changes: Any) -> ScheduleSection:
    return msgspec.structs.replace(OFFICE, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def desk_at(folder: Path, text: str, *sections: InstanceSection) -> ScheduleDesk:
    return ScheduleDesk(folder, sections or (section(),), None, ns(text))


# -- windows -----------------------------------------------------------------------------------------


def test_quotes_are_pulled_when_the_window_closes_and_come_back_when_it_opens(folder: Path) -> None:
    desk = desk_at(folder, "Fri 17:29")
    desk.top()
    assert desk.quotes() == 2

    desk.until("Fri 17:30")
    assert (desk.where("mm"), desk.quotes()) == ((PAUSED, "schedule"), 0)
    desk.top(60_010.0, 60_010.1)
    assert desk.quotes() == 0
    assert desk.heard[-1] == "mm book"  # it goes on receiving

    desk.until("Mon 09:00", week=1)
    assert desk.where("mm") == (RUNNING, "")
    desk.top()
    assert desk.quotes() == 2
    moves = [entry for entry in desk.entries if isinstance(entry, e.InstanceChanged)]
    assert [(m.state, m.by) for m in moves[-2:]] == [(PAUSED, "schedule"), (RUNNING, "")]
    assert moves[-2].reason == (
        "outside its trading windows (mon-fri 09:00-17:30, Europe/Zurich) until Mon 2026-11-23 09:00 CET"
    )


def test_instance_that_starts_outside_of_its_windows_does_not_trade_until_they_open(folder: Path) -> None:
    desk = desk_at(folder, "Mon 08:59")
    desk.top()
    assert (desk.where("mm"), desk.quotes()) == ((PAUSED, "schedule"), 0)
    assert not [entry for entry in desk.entries if isinstance(entry, e.PlaceSent)]
    desk.until("Mon 09:00")
    desk.top()
    assert (desk.where("mm"), desk.quotes()) == ((RUNNING, ""), 2)


def test_event_that_comes_before_the_clock_is_looked_at_is_not_traded_on_after_the_end(folder: Path) -> None:
    desk = desk_at(folder, "Mon 17:29")
    desk.top()
    desk.clock.set(ns("Mon 17:30"))  # at once, as for a process that was frozen
    sent = len(desk.venue.sent)
    desk.top(60_010.0, 60_010.1)
    assert {type(command).__name__ for command in desk.venue.sent[sent:]} == {"CancelOrder"}
    assert (desk.where("mm"), desk.quotes()) == ((PAUSED, "schedule"), 0)


@pytest.mark.parametrize("outside", ["pause", "stop"])
def test_what_an_operator_paused_stays_paused_when_a_window_opens(folder: Path, outside: str) -> None:
    desk = desk_at(folder, "Mon 17:00", section(schedule=office(outside=outside)))
    desk.control.pause("mm", "by hand")
    desk.until("Tue 10:00")
    assert desk.where("mm") == (PAUSED, "")
    desk.control.resume("mm", "by hand")
    assert desk.where("mm") == (RUNNING, "")


def test_pause_by_hand_of_an_instance_that_its_schedule_paused_outlives_that(folder: Path) -> None:
    desk = desk_at(folder, "Mon 18:00")
    desk.control.pause("mm", "by hand")
    assert desk.where("mm") == (PAUSED, "")
    desk.until("Tue 10:00")
    assert desk.where("mm") == (PAUSED, "")


def test_resume_outside_of_the_windows_takes_back_the_pause_by_hand_alone(folder: Path) -> None:
    desk = desk_at(folder, "Mon 17:00")
    desk.control.pause("mm", "by hand")
    desk.until("Mon 18:00")
    desk.control.resume("mm", "by hand")
    assert desk.where("mm") == (PAUSED, "schedule")
    with pytest.raises(NotNow, match="outside its trading windows") as refusal:
        desk.control.resume("mm", "by hand")
    assert refusal.value.reason == "HELD_BY_SCHEDULE"
    desk.until("Tue 09:00")
    assert desk.where("mm") == (RUNNING, "")


def test_what_an_operator_stopped_stays_stopped_even_if_its_schedule_had_stopped_it_before(
    folder: Path,
) -> None:
    desk = desk_at(folder, "Mon 17:00", section(schedule=office(outside="stop")))
    desk.until("Mon 18:00")
    assert desk.where("mm") == (STOPPED, "schedule")
    desk.control.stop("mm", "sam", "by hand")
    desk.until("Tue 10:00")
    assert desk.where("mm") == (STOPPED, "")
    assert desk.again(ns("Wed 10:00")).instance("mm").state is STOPPED


def test_instance_stopped_by_its_schedule_comes_back_anew_with_its_state(folder: Path) -> None:
    desk = desk_at(folder, "Mon 17:00", section(schedule=office(outside="stop")))
    desk.top()
    before = desk.instance("mm").strategy
    desk.until("Mon 17:30")
    assert (desk.where("mm"), desk.quotes()) == ((STOPPED, "schedule"), 0)
    assert desk.heard == ["mm start", "mm book", "mm stop"]
    desk.top()
    assert desk.heard == []

    desk.until("Tue 09:00")
    assert desk.where("mm") == (RUNNING, "")
    assert desk.heard == ["mm start"]
    assert desk.instance("mm").strategy is not before
    assert desk.instance("mm").strategy.state.books == 1
    desk.top()
    assert desk.quotes() == 2


def test_quarantine_is_not_lifted_by_a_window(folder: Path) -> None:
    desk = desk_at(folder, "Mon 17:00", section(params={"fails_on_bid": 1.0}))
    desk.top(1.0, 2.0)
    desk.until("Tue 10:00")
    assert desk.where("mm") == (QUARANTINED, "")


# -- over restarts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("outside", ["pause", "stop"])
@pytest.mark.parametrize("ends", ["crash", "clean"])
def test_restart_looks_at_the_clock_and_not_at_what_was_going_on(
    folder: Path, outside: str, ends: str
) -> None:
    desk = desk_at(folder, "Mon 17:00", section(schedule=office(outside=outside)))
    for closed, opened in (("Mon 18:00", "Tue 10:00"), ("Tue 18:00", "Wed 10:00")):
        desk.until(closed)  # the window closes while it runs, and opens while it is down
        if ends == "clean":
            desk.engine.stop_trading("SIGTERM")
            desk.settle()
        desk = desk.again(ns(opened))
        assert desk.where("mm") == (RUNNING, "")
        desk.top()
        assert desk.quotes() == 2
    desk = desk.again(ns("Wed 20:00"))  # and the other way round
    assert (desk.where("mm")[1], desk.quotes()) == ("schedule", 0)


def test_pause_by_hand_outlives_a_restart_in_the_middle_of_a_window(folder: Path) -> None:
    desk = desk_at(folder, "Mon 17:00")
    desk.control.pause("mm", "by hand")
    desk.until("Mon 18:00")
    desk = desk.again(ns("Tue 10:00"))
    assert desk.where("mm") == (PAUSED, "")


# -- triggers ----------------------------------------------------------------------------------------


def cron(text: str = "0 16 * * mon-fri", **settings: Any) -> InstanceSection:
    schedule = ScheduleSection(time_zone=ZURICH, triggers={"flat": text}, **settings)
    return section(schedule=schedule, params={"buys_on_timer": True, "is_silent": True})


def fired(desk: Desk) -> list[tuple[str, int]]:
    return [(entry.trigger, entry.due_ns) for entry in desk.entries if isinstance(entry, e.TriggerFired)]


def test_trigger_calls_on_timer_when_it_is_due_and_is_journaled_before_what_it_leads_to(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59:59", cron())
    desk.top()
    desk.until("Mon 16:00")
    assert desk.heard == ["mm start", "mm book", "mm flat"]
    kinds = [type(entry) for entry in desk.entries if isinstance(entry, e.TriggerFired | e.PlaceSent)]
    assert kinds == [e.TriggerFired, e.PlaceSent]
    desk.until("Tue 16:00")
    assert fired(desk) == [("flat", ns("Mon 16:00")), ("flat", ns("Tue 16:00"))]


def test_paced_trigger_keeps_its_pace_over_a_restart(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:00:01", cron("every 5s"))
    desk.top()
    desk.until("Mon 15:00:11")
    desk = desk.again(ns("Mon 15:00:13"))
    desk.top()
    desk.until("Mon 15:00:20")
    assert [due_ns - ns("Mon 15:00") for _, due_ns in fired(desk)] == [
        5 * SECOND,
        10 * SECOND,
        15 * SECOND,
        20 * SECOND,
    ]


def test_trigger_leaves_an_instance_alone_that_does_not_run_or_is_outside_of_its_windows(
    folder: Path,
) -> None:
    desk = desk_at(folder, "Mon 15:00", cron(windows=("mon 09:00-17:00", "tue 17:00-18:00")))
    desk.top()
    desk.control.pause("mm", "by hand")
    desk.until("Mon 16:30")
    desk.control.resume("mm", "by hand")
    desk.until("Tue 17:30")
    assert fired(desk) == []


def test_trigger_that_came_due_while_no_node_ran_is_made_up_for_once(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59", cron())
    desk.top()
    desk.until("Mon 15:59:58")
    desk = desk.again(ns("Mon 16:00:30"))
    desk.top()
    desk.advance(1)
    assert fired(desk) == [("flat", ns("Mon 16:00"))]
    desk = desk.again(ns("Mon 16:00:45"))
    desk.top()
    desk.until("Mon 16:05")
    assert fired(desk) == [("flat", ns("Mon 16:00"))]


def test_trigger_that_was_missed_for_too_long_is_alerted_and_left_out(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59", cron(catch_up_s=20.0))
    desk.top()
    desk.until("Mon 15:59:58")
    desk = desk.again(ns("Mon 16:00:30"))
    desk.top()
    desk.until("Mon 16:05")
    assert fired(desk) == []
    assert desk.alerts("trigger_missed") == [
        "instance mm: trigger flat was due 30 s ago and could not run until now"
    ]


def test_paced_trigger_is_left_out_without_a_word_where_a_node_was_held_up(folder: Path) -> None:
    schedule = ScheduleSection(triggers={"look": "every 10s"}, catch_up_s=20.0)
    desk = desk_at(folder, "Mon 15:00", section(schedule=schedule))
    desk.top()
    desk.clock.set(ns("Mon 15:01:05"))  # at once, as for a process that was frozen
    desk.until("Mon 15:01:10")
    assert fired(desk) == [("look", ns("Mon 15:01:10"))]
    assert desk.alerts("trigger_missed") == []


def test_trigger_is_not_made_up_for_where_an_operator_had_paused_the_instance(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59", cron())
    desk.top()
    desk.control.pause("mm", "by hand")
    desk = desk.again(ns("Mon 16:00:30"))
    desk.top()
    desk.control.resume("mm", "by hand")
    desk.until("Mon 16:05")
    assert fired(desk) == []


@pytest.mark.parametrize("outside", ["pause", "stop"])
def test_trigger_that_is_due_when_a_window_opens_comes_once(folder: Path, outside: str) -> None:
    schedule = office(outside=outside, triggers={"open": "0 9 * * mon-fri"})
    desk = desk_at(folder, "Mon 18:00", section(schedule=schedule))
    desk.top()
    desk.until("Tue 10:00")
    assert fired(desk) == [("open", ns("Tue 09:00"))]


def test_trigger_that_waits_comes_though_its_instance_is_made_anew(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59:59", cron())
    desk.until("Mon 16:00:10")
    desk.control._take_on(desk.maker.prepare(cron()), "sam", lambda _: None, is_new=False, paused=False)
    desk.top()
    desk.advance(1)
    assert fired(desk) == [("flat", ns("Mon 16:00"))]


@pytest.mark.parametrize(("back_to", "goes_on"), [("Mon 15:00:01", True), ("Tue 15:00:04", False)])
def test_clock_that_was_set_back_between_two_processes_does_not_silence_triggers(
    folder: Path, back_to: str, goes_on: bool
) -> None:
    desk = desk_at(folder, "Tue 15:00:01", cron("every 5s"))
    desk.top()
    desk.until("Tue 15:00:06")
    desk = desk.again(ns(back_to))
    desk.top()
    desk.until(
        back_to[:-2] + "05"
    )  # two nodes' clocks may differ by a little: what was called is not called again
    assert len(fired(desk)) == 1 + goes_on


def test_trigger_waits_for_a_book(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59:59", cron())
    desk.until("Mon 16:00:10")
    assert fired(desk) == []
    desk.top()
    desk.advance(1)
    assert fired(desk) == [("flat", ns("Mon 16:00"))]


def test_trigger_waits_for_an_account_that_is_out_of_touch(folder: Path) -> None:
    desk = desk_at(folder, "Mon 15:59", cron())
    desk.top()
    desk.connection("orders", is_up=False)
    desk.until("Mon 16:00:10")
    assert fired(desk) == []
    desk.connection("orders", is_up=True)
    desk.settle()
    desk.top()
    desk.advance(2)
    assert fired(desk) == [("flat", ns("Mon 16:00"))]
    assert desk.where("mm") == (RUNNING, "")  # its order was not refused


def test_instance_without_market_events_runs_on_its_triggers_alone(folder: Path) -> None:
    schedule = ScheduleSection(market_events=False, triggers={"look": "every 1s"})
    desk = desk_at(
        folder, "Mon 10:00", section(schedule=schedule), section("other", schedule=ScheduleSection())
    )
    desk.top()
    desk.advance(1)
    assert [what for what in desk.heard if what.startswith("mm")] == ["mm start", "mm look"]
    book = desk.instance("mm").book(BTC)
    assert book is not None
    assert book.bid == 60_000.0


# -- order -------------------------------------------------------------------------------------------

FREE = ScheduleSection()


def pair(**settings: Any) -> tuple[InstanceSection, InstanceSection]:
    """A hedger that is configured before the quoter that it comes after."""
    settings = {"schedule": FREE, "after": ("quoter",), **settings}
    return section("hedger", **settings), section("quoter", schedule=FREE, params={"fails_on_bid": 1.0})


def test_each_event_and_start_reaches_what_others_come_after_first_and_the_stop_last(folder: Path) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair())
    desk.top()
    desk.engine.stop_trading("SIGTERM")
    assert desk.heard == [
        "quoter start", "hedger start", "quoter book", "hedger book", "hedger stop", "quoter stop",
    ]  # fmt: skip


def test_order_holds_after_the_first_was_made_anew(folder: Path) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair())
    desk.control.stop("quoter", "sam", "by hand")
    desk.engine.scheduler.start_again("quoter")
    assert desk.heard[-1] == "quoter start"
    desk.top()
    assert desk.heard == ["quoter book", "hedger book"]


def test_quarantine_of_what_it_comes_after_pauses_an_instance_before_any_order_leaves(folder: Path) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair())
    desk.top()
    assert desk.quotes() == 4
    sent = len(desk.venue.sent)
    desk.top(1.0, 2.0)
    assert (desk.where("quoter"), desk.where("hedger")) == ((QUARANTINED, ""), (PAUSED, "dependency"))
    assert desk.quotes() == 0
    assert {type(command).__name__ for command in desk.venue.sent[sent:]} == {"CancelOrder"}
    reason = desk.engine.state.instances["hedger"].reason
    assert reason == "it comes after instance quoter, which is quarantined"


def test_dependant_goes_on_when_what_it_comes_after_is_back(folder: Path) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair())
    desk.control.stop("quoter", "sam", "by hand")
    assert desk.where("hedger") == (PAUSED, "dependency")
    with pytest.raises(NotNow, match="comes after instance quoter, which is stopped"):
        desk.control.resume("hedger", "by hand")
    assert desk.engine.scheduler.start_again("quoter")
    assert (desk.where("quoter"), desk.where("hedger")) == ((RUNNING, ""), (RUNNING, ""))


@pytest.mark.parametrize(("policy", "state"), [("stop", STOPPED), ("keep", RUNNING), ("pause", PAUSED)])
def test_policy_says_what_becomes_of_a_dependant(folder: Path, policy: str, state: InstanceState) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair(on_dependency_lost=policy))
    desk.control.stop("quoter", "sam", "by hand")
    assert desk.instance("hedger").state is state
    desk = desk.again(ns("Mon 11:00"))  # the quoter stays stopped
    assert desk.instance("hedger").state is state
    desk.engine.scheduler.start_again("quoter")
    assert desk.instance("hedger").state is RUNNING


def test_pause_of_what_it_comes_after_leaves_an_instance_alone(folder: Path) -> None:
    desk = desk_at(folder, "Mon 10:00", *pair())
    desk.control.pause("quoter", "by hand")
    assert desk.where("hedger") == (RUNNING, "")


def test_stop_goes_through_a_chain_from_its_end_and_the_way_back_from_its_beginning(folder: Path) -> None:
    chain = (
        section("c", schedule=FREE, after=("b",), on_dependency_lost="stop"),
        section("b", schedule=FREE, after=("a",), on_dependency_lost="stop"),
        section("a", schedule=office(outside="stop")),
    )
    desk = desk_at(folder, "Mon 17:00", *chain)
    assert desk.heard == ["a start", "b start", "c start"]
    desk.until("Mon 18:00")
    assert desk.heard == ["c stop", "b stop", "a stop"]
    desk.until("Tue 09:01")
    assert desk.heard == ["a start", "b start", "c start"]
    assert {desk.instance(name).state for name in "abc"} == {RUNNING}


def test_people_see_what_holds_an_instance_and_what_comes_next(folder: Path) -> None:
    schedule = office(triggers={"flat": "0 16 * * *", "look": "every 1h"})
    desk = desk_at(folder, "Mon 10:30", section(schedule=schedule), section("free", schedule=FREE))
    view = desk.engine.scheduler.view("mm")
    assert view is not None
    assert (view.held_by, view.opens_ns, view.closes_ns) == ("", None, ns("Mon 17:30"))
    assert (view.trigger, view.trigger_ns) == ("look", ns("Mon 11:00"))
    desk.until("Mon 18:30")
    view = desk.engine.scheduler.view("mm")
    assert view is not None
    assert view.held_by.startswith("outside its trading windows")
    assert (view.opens_ns, view.closes_ns) == (ns("Tue 09:00"), None)
    assert desk.engine.scheduler.view("free") is None
