"""ops/switchover, run against one node of a pair."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from control_tools import ControlDesk
from leadership_tools import B, C
from ops_tools import OPS, PATIENCE_S, tool

Said = tuple[int, str, str]
Script = Callable[..., Awaitable[Said]]


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    tool("grpcurl", "run scripts/install-grpcurl")
    tool("jq", "run scripts/install-test-servers")
    return ControlDesk(tmp_path)


def tell(desk: ControlDesk, story: Callable[[Script], Awaitable[None]]) -> None:
    """Tell a story with the script at hand; it gives exit code, output and errors."""

    async def switchover(*arguments: str) -> Said:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM")}
        process = await asyncio.create_subprocess_exec(
            str(OPS / "switchover"), *arguments,
            env=environment | {"TANDEM_CONTROL": f"unix:{desk.home}/c.sock"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), desk.serving():
            await story(switchover)

    asyncio.run(run())


def test_the_standby_named_leads(desk: ControlDesk) -> None:
    async def story(switchover: Script) -> None:
        said = await switchover("b", "--reason", "upgrade")
        assert said == (0, f"leader\tb\t{B.control_address}\n", "")
        [(verb, heir, by)] = desk.pair.asked
        assert (verb, heir) == ("switchover", "b")
        assert by.endswith(": upgrade")
        assert desk.subject.is_standby

    tell(desk, story)


def test_a_dry_run_says_who_would_lead_and_changes_nothing(desk: ControlDesk) -> None:
    async def story(switchover: Script) -> None:
        code, out, _ = await switchover("--dry-run")
        assert (code, out) == (0, f"leader\t{C.name}\t\n")
        assert not desk.pair.asked

    tell(desk, story)


def test_a_standby_that_cannot_lead_exits_with_3_and_says_why(desk: ControlDesk) -> None:
    async def story(switchover: Script) -> None:
        code, _, err = await switchover("late")
        assert (code, "99999 entries behind" in err) == (3, True)

    tell(desk, story)


def test_asked_of_the_node_that_leads_already_nothing_is_switched(desk: ControlDesk) -> None:
    async def story(switchover: Script) -> None:
        code, out, _ = await switchover("desk")
        assert (code, out) == (0, "leader\tdesk\t\n")
        assert not desk.pair.asked

    tell(desk, story)


def test_a_node_that_runs_alone_exits_with_3(desk: ControlDesk) -> None:
    desk.subject.leadership = None

    async def story(switchover: Script) -> None:
        code, _, err = await switchover()
        assert (code, "runs alone" in err) == (3, True)

    tell(desk, story)
