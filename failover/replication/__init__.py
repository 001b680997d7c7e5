"""Replication: one gRPC stream that keeps a standby's journal equal to its primary's.

`ReplicationServer` is the primary's side, `ReplicationClient` with its `Replica` the standby's. The rules
(`greeting`, `batch`, `window`, `lag`, `durability`) are plain code without I/O. docs/replication.md has the
promises.
"""
