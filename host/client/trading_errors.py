"""What a stand-alone strategy's program can be told."""

from host.api import TandemError

__all__ = ["ClientRefused", "NoHost", "StrategyFailed", "TokenRefused", "TradingClientError"]


class TradingClientError(TandemError):
    """The client cannot do what it was asked for; the subclasses say why."""


class NoHost(TradingClientError):  # noqa: N818 - the fact, in the words users see
    """Nobody listens at the address: the node or the instance does not run, or the address is another one."""


class TokenRefused(TradingClientError):  # noqa: N818 - the answer, not a malfunction
    """The host is there and does not answer: the token, or the key of the encryption, is not the instance's."""


class ClientRefused(TradingClientError):  # noqa: N818 - the answer, not a malfunction
    """The host says no. `reason` is its code: `PROTOCOL`, `TAKEN` (somebody else runs the instance), `CUT_OFF`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class StrategyFailed(TradingClientError):  # noqa: N818 - the fact; what it raised is `__cause__`
    """The strategy raised, so the host has quarantined its instance; what it raised is `__cause__`."""
