"""What can be done to a pair, and how a script says it: `kill a@3s, cut b venue@ready+1s, heal b@+2s`."""

import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

from host.api import TandemError
from host.config.failover import duration_ms

__all__ = ["Act", "Deed", "LinkKind", "Planned", "ScriptInvalid", "Since", "parse_script"]


class Act(StrEnum):
    """What is done, as scripts write it."""

    KILL = "kill"
    """kill -9 of the node; its guardian lives."""
    LOSE = "lose"
    """kill -9 of node and guardian: the machine is gone."""
    FREEZE = "freeze"
    """SIGSTOP of both: a virtual machine that is paused."""
    THAW = "thaw"
    CUT = "cut"
    """A link passes nothing on, and nobody is told."""
    REFUSE = "refuse"
    """A link resets its connections, and every new one."""
    HEAL = "heal"
    SWITCHOVER = "switchover"
    RESTART = "restart"


class LinkKind(StrEnum):
    """Where a link of a node leads."""

    STORE = "store"
    PEERS = "peers"
    VENUE = "venue"


LEADER: Final = "leader"
STANDBY: Final = "standby"
_ON_LINKS: Final = (Act.CUT, Act.REFUSE)


class Deed(Struct, frozen=True):
    """One thing to do. `node` is a name, `leader` or `standby`; empty for a switchover to the best standby."""

    act: Act
    node: str = ""
    link: LinkKind | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.act, self.node, self.link)))


class Since(StrEnum):
    """From when on the time of a step counts."""

    START = ""
    """The moment at which the pair was ready."""
    ENDED = "+"
    """The moment at which it was known what came of the steps before."""
    READY = "ready"
    """The moment from which on, in addition, every node leads or could take over."""


class Planned(Struct, frozen=True):
    """A deed and when it is done: `at_s` seconds after the moment `since`."""

    deed: Deed
    at_s: float
    since: Since = Since.START


class ScriptInvalid(TandemError):  # noqa: N818 - the fact, in the words users see
    """A step of a script cannot be read; the message names it."""

    def __init__(self, step: str, expected: str) -> None:
        super().__init__(
            f'--script: expected {expected}, was "{step}"; an example: "kill a@3s, cut leader store@8s, heal a@12s"'
        )
        self.step = step


_STEP: Final = re.compile(r"(?P<words>[a-z]+(?: +[a-z]+){0,2}) *@ *(?P<ready>ready)?(?P<plus>\+)?(?P<at>\S*)")


def parse_script(text: str, names: tuple[str, ...]) -> list[Planned]:
    """Return the steps of a script in the order in which they are done; raise `ScriptInvalid`.

    A step is `ACT [NODE] [LINK]@TIME`. NODE is one of `names`, `leader` or `standby`, taken for what is so
    at that moment. TIME is `3s` after the pair was ready, `+1s` after the end of the step before, or `ready`
    or `ready+1s`: when, besides, every node is well. Steps of which all have a time of the first kind may stand
    in any order.
    """
    steps = [step.strip() for step in text.split(",")]
    planned = [_step(step, names) for step in steps if step]
    if not planned:
        raise ScriptInvalid(text, "at least one step such as kill a@3s")
    if all(one.since is Since.START for one in planned):
        planned.sort(key=lambda one: one.at_s)
    return planned


def _step(step: str, names: tuple[str, ...]) -> Planned:
    match = _STEP.fullmatch(step)
    if match is None:
        raise ScriptInvalid(step, "ACT NODE@TIME")
    at_s, since = _time(step, match)
    word, *rest = match["words"].split()
    if word not in list(Act):
        raise ScriptInvalid(step, f"one of {', '.join(Act)}")
    act = Act(word)
    node = rest.pop(0) if rest else ""
    if node not in (*names, LEADER, STANDBY) and not (act is Act.SWITCHOVER and not node):
        raise ScriptInvalid(step, f"a node ({', '.join(names)}, {LEADER} or {STANDBY}) after {act}")
    if act in _ON_LINKS:
        if len(rest) != 1 or rest[0] not in list(LinkKind):
            raise ScriptInvalid(step, f"one of {', '.join(LinkKind)} after the node")
        return Planned(Deed(act, node, LinkKind(rest[0])), at_s, since)
    if rest:
        raise ScriptInvalid(step, f"nothing between {node} and @")
    return Planned(Deed(act, node), at_s, since)


def _time(step: str, match: re.Match[str]) -> tuple[float, Since]:
    since = Since.READY if match["ready"] else Since.ENDED if match["plus"] else Since.START
    if match["ready"] and not match["plus"] and not match["at"]:
        return 0.0, since
    try:
        if match["ready"] and not match["plus"]:
            raise ValueError
        return duration_ms(match["at"]) / 1000, since
    except ValueError as error:
        raise ScriptInvalid(step, "a time such as 3s, +1s, ready or ready+1s after @") from error
