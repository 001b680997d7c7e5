"""The lease of a cell: one record in a linearisable register, its moves, and the stores that keep it."""

from failover.lease.contract import LeaseStore
from failover.lease.errors import (
    LeaseConfigError,
    LeaseDamagedError,
    LeaseError,
    LeaseTooSlowError,
    LeaseUnansweredError,
)
from failover.lease.opening import check_cell, check_ttl, measure_round_trip_ms, open_store
from failover.lease.record import CANDIDATE_WAIT, HOLDER_RIGHT, Record, Status, abandoned

__all__ = [
    "CANDIDATE_WAIT",
    "HOLDER_RIGHT",
    "LeaseConfigError",
    "LeaseDamagedError",
    "LeaseError",
    "LeaseStore",
    "LeaseTooSlowError",
    "LeaseUnansweredError",
    "Record",
    "Status",
    "abandoned",
    "check_cell",
    "check_ttl",
    "measure_round_trip_ms",
    "open_store",
]
