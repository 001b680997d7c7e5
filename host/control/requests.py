"""What every mutation may carry: a reason, and a request id, under which it happens once.

The answer is journaled in the same write as the effect, so that a caller who never saw it gets the
same one after a reconnect, and after a restart of the node.
"""

import asyncio
import hashlib
import re
from typing import Any, Final

from google.protobuf.message import Message

from host.control.call import Call
from host.control.reasons import Refused
from host.control.subject import Subject
from host.core import entries as e
from host.core.state import REQUESTS_KEPT, ServedRequest, request_key

__all__ = ["ServedRequests", "check_reason", "check_request_id", "digest_of"]

_ID: Final = re.compile(r"[\x21-\x7e]{1,64}")
LONGEST_REASON: Final = 500
"""In characters: it goes into the journal, alerts and the audit log."""


def digest_of(request: Message) -> str:
    """Return what tells two requests apart: equal for equal messages, whatever order a client wrote them in."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def check_request_id(request: Any) -> None:
    """Raise `Refused` for a request id that is malformed."""
    if request.request_id and not _ID.fullmatch(request.request_id):
        text = f"expected 1 to 64 visible ASCII characters, was {request.request_id[:80]!r}"
        raise Refused.field("request_id", text)


def check_reason(request: Any) -> None:
    """Raise `Refused` for a reason that is too long."""
    if len(request.reason) > LONGEST_REASON:
        text = f"expected at most {LONGEST_REASON} characters, was {len(request.reason)}"
        raise Refused.field("reason", text)


class ServedRequests:
    """What was answered to whom, from the journal; and what is under way.

    A node that may not write the journal, such as a standby, remembers what it answered until it ends.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._unwritten: dict[str, ServedRequest] = {}
        self._under_way: dict[tuple[str, str], asyncio.Future[None]] = {}

    def find(self, call: Call, request_id: str, digest: str) -> bytes | None:
        """Return the answer given to this caller under this id; None if there was none.

        Raises `Refused` for an id that stood for another request.
        """
        key = request_key(call.principal.name, request_id)
        served = self._subject.engine.state.requests.get(key) or self._unwritten.get(key)
        if served is None:
            return None
        if (served.method, served.digest) != (call.method, digest):
            text = f"{request_id} stood for another request ({served.method}); take a new id for each"
            raise Refused.field("request_id", text, "REQUEST_ID_REUSED")
        return served.response

    def note(self, call: Call, request_id: str, digest: str, response: bytes) -> None:
        """Journal an answer, within the turn of its effect."""
        engine = self._subject.engine
        if self._subject.may_record:
            entry = e.RequestServed(call.principal.name, request_id, call.method, digest, response)
            engine.record(entry, engine.now_ns)
            return
        key = request_key(call.principal.name, request_id)
        self._unwritten[key] = ServedRequest(call.method, digest, response, engine.clock.now_ns())
        if len(self._unwritten) > REQUESTS_KEPT:
            del self._unwritten[next(iter(self._unwritten))]

    async def wait_for_other(self, call: Call, request_id: str) -> None:
        """Wait while the same request is being carried out for another connection of the caller."""
        while (other := self._under_way.get((call.principal.name, request_id))) is not None:
            await asyncio.wait([other])

    def begin(self, call: Call, request_id: str) -> asyncio.Future[None]:
        """Say that a request is under way, until the future returned is given to `end`."""
        mark = asyncio.get_running_loop().create_future()
        self._under_way[call.principal.name, request_id] = mark
        return mark

    def end(self, call: Call, request_id: str, mark: "asyncio.Future[None]") -> None:
        """Say that a request is over, whatever came of it."""
        del self._under_way[call.principal.name, request_id]
        mark.set_result(None)
