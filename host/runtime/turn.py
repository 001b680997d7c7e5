"""One turn of the engine for what a person asks for, between two events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from host.api import TandemError
from host.journal import JournalError

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Halted", "turn"]


class Halted(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The node sends nothing any more; `reason` says why. Only a restart helps."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this node halted and sends nothing any more: {reason}; restart it")
        self.reason = reason


@contextmanager
def turn(engine: "Engine") -> Iterator[int]:
    """Run the body as one turn and give it the time; what it journaled is written and sent at its end.

    Within a turn that is open it is a part of that one. What the body raises ends the turn as usual
    and goes on to the caller. Raises `Halted` where the node has halted, before the body or because its
    entries cannot be written.
    """
    if engine.halted:
        raise Halted(engine.halted)
    if engine.depth:
        yield engine.now_ns
        return
    now_ns = engine.clock.now_ns()
    engine.begin_turn(now_ns)
    try:
        yield now_ns
    except JournalError as error:
        engine.abort_turn(error)
    except BaseException:
        engine.end_turn(now_ns, 0)
        raise
    else:
        engine.end_turn(now_ns, 0)
    if engine.halted:
        raise Halted(engine.halted)
