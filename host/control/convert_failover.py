"""What a node knows of its cell, as the API's messages."""

from host.control.etags import etag_of
from host.control.leadership import FailoverStatus, StandbyStatus, Takeover
from host.control.plain import duration, timestamp
from tandem.v1 import failover_pb2 as pb

__all__ = ["failover_etag", "failover_message"]


def failover_etag(status: FailoverStatus) -> str:
    """Return what changes when somebody else leads."""
    return etag_of(status.cell, status.epoch, status.holder)


def failover_message(status: FailoverStatus) -> pb.Failover:
    """Return what a node knows of its cell."""
    message = pb.Failover(
        cell=status.cell,
        epoch=status.epoch,
        holder=status.holder,
        state=pb.ElectorState.Value(f"ELECTOR_STATE_{status.state.upper()}"),
        why_not=status.why_not,
        ttl=duration(status.ttl_ns),
        maintenance=status.is_maintained,
        durability=pb.DurabilityMode.Value(f"DURABILITY_MODE_{status.durability.upper() or 'UNSPECIFIED'}"),
        standbys=map(_standby, status.standbys),
        ailments=status.ailments,
        breaker=pb.SwitchBreaker(open=status.breaker_closes_ns > 0),
        previous_holder=status.previous_holder,
        last_change=status.last_change,
        etag=failover_etag(status),
    )
    if status.right_left_ns is not None:
        message.right_left.CopyFrom(duration(max(status.right_left_ns, 0)))
    if status.do_states_agree is not None:
        message.states_agree = status.do_states_agree
    if status.breaker_closes_ns > 0:
        message.breaker.closes_in.CopyFrom(duration(status.breaker_closes_ns))
    if status.last_takeover is not None:
        message.last_takeover.CopyFrom(_takeover(status.last_takeover))
    return message


def _standby(one: StandbyStatus) -> pb.Standby:
    return pb.Standby(
        name=one.name,
        address=one.address,
        control_address=one.control_address,
        lag_entries=one.lag_entries,
        lag_bytes=one.lag_bytes,
        lag_time=duration(one.lag_ns),
        round_trip=duration(one.round_trip_ns) if one.round_trip_ns else None,
        eligible=not one.why_not,
        why_not=one.why_not,
        ailments=one.ailments,
        differs_at_lsn=one.differs_at_lsn,
    )


def _takeover(one: Takeover) -> pb.Takeover:
    return pb.Takeover(
        epoch=one.epoch,
        time=timestamp(one.time_ns),
        previous_holder=one.previous_holder,
        reason=one.reason,
        duration=duration(sum(ns for _, ns in one.steps)),
        steps=[pb.TakeoverStep(name=name, duration=duration(ns)) for name, ns in one.steps],
    )
