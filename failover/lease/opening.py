"""From a lease URL to a store that can carry the lease, or the reason why it cannot."""

import re
import secrets
import statistics
import time
from typing import Final

from msgspec import Struct

from failover.lease.contract import LeaseStore
from failover.lease.errors import LeaseConfigError, LeaseTooSlowError, LeaseUnansweredError
from failover.lease.record import Record

__all__ = ["LeaseUrl", "check_cell", "check_ttl", "measure_round_trip_ms", "open_store", "parse_lease_url"]

KINDS: Final = "sqlite:///PATH, postgresql+psycopg://USER@HOST/NAME or etcd://HOST:PORT,HOST2:PORT"
MINIMUM_TTL_MS: Final = 100
PROBES: Final = 9
ROUND_TRIPS_PER_TTL: Final = 16
"""How many round trips of usual length must fit into a ttl.

After a renewal falls due, 0.65 ttl are left: a lost answer costs a quarter of a ttl, a fresh read and a
renewal two round trips, and under load each takes several times as long as usual.
"""

_CELL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_ENDPOINT = re.compile(r"([a-zA-Z0-9_.-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})")


class LeaseUrl(Struct, frozen=True):
    """A lease URL and what it asks for: `add_cell` names a cell that may be new to a store of others."""

    text: str
    add_cell: str


def parse_lease_url(url: str) -> LeaseUrl:
    """Split `add_cell=NAME` off a lease URL."""
    match = re.search(r"[?&]add_cell=([^&]*)", url)
    if match is None:
        return LeaseUrl(url, "")
    rest = url[: match.start()] + url[match.end() :]
    if "?" not in rest:
        rest = rest.replace("&", "?", 1)
    return LeaseUrl(rest, match[1])


def open_store(url: str) -> LeaseStore:
    """Return the store of a lease URL without connecting. Raises `LeaseConfigError` for one that cannot work."""
    text = parse_lease_url(url).text
    kind = text.partition("://")[0]
    # Imported where they are used: a guardian pays for one of them, in memory and in the time of its start.
    if kind == "etcd":
        endpoints = _endpoints(text)
        from failover.lease.etcd import EtcdLeaseStore

        return EtcdLeaseStore(endpoints)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from failover.lease.sql import SqlLeaseStore

    try:
        parsed = make_url(text)
    except ArgumentError as error:
        raise LeaseConfigError(f"lease URL: expected {KINDS}, was {text!r}") from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise LeaseConfigError(f"lease URL: expected {KINDS}, was one of the unknown kind {kind!r}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise LeaseConfigError(
            f"lease URL: expected sqlite:///PATH with a file that the nodes share, was {text!r}, which each "
            "process would have for itself"
        )
    return SqlLeaseStore(parsed)


async def check_cell(store: LeaseStore, url: str, cell: str, deadline_s: float) -> None:
    """Refuse a store that holds other cells and not this one: most likely one of the two is misnamed.

    A node with a misspelt cell would find nobody leading it and trade beside the right one. A cell that
    is really new is added with `add_cell=NAME` in the URL. Raises `LeaseConfigError` or `LeaseUnansweredError`.
    """
    if not _CELL.fullmatch(cell):
        raise LeaseConfigError(f"cell: expected 1 to 63 of a-z, 0-9, '_', '.' and '-', was {cell!r}")
    cells = [name for name in await store.cells(deadline_s) if not name.startswith(PROBE_PREFIX)]
    if not cells or cell in cells or parse_lease_url(url).add_cell == cell:
        return
    separator = "&" if "?" in url else "?"
    raise LeaseConfigError(
        f"lease store {store.name}: expected the cell {cell!r}, found {', '.join(cells)}; correct the cell or "
        f"the URL, or add a new cell to this store with {separator}add_cell={cell} at the end of the URL"
    )


PROBE_PREFIX: Final = "~probe-"


async def measure_round_trip_ms(store: LeaseStore, deadline_s: float) -> float:
    """Return the median time of a swap, measured on a record of its own. Raises `LeaseUnansweredError`."""
    session = secrets.token_hex(8)
    record = Record(PROBE_PREFIX + session, 1, "probe", session, MINIMUM_TTL_MS, 0)
    if not await store.swap(None, record, deadline_s):
        raise LeaseUnansweredError(store.name, f"it refused a new record {record.cell!r}")
    times_ms: list[float] = []
    try:
        for number in range(1, PROBES + 1):
            renewed = record.renewed(number)
            started_ns = time.perf_counter_ns()
            if not await store.swap(record, renewed, deadline_s):
                raise LeaseUnansweredError(store.name, f"another one writes the record {record.cell!r}")
            times_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
            record = renewed
    finally:
        await store.remove(record, deadline_s)
    return statistics.median(times_ms)


async def check_ttl(store: LeaseStore, ttl_ms: int, deadline_s: float) -> float:
    """Return the store's round trip in ms; refuse a ttl that it cannot carry.

    Raises `LeaseConfigError`, as `LeaseTooSlowError` where that was measured, or `LeaseUnansweredError`.
    """
    if ttl_ms < MINIMUM_TTL_MS:
        raise LeaseConfigError(f"failover.ttl: expected at least {MINIMUM_TTL_MS} ms, was {ttl_ms} ms")
    minimum_ms = await store.minimum_ttl_ms(deadline_s)
    if ttl_ms < minimum_ms:
        raise LeaseConfigError(
            f"failover.ttl: expected at least {minimum_ms} ms on {store.name}, was {ttl_ms} ms; this cluster "
            "may need that long to elect a leader, and a healthy node would lose its lease; raise the ttl, or "
            "run etcd with --heartbeat-interval 20 --election-timeout 200, which carries 1000 ms"
        )
    round_trip_ms = await measure_round_trip_ms(store, deadline_s)
    if ttl_ms < ROUND_TRIPS_PER_TTL * round_trip_ms:
        raise LeaseTooSlowError(
            f"failover.ttl: expected at least {ROUND_TRIPS_PER_TTL} round trips of {round_trip_ms:.1f} ms to "
            f"{store.name}, was {ttl_ms} ms; set {int(ROUND_TRIPS_PER_TTL * round_trip_ms) + 1} ms or more, or "
            "use a nearer store"
        )
    return round_trip_ms


def _endpoints(url: str) -> list[str]:
    hosts = url.partition("://")[2].rstrip("/")
    endpoints = hosts.split(",")
    for endpoint in endpoints:
        match = _ENDPOINT.fullmatch(endpoint)
        if match is None or not 0 < int(match[2]) < 65_536:
            raise LeaseConfigError(
                f"lease URL: expected etcd://HOST:PORT,HOST2:PORT, was {url!r} (see {endpoint!r})"
            )
    return [f"http://{endpoint}" for endpoint in endpoints]
