"""Probes from a warm process."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from host.loader import CompiledVersion, ForkServer, Outcome, ProbeResult, Stage, Version, capture, probe
from tests.loader.conftest import STRATEGY, WritePlugin

DEADLINE_S = 30.0
HANG = "import time\nwhile True:\n    time.sleep(0.01)\n"

Story = Callable[[ForkServer], Coroutine[Any, Any, None]]


def run(story: Story) -> None:
    async def with_server() -> None:
        async with ForkServer() as server:
            await story(server)

    asyncio.run(with_server())


def probe_all(*versions: Version, deadline_s: float = DEADLINE_S) -> list[ProbeResult]:
    results: list[ProbeResult] = []

    async def story(server: ForkServer) -> None:
        results.extend(await asyncio.gather(*(server.probe(version, deadline_s) for version in versions)))

    run(story)
    return results


def verdict(result: ProbeResult) -> list[tuple[Stage, Outcome, list[str]]]:
    return [(stage.stage, stage.outcome, list(map(str, stage.problems))) for stage in result.stages]


def descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def has_ended(pid: int, within_s: float = 10.0) -> bool:
    process = pidfd(pid)
    if process is None:
        return True
    try:
        return bool(select.select([process], [], [], within_s)[0])
    finally:
        os.close(process)


async def appears(path: Path) -> str:
    """Wait until a child has written a file; the test's own time limit ends a wait in vain."""
    while not (path.exists() and path.read_text()):
        await asyncio.sleep(0.005)
    return path.read_text()


def test_every_kind_of_plugin_is_judged_as_by_a_process_of_its_own(write: WritePlugin) -> None:
    sources = {
        "good": STRATEGY,
        "exits": "import sys\nprint('noise')\nsys.exit()\n",
        "leaves": "import os\nos._exit(3)\n",
        "crashes": "import ctypes\nctypes.string_at(0)\n",
        "raises": "\ndef f():\n    1 / 0\nf()\n",
        "threads": "import threading as t\nt.Thread(target=t.Event().wait).start()\n",
        "empty": "x = 1\n",
        "signature": STRATEGY.replace("book: BookTop", ""),
        "construct": STRATEGY + "        def __init__(self, params): 1 / 0\n",
    }
    versions = [capture(write(f"{name}.py", source)) for name, source in sources.items()]
    warm = probe_all(*versions)

    assert [verdict(result) for result in warm] == [
        verdict(probe(version, DEADLINE_S)) for version in versions
    ]
    assert [result.is_ok for result in warm] == [name == "good" for name in sources]


def test_what_a_version_compiles_to_comes_back_with_the_verdict(write: WritePlugin) -> None:
    source = f"{textwrap.dedent(STRATEGY)}\nimport sys\nprint('noise')\nsys.stdout.flush()\n"
    good, broken = capture(write("good.py", source)), capture(write("broken.py", "def f(:\n"))
    results = [*probe_all(good, broken), probe(good, DEADLINE_S)]

    for result in (results[0], results[2]):
        assert result.is_ok and result.compiled is not None
        assert result.compiled == CompiledVersion.of(good)
    assert results[1].compiled is None and not results[1].is_ok


def test_endless_loop_is_ended_at_the_deadline_and_its_line_named(write: WritePlugin) -> None:
    (result,) = probe_all(capture(write("alpha.py", "x = 0\nwhile True:\n    pass\n")), deadline_s=0.3)

    assert str(result.problems[0]).startswith("plugin alpha: alpha.py:")
    assert "did not finish within 0.3 s" in str(result.problems[0])


def test_loop_of_one_probe_does_not_hold_up_the_others_or_the_event_loop(write: WritePlugin) -> None:
    hanging, good = capture(write("hanging.py", HANG)), capture(write("good.py"))

    async def story(server: ForkServer) -> None:
        waiting = asyncio.create_task(server.probe(hanging, DEADLINE_S))
        assert (await server.probe(good, DEADLINE_S)).is_ok
        assert not waiting.done()
        waiting.cancel()

    run(story)


def test_cancelled_probe_ends_its_child(write: WritePlugin, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    source = f"import os, pathlib\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n{HANG}"
    version, good = capture(write("alpha.py", source)), capture(write("good.py"))

    async def story(server: ForkServer) -> None:
        waiting = asyncio.create_task(server.probe(version, DEADLINE_S))
        pid = int(await appears(pid_file))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.to_thread(has_ended, pid)
        assert (await server.probe(good, DEADLINE_S)).is_ok

    run(story)


@pytest.mark.parametrize(
    "start",
    [
        "child = subprocess.Popen(['sleep', '600'])",
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)",
    ],
)
def test_processes_that_the_plugin_started_end_with_the_probe(
    write: WritePlugin, tmp_path: Path, start: str
) -> None:
    pid_file = tmp_path / "pid"
    source = (
        f"import pathlib, subprocess\n{start}\npathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
    )
    probe_all(capture(write("alpha.py", source)))

    assert has_ended(int(pid_file.read_text()), within_s=0.0)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.fork()", "forks the process that runs it"),
        ("if os.fork() == 0: time.sleep(60)", "forks the process that runs it"),
        ("os.fork() or os.fork() or time.sleep(60)", "forks the process that runs it"),
        ("os.chdir('/')", "changes the working directory"),
        ("signal.alarm(60)", "sets an alarm"),
        ("sys.stderr.close()", "closes the output"),
    ],
)
@pytest.mark.parametrize("where", ["import", "constructor"])
def test_plugin_that_would_leave_a_node_otherwise_than_it_was_is_refused(
    write: WritePlugin, code: str, says: str, where: str
) -> None:
    text = "import os, signal, sys, time\n" + _dedented(STRATEGY)
    if where == "import":
        text += code + "\n"
    else:
        text += f"\n    def __init__(self, params):\n        super().__init__(params)\n        {code}\n"
    (result,) = probe_all(capture(write("alpha.py", text)))

    (problem,) = result.problems
    assert says in str(problem)
    assert [stage.stage for stage in result.stages] == list(Stage)[2:]  # each once


