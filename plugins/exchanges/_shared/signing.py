"""Credentials of an account, and signatures made with them."""

import base64
import hmac

from host.api import ExchangeError, Secret

__all__ = ["HmacSigner", "mask", "require"]


class HmacSigner:
    """Signs with HMAC-SHA256 under one secret.

    The key schedule is computed once and copied for each message: half the time of `hmac.new`. It
    holds no copy of the secret's text and prints as nothing but its class.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: Secret) -> None:
        self._keyed = hmac.new(secret.reveal().encode(), digestmod="sha256")

    def hex(self, payload: bytes) -> str:
        """Return the signature as lower-case hexadecimal digits."""
        mac = self._keyed.copy()
        mac.update(payload)
        return mac.hexdigest()

    def base64(self, payload: bytes) -> str:
        """Return the signature in base64."""
        mac = self._keyed.copy()
        mac.update(payload)
        return base64.b64encode(mac.digest()).decode()

    def __repr__(self) -> str:
        return "HmacSigner(***)"


def require(exchange: str, name: str, secret: Secret | None) -> Secret:
    """Return a credential; raise `ExchangeError`, which says how to give it, where there is none."""
    if secret is None or not secret.reveal().strip():
        raise ExchangeError(
            f"{exchange}: params.{name} is missing; store it with `tandem secret set NAME` and write "
            f'{name} = "secret:NAME"'
        )
    return secret


def mask(text: str, *secrets: Secret | None) -> str:
    """Return a venue's words without the credentials that it repeats in them."""
    for secret in secrets:
        if secret is not None and (shown := secret.reveal()):
            text = text.replace(shown, "***")
    return text
