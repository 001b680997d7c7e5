"""Plugins and instances as the journal knows them: what a standby shows, on which none of them runs."""

from collections.abc import Mapping

import msgspec

from host.control.etags import etag_of
from host.control.instance_settings import show_model_settings, show_settings
from host.control.plain import to_struct
from host.control.subject import Subject
from host.core.entries import InstanceState
from host.core.state import InstanceRecord
from host.runtime.instance_maker import is_isolated
from tandem.v1 import plugin_pb2 as pb

__all__ = ["recorded_instances", "recorded_plugin", "show_recorded"]


def recorded_instances(subject: Subject) -> Mapping[str, InstanceRecord]:
    """Return what the journal says of the instances that are configured, by name."""
    records = subject.engine.state.instances
    return {name: record for name, record in records.items() if subject.section(name) is not None}


def show_recorded(
    subject: Subject, record: InstanceRecord, states: "Mapping[InstanceState, pb.InstanceState.ValueType]"
) -> pb.Instance:
    """Return an instance as the journal knows it; the schema of its parameters is its plugin's, and not there."""
    state, section = subject.engine.state, subject.section(record.instance)
    is_api = record.instance in state.api_instances
    shown = pb.Instance(
        name=f"instances/{record.instance}",
        plugin=record.plugin,
        account=f"accounts/{record.account}",
        symbols=record.symbols,
        state=states[record.state],
        state_reason=record.reason,
        digest=record.digest,
        origin=pb.INSTANCE_ORIGIN_API if is_api else pb.INSTANCE_ORIGIN_CONFIG,
        etag=etag_of(*msgspec.structs.astuple(record)),
    )
    to_struct(msgspec.json.decode(record.params), shown.params)
    if section is not None:
        shown.quote_tolerance_bps = section.quote_tolerance_bps
        shown.start_paused = section.start == "paused"
        for ref in section.models:
            one = shown.models.add(model=ref.name)
            show_model_settings(ref, one)
            to_struct(ref.params, one.params)
        is_moved = is_isolated(record.instance, record.digest, state)
        show_settings(section, shown, is_moved=is_moved and section.isolation == "inline")
    return shown


def recorded_plugin(subject: Subject, name: str) -> pb.Plugin:
    """Return a plugin as the journal knows it: its versions, and not what it offers."""
    record = subject.engine.state.plugins[name]
    digest = record.active or record.permanent
    return pb.Plugin(
        name=f"plugins/{name}",
        digest=digest,
        permanent_digest=record.permanent,
        staged_digest=record.staged,
        probation_digest=digest if digest != record.permanent else "",
        auto_reload=record.is_auto,
        instances=[
            f"instances/{one.instance}"
            for one in recorded_instances(subject).values()
            if one.digest == digest
        ],
        etag=etag_of(digest, record.permanent, record.active, record.staged, record.is_auto),
    )