def test_plugin_that_is_probed_beside_one_that_kills_the_server_is_not_taken_for_it(
    write: WritePlugin,
) -> None:
    slow = capture(write("slow.py", "import time\ntime.sleep(0.3)\n" + _dedented(STRATEGY)))
    killer = capture(write("killer.py", "import os\nos.kill(os.getppid(), 9)\n" + HANG))
    garbler = capture(
        write("garbler.py", r"import os; os.write(3, b'\xff\x00')" + "\n" + _dedented(STRATEGY))
    )

    slow_result, killed, _ = probe_all(slow, killer, garbler)
    assert slow_result.is_ok
    assert "ended during its probe, twice" in str(killed.problems[0])


def test_nothing_accumulates_over_many_probes(write: WritePlugin) -> None:
    good = capture(write("good.py"))
    bad = capture(write("bad.py", "import os\nos._exit(3)\n"))

    async def story(server: ForkServer) -> None:
        assert server.pid is not None
        await server.probe(good, DEADLINE_S)
        before = descriptors(), descriptors(server.pid)
        for _ in range(10):
            await asyncio.gather(server.probe(good, DEADLINE_S), server.probe(bad, DEADLINE_S))
        assert (descriptors(), descriptors(server.pid)) == before
        assert not Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()

    run(story)


def test_what_a_plugin_imported_is_ready_for_the_next_version_but_not_its_own_code(
    write: WritePlugin,
) -> None:
    # The server has no reason of its own to import `wave`.
    source = "import sys, wave\nassert {expected}\n" + _dedented(STRATEGY)
    first = capture(write("first.py", source.format(expected="True")))
    seen = (
        "\nimport sys\nNAMES = [n for n in sys.modules if n == 'wave' or n.startswith('tandem_plugins.')]\n"
    )
    second = capture(
        write(
            "second.py",
            seen + "assert NAMES[0] == 'wave' and 'first' not in str(NAMES)\n" + _dedented(STRATEGY),
        )
    )

    async def story(server: ForkServer) -> None:
        result = await server.probe(second, DEADLINE_S)
        assert not result.is_ok
        assert (await server.probe(first, DEADLINE_S)).is_ok
        result = await server.probe(second, DEADLINE_S)
        assert result.is_ok, result.problems
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1

    run(story)


def test_start_that_is_cancelled_leaves_no_process_and_no_descriptor(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def story() -> None:
        server = ForkServer()
        before = descriptors()
        starting = asyncio.ensure_future(server.start())
        while descriptors() == before:
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)

        assert starting.cancelled() and server.pid is None
        assert descriptors() == before
        await server.close()

    asyncio.run(story())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if b"_fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert capfd.readouterr().err == ""


def test_server_that_died_is_replaced(write: WritePlugin) -> None:
    good = capture(write("good.py"))

    async def story(server: ForkServer) -> None:
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        for _ in range(2):  # the one under way gets a server of its own
            assert (await server.probe(good, DEADLINE_S)).is_ok
        assert server.pid not in (None, first)

    run(story)


def test_plugin_that_kills_the_server_is_refused_and_the_next_one_served(write: WritePlugin) -> None:
    killer = capture(write("killer.py", "import os\nos.kill(os.getppid(), 9)\n" + HANG))
    good = capture(write("good.py"))

    async def story(server: ForkServer) -> None:
        result = await server.probe(killer, DEADLINE_S)
        assert "ended during its probe, twice" in str(result.problems[0])
        assert (await server.probe(good, DEADLINE_S)).is_ok

    run(story)


def test_close_ends_the_server_and_the_children_of_probes_under_way(
    write: WritePlugin, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    source = f"import os, pathlib\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n{HANG}"
    version = capture(write("alpha.py", source))
    before = descriptors()

    async def main() -> tuple[int, int]:
        server = ForkServer()
        await server.start()
        assert server.pid is not None
        waiting = asyncio.create_task(server.probe(version, DEADLINE_S))
        pids = server.pid, int(await appears(pid_file))
        waiting.cancel()
        await server.close()
        assert server.pid is None
        return pids

    pids = asyncio.run(main())
    assert all(map(has_ended, pids))
    assert descriptors() == before


def test_server_and_its_children_end_when_the_host_is_killed(write: WritePlugin, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    source = (
        "import os, pathlib\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}')\n{HANG}"
    )
    path = write("alpha.py", source)
    program = f"""
import asyncio
from pathlib import Path
from host.loader import CompiledVersion, ForkServer, capture

async def main():
    async with ForkServer() as server:
        await server.probe(capture(Path({str(path)!r})), {DEADLINE_S})

asyncio.run(main())
"""
    host = subprocess.Popen([sys.executable, "-c", program])
    try:
        child, server = map(int, asyncio.run(appears(pid_file)).split())
    finally:
        host.kill()
        host.wait()

    assert has_ended(server)
    assert has_ended(child)


def test_plugin_that_prints_without_end_fills_no_memory(write: WritePlugin) -> None:
    source = "import sys\nwhile True:\n    sys.stderr.write('x' * (1 << 20))\n"
    (result,) = probe_all(capture(write("alpha.py", source)))

    assert "OSError at import" in str(result.problems[0])


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines()) + "\n"
