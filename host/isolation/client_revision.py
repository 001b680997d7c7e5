"""One instance's step from a version of its plugin to another where a program of its own runs the strategy.

The class of the plugin gives the instance its parameters, with their types and bounds, and says what it hears; the
code that trades is the program's, and changes with that. So there is nothing to rehearse, and nothing to watch.
"""

from typing import TYPE_CHECKING, Final

from host.core import entries as e
from host.core.entries import InstanceState
from host.isolation.proxy import Proxy, proxy_class
from host.runtime.admission import check_candles
from host.runtime.reload.version_change import VersionChange

if TYPE_CHECKING:
    from host.isolation.attached import Attached
    from host.runtime.engine import Engine

__all__ = ["ClientRevision"]


class ClientRevision:
    """Keeps `Revision`'s promises. Whoever is attached stays, and is told parameters that are others now."""

    probation: None = None

    def __init__(self, engine: "Engine", running: Proxy, attached: "Attached", change: VersionChange) -> None:
        self.instance: Final = running.instance
        self.name: Final = self.instance.instance
        self.place: Final = "strategy"
        self._engine: Final = engine
        self._attached: Final = attached
        self._change: Final = change
        self._last_item: Final = running.last_item
        self._new: Proxy | None = None
        self._before: tuple[Proxy, str] | None = None
        """What a rollback goes back to: what stands for the version that has earned its place, and its digest."""

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Check the configured parameters against the new class; raise `ParamsInvalid` where they do not fit it."""
        offer = self._change.find()
        new = self._new = proxy_class(offer.cls)(self._change.params(), self._last_item)
        new.ctx = self.instance
        check_candles(self.name, new)
        return f"instance {self.name}: the parameters fit"

    async def warm_up(self) -> str:
        """Try nothing: the code is the program's."""
        return f"instance {self.name}: nothing to try, its code is that of the program which attaches"

    def prepare(self, now_ns: int) -> None:
        """Take the parameters as they are by now."""
        self._proxy().params = self._change.params()

    # -- the swap, and after ---------------------------------------------------------------------

    def swap(self, now_ns: int) -> None:
        """Have the new class give the parameters and say what is heard; within one turn."""
        if self._before is None:
            running = self.instance.strategy
            assert isinstance(running, Proxy)
            self._before = running, self._engine.state.instances[self.name].digest
        self._take(self._proxy(), self._change.digest, "reload", now_ns)
        if self.instance.state is InstanceState.QUARANTINED:
            self._engine.roster.release(self.instance, "reload")

    def succeed(self, previous: object) -> None:
        """Take the place of a version on probation: what a rollback goes back to is the one before that."""
        if isinstance(previous, ClientRevision):
            self._before = previous._before

    def settle(self, now_ns: int) -> None:
        """Have nothing to let go of."""

    def abandon(self) -> None:
        """Have nothing to undo."""

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Have the class before give the parameters again. What the program placed is its own, whatever the policy."""
        assert self._before is not None, "it was live"
        proxy, digest = self._before
        self._take(proxy, digest, f"rolled back: {reason}", now_ns)

    def _take(self, proxy: Proxy, digest: str, why: str, now_ns: int) -> None:
        instance, engine = self.instance, self._engine
        before = instance.strategy.params
        self._attached.take(proxy)
        instance.strategy = proxy
        engine.roster.fit(instance)
        engine.record(e.InstanceRevised(self.name, digest, why), now_ns)
        if proxy.params != before:
            proxy.on_params(before)

    def _proxy(self) -> Proxy:
        assert self._new is not None, "built before"
        return self._new
