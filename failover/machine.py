"""What the sides of an elector share: where the node stands, and what came of the last input."""

from failover.signals import Action, Retire
from failover.states import Move, State, next_state

__all__ = ["Machine"]


class Machine:
    """The state, which moves by the table alone, and the actions that nobody has taken yet."""

    def __init__(self) -> None:
        self.state = State.WATCHING
        self.is_stopping = False
        """Whether this node is to leave the election."""
        self._out: list[Action] = []

    def move(self, move: Move) -> None:
        """Go where `move` leads from here."""
        self.state = next_state(self.state, move)

    def say(self, *actions: Action) -> None:
        """Add to what the owner is to do, in this order."""
        self._out += actions

    def take(self) -> list[Action]:
        """Return what the owner is to do."""
        out, self._out = self._out, []
        return out

    def retire(self, reason: str) -> None:
        """Take no part any more."""
        self.state = State.RETIRED
        self.say(Retire(reason))
