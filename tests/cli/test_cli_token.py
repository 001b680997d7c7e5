"""`tandem token`: shown once, taken back at once."""

import json
import time
from pathlib import Path

import pytest
from cli_tools import tandem

from host.control.principal import Principal, Role, Via
from host.control.tokens import TOKENS_FILE, TokenStore

DAY_NS = 86_400 * 10**9


def store() -> TokenStore:
    return TokenStore.open(Path("var/tandem") / TOKENS_FILE)


def test_a_token_is_all_that_standard_output_holds() -> None:
    result = tandem("token", "create", "deploy", "--role", "operator")
    assert result.exit_code == 0, result.output
    token = result.stdout.strip()
    assert store().verify(token, time.time_ns()) == Principal("deploy", Role.OPERATOR, Via.TOKEN)
    assert "shown this once" in result.stderr
    assert token not in result.stderr


def test_a_token_lives_as_long_as_it_was_given() -> None:
    before = time.time_ns()
    tandem("token", "create", "default", "--role", "viewer")
    tandem("token", "create", "short", "--role", "viewer", "--expires", "12h")
    tandem("token", "create", "long", "--role", "viewer", "--expires", "never")
    after = time.time_ns()
    default, short, long = store().records()
    assert before + 90 * DAY_NS <= (default.expires_ns or 0) <= after + 90 * DAY_NS
    assert before + DAY_NS // 2 <= (short.expires_ns or 0) <= after + DAY_NS // 2
    assert long.expires_ns is None


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1", "d", "1.5h", "٣d", "soon"])
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    result = tandem("token", "create", "x", "--role", "viewer", "--expires", text)
    assert result.exit_code == 2
    assert "such as 90d, 12h or 30m, or never" in result.output
    assert store().records() == ()


def test_a_role_must_be_given_and_be_one() -> None:
    assert tandem("token", "create", "x").exit_code == 2
    assert tandem("token", "create", "x", "--role", "root").exit_code == 2


def test_a_list_never_shows_a_token() -> None:
    token = tandem("token", "create", "deploy", "--role", "operator", "--quiet").stdout.strip()
    secret = token.split("_", 2)[2]
    table, plain = tandem("token", "list"), tandem("token", "list", "--json")
    (row,) = json.loads(plain.stdout)
    assert (row["name"], row["role"], row["state"]) == ("deploy", "operator", "valid")
    assert "deploy" in table.stdout
    assert secret not in table.output + plain.output


def test_a_revoked_token_is_refused_at_once_by_a_store_that_was_open() -> None:
    token = tandem("token", "create", "deploy", "--role", "operator").stdout.strip()
    node = store()
    assert node.verify(token, time.time_ns()) is not None
    assert tandem("token", "revoke", "deploy").exit_code == 0
    assert node.verify(token, time.time_ns()) is None
    again = tandem("token", "revoke", "deploy")
    assert again.exit_code == 1
    assert "there are: none" in again.output
