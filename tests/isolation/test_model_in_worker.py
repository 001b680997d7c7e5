"""A quote model in a worker: asked beside the quotes, its last answer used, and no quote waits for it."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_tools import Quoter
from isolation_tools import children, is_alive, until, worker_desk

from host.config.schema import ModelRef
from host.isolation.remote_model import ModelInWorker
from host.isolation.settings import WorkerSettings
from host.loader import Offer, capture, decode_params, import_version
from host.loader.offers import collect_offers, new_manager
from host.runtime.reload import ModelUse

SHIFTER = '''
import time
from host.api import Adjustment, AsyncQuoteModel, Features, Params, Quote, QuoteModel


class ShifterParams(Params, frozen=True):
    shift_bps: float = -100.0


class Shifter(QuoteModel[ShifterParams]):
    """Shifts every quote."""

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        assert quote.bid is not None
        if quote.bid > 70_000:
            MISBEHAVE
        return Adjustment(shift_bps=self.params.shift_bps)
'''
SLOW = '''
import asyncio
from host.api import Adjustment, AsyncQuoteModel, Features, NoParams


class Slow(AsyncQuoteModel[NoParams]):
    """Thinks for a while."""

    valid_ms = 60_000.0

    async def predict(self, features: Features) -> Adjustment:
        await asyncio.sleep(0.05)
        return Adjustment(shift_bps=-50.0)
'''
MS = 1_000_000


def offer_of(folder: Path, source: str) -> Offer:
    path = folder / "model.py"
    path.write_text(source)
    version = capture(path)
    (offer,) = collect_offers(new_manager(), import_version(version), version)
    return offer


@asynccontextmanager
async def desk_with_model(folder: Path, source: str, **settings: Any) -> AsyncIterator[Any]:
    async with worker_desk(folder) as desk:
        offer = offer_of(folder, source)
        params = decode_params(offer, {}, instance="q")
        model = ModelInWorker(
            desk.desk.engine, desk.workers, "q", offer, params,
            WorkerSettings(**{"deadline_ns": 30_000 * MS, "backoff_ns": MS, **settings}),
        )  # fmt: skip
        desk.desk.run("q", Quoter(), models=[("shifter", model)])
        desk.model = model  # type: ignore[attr-defined]
        yield desk


def best_bid(desk: Any, price: float = 60_000.0) -> float:
    """Show a best bid and ask, and return where our bid rests by then."""
    desk.desk.top(price, price + 0.1)
    return max((float(order.price) for order in desk.open() if order.side == "buy"), default=0.0)


def test_quotes_go_out_unadjusted_until_it_answers_and_adjusted_from_then_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk_with_model(tmp_path, SHIFTER.replace("MISBEHAVE", "pass")) as desk:
            assert best_bid(desk) == 59_999.98
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            (stage,) = desk.desk.engine.roster.instances["q"].models
            assert stage.used > 0
            status = stage.model.status()
            assert (status.state, status.pid, status.restarts) == ("running", *children(), 0)
            assert status.memory_bytes > 0
            assert 0 < status.handled_p50_us <= status.handled_p99_us

    asyncio.run(run())


def test_an_asynchronous_one_is_awaited_there(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk_with_model(tmp_path, SLOW) as desk:
            await until(lambda: best_bid(desk) == 59_699.98, "its answer is used")

    asyncio.run(run())


def test_one_that_hangs_is_killed_and_started_again_and_quotes_go_on(tmp_path: Path) -> None:
    async def run() -> None:
        source = SHIFTER.replace("MISBEHAVE", "while True: pass")
        async with desk_with_model(tmp_path, source, deadline_ns=300 * MS) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            (pid,) = children()
            await until(lambda: best_bid(desk, 70_001.0) and desk.alerts("worker_lost"), "it is lost")
            assert "instance q, model model: it has not answered for " in desk.alerts("worker_lost")[0]
            await until(lambda: not is_alive(pid), "its process ends")
            restarts = desk.model.restarts
            await until(lambda: best_bid(desk) == 59_399.98 and desk.model.restarts >= restarts, "it answers")

    asyncio.run(run())


def test_one_that_hangs_says_where(tmp_path: Path) -> None:
    """On a busy machine one may be too late to say it; then the next one is in time."""

    async def run() -> None:
        source = SHIFTER.replace("MISBEHAVE", "while True: pass")
        async with desk_with_model(tmp_path, source, deadline_ns=600 * MS, crashes=10_000) as desk:
            await until(
                lambda: (
                    best_bid(desk, 70_001.0) and any(" in adjust" in t for t in desk.alerts("worker_lost"))
                ),
                "it is lost, and where it was is told",
            )

    asyncio.run(run())


def test_one_that_ends_after_its_node_has_handed_over_is_told_of_to_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk_with_model(tmp_path, SHIFTER.replace("MISBEHAVE", "pass")) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            desk.workers._looking.cancel()  # it ends before anybody looks
            engine = desk.desk.engine
            engine.retire("another node leads")
            last_lsn = engine.journal.last_lsn
            os.kill(desk.model.pid, signal.SIGKILL)
            await until(lambda: desk.model.pid == 0, "its end is seen")
            assert engine.journal.last_lsn == last_lsn

    asyncio.run(run())


def test_one_that_raises_is_skipped_and_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        source = SHIFTER.replace("MISBEHAVE", "raise ValueError('too high')")
        async with desk_with_model(tmp_path, source) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            (stage,) = desk.desk.engine.roster.instances["q"].models
            desk.model._valid_ns = 0
            await until(
                lambda: best_bid(desk, 70_001.0) and "ValueError: too high" in stage.last_error,
                "the reason is known",
            )
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_in_a_crash_loop_it_is_given_up_and_the_instance_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        source = "raise_at_start = 1\n" + SHIFTER.replace("MISBEHAVE", "pass")
        source += "\n    def on_start(self) -> None:\n        raise OSError('no file')\n"
        async with desk_with_model(tmp_path, source, crashes=3) as desk:
            await until(lambda: len(desk.alerts("worker_lost")) == 3, "it is given up")
            assert desk.alerts("worker_lost")[2].endswith("it is given up, and quotes go out without it")
            assert "OSError: no file" in desk.alerts("worker_lost")[0]
            assert best_bid(desk) == 59_999.98
            await until(lambda: not children(), "no process is left")

    asyncio.run(run())


FORGES = """import sys
            frame = sys._getframe()
            while not hasattr(frame.f_locals.get("self"), "plan"):
                frame = frame.f_back
            say = frame.f_locals["self"].send
            from host.isolation.model_messages import Answer, Broke, Ready, encode
            FORGERY
            time.sleep(60)"""
LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    ("forgery", "why"),
    [
        ("say(b'garbage')", "it sent what is no message: "),
        (r"say(b'\x94\xa5broke\x00\xa2\xff\xff\xa1a')", "it sent what is no message: 'utf-8' codec"),
        (
            "say(b'\\x92\\xa5ready' + b'\\x91' * 100_000 + b'\\xc0')",
            "it sent what is no message: maximum recursion",
        ),
        ("say(encode(Answer(10**9, Adjustment())))", "it sent what it was not asked for"),
        ("say(encode(Answer(1, Adjustment())))", "it sent what it was not asked for"),
        ("while True: say(encode(Ready()))", "it said more than 10000 times that it is ready"),
        (f"say(encode(Broke(0, '', {LONG!r})))", " raised xxx"),
    ],
    ids=["garbage", "no text", "deep", "never asked", "answered before", "ready", "long"],
)
def test_one_that_sends_what_it_was_not_asked_for_is_lost(tmp_path: Path, forgery: str, why: str) -> None:
    async def run() -> None:
        source = SHIFTER.replace("MISBEHAVE", FORGES.replace("FORGERY", forgery))
        async with desk_with_model(tmp_path, source, crashes=1) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            await until(lambda: best_bid(desk, 70_001.0) and desk.alerts("worker_lost"), "it is lost")
            (text,) = desk.alerts("worker_lost")
            assert why in text
            assert len(text) < 3_000
            await until(lambda: not children(), "its process ends")
            await until(lambda: best_bid(desk, 60_100.0) == 60_099.98, "quotes go out without it")

    asyncio.run(run())


NUMBER = """

