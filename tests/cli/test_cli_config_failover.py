"""`tandem config check` of a pair: what only the lease store can tell."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_tools import tandem

from failover.lease import Record, open_store
from host.control.authority import Authority
from tests.etcd import EtcdMember, lease_url, running_cluster
from tests.servers import free_ports

LONG_S = 60.0
CONFIG = """
[failover]
lease = "{lease}"
ttl = "{ttl}"
cell = "{cell}"
"""


def write(folder: Path, lease: str, *, ttl: str = "60s", cell: str = "main") -> Path:
    path = folder / "tandem.toml"
    path.write_text(CONFIG.format(lease=lease, ttl=ttl, cell=cell))
    return path


def checked(path: Path, *options: str) -> dict[str, Any]:
    result = tandem("config", "check", "-c", path, "--json", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 2)
    return found


def the_problem(path: Path, *options: str) -> tuple[str, str]:
    [problem] = checked(path, *options)["problems"]
    assert problem["source"] == str(path)
    return problem["key"], problem["text"]


def put_cell(url: str, cell: str) -> None:
    async def put() -> None:
        store = open_store(url)
        try:
            assert await store.swap(None, Record(cell, 1, "a", "session", 600, 1), LONG_S)
        finally:
            await store.close()

    asyncio.run(put())


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[EtcdMember]]:
    with running_cluster(3) as members:
        yield members


def test_a_store_that_carries_the_ttl_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lease.db"

    assert checked(write(tmp_path, url))["lease_round_trip_ms"] > 0

    store = open_store(url)
    try:
        assert asyncio.run(store.cells(LONG_S)) == []
    finally:
        asyncio.run(store.close())


def test_the_summary_says_what_was_measured(tmp_path: Path) -> None:
    path = write(tmp_path, f"sqlite:///{tmp_path}/lease.db")

    assert "failover, cell main" in tandem("config", "check", "-c", path).output
    assert "not asked" in tandem("config", "check", "-c", path, "--offline").output


def test_a_store_of_another_cell_is_refused_and_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lease.db"
    put_cell(url, "main")

    key, text = the_problem(write(tmp_path, url, cell="mian"))

    assert key == "failover.cell"
    assert "expected the cell 'mian', found main" in text
    assert checked(write(tmp_path, url + "?add_cell=mian", cell="mian"))["ok"]


def test_a_store_that_does_not_answer_is_a_problem_unless_offline(tmp_path: Path) -> None:
    [port] = free_ports(1)
    path = write(tmp_path, f"etcd://127.0.0.1:{port}")

    key, text = the_problem(path)

    assert key == "failover.lease"
    assert f"etcd://127.0.0.1:{port}" in text
    assert text.endswith("or check the rest with --offline")
    assert checked(path, "--offline")["ok"]


def test_a_url_that_cannot_work_is_found_offline_too(tmp_path: Path) -> None:
    key, text = the_problem(write(tmp_path, "etcd://one:2379,two"), "--offline")

    assert key == "failover.lease"
    assert "see 'two'" in text


def test_a_ttl_that_the_cluster_cannot_carry_is_refused_with_one_that_it_can(
    tmp_path: Path, cluster: list[EtcdMember]
) -> None:
    key, text = the_problem(write(tmp_path, lease_url(cluster), ttl="600ms"))

    assert key == "failover.ttl"
    assert text.startswith("expected at least 5000 ms on etcd://")
    assert checked(write(tmp_path, lease_url(cluster), ttl="60s"))["ok"]


def test_a_certificate_of_another_node_is_a_problem_before_any_peer_refuses_it(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "ca", datetime.now(UTC))
    path = write(tmp_path, f"sqlite:///{tmp_path}/lease.db")
    certificate, key = authority.issue_peer("b", ["127.0.0.1"], datetime.now(UTC), 1)
    files = {"certificate": certificate, "key": key, "ca": authority.folder / "ca.crt"}
    tls = "[failover.tls]\n" + "".join(f'{name} = "{file}"\n' for name, file in files.items())

    path.write_text('[node]\nname = "b"\n' + path.read_text() + tls)
    assert checked(path)["ok"]
    path.write_text(path.read_text().replace('name = "b"', 'name = "a"'))
    key_, text = the_problem(path)

    assert key_ == "failover.tls"
    assert "should be for urn:tandem:peer:a, and names the node 'b'" in text
