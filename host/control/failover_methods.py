"""The part of NodeService that is about who leads."""

from host.control.call import Call
from host.control.convert_failover import failover_etag, failover_message
from host.control.etags import check_etag
from host.control.leadership import Leadership, heir_of
from host.control.reasons import Refused, Violation
from host.control.subject import Subject
from host.runtime.instance_control import NotNow
from tandem.v1 import node_pb2 as pb

__all__ = ["FailoverMethods"]


class FailoverMethods:
    """Shows who leads, and changes it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def get_failover(self, _request: pb.GetFailoverRequest, _call: Call) -> pb.GetFailoverResponse:
        """Return who leads, and who could."""
        subject = self._subject
        return pb.GetFailoverResponse(
            node=subject.config().node.name,
            role=pb.NODE_ROLE_STANDBY if subject.is_standby else pb.NODE_ROLE_PRIMARY,
            primary_address=subject.standby_of() or "",
            failover=failover_message(self._leadership().status()),
        )

    async def switchover(self, request: pb.SwitchoverRequest, call: Call) -> pb.SwitchoverResponse:
        """Hand the lease to a standby."""
        leadership = self._leadership()
        own = self._subject.config().node.name
        if not request.to and not request.etag:
            raise Refused.field(
                "to", "expected the name of a standby, or an etag for the best one, was neither"
            )
        if request.to == own:
            return pb.SwitchoverResponse(holder=own)  # it was asked for before, and the answer was lost
        _check_etag(leadership, request.etag)
        status = leadership.status()
        heir = heir_of(status, request.to)
        response = pb.SwitchoverResponse(holder=heir.name, control_address=heir.control_address)
        if not request.validate_only:
            call.before = {"holder": own, "epoch": status.epoch}
            await leadership.switchover(heir.name, call.because(request.reason))
            call.after = {"holder": heir.name}
        return response

    async def promote(self, request: pb.PromoteRequest, call: Call) -> pb.PromoteResponse:
        """Have this standby take the lease."""
        leadership = self._leadership()
        if not request.force:
            raise Refused.field("force", "expected true: the leader may be well, and is deposed; was false")
        _check_etag(leadership, request.etag)
        if not self._subject.is_standby:
            raise NotNow("WRONG_STATE", "this node leads already; only a standby can be promoted")
        if not request.validate_only:
            before = leadership.status()
            call.before = {"holder": before.holder, "epoch": before.epoch}
            await leadership.promote(call.because(request.reason))
            now = leadership.status()
            call.after = {"holder": now.holder, "epoch": now.epoch}
        return pb.PromoteResponse(failover=failover_message(leadership.status()))

    async def set_maintenance(
        self, request: pb.SetMaintenanceRequest, call: Call
    ) -> pb.SetMaintenanceResponse:
        """Have no node take over by itself, or let them again."""
        leadership = self._leadership()
        if not request.validate_only:
            call.before = leadership.status().is_maintained
            await leadership.set_maintenance(request.enabled, call.because(request.reason))
            call.after = request.enabled
        return pb.SetMaintenanceResponse(enabled=request.enabled)

    def _leadership(self) -> Leadership:
        leadership = self._subject.leadership
        if leadership is None:
            text = "this node runs alone: its configuration has no [failover]"
            raise Refused("NO_FAILOVER", text, Violation("failover", text))
        return leadership


def _check_etag(leadership: Leadership, etag: str) -> None:
    check_etag("the lease", etag, failover_etag(leadership.status()))
