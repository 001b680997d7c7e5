"""Instances on an operator's word: made, started, stopped, changed and removed while the node trades.

The configuration file stays the source of its own instances: what is done to them here ends with
the next restart or edit, but for "stopped", which holds until somebody starts them. Instances made
here are in the journal, and come back from there (`docs/decisions/015-instances-of-the-api.md`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from host.api import Params, TandemError
from host.config import InstanceSection, NodeConfig, find_instance_mistakes
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.loader import Kind, decode_params
from host.runtime.instance import Instance
from host.runtime.instance_maker import InstanceMaker, PreparedInstance
from host.runtime.listening import listen_to
from host.runtime.reload import Reloader, StrategyUse
from host.runtime.scheduler import BY_SCHEDULE, Hold
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["InstanceControl", "NotNow", "sections_of_api", "with_api_instances"]

RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)


class NotNow(TandemError):  # noqa: N818 - the answer, not a malfunction
    """What is asked for does not fit the state that things are in. `reason` is a stable code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def sections_of_api(state: TradingState) -> dict[str, InstanceSection]:
    """Return how the instances that the API made are configured, by name."""
    return {
        name: msgspec.json.decode(section, type=InstanceSection)
        for name, section in state.api_instances.items()
    }


def with_api_instances(config: NodeConfig, engine: "Engine") -> NodeConfig:
    """Return a configuration with the instances that the journal keeps; a name in both is the file's.

    Such a name, and one whose account is not configured any more, is alerted; a standby leaves that to
    its primary.
    """
    known = {section.name for section in config.instance}
    accounts = {account.name for account in config.account}
    kept = []
    for name, section in sections_of_api(engine.state).items():
        if engine.is_following:
            if name not in known and section.account in accounts:
                kept.append(section)
        elif name in known:
            text = f"instance {name} is in the configuration file now; the one that the API made is gone"
            engine.alert("instance_replaced", text, name)
            now_ns = engine.clock.now_ns()
            engine.begin_turn(now_ns)
            engine.record(e.InstanceRemoved(name, "config"), now_ns)
            engine.end_turn(now_ns, 0)
        elif section.account not in accounts:
            text = f"instance {name}: no account is named {section.account} any more; remove the instance"
            engine.alert("instance_skipped", text, name)
        else:
            kept.append(section)
    return msgspec.structs.replace(config, instance=(*config.instance, *kept))


