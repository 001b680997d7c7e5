"""Between the messages of the stream and the records that the rules work with."""

from failover.replication.batch import Batch, batch_crc
from failover.replication.greeting import Greeting
from failover.replication.history import Era, History
from failover.replication.lag import StandbyHealth
from host.journal import Frames
from tandem.v1 import replication_pb2 as pb

__all__ = ["batch_of", "batch_response", "greeting_of", "greeting_request", "health_message", "health_of"]


def greeting_request(greeting: Greeting) -> pb.ReplicateRequest:
    """Return a greeting as it is sent."""
    history = greeting.history
    return pb.ReplicateRequest(
        greeting=pb.Greeting(
            protocol_version=greeting.version,
            cell=greeting.cell,
            node=greeting.node,
            session=greeting.session,
            last_lsn=history.last_lsn,
            eras=[pb.JournalEra(epoch=era.epoch, first_lsn=era.first_lsn) for era in history.eras],
            wants_snapshot=greeting.wants_snapshot,
            control_address=greeting.control_address,
        )
    )


def greeting_of(message: pb.Greeting) -> Greeting:
    """Return the greeting in a message; whether it makes sense is for `answer` to say."""
    eras = tuple(Era(era.epoch, era.first_lsn) for era in message.eras)
    return Greeting(
        message.protocol_version,
        message.cell,
        message.node,
        message.session,
        History(eras, message.last_lsn),
        message.wants_snapshot,
        message.control_address,
    )


def batch_response(frames: Frames) -> pb.ReplicateResponse:
    """Return entries as they are sent."""
    crc = batch_crc(frames.first_lsn, frames.count, frames.data)
    return pb.ReplicateResponse(
        batch=pb.EntryBatch(first_lsn=frames.first_lsn, count=frames.count, frames=frames.data, crc=crc)
    )


def batch_of(message: pb.EntryBatch) -> Batch:
    """Return the batch in a message, unchecked."""
    return Batch(message.first_lsn, message.count, message.frames, message.crc)


def health_message(health: StandbyHealth) -> pb.NodeHealth:
    """Return a node's health as it is sent."""
    return pb.NodeHealth(
        is_fit=health.is_fit, is_current=health.is_current, ailments=health.ailments, reason=health.reason
    )


def health_of(message: pb.NodeHealth) -> StandbyHealth:
    """Return the health in a message."""
    return StandbyHealth(message.is_fit, message.is_current, tuple(message.ailments), message.reason)
