"""TLS between nodes: both sides show a certificate of one CA, and a standby's names the node.

It must be good for client and server (both extended key usages). `failover/peer_names.py` says how it names a node.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Protocol

import grpc
from msgspec import Struct

from failover.peer_names import peer_named
from failover.replication.errors import ReplicationConfigError

__all__ = ["PeerCredentials", "PeerTls", "check_address", "named_in"]


class PeerCredentials(Protocol):
    """What a node proves itself with: fixed (`PeerTls`), or files that may be renewed (`PeerTlsFiles`)."""

    def for_server(self) -> grpc.ServerCredentials:
        """Return what to listen with: no connection without a certificate of the CA."""

    def for_channel(self) -> grpc.ChannelCredentials:
        """Return what to dial with, this once."""


class PeerTls(Struct, frozen=True):
    """What one node needs, each as PEM: its certificate (and those up to the root), its key, the CA."""

    certificate: bytes
    key: bytes
    ca: bytes

    def for_server(self) -> grpc.ServerCredentials:
        """Return what to listen with: no connection without a certificate of the CA."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.ca, require_client_auth=True
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Return what to dial with."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def named_in(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """Return the node that a connection's client certificate names; "" if none, None without TLS."""
    if "ssl" not in [bytes(one).decode() for one in auth_context.get("transport_security_type", ())]:
        return None
    names = [
        bytes(one).decode(errors="replace") for one in auth_context.get("x509_subject_alternative_name", ())
    ]
    return peer_named(names)


def check_address(address: str, tls: PeerCredentials | None) -> None:
    """Raise `ReplicationConfigError` for an address that would carry the journal in the clear."""
    if tls is not None or address.startswith(("unix:", "unix-abstract:")):
        return
    host = address.rpartition(":")[0].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise ReplicationConfigError(
            f"replication at {address} needs TLS: only a loopback address goes without; set the certificates "
            "of the node, or an address of 127.0.0.1"
        )
