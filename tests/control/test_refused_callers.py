"""Over the wire: who gets in by which door, and that whoever does not is in the audit log."""

import asyncio
import contextlib
import getpass
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from security_tools import NOBODY, PATIENCE_S, Site, ask, only_root, relay_of_user

from host.control.audit_chain import verify
from host.control.principal import Role

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def serve(site: Site, story: Callable[[], Awaitable[None]], **how: object) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S * 2):
            site.refused = asyncio.Event()
            async with site.serving(**how):  # type: ignore[arg-type]
                await story()

    asyncio.run(run())


def test_a_client_certificate_names_its_holder_and_their_role(site: Site) -> None:
    async def story() -> None:
        bob = site.client("bob", Role.OPERATOR)
        assert await ask(site.over_tls(bob)) == "bob operator certificate"

    serve(site, story)


def test_a_token_is_taken_over_tls_without_a_client_certificate(site: Site) -> None:
    token = site.tokens.create("deploy", Role.TRADER, time.time_ns(), None)

    async def story() -> None:
        assert await ask(site.over_tls(), token) == "deploy trader token"

    serve(site, story)


def test_the_nodes_own_user_needs_nothing_on_this_machine(site: Site) -> None:
    user = getpass.getuser()

    async def story() -> None:
        assert await ask(site.over_socket()) == f"{user} admin unix_socket"
        assert await ask(site.in_plain_text(site.loopback_port)) == f"{user} admin loopback"

    serve(site, story)


def test_loopback_gives_the_role_it_is_configured_with(site: Site) -> None:
    async def story() -> None:
        assert (await ask(site.in_plain_text(site.loopback_port))).split()[1] == "viewer"

    serve(site, story, loopback_role=Role.VIEWER)


def test_a_token_decides_even_where_none_is_needed(site: Site) -> None:
    token = site.tokens.create("grafana", Role.VIEWER, time.time_ns(), None)

    async def story() -> None:
        for channel in (site.over_socket, lambda: site.in_plain_text(site.loopback_port)):
            assert await ask(channel(), token) == "grafana viewer token"
            assert await ask(channel(), token[:-1] + "-") == "UNAUTHENTICATED"

    serve(site, story)


def test_a_caller_without_credentials_is_refused_and_audited(site: Site) -> None:
    async def story() -> None:
        assert await ask(site.over_tls()) == "UNAUTHENTICATED"

    serve(site, story)
    (record,) = site.audited()
    assert (record.outcome, record.detail) == ("UNAUTHENTICATED", "NO_CREDENTIALS")
    assert record.from_.startswith("127.0.0.1:")


def test_loopback_can_be_told_to_know_nobody_without_a_token(site: Site) -> None:
    async def story() -> None:
        assert await ask(site.in_plain_text(site.loopback_port)) == "UNAUTHENTICATED"

    serve(site, story, loopback_role=None)
    assert [record.detail for record in site.audited()] == ["NO_CREDENTIALS"]


def test_wrong_expired_and_revoked_tokens_are_refused_and_audited(site: Site) -> None:
    now_ns = time.time_ns()
    expired = site.tokens.create("old", Role.ADMIN, now_ns - 2 * HOUR_NS, now_ns - HOUR_NS)
    revoked = site.tokens.create("gone", Role.ADMIN, now_ns, None)

    async def story() -> None:
        assert await ask(site.over_tls(), revoked) == "gone admin token"
        site.tokens.revoke("gone")  # while the node runs
        for token in (revoked, expired, "tandem_00000000_" + "x" * 43, "", "secret"):
            assert await ask(site.over_tls(), token) == "UNAUTHENTICATED"

    serve(site, story)
    records = site.audited()
    assert {record.detail for record in records} == {"TOKEN_REFUSED"}
    assert sum(record.count for record in records) == 5
    assert verify(site.audit.folder).is_sound
    written = "".join(path.read_text() for path in site.audit.folder.iterdir())
    assert revoked not in written
    assert expired not in written


