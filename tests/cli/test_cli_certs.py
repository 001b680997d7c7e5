"""`tandem certs`: what it writes, and what it never overwrites."""

import ssl
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_tools import tandem
from cryptography import x509

from failover.replication import PeerTlsFiles
from host.control.principal import Principal, Role, Via
from host.control.tls import ServerTls, TlsFiles, principal_of


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_command_makes_all_that_a_node_and_its_operator_need() -> None:
    result = tandem("certs", "init")
    assert result.exit_code == 0, result.output
    section: dict[str, Any] = tomllib.loads(result.stdout.partition("configuration:\n")[2])
    files = TlsFiles(**{key: Path(value) for key, value in section["control"]["tls"].items()})
    ServerTls(files, datetime.now(UTC))  # a node takes what was printed
    der = ssl.PEM_cert_to_DER_cert(Path("certs/client-admin.crt").read_text())
    assert principal_of(der) == Principal("admin", Role.ADMIN, Via.CERTIFICATE)


def test_hosts_are_in_the_nodes_certificate() -> None:
    done = tandem(
        "certs", "init", "--node", "a", "--host", "a.example.com", "--host", "10.0.0.5", "--host", "::1"
    )
    assert done.exit_code == 0, done.output
    certificate = x509.load_pem_x509_certificate(Path("certs/node-a.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.com"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "::1"]


def test_a_second_client_is_signed_by_the_same_ca() -> None:
    tandem("certs", "init")
    before = contents(Path("certs"))
    result = tandem("certs", "init", "--client", "grafana", "--role", "viewer", "--days", "90")
    assert result.exit_code == 0
    after = contents(Path("certs"))
    assert after.keys() - before.keys() == {"client-grafana.crt", "client-grafana.key"}
    assert before.items() <= after.items()
    ca = x509.load_pem_x509_certificate(after["ca.crt"])
    x509.load_pem_x509_certificate(after["client-grafana.crt"]).verify_directly_issued_by(ca)


def test_a_client_is_a_viewer_unless_told_otherwise() -> None:
    tandem("certs", "init", "--client", "x")
    der = ssl.PEM_cert_to_DER_cert(Path("certs/client-x.crt").read_text())
    assert principal_of(der).role is Role.VIEWER


def test_nothing_is_overwritten_without_force_and_the_ca_never() -> None:
    tandem("certs", "init")
    before = contents(Path("certs"))
    refused = tandem("certs", "init")
    assert refused.exit_code == 3
    assert (
        "certs/node-local.crt exists; name another certificate, or replace it with --force" in refused.output
    )
    assert contents(Path("certs")) == before

    assert tandem("certs", "init", "--force").exit_code == 0
    after = contents(Path("certs"))
    assert {name for name in before if before[name] == after[name]} == {"ca.crt", "ca.key"}


@pytest.mark.parametrize("left", ["node-local.key", "client-admin.crt"])
def test_half_a_pair_is_not_overwritten_either(left: str) -> None:
    tandem("certs", "init")
    for name in contents(Path("certs")):
        if name != left and not name.startswith("ca."):
            (Path("certs") / name).unlink()
    before = contents(Path("certs"))
    assert tandem("certs", "init").exit_code == 3
    assert contents(Path("certs")) == before


def test_the_folder_and_every_key_are_private() -> None:
    tandem("certs", "init", "--dir", "secret")
    assert Path("secret").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in Path("secret").glob("*.key")} == {0o600}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--role", "admin"), "add --client NAME"),
        (("--client", "x", "--host", "y"), "add --node NAME"),
        (("--client", "x", "--role", "root"), "viewer"),
        (("--days", "0"), "--days"),
        (("--client", "../x"), "--client"),
        (("--node", "a/b"), "--node"),
        (("--client", "a b"), "--client"),
    ],
)
def test_a_command_line_that_makes_no_sense_makes_nothing(arguments: tuple[str, ...], says: str) -> None:
    result = tandem("certs", "init", *arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert not Path("certs").exists()


def test_a_peers_certificate_is_one_that_its_node_takes() -> None:
    result = tandem("certs", "init", "--peer", "a", "--host", "10.0.0.1")
    assert result.exit_code == 0, result.output
    section = tomllib.loads(result.stdout.partition("configuration:\n")[2])["failover"]["tls"]
    PeerTlsFiles("a", *(Path(section[key]) for key in ("certificate", "key", "ca")))
    assert contents(Path("certs")).keys() == {"ca.crt", "ca.key", "peer-a.crt", "peer-a.key"}


def test_one_command_makes_both_certificates_of_a_node() -> None:
    result = tandem("certs", "init", "--node", "a", "--peer", "a")
    assert result.exit_code == 0, result.output
    sections = tomllib.loads(result.stdout.partition("configuration:\n")[2])
    assert sections["control"]["tls"]["certificate"] == "certs/node-a.crt"
    assert sections["failover"]["tls"]["certificate"] == "certs/peer-a.crt"
    assert tandem("certs", "init", "--peer", "a").exit_code == 3  # it is there
