"""What an instance may say of the program that attaches to it, and what a mistake in it is answered with."""

from pathlib import Path

import pytest

from host.config import ClientSection, ConfigError, NodeConfig, diff, load_config

NODE = """
[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "mine"
plugin = "external"
account = "paper"
symbols = ["BTC-USDT"]
isolation = "client"
client = {{ {client} }}
"""


def load(folder: Path, client: str) -> NodeConfig:
    path = folder / "tandem.toml"
    path.write_text(NODE.format(client=client))
    return load_config(path, None, {}).config


@pytest.mark.parametrize(
    "listen", ["tcp://127.0.0.1:7710", "tcp://localhost:7710", "tcp://[::1]:7710", "tcp://127.8.8.8:1"]
)
def test_what_this_machine_alone_can_reach_needs_no_encryption(tmp_path: Path, listen: str) -> None:
    (instance,) = load(tmp_path, f'listen = "{listen}", on_loss = "keep"').instance
    assert instance.client == ClientSection(listen=listen, on_loss="keep")


@pytest.mark.parametrize(
    "listen",
    [
        "tcp://0.0.0.0:7710",
        "tcp://10.0.0.5:7710",
        "tcp://*:7710",
        "tcp://desk.example:7710",
        "tcp://[::]:7710",
    ],
)
def test_what_other_machines_can_reach_needs_encryption(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines, and needs curve = true"):
        load(tmp_path, f'listen = "{listen}"')
    load(tmp_path, f'listen = "{listen}", curve = true')


@pytest.mark.parametrize(
    "listen", ["udp://127.0.0.1:7710", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65535", "x"]
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match='expected "ipc" or "tcp://HOST:PORT"'):
        load(tmp_path, f'listen = "{listen}"')


def test_a_token_is_named_and_never_written_out_nor_shown(tmp_path: Path) -> None:
    load(tmp_path, 'token = "secret:mine"')
    with pytest.raises(ConfigError, match="a token never stands in a configuration") as refused:
        load(tmp_path, 'token = "0123456789abcdef"')
    assert "0123456789abcdef" not in str(refused.value)


def test_another_door_makes_it_another_instance(tmp_path: Path) -> None:
    plan = diff(load(tmp_path, ""), load(tmp_path, 'listen = "tcp://127.0.0.1:7710"'))
    assert [section.name for section in plan.replaced] == ["mine"]


SECOND = """
[[instance]]
name = "yours"
plugin = "external"
account = "paper"
symbols = ["BTC-USDT"]
isolation = "{isolation}"
client = {{ listen = "{listen}" }}
"""


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("tcp://127.0.0.1:7709", 7710),
        ("tcp://127.0.0.1:7710", 7710),
        ("tcp://localhost:7710", 7710),
        ("tcp://127.0.0.1:7711", 7711),
    ],
)
def test_a_port_that_another_client_is_to_use_is_refused(tmp_path: Path, listen: str, port: int) -> None:
    path = tmp_path / "tandem.toml"
    first = NODE.format(client='listen = "tcp://127.0.0.1:7710"')
    path.write_text(first + SECOND.format(isolation="client", listen=listen))

    with pytest.raises(ConfigError) as caught:
        load_config(path, None, {})

    [problem] = caught.value.problems
    assert problem.key == "instance[yours].client.listen"
    assert f'was "{listen}", and instance mine has {port}' in problem.text
    path.write_text(first + SECOND.format(isolation="inline", listen=listen))
    load_config(path, None, {})


@pytest.mark.parametrize(
    "listen", ["tcp://127.0.0.1:7708", "tcp://127.0.0.1:7712", "tcp://127.0.0.2:7710", "ipc"]
)
def test_ports_that_are_free_are_taken(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(
        NODE.format(client='listen = "tcp://127.0.0.1:7710"')
        + SECOND.format(isolation="client", listen=listen)
    )
    load_config(path, None, {})
