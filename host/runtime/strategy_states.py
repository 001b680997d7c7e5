"""What strategies must remember: their states, saved in the journal with what they have heard."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from host.core import entries as e
from host.core.entries import InstanceState
from host.runtime.instance import Instance
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.roster import Roster

__all__ = ["MAX_STATE_BYTES", "RECEIVING", "StrategyStates"]

RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)
"""The states of instances that hear of the market and of their orders."""
MAX_STATE_BYTES: Final = 1 << 20
"""A strategy's state is written with each of its fills; one that grows for ever ends here."""


MOST_ASKING_S: Final = 0.25
"""How long is waited for the state of a strategy in another process: what is not hung answers in a fraction of it."""
FETCH_LOOK_S: Final = 0.0005


class StrategyStates:
    """Takes the states of a roster's strategies, and has them journaled; one that cannot be is a fault.

    `touched` names the instances that heard of their orders in this turn: their states are saved with it.
    """

    def __init__(self, engine: "Engine", roster: "Roster") -> None:
        self.touched: Final[set[str]] = set()
        self._engine: Final = engine
        self._roster: Final = roster

    def take_checkpoints(self) -> None:
        """Remember the state of every strategy that receives."""
        for instance in list(self._roster.instances.values()):
            if instance.state in RECEIVING:
                try:
                    checkpoint = instance.checkpoint()
                except Exception as error:  # noqa: BLE001 - plugin boundary: quarantined
                    self._roster.quarantine(instance, error, "encoding its state")
                    continue
                instance.checkpoints.append(checkpoint)

    def ask(self, instances: Iterable[Instance]) -> Callable[[], bool]:
        """Ask strategies in other processes for their states as they are by now, for whoever goes on from those.

        Returns what says whether all have sent them; one that does not within `MOST_ASKING_S` is given up: what
        the market changed in it since it last sent one is lost then.
        """
        asked = [one.strategy for one in instances if isinstance(one.strategy, RemoteStrategy)]
        for strategy in asked:
            strategy.ask_state()
        ends_s = time.monotonic() + MOST_ASKING_S
        return lambda: time.monotonic() > ends_s or not any(strategy.owes_state for strategy in asked)

    async def fetch(self, instances: Iterable[Instance]) -> None:
        """Do what `ask` does, and wait for it."""
        are_there = self.ask(instances)
        while not are_there():
            await asyncio.sleep(FETCH_LOOK_S)

    def save_touched(self, now_ns: int) -> None:
        """Save the states of the strategies that heard of their orders in this turn.

        One in another process is told now, and saved by `heard` once it says that it has heard.
        """
        for name in sorted(self.touched):
            instance = self._roster.instances[name]
            if isinstance(instance.strategy, RemoteStrategy):
                instance.strategy.tell()
            else:
                self.save(instance, now_ns, force=True)
        self.touched.clear()

    def save(self, instance: Instance, now_ns: int, *, force: bool = False) -> None:
        """Journal a strategy's state if it changed.

        `force` writes it even if not, because the entry also says up to where the strategy has heard of
        its orders and fills. One that is out of service keeps what was saved before the event that
        broke it: its next version hears that event, and all that came after, again. While a version
        is on probation, what is written is the state of the one before it, which a restart comes
        back to.
        """
        if instance.state not in RECEIVING or isinstance(instance.strategy, RemoteStrategy):
            return
        if instance.fallback is not None:
            instance.fallback.save_state(now_ns, force=force)
            return
        try:
            data = instance.encode_state()
            if len(data) > MAX_STATE_BYTES:
                raise ValueError(f"at most {MAX_STATE_BYTES} bytes are kept, was {len(data)}")
        except Exception as error:  # noqa: BLE001 - plugin boundary: quarantined
            self._roster.quarantine(instance, error, "encoding its state")
            return
        if force or data != instance.saved_state:
            self.write(instance, instance.strategy.state_type.state_version, data, now_ns)

    def write(self, instance: Instance, version: int, data: bytes, now_ns: int) -> None:
        """Journal a state as what a restart gives back to the instance."""
        instance.saved_state = data
        self._engine.record(e.StrategyStateSaved(instance.instance, version, data), now_ns)

    def heard(self, instance: Instance, version: int, data: bytes, news: int, now_ns: int) -> None:
        """Journal the state of a strategy in another process, which has taken in so many more of its news."""
        instance.saved_state = data
        self._engine.record(e.StrategyStateSaved(instance.instance, version, data, news), now_ns)
