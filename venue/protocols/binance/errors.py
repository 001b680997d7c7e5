"""Binance's refusals: code, words and HTTP status, as its error pages have them."""

from typing import Any

from host.api import TandemError

__all__ = ["BinanceRefusal", "bad_signature", "illegal", "missing", "not_required", "too_precise"]


class BinanceRefusal(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """A request that is refused; the answer's body is `{"code": …, "msg": …}`."""

    def __init__(self, code: int, text: str, *, status: int = 400, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status
        self.data = data
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """Return what the client reads."""
        body: dict[str, Any] = {"code": self.code, "msg": self.text}
        if self.data is not None:
            body["data"] = self.data
        return body


def missing(name: str) -> BinanceRefusal:
    """Return the refusal of a request without a parameter that it needs."""
    return BinanceRefusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> BinanceRefusal:
    """Return the refusal of a parameter whose characters are not those of its kind."""
    return BinanceRefusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def not_required(name: str) -> BinanceRefusal:
    """Return the refusal of a parameter that this request must not have."""
    return BinanceRefusal(-1106, f"Parameter '{name}' sent when not required.")


def too_precise(name: str) -> BinanceRefusal:
    """Return the refusal of a number with more decimals than the asset has."""
    return BinanceRefusal(-1111, f"Parameter '{name}' has too much precision.")


def bad_signature() -> BinanceRefusal:
    """Return the refusal of a signature that does not belong to the request."""
    return BinanceRefusal(-1022, "Signature for this request is not valid.")
