"""The small shared parts: signatures, symbols, verdicts, bad frames, pending requests, snapshots, backoff."""

import asyncio
import logging
from decimal import Decimal

import pytest
from aiohttp import web
from exchange_tools import FakeHost, eventually, scripted_venue, story, vectors

from host.api import ExchangeError, Instrument, InstrumentKind, RejectReason, Secret
from plugins.exchanges._shared.backoff import Backoff
from plugins.exchanges._shared.bad_frames import BadFrames
from plugins.exchanges._shared.pending import PendingRequests
from plugins.exchanges._shared.rest import RestPool, RestUnanswered
from plugins.exchanges._shared.signing import HmacSigner, require
from plugins.exchanges._shared.snapshots import SnapshotFetcher
from plugins.exchanges._shared.symbols import SymbolTable, step_of, tandem_symbol
from plugins.exchanges._shared.verdicts import Action, ErrorTable, Verdict


def instrument(symbol: str, tick: str = "0.1") -> Instrument:
    base, quote = symbol.split("-")[:2]
    return Instrument(
        symbol=symbol,
        kind=InstrumentKind.SPOT,
        base=base,
        quote=quote,
        tick_size=Decimal(tick),
        lot_size=Decimal(1),
    )


@pytest.mark.parametrize("vector", vectors("signing/official.json"))
def test_official_signatures_are_reproduced(vector: dict[str, str]) -> None:
    if not vector.get("recomputed"):
        pytest.skip("the official page does not print the secret")
    signer = HmacSigner(Secret(vector["secret"]))
    assert signer.hex(vector["payload"].encode()) == vector["expected"]


def test_a_signer_shows_nothing_of_its_secret() -> None:
    signer = HmacSigner(Secret("hunter2hunter2"))
    shown = repr(signer) + str(signer) + f"{signer}"
    assert "hunter2" not in shown
    assert signer.base64(b"x") == signer.base64(b"x")


@pytest.mark.parametrize("missing", [None, Secret(" ")])
def test_a_missing_credential_says_how_to_give_it(missing: Secret | None) -> None:
    with pytest.raises(ExchangeError, match=r"params\.api_key is missing; store it with `tandem secret set"):
        require("binance", "api_key", missing)


def test_symbols_are_translated_both_ways_and_changes_are_told() -> None:
    table = SymbolTable("test")
    btc, eth = instrument("BTC-USDT"), instrument("ETH-USDT")
    assert table.replace({"BTCUSDT": btc, "ETHUSDT": eth}) == []
    assert table.to_venue("BTC-USDT") == "BTCUSDT"
    assert table.to_tandem("ETHUSDT") == "ETH-USDT"
    sol = instrument("SOL-USDT")
    changes = table.replace({"BTCUSDT": instrument("BTC-USDT", "0.01"), "SOLUSDT": sol})
    assert changes == ["ETH-USDT is no longer listed", "SOL-USDT is new", "BTC-USDT has other terms"]
    assert "ETH-USDT" not in table
    assert table.to_tandem("ETHUSDT") == "ETH-USDT"  # its orders may still be told of
    assert table.instrument("BTC-USDT").tick_size == Decimal("0.01")
    with pytest.raises(ExchangeError, match=r"was BTC-EUR \(there are: BTC-USDT\)"):
        table.instrument("BTC-EUR")
    with pytest.raises(ExchangeError, match="nothing was sent"):
        table.to_venue("XXX-USDT")
    assert table.to_tandem("XXXUSDT") is None


def test_symbols_are_written_the_same_everywhere() -> None:
    assert tandem_symbol("btc", "usdt", InstrumentKind.SPOT) == "BTC-USDT"
    assert tandem_symbol("BTC", "USDT", InstrumentKind.LINEAR) == "BTC-USDT-PERP"
    assert step_of(2) == Decimal("0.01")
    assert step_of(0) == Decimal(1)


def test_a_verdict_is_found_by_text_before_code_and_unknown_codes_are_a_no() -> None:
    broke = Verdict(Action.FIX, RejectReason.INSUFFICIENT_FUNDS)
    unsure = Verdict(Action.UNKNOWN)
    table = ErrorTable({-7: unsure, -10: Verdict(Action.FIX)}, {-10: {"insufficient": broke}})
    assert table.verdict(-7) is unsure
    assert table.verdict(-10, "Account has INSUFFICIENT balance.") is broke
    assert table.verdict(-10, "something else").reason is RejectReason.OTHER
    assert table.verdict(12345).action is Action.FIX
    assert table.codes == {-7, -10}


