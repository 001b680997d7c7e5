"""What a venue's error means for the request it answers: the same four answers for every venue."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from host.api import RejectReason

__all__ = ["Action", "ErrorTable", "Verdict"]


class Action(StrEnum):
    """What to do about an error."""

    FIX = "fix"
    """The venue said no, for certain: the request never had an effect, and the same one never will."""
    RETRY = "retry"
    """No effect, and the same request may succeed later: too many requests, clock, maintenance."""
    UNKNOWN = "unknown"
    """The request may have had its effect: ask by client id, never assume."""
    FATAL = "fatal"
    """No request of this account can succeed: wrong key, missing permission, banned address."""


class Verdict(Struct, frozen=True):
    """One error in our words."""

    action: Action
    reason: RejectReason = RejectReason.OTHER
    is_clock: bool = False
    """The venue refused the request's timestamp: measure its clock again."""
    is_limit: bool = False
    """We sent too much: stop for a while."""


class ErrorTable:
    """Finds the verdict on an error by its code, and by its text where the code says too little.

    A code that nobody knows is `FIX`/`OTHER` when the venue answered properly: it did say no.
    """

    def __init__(
        self, by_code: Mapping[int, Verdict], by_text: Mapping[int, Mapping[str, Verdict]] | None = None
    ) -> None:
        self._by_code = by_code
        self._by_text = by_text or {}

    def verdict(self, code: int, text: str = "") -> Verdict:
        """Return what an error means. Texts are compared without regard to case, by containment."""
        texts = self._by_text.get(code)
        if texts:
            lowered = text.lower()
            for part, verdict in texts.items():
                if part in lowered:
                    return verdict
        return self._by_code.get(code, _SAID_NO)

    @property
    def codes(self) -> frozenset[int]:
        """The codes that are known."""
        return frozenset(self._by_code) | frozenset(self._by_text)


_SAID_NO = Verdict(Action.FIX)