def test_a_good_certificate_does_not_make_up_for_a_wrong_token(site: Site) -> None:
    async def story() -> None:
        assert await ask(site.over_tls(site.client("bob", Role.ADMIN)), "wrong") == "UNAUTHENTICATED"

    serve(site, story)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(
            lambda site: site.client("old", Role.ADMIN, days_ago=3), "certificate has expired", id="expired"
        ),
        pytest.param(
            lambda site: site.client("early", Role.ADMIN, days_ago=-3), "not yet valid", id="not yet valid"
        ),
        pytest.param(lambda site: site.node, "unsuitable certificate purpose", id="a node's"),
        pytest.param(
            lambda site: Site(site.folder / "other").client("eve", Role.ADMIN),
            "unable to get local issuer",
            id="of another CA",
        ),
    ],
)
def test_a_bad_certificate_is_refused_in_the_handshake_and_audited(
    site: Site, make: Callable[[Site], tuple[Path, Path]], why: str
) -> None:
    pair = make(site)

    async def story() -> None:
        assert await ask(site.over_tls(pair)) == "UNAVAILABLE"
        await site.refused.wait()

    serve(site, story)
    first, *_ = site.audited()
    assert (first.who, first.method, first.outcome) == ("", "connect", "CERTIFICATE_REFUSED")
    assert why in first.detail


def test_a_plain_text_client_on_a_tls_port_is_refused_and_audited(site: Site) -> None:
    async def story() -> None:
        assert await ask(site.in_plain_text(site.tls_port)) == "UNAVAILABLE"
        await site.refused.wait()

    serve(site, story)
    first, *_ = site.audited()
    assert (first.method, first.outcome) == ("connect", "PLAIN_TEXT")


def test_a_certificate_that_is_required_cannot_be_left_out(site: Site) -> None:
    token = site.tokens.create("deploy", Role.TRADER, time.time_ns(), None)

    async def story() -> None:
        assert await ask(site.over_tls(), token) == "UNAVAILABLE"
        await site.refused.wait()
        assert await ask(site.over_tls(site.client("bob", Role.VIEWER)), token) == "deploy trader token"

    serve(site, story, files=site.files(is_certificate_required=True))
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in site.audited()[0].detail


def test_a_renewed_node_certificate_is_used_without_a_restart(site: Site) -> None:
    bob = site.client("bob", Role.VIEWER)

    async def story() -> None:
        assert await ask(site.over_tls(bob)) == "bob viewer certificate"
        other = Site(site.folder / "other")  # a client of the old CA cannot trust what this one signed
        for old, new in zip(site.node, other.node, strict=True):
            new.replace(old)
        assert await ask(site.over_tls(bob)) == "UNAVAILABLE"

    serve(site, story)


def test_clients_that_hang_up_or_say_nothing_leave_the_others_alone(site: Site) -> None:
    bob = site.client("bob", Role.VIEWER)

    async def story() -> None:
        address = ("127.0.0.1", site.tls_port)
        with contextlib.ExitStack() as silent:
            for _ in range(20):
                silent.enter_context(socket.create_connection(address))
            for _ in range(20):
                with socket.create_connection(address) as hasty:
                    hasty.send(b"\x16\x03\x01")
            assert await ask(site.over_tls(bob)) == "bob viewer certificate"
        await site.refused.wait()

    serve(site, story)
    assert {record.outcome for record in site.audited()} == {"HANDSHAKE_FAILED"}


@only_root
def test_another_user_of_this_machine_needs_a_token(site: Site) -> None:
    token = site.tokens.create("guest", Role.VIEWER, time.time_ns(), None)

    async def story() -> None:
        async with relay_of_user(NOBODY, site.loopback_port) as port:
            assert await ask(site.in_plain_text(port)) == "UNAUTHENTICATED"
            assert await ask(site.in_plain_text(port), token) == "guest viewer token"

    serve(site, story)
    assert [record.detail for record in site.audited()] == ["OTHER_USER"]
