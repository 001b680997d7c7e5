"""Signatures, against every request that real clients signed."""

import json
from typing import Any

import pytest
from bybit_tools import only
from exchange_tools import vectors

from host.api import Secret
from plugins.exchanges.bybit.signing import Signer

KEY = "testkey0123456789ABCDEFabcdef"
SECRET = "testsecret0123456789ABCDEFabcdef"
"""With which the recorded clients signed: made up for them, no account's."""


def signer() -> Signer:
    return Signer(Secret(KEY), Secret(SECRET))


@pytest.mark.parametrize("vector", vectors("client_vectors/*bybit.json"))
def test_each_signature_of_a_real_client_is_reproduced(vector: dict[str, Any]) -> None:
    for step in vector["steps"]:
        if "signature" not in step:
            continue
        if "ws_send" in step:
            key, expires, signature = json.loads(step["ws_send"])["args"]
            assert key == KEY
            assert signer().login(int(expires)) == signature
        else:
            headers = step["headers"]
            payload = step["body"] or step["path"].partition("?")[2]
            at, window = int(headers["X-BAPI-TIMESTAMP"]), int(headers["X-BAPI-RECV-WINDOW"])
            ours = signer().headers(at, window, payload)
            assert ours == {name: headers[name] for name in ours}


@pytest.mark.parametrize(
    "vector", only(vectors("signing/official.json"), lambda v: v["name"].startswith("bybit"))
)
def test_the_text_that_the_venue_prints_is_the_text_that_is_signed(vector: dict[str, Any]) -> None:
    # The page hides its secret: what can be checked is how the text is put together.
    text = vector["payload"]
    at, rest = text[:13], text[13:]
    key, _, payload = rest.partition("5000")
    ours = Signer(Secret(key), Secret("any"))
    assert ours.request(int(at), 5000, payload) == Signer(Secret(""), Secret("any"))._hmac.hex(text.encode())


def test_a_signer_shows_neither_key_nor_secret() -> None:
    ours = signer()
    shown = f"{ours!r} {ours.api_key!r} {ours._hmac!r}"
    assert KEY not in shown and SECRET not in shown


def test_what_the_venue_says_of_a_wrong_signature_is_told_without_the_key() -> None:
    signer = Signer(Secret("the-api-key"), Secret("the-secret"))
    said = "error sign! origin_string[1672000000000the-api-key5000category=spot]"
    assert signer.masked(said) == "error sign! origin_string[1672000000000***5000category=spot]"
