"""Progress, not pulse: what keeps a node that is alive from being of use.

Sans-IO: `Progress.look` takes what is the case (`Facts`) and says which ailments the node has. They are stable
words, compared with those of the other nodes of its cell: `market_data:ACCOUNT`, `venue:ACCOUNT`, `loop`, `disk` and
`plugin:NAME`. Each has to last before it counts, and to be gone for longer before it does not: a condition that
comes and goes must not move the lead back and forth.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

__all__ = ["AccountFacts", "Condition", "Facts", "Progress", "ProgressSettings"]

SECOND_NS: Final = 1_000_000_000


class ProgressSettings(Struct, frozen=True, kw_only=True):
    """From when on something is an ailment. Times in ns."""

    silence_factor: int = 10
    """Market data has stalled when it is silent for so many times its usual silence, ..."""
    least_silence_ns: int = 3 * SECOND_NS
    """... and for so long."""
    unanswered_ns: int = 5 * SECOND_NS
    """A venue that answers no request for so long is out of reach."""
    loop_blocked_ns: int = SECOND_NS
    least_disk_bytes: int = 0
    appear_ns: int = SECOND_NS // 2
    """How long a condition must last before it is an ailment."""
    clear_ns: int = 10 * SECOND_NS
    """How long it must be gone before it is none."""


class AccountFacts(Struct, frozen=True, kw_only=True):
    """What is the case on one account."""

    events: int
    """A count that grows with market data of followed symbols; several events at once may count as one."""
    follows: bool = True
    """Whether any symbol is followed."""
    is_connected: bool = True
    text: str = ""
    """Why it is not connected."""
    in_flight: Mapping[str, int] = {}
    """Orders of whose last request the venue has told nothing, by id, and when each was made."""


class Facts(Struct, frozen=True, kw_only=True):
    """What is the case on this node."""

    accounts: Mapping[str, AccountFacts] = {}
    loop_blocked_ns: int = 0
    """The longest that the event loop was blocked at once, of late."""
    disk_free_bytes: int | None = None
    """Where the journal is; None: not known."""
    faulty_plugins: Mapping[str, str] = {}
    """Why each plugin that misbehaved does not run."""


class Condition(Struct, frozen=True):
    """How a node is: its ailments, and all of them in words."""

    ailments: frozenset[str] = frozenset()
    reason: str = ""


class Progress:
    """Watches one node. `look` is to be called a few times a second, with times that never go back."""

    def __init__(self, settings: ProgressSettings | None = None) -> None:
        self._settings: Final = settings or ProgressSettings()
        self._markets: dict[str, _Market] = {}
        self._answers: dict[str, _Answers] = {}
        self._symptoms: dict[str, _Symptom] = {}

    def look(self, facts: Facts, now_ns: int) -> Condition:
        """Return how the node is now."""
        found = dict(self._found(facts, now_ns))
        settings = self._settings
        for ailment in (*found, *self._symptoms):
            if ailment not in self._symptoms:
                self._symptoms[ailment] = _Symptom(settings.appear_ns, settings.clear_ns)
        for ailment, symptom in list(self._symptoms.items()):
            symptom.look(found.get(ailment, ""), now_ns)
            if symptom.is_over:
                del self._symptoms[ailment]
        ailing = {ailment: symptom.text for ailment, symptom in self._symptoms.items() if symptom.is_on}
        reason = "; ".join(f"{ailment}: {text}" for ailment, text in sorted(ailing.items()))
        return Condition(frozenset(ailing), reason)

    def _found(self, facts: Facts, now_ns: int) -> Iterator[tuple[str, str]]:
        settings = self._settings
        for name in [name for name in self._markets if name not in facts.accounts]:
            del self._markets[name], self._answers[name]
        for name, account in facts.accounts.items():
            text = self._market(name, account, now_ns)
            if text:
                yield f"market_data:{name}", text
            text = self._venue(name, account, now_ns)
            if text:
                yield f"venue:{name}", text
        if facts.loop_blocked_ns >= settings.loop_blocked_ns:
            yield "loop", f"the event loop was blocked for {_seconds(facts.loop_blocked_ns)}"
        free = facts.disk_free_bytes
        if free is not None and free < settings.least_disk_bytes:
            yield "disk", f"{free >> 20} MiB are free, {settings.least_disk_bytes >> 20} should be"
        for plugin, text in facts.faulty_plugins.items():
            yield f"plugin:{plugin}", text

    def _market(self, name: str, account: AccountFacts, now_ns: int) -> str:
        market = self._markets.get(name)
        if market is None:
            market = self._markets[name] = _Market(account.events, now_ns)
        market.heard(account.events, now_ns)
        if not account.follows:
            market.heard_ns = now_ns
            return ""
        silence_ns = now_ns - market.heard_ns
        usual_ns = market.usual_silence_ns
        if silence_ns < max(self._settings.silence_factor * usual_ns, self._settings.least_silence_ns):
            return ""
        return f"no event for {silence_ns // SECOND_NS} s, usually one within {_seconds(usual_ns)}"

    def _venue(self, name: str, account: AccountFacts, now_ns: int) -> str:
        answers = self._answers.setdefault(name, _Answers())
        answers.take_in(account.in_flight, now_ns)
        if not account.is_connected:
            return account.text or "not connected"
        silence_ns = answers.silence_ns(now_ns)
        if silence_ns < self._settings.unanswered_ns:
            return ""
        return f"no request was answered for {silence_ns // SECOND_NS} s"


class _Symptom:
    """One ailment with hysteresis: on once it was found for `appear_ns` on end, off once not for `clear_ns`."""

    def __init__(self, appear_ns: int, clear_ns: int) -> None:
        self.is_on = False
        self.text = ""
        self._appear_ns, self._clear_ns = appear_ns, clear_ns
        self._differs_since_ns: int | None = None

    def look(self, text: str, now_ns: int) -> None:
        """Take in whether it is found now: `text` says how, and is empty if not."""
        self.text = text or self.text
        if bool(text) == self.is_on:
            self._differs_since_ns = None
            return
        if self._differs_since_ns is None:
            self._differs_since_ns = now_ns
        if now_ns - self._differs_since_ns >= (self._clear_ns if self.is_on else self._appear_ns):
            self.is_on = not self.is_on
            self._differs_since_ns = None

    @property
    def is_over(self) -> bool:
        """Whether it is neither there nor on its way."""
        return not self.is_on and self._differs_since_ns is None


class _Market:
    """How silent an account's market data usually is.

    The mean of all gaps, each weighted by its length: how long the gap is in which somebody who looks at some
    moment finds himself. The plain mean would take the pauses of a market that moves in bursts for outages.
    Gaps count less the longer they are past. At first it is assumed to be 3 s, as if 10 s had been seen.
    """

    MEMORY_NS: Final = 600 * SECOND_NS
    ASSUMED_NS: Final = 3.0 * SECOND_NS
    ASSUMED_FOR_NS: Final = 10.0 * SECOND_NS

    def __init__(self, events: int, now_ns: int) -> None:
        self.heard_ns = self._looked_ns = now_ns
        self._events = events
        self._gaps_ns = self.ASSUMED_FOR_NS
        self._squares = self.ASSUMED_FOR_NS * self.ASSUMED_NS

    def heard(self, events: int, now_ns: int) -> None:
        """Take in how many events there were until now."""
        count = events - self._events
        looked_ns, self._looked_ns = self._looked_ns, now_ns
        if count <= 0:
            return
        passed_ns, since_look_ns = now_ns - self.heard_ns, now_ns - looked_ns
        past = math.exp(-passed_ns / self.MEMORY_NS)
        self._gaps_ns = self._gaps_ns * past + passed_ns
        # Silent up to the last look; when each event came after it is not known: as if evenly.
        squares = (passed_ns - since_look_ns) ** 2 + since_look_ns**2 / count
        self._squares = self._squares * past + squares
        self._events, self.heard_ns = events, now_ns

    @property
    def usual_silence_ns(self) -> int:
        """Return it."""
        return int(self._squares / self._gaps_ns)


class _Answers:
    """How long a venue has been leaving every request unanswered."""

    def __init__(self) -> None:
        self._in_flight: dict[str, int] = {}
        self._answered_ns = 0

    def take_in(self, in_flight: Mapping[str, int], now_ns: int) -> None:
        """Take in what waits for an answer: a request that was among it and is not any more has got one."""
        if any(in_flight.get(client_id) != since_ns for client_id, since_ns in self._in_flight.items()):
            self._answered_ns = now_ns
        self._in_flight = dict(in_flight)

    def silence_ns(self, now_ns: int) -> int:
        """Return it; 0 while nothing waits."""
        if not self._in_flight:
            return 0
        return now_ns - max(min(self._in_flight.values()), self._answered_ns)


def _seconds(time_ns: int) -> str:
    return f"{time_ns / SECOND_NS:.2g} s"
