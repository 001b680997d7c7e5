"""`tandem config check` of [control]: what a node would not start with."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_tools import tandem

from host.cli.ctl._node_options import addresses_given
from host.control.authority import Authority
from host.control.principal import Role
from host.control.tokens import TOKENS_FILE, TokenStore

FAR = 'listen = ["0.0.0.0:7600"]'


@pytest.fixture(autouse=True)
def _as_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN", raising=False)


def problems(folder: Path, text: str) -> list[dict[str, str]]:
    path = folder / "tandem.toml"
    path.write_text(f'[node]\ndata_dir = "{folder}/data"\n[control]\n{text}\n')
    result = tandem("config", "check", "-c", path, "--json")
    found: list[dict[str, str]] = json.loads(result.stdout)["problems"]
    assert result.exit_code == (2 if found else 0)
    return found


def test_an_address_that_other_machines_reach_needs_tls(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, FAR)
    assert problem["key"] == "control.listen"
    assert "it needs a certificate of the node's own" in problem["text"]


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        ('["127.0.0.1"]', "expected unix:PATH"),
        ('["localhost:70000"]', "a port is at most 65535"),
        ('["127.0.0.1:7600", "localhost:7600"]', "is listed twice"),
    ],
)
def test_an_address_that_cannot_be_is_a_problem(tmp_path: Path, listen: str, text: str) -> None:
    [problem] = problems(tmp_path, f"listen = {listen}")
    assert text in problem["text"]


def test_tls_needs_a_certificate_that_works_and_callers_that_can_prove_who_they_are(tmp_path: Path) -> None:
    tls = f'{FAR}\n[control.tls]\ncertificate = "{tmp_path}/node.crt"\nkey = "{tmp_path}/node.key"'
    [missing, proof] = problems(tmp_path, tls)
    assert missing["key"] == "control.tls"
    assert "node.crt" in missing["text"]
    assert "callers there have to prove who they are" in proof["text"]
    authority = Authority.create(tmp_path / "certs", datetime.now(UTC))
    certificate, key = authority.issue_node("a", ["127.0.0.1"], datetime.now(UTC), days=1)
    good = tls.replace(f"{tmp_path}/node.crt", str(certificate)).replace(f"{tmp_path}/node.key", str(key))
    [proof] = problems(tmp_path, good)
    assert proof["key"] == "control.listen"
    (tmp_path / "data").mkdir(mode=0o700)
    TokenStore.open(tmp_path / "data" / TOKENS_FILE).create("olga", Role.VIEWER, 0, None)
    assert not problems(tmp_path, good)


def test_the_defaults_are_fine(tmp_path: Path) -> None:
    assert not problems(tmp_path, "")


@pytest.mark.parametrize(("ca", "is_tls"), [(True, True), (False, False)])
def test_naming_whom_to_trust_means_tls_on_loopback_too(tmp_path: Path, *, ca: bool, is_tls: bool) -> None:
    options = {"address": ("127.0.0.1:7600", "unix:x.sock")} | ({"ca": tmp_path / "ca.crt"} if ca else {})
    tcp, unix = addresses_given(options)
    assert tcp.is_tls is is_tls
    assert not unix.is_tls


MISTAKEN = """
[node]
data_dir = "data"
durability = "replica"
[control]
listen = ["unix:data/x.sock"]
[failover]
lease = 5
[[instance]]
name = "mm"
after = ["nobody"]
[risk.nodes]
"""


def test_a_node_is_found_though_its_file_has_a_mistake_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM__INSTANCE__NOBODY__START", "paused")
    (tmp_path / "tandem.toml").write_text(MISTAKEN)
    [address] = addresses_given({"path": tmp_path / "tandem.toml"})
    assert address.target == f"unix:{tmp_path}/data/x.sock"
    assert "data/journal: there is no journal here" in tandem("journal", "dump").output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("listen", "listn", 'control.listn: unknown key; did you mean "listen"?'),
        ('"data"', "5", "node.data_dir: expected a path"),
        ("[node]", "[node", "is not valid TOML"),
    ],
)
def test_a_mistake_about_where_the_node_is_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "tandem.toml").write_text(MISTAKEN.replace(old, new, 1))
    result = tandem("ctl", "status")
    assert result.exit_code == 2
    assert said in result.output
    assert "mm" not in result.output