class InstanceControl:
    """What operators do to instances. Everything but `create` and `start` is one synchronous turn.

    `config` returns the configuration in force; `skipped` are the instances that could not be made.
    """

    def __init__(
        self,
        engine: "Engine",
        reloader: Reloader,
        maker: InstanceMaker,
        config: Callable[[], NodeConfig],
        skipped: dict[str, str],
    ) -> None:
        self._engine = engine
        self._reloader = reloader
        self._maker = maker
        self._config = config
        self._skipped = skipped
        self._leaving: dict[str, Instance] = {}
        """Instances that were removed and whose orders are not done yet."""
        engine.upkeep.duties.append(self._let_go)
        engine.scheduler.start_again = self._start_on_schedule
        engine.move_to_worker = self._move_to_worker

    # -- looking -----------------------------------------------------------------------------------

    def is_leaving(self, name: str) -> bool:
        """Return whether an instance was removed and only waits for its orders to be done."""
        return self._leaving.get(name) is self._engine.roster.instances.get(name, _NOBODY)

    def was_left_out(self, name: str) -> bool:
        """Return whether the API made an instance that the start of this node could not make."""
        return name in self._engine.state.api_instances and name not in self._engine.roster.instances

    def section(self, name: str) -> InstanceSection:
        """Return how an instance is configured, with the parameters that it has now."""
        section = sections_of_api(self._engine.state).get(name)
        if section is None:
            section = next((one for one in self._config().instance if one.name == name), None)
        if section is None:
            raise NotNow("WRONG_STATE", f"instance {name} was removed from the configuration; it is leaving")
        use = self._reloader.uses.get(name)
        return section if use is None else msgspec.structs.replace(section, params=dict(use.params))

    def sections(self) -> list[InstanceSection]:
        """Return every instance as it is configured, in the file or by the API."""
        configured = {one.name: one for one in self._config().instance}
        return list((configured | sections_of_api(self._engine.state)).values())

    # -- making and removing -----------------------------------------------------------------------

    async def create(self, section: InstanceSection, who: str, then: Callable[[Instance], None]) -> Instance:
        """Make an instance and start it; `then` is called in the same turn.

        Raises `NotNow`, and whatever `InstanceMaker.prepare` does; nothing has changed then.
        """
        self.check_free(section)

        def still_free() -> InstanceSection:
            self.check_free(section)
            return section

        return await self._install(section, who, then, still_free, is_new=True)

    def check_free(self, section: InstanceSection) -> None:
        """Raise `NotNow` where an instance of this name is there, or was and left a position elsewhere.

        The same where one that it is to come after is not there any more.
        """
        name, state = section.name, self._engine.state
        if name in {one.name for one in self._config().instance} or name in state.api_instances:
            raise NotNow("INSTANCE_EXISTS", f"instance {name} exists; take another name, or remove it first")
        known = state.instances.get(name)
        held = [s for s, holding in state.holdings.get(name, {}).items() if holding.qty]
        if known is not None and known.account != section.account and held:
            text = (
                f"an instance {name} held {', '.join(held)} on account {known.account}; close that first, "
                "or take another name"
            )
            raise NotNow("WRONG_STATE", text)
        order = {"name": name, "after": list(section.after)}
        for _, problem in find_instance_mistakes(order, self.sections()):
            raise NotNow("WRONG_STATE", f"instance {name}: {problem}")

    def check_removable(self, name: str) -> None:
        """Raise `NotNow` for an instance that only an edit of the configuration removes."""
        if name not in self._engine.state.api_instances:
            text = f"instance {name} is in the configuration file: remove it there, and the node follows"
            raise NotNow("CONFIGURED_IN_FILE", text)

    def remove(self, name: str, who: str, reason: str) -> None:
        """Stop an instance that the API made; it leaves the roster once its orders are done."""
        self.check_removable(name)
        self._skipped.pop(name, None)
        with turn(self._engine) as now_ns:
            self._engine.record(e.InstanceRemoved(name, who), now_ns)
            instance = self._engine.roster.instances.get(name)
            if instance is None:
                return
            self._engine.roster.stop(instance, reason)
            self._end_quarantine(instance, reason, now_ns)
            self._reloader.forget(instance, now_ns)
            self._engine.scheduler.forget(name)
            self._leaving[name] = instance
            self._let_go(now_ns)

    def _let_go(self, _now_ns: int) -> None:
        if not self._leaving:
            return
        busy = {order.instance for order in self._engine.state.orders.values()}
        for name, instance in list(self._leaving.items()):
            is_there = self._engine.roster.instances.get(name) is instance
            if is_there and name not in busy:
                self._engine.roster.remove(instance)
            if not is_there or name not in busy:
                del self._leaving[name]

    # -- starting and stopping ---------------------------------------------------------------------

    async def start(
        self,
        name: str,
        who: str,
        *,
        paused: bool,
        as_configured: bool,
        then: Callable[[Instance], None],
    ) -> Instance:
        """Make a stopped or quarantined instance anew, with its state, and start it; as `create`.

        `as_configured` has one that the watchdog moved into a worker process run inline again.
        """
        section = self._startable(name)

        def still_startable() -> InstanceSection:
            now = self._startable(name)
            if (now.plugin, now.models, now.account, now.symbols) != (
                section.plugin, section.models, section.account, section.symbols
            ):  # fmt: skip
                text = f"the configuration of instance {name} changed meanwhile; start it once more"
                raise NotNow("WRONG_STATE", text)
            return now  # with the parameters of now

        return await self._install(
            section, who, then, still_startable, is_new=False, paused=paused, as_configured=as_configured
        )

    def _startable(self, name: str) -> InstanceSection:
        """Return how an instance would start now; raise `NotNow` for one that cannot."""
        instance = self._engine.roster.instances.get(name)
        if instance is None or self.is_leaving(name):
            raise NotNow("WRONG_STATE", f"instance {name} was removed; create it anew")
        self.check_not_held(name, "start it")
        if instance.state in (*RECEIVING, InstanceState.STARTING):
            raise NotNow(
                "WRONG_STATE", f"instance {name} is {instance.state}; only one that stopped can start"
            )
        return self.section(name)

    def stop(self, name: str, who: str, reason: str) -> None:
        """Stop an instance until somebody starts it, over restarts too; its orders are pulled."""
        instance = self._engine.roster.instances[name]
        can_stop = instance.state in (*RECEIVING, InstanceState.QUARANTINED) or self.is_stopped_for_now(name)
        if not can_stop:
            raise NotNow("WRONG_STATE", f"instance {name} is {instance.state}; it does not run")
        with turn(self._engine) as now_ns:
            self._engine.roster.stop(instance, reason)
            self._end_quarantine(instance, reason, now_ns)
            self._engine.record(e.InstanceHeld(name, True, who), now_ns)

    def pause(self, name: str, reason: str) -> None:
        """Pull an instance's quotes; it goes on receiving."""
        self._engine.roster.pause(self._receiving(name, "paused"), reason)

    def resume(self, name: str, reason: str) -> None:
        """Let a paused instance trade again, once its schedule lets it; one that only that holds is refused."""
        self.check_not_held(name, "resume it")
        self._engine.roster.resume(self._receiving(name, "resumed"), reason)

    def check_not_held(self, name: str, wanted: str) -> None:
        """Raise `NotNow` for an instance that nothing but its schedule holds."""
        hold = self._hold_in_force(name)
        if hold is not None:
            text = f"instance {name} is {hold.state}: {hold.reason}; to {wanted} sooner, change its schedule"
            raise NotNow("HELD_BY_SCHEDULE", text)

    def is_stopped_for_now(self, name: str) -> bool:
        """Return whether an instance is stopped by its schedule, which would start it again."""
        record = self._engine.state.instances[name]
        return record.state is InstanceState.STOPPED and bool(record.by)

    def _hold_in_force(self, name: str) -> Hold | None:
        by = self._engine.state.instances[name].by
        return self._engine.scheduler.hold_of(name) if by else None

    def _start_on_schedule(self, name: str) -> bool:
        """Make an instance that its schedule stopped anew; return False while its plugin is being changed."""
        section = self.section(name)
        if self._reloader.is_changing(self._plugins_of(section)):
            return False
        prepared = self._maker.prepare(section)
        self._take_on(prepared, BY_SCHEDULE, lambda _: None, is_new=False, paused=False)
        return True

    def _plugins_of(self, section: InstanceSection) -> set[str]:
        plugin_of = self._reloader.catalog.plugin_of
        models = {plugin_of(Kind.MODEL, ref.name) for ref in section.models}
        return {plugin_of(Kind.STRATEGY, section.plugin), *models}

    def _receiving(self, name: str, wanted: str) -> Instance:
        instance = self._engine.roster.instances[name]
        if instance.state not in RECEIVING:
            text = f"instance {name} is {instance.state}; only a running or paused one can be {wanted}"
            raise NotNow("WRONG_STATE", text)
        return instance

    def _move_to_worker(self, name: str, why: str) -> bool:
        """Have an instance that blocks the event loop go on in a worker process, within a turn; its orders are pulled.

        Returns False where that cannot be now: there are no workers, or its plugin is being changed.
        """
        engine, instance = self._engine, self._engine.roster.instances[name]
        record, section = engine.state.instances[name], self.section(name)
        if not self._maker.has_workers or self._reloader.is_changing(self._plugins_of(section)):
            return False
        was_paused = instance.state is InstanceState.PAUSED and not record.by
        with turn(engine) as now_ns:
            engine.roster.states.save(instance, now_ns, force=True)
            if instance.state not in RECEIVING:  # its state cannot be saved
                return True
            engine.record(e.InstanceIsolated(name, record.digest, why), now_ns)
            engine.record_alert(
                "moved_to_worker", f"instance {name} goes on in a worker process: {why}", name
            )
            engine.roster.pull_orders(instance, why, now_ns)
            try:
                prepared = self._maker.prepare(section)
            except TandemError as error:
                engine.roster.put_in_quarantine(instance, f"{why}; it could not be moved: {error}")
                return True
            self._take_on(prepared, "the watchdog", lambda _: None, is_new=False, paused=was_paused)
        return True

    # -- parameters --------------------------------------------------------------------------------

    def merged_params(
        self, name: str, changes: Mapping[str, Any], mask: Sequence[str]
    ) -> tuple[dict[str, Any], Params]:
        """Return an instance's table of parameters with changes, and what it decodes to.

        An empty `mask` takes all of `changes`, `*` makes them the whole table; a name in the mask
        that is not among them goes back to its default. Raises `ParamsInvalid`.
        """
        use = self._reloader.uses[name]
        named = frozenset(mask)
        if "*" in named:
            table = dict(changes)
        else:
            table = {**use.params, **{k: v for k, v in changes.items() if not named or k in named}}
            for key in named:
                if key not in changes:
                    table.pop(key, None)
        return table, decode_params(use.offer, table, instance=name)

    def set_params(self, name: str, table: Mapping[str, Any], params: Params, who: str) -> None:
        """Hand parameters to an instance between two events; one that raises in `on_params` is quarantined."""
        engine = self._engine
        instance = engine.roster.instances[name]
        before = self._reloader.uses[name]
        self._reloader.uses[name] = StrategyUse(before.offer, table)
        is_other = params != instance.strategy.params
        # A default that is said outright is kept, too: another version may have another one.
        is_kept = name in engine.state.api_instances and (is_other or dict(before.params) != dict(table))
        if not (is_other or is_kept):
            return
        with turn(self._engine) as now_ns:
            if is_other:
                engine.record(e.ParamsChanged(name, msgspec.json.encode(params), who), now_ns)
            if is_kept:
                self._keep_section(msgspec.structs.replace(self.section(name), params=dict(table)), who)
            if is_other and instance.state in RECEIVING:
                engine.roster.call(instance, lambda _: instance.set_params(params), None, "on_params")
            else:
                instance.strategy.params = params

    # -- inside ------------------------------------------------------------------------------------

    async def _install(
        self,
        section: InstanceSection,
        who: str,
        then: Callable[[Instance], None],
        check: Callable[[], InstanceSection],
        *,
        is_new: bool,
        paused: bool | None = None,
        as_configured: bool = False,
    ) -> Instance:
        """Take an instance on; `check` says, after all the waiting, with which section, or raises."""
        engine, reloader = self._engine, self._reloader
        feed = engine.feeds.get(section.account)
        if feed is None or feed.failure:
            why = f"it failed: {feed.failure}" if feed is not None else "it was not connected at the start"
            raise NotNow("ACCOUNT_UNAVAILABLE", f"account {section.account} cannot be traded on: {why}")
        catalog = reloader.catalog
        offers = [catalog.strategy(section.plugin), *(catalog.model(ref.name) for ref in section.models)]
        plugins = {offer.version.name for offer in offers}
        adapter = reloader.adapter_uses.get(section.account)
        async with reloader.holding({*plugins, *({adapter.offer.version.name} if adapter else ())}):
            if busy := reloader.on_probation & plugins:
                text = f"a version of {', '.join(sorted(busy))} is on probation; promote it, or wait"
                raise NotNow("ON_PROBATION", text)
            await reloader.keep(offers)
            new = set(section.symbols) - feed.symbols.keys()
            await listen_to(engine, {section.account: new} if new else {})
            # From here to the end there is no await. What was checked may not be so any more.
            if engine.stopping:
                raise NotNow("STOPPING", f"this node stops: {engine.stopping}")
            now = check()
            prepared = self._maker.prepare(now, as_configured=as_configured)
            if as_configured and now.name in engine.state.isolated:
                with turn(engine) as now_ns:
                    engine.record(e.InstanceIsolated(now.name, "", f"{who} had it run inline again"), now_ns)
            return self._take_on(prepared, who, then, is_new=is_new, paused=paused)

    def _take_on(
        self,
        prepared: PreparedInstance,
        who: str,
        then: Callable[[Instance], None],
        *,
        is_new: bool,
        paused: bool | None,
    ) -> Instance:
        engine, section, instance = self._engine, prepared.section, prepared.instance
        with turn(self._engine) as now_ns:
            old = engine.roster.instances.get(section.name)
            if old is not None:
                self._end_quarantine(old, f"started by {who}", now_ns)
                self._reloader.forget(old, now_ns)
                engine.roster.remove(old)
            if is_new:
                self._keep_section(section, who)
            if section.name in engine.state.held:
                engine.record(e.InstanceHeld(section.name, False, who), now_ns)
            self._skipped.pop(section.name, None)
            self._maker.install(prepared)
            self._reloader.take_on(section.name, prepared.use, prepared.model_uses)
            is_paused = section.start == "paused" if paused is None else paused
            self._maker.start(instance, section, paused=is_paused)
            then(instance)
        return instance

    def _keep_section(self, section: InstanceSection, who: str) -> None:
        data = msgspec.json.encode(section)
        self._engine.record(e.InstanceConfigured(section.name, data, who), self._engine.now_ns)

    def _end_quarantine(self, instance: Instance, reason: str, now_ns: int) -> None:
        """Note that a person looked at it: the same bytes may run again."""
        if instance.state is InstanceState.QUARANTINED:
            instance.state = InstanceState.STOPPED
            self._engine.record(e.InstanceChanged(instance.instance, InstanceState.STOPPED, reason), now_ns)


_NOBODY: Final = object()
