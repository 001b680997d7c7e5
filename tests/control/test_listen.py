"""Which addresses a node listens on, and which it refuses with the fix."""

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.config.private_files import NotPrivate
from host.control.listen import (
    Listener,
    ListenRefused,
    Security,
    TcpAddress,
    UnixAddress,
    claim_unix_socket,
    parse_listen,
    plan_listeners,
)


def plan(*listen: str, tls: bool = False, proof: bool = False) -> list[Listener]:
    return plan_listeners(listen, has_server_certificate=tls, has_caller_proof=proof)


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("127.0.0.1:7600", TcpAddress("127.0.0.1", 7600), True),
        ("127.8.9.10:0", TcpAddress("127.8.9.10", 0), True),
        ("localhost:7600", TcpAddress("127.0.0.1", 7600), True),
        ("[::1]:7600", TcpAddress("::1", 7600), True),
        ("[0:0:0:0:0:0:0:1]:7600", TcpAddress("::1", 7600), True),
        ("0.0.0.0:7600", TcpAddress("0.0.0.0", 7600), False),
        ("[::]:7600", TcpAddress("::", 7600), False),
        ("10.0.0.5:65535", TcpAddress("10.0.0.5", 65535), False),
        ("[fe80::1%eth0]:1", TcpAddress("fe80::1%eth0", 1), False),
    ],
)
def test_tcp_addresses(text: str, address: TcpAddress, is_loopback: bool) -> None:
    assert parse_listen(text) == address
    assert address.is_loopback is is_loopback
    assert parse_listen(str(address)) == address


@pytest.mark.parametrize(
    ("text", "path"),
    [("unix:var/a/c.sock", "var/a/c.sock"), ("unix:/run/c", "/run/c"), ("unix:///run/c", "/run/c")],
)
def test_unix_addresses(text: str, path: str) -> None:
    assert parse_listen(text) == UnixAddress(Path(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7600", "expected unix:PATH, HOST:PORT"),
        ("127.0.0.1", "expected unix:PATH, HOST:PORT"),
        ("::1:7600", "expected unix:PATH, HOST:PORT"),
        ("127.0.0.1:-1", "expected unix:PATH, HOST:PORT"),
        ("127.0.0.1:65536", "a port is at most 65535, was 65536"),
        (":7600", "127.0.0.1 for this machine alone"),
        ("node-a.example.com:7600", 'expected an IP address, was "node-a.example.com"'),
        ("unix:", "expected unix:PATH"),
        ("unix:a\0b", "expected unix:PATH"),
        ("unix:/" + "x" * 110, "may have 107 bytes, this one has 111"),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(ListenRefused) as refused:
        parse_listen(text)
    assert says in str(refused.value)
    assert text in str(refused.value)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_listen(text)
    except ListenRefused:
        return
    assert parse_listen(str(address)) == address


def test_the_socket_and_loopback_need_nothing() -> None:
    assert [one.security for one in plan("unix:a/b", "127.0.0.1:1", "[::1]:1")] == [
        Security.SOCKET_FOLDER,
        Security.LOOPBACK,
        Security.LOOPBACK,
    ]


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "10.0.0.5:1", "[::ffff:127.0.0.1]:1", "tls:127.0.0.1:2"]
)
def test_what_others_reach_needs_tls_and_proof_of_who_calls(text: str) -> None:
    with pytest.raises(ListenRefused, match=r"needs a certificate.*`tandem certs init`"):
        plan("127.0.0.1:1", text, proof=True)
    with pytest.raises(ListenRefused, match=r"control\.tls\.client_ca.*`tandem token create"):
        plan("127.0.0.1:1", text, tls=True)
    (listener,) = plan(text, tls=True, proof=True)
    assert listener.security is Security.TLS


def test_loopback_stays_without_tls_where_tls_is_configured() -> None:
    assert plan("127.0.0.1:1", tls=True, proof=True)[0].security is Security.LOOPBACK


def test_an_address_is_listed_once_and_any_free_port_as_often_as_wanted() -> None:
    assert len(plan("127.0.0.1:0", "127.0.0.1:0")) == 2
    with pytest.raises(ListenRefused, match="listed twice"):
        plan("127.0.0.1:1", "localhost:1")


# -- the socket ------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_sockets_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        claim_unix_socket(UnixAddress(tmp_path / "new" / "control" / "c.sock"), tmp_path)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "control") == 0o700


@pytest.mark.parametrize("wrong", [0o750, 0o705, 0o711, 0o1777])
def test_a_folder_that_others_can_enter_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, wrong: int
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(wrong)
    with pytest.raises(NotPrivate, match=f"mode 0700, has {wrong:04o}.*chmod 700 {folder}"):
        claim_unix_socket(UnixAddress(folder / "c.sock"), tmp_path)
    assert mode(folder) == wrong


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65_534, 65_534)
    with pytest.raises(NotPrivate, match="belongs to uid 65534: sudo chown 0"):
        claim_unix_socket(UnixAddress(folder / "c.sock"), tmp_path)


def test_the_nodes_own_data_folder_is_closed_to_others(tmp_path: Path) -> None:
    data_dir = tmp_path / "a"
    data_dir.mkdir(mode=0o755)
    claim_unix_socket(UnixAddress(data_dir / "control.sock"), data_dir)
    assert mode(data_dir) == 0o700


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    claim_unix_socket(UnixAddress(path), tmp_path)
    assert not path.exists()


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(ListenRefused, match="another process listens there"):
            claim_unix_socket(UnixAddress(path), tmp_path)
    assert path.exists()


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "c.sock"
    path.write_text("precious")
    with pytest.raises(ListenRefused, match="no socket; move it away"):
        claim_unix_socket(UnixAddress(path), tmp_path)
    assert path.read_text() == "precious"
