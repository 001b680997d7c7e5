"""Scripts of ops/ at a node that is halted, or not ready yet."""

import asyncio
import os
from pathlib import Path

from control_tools import ControlDesk
from servers import require_program
from test_grpcurl import PATIENCE_S, find_grpcurl

from host.control.subject import Phase
from host.core import entries as e

OPS = Path(__file__).parents[2] / "ops"


async def start(desk: ControlDesk, script: str, *arguments: str) -> asyncio.subprocess.Process:
    require_program("jq", "jq")
    grpcurl = Path(find_grpcurl()).parent
    pipe = asyncio.subprocess.PIPE
    variables = {"TANDEM_CONTROL": f"unix:{desk.home}/c.sock", "PATH": f"{os.environ['PATH']}:{grpcurl}"}
    return await asyncio.create_subprocess_exec(
        OPS / script, *arguments, env=os.environ | variables, stdout=pipe, stderr=pipe
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


def test_status_check_fails_at_a_halted_node_and_shows_why(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving():
            code, _ = await ended(await start(desk, "status", "--check"))
            assert code == 0
            desk.engine.halt("the disk is gone")
            code, out = await ended(await start(desk, "status", "--check"))
            assert code == 1
            assert "phase      halted: the disk is gone" in out
            code, _ = await ended(await start(desk, "status"))
            assert code == 0

    asyncio.run(story())


def test_a_change_is_repeated_until_the_node_is_ready_and_done_once(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving():
            desk.subject.phase = Phase.STARTING
            process = await start(desk, "panic-stop", "node", "--reason", "odd")
            async with asyncio.timeout(PATIENCE_S):
                while not any(line.outcome == "UNAVAILABLE" for line in desk.audited()):
                    await asyncio.sleep(0.01)
            desk.subject.phase = Phase.RUNNING
            assert (await ended(process))[0] == 0
            desk.subject.phase = Phase.STOPPING
            assert (await ended(await start(desk, "release-panic-stop", "node")))[0] == 6

    asyncio.run(story())
    assert sum(isinstance(entry, e.KillSwitchSet) for entry in desk.entries) == 1
