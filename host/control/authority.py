"""A small certificate authority: makes what a node and its callers need to trust each other.

One private CA signs the nodes' and the clients' certificates. Keys are P-256: small, fast to sign
with, and known to every TLS library.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from failover.peer_names import peer_uri
from host.config.private_files import make_private_folder, read_private, write_private
from host.control.principal import Role
from host.control.tls import ROLE_URI, TlsError

__all__ = ["Authority"]

CA_DAYS: Final = 3650
CLOCK_SLACK: Final = timedelta(minutes=5)
"""Certificates are valid from a little before now on: clocks of other machines may be behind."""


class Authority:
    """A CA in a folder: `ca.crt` is for everybody, `ca.key` stays with whoever issues certificates."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self._certificate = certificate
        self._key = key

    @classmethod
    def open(cls, folder: Path) -> "Authority | None":
        """Return the CA in `folder`, or None where there is none; raise `TlsError` or `NotPrivate`."""
        certificate, key = folder / "ca.crt", folder / "ca.key"
        if not certificate.exists() and not key.exists():
            return None
        try:
            loaded = serialization.load_pem_private_key(read_private(key), password=None)
            signed = x509.load_pem_x509_certificate(certificate.read_bytes())
        except FileNotFoundError as error:
            raise TlsError(
                f"a CA needs ca.crt and ca.key, and {error.filename} is missing; restore it, or take another folder"
            ) from error
        except (ValueError, TypeError, OSError) as error:
            raise TlsError(f"the CA in {folder} cannot be read: {error}") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != signed.public_key():
            raise TlsError(f"{key} is not the key of {certificate}; restore it, or take another folder")
        return cls(folder, signed, loaded)

    @classmethod
    def create(cls, folder: Path, now: datetime) -> "Authority":
        """Make a new CA in `folder` (mode 0700). It can sign nothing but end certificates."""
        make_private_folder(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tandem local CA")])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(name, name, key.public_key(), now, now + timedelta(CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(folder / "ca", certificate, key)
        return cls(folder, certificate, key)

    def issue_node(self, name: str, hosts: Sequence[str], now: datetime, days: int) -> tuple[Path, Path]:
        """Make a server certificate for `hosts` (names and IP addresses); return its file and its key's."""
        names = _host_names(hosts)
        return self._issue(f"node-{name}", name, names, [ExtendedKeyUsageOID.SERVER_AUTH], now, days)

    def issue_peer(self, name: str, hosts: Sequence[str], now: datetime, days: int) -> tuple[Path, Path]:
        """Make the certificate with which node `name` replicates: it listens on `hosts`, and it dials its peers.

        It names no role, so it is no way into the control API.
        """
        names = [*_host_names(hosts), x509.UniformResourceIdentifier(peer_uri(name))]
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(f"peer-{name}", name, names, both, now, days)

    def issue_client(self, name: str, role: Role, now: datetime, days: int) -> tuple[Path, Path]:
        """Make a client certificate for the caller `name`; return its file and its key's."""
        names = [x509.UniformResourceIdentifier(f"{ROLE_URI}{role}")]
        return self._issue(f"client-{name}", name, names, [ExtendedKeyUsageOID.CLIENT_AUTH], now, days)

    def _issue(
        self,
        stem: str,
        name: str,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        now: datetime,
        days: int,
    ) -> tuple[Path, Path]:
        end = self._certificate.not_valid_after_utc
        if now >= end:
            raise TlsError(
                f"the CA in {self.folder} expired at {end:%Y-%m-%d}; make a new one in another folder, and "
                "new certificates with it"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            # Nobody takes a certificate that is older than its CA: better to see that in its own dates.
            _builder(
                subject, self._certificate.subject, key.public_key(), now, min(now + timedelta(days), end)
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # Says for which side it is good: a node's certificate is no way in for a client.
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _write(self.folder / stem, certificate, key)


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - CLOCK_SLACK)
        .not_valid_after(until)
    )


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """Write `<stem>.key`, then `<stem>.crt`: a certificate that is there has its key."""
    paths = stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(paths[1], private)
    write_private(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
    return paths
