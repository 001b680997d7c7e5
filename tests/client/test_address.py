"""Addresses of nodes as clients write them, and where a configuration says a node is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.client import Address, AddressInvalid, addresses_of
from host.config import ControlSection, NodeConfig, NodeSection
from host.control.listen import ListenRefused, parse_listen


@pytest.mark.parametrize(
    ("text", "target", "is_tls"),
    [
        ("unix:/run/tandem/c.sock", "unix:/run/tandem/c.sock", False),
        ("/run/tandem/c.sock", "unix:/run/tandem/c.sock", False),
        ("127.0.0.1:7600", "ipv4:127.0.0.1:7600", False),
        ("localhost:7600", "ipv4:127.0.0.1:7600", False),
        ("[::1]:7600", "ipv6:[::1]:7600", False),
        ("tls:127.0.0.1:7600", "ipv4:127.0.0.1:7600", True),
        ("10.0.0.5:7600", "ipv4:10.0.0.5:7600", True),
        ("[fd00::5]:7600", "ipv6:[fd00::5]:7600", True),
        ("a.example.com:7600", "dns:///a.example.com:7600", True),
    ],
)
def test_what_leaves_the_machine_is_always_encrypted(text: str, target: str, is_tls: bool) -> None:
    address = Address.parse(text)
    assert (address.target, address.is_tls, str(address)) == (target, is_tls, text)


def test_a_relative_socket_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Address.parse("unix:var/c.sock").target == f"unix:{tmp_path}/var/c.sock"
    assert Address.parse("./c.sock").target == f"unix:{tmp_path}/c.sock"


@pytest.mark.parametrize(
    "text", ["", "unix:", "7600", "127.0.0.1", "127.0.0.1:", "[nonsense]:1", "a:99999", "http://a:1", "a b:1"]
)
def test_what_is_no_address_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(AddressInvalid, match=r"expected .* such as .*, was "):
        Address.parse(text)


@given(st.text(max_size=40) | st.from_regex(r"(tls:)?[a-z0-9.:\[\]]{1,20}:[0-9]{1,6}", fullmatch=True))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressInvalid:
        return
    assert address.is_tls or address.is_local


@given(st.ip_addresses(), st.integers(1, 65535), st.booleans())
def test_wherever_a_node_can_listen_a_client_can_call(ip: object, port: int, is_tls: bool) -> None:
    text = f"{'tls:' if is_tls else ''}{f'[{ip}]' if ':' in str(ip) else ip}:{port}"
    try:
        parse_listen(text)
    except ListenRefused:
        return
    (address,) = addresses_of(config(text))
    assert address.target.endswith(f":{port}")


def config(*listen: str) -> NodeConfig:
    return NodeConfig(control=ControlSection(listen=listen))


def test_a_configured_nodes_socket_comes_before_its_port() -> None:
    found = addresses_of(config("127.0.0.1:7600", "unix:/run/a/c.sock"))
    assert [str(one) for one in found] == ["unix:/run/a/c.sock", "127.0.0.1:7600"]


def test_without_control_listen_it_is_the_default(tmp_path: Path) -> None:
    found = addresses_of(NodeConfig(node=NodeSection(data_dir=tmp_path)))
    assert [str(one) for one in found] == [f"unix:{tmp_path}/control.sock", "127.0.0.1:7600"]


def test_a_node_that_listens_everywhere_is_called_here_over_tls() -> None:
    found = addresses_of(config("0.0.0.0:7600", "[::]:7601", "10.0.0.5:7602", "127.0.0.1:0"))
    assert [(str(one), one.is_tls) for one in found] == [
        ("tls:127.0.0.1:7600", True),
        ("tls:[::1]:7601", True),
        ("10.0.0.5:7602", True),
    ]


def test_a_node_without_the_api_is_nowhere() -> None:
    assert addresses_of(config()) == ()
