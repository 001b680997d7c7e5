"""The request log tells what was asked, and nothing that would let somebody else ask it."""

from typing import Any

import pytest

from venue.protocols.request_log import _public


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ({"symbol": "BTCUSDT", "apiKey": "k", "signature": "s"}, {"symbol": "BTCUSDT"}),
        ({"params": {"api_key": "k", "qty": "1"}}, {"params": {"qty": "1"}}),
        (
            {"args": [{"apiKey": "k", "passphrase": "p", "sign": "s", "timestamp": "1"}]},
            {"args": [{"timestamp": "1"}]},
        ),
        ({"side": "BUY", "signed": True}, {"side": "BUY", "signed": True}),
    ],
)
def test_what_proves_who_asks_is_left_out_at_any_depth(
    asked: dict[str, Any], written: dict[str, Any]
) -> None:
    assert _public(asked) == written
