"""Replication: one gRPC stream that keeps a standby's journal equal to its primary's.

`ReplicationServer` is the primary's side, `ReplicationClient` with its `Replica` the standby's. The rules
(`greeting`, `batch`, `window`, `lag`, `durability`) are plain code without I/O. docs/replication.md has the
promises.
"""

from failover.replication.credentials import PeerCredentials, PeerTls
from failover.replication.dialing import Backoff, ReplicationClient
from failover.replication.durability import DurabilitySettings, Mode, ModeChange, ReplicaDurability
from failover.replication.errors import (
    Reason,
    ReplicationConfigError,
    ReplicationError,
    StreamBroken,
    StreamRefused,
)
from failover.replication.history import Era, History, history_of
from failover.replication.lag import EligibilityLimits, StandbyHealth, StandbyView
from failover.replication.replica import Difference, Replica
from failover.replication.serving import ReplicationServer
from failover.replication.session import StreamSettings
from failover.replication.tls_files import PeerTlsFiles

__all__ = [
    "Backoff",
    "Difference",
    "DurabilitySettings",
    "EligibilityLimits",
    "Era",
    "History",
    "Mode",
    "ModeChange",
    "PeerCredentials",
    "PeerTls",
    "PeerTlsFiles",
    "Reason",
    "Replica",
    "ReplicaDurability",
    "ReplicationClient",
    "ReplicationConfigError",
    "ReplicationError",
    "ReplicationServer",
    "StandbyHealth",
    "StandbyView",
    "StreamBroken",
    "StreamRefused",
    "StreamSettings",
    "history_of",
]
