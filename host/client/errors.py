"""Why a call was not carried out: one class for each thing that a caller can do about it.

A program decides by the class or by `reason`, which never changes its meaning (the table is in
docs/control-api.md); the text is for people.
"""
# ruff: noqa: N818 - what a caller meets is a fact about the call, and most are no malfunction

from collections.abc import Mapping
from typing import Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from host.api import TandemError

__all__ = [
    "Conflict",
    "ControlError",
    "DeadlineExceeded",
    "InvalidRequest",
    "NodeFailed",
    "NotFound",
    "NotPermitted",
    "NotPrimary",
    "Refused",
    "Unavailable",
    "Unreachable",
    "error_of",
]

PRIMARY_ADDRESS: Final = "primary_address"
"""What the metadata of `NOT_PRIMARY` calls the address at which the primary takes calls."""


class ControlError(TandemError):
    """A call to a node failed.

    `code` is the gRPC status, `reason` the node's stable word for it, empty where no node said anything.
    `fields` holds what is wrong, by field of the request or by what the state lacks. `address` is where
    the call went.

    `request_id` is set where a change may have been carried out all the same: repeating the request with
    that id has its effect once. It is empty where nothing has changed for certain.
    """

    def __init__(
        self,
        text: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        address: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.reason = reason
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})
        self.address = address
        self.request_id = request_id


class InvalidRequest(ControlError):
    """The request itself is wrong, whatever the node's state: mend it; `fields` says where."""


class NotFound(ControlError):
    """There is no such instance, plugin, order or account."""


class Refused(ControlError):
    """The node's state does not allow it: the text says which state would."""


class NotPrimary(Refused):
    """This node is a standby and does not know its primary: ask the other one."""

    @property
    def primary(self) -> str:
        """Return where the primary takes calls; empty where the standby does not know."""
        return self.metadata.get(PRIMARY_ADDRESS, "")


class Conflict(ControlError):
    """The resource has changed since its etag was read: read it again and decide anew."""


class NotPermitted(ControlError):
    """The node does not know the caller, or the caller's role does not allow it."""


class Unavailable(ControlError):
    """The node, or what it depends on, cannot do it now: try again later."""


class Unreachable(Unavailable):
    """No node answers, or the connection broke."""


class DeadlineExceeded(ControlError):
    """The time for the call was over before its answer came."""


class NodeFailed(ControlError):
    """The node's own fault, or one of the connection's that should not happen; the node's log says more."""


_CLASSES: Final[Mapping[grpc.StatusCode, type[ControlError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: NotPermitted,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def error_of(error: grpc.aio.AioRpcError, address: str) -> ControlError:
    """Return what gRPC says of a call as our error, with the details that the node sent."""
    code = error.code()
    info, fields = error_details_pb2.ErrorInfo(), dict[str, str]()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        bad, failure = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            continue
        if detail.Unpack(bad):
            fields |= {one.field: one.description for one in bad.field_violations}
        elif detail.Unpack(failure):
            fields |= {one.subject: one.description for one in failure.violations}
    kind = _CLASSES.get(code, NodeFailed)
    text = error.details() or code.name
    if info.reason == "NOT_PRIMARY":
        kind = NotPrimary
    elif kind is Unavailable and not info.reason:
        kind, text = Unreachable, f"the connection to {address} broke: {text}"
    elif kind is DeadlineExceeded and not info.reason:
        text = f"{address} did not answer in time"
    return kind(
        text, code=code, reason=info.reason, fields=fields, metadata=dict(info.metadata), address=address
    )
