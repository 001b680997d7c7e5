"""The TLS files of a node, read again when they change: a renewed certificate needs no restart.

Whoever dials reads them at each attempt, whoever listens at each connection. Streams that are there stay.
"""

import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from failover.peer_names import peer_named, peer_uri
from failover.replication.credentials import PeerTls
from failover.replication.errors import ReplicationConfigError

__all__ = ["PeerTlsFiles"]

EXPIRES_SOON: Final = timedelta(days=14)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def _now() -> datetime:
    return datetime.now(UTC)


class PeerTlsFiles:
    """What `node` proves itself with: its certificate, its key and the CA, as PEM files.

    Raises `ReplicationConfigError` for files that no peer could connect to. Files that are no good later on are
    not used: `warning` says so, and the ones before stay.
    """

    def __init__(
        self, node: str, certificate: Path, key: Path, ca: Path, now: Callable[[], datetime] = _now
    ) -> None:
        self._node = node
        self._certificate, self._key, self._ca = certificate, key, ca
        self._now = now
        self._problem = ""
        self._lock = threading.Lock()  # gRPC asks from threads of its own
        self._seen = self._look()
        self._tls, self._expires = self._load()

    def current(self) -> PeerTls:
        """Return what to prove oneself with now."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._tls, self._expires = self._load()
                    self._problem = ""
                except ReplicationConfigError as error:
                    self._problem = f"the changed TLS files are not in use: {error}"
            return self._tls

    def for_server(self) -> grpc.ServerCredentials:
        """Return what to listen with: no connection without a certificate of the CA."""
        served = self.current()

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            before, served = served, self.current()
            return None if served is before else _configuration(served)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(served),
            newer,  # type: ignore[arg-type] # None is gRPC's own word for "the same as before"
            require_client_authentication=True,
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Return what to dial with, this once."""
        return self.current().for_channel()

    def warning(self) -> str:
        """Return what an operator should do about the certificate soon; empty for nothing."""
        self.current()
        if self._problem:
            return self._problem
        if self._expires - self._now() > EXPIRES_SOON:
            return ""
        return f"{self._certificate} expires at {_shown(self._expires)}: renew it, no restart is needed"

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_status(path) for path in (self._certificate, self._key, self._ca))

    def _load(self) -> tuple[PeerTls, datetime]:
        certificate, key, ca = _read(self._certificate), _read(self._key, is_private=True), _read(self._ca)
        parsed = _certificates(self._certificate, certificate)[0]
        for path, one in [(self._certificate, parsed), *((self._ca, c) for c in _certificates(self._ca, ca))]:
            _check_times(path, one, self._now())
        self._check_names(parsed)
        try:
            loaded = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise ReplicationConfigError(
                f"{self._key} should hold a private key in PEM, without a password: {error}"
            ) from error
        if loaded.public_key() != parsed.public_key():
            raise ReplicationConfigError(
                f"{self._key} is not the private key of {self._certificate}; they are made together"
            )
        return PeerTls(certificate, key, ca), parsed.not_valid_after_utc

    def _check_names(self, certificate: x509.Certificate) -> None:
        made = f"`tandem certs init --peer {self._node}` makes one that is"
        found = peer_named(_uris(certificate))
        if found != self._node:
            whose = f"names the node {found!r}" if found else "names no node"
            raise ReplicationConfigError(
                f"{self._certificate} should be for {peer_uri(self._node)}, and {whose}; {made}"
            )
        try:
            usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            return  # good for everything
        if not usages >= {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}:
            raise ReplicationConfigError(
                f"{self._certificate} should be good for server and client, as a node listens and dials; {made}"
            )


def _configuration(tls: PeerTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], root_certificates=tls.ca)


def _read(path: Path, *, is_private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if is_private and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise ReplicationConfigError(
                    f"{path} should have mode 0600, and others can read or change it: chmod 600 {path}"
                )
            return file.read()
    except FileNotFoundError:
        raise ReplicationConfigError(
            f"there is no file {path}; `tandem certs init --peer NAME` makes it"
        ) from None
    except OSError as error:
        raise ReplicationConfigError(f"cannot read {path}: {error.strerror}") from error


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ReplicationConfigError(f"{path} should hold certificates in PEM: {error}") from error


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _check_times(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    until, since = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now >= until:
        raise ReplicationConfigError(f"{path} expired at {_shown(until)}; it is {_shown(now)}: renew it")
    if now < since:
        raise ReplicationConfigError(
            f"{path} is valid from {_shown(since)} only; it is {_shown(now)}: check the clock"
        )


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links as Path.stat does, and costs half
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
