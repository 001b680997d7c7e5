"""The tampering relay of replication streams passes everything, and changes exactly one batch when told to."""

from pathlib import Path

from failover.replication import Reason
from failover.replication.events import Following, Unfollowed
from tests.failover.replication_tools import following, leading, run, same_entries, until
from tests.faults.tamper import Alter, damage_a_batch, drop_a_batch, running_tamperer


def tampered(folder: Path, alter: Alter, reason: Reason) -> None:
    """Follow through the relay, alter one batch, and expect the refusal, and then the whole journal."""

    async def story() -> None:
        async with leading(folder) as leader:
            leader.fill(20)
            with running_tamperer(leader.address) as relay:
                async with following(folder, f"127.0.0.1:{relay.port}") as follower:
                    await follower.holds(leader.journal.last_lsn)
                    relay.alter = alter
                    leader.fill(20)
                    await until(lambda: relay.altered == 1, "a batch to come by")
                    leader.fill(20)
                    await until(
                        lambda: any(one.reason is reason for one in follower.of(Unfollowed)), f"{reason}"
                    )
                    await follower.holds(leader.journal.last_lsn)
                    assert relay.altered == 1
                    assert len(follower.of(Following)) == 2
            assert same_entries(leader.folder, follower.folder)

    run(story())


def test_a_batch_that_is_lost_is_a_gap(tmp_path: Path) -> None:
    tampered(tmp_path, drop_a_batch, Reason.GAP)


def test_a_batch_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    tampered(tmp_path, damage_a_batch, Reason.DAMAGED)
