"""TLS of the control API: the node's certificate, and who a client's certificate says its holder is.

A client certificate names its holder in the common name (CN) and gives the role in a URI among the
alternative names, `urn:tandem:role:operator`. The organisational unit, where others put a role,
already means something in certificates that companies issue: `OU=admin` there must not make an
administrator here. A certificate without that URI is good TLS and no caller of ours.
"""

import os
import re
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Struct

from host.api import TandemError
from host.config.private_files import read_private
from host.control.principal import NotAuthenticated, Principal, Role, Via

__all__ = ["ROLE_URI", "ServerTls", "TlsError", "TlsFiles", "principal_of"]

ROLE_URI: Final = "urn:tandem:role:"
EXPIRES_SOON: Final = timedelta(days=14)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


class TlsError(TandemError):
    """TLS cannot be used as configured; the text names the file and the fix."""


class TlsFiles(Struct, frozen=True, kw_only=True):
    """`[control.tls]`: PEM files."""

    certificate: Path
    """The node's certificate, followed by those between it and the root, if any."""
    key: Path
    """Its private key, mode 0600."""
    client_ca: Path | None = None
    """Client certificates signed by one of these are taken; None: callers need a token."""
    require_client_certificate: bool = False
    """Refuse the connection of a client without one, even if it has a token."""


class ServerTls:
    """The node's side of TLS. Files that change are read again: a renewed certificate needs no restart.

    `problem` says why the newest files are not in use, and is empty while they are.
    """

    def __init__(self, files: TlsFiles, now: datetime) -> None:
        """Load `files`; raise `TlsError` or `NotPrivate` for what a client could not connect to."""
        self.files = files
        self.problem = ""
        self._seen = self._look()
        self._context, self.expires = self._load(now)

    def context(self, now: datetime) -> ssl.SSLContext:
        """Return what to take the next connection with.

        Files that changed and are no good are not used: `problem` says so, and the ones before stay.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context, self.expires = self._load(now)
                self.problem = ""
            except (TandemError, OSError) as error:
                self.problem = f"the changed TLS files are not in use: {error}"
        return self._context

    def warning(self, now: datetime) -> str:
        """Return what an operator should do about the certificate soon; empty for nothing."""
        if self.problem:
            return self.problem
        if self.expires - now > EXPIRES_SOON:
            return ""
        return f"{self.files.certificate} expires at {_shown(self.expires)}: renew it, no restart is needed"

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        paths = (self.files.certificate, self.files.key, self.files.client_ca)
        return tuple(_status(path) for path in paths if path is not None)

    def _load(self, now: datetime) -> tuple[ssl.SSLContext, datetime]:
        files = self.files
        chain = _certificates(files.certificate)
        _check_times(files.certificate, chain[0], now)
        try:
            read_private(files.key)
        except FileNotFoundError:
            raise TlsError(f"there is no private key {files.key}; `tandem certs init` makes one") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        try:
            context.load_cert_chain(
                files.certificate, files.key, password=lambda: _refuse_password(files.key)
            )
        except (ssl.SSLError, OSError) as error:
            raise TlsError(
                f"{files.key} is not the private key of {files.certificate}: {error}; they are made together"
            ) from error
        if files.client_ca is not None:
            self._trust(context, files.client_ca, now)
        elif files.require_client_certificate:
            raise TlsError("control.tls.require_client_certificate needs control.tls.client_ca; set it")
        return context, chain[0].not_valid_after_utc

    def _trust(self, context: ssl.SSLContext, path: Path, now: datetime) -> None:
        for certificate in _certificates(path):
            _check_times(path, certificate, now)
        context.load_verify_locations(path)
        context.verify_mode = (
            ssl.CERT_REQUIRED if self.files.require_client_certificate else ssl.CERT_OPTIONAL
        )


def principal_of(certificate: bytes) -> Principal:
    """Return who a verified client certificate (DER) names; raise `NotAuthenticated`."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = [str(name.value) for name in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        uris = _uris(parsed)
    except ValueError as error:
        raise NotAuthenticated(
            "CERTIFICATE_UNREADABLE", f"the client certificate is not X.509: {error}"
        ) from error
    if len(names) != 1 or not _NAME.fullmatch(names[0]):
        raise NotAuthenticated(
            "CERTIFICATE_WITHOUT_NAME",
            "the client certificate should have one common name of 1 to 64 of A-Z a-z 0-9 _ . @ -",
        )
    roles = [uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI)]
    try:
        (role,) = map(Role.parse, roles)
    except ValueError:
        raise NotAuthenticated(
            "CERTIFICATE_WITHOUT_ROLE",
            f"the client certificate should have one URI {ROLE_URI}ROLE with ROLE one of "
            f"{', '.join(map(str, Role))}; `tandem certs init --client NAME --role ROLE` makes one that has",
        ) from None
    return Principal(names[0], role, Via.CERTIFICATE)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        raise TlsError(f"there is no certificate {path}; `tandem certs init` makes one") from None
    except OSError as error:
        raise TlsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise TlsError(f"{path} should hold certificates in PEM: {error}") from error


def _check_times(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    whose = certificate.subject.rfc4514_string()
    if now >= certificate.not_valid_after_utc:
        until = _shown(certificate.not_valid_after_utc)
        raise TlsError(f"{path} ({whose}) expired at {until}; it is {_shown(now)}: renew it")
    if now < certificate.not_valid_before_utc:
        since = _shown(certificate.not_valid_before_utc)
        raise TlsError(f"{path} ({whose}) is valid from {since} only; it is {_shown(now)}: check the clock")


def _refuse_password(key: Path) -> str:
    # Without this, OpenSSL asks on the terminal: a node that starts by itself would hang.
    raise TlsError(
        f"{key} is encrypted, and nobody is there to type a password; keep it plain with mode 0600"
    )


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links as Path.stat does, and costs half
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
