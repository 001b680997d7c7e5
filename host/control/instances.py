"""Instances as the API shows them, and as it takes them."""

import re
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
from google.protobuf.struct_pb2 import Struct

from host.api import Params, TandemError, params_schema
from host.config import InstanceSection
from host.config.schema import SYMBOL_PATTERN
from host.control.etags import etag_of
from host.control.instance_settings import read_settings, show_model_settings, show_settings
from host.control.plain import duration, struct, timestamp, to_struct
from host.control.reasons import Refused, Violation, check_count
from host.control.recorded import recorded_instances, show_recorded
from host.control.subject import Subject
from host.core.entries import InstanceState
from host.loader import Offer, ParamsInvalid, UnknownPlugin, decode_params
from host.runtime.instance import Instance
from host.runtime.remote import RemoteModel, RemoteStatus, RemoteStrategy
from host.runtime.scope import NotKnown
from tandem.v1 import plugin_pb2 as pb

__all__ = ["STATES", "InstanceView", "schema_of"]

STATES: Final = {
    InstanceState.LOADED: pb.INSTANCE_STATE_LOADED,
    InstanceState.STARTING: pb.INSTANCE_STATE_STARTING,
    InstanceState.RUNNING: pb.INSTANCE_STATE_RUNNING,
    InstanceState.PAUSED: pb.INSTANCE_STATE_PAUSED,
    InstanceState.STOPPED: pb.INSTANCE_STATE_STOPPED,
    InstanceState.QUARANTINED: pb.INSTANCE_STATE_QUARANTINED,
}
DEFAULT_TOLERANCE_BPS: Final = 0.5
MOST_SYMBOLS: Final = 1000
MOST_MODELS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

# Weak, because a retired version's classes must be collectable.
_schemas: "WeakKeyDictionary[type[Params], Struct]" = WeakKeyDictionary()


def schema_of(params_type: type[Params]) -> Struct:
    """Return the JSON schema of a class of parameters; made once for each."""
    known = _schemas.get(params_type)
    if known is None:
        known = _schemas[params_type] = Struct()
        to_struct(params_schema(params_type), known)
    return known


