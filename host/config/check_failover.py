"""Finds what the keys of `[failover]` may not say together, or not beside the rest of the configuration.

Each of these would start a node that looks like one of a pair and is not: each refusal says why.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from host.config.failover import duration_ms
from host.config.sources import KeyPath

__all__ = ["Finding", "failover_contradictions"]

Finding = tuple[KeyPath, str]
"""Where something is wrong, and what."""

DEAD_MAN_TTLS: Final = 3
"""A takeover has two thirds of a dead man's time, and needs a ttl and what comes after it."""
MINIMUM_TTL_MS: Final = 100
"""Below it, a pause of the scheduler looks like a dead node."""
LEASE_KINDS: Final = ("sqlite", "postgresql", "postgresql+psycopg", "etcd")
_LEASE_WORDS: Final = "sqlite:///PATH, postgresql+psycopg://USER@HOST/NAME or etcd://HOST:PORT,HOST2:PORT"
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TCP: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def failover_contradictions(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find them in `tree`, which may have any shape: what is wrong with that is reported elsewhere."""
    node = _table(tree.get("node"))
    if "failover" not in tree:
        if node.get("durability") == "replica":
            yield (
                ("node", "durability"),
                '"replica" means that a standby holds each order before it is sent, and there is no [failover]; '
                'add one, or use "process" or "disk"',
            )
        return
    section = _table(tree["failover"])
    yield from _bad_ttl(section.get("ttl", "600ms"), section.get("dead_man_ms"))
    yield from _bad_lease(section)
    yield from _bad_addresses(section)
    yield from _bad_peers(section, node.get("name", "tandem"))
    if node.get("durability") == "replica" and not section.get("peers"):
        yield (
            ("node", "durability"),
            '"replica" needs a standby to hold the orders: name one in failover.peers',
        )
    if section.get("peers") and not section.get("control_address"):
        yield from _undialled_control(tree)


def _bad_ttl(ttl: Any, dead_man_ms: Any) -> Iterator[Finding]:
    if not isinstance(ttl, str):
        return
    try:
        ttl_ms = duration_ms(ttl)
    except ValueError as error:
        yield ("failover", "ttl"), str(error)
        return
    if ttl_ms < MINIMUM_TTL_MS:
        yield (
            ("failover", "ttl"),
            f'expected at least {MINIMUM_TTL_MS} ms, was "{ttl}": a busy machine pauses a process for longer '
            "than a part of that, and a healthy node would lose its lease",
        )
    if isinstance(dead_man_ms, int) and 0 < dead_man_ms < DEAD_MAN_TTLS * ttl_ms:
        yield (
            ("failover", "dead_man_ms"),
            f"expected 0 (off) or at least {DEAD_MAN_TTLS * ttl_ms}, {DEAD_MAN_TTLS} times the ttl, was {dead_man_ms}: "
            "the venue would cancel what a new leader is about to take over",
        )


def _bad_lease(section: Mapping[str, Any]) -> Iterator[Finding]:
    lease = section.get("lease")
    if not isinstance(lease, str):
        return
    kind, _, rest = lease.partition("://")
    if kind not in LEASE_KINDS:
        yield ("failover", "lease"), f'expected {_LEASE_WORDS}, was "{kind}", which is no kind of lease store'
    elif kind == "sqlite":
        path = rest.partition("?")[0].removeprefix("/")
        if path in ("", ":memory:"):
            yield (
                ("failover", "lease"),
                "expected sqlite:///PATH with a file that the nodes share; without one each would lead by itself",
            )
        for name, address in _table(section.get("peers")).items():
            if isinstance(address, str) and not _is_local(address):
                yield (
                    ("failover", "peers", name),
                    f'"{address}" is another machine, and the lease is a SQLite file, which nodes of one machine '
                    "alone can share (a network file system's locks are no substitute); "
                    "set failover.lease to PostgreSQL or etcd",
                )


def _bad_addresses(section: Mapping[str, Any]) -> Iterator[Finding]:
    has_tls = section.get("tls") is not None
    replicate = section.get("replicate")
    if isinstance(replicate, str):
        yield from _bad_address(("failover", "replicate"), replicate, has_tls=has_tls)
    elif replicate is None and section.get("peers"):
        yield (
            ("failover", "replicate"),
            'expected where peers dial this node, such as "127.0.0.1:7601", was missing: without it no standby '
            "can follow this node while it leads",
        )
    for name, address in _table(section.get("peers")).items():
        if isinstance(address, str):
            yield from _bad_address(("failover", "peers", name), address, has_tls=has_tls)


def _bad_address(at: KeyPath, address: str, *, has_tls: bool) -> Iterator[Finding]:
    match = _TCP.fullmatch(address)
    is_unix = address.startswith("unix:") and len(address) > len("unix:")
    if not is_unix and (match is None or not 0 < int(match[2]) < 65_536):
        yield at, f'expected HOST:PORT or unix:PATH such as "10.0.0.1:7601", was "{address}"'
    elif not has_tls and not _is_local(address):
        yield (
            at,
            f'"{address}" can be reached from other machines, and would carry the journal in the clear to whoever '
            "asks; set [failover.tls] (`tandem certs init --peer NAME` makes what it needs), or use 127.0.0.1",
        )


def _bad_peers(section: Mapping[str, Any], own_name: Any) -> Iterator[Finding]:
    known: dict[Any, str] = {section.get("replicate"): "this node"}
    for name, address in _table(section.get("peers")).items():
        at = ("failover", "peers", name)
        if not _NODE_NAME.fullmatch(name):
            yield at, f'expected a node\'s name of letters, digits, "_", "." and "-", was "{name}"'
        elif name == own_name:
            yield (
                at,
                f'"{name}" is this node itself (node.name); name the others alone, and give each node its own name',
            )
        elif isinstance(address, str) and address in known:
            yield at, f'"{address}" is the address of {known[address]} too; each node has its own'
        if isinstance(address, str):
            known.setdefault(address, f'"{name}"')


def _undialled_control(tree: Mapping[str, Any]) -> Iterator[Finding]:
    listen = _table(tree.get("control")).get("listen")
    texts = [text for text in listen if isinstance(text, str)] if isinstance(listen, list) else []
    tcp = next((text.removeprefix("tls:") for text in texts if not text.startswith("unix:")), "")
    if tcp.rpartition(":")[0] in ("0.0.0.0", "[::]"):
        yield (
            ("failover", "control_address"),
            f'expected what clients dial to reach this node, such as "10.0.0.1:{tcp.rpartition(":")[2]}", was '
            f'missing: they are sent to whoever leads, and "{tcp}" is no address to dial',
        )


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
