"""One run of a pair: its cell, what is seen of it, what was done to it, and what came of that."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import Struct

from host.client import Control, ControlError
from host.pair.cell import ActRefused, Cell, Machine, PairFailed
from host.pair.faults import LEADER, STANDBY, Act, Deed, LinkKind
from host.pair.judge import Judge
from host.pair.plan import ACCOUNT, PairPlan
from host.pair.relay import LinkState
from host.pair.story import Story, begin, ready
from host.pair.watching import NodeSeen, Watcher
from tandem.v1 import node_pb2

__all__ = ["Moment", "Pair"]

READY_S: Final = 60.0
LOOK_S: Final = 0.05
SWITCHOVER_S: Final = 20.0


class Moment(Struct, frozen=True):
    """Something that happened, `at_s` seconds after the pair was ready. `level` is `info`, `good` or `bad`."""

    at_s: float
    level: str
    text: str


class Pair:
    """Runs a cell from `start` to `stop`; `look` has to be called now and then. On one event loop."""

    def __init__(self, plan: PairPlan) -> None:
        self.plan: Final = plan
        self.cell: Final = Cell(plan)
        self.moments: Final[list[Moment]] = []
        self.stories: Final[list[Story]] = []
        self.refused = 0
        """How many steps of a script could not be done."""
        self.phase = "starting the venue"
        """What is done until the pair is ready; empty from then on."""
        self.judge: Judge = Judge(
            self.cell.venue_log, ACCOUNT, [plan.folder / name / "journal" for name in plan.names]
        )
        self._watchers: dict[str, Watcher] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready_s = time.monotonic()
        self._told_switches = 0
        self._told_wrongs = 0
        self._ended: set[int] = set()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything, and return when the first node leads and the others could take over.

        Raises `TandemError`. `stop` has to be called in any case.
        """
        await self.cell.prepare()
        first, *others = self.cell.machines.values()
        for machine in self.cell.machines.values():
            self._watchers[machine.name] = watcher = Watcher(machine)
            self._spawn(watcher.run(), f"watch {machine.name}")
        self.phase = f"waiting for {first.name} to lead"
        first.start()
        await self._until(lambda: ready(first.name, self.seen, time.monotonic()) and self.judge.epoch > 0)
        self.phase = f"waiting for {' and '.join(one.name for one in others)} to stand by"
        for machine in others:
            machine.start()
        await self._until(
            lambda: all(ready(one.name, self.seen, time.monotonic()) for one in self.cell.machines.values())
        )
        self.phase = ""
        self._ready_s = time.monotonic()
        self._told_switches = len(self.judge.switches)
        standing_by = " and ".join(one.name for one in others)
        self.note(
            "good", f"ready: {first.name} leads, {standing_by} {'stands' if len(others) == 1 else 'stand'} by"
        )

    async def stop(self) -> None:
        """Stop the nodes in order, judge once more, and leave nothing running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for text in await self.cell.stop(self.judge.leader):
                self.note("bad", text)
        finally:
            await self.cell.close()
        self.judge.finish()
        self._tell_wrongs()
        self.judge.close()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + READY_S
        while not is_so():
            self.judge.catch_up()
            if time.monotonic() > give_up_s:
                raise PairFailed(f"{self.phase} took more than {READY_S:g} s; {self._said()}")
            for machine in self.cell.machines.values():
                if machine.child.exit_code is not None:
                    raise PairFailed(
                        f"node {machine.name} ended with {machine.child.exit_code}; it said: {machine.child.said()}"
                    )
            await asyncio.sleep(LOOK_S)

    def _said(self) -> str:
        machines = self.cell.machines.values()
        return "; ".join(f"{one.name} said: {one.child.said(1_000)}" for one in machines if one.child.pid)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- seeing ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Return the seconds since the pair was ready."""
        return time.monotonic() - self._ready_s

    @property
    def seen(self) -> dict[str, NodeSeen]:
        """Return the latest word of each node that has said one."""
        return {name: watcher.seen for name, watcher in self._watchers.items() if watcher.seen is not None}

    @property
    def has_open_stories(self) -> bool:
        """Return whether something was done of which is not known yet what comes of it."""
        return any(story.ending is None for story in self.stories)

    @property
    def is_whole(self) -> bool:
        """Return whether every node leads, or could take over."""
        return all(ready(name, self.seen, time.monotonic()) for name in self.plan.names)

    @property
    def is_good(self) -> bool:
        """Return whether nothing is wrong so far, and every story that has ended did so as promised."""
        endings = [story.ending for story in self.stories]
        return (
            not self.refused
            and not self.judge.verdict.wrongs
            and all(end is None or end.is_good for end in endings)
        )

    def note(self, level: str, text: str) -> None:
        """Put something into the timeline."""
        self.moments.append(Moment(self.now_s, level, text))

    def look(self) -> None:
        """Read on, and tell what has come of what was done."""
        self.judge.catch_up()
        now_ns, now_s = time.time_ns(), time.monotonic()
        for story in self.stories:
            if story.ending is None:
                story.ending = story.look(self.judge, self.seen, now_ns, now_s)
                if story.ending is not None:
                    self.note("good" if story.ending.is_good else "bad", f"{story.deed}: {story.ending.text}")
        self._tell_switches()
        self._tell_wrongs()
        self._tell_ended()

    def _tell_switches(self) -> None:
        """Tell of a new leader that nobody's deed explains."""
        for switch in self.judge.switches[self._told_switches :]:
            if any(story.explains(switch) for story in self.stories):
                continue
            why = f" ({switch.reason})" if switch.reason else ""
            gap = f"{switch.gap_ms:,.0f} ms without an order; {switch.adopted} adopted"
            self.note("info", f"{switch.new_leader} took over from {switch.old_leader} unasked{why}: {gap}")
        self._told_switches = len(self.judge.switches)

    def _tell_wrongs(self) -> None:
        wrongs = self.judge.verdict.wrongs
        if len(wrongs) > self._told_wrongs:
            for text in wrongs[self._told_wrongs :]:
                self.note("bad", f"WRONG: {text}")
            self._told_wrongs = len(wrongs)

    def _tell_ended(self) -> None:
        """Tell of a guardian that has ended without being killed here."""
        for machine in self.cell.machines.values():
            code, pid = machine.child.exit_code, machine.child.pid
            if code is not None and code >= 0 and pid not in self._ended:
                self._ended.add(pid)
                self.note("bad", f"{machine.name} ended with exit code {code}: {_last_line(machine)}")
        if not self.cell.venue_is_well and 0 not in self._ended:
            self._ended.add(0)
            self.note("bad", "the venue has ended; quit (q)")

    # -- doing -----------------------------------------------------------------------------------

    def do(self, deed: Deed) -> None:
        """Do it now, and begin its story; raise `ActRefused`."""
        self.judge.catch_up()
        node = self._resolve(deed)
        machine = self.cell.machines[node]
        story = begin(
            deed,
            node,
            self.judge,
            self.seen,
            at_s=self.now_s,
            began_ns=time.time_ns(),
            now_s=time.monotonic(),
            ttl_ms=self.plan.ttl_ms,
        )
        match deed.act:
            case Act.KILL:
                machine.kill_node()
                self._watchers[node].forget()
            case Act.LOSE:
                machine.lose()
                self._watchers[node].forget()
            case Act.FREEZE:
                machine.freeze()
            case Act.THAW:
                machine.thaw()
            case Act.RESTART:
                machine.start()
            case Act.CUT | Act.REFUSE:
                assert deed.link is not None
                state = LinkState.CUT if deed.act is Act.CUT else LinkState.REFUSED
                self.cell.put(node, [deed.link], state)
            case Act.HEAL:
                if not machine.cuts:
                    raise ActRefused(f"no link of {node} is cut")
                self.cell.put(node, list(LinkKind), LinkState.OPEN)
            case Act.SWITCHOVER:
                heir = self._heir(machine, deed.node)
                self._spawn(self._switch_over(story, machine, heir), "switchover")
        self.stories.append(story)
        self.note("info", f"{_told(deed, node)}{' (leads)' if node == story.leader else ''}")

    def refuse(self, deed: Deed, why: str) -> None:
        """Tell that something could not be done; a script that asked for it has not gone well."""
        self.refused += 1
        self.note("bad", f"{deed}: not done: {why}")

    def _resolve(self, deed: Deed) -> str:
        leader = self.judge.leader
        if deed.act is Act.SWITCHOVER:
            if not leader:
                raise ActRefused("nobody leads")
            return leader
        if deed.node == LEADER:
            return leader
        if deed.node == STANDBY:
            now_s = time.monotonic()
            others = [name for name in self.cell.machines if name != leader]
            return next((name for name in others if ready(name, self.seen, now_s)), others[0])
        return deed.node

    def _heir(self, leader: Machine, wanted: str) -> str:
        """Return the standby to hand over to; raise `ActRefused` where none could take over."""
        seen = self.seen.get(leader.name)
        standbys = {} if seen is None else seen.standbys
        if wanted in self.cell.machines and wanted != leader.name:
            standbys = {name: one for name, one in standbys.items() if name == wanted}
        able = [name for name, one in standbys.items() if not one.why_not]
        if not able:
            why = (
                "; ".join(f"{name}: {one.why_not}" for name, one in standbys.items()) or "it is not attached"
            )
            raise ActRefused(f"there is no standby that could take over from {leader.name}: {why}")
        return min(able, key=lambda name: standbys[name].lag)

    async def _switch_over(self, story: Story, leader: Machine, heir: str) -> None:
        try:
            async with Control([leader.control], timeout_s=SWITCHOVER_S) as control:
                await control.node.switchover(node_pb2.SwitchoverRequest(to=heir, reason="tandem pair"))
        except ControlError as error:
            story.failed = str(error)


def _told(deed: Deed, node: str) -> str:
    return {
        Act.KILL: f"kill -9 of node {node}; its guardian lives",
        Act.LOSE: f"machine {node} is lost: kill -9 of node and guardian",
        Act.FREEZE: f"{node} is frozen: SIGSTOP to node and guardian",
        Act.THAW: f"{node} is thawed",
        Act.CUT: f"{node} is cut off from the {deed.link}: nothing passes",
        Act.REFUSE: f"{node}'s connections to the {deed.link} are reset and refused",
        Act.HEAL: f"all links of {node} are healed",
        Act.SWITCHOVER: f"{node} is asked to hand over",
        Act.RESTART: f"{node} is started again",
    }[deed.act]


def _last_line(machine: Machine) -> str:
    lines = machine.child.said().strip().splitlines()
    return lines[-1] if lines else "it said nothing"
