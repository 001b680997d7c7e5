"""Who a client is to a node, and whom it believes to be one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from msgspec import Struct

from host.api import Secret, TandemError
from host.client.address import Address
from host.config.private_files import read_private

__all__ = ["Credentials", "CredentialsUnusable"]

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    # A node that was restarted, or took over, is found within a moment.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A watch that hears nothing for long must notice that its node is gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC would repeat calls by rules of its own; which ones are safe is decided in calling.py.
    ("grpc.enable_retries", 0),
)


class CredentialsUnusable(TandemError):  # noqa: N818 - the fact, in the words users see
    """A token, key or certificate cannot be used; the message names the file."""


class Credentials(Struct, frozen=True, kw_only=True):
    """What a client shows of itself. Without any of it, the node asks the kernel whose connection it is."""

    token: Secret | None = None
    ca: bytes | None = None
    """Who signs the node's certificate (PEM); None is whom this system trusts."""
    certificate: bytes | None = None
    """The client's own (PEM), with `key`."""
    key: Secret | None = None
    server_name: str = ""
    """The name in the node's certificate, where it is not that of the address."""

    @classmethod
    def load(
        cls,
        *,
        token: str = "",
        token_file: Path | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
    ) -> "Credentials":
        """Read the files given; a token file counts before `token`.

        Raises `CredentialsUnusable`, or `NotPrivate` for a secret that other users can read.
        """
        if (certificate is None) != (key is None):
            raise CredentialsUnusable("a client certificate and its key are used together; one is missing")
        if token_file is not None:
            token = _read(token_file, is_secret=True).decode("ascii", "replace").strip()
            if not token:
                raise CredentialsUnusable(f"{token_file} is empty; expected a token")
        if not (token.isascii() and token.isprintable()):
            raise CredentialsUnusable(
                "expected a token as `tandem token create` prints it: one line of ASCII"
            )
        return cls(
            token=Secret(token) if token else None,
            ca=None if ca is None else _read(ca),
            certificate=None if certificate is None else _read(certificate),
            key=None if key is None else Secret(_read(key, is_secret=True).decode("ascii", "replace")),
            server_name=server_name,
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what each call is sent with."""
        return () if self.token is None else (("authorization", f"Bearer {self.token.reveal()}"),)

    def channel(self, address: Address) -> grpc.aio.Channel:
        """Return a channel to an address; it connects when it is first used."""
        options = [*_OPTIONS]
        if address.is_local:
            options.append(("grpc.enable_http_proxy", 0))
        if not address.is_tls:
            return grpc.aio.insecure_channel(address.target, options=options)
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        key = None if self.key is None else self.key.reveal().encode()
        tls = grpc.ssl_channel_credentials(self.ca, key, self.certificate)
        return grpc.aio.secure_channel(address.target, tls, options=options)


def _read(path: Path, *, is_secret: bool = False) -> bytes:
    try:
        return read_private(path) if is_secret else path.read_bytes()
    except OSError as error:
        raise CredentialsUnusable(f"cannot read {path}: {error.strerror}") from error
