"""What requests and events are about: the words by which the log names them and faults are addressed."""

from enum import StrEnum

__all__ = ["EventKind", "Kind"]


class Kind(StrEnum):
    """What a request is about; faults and the log name requests by it."""

    PLACE = "place"
    AMEND = "amend"
    """Cancel-and-replace included."""
    CANCEL = "cancel"
    CANCEL_ALL = "cancel_all"
    BATCH = "batch"
    """Several orders, amends or cancels in one request."""
    QUERY = "query"
    """Anything private that changes nothing."""
    SETTING = "setting"
    """Leverage, margin type, dead man's switch."""
    MARKET = "market"
    """Public data, the time included."""
    LOGIN = "login"
    """A session or a listen key."""
    SUBSCRIBE = "subscribe"


class EventKind(StrEnum):
    """What an event of a stream is about."""

    PRIVATE = "private"
    """Orders, fills, balances, positions of the account."""
    DEPTH = "depth"
    TOP = "top"
    TRADE = "trade"
    TICKER = "ticker"
