"""Clients of a running node, for Python programs."""

import os

# gRPC's handlers for fork() are for programs that go on using gRPC in the child: not for the sake of
# which every `subprocess` call of a client's program should wait for gRPC's threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from host.client.address import Address, AddressInvalid, addresses_of
from host.client.control import Control
from host.client.credentials import Credentials, CredentialsUnusable
from host.client.errors import (
    Conflict,
    ControlError,
    DeadlineExceeded,
    InvalidRequest,
    NodeFailed,
    NotFound,
    NotPermitted,
    NotPrimary,
    Refused,
    Unavailable,
    Unreachable,
)

__all__ = [
    "Address",
    "AddressInvalid",
    "Conflict",
    "Control",
    "ControlError",
    "Credentials",
    "CredentialsUnusable",
    "DeadlineExceeded",
    "InvalidRequest",
    "NodeFailed",
    "NotFound",
    "NotPermitted",
    "NotPrimary",
    "Refused",
    "Unavailable",
    "Unreachable",
    "addresses_of",
]
