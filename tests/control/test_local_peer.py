"""Whose a connection on this machine is."""

import os
import socket
from collections.abc import Iterator

import pytest
from security_tools import NOBODY, only_root, socket_of_user

from host.control.local_peer import LocalPeers


@pytest.fixture
def peers() -> Iterator[LocalPeers]:
    peers = LocalPeers()
    yield peers
    peers.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_user_of_an_open_connection_is_known(peers: LocalPeers, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()[:2]
        with socket.create_connection(address) as client:
            assert peers.uid(client.getsockname()[:2], address) == os.geteuid()


@only_root
def test_another_users_connection_is_theirs(peers: LocalPeers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket_of_user(NOBODY) as client:
        client.connect(server.getsockname())
        assert peers.uid(client.getsockname(), server.getsockname()) == NOBODY


def test_a_connection_that_its_client_closed_is_nobodys(peers: LocalPeers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        address = client.getsockname()
        accepted, _ = server.accept()
        with accepted:
            client.close()
            assert accepted.recv(1) == b""
            assert peers.uid(address, server.getsockname()) is None


def test_a_connection_to_somewhere_else_does_not_count(peers: LocalPeers) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(one.getsockname()) as client,
    ):
        assert peers.uid(client.getsockname(), other.getsockname()) is None


@pytest.mark.parametrize("client", [("", 0), ("unix", 0), ("127.0.0.1", 70_000), ("::1", 1), ("10.0.0.1", 9)])
def test_what_is_no_connection_here_has_no_user(peers: LocalPeers, client: tuple[str, int]) -> None:
    assert peers.uid(client, ("127.0.0.1", 1)) is None
