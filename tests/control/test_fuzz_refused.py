"""Random and mutated requests one after the other: whatever is refused has changed nothing."""

import asyncio
import os
import random
from pathlib import Path

import pytest
from control_tools import ControlDesk, Status
from test_fuzz import REQUESTS, SERVICES, request_bytes, send

from host.control.server import service_named
from host.core import entries as e
from host.journal import read


@pytest.mark.timeout(600)
def test_a_refused_call_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    methods = [method for name in SERVICES for method in service_named(name).methods]
    rng = random.Random(int(os.environ.get("TANDEM_FUZZ_SEED", "3")))
    refused = 0

    async def story() -> None:
        nonlocal refused
        async with desk.serving() as client:
            for number in range(REQUESTS):
                if number % 10 == 0:
                    desk.tick()
                    desk.settle()
                method = rng.choice(methods)
                data = request_bytes(method, rng)
                lsn, digest = desk.journal.last_lsn, desk.engine.state.digest()
                code = await send(desk, client, method, data, {})
                if code in (Status.OK, Status.DEADLINE_EXCEEDED):
                    continue
                refused += 1
                written = [
                    record.entry
                    for record in (read(desk.journal, lsn + 1) if desk.journal.last_lsn > lsn else ())
                    if not isinstance(record.entry, e.AuditAnchored)
                ]
                told = f"{method.name} {data!r}: {code}"
                assert not written, told
                if desk.journal.last_lsn == lsn:
                    assert desk.engine.state.digest() == digest, told

    asyncio.run(story())
    assert refused > REQUESTS // 3
