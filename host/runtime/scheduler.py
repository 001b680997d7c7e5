"""When instances may trade and what they run on: trading windows, triggers, and what each comes after.

The scheduler decides in two steps. `hold_of` says what keeps an instance from trading, from its windows and from
those that it comes after; whatever starts one asks that first. When a window opens or closes, or an instance
changes state, the look at the turn's end brings every instance in line, within that turn. What a person paused or
stopped stays so: the journal says of each move whether a schedule made it (`InstanceChanged.by`), and only those
are taken back.
"""

import graphlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from host.api import TandemError
from host.config import InstanceSection, ScheduleSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.trading_hours import Phase, TradingHours
from host.core.triggers import Trigger, parse_trigger
from host.core.wall_time import local_time, time_zone
from host.runtime.history import Due, OwnEvent
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.instance import Instance

__all__ = ["BY_DEPENDENCY", "BY_SCHEDULE", "Hold", "ScheduleView", "Scheduler"]

BY_SCHEDULE: Final = "schedule"
BY_DEPENDENCY: Final = "dependency"
"""What `InstanceChanged.by` says of the moves made here."""

NEVER: Final = 1 << 63
LOOK_AGAIN_NS: Final = 24 * 3600 * 1_000_000_000
"""How often windows without a change in sight are looked at."""
WAIT_NS: Final = 100_000_000
"""How often it is tried again to call what is due but may not trade for now, or to start what is being reloaded."""
CLOCKS_DIFFER_NS: Final = 10_000_000_000
"""How far ahead the clock of the process before may have been; what is further was a clock that has been set back."""
_LOST: Final = (InstanceState.STOPPED, InstanceState.QUARANTINED)


class Hold(Struct, frozen=True):
    """What keeps an instance from trading: `state` is PAUSED or STOPPED, `by` one of the two above."""

    state: InstanceState
    reason: str
    by: str


class ScheduleView(Struct, frozen=True, kw_only=True):
    """What people are shown of an instance's schedule. Times in ns, None where there is none in sight."""

    held_by: str
    """Why it may not trade now; empty where the schedule lets it."""
    opens_ns: int | None
    """When its windows open; None while they are open."""
    closes_ns: int | None
    trigger: str
    """The trigger that is due next; empty where it has none."""
    trigger_ns: int | None
    after: tuple[str, ...]


class _Plan:
    """One instance's schedule, and how far it has come."""

    def __init__(self, section: InstanceSection, since_ns: Mapping[str, int]) -> None:
        schedule = section.schedule
        self.section = section
        self.hours = TradingHours(schedule.windows, schedule.time_zone) if schedule.windows else None
        self.phase = Phase(True, None)
        self.look_ns = NEVER if self.hours is None else 0
        """When to look at the windows again."""
        self.triggers: dict[str, Trigger] = {
            name: parse_trigger(text, schedule.time_zone) for name, text in schedule.triggers.items()
        }
        self.since_ns = dict(since_ns)
        """Up to when each trigger has been dealt with."""
        self.next_ns = {
            name: trigger.after_ns(self.since_ns[name]) for name, trigger in self.triggers.items()
        }
        self.catch_up_ns: Final = int(schedule.catch_up_s * 1e9)

    def at(self, now_ns: int) -> Phase:
        """Return the phase of its windows."""
        if self.hours is not None and now_ns >= self.look_ns:
            self.phase = self.hours.at(now_ns)
            self.look_ns = self.phase.until_ns or now_ns + LOOK_AGAIN_NS
        return self.phase

    def done(self, name: str, now_ns: int) -> None:
        """Take note that a trigger has been dealt with up to `now_ns`."""
        self.since_ns[name] = now_ns
        self.next_ns[name] = self.triggers[name].after_ns(now_ns)

    def is_open_at(self, time_ns: int) -> bool:
        """Return whether its windows are open at a time, which may be past."""
        return self.hours is None or self.hours.at(time_ns).is_open


