"""The TLS files of a node: what is refused, and that renewed ones are used without a restart."""

import asyncio
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from failover.replication import PeerTlsFiles, ReplicationConfigError, ReplicationServer
from host.control.authority import Authority
from host.control.principal import Role

NOW = datetime.now(UTC)
DAYS = 30


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", NOW)


class Files:
    """The files of node a, where a renewal puts new ones in their place."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.certificate, self.key = folder / "a.crt", folder / "a.key"
        self.ca = authority.folder / "ca.crt"
        self._authority = authority
        self.now = NOW
        self.renew()

    def renew(self) -> None:
        self.put(*self._authority.issue_peer("a", ["127.0.0.1"], NOW, DAYS))

    def put(self, certificate: Path, key: Path) -> None:
        shutil.move(key, self.key)
        shutil.move(certificate, self.certificate)

    def open(self, node: str = "a") -> PeerTlsFiles:
        return PeerTlsFiles(node, self.certificate, self.key, self.ca, lambda: self.now)

    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return Files(tmp_path, authority)


async def shown_serial(port: int, context: ssl.SSLContext) -> int:
    """Connect and return the serial number of the certificate that the server shows."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return x509.load_der_x509_certificate(der).serial_number


def test_the_next_connection_sees_a_renewed_certificate(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    peer = authority.issue_peer("b", ["127.0.0.1"], NOW, DAYS)
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(*peer)
    context.set_alpn_protocols(["h2"])

    async def story() -> None:
        server = ReplicationServer("a", "main", lambda _event: None)
        port = await server.start("127.0.0.1:0", files.open())
        try:
            first = files.serial()
            assert await shown_serial(port, context) == first
            files.renew()
            assert files.serial() != first
            assert await shown_serial(port, context) == files.serial()
            assert await shown_serial(port, context) == files.serial()
        finally:
            await server.close()

    asyncio.run(story())


def test_files_that_are_no_good_are_not_used_and_said(files: Files) -> None:
    tls = files.open()
    before = tls.current()
    assert tls.warning() == ""

    files.certificate.write_text("half a renewal")

    assert tls.current() is before
    assert tls.warning().startswith("the changed TLS files are not in use: ")
    files.renew()
    assert tls.current().certificate == files.certificate.read_bytes()
    assert tls.warning() == ""


def test_what_expires_soon_is_said_in_time(files: Files) -> None:
    tls = files.open()
    files.now = NOW + timedelta(days=DAYS - 13)

    assert "renew it, no restart is needed" in tls.warning()


def _none(files: Files, _authority: Authority) -> None:
    files.key.unlink()


def _open_to_others(files: Files, _authority: Authority) -> None:
    files.key.chmod(0o640)


def _of_another_key(files: Files, authority: Authority) -> None:
    shutil.move(authority.issue_peer("a", ["127.0.0.1"], NOW, DAYS)[1], files.key)


def _of_another_node(files: Files, authority: Authority) -> None:
    files.put(*authority.issue_peer("b", ["127.0.0.1"], NOW, DAYS))


def _of_a_client(files: Files, authority: Authority) -> None:
    files.put(*authority.issue_client("a", Role.ADMIN, NOW, DAYS))


def _expired(files: Files, _authority: Authority) -> None:
    files.now = NOW + timedelta(days=DAYS)


def _not_yet(files: Files, _authority: Authority) -> None:
    files.now = NOW - timedelta(days=1)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_none, "there is no file"),
        (_open_to_others, "chmod 600"),
        (_of_another_key, "is not the private key of"),
        (_of_another_node, "should be for urn:tandem:peer:a, and names the node 'b'"),
        (_of_a_client, "and names no node; `tandem certs init --peer a` makes one that is"),
        (_expired, "expired at"),
        (_not_yet, "check the clock"),
    ],
)
def test_files_that_no_peer_would_take_are_refused(
    authority: Authority, files: Files, spoil: Callable[[Files, Authority], None], text: str
) -> None:
    spoil(files, authority)

    with pytest.raises(ReplicationConfigError, match=text):
        files.open()
