import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.etcd import EtcdMember, lease_url, running_cluster
from tests.postgres import PostgresServer, running_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def etcd() -> Iterator[list[EtcdMember]]:
    with running_cluster(1) as members:
        yield members


@pytest.fixture(params=["sqlite", "postgresql", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind. Etcd's is shared by the session: name cells by the test."""
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/lease.db"
        case "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            return server.url()
        case _:
            return lease_url(request.getfixturevalue("etcd"))


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> str:
    """A cell that no other test uses."""
    return "cell-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:16]
