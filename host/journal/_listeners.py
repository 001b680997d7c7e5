"""Callbacks of one kind, each with the means to run on its owner's thread."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["CallSoon", "Listeners", "call_now"]

T = TypeVar("T")


class CallSoon(Protocol):
    """Runs a callback on the thread it belongs to, such as `loop.call_soon_threadsafe`."""

    def __call__(self, callback: Callable[[Any], object], argument: Any, /) -> object:
        """Arrange for `callback(argument)`."""


def call_now(callback: Callable[[Any], object], argument: Any) -> None:
    """Run the callback at once, on whatever thread this is."""
    callback(argument)


class Listeners(Generic[T]):
    """An immutable tuple inside, so that adding and telling may happen on different threads."""

    def __init__(self) -> None:
        self.items: tuple[tuple[Callable[[T], object], CallSoon], ...] = ()

    def add(self, callback: Callable[[T], object], call_soon: CallSoon) -> Callable[[], None]:
        """Add a callback and return what removes it."""
        item = (callback, call_soon)
        self.items += (item,)

        def undo() -> None:
            self.items = tuple(kept for kept in self.items if kept is not item)

        return undo

    def tell(self, value: T) -> None:
        """Hand `value` to each callback through its `call_soon`."""
        for callback, call_soon in self.items:
            call_soon(callback, value)

    def tell_now(self, value: T) -> None:
        """Call each callback here and now, for when this is already the owner's thread."""
        for callback, _ in self.items:
            callback(value)
