"""A desk as one of a pair: its part in the cell is real, and the other node is only spoken of."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from host.control.leadership import FailoverStatus, StandbyStatus, Takeover
from host.control.reasons import Refused
from host.control.tail import JournalTail

if TYPE_CHECKING:
    from control_tools import ControlDesk

MS = 1_000_000
B = StandbyStatus(
    name="b",
    address="10.0.0.2:40112",
    control_address="10.0.0.2:7600",
    lag_entries=3,
    lag_bytes=900,
    lag_ns=2 * MS,
    round_trip_ns=MS,
    ailments=("market_data:acc",),
)
C = StandbyStatus(name="c", address="10.0.0.3:40112", lag_entries=4, lag_ns=2 * MS)
LATE = StandbyStatus(
    name="late", address="10.0.0.4:1", lag_entries=99_999, why_not="it is 99999 entries behind"
)


class Pair:
    """The part of a desk in its cell: it hands over, and takes over, for good. Another node is `peer`."""

    def __init__(self, desk: "ControlDesk") -> None:
        self._desk = desk
        self._status = FailoverStatus(
            cell="main", epoch=7, holder="desk", state="leading", ttl_ns=600 * MS, right_left_ns=540 * MS,
            durability="replica", standbys=(B, C, LATE), do_states_agree=True,
        )  # fmt: skip
        self.asked: list[tuple[str, ...]] = []
        """What was ordered, in order."""
        self.refuses = ""
        """Why it refuses to switch; empty while it does not."""
        self.may_switch = asyncio.Event()
        self.may_switch.set()

    def status(self) -> FailoverStatus:
        return self._status

    def say(self, **more: object) -> None:
        """Have it know something else."""
        self._status = msgspec.structs.replace(self._status, **more)

    async def switchover(self, to: str, by: str) -> None:
        self.asked.append(("switchover", to, by))
        if self.refuses:
            raise Refused("SWITCH_REFUSED", self.refuses)
        await self.may_switch.wait()
        self.step_down(to)

    async def promote(self, by: str) -> None:
        self.asked.append(("promote", by))
        if self.refuses:
            raise Refused("SWITCH_REFUSED", self.refuses)
        await self.may_switch.wait()
        self.take_over()

    async def set_maintenance(self, on: bool, by: str) -> None:
        self.asked.append(("maintenance", str(on), by))
        self.say(is_maintained=on)

    def step_down(self, heir: str = "b") -> None:
        """Follow another node from here on, and only know what the journal says."""
        desk = self._desk
        self.say(
            epoch=self._status.epoch + 1, holder=heir, state="watching", right_left_ns=None, durability="",
            standbys=(), why_not=f"{heir} leads and renews its lease", previous_holder="desk",
        )  # fmt: skip
        desk.subject.standby_of = lambda: B.control_address
        desk.subject.take_role(engine=desk.standby_engine(), tail=JournalTail(desk.journal))

    def take_over(self) -> None:
        """Trade again."""
        desk, previous = self._desk, self._status.holder
        takeover = Takeover(
            epoch=self._status.epoch + 1,
            time_ns=desk.clock.now_ns(),
            previous_holder=previous,
            reason="promoted",
            steps=(("lease", 5 * MS), ("reconciled", 7 * MS)),
        )
        self.say(
            epoch=self._status.epoch + 1, holder="desk", state="leading", right_left_ns=540 * MS,
            durability="process", why_not="", previous_holder=previous, last_takeover=takeover,
        )  # fmt: skip
        desk.subject.standby_of = lambda: None
        desk.subject.take_role(
            engine=desk.engine,
            tail=JournalTail(desk.journal),
            reloader=desk.reloader,
            instances=desk.control,
            reload=desk.reload,
        )
