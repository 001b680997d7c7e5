"""`tandem venue` as a process: what it prints, serves and writes down."""

import hmac
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from host.cli import main
from venue.protocols.registry import FRONTS
from venue.protocols.request_log import RequestLine

DEADLINE_S = 30.0


@contextmanager
def venue_process(folder: Path, *arguments: str) -> Iterator[list[str]]:
    """Run the command on free ports and yield what it printed until all accounts were told."""
    command = [
        sys.executable,
        "-c",
        "from host.cli import main; main()",
        "venue",
        "--listen",
        f"unix:{folder / 's'}",
        *arguments,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = []
        while not printed or not printed[-1].startswith("account  other"):
            line = process.stdout.readline()
            assert line, f"the venue ended after printing {printed}"
            printed.append(line.rstrip())
        yield printed
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def fetch(url: str, *, verb: str = "GET", data: Any = None, key: str = "") -> tuple[int, Any]:
    body = None if data is None else orjson.dumps(data)
    request = Request(url, method=verb, data=body, headers={"X-MBX-APIKEY": key})
    try:
        with urlopen(request, timeout=DEADLINE_S) as response:
            return response.status, orjson.loads(response.read())
    except HTTPError as error:
        return error.code, orjson.loads(error.read())


def test_command_serves_a_protocol_its_admin_and_the_request_log(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    ports = ("--binance", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    fault = ("--fault", "rate_limit,request=market,count=1")
    with venue_process(tmp_path, *ports, *fault, "--requests", str(log)) as printed:
        binance, admin = printed[0].split()[1], printed[1].split()[1]
        limited, _ = fetch(f"{binance}/api/v3/time")
        _, time_ms = fetch(f"{binance}/api/v3/time")
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "55000"}
        query = urlencode({**order, "quantity": "0.001", "timestamp": time_ms["serverTime"]})
        signature = hmac.new(b"demo-secret", query.encode(), sha256).hexdigest()
        status, placed = fetch(
            f"{binance}/api/v3/order?{query}&signature={signature}", verb="POST", key="demo-key"
        )
        _, account = fetch(f"{admin}/accounts/demo/spot")

    lines = [msgspec.json.decode(line, type=RequestLine) for line in log.read_bytes().splitlines()]
    assert [line.split()[0] for line in printed] == ["binance", "admin", "account", "account"]
    assert "demo-key" in printed[2] and "demo-secret" in printed[2]
    assert limited == 429 and status == 200
    assert [each["venue_id"] for each in account["open_orders"]] == [str(placed["orderId"])]
    assert [(line.kind, line.verdict) for line in lines] == [
        ("market", "lost"),
        ("market", "accepted"),
        ("place", "accepted"),
    ]


def test_killed_venue_comes_back_with_its_wallets_as_they_were(tmp_path: Path) -> None:
    arguments = ("--binance", "127.0.0.1:0", "--log", str(tmp_path / "venue.jsonl"))

    def send(base: str, verb: str, path: str, **params: str) -> Any:
        _, time_ms = fetch(f"{base}/api/v3/time")
        query = urlencode({**params, "timestamp": time_ms["serverTime"]})
        signature = hmac.new(b"demo-secret", query.encode(), sha256).hexdigest()
        return fetch(f"{base}{path}?{query}&signature={signature}", verb=verb, key="demo-key")[1]

    def bought(base: str, client_id: str) -> Any:
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1"}
        return send(base, "POST", "/api/v3/order", **order, newClientOrderId=client_id)

    with venue_process(tmp_path, *arguments) as printed:
        base = printed[0].split()[1]
        first = bought(base, "first")
        before = send(base, "GET", "/api/v3/account")["balances"]
    with venue_process(tmp_path, *arguments) as printed:
        base = printed[0].split()[1]
        after = send(base, "GET", "/api/v3/account")["balances"]
        known = send(base, "GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="first")
        second = bought(base, "second")

    assert before == after and known["orderId"] == first["orderId"]
    assert second["orderId"] > first["orderId"]
    assert {fill["commissionAsset"] for fill in second["fills"]} == {"BTC"}, (
        "fees of a buy are in what is bought"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--fault", "drop,probability=2"], "probability must be 0 to 1"),
        (["--fault", "gremlins"], "kinds are latency"),
        (["--binance", "nowhere"], "binance: listen must be host:port"),
        (["--speed", "0"], "0"),
    ],
)
def test_command_that_cannot_be_is_refused_with_what_is_wrong(
    tmp_path: Path, arguments: list[str], text: str
) -> None:
    result = CliRunner().invoke(main, ["venue", "--listen", f"unix:{tmp_path / 's'}", *arguments])

    assert result.exit_code != 0 and text in str(result.output) + str(result.exception)


def test_command_has_an_option_for_every_protocol() -> None:
    help_text = CliRunner().invoke(main, ["venue", "--help"]).output

    assert all(f"--{name} HOST:PORT" in help_text for name in FRONTS)