def test_a_bad_frame_is_counted_and_each_kind_is_shown_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadFrames(logging.getLogger("tandem.test"), "test market")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bad.note("not JSON", b"{" * 5000, ValueError("at byte 1"))
        bad.note("unknown type", memoryview(b'{"e":"x"}'))
    assert bad.counts == {"not JSON": 3, "unknown type": 1}
    assert len(caplog.records) == 2
    assert "at byte 1" in caplog.text
    assert all(len(record.getMessage()) < 600 for record in caplog.records)


@story
async def test_a_request_is_answered_given_up_or_lost_and_told_once() -> None:
    told: list[tuple[str, str]] = []
    pending: PendingRequests[str] = PendingRequests(0.02, lambda request, text: told.append((request, text)))
    pending.add("1", "answered")
    pending.add("2", "not answered")
    assert pending.take("1") == "answered"
    assert pending.take("1") is None
    await eventually(lambda: told)
    assert told == [("not answered", "no answer within 0.02 s")]
    assert pending.take("2") is None
    pending.add("3", "lost")
    pending.give_up_all("connection lost")
    assert told[1:] == [("lost", "connection lost")]
    assert len(pending) == 0
    pending.add("4", "late")
    await eventually(lambda: len(told) == 3)
    pending.close()


@story
async def test_a_book_is_fetched_once_at_a_time_and_again_after_a_failure() -> None:
    host = FakeHost()
    fetched: list[str] = []
    failed: list[str] = []
    gate = asyncio.Event()

    async def fetch(symbol: str) -> None:
        fetched.append(symbol)
        await gate.wait()
        if len(fetched) == 2:
            raise ExchangeError("no answer")

    books = SnapshotFetcher(
        host.spawn, fetch, lambda s, text: failed.append(text), make_backoff=lambda: Backoff(0.001, 0.01)
    )
    books.want("BTC-USDT")
    await eventually(lambda: fetched)
    for _ in range(5):
        books.want("BTC-USDT")  # during the fetch: one more after it
    assert len(fetched) == 1
    gate.set()
    await eventually(lambda: len(fetched) == 3)
    await asyncio.gather(*host.tasks)
    assert failed == ["no answer"]
    assert len(fetched) == 3
    books.want("BTC-USDT")
    await eventually(lambda: len(fetched) == 4)


def test_pauses_double_up_to_the_most_and_keep_a_random_part() -> None:
    draws = iter([1.0, 1.0, 0.0, 1.0, 1.0])
    backoff = Backoff(1.0, 4.0, lambda: next(draws))
    assert [backoff.next_s() for _ in range(4)] == [1.0, 2.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next_s() == 1.0


@story
async def test_rest_sends_what_was_signed_byte_for_byte_and_returns_any_status() -> None:
    async with scripted_venue() as venue:
        bodies: list[bytes] = []

        async def answer(request: web.Request) -> web.Response:
            bodies.append(await request.read())
            return web.Response(status=503, body=b"busy", headers={"Retry-After": "3"})

        venue.on_request = answer
        pool = RestPool("test", venue.http_url, timeout_s=5.0)
        target = "/api?batch=[%7B%22a%22:1%7D]&b=%2B+&c=a%20b"
        got = await pool.request("POST", target, body=b'{"a": 1}', headers={"X-KEY": "k"})
        assert (got.status, got.body, got.headers["retry-after"]) == (503, b"busy", "3")
        assert venue.requests == [("POST", target)]
        assert bodies == [b'{"a": 1}']
        await pool.close()


@story
async def test_rest_tells_a_request_that_was_not_sent_from_one_without_an_answer() -> None:
    async with scripted_venue() as venue:
        forever = asyncio.Event()

        async def never(request: web.Request) -> web.Response:
            await forever.wait()
            return web.Response()

        venue.on_request = never
        pool = RestPool("test", venue.http_url, timeout_s=0.05)
        with pytest.raises(RestUnanswered, match="no answer within") as unanswered:
            await pool.request("GET", "/slow?secret=1")
        assert not unanswered.value.is_unsent
        assert "secret" not in str(unanswered.value)
        forever.set()
        await pool.close()
    pool = RestPool("test", venue.http_url, timeout_s=5.0)
    with pytest.raises(RestUnanswered, match="cannot connect") as unsent:
        await pool.request("GET", "/")
    assert unsent.value.is_unsent
    await pool.close()
    with pytest.raises(RestUnanswered, match="closed, nothing was sent") as after:
        await pool.request("GET", "/")
    assert after.value.is_unsent