class Number(float):
    \"\"\"Stands for the numbers of a library, such as NumPy's.\"\"\"

    def __repr__(self):
        return f"lib.Number({float(self)})"
"""


def test_numbers_may_be_of_a_librarys_own_kind(tmp_path: Path) -> None:
    source = SHIFTER.replace("MISBEHAVE", "pass").replace(
        "shift_bps=self.params.shift_bps", "shift_bps=Number(-100.0), bid_size_scale=Number(0.5)"
    )

    async def run() -> None:
        async with desk_with_model(tmp_path, source + NUMBER) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            assert {order.qty for order in desk.open() if order.side == "buy"} == {Decimal("0.5")}
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_an_answer_that_is_none_is_counted_and_its_worker_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk_with_model(tmp_path, SHIFTER.replace("MISBEHAVE", "return None")) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            await until(lambda: best_bid(desk, 70_001.0) and desk.model.broken, "it is asked")
            assert "it should have returned an Adjustment, was NoneType" in desk.model.last_error
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_one_for_whose_sockets_there_is_no_room_is_tried_again(short_path: Path) -> None:
    async def run() -> None:
        many: dict[str, Any] = {"crashes": 1000, "most_backoff_ns": 10 * MS}
        async with desk_with_model(short_path, SHIFTER.replace("MISBEHAVE", "pass"), **many) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            shutil.rmtree(short_path / "workers")
            os.kill(desk.model.pid, signal.SIGKILL)
            await until(lambda: len(desk.alerts("worker_lost")) > 2, "it cannot start")
            assert "its sockets could not be opened: No such file" in desk.alerts("worker_lost")[2]
            (short_path / "workers").mkdir()
            await until(lambda: desk.model.status().state == "running", "another one is there")

    asyncio.run(run())


def test_it_is_held_to_what_the_configuration_says_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            offer = offer_of(tmp_path, SHIFTER.replace("MISBEHAVE", "pass"))
            ref = msgspec.toml.decode(
                'name = "model"\nisolation = "process"\nworker = { memory_mb = 3, crashes = 1 }',
                type=ModelRef,
            )
            use = ModelUse.of(offer, ref)
            model = desk.workers.model_stand_in("q", use.offer, use.params, use.worker)
            desk.desk.run("q", Quoter(), models=[("model", model)])
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            (text,) = desk.alerts("worker_lost")
            assert text.startswith("instance q, model model: it holds ")
            assert text.endswith(
                " MiB, the limit is 3; lost 1 times, it is given up, and quotes go out without it"
            )

    asyncio.run(run())


def test_its_process_ends_with_its_instance(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk_with_model(tmp_path, SHIFTER.replace("MISBEHAVE", "pass")) as desk:
            await until(lambda: best_bid(desk) == 59_399.98, "its answer is used")
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: desk.model.restarts == 1 and desk.model._is_ready, "another one is there")
            roster = desk.desk.engine.roster
            instance = roster.instances["q"]
            roster.stop(instance, "enough")
            desk.desk.settle()
            roster.remove(instance)
            await until(lambda: not children(), "no process is left")

    asyncio.run(run())


@asynccontextmanager
async def desk_with_group(
    folder: Path, *sources: str, **settings: Any
) -> AsyncIterator[tuple[Any, list[ModelInWorker]]]:
    """A desk whose quotes pass several models of one group."""
    async with worker_desk(folder) as desk:
        models = []
        for number, source in enumerate(sources):
            (folder / str(number)).mkdir()
            offer = offer_of(folder / str(number), source)
            params = decode_params(offer, {}, instance="q")
            limits = WorkerSettings(
                **{"group": "ai", "deadline_ns": 30_000 * MS, "backoff_ns": MS, **settings}
            )
            models.append(ModelInWorker(desk.desk.engine, desk.workers, f"q{number}", offer, params, limits))
        desk.desk.run("q", Quoter(), models=[(model.name, model) for model in models])
        yield desk, models


def test_models_of_a_group_share_a_process_and_each_answers_its_own_questions(tmp_path: Path) -> None:
    good = SHIFTER.replace("MISBEHAVE", "pass")

    async def run() -> None:
        async with desk_with_group(tmp_path, good, SLOW) as (desk, models):
            await until(lambda: round(best_bid(desk), 2) == 59_102.98, "the answers of both are used")
            assert children() == [models[0].pid] == [models[1].pid]
            assert all(model.status().state == "running" for model in models)
            assert models[0]._seat is not None and models[0]._seat.process is not None
            assert models[0]._seat.process.memory_limit == 2 * WorkerSettings().memory_bytes

    asyncio.run(run())


def test_one_of_a_group_that_hangs_is_named_to_all_and_they_start_again_together(tmp_path: Path) -> None:
    bad = SHIFTER.replace("MISBEHAVE", "while True: pass")

    async def run() -> None:
        async with desk_with_group(tmp_path, bad, SLOW, deadline_ns=600 * MS, crashes=10_000) as (
            desk,
            models,
        ):
            await until(lambda: all(model.pid and model._is_ready for model in models), "both run")
            pid = models[0].pid
            await until(
                lambda: best_bid(desk, 70_001.0) and len({t[:11] for t in desk.alerts("worker_lost")}) == 2,
                "both are lost",
            )
            assert all("it shared its process with q" in text for text in desk.alerts("worker_lost"))
            await until(lambda: not is_alive(pid), "their process ends")

            def have_one() -> bool:
                best_bid(desk)
                return all(model._is_ready for model in models) and len({model.pid for model in models}) == 1

            await until(have_one, "they run in one again")

    asyncio.run(run())


def test_one_of_a_group_that_does_not_start_is_its_own_affair(tmp_path: Path) -> None:
    raising = SLOW + "\n    def on_start(self) -> None:\n        raise OSError('no file of weights')\n"

    async def run() -> None:
        good = SHIFTER.replace("MISBEHAVE", "pass")
        async with desk_with_group(tmp_path, raising, good, crashes=3) as (desk, models):
            await until(lambda: not models[0].is_wanted, "it is given up")
            await until(lambda: best_bid(desk) == 59_399.98, "the other one's answer is used")
            assert models[1].restarts == 0
            assert len(desk.alerts("worker_lost")) == 3
            assert all("on_start raised OSError: no file of weights" in t for t in desk.alerts("worker_lost"))

    asyncio.run(run())


def test_one_who_leaves_a_group_is_not_there_any_more_and_the_others_are(tmp_path: Path) -> None:
    good = SHIFTER.replace("MISBEHAVE", "pass")
    held = tmp_path / "held"
    leaving = SLOW + f"\n    def __del__(self) -> None:\n        open({str(held)!r}, 'w').close()\n"

    async def run() -> None:
        async with desk_with_group(tmp_path, leaving, good) as (desk, models):
            await until(lambda: all(model._is_ready for model in models), "both run")
            pid = models[1].pid
            models[0].close()
            await until(held.exists, "the process has let go of it")
            await until(lambda: best_bid(desk) == 59_399.98, "the other one's answer is used")
            assert (models[1].pid, models[1].restarts) == (pid, 0)
            models[1].close()
            await until(lambda: not is_alive(pid), "the process ends with the last")

    asyncio.run(run())
