"""A worker that does not come back says where it is, and that is told with its loss."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from isolation_tools import QUOTER, until, worker_desk

from host.core.entries import InstanceState

MS = 1_000_000
SOON: dict[str, Any] = {"deadline_ns": 600 * MS, "backoff_ns": MS, "crashes": 10_000}
"""On a busy machine a process may be too late to say where it is; then the next one is in time."""
AT_ONCE: dict[str, Any] = {"deadline_ns": 30_000 * MS, "backoff_ns": MS}


def hanging(code: str) -> str:
    return QUOTER.replace("p = self.params", "p = self.params\n        self.deep()") + (
        f"\n    def deep(self):\n        {code}\n"
    )


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "import time; time.sleep(3600)", "sum(iter(int, 1))"],
    ids=["loop", "sleep", "in-c"],
)
def test_the_line_is_told(tmp_path: Path, code: str) -> None:
    source = hanging(code)
    line = source.splitlines().index(f"        {code}") + 1

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, **SOON)
            await desk.started()

            def is_told() -> bool:
                desk.desk.top()
                return any(f"line {line} in deep" in text for text in desk.alerts("worker_lost"))

            await until(is_told, "the line")
            text = next(text for text in desk.alerts("worker_lost") if "in deep" in text)
            told, *callers = text.splitlines()
            assert told.startswith("instance q: it has handled nothing for ")
            assert told.endswith(f", line {line} in deep")
            assert [caller.rpartition(" ")[2] for caller in callers] == ["on_book"]

    asyncio.run(run())


def test_a_quarantine_after_many_names_the_line_of_the_last(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", hanging("while True: pass"), **{**SOON, "deadline_ns": 3_000 * MS, "crashes": 1})
            await desk.started()
            desk.desk.top()
            await desk.reach(InstanceState.QUARANTINED)
            (text,) = desk.alerts("quarantined")
            assert text.splitlines() == [text]
            assert text.endswith("in deep")

    asyncio.run(run())


def test_one_that_hangs_at_import_says_where(tmp_path: Path) -> None:
    at_import = "\nif 'host.isolation.worker' in __import__('sys').orig_argv:\n    while True: pass\n"
    source = QUOTER + at_import
    line = len(source.splitlines())

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, **{**SOON, "start_ns": 3_000 * MS})
            await until(
                lambda: any(f"line {line} in <module>" in t for t in desk.alerts("worker_lost")), "where"
            )
            assert "it did not start within 3 s; it is in File" in desk.alerts("worker_lost")[-1]

    asyncio.run(run())


def test_one_that_cannot_say_is_lost_without(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **SOON)
            pid = await desk.started()
            os.kill(pid, signal.SIGSTOP)

            def is_lost() -> list[str]:
                desk.desk.top()
                return desk.alerts("worker_lost")

            await until(is_lost, "it is lost")
            assert is_lost()[0].endswith(" the limit is 600 ms")

    asyncio.run(run())


def test_one_that_was_asked_and_comes_back_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **AT_ONCE)
            pid = await desk.started()
            process = desk.of["q"].process
            assert process is not None
            for _ in range(2):
                process.ask_where()
                await until(lambda: process.where, "where it is")
                assert process.where.startswith('File "')
            await desk.top_and_quotes()
            assert (desk.of["q"].restarts, await desk.started()) == (0, pid)

    asyncio.run(run())


def test_of_a_crash_the_innermost_frames_are_told(tmp_path: Path) -> None:
    source = hanging("self.down(60)") + (
        "\n    def down(self, n):\n        import ctypes\n"
        "        return self.down(n - 1) if n else ctypes.string_at(0)\n"
    )

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, **AT_ONCE)
            await desk.started()
            desk.desk.top()
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            text = desk.alerts("worker_lost")[0]
            assert "its last words: Fatal Python error: Segmentation fault" in text
            assert "in string_at" in text

    asyncio.run(run())
