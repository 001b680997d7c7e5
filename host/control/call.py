"""One call: who makes it, what it needs of the node, and what is to be kept of it."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from msgspec import Struct

from host.control.principal import Principal

__all__ = ["Call"]


class Call(Struct, kw_only=True):
    """What a service method is given beside its request.

    A mutation says what was `before` and `after`, as plain data, for the audit log.
    """

    method: str
    """Such as `tandem.v1.PluginService/SetParams`."""
    principal: Principal
    peer: str
    """Where the caller is, such as `127.0.0.1:51324` or `unix`."""
    time_left_s: float | None = None
    """What the caller's deadline left when the call came; None without one."""
    keep: Callable[[Message], None] = lambda _response: None
    """Journals the answer for a repeated request id. A method that awaits calls it in the turn of its
    effect, with what it can say by then; the answer that it gives in the end replaces that. For all
    others it is done, in the same turn."""
    before: Any = None
    after: Any = None

    def because(self, reason: str) -> str:
        """Return a reason for the journal: the caller's name, and what they said."""
        return f"{self.principal.name}: {reason}" if reason else self.principal.name
