"""What a client shows of itself, and to whom."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from client_tools import run, serving
from control_tools import ControlDesk

from host.client import Control, Credentials, CredentialsUnusable, NotPermitted, Unreachable
from host.config.private_files import NotPrivate
from host.control.authority import Authority
from host.control.principal import Role
from host.control.tls import ServerTls, TlsFiles
from tandem.v1 import node_pb2 as n


class Certificates:
    """A CA, the certificate of a node on this machine, and one of a client."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        authority = Authority.create(folder, now)
        certificate, key = authority.issue_node("a", ["127.0.0.1"], now, 30)
        self.ca = folder / "ca.crt"
        self.client = authority.issue_client("olga", Role.OPERATOR, now, 1)
        self.server = ServerTls(TlsFiles(certificate=certificate, key=key, client_ca=self.ca), now)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certificates]:
    yield Certificates(tmp_path_factory.mktemp("certs") / "certs")


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_over_tls_a_certificate_or_a_token_lets_a_client_in(
    certificates: Certificates, tmp_path: Path
) -> None:
    desk = ControlDesk(tmp_path)
    token = secret_file(tmp_path / "token", desk.token(Role.VIEWER) + "\n")
    certificate, key = certificates.client

    async def story() -> None:
        ways = (
            Credentials.load(ca=certificates.ca, certificate=certificate, key=key),
            Credentials.load(ca=certificates.ca, token_file=token),
        )
        async with serving(desk, tls=certificates.server) as address:
            for way in ways:
                async with Control([address], way) as control:
                    assert (await control.node.get_status(n.GetStatusRequest())).status.node == "desk"
            async with Control([address], Credentials.load(ca=certificates.ca)) as control:
                with pytest.raises(NotPermitted, match="send a client certificate"):
                    await control.node.get_status(n.GetStatusRequest())

    run(story)


def test_a_node_that_cannot_prove_who_it_is_gets_no_call(certificates: Certificates, tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    token = Credentials.load(token=desk.token(Role.ADMIN))

    async def story() -> None:
        async with (
            serving(desk, tls=certificates.server) as address,
            Control([address], token, patience_s=0.1) as control,
        ):
            with pytest.raises(Unreachable, match="its certificate is not to be trusted"):
                await control.node.shutdown(n.ShutdownRequest())

    run(story)
    assert not desk.stopped


def test_what_keeps_tls_from_working_is_said_in_a_few_words(
    certificates: Certificates, tmp_path: Path
) -> None:
    desk = ControlDesk(tmp_path)

    async def refusal(address: str, **credentials: Any) -> str:
        async with Control([address], Credentials.load(**credentials), patience_s=0.1) as control:
            with pytest.raises(Unreachable) as error:
                await control.node.get_status(n.GetStatusRequest())
        return error.value.text

    async def story() -> None:
        async with serving(desk, tls=certificates.server) as address:
            other = await refusal(address, ca=certificates.ca, server_name="b.example.com")
            assert other.endswith("say that name (server_name)")
            plain = await refusal(address.removeprefix("tls:"))
            assert plain.endswith("if it wants TLS, write tls: before the address")
        async with serving(desk, tls=None, port=True) as address:
            assert (await refusal(f"tls:{address}")).endswith("does not speak TLS")

    run(story)


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        Credentials.load(token_file=path)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnusable, match="one is missing"):
        Credentials.load(certificate=tmp_path / "c.crt")
    with pytest.raises(CredentialsUnusable, match=r"cannot read .*none\.crt: No such file"):
        Credentials.load(ca=tmp_path / "none.crt")
    with pytest.raises(CredentialsUnusable, match="is empty"):
        Credentials.load(token_file=secret_file(tmp_path / "token", "\n"))
    with pytest.raises(CredentialsUnusable, match="one line of ASCII"):
        Credentials.load(token="a\nb")


def test_credentials_do_not_show_their_secrets(tmp_path: Path) -> None:
    key = secret_file(tmp_path / "key", "the key")
    (tmp_path / "crt").write_text("public")
    credentials = Credentials.load(token="the token", certificate=tmp_path / "crt", key=key)
    assert "the" not in repr(credentials)
    assert credentials.metadata == (("authorization", "Bearer the token"),)