class InstanceView:
    """Shows the instances of a node; one that was removed is not there any more, though its orders end yet."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def names(self) -> list[str]:
        """Return the names of all instances."""
        if self._subject.instances is None:
            return list(recorded_instances(self._subject))
        return [name for name in self._subject.engine.roster.instances if not self._is_leaving(name)]

    def find(self, name: str) -> Instance:
        """Return an instance; raise `Refused` where there is none of that name."""
        instance = self._subject.engine.roster.instances.get(name)
        if instance is None or self._is_leaving(name):
            known = ", ".join(sorted(self.names())) or "none"
            raise Refused("INSTANCE_NOT_FOUND", f"no instance is named {name}; there are: {known}", name=name)
        return instance

    def _is_leaving(self, name: str) -> bool:
        control = self._subject.instances
        return control is not None and control.is_leaving(name)

    def check_account(self, account: str) -> None:
        """Raise `NotKnown` where neither the configuration nor an instance has such an account."""
        subject = self._subject
        known = {one.name for one in subject.config().account} | {*subject.engine.feeds}
        known |= {record.account for record in subject.engine.state.instances.values()}
        if account not in known:
            raise NotKnown("account", account, f"there are {', '.join(sorted(known)) or 'none'}")

    def belongs(self, name: str) -> tuple[InstanceState, str, str]:
        """Return the state of an instance, its account and the plugin that it is of."""
        engine, reloader = self._subject.engine, self._subject.reloader
        if reloader is None:
            record = engine.state.instances[name]
            plugins = engine.state.plugins.items()
            versions = ((plugin, (one.active, one.permanent)) for plugin, one in plugins)
            of = next((plugin for plugin, digests in versions if record.digest in digests), "")
            return record.state, record.account, of
        instance, use = engine.roster.instances[name], reloader.uses.get(name)
        return instance.state, instance.account, "" if use is None else use.offer.version.name

    def etag(self, instance: Instance) -> str:
        """Return what changes when the instance does."""
        name = instance.instance
        record = self._subject.engine.state.instances[name]
        reloader, _ = self._subject.trading()
        use = reloader.uses.get(name)
        models = [(one.offer.name, one.params) for one in reloader.model_uses.get(name, ())]
        return etag_of(
            record.number, record.plugin, record.digest, record.account, record.symbols, instance.state,
            msgspec.to_builtins(instance.strategy.params), models, use is not None,
            self._subject.engine.state.isolated.get(name),
            self._subject.engine.state.api_instances.get(name) or self._subject.section(name),
        )  # fmt: skip

    def show_named(self, name: str, *, with_schema: bool = False) -> pb.Instance:
        """Return an instance as it is now, or as a standby knows it; raise `Refused` where there is none."""
        records = recorded_instances(self._subject) if self._subject.instances is None else {}
        if name in records:
            return show_recorded(self._subject, records[name], STATES)
        return self.show(self.find(name), with_schema=with_schema)

    def show(self, instance: Instance, *, with_schema: bool = False) -> pb.Instance:
        """Return an instance as it is now."""
        subject, name = self._subject, instance.instance
        reloader, _ = subject.trading()
        state = subject.engine.state
        record = state.instances[name]
        use = reloader.uses.get(name)
        shown = pb.Instance(
            name=f"instances/{name}",
            plugin=use.offer.name if use is not None else record.plugin,
            account=f"accounts/{record.account}",
            symbols=instance.symbols,
            state=STATES[instance.state],
            state_reason=record.reason,
            digest=record.digest,
            origin=pb.INSTANCE_ORIGIN_API if name in state.api_instances else pb.INSTANCE_ORIGIN_CONFIG,
            etag=self.etag(instance),
        )
        to_struct(msgspec.to_builtins(instance.strategy.params), shown.params)
        for model, stage in zip(reloader.model_uses.get(name, ()), instance.models, strict=False):
            one = shown.models.add(model=model.offer.name, used=stage.used, skipped=stage.skipped)
            one.last_error = stage.last_error
            show_model_settings(model, one)
            to_struct(msgspec.to_builtins(stage.model.params), one.params)
            if isinstance(stage.model, RemoteModel):
                _show_worker(stage.model.status(), one.worker)
        section = subject.section(name)
        if section is not None:
            shown.quote_tolerance_bps = section.quote_tolerance_bps
            shown.start_paused = section.start == "paused"
            # Not by the journal: a version that went live since runs in a worker too, until the next start.
            is_moved = section.isolation == "inline" and isinstance(instance.strategy, RemoteStrategy)
            show_settings(section, shown, is_moved=is_moved)
        self._show_schedule(name, shown)
        blocks = subject.engine.blocks.by_instance.get(name)
        if blocks is not None:
            shown.blocks = blocks.count
            shown.longest_block.CopyFrom(duration(blocks.longest_ns))
        if isinstance(instance.strategy, RemoteStrategy):
            _show_worker(instance.strategy.status(), shown.worker)
        if with_schema:
            shown.params_schema.CopyFrom(schema_of(type(instance.strategy).params_type))
        return shown

    def _show_schedule(self, name: str, shown: pb.Instance) -> None:
        view = self._subject.engine.scheduler.view(name)
        if view is None:
            return
        schedule = shown.schedule
        schedule.held_by, schedule.next_trigger = view.held_by, view.trigger
        for time_ns, field in (
            (view.opens_ns, schedule.open_time),
            (view.closes_ns, schedule.close_time),
            (view.trigger_ns, schedule.next_trigger_time),
        ):
            if time_ns is not None:
                field.CopyFrom(timestamp(time_ns))

    # -- a new one ---------------------------------------------------------------------------------

    def read(self, request: pb.CreateInstanceRequest) -> InstanceSection:
        """Return the section that a request describes; raise `Refused` naming everything wrong with it."""
        wanted, problems = request.instance, []
        check_count("instance.symbols", len(wanted.symbols), MOST_SYMBOLS)
        check_count("instance.models", len(wanted.models), MOST_MODELS)

        def wrong(field: str, text: str) -> None:
            problems.append(Violation(field, text))

        if not _NAME.fullmatch(request.instance_id):
            text = f'expected 1 to 64 of A-Z a-z 0-9 _ . -, not starting with _ . -; was "{request.instance_id[:80]}"'
            wrong("instance_id", text)
        account = wanted.account.removeprefix("accounts/")
        feed = self._subject.engine.feeds.get(account)
        if not wanted.account.startswith("accounts/") or feed is None:
            known = ", ".join(f"accounts/{one}" for one in self._subject.engine.feeds) or "none"
            wrong("instance.account", f'expected a connected account ({known}), was "{wanted.account[:80]}"')
        if not wanted.symbols:
            wrong("instance.symbols", "expected at least one symbol, was none")
        for place, symbol in enumerate(wanted.symbols):
            field = f"instance.symbols[{place}]"
            if not SYMBOL_PATTERN.fullmatch(symbol):
                wrong(
                    field, f'expected BASE-QUOTE or BASE-QUOTE-PERP such as "BTC-USDT", was "{symbol[:40]}"'
                )
            elif symbol in wanted.symbols[:place]:
                wrong(field, f'"{symbol}" is listed twice')
            elif feed is not None and symbol not in feed.listed:
                wrong(field, f"account {account} has no symbol {symbol}; it has {', '.join(feed.listed)}")
        tolerance = (
            wanted.quote_tolerance_bps if wanted.HasField("quote_tolerance_bps") else DEFAULT_TOLERANCE_BPS
        )
        if not 0 <= tolerance < float("inf"):
            wrong("instance.quote_tolerance_bps", f"expected at least 0, was {tolerance}")
        params, models = struct(wanted.params), []
        reloader, control = self._subject.trading()
        settings, found = read_settings(request, control.sections())
        problems += found
        catalog = reloader.catalog
        try:
            problems += _misfits("instance", catalog.strategy(wanted.plugin), params)
        except UnknownPlugin as error:
            wrong("instance.plugin", str(error))
        for place, model in enumerate(wanted.models):
            field = f"instance.models[{place}]"
            models.append({**settings["models"][place], "params": struct(model.params)})
            try:
                problems += _misfits(field, catalog.model(model.model), models[-1]["params"])
            except UnknownPlugin as error:
                wrong(f"{field}.model", str(error))
        if problems:
            text = "; ".join(f"{one.field}: {one.text}" for one in problems)
            raise Refused("INVALID_FIELD", text, *problems)
        table = {
            **settings,
            "plugin": wanted.plugin,
            "account": account,
            "symbols": list(wanted.symbols),
            "models": models,
            "params": params,
            "quote_tolerance_bps": tolerance,
            "start": "paused" if wanted.start_paused else "running",
        }
        return msgspec.convert(table, InstanceSection)

    def preview(self, section: InstanceSection) -> pb.Instance:
        """Return a section as the instance that it would become."""
        reloader, _ = self._subject.trading()
        offer = reloader.catalog.strategy(section.plugin)
        shown = pb.Instance(
            name=f"instances/{section.name}",
            plugin=section.plugin,
            account=f"accounts/{section.account}",
            symbols=section.symbols,
            quote_tolerance_bps=section.quote_tolerance_bps,
            start_paused=section.start == "paused",
            digest=offer.version.digest,
            origin=pb.INSTANCE_ORIGIN_API,
        )
        params = decode_params(offer, section.params, instance=section.name)
        to_struct(msgspec.to_builtins(params), shown.params)
        for ref in section.models:
            one = shown.models.add(model=ref.name)
            show_model_settings(ref, one)
            to_struct(ref.params, one.params)
        show_settings(section, shown, is_moved=False)
        return shown


def _misfits(at: str, offer: Offer, params: dict[str, Any]) -> list[Violation]:
    """Return what is wrong with a table of parameters, under the field `at`."""
    try:
        decode_params(offer, params, instance=at)
    except ParamsInvalid as error:
        return [Violation(f"{at}.{error.field}", error.detail)]
    except TandemError as error:
        return [Violation(f"{at}.params", str(error))]
    return []


def _show_worker(status: RemoteStatus, shown: pb.WorkerStatus) -> None:
    shown.state = status.state
    shown.pid, shown.restarts, shown.behind = status.pid, status.restarts, status.behind
    shown.conflated, shown.memory_bytes = status.conflated, status.memory_bytes
    shown.refused, shown.strangers = status.refused, status.strangers
    shown.lag.CopyFrom(duration(status.lag_ns))
    shown.slowest_event.CopyFrom(duration(status.slowest_us * 1000))
    shown.handled_p50.CopyFrom(duration(int(status.handled_p50_us * 1000)))
    shown.handled_p99.CopyFrom(duration(int(status.handled_p99_us * 1000)))
