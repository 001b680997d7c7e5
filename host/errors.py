"""What ends a node's process."""

from host.api import TandemError

__all__ = ["NodeMustRestart"]


class NodeMustRestart(TandemError):  # noqa: N818 - the fact, in the words operators see
    """This process cannot go on, and a new one can: its guardian starts it."""
