"""The admin HTTP, the request log's file, accounts and settings."""

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from protocol_tools import Binance, Venue, open_protocols

from venue.house import ServerError
from venue.protocols.accounts import AccountError, Accounts, KeyedAccount
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.request_log import RequestLine
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings, SettingsError, load_settings


async def admin(venue: Venue, verb: str, path: str, data: Any = None) -> tuple[int, bytes]:
    url = f"http://{venue.server.addresses['admin']}{path}"
    body = None if data is None else orjson.dumps(data)
    async with venue.http.request(verb, url, data=body) as response:
        return response.status, await response.read()


async def test_fault_is_put_in_force_listed_and_taken_back() -> None:
    async with open_protocols(admin=True) as venue:
        _, added = await admin(venue, "POST", "/faults", {"kind": "rate_limit", "request": "market"})
        limited = await Binance(venue).public("/api/v3/time")
        _, listed = await admin(venue, "GET", "/faults")
        gone, _ = await admin(venue, "DELETE", f"/faults/{orjson.loads(added)['number']}")
        again, text = await admin(venue, "DELETE", f"/faults/{orjson.loads(added)['number']}")

        assert limited.status == 429 and (gone, again) == (200, 404) and b"GET /faults" in text
        assert orjson.loads(listed)["1"]["struck"] == 1
        assert (await Binance(venue).public("/api/v3/time")).status == 200


async def test_bad_fault_is_refused_with_what_is_wrong() -> None:
    async with open_protocols(admin=True) as venue:
        status, text = await admin(venue, "POST", "/faults", {"kind": "drop", "probability": 2})
        other, _ = await admin(venue, "POST", "/faults", [])

        assert status == 400 and b"probability must be 0 to 1" in text and other == 400


async def test_admin_shows_what_an_account_really_has() -> None:
    async with open_protocols(admin=True) as venue:
        await Binance(venue).place("BUY", "100", "2", newClientOrderId="x")
        _, told = await admin(venue, "GET", "/accounts/demo/spot")
        missing, _ = await admin(venue, "GET", "/accounts/other/spot")
        account = orjson.loads(told)

        assert [order["client_id"] for order in account["open_orders"]] == ["x"]
        assert {each["currency"]: each["locked"] for each in account["balances"]}["USDT"] == "200"
        assert missing == 404


async def test_log_file_holds_the_lines_that_the_admin_tells(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    async with open_protocols(admin=True, requests=str(path)) as venue:
        client = Binance(venue)
        await client.place("BUY", "100", "1", newClientOrderId="x")
        await client.place("BUY", "100.05", "1", newClientOrderId="y")
        _, since = await admin(venue, "GET", "/requests?since=1")
        lines = [msgspec.json.decode(line, type=RequestLine) for line in path.read_bytes().splitlines()]

        assert lines == venue.lines() and len(since.splitlines()) == 1
        assert [(line.client_id, line.verdict, line.order_id) for line in lines] == [
            ("x", "accepted", "1"),
            ("y", "refused", ""),
        ]
        assert lines[0].asked["price"] == "100" and "signature" not in lines[0].asked
        assert lines[1].reason.startswith("-1013 Filter failure: PRICE_FILTER (invalid_price")
        assert client.secret.encode() not in path.read_bytes()


def test_accounts_with_one_name_or_key_twice_are_refused() -> None:
    with pytest.raises(AccountError, match="twice"):
        Accounts(None, [KeyedAccount(name="a", api_key="k"), KeyedAccount(name="b", api_key="k")])  # type: ignore[arg-type]
    with pytest.raises(AccountError, match="without '/'"):
        Accounts(None, [KeyedAccount(name="a/b", api_key="k")])  # type: ignore[arg-type]


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "venue.toml"
    path.write_text(
        'admin = "127.0.0.1:1"\n[listen]\nbinance = "127.0.0.1:2"\n'
        '[[account]]\nname = "a"\napi_key = "k"\nsecret = "s"\nbalances = { USDT = "5" }\n'
        '[[fault]]\nkind = "drop"\ncount = 1\n'
    )

    settings = load_settings(path)

    assert settings.listen == {"binance": "127.0.0.1:2"} and settings.account[0].balances["USDT"] == 5
    assert settings.fault == [Fault(kind=FaultKind.DROP, count=1)]


@pytest.mark.parametrize(
    "text", ["listen = 5", "nonsense = 1", "[", '[[fault]]\nkind = "drop"\nprobability = 7']
)
def test_settings_that_cannot_be_read_name_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "venue.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=r"venue\.toml"):
        load_settings(path)


async def test_address_that_is_taken_and_protocol_that_is_unknown_are_named() -> None:
    async with open_protocols() as venue:
        taken = venue.server.addresses["binance"]
        with pytest.raises(ServerError, match="protocol must be one of"):
            ProtocolServer(_open(venue), Settings(listen={"nasdaq": "127.0.0.1:0"}))
        second = ProtocolServer(_open(venue), Settings(listen={"binance": taken}))
        with pytest.raises(ServerError, match=f"cannot listen on {taken}"):
            await second.start()
        await second.close()


def _open(venue: Venue) -> Any:
    from venue.opening import OpenVenue

    return OpenVenue(venue.running, None, False)
