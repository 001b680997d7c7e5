"""Files that would end or hold up the process that imports them are never imported in this one."""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from host.loader import Catalog, ForkServer, Kind, capture, check_plugin, load_proved, together
from host.loader.memory import MOST_MEMORY_BYTES
from tests.loader.conftest import STRATEGY, WritePlugin

DEADLINE_S = 60.0
EATER = "held = []\nwhile True:\n    held.append(bytearray(64 << 20))\n"


def load(folder: Path, known: Collection[str] = (), deadline_s: float = DEADLINE_S) -> Catalog:
    return asyncio.run(load_proved([folder], known, deadline_s))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos._exit(1)\n", "alpha.py: ended its process with exit code 1"),
        ("import os\nos.kill(os.getpid(), 11)\n", "alpha.py:2: killed its process with SIGSEGV"),
        ("import os\nos.kill(os.getpid(), 9)\n", "alpha.py: was killed"),
        (
            EATER,
            f"alpha.py:3: ran out of memory at import; to be looked at, a plugin gets {MOST_MEMORY_BYTES >> 20}",
        ),
        ("from ._helper import x\n", "_helper.py:2: killed its process with SIGSEGV"),
    ],
)
def test_file_that_ends_its_process_is_left_out_and_the_others_are_offered(
    write: WritePlugin, source: str, expected: str
) -> None:
    write("_helper.py", "import os\nos.kill(os.getpid(), 11)\n")
    folder = write("alpha.py", source).parent
    write("good.py")
    catalog = load(folder)

    assert list(catalog.offers) == [(Kind.STRATEGY, "good")]
    assert [problem.plugin for problem in catalog.problems] == ["alpha"]
    assert f"plugin alpha: {expected}" in str(catalog.problems[0])
    catalog.close()


@pytest.mark.parametrize("where", ["alpha", "_helper"])
def test_endless_loop_costs_a_start_its_deadline_and_is_named(write: WritePlugin, where: str) -> None:
    path = write("alpha.py", "from ._helper import x\n")
    write(f"{where}.py", "x = 0\nwhile True:\n    pass\n")
    catalog = load(path.parent, deadline_s=0.5)

    (problem,) = catalog.problems
    assert str(problem).startswith(f"plugin alpha: {where}.py:")
    assert problem.line in (2, 3)
    assert "did not finish within 0.5 s" in problem.cause


def test_check_of_a_plugin_that_eats_memory_says_so(write: WritePlugin) -> None:
    report = check_plugin(write("alpha.py", EATER), DEADLINE_S)

    (problem,) = report.problems
    assert (problem.line, problem.cause) == (3, "ran out of memory at import")


def test_memory_is_limited_when_an_object_is_constructed_too(write: WritePlugin) -> None:
    source = f"{STRATEGY}        def __init__(self, params):\n            self.x = bytearray({MOST_MEMORY_BYTES})\n"
    catalog = load(write("alpha.py", source).parent)

    assert catalog.problems[0].cause == "ran out of memory when constructed"


def test_what_is_known_is_imported_here_alone(write: WritePlugin, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = f"import os\nwith open({str(trace)!r}, 'a') as file: print(os.getpid(), file=file)\n"
    path = write("alpha.py", source)
    path.write_text(path.read_text() + "from host.api import Strategy\nclass Alpha(Strategy): ...\n")
    catalog = load(path.parent)
    catalog.close()
    child, here = map(int, trace.read_text().split())
    assert child != here == os.getpid()

    trace.unlink()
    for known in ((), {capture(path).digest}):  # this process knows it by now without being told
        again = load(path.parent, known)
        assert list(again.offers) == [(Kind.STRATEGY, "alpha")]
        again.close()
    assert trace.read_text().split() == [str(os.getpid())] * 2

    path.write_text(path.read_text() + "# other bytes\n")
    load(path.parent, {capture(path).digest}).close()
    assert trace.read_text().split() == [str(os.getpid())] * 3


def test_verdict_is_that_of_a_direct_import(write: WritePlugin) -> None:
    sources = {
        "a_syntax": "def f(:\n",
        "b_import": "import nopackage\n",
        "c_exits": "import sys\nsys.exit(1)\n",
        "d_signature": STRATEGY.replace("book: BookTop)", "book: BookTop, depth: int)"),
        "e_good": STRATEGY,
        "f-name": STRATEGY,
    }
    for name, source in sources.items():
        path = write(f"{name}.py", source)
    proved, direct = load(path.parent), Catalog.load([path.parent])

    assert sorted(map(str, proved.problems)) == sorted(map(str, direct.problems))
    assert proved.offers.keys() == direct.offers.keys()
    proved.close()
    direct.close()


def test_probes_are_ended_before_a_failure_goes_on() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("no")

    async def story() -> None:
        with pytest.raises(OSError, match="no"):
            await together([wait(), fail(), wait()])
        assert ended == [True, True]

    asyncio.run(story())


def test_no_child_is_left_by_a_load(write: WritePlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[ForkServer] = []

    class Noted(ForkServer):
        def __init__(self) -> None:
            super().__init__()
            servers.append(self)

    monkeypatch.setattr("host.loader.proving.ForkServer", Noted)
    load(write("good.py").parent).close()

    assert len(servers) == 1 and servers[0].pid is None
