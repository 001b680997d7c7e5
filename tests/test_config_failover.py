"""`[failover]`: what is read, and what would start a node that only looks like one of a pair."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.config import (
    ConfigError,
    FailoverSection,
    FailoverTlsSection,
    NodeConfig,
    diff,
    load_config,
)
from host.config.failover import duration_ms
from host.control.config_view import shown_config

PAIR = """
[node]
name = "a"
durability = "replica"

[control]
listen = ["unix:control.sock", "tls:127.0.0.1:7600"]

[failover]
lease = "postgresql+psycopg://tandem@db/tandem"
ttl = "1.5s"
replicate = "127.0.0.1:7601"
peers = { b = "127.0.0.1:7611", c-2 = "unix:c.sock" }
"""
TLS = '\n[failover.tls]\ncertificate = "a.crt"\nkey = "a.key"\nca = "ca.crt"\n'


def load(folder: Path, text: str) -> NodeConfig:
    path = folder / "tandem.toml"
    path.write_text(text)
    return load_config(path, None, {}).config


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return {problem.key: problem.text for problem in caught.value.problems}


def failover(config: NodeConfig) -> FailoverSection:
    assert config.failover is not None
    return config.failover


def test_a_node_stands_alone_unless_told_otherwise(tmp_path: Path) -> None:
    assert load(tmp_path, "").failover is None


def test_a_pair_is_read_into_types(tmp_path: Path) -> None:
    config = load(tmp_path, PAIR + TLS)

    assert config.node.durability == "replica"
    section = failover(config)
    assert (section.cell, section.ttl_ms) == ("main", 1500)
    assert section.peers == {"b": "127.0.0.1:7611", "c-2": "unix:c.sock"}
    assert section.tls == FailoverTlsSection(certificate=Path("a.crt"), key=Path("a.key"), ca=Path("ca.crt"))


def test_clients_are_sent_to_the_first_tcp_address_unless_another_is_given(tmp_path: Path) -> None:
    assert load(tmp_path, PAIR).control_address == "127.0.0.1:7600"
    given_one = PAIR.replace("[failover]", '[failover]\ncontrol_address = "a.example.com:7600"')
    assert load(tmp_path, given_one).control_address == "a.example.com:7600"
    assert load(tmp_path, "[control]\nlisten = []\n").control_address == ""


def test_an_overlay_moves_one_peer(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(PAIR)

    config = load_config(path, None, {"TANDEM__FAILOVER__PEERS__C_2": "127.0.0.1:7621"}).config

    assert failover(config).peers == {"b": "127.0.0.1:7611", "c-2": "127.0.0.1:7621"}


@pytest.mark.parametrize(
    ("old", "new", "key", "text"),
    [
        ('"1.5s"', '"99ms"', "failover.ttl", 'expected at least 100 ms, was "99ms"'),
        ('"1.5s"', '"90"', "failover.ttl", 'expected a duration such as "600ms" or "1s", was "90"'),
        ('"1.5s"', "600", "failover.ttl", "expected text, was 600"),
        ("postgresql+psycopg://", "redis://", "failover.lease", 'was "redis", which is no kind of lease store'),
        ("postgresql+psycopg://tandem@db/tandem", "sqlite://", "failover.lease", "each would lead by itself"),
        ('c-2 = "unix:c.sock"', 'a = "unix:c.sock"', "failover.peers.a", "is this node itself"),
        ("c-2", '"c 2"', "failover.peers.c 2", "expected a node's name"),
        ("unix:c.sock", "127.0.0.1:7601", 'failover.peers."c-2"', "is the address of this node too"),
        ("unix:c.sock", "127.0.0.1:7611", 'failover.peers."c-2"', 'is the address of "b" too'),
        ("unix:c.sock", "10.0.0.3", 'failover.peers."c-2"', "expected HOST:PORT or unix:PATH"),
        ("unix:c.sock", "10.0.0.3:7601", 'failover.peers."c-2"', "journal in the clear"),
        ('"127.0.0.1:7601"', '"0.0.0.0:7601"', "failover.replicate", "journal in the clear"),
        ('replicate = "127.0.0.1:7601"', "", "failover.replicate", "expected where peers dial this node"),
        ("tls:127.0.0.1:7600", "0.0.0.0:7600", "failover.control_address", '"0.0.0.0:7600" is no address'),
        ('peers = { b = "127.0.0.1:7611", c-2 = "unix:c.sock" }', "", "node.durability", "needs a standby"),
        ("[failover]", "[failover]\ndead_man_ms = 4499", "failover.dead_man_ms", "expected 0 (off) or at least 4500"),
        ("[failover]", '[failover]\ncell = "Main"', "failover.cell", "expected text like"),
        ("ttl =", "tll =", "failover.tll", 'did you mean "ttl"?'),
        ('lease = "postgresql+psycopg://tandem@db/tandem"', "", "failover.lease", "expected text, was missing"),
        ("[failover]", '[failover.tls]\nca = "x"\n[failover]', "failover.tls.key", "expected a path, was missing"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_pair_is_refused(
    tmp_path: Path, old: str, new: str, key: str, text: str
) -> None:
    assert old in PAIR
    assert text in problems(tmp_path, PAIR.replace(old, new))[key]


def test_a_dead_mans_switch_can_be_off_or_leave_time_for_a_takeover(tmp_path: Path) -> None:
    for text in ("0", "4500"):
        config = load(tmp_path, PAIR.replace("[failover]", f"[failover]\ndead_man_ms = {text}"))
        assert failover(config).dead_man_ms == int(text)


def test_replica_durability_needs_failover(tmp_path: Path) -> None:
    found = problems(tmp_path, '[node]\ndurability = "replica"\n')

    assert "there is no [failover]" in found["node.durability"]


def test_nodes_of_several_machines_cannot_share_a_file(tmp_path: Path) -> None:
    text = PAIR.replace("postgresql+psycopg://tandem@db/tandem", "sqlite:///var/lease.db")
    load(tmp_path, text)

    found = problems(tmp_path, text.replace("127.0.0.1:7611", "10.0.0.2:7601") + TLS)

    assert list(found) == ["failover.peers.b"]
    assert "nodes of one machine alone can share" in found["failover.peers.b"]


def test_with_tls_other_machines_are_fine(tmp_path: Path) -> None:
    text = PAIR.replace("127.0.0.1:7611", "10.0.0.2:7601").replace("127.0.0.1:7601", "0.0.0.0:7601")

    assert failover(load(tmp_path, text + TLS)).replicate == "0.0.0.0:7601"


def test_every_edit_of_failover_needs_a_restart(tmp_path: Path) -> None:
    pair = load(tmp_path, PAIR)
    longer = load(tmp_path, PAIR.replace("1.5s", "2s"))
    alone = load(
        tmp_path, '[node]\nname = "a"\n[control]\nlisten = ["unix:control.sock", "tls:127.0.0.1:7600"]\n'
    )

    assert diff(pair, pair).needs_restart == ()
    assert [(n.at, n.was, n.now) for n in diff(pair, longer).needs_restart] == [
        (("failover", "ttl"), '"1.5s"', '"2s"')
    ]
    assert ("failover",) in [needs.at for needs in diff(pair, alone).needs_restart]
    assert ("failover",) in [needs.at for needs in diff(alone, pair).needs_restart]


@pytest.mark.parametrize(
    ("lease", "shown"),
    [
        ("postgresql+psycopg://t:hunter2@db/t", "postgresql+psycopg://t:***@db/t"),
        ("etcd://one:2379,two:2379", "etcd://one:2379,two:2379"),
    ],
)
def test_clients_are_not_shown_the_password_of_the_lease_store(
    tmp_path: Path, lease: str, shown: str
) -> None:
    text = PAIR.replace("postgresql+psycopg://tandem@db/tandem", lease)

    assert shown_config(load(tmp_path, text))["failover"]["lease"] == shown


@given(st.integers(0, 10**6), st.integers(0, 999))
def test_a_duration_is_exact(seconds: int, thousandths: int) -> None:
    assert duration_ms(f"{seconds}.{thousandths:03}s") == Decimal(f"{seconds}.{thousandths:03}") * 1000
    assert duration_ms(f"{seconds}ms") == seconds


@pytest.mark.parametrize("text", ["", "5", "ms", "-5ms", "5m", "5 ms", "5ms\n", ".5s", "1e3ms"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration_ms(text)


def test_documented_example_and_keys_are_the_real_ones(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    example = next(part for part in page.split("```toml\n") if part.startswith("[failover]")).split("```")[0]

    assert failover(load(tmp_path, example)).peers == {"b": "10.0.0.2:7601"}

    keys = [*FailoverSection.__struct_fields__, *FailoverTlsSection.__struct_fields__]
    assert [key for key in keys if f"`{key}`" not in page] == ["tls"]  # has a heading of its own


def test_the_example_of_a_pair_is_one_that_a_node_takes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "operating-a-pair.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]

    config = load(tmp_path, example)

    assert (config.node.name, failover(config).peers) == ("a", {"b": "10.0.0.2:7601"})
    assert config.control_address == "10.0.0.1:7600"
