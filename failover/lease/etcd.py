"""Leases in etcd v3, through its JSON gateway: one POST a call, and no client library.

Native etcd leases are not used: their shortest life depends on the cluster's election timeout (2 s with
the defaults). What etcd contributes is a linearisable transaction on one key.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from failover.lease.contract import LeaseStore
from failover.lease.errors import LeaseUnansweredError
from failover.lease.record import Record, decode_record, encode_record

__all__ = ["KEY_PREFIX", "EtcdLeaseStore"]

KEY_PREFIX: Final = "tandem/lease/"

CLUSTER_MINIMUM_TTL_MS: Final = {1: 1_000}
DEFAULT_CLUSTER_MINIMUM_TTL_MS: Final = 5_000
"""The least ttl on a cluster, by the shortest native lease that it grants, in seconds.

A renewal must survive the election of a new etcd leader: 0.33-0.53 s at heartbeat 20 ms and election
200 ms, 1.0-1.8 s at etcd's defaults (measured by killing the leader). The shortest native lease is 1.5
election timeouts, rounded up, so a grant of 1 s shows an election timeout of at most 666 ms.
"""


class EtcdLeaseStore(LeaseStore):
    """Leases under `tandem/lease/` of the cluster at `endpoints` (`http://host:port`).

    One endpoint is used until it fails to answer; the next call tries the next one.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = tuple(endpoints)
        self._current = 0
        self._name = "etcd://" + ",".join(endpoint.partition("://")[2] for endpoint in endpoints)
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The endpoints, as in the URL."""
        return self._name

    async def read(self, cell: str, deadline_s: float) -> Record | None:
        """Read one key; etcd asks its quorum first."""
        answer = await self._post("kv/range", {"key": _key(cell)}, deadline_s)
        pairs = answer.get("kvs", ())
        return decode_record(base64.b64decode(pairs[0]["value"]), cell) if pairs else None

    async def swap(self, expected: Record | None, new: Record, deadline_s: float) -> bool:
        """Put a value if the key has the expected one, or none."""
        put = {"request_put": {"key": _key(new.cell), "value": _base64(encode_record(new))}}
        return await self._transact(_is(new.cell, expected), put, deadline_s)

    async def remove(self, record: Record, deadline_s: float) -> bool:
        """Delete a key if it has the expected value."""
        removal = {"request_delete_range": {"key": _key(record.cell)}}
        return await self._transact(_is(record.cell, record), removal, deadline_s)

    async def cells(self, deadline_s: float) -> list[str]:
        """Read the keys under the prefix."""
        prefix = KEY_PREFIX.encode()
        query = {
            "key": _base64(prefix),
            "range_end": _base64(prefix[:-1] + bytes([prefix[-1] + 1])),
            "keys_only": True,
        }
        answer = await self._post("kv/range", query, deadline_s)
        return [base64.b64decode(pair["key"])[len(prefix) :].decode() for pair in answer.get("kvs", ())]

    async def minimum_ttl_ms(self, deadline_s: float) -> int:
        """Return what an election of the cluster's leader asks for; 0 for a single server, which holds none."""
        members = (await self._post("cluster/member/list", {}, deadline_s)).get("members", ())
        if len(members) < 2:
            return 0
        lease = await self._post("lease/grant", {"TTL": 1}, deadline_s)
        await self._post("lease/revoke", {"ID": lease["ID"]}, deadline_s)
        return CLUSTER_MINIMUM_TTL_MS.get(int(lease["TTL"]), DEFAULT_CLUSTER_MINIMUM_TTL_MS)

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _transact(self, condition: dict[str, Any], act: dict[str, Any], deadline_s: float) -> bool:
        answer = await self._post("kv/txn", {"compare": [condition], "success": [act]}, deadline_s)
        return bool(answer.get("succeeded", False))  # left out where it is false

    async def _post(self, path: str, body: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        if self._is_closed:
            raise LeaseUnansweredError(self._name, "it was closed by this process")
        if self._session is None:
            self._session = aiohttp.ClientSession()
        used = self._current
        endpoint = self._endpoints[used]
        try:
            # A deadline of our own: aiohttp rounds long ones up to whole seconds.
            async with (
                asyncio.timeout(deadline_s),
                self._session.post(f"{endpoint}/v3/{path}", data=msgspec.json.encode(body)) as response,
            ):
                answer: dict[str, Any] = msgspec.json.decode(await response.read(), type=dict[str, Any])
        except TimeoutError as error:
            self._leave(used)
            raise LeaseUnansweredError(
                self._name, f"{endpoint}: no answer within {deadline_s * 1000:.0f} ms"
            ) from error
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            self._leave(used)
            raise LeaseUnansweredError(self._name, f"{endpoint}: {error}") from error
        if response.status != 200:
            self._leave(used)
            raise LeaseUnansweredError(self._name, f"{endpoint}: {answer.get('error', response.reason)}")
        return answer

    def _leave(self, used: int) -> None:
        """Turn to the next endpoint, unless another call has done so already."""
        if used == self._current:
            self._current = (used + 1) % len(self._endpoints)


def _is(cell: str, record: Record | None) -> dict[str, Any]:
    condition: dict[str, Any] = {"key": _key(cell), "result": "EQUAL"}
    if record is None:
        return condition | {"target": "VERSION", "version": "0"}
    return condition | {"target": "VALUE", "value": _base64(encode_record(record))}


def _key(cell: str) -> str:
    return _base64((KEY_PREFIX + cell).encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
