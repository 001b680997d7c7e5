"""Certificates: what a node takes as its own, and who a client's certificate names."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from host.config.private_files import NotPrivate
from host.control.authority import Authority
from host.control.principal import NotAuthenticated, Principal, Role, Via
from host.control.tls import ServerTls, TlsError, TlsFiles, principal_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "certs", NOW)


def files(authority: Authority, *, days: int = 30) -> TlsFiles:
    certificate, key = authority.issue_node("a", ["127.0.0.1", "a.example.com"], NOW, days)
    return TlsFiles(certificate=certificate, key=key, client_ca=authority.folder / "ca.crt")


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def self_signed(names: list[str], uris: list[str], unit: str = "") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name(attributes))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
    )
    if uris:
        names_of = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names_of, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("role", list(Role))
def test_a_clients_certificate_gives_name_and_role(authority: Authority, role: Role) -> None:
    certificate, _ = authority.issue_client("bob", role, NOW, 1)
    assert principal_of(der(certificate)) == Principal("bob", role, Via.CERTIFICATE)


@pytest.mark.parametrize(
    ("names", "uris", "reason"),
    [
        pytest.param(["bob"], [], "CERTIFICATE_WITHOUT_ROLE", id="no role"),
        pytest.param(["bob"], ["urn:tandem:role:root"], "CERTIFICATE_WITHOUT_ROLE", id="unknown role"),
        pytest.param(
            ["bob"],
            ["urn:tandem:role:viewer", "urn:tandem:role:admin"],
            "CERTIFICATE_WITHOUT_ROLE",
            id="two roles",
        ),
        pytest.param([], ["urn:tandem:role:admin"], "CERTIFICATE_WITHOUT_NAME", id="no name"),
        pytest.param(["a", "b"], ["urn:tandem:role:admin"], "CERTIFICATE_WITHOUT_NAME", id="two names"),
        pytest.param(["a\nb"], ["urn:tandem:role:admin"], "CERTIFICATE_WITHOUT_NAME", id="odd name"),
    ],
)
def test_a_certificate_that_does_not_say_who_it_is_names_nobody(
    names: list[str], uris: list[str], reason: str
) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        principal_of(self_signed(names, uris))
    assert refused.value.reason == reason


def test_an_organisational_unit_gives_no_role() -> None:
    with pytest.raises(NotAuthenticated, match="urn:tandem:role:ROLE"):
        principal_of(self_signed(["bob"], [], unit="admin"))


def test_bytes_that_are_no_certificate_name_nobody() -> None:
    with pytest.raises(NotAuthenticated) as refused:
        principal_of(b"nonsense")
    assert refused.value.reason == "CERTIFICATE_UNREADABLE"


def test_an_expired_certificate_is_refused_with_file_and_time(authority: Authority) -> None:
    with pytest.raises(TlsError, match=r"node-a\.crt .* expired at 2026-03-02 12:00:00 UTC.*renew it"):
        ServerTls(files(authority), NOW + 30 * DAY)


def test_a_certificate_of_the_future_points_at_the_clock(authority: Authority) -> None:
    with pytest.raises(TlsError, match=r"valid from .* only.*check the clock"):
        ServerTls(files(authority), NOW - DAY)


def test_an_expired_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    old = Authority.create(tmp_path / "old", NOW - 3650 * DAY)
    issued = files(authority)
    with pytest.raises(TlsError, match=r"old/ca\.crt .* expired"):
        ServerTls(
            TlsFiles(certificate=issued.certificate, key=issued.key, client_ca=old.folder / "ca.crt"), NOW
        )
    with pytest.raises(TlsError, match="expired at 2026-01-31; make a new one"):
        old.issue_client("bob", Role.VIEWER, NOW, 1)


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    old = Authority.create(tmp_path / "old", NOW - 3640 * DAY)
    certificate, _ = old.issue_client("bob", Role.VIEWER, NOW, 365)
    end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    assert end == NOW + 10 * DAY


def test_a_key_that_others_can_read_is_refused(authority: Authority) -> None:
    issued = files(authority)
    issued.key.chmod(0o640)
    with pytest.raises(NotPrivate, match=f"chmod 600 {issued.key}"):
        ServerTls(issued, NOW)


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    issued = files(authority)
    _, other = authority.issue_node("b", ["b"], NOW, 30)
    with pytest.raises(TlsError, match=r"node-b\.key is not the private key of .*node-a\.crt"):
        ServerTls(TlsFiles(certificate=issued.certificate, key=other), NOW)


def test_an_encrypted_key_is_refused_and_nothing_asks_for_its_password(authority: Authority) -> None:
    issued = files(authority)
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    issued.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )
    with pytest.raises(TlsError, match="is encrypted"):
        ServerTls(issued, NOW)


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(authority: Authority, which: str) -> None:
    issued = files(authority)
    getattr(issued, which).unlink()
    with pytest.raises(TlsError, match=f"there is no .* {getattr(issued, which)}; `tandem certs init`"):
        ServerTls(issued, NOW)


@pytest.mark.parametrize("which", ["certificate", "client_ca"])
def test_a_file_that_holds_no_certificate_is_named(authority: Authority, which: str) -> None:
    issued = files(authority)
    getattr(issued, which).write_text("nonsense")
    with pytest.raises(TlsError, match=f"{getattr(issued, which)} should hold certificates in PEM"):
        ServerTls(issued, NOW)


def test_requiring_client_certificates_needs_a_ca_to_judge_them(authority: Authority) -> None:
    issued = files(authority)
    with pytest.raises(TlsError, match=r"needs control\.tls\.client_ca"):
        ServerTls(
            TlsFiles(certificate=issued.certificate, key=issued.key, require_client_certificate=True), NOW
        )


def test_changed_files_are_used_and_bad_ones_are_not(authority: Authority) -> None:
    issued = files(authority)
    tls = ServerTls(issued, NOW)
    first = tls.context(NOW)
    assert tls.context(NOW) is first

    whole = issued.certificate.read_bytes()
    issued.certificate.write_text("half a cert")
    assert tls.context(NOW) is first
    assert "not in use" in tls.problem
    assert tls.warning(NOW) == tls.problem

    issued.certificate.write_bytes(whole)
    assert tls.context(NOW) is not first
    assert tls.problem == ""


def test_a_certificate_near_its_end_is_warned_of(authority: Authority) -> None:
    tls = ServerTls(files(authority), NOW)
    assert tls.warning(NOW + 15 * DAY) == ""
    assert "expires at 2026-03-02 12:00:00 UTC" in tls.warning(NOW + 17 * DAY)


# -- the authority ---------------------------------------------------------------------------------


def test_an_authority_that_is_opened_again_signs_what_its_ca_proves(authority: Authority) -> None:
    again = Authority.open(authority.folder)
    assert again is not None
    certificate, _ = again.issue_client("bob", Role.VIEWER, NOW, 1)
    ca = x509.load_pem_x509_certificate((authority.folder / "ca.crt").read_bytes())
    x509.load_pem_x509_certificate(certificate.read_bytes()).verify_directly_issued_by(ca)


def test_there_is_no_authority_in_an_empty_folder(tmp_path: Path) -> None:
    assert Authority.open(tmp_path) is None


def test_half_an_authority_is_refused(authority: Authority) -> None:
    (authority.folder / "ca.key").unlink()
    with pytest.raises(TlsError, match=r"ca\.key is missing; restore it"):
        Authority.open(authority.folder)


def test_a_ca_with_another_ones_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", NOW)
    (other.folder / "ca.key").replace(authority.folder / "ca.key")
    with pytest.raises(TlsError, match=r"ca\.key is not the key of"):
        Authority.open(authority.folder)


def test_every_private_key_is_private(authority: Authority) -> None:
    files(authority)
    authority.issue_client("bob", Role.VIEWER, NOW, 1)
    keys = list(authority.folder.glob("*.key"))
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
