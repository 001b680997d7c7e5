"""Who calls, and what they may do."""

from enum import IntEnum, StrEnum

from msgspec import Struct

from host.api import TandemError

__all__ = ["NotAuthenticated", "Principal", "Role", "Via"]


class Role(IntEnum):
    """What a caller may do; each role may do what those before it may."""

    VIEWER = 1
    """Look at everything, change nothing."""
    OPERATOR = 2
    """Run the node: start, pause and stop instances, reload plugins, set parameters, stop trading."""
    TRADER = 3
    """Trade by hand, release what was stopped for safety, change risk limits."""
    ADMIN = 4
    """Everything, the process itself included: shut down, drain, switch over."""

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> "Role":
        """Return the role that is written `text`; raise `ValueError` naming those there are."""
        for role in cls:
            if str(role) == text.lower():
                return role
        raise ValueError(f'expected one of {", ".join(map(str, cls))}, was "{text}"')


class Via(StrEnum):
    """How a caller proved who they are."""

    UNIX_SOCKET = "unix_socket"
    """By having reached the socket: only the node's own user can enter its folder."""
    LOOPBACK = "loopback"
    """By the user id that the kernel gives for their end of a connection on this machine."""
    TOKEN = "token"
    CERTIFICATE = "certificate"


class Principal(Struct, frozen=True):
    """A caller whose identity is proved. `name` is what the audit log calls them."""

    name: str
    role: Role
    via: Via

    def may(self, required: Role) -> bool:
        """Return whether this caller may do what `required` is needed for."""
        return self.role >= required


class NotAuthenticated(TandemError):  # noqa: N818 - the answer, not a malfunction
    """Nobody knows who calls. `reason` is a stable code; the text says what to send instead.

    The text is safe to give to the caller: it never holds what was sent.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
