"""Errors that plugin authors meet."""

__all__ = ["ExchangeError", "OrderRefused", "TandemError"]


class TandemError(Exception):
    """Root of the project's own errors; its message names the thing, the cause and the next step."""


class OrderRefused(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """The host did not send an order. `reason` is a stable code, `detail` says what and why.

    `field` names the part of the request that cannot be, where it is one.
    """

    def __init__(self, reason: str, detail: str, field: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field


class ExchangeError(TandemError):
    """An adapter cannot serve: wrong settings, or the venue cannot be reached."""
