"""A standby over a real stream: it gets every entry, catches up, starts anew, sets a tail aside."""

from pathlib import Path

from replication_tools import alert, following, leading, run, same_entries, until


def test_a_standby_holds_what_its_primary_writes(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            primary.fill(3)
            await standby.holds(4)
            last = primary.write(*map(alert, range(50)))
            await standby.holds(last)
            await until(lambda: primary.server.standbys()[0].acked_lsn == last, "its acknowledgement")
            await until(lambda: primary.server.standbys()[0].is_eligible, "an eligible standby")
        assert same_entries(primary.folder, standby.folder)
        assert standby.replica.state.digest() == primary.state.digest()

    run(test())