class Scheduler:
    """Keeps the instances of one engine to their schedules; `due_ns` is when it has something to do next.

    `start_again(name)` makes and starts an instance that a schedule stopped; it returns False where that has to
    wait and raises `TandemError` where it fails.
    """

    def __init__(self, engine: "Engine") -> None:
        self.due_ns = NEVER
        self.look_ns = NEVER
        """When a window opens or closes next; what comes in at that time or later calls `look` first."""
        self.start_again: Callable[[str], bool] = lambda _name: False
        self._engine: Final = engine
        self._plans: dict[str, _Plan] = {}
        self._ranks: dict[str, int] = {}
        """The place of each instance among all, where any comes after another; else empty."""
        self._ran_until_ns: int | None = None
        self._is_looking = self._is_holding = False

    # -- what is scheduled -------------------------------------------------------------------------

    def took_over_at(self, ran_until_ns: int) -> None:
        """Take note until when the process before this one is known to have run, before instances start."""
        self._ran_until_ns = ran_until_ns

    def started(self) -> None:
        """Take note that the instances of the start are started: what is made later has missed nothing."""
        self._ran_until_ns = None

    def take_on(self, *sections: InstanceSection) -> None:
        """Hold instances to what their sections say, from here on.

        Those that change together are taken on together: half of them may wait for each other with the old half.
        An instance that is made anew goes on with its triggers where the one before it was.
        """
        now_ns = self._engine.clock.now_ns()
        for section in sections:
            self._take_on(section, now_ns)
        self._arrange(now_ns)

    def _take_on(self, section: InstanceSection, now_ns: int) -> None:
        since = dict.fromkeys(section.schedule.triggers, now_ns)
        before = self._plans.get(section.name)
        if before is not None and before.section.schedule == section.schedule:
            since = before.since_ns
        elif before is None:
            since |= self._missed_since(section, now_ns)
        if section.schedule == ScheduleSection() and not section.after:
            self._plans.pop(section.name, None)
        else:
            self._plans[section.name] = _Plan(section, since)

    def forget(self, name: str) -> None:
        """Hold an instance that leaves for good to nothing."""
        if self._plans.pop(name, None) is not None:
            self._arrange(self._engine.clock.now_ns())

    def in_order(self, instances: "Iterable[Instance]") -> "list[Instance]":
        """Return instances with each behind those that it comes after; those that none has to do with come last."""
        found, ranks = list(instances), self._ranks
        if ranks:
            found.sort(key=lambda instance: ranks.get(instance.instance, len(ranks)))
        return found

    def _missed_since(self, section: InstanceSection, now_ns: int) -> dict[str, int]:
        """Return from when on triggers may have been missed, for one that ran when the last process ended."""
        state, ran_until_ns = self._engine.state, self._ran_until_ns
        record = state.instances.get(section.name)
        if ran_until_ns is None or record is None or section.name in state.held:
            return {}
        is_held_by_hand = record.state is InstanceState.PAUSED and not record.by
        if is_held_by_hand or record.state in (InstanceState.LOADED, InstanceState.QUARANTINED):
            return {}
        if ran_until_ns > now_ns + CLOCKS_DIFFER_NS:
            return {}
        return dict.fromkeys(
            section.schedule.triggers, ran_until_ns
        )  # what called it by then is journaled by then

    def _arrange(self, now_ns: int) -> None:
        after = {name: plan.section.after for name, plan in self._plans.items() if plan.section.after}
        order = graphlib.TopologicalSorter(after).static_order()  # a configuration with a circle is refused
        self._ranks = {name: rank for rank, name in enumerate(order)}
        for plan in self._plans.values():
            plan.at(now_ns)
        self.look_ns = min((plan.look_ns for plan in self._plans.values()), default=NEVER)
        self.due_ns = min(self.look_ns, self._next_trigger_ns())

    def _next_trigger_ns(self) -> int:
        return min(
            (due_ns for plan in self._plans.values() for due_ns in plan.next_ns.values()), default=NEVER
        )

    def _find_due(self, now_ns: int) -> None:
        soonest = self._next_trigger_ns()
        # What is due and still there waits until its instance may trade.
        self.due_ns = min(self.look_ns, soonest if soonest > now_ns else now_ns + WAIT_NS)

    # -- what keeps an instance from trading -------------------------------------------------------

    def hold_of(self, name: str) -> Hold | None:
        """Return what keeps an instance from trading now; None where its schedule lets it."""
        states = {name: instance.state for name, instance in self._engine.roster.instances.items()}
        return self._hold(name, states, self._engine.clock.now_ns())

    def view(self, name: str) -> ScheduleView | None:
        """Return what to show of an instance's schedule; None where it has none."""
        plan = self._plans.get(name)
        if plan is None or not (plan.hours or plan.triggers or plan.section.after):
            return None
        now_ns = self._engine.clock.now_ns()
        hold, phase = self.hold_of(name), plan.at(now_ns)
        trigger = min(plan.next_ns, key=lambda name: plan.next_ns[name], default="")
        return ScheduleView(
            held_by="" if hold is None else hold.reason,
            opens_ns=None if phase.is_open else phase.until_ns,
            closes_ns=phase.until_ns if phase.is_open else None,
            trigger=trigger,
            trigger_ns=plan.next_ns.get(trigger),
            after=plan.section.after,
        )

    def _hold(self, name: str, states: Mapping[str, InstanceState], now_ns: int) -> Hold | None:
        plan = self._plans.get(name)
        if plan is None:
            return None
        section, holds = plan.section, []
        phase = plan.at(now_ns)
        if not phase.is_open:
            holds.append(Hold(_STATES[section.schedule.outside], _closed(section, phase), BY_SCHEDULE))
        if section.on_dependency_lost != "keep":
            for other in section.after:
                state = states.get(other)
                if state is None or state in _LOST:
                    said = "is not there" if state is None else f"is {state}"
                    text = f"it comes after instance {other}, which {said}"
                    holds.append(Hold(_STATES[section.on_dependency_lost], text, BY_DEPENDENCY))
        stops = [hold for hold in holds if hold.state is InstanceState.STOPPED]
        return next(iter(stops or holds), None)

    # -- as time passes ----------------------------------------------------------------------------

    def on_time(self, now_ns: int) -> None:
        """Open and close windows and call what is due, within a turn."""
        if now_ns < self.due_ns:
            return
        if now_ns >= self.look_ns:
            self.look(now_ns)
        for instance in self.in_order(self._engine.roster.instances.values()):
            due = self._plans.get(instance.instance)
            if due is not None and due.triggers:
                self._call_due(instance, due, now_ns)
        self._find_due(now_ns)

    def look(self, now_ns: int) -> None:
        """Open and close windows, within a turn.

        What comes in calls this first where it is late: on a loop that was held up, or in a process that was frozen,
        it may be there before the time is looked at.
        """
        for plan in self._plans.values():
            plan.at(now_ns)
        self.look_ns = min((plan.look_ns for plan in self._plans.values()), default=NEVER)
        self._look(now_ns)

    def _call_due(self, instance: "Instance", plan: _Plan, now_ns: int) -> None:
        engine, name = self._engine, instance.instance
        for trigger, due_ns in list(plan.next_ns.items()):
            if due_ns > now_ns:
                continue
            may_run = instance.state is InstanceState.RUNNING and plan.is_open_at(due_ns)
            is_too_late = due_ns < now_ns - plan.catch_up_ns
            waits = plan.triggers[trigger].waits
            if not may_run or (not waits and (is_too_late or not _may_trade(instance))):
                plan.done(trigger, now_ns)
            elif is_too_late:
                plan.done(trigger, now_ns - plan.catch_up_ns)  # the latest of them may not be too late yet
                late_s = (now_ns - due_ns) / 1e9
                text = f"instance {name}: trigger {trigger} was due {late_s:.0f} s ago and could not run until now"
                engine.record_alert("trigger_missed", text, name)
            elif _may_trade(instance):  # else it waits until it may
                plan.done(trigger, now_ns)
                engine.record(e.TriggerFired(name, trigger, due_ns), now_ns)
                instance.account_history.add(OwnEvent(name, Due(trigger), now_ns))
                engine.roster.call(instance, instance.strategy.on_timer, trigger)

    # -- bringing instances in line ----------------------------------------------------------------

    def on_changed(self, *, is_lost: bool = False, is_edited: bool = False) -> None:
        """Look at all instances, as one of them has changed, or its schedule was edited.

        What comes after one that `is_lost` is held at once: an event on its way must not have it trade any more.
        Whoever may go on does so once the turn is about to end.
        """
        if is_lost and self._plans and not self._is_holding:
            self._look(self._engine.now_ns, lets_go=False)
        if (self._plans or is_edited) and not self._is_looking:
            self._is_looking = True
            self._engine.after_turn.append(self._look_at_the_end)

    def _look_at_the_end(self, now_ns: int) -> None:
        self._is_looking = False
        self._look(now_ns)

    def _look(self, now_ns: int, *, lets_go: bool = True) -> None:
        """Bring every instance in line with its schedule: last come, first held; first come, first let go on."""
        engine = self._engine
        if engine.is_following or engine.stopping or engine.must_stop or engine.halted:
            return
        moves = self._moves(now_ns)
        self._is_holding = True
        for instance, hold in reversed(moves):
            if hold is not None and not _is_to_start(instance, hold):
                engine.roster.hold(instance, hold)
        self._is_holding = False
        for instance, hold in moves if lets_go else ():
            if _is_to_start(instance, hold):
                self._start_again(instance, now_ns)
            elif hold is None:
                engine.roster.resume(instance, "nothing holds it any more")

    def _moves(self, now_ns: int) -> "list[tuple[Instance, Hold | None]]":
        """Return the instances that are not where their schedules want them, in order, and what holds each."""
        engine = self._engine
        states = {name: instance.state for name, instance in engine.roster.instances.items()}
        moves: list[tuple[Instance, Hold | None]] = []
        for instance in self.in_order(engine.roster.instances.values()):
            if self._may_move(instance):
                hold = self._hold(instance.instance, states, now_ns)
                if not self._is_as_held(instance, hold):
                    moves.append((instance, hold))
                    states[instance.instance] = InstanceState.RUNNING if hold is None else hold.state
        return moves

    def _may_move(self, instance: "Instance") -> bool:
        """Return whether nobody but a schedule keeps it where it is."""
        state, record = self._engine.state, self._engine.state.instances[instance.instance]
        if instance.instance in state.held:
            return False
        is_held_here = instance.state in (InstanceState.PAUSED, InstanceState.STOPPED) and bool(record.by)
        return instance.state is InstanceState.RUNNING or is_held_here

    def _is_as_held(self, instance: "Instance", hold: Hold | None) -> bool:
        if hold is None:
            return instance.state is InstanceState.RUNNING
        record = self._engine.state.instances[instance.instance]
        return instance.state is hold.state and (record.by, record.reason) == (hold.by, hold.reason)

    def _start_again(self, instance: "Instance", now_ns: int) -> None:
        engine, name = self._engine, instance.instance
        try:
            has_started = self.start_again(name)
        except TandemError as error:
            engine.record_alert("instance_skipped", f"instance {name} could not start again: {error}", name)
            engine.roster.hold(
                instance, Hold(InstanceState.STOPPED, f"it could not start again: {error}", "")
            )
            return
        if not has_started:  # its plugin is being changed: soon again
            self.look_ns = min(self.look_ns, now_ns + WAIT_NS)
            self.due_ns = min(self.due_ns, self.look_ns)


_STATES: Final = {"pause": InstanceState.PAUSED, "stop": InstanceState.STOPPED}


def _is_to_start(instance: "Instance", hold: Hold | None) -> bool:
    is_stopped = instance.state is InstanceState.STOPPED
    return is_stopped and (hold is None or hold.state is InstanceState.PAUSED)


def _may_trade(instance: "Instance") -> bool:
    """Return whether an order of it would not be refused at once: in touch, and with books that can be trusted.

    One in another process has to be there: whoever comes later is not told of a trigger.
    """
    if isinstance(instance.strategy, RemoteStrategy) and not instance.strategy.is_there:
        return False
    return instance.is_trading and all(
        feed.book.top is not None and not feed.book.top_fault for feed in instance.feeds.values()
    )


def _closed(section: InstanceSection, phase: Phase) -> str:
    schedule = section.schedule
    text = f"outside its trading windows ({', '.join(schedule.windows)}, {schedule.time_zone})"
    if phase.until_ns is None:
        return text
    return f"{text} until {local_time(phase.until_ns, time_zone(schedule.time_zone)):%a %Y-%m-%d %H:%M %Z}"
