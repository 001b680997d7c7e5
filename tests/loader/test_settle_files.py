"""Plain files, such as a configuration, are read once they are at rest."""

import asyncio
from pathlib import Path

import pytest

from host.loader import NotStable, settle_files


def test_files_at_rest_are_ready_after_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text("whole")

    asyncio.run(asyncio.wait_for(settle_files([path], apart_ms=1), 5))


def test_file_is_not_ready_while_somebody_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"

    async def story() -> None:
        with path.open("w") as file:
            file.write("half")
            file.flush()
            with pytest.raises(NotStable, match="is open for writing"):
                await settle_files([path], apart_ms=1, give_up_s=0.05)
            file.write(" and half")
        await settle_files([path], apart_ms=1)
        assert path.read_text() == "half and half"

    asyncio.run(story())


def test_file_that_is_deleted_and_created_anew_is_waited_for(tmp_path: Path) -> None:
    path, other = tmp_path / "tandem.toml", tmp_path / "new"
    other.write_text("new")

    async def story() -> None:
        settled = asyncio.ensure_future(settle_files([path], apart_ms=1, gone_ms=60_000))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not settled.done()
        other.rename(path)
        await asyncio.wait_for(settled, 5)

    asyncio.run(story())


def test_file_that_stays_away_is_at_rest_too(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(settle_files([tmp_path / "none"], apart_ms=1, gone_ms=5), 5))
