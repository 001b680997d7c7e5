"""What came of each thing that was done to a pair: when it is over, in words and numbers.

Whether orders flow, and whose, is what the venue's log says; how well a standby is, its leader says.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from host.pair.faults import Act, Deed
from host.pair.judge import Judge, Switch
from host.pair.watching import NodeSeen

__all__ = ["Ending", "Story", "begin", "ready"]

STRAGGLERS_MS: Final = 300
"""For so long after a takeover what comes late is waited for, before it is judged."""
GIVE_UP_S: Final = 30.0
"""What has not come about by then is told as not having come about."""
FLOWS_MS: Final = 500
"""Orders flow when the venue has accepted one within this time."""

_HURTS: Final = frozenset({Act.KILL, Act.LOSE, Act.FREEZE, Act.CUT, Act.REFUSE})


class Ending(Struct, frozen=True, kw_only=True):
    """How a story ended. `text` says all of it; the numbers are for programs."""

    text: str
    is_good: bool
    """Whether it is what the product promises."""
    took_ms: float
    """From the deed to the first order of the new leader, or until the node was well again."""
    gap_ms: float
    """The longest time without an accepted order from the deed on; in a takeover, from leader to leader."""
    adopted: int = 0
    lost: int = 0
    doubled: int = 0
    stale: int = 0


class Story(Struct, kw_only=True):
    """One deed and what comes of it."""

    deed: Deed
    node: str
    """To whom it was done; who led, for a switchover."""
    at_s: float
    """When, in seconds after the pair was ready."""
    began_ns: int
    """When, by the wall clock."""
    epoch: int
    leader: str
    able: bool
    """Whether there was a standby that could take over."""
    ttl_ms: float
    wrongs: tuple[int, int, int]
    late: int
    """Requests refused for their age until then."""
    ending: Ending | None = None
    failed: str = ""
    """Why it could not be done after all."""

    def look(self, judge: Judge, seen: Mapping[str, NodeSeen], now_ns: int, now_s: float) -> Ending | None:
        """Return how it ended, None while it goes on. `now_ns` is wall time, `now_s` the monotonic clock."""
        took_ms = (now_ns - self.began_ns) / 1e6
        if self.failed:
            return self._end(judge, f"not done: {self.failed}", took_ms, is_good=False)
        if self._concerns_leader:
            return self._of_leader(judge, now_ns, took_ms)
        if self.deed.act in _HURTS:
            return self._of_standby(judge, seen, now_ns, now_s, took_ms)
        return self._of_return(judge, seen, now_s, took_ms)

    def explains(self, switch: Switch) -> bool:
        """Return whether a change of leader is what this deed was bound to lead to."""
        return self._concerns_leader and switch.old_epoch == self.epoch

    @property
    def _concerns_leader(self) -> bool:
        return self.deed.act is Act.SWITCHOVER or (self.deed.act in _HURTS and self.node == self.leader)

    def _of_leader(self, judge: Judge, now_ns: int, took_ms: float) -> Ending | None:
        switch = next((one for one in judge.switches if one.old_epoch >= self.epoch), None)
        if switch is not None:
            if (now_ns - switch.first_ns) / 1e6 < STRAGGLERS_MS:
                return None
            return self._taken_over(judge, switch)
        flows = (now_ns - judge.last_ns) / 1e6 < FLOWS_MS
        # Cut off from its peers, or from a store that they do not reach either, a leader leads on; and so
        # does one that was mended before anybody could take over.
        if flows and took_ms > 4 * self.ttl_ms + 1_000 and self.deed.act is not Act.SWITCHOVER:
            return self._leads_on(judge, took_ms)
        if not self.able and took_ms > 4 * self.ttl_ms + 1_000 and self.deed.act is not Act.KILL:
            text = "there was no standby that could take over; restart (r), thaw (u) or heal (h) one"
            return self._end(judge, text, took_ms, is_good=True)
        if took_ms > GIVE_UP_S * 1e3:
            return self._end(judge, f"nobody took over within {GIVE_UP_S:g} s", took_ms, is_good=False)
        return None

    def _taken_over(self, judge: Judge, switch: Switch) -> Ending:
        took_ms = (switch.first_ns - self.began_ns) / 1e6
        again = f"{switch.new_leader} leads again" if switch.new_leader == self.leader else ""
        text = f"{again or f'{switch.new_leader} took over'} after {took_ms:,.0f} ms"
        gap = f"{switch.gap_ms:,.0f} ms without an order at the venue"
        orders = f"{switch.adopted} {'order' if switch.adopted == 1 else 'orders'} adopted"
        return self._end(
            judge, f"{text} ({gap}); {orders}", took_ms, gap_ms=switch.gap_ms, adopted=switch.adopted
        )

    def _of_standby(
        self, judge: Judge, seen: Mapping[str, NodeSeen], now_ns: int, now_s: float, took_ms: float
    ) -> Ending | None:
        if took_ms < 2 * self.ttl_ms + 500:
            return None
        if judge.epoch > self.epoch:
            return self._end(judge, f"{judge.leader} leads now", took_ms)
        flows = (now_ns - judge.last_ns) / 1e6 < FLOWS_MS
        if self.deed.act is Act.KILL and flows:
            # Its guardian starts it again.
            if not ready(self.node, seen, now_s):
                return None if took_ms < GIVE_UP_S * 1e3 else self._not_back(judge, seen, took_ms)
            return self._leads_on(
                judge, took_ms, f"; {self.node} stands by again after {took_ms / 1e3:.1f} s"
            )
        if flows:
            return self._leads_on(judge, took_ms)
        if took_ms > GIVE_UP_S * 1e3:
            return self._end(judge, "no orders flow any more", took_ms, is_good=False)
        return None

    def _leads_on(self, judge: Judge, took_ms: float, more: str = "") -> Ending:
        pause_ms = judge.longest_pause_ms(self.began_ns)
        text = f"{self.leader} leads on; its longest pause between two orders was {pause_ms:,.0f} ms{more}"
        return self._end(judge, text, took_ms)

    def _of_return(
        self, judge: Judge, seen: Mapping[str, NodeSeen], now_s: float, took_ms: float
    ) -> Ending | None:
        # What it said before the deed was of another time; give it as long as it takes to notice.
        if took_ms < self.ttl_ms or not ready(self.node, seen, now_s):
            return None if took_ms < GIVE_UP_S * 1e3 else self._not_back(judge, seen, took_ms)
        late = judge.refused["expired_request"] - self.late
        refused = f"; the venue refused {late} of its requests for their age" if late else ""
        how = "leads" if judge.leader == self.node else "stands by"
        return self._end(judge, f"{self.node} {how} again after {took_ms / 1e3:.1f} s{refused}", took_ms)

    def _not_back(self, judge: Judge, seen: Mapping[str, NodeSeen], took_ms: float) -> Ending:
        why = next(
            (one.standbys[self.node].why_not for one in seen.values() if self.node in one.standbys), ""
        )
        text = f"{self.node} does not stand by after {took_ms / 1e3:.0f} s: {why or 'its leader does not hear of it'}"
        return self._end(judge, text, took_ms, is_good=False)

    def _end(
        self,
        judge: Judge,
        text: str,
        took_ms: float,
        *,
        is_good: bool = True,
        gap_ms: float | None = None,
        adopted: int = 0,
    ) -> Ending:
        lost, doubled, stale = (now - then for now, then in zip(_counts(judge), self.wrongs, strict=True))
        return Ending(
            text=f"{text}; {lost} lost, {doubled} doubled, {stale} stale",
            is_good=is_good and not (lost or doubled or stale),
            took_ms=took_ms,
            gap_ms=judge.longest_pause_ms(self.began_ns) if gap_ms is None else gap_ms,
            adopted=adopted,
            lost=lost,
            doubled=doubled,
            stale=stale,
        )


def begin(
    deed: Deed,
    node: str,
    judge: Judge,
    seen: Mapping[str, NodeSeen],
    *,
    at_s: float,
    began_ns: int,
    now_s: float,
    ttl_ms: float,
) -> Story:
    """Return the story of a deed that is about to be done to `node`."""
    leader = judge.leader
    others = [name for name in seen if name not in (node, leader)] if node == leader else []
    return Story(
        deed=deed,
        node=node,
        at_s=at_s,
        began_ns=began_ns,
        epoch=judge.epoch,
        leader=leader,
        able=any(ready(name, seen, now_s) for name in others),
        ttl_ms=ttl_ms,
        wrongs=_counts(judge),
        late=judge.refused["expired_request"],
    )


def ready(name: str, seen: Mapping[str, NodeSeen], now_s: float) -> bool:
    """Return whether a node leads, or could take over by its leader's word."""
    for other, one in seen.items():
        if not one.leads or not one.is_current(now_s):
            continue
        standby = one.standbys.get(name)
        if other == name or (standby is not None and not standby.why_not):
            return True
    return False


def _counts(judge: Judge) -> tuple[int, int, int]:
    verdict = judge.verdict
    return len(verdict.lost), len(verdict.doubled), len(verdict.stale)
