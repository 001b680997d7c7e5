"""Signatures: each one that a real client sent is reproduced, and no secret is ever shown."""

import json
from typing import Any

import pytest
from exchange_tools import vectors

from host.api import Secret
from plugins.exchanges.okx.signing import Signer, iso_time

KEY = "testkey0123456789ABCDEFabcdef"
SECRET = "testsecret0123456789ABCDEFabcdef"
"""With which the recorded clients signed: made up for them, no account's."""


def signer() -> Signer:
    return Signer(Secret(KEY), Secret(SECRET), Secret("testpass"))


def signed_steps(vector: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for step in vector["steps"] if step.get("signature")]


@pytest.mark.parametrize("vector", vectors("client_vectors/*_okx.json"))
def test_each_signature_of_a_real_client_is_reproduced(vector: dict[str, Any]) -> None:
    steps = signed_steps(vector)
    if not steps:
        pytest.skip("the client signed nothing")
    for step in steps:
        wanted = step["signature"]["got"]
        if "http" in step:
            headers = step["headers"]
            ours = signer().request(
                headers["OK-ACCESS-TIMESTAMP"], step["http"], step["path"], (step.get("body") or "").encode()
            )
        else:
            (login,) = json.loads(step["ws_send"])["args"]
            ours = signer().login(int(login["timestamp"]))["sign"]
        assert ours == wanted


def test_the_time_of_a_request_has_milliseconds_and_a_z() -> None:
    assert iso_time(1_795_225_872_005) == "2026-11-21T01:51:12.005Z"


def test_headers_say_who_when_and_that_it_is_a_demo() -> None:
    demo = Signer(Secret("key"), Secret("secret"), Secret("phrase"), is_demo=True)
    headers = demo.headers(1_795_225_872_875, "POST", "/api/v5/trade/order", b"{}")
    assert headers["OK-ACCESS-KEY"] == "key"
    assert headers["OK-ACCESS-PASSPHRASE"] == "phrase"
    assert headers["OK-ACCESS-TIMESTAMP"] == "2026-11-21T01:51:12.875Z"
    assert headers["x-simulated-trading"] == "1"
    live = Signer(Secret("key"), Secret("secret"), Secret("phrase"))
    assert "x-simulated-trading" not in live.headers(0, "GET", "/api/v5/account/config")


def test_no_part_of_the_credentials_is_shown() -> None:
    shown = repr(Signer(Secret("the-key"), Secret("the-secret"), Secret("the-phrase")))
    assert "the-" not in shown
