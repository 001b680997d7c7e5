"""A standby over a real stream: it gets every entry, catches up, starts anew, sets a tail aside."""

from pathlib import Path

import pytest
from replication_tools import TS, Follower, Leader, alert, following, leading, run, same_entries, until

from failover.replication import (
    DurabilitySettings,
    Mode,
    ModeChange,
    Reason,
    ReplicaDurability,
    StandbyHealth,
    history_of,
)
from failover.replication.events import (
    Attached,
    ClaimAsked,
    ClaimPromised,
    DifferenceFound,
    Following,
    HeirNamed,
    PrimaryHealth,
    Rejoined,
    Unfollowed,
)
from host.core import entries as e
from host.journal import JournalError, read


def test_a_standby_holds_what_its_primary_writes(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            primary.fill(3)
            await standby.holds(4)
            last = primary.write(*map(alert, range(50)))
            await standby.holds(last)
            await until(lambda: primary.server.standbys()[0].acked_lsn == last, "its acknowledgement")
            await until(lambda: primary.server.standbys()[0].is_eligible, "an eligible standby")
            (view,) = primary.server.standbys()
            assert (view.lag_entries, view.lag_bytes, view.lag_ns) == (0, 0, 0)
            await until(lambda: primary.server.standbys()[0].round_trip_ns > 0, "a heartbeat's answer")
        assert same_entries(primary.folder, standby.folder)
        assert standby.replica.state.digest() == primary.state.digest()
        assert list(read(primary.folder)) == list(read(standby.folder))

    run(test())


def test_a_standby_that_comes_late_catches_up_across_segments_within_the_window(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary:
            last = primary.fill(400, size=900)
            async with following(tmp_path, primary.address) as standby:
                await standby.holds(last)
                last = primary.fill(100, size=20_000)
                await standby.holds(last)
        assert same_entries(primary.folder, standby.folder)

    run(test())


def test_a_standby_that_restarts_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary:
            async with following(tmp_path, primary.address) as standby:
                await standby.holds(primary.fill(5))
            last = primary.fill(5)
            async with following(tmp_path, primary.address, session="another process") as standby:
                await standby.holds(last)
            first, second = primary.of(Attached)
            assert (first.resume_lsn, second.resume_lsn) == (0, 6)
        assert same_entries(primary.folder, standby.folder)
        assert standby.replica.kept_aside == []

    run(test())


def test_what_is_pruned_comes_as_a_snapshot(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary:
            primary.fill(300, size=900)
            snapshot_lsn = primary.snapshot()
            assert primary.journal.first_lsn > 1
            last = primary.fill(5)
            async with following(tmp_path, primary.address) as standby:
                await standby.holds(last)
                assert standby.of(Following)[0].resume_lsn == snapshot_lsn
                assert standby.of(Rejoined) == []
                await until(lambda: standby.replica.applied_lsn == last, "the state")
            assert standby.replica.state.digest() == primary.state.digest()
            assert same_entries(primary.folder, standby.folder, snapshot_lsn + 1)
            # And from there it goes on without another one.
            last = primary.fill(1)
            async with following(tmp_path, primary.address) as standby:
                await standby.holds(last)
                assert standby.of(Following)[0].resume_lsn == last - 1

    run(test())


def test_a_deposed_primary_comes_back_and_sets_its_unseen_tail_aside(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path, epoch=1) as old, following(tmp_path, old.address) as standby:
            await standby.holds(old.fill(10))
            await standby.client.stop()
            unseen = [old.fill(3), old.fill(2)][-1]
            before = list(read(old.folder))
        heir = Leader(tmp_path, node="b")
        assert heir.begin(2) == 12
        await heir.serve(2)
        async with following(tmp_path, heir.address, node="a") as back:
            await until(lambda: back.of(Rejoined), "the tail set aside")
            (rejoined,) = back.of(Rejoined)
            await back.holds(heir.fill(1))
            assert (rejoined.kept.first_lsn, rejoined.kept.last_lsn, rejoined.epoch) == (12, unseen, 2)
            assert list(read(rejoined.kept.folder, 12)) == before[11:]
            assert back.replica.kept_aside == [rejoined.kept]
        await heir.close()
        assert same_entries(tmp_path / "a", tmp_path / "b")

    run(test())


def test_a_standby_that_took_over_knows_the_epoch_that_it_began_itself(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path, epoch=1) as old, following(tmp_path, old.address) as standby:
            await standby.holds(old.fill(10))
            await standby.client.stop()
            replica = standby.replica
            # What a takeover writes goes to the replica's own journal, past the stream.
            replica.journal.append(e.NodeStarted("b", "main", 2, "test"), TS)
            replica.journal.append(alert(13), TS)
            replica.journal.flush()
            assert [(era.epoch, era.first_lsn) for era in replica.history().eras] == [(1, 1), (2, 12)]
            assert replica.history().last_lsn == 13
            assert replica.history() == history_of(replica.journal)

    run(test())


def test_a_journal_of_another_history_is_set_aside_whole(tmp_path: Path) -> None:
    """Both nodes ran alone once, in an epoch of the same number: only the entries tell them apart."""

    async def test() -> None:
        stranger = Leader(tmp_path, node="b")
        stranger.write(alert(99))
        stranger.begin(1)
        stranger.fill(3)
        stranger.journal.close()
        before = list(read(stranger.folder))
        async with leading(tmp_path) as primary:
            last = primary.write(*map(alert, range(9)))
            async with following(tmp_path, primary.address) as standby:
                await standby.holds(last)
                (rejoined,) = standby.of(Rejoined)
                assert list(read(rejoined.kept.folder)) == before
                assert standby.of(Unfollowed)[0].reason is Reason.OTHER_HISTORY
        assert same_entries(primary.folder, standby.folder)

    run(test())


def test_a_state_that_differs_makes_a_standby_unfit_and_both_sides_say_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            primary.write(e.StateDigest(primary.state.digest()))
            lsn = primary.write(e.KillSwitchSet("node", True, "x", "test"))
            primary.write(e.StateDigest(primary.state.digest()))
            await standby.holds(lsn + 1)
            await until(lambda: primary.server.standbys()[0].is_eligible, "an eligible standby")
            wrong = primary.write(e.StateDigest("not that"))
            await until(lambda: not primary.server.standbys()[0].is_eligible, "the report")
            (view,) = primary.server.standbys()
            assert (view.differs_at_lsn, f"since entry {wrong}" in view.why_not) == (wrong, True)
            (found,) = standby.of(DifferenceFound)
            assert (found.difference.lsn, found.difference.expected) == (wrong, "not that")
            await standby.holds(primary.fill(2))  # the journal goes on all the same

    run(test())


def test_an_entry_that_does_not_fit_the_state_ends_the_stream_and_not_the_client(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            await standby.holds(1)
            primary.journal.append(e.AmendSent((e.Change("nobody", None, None),)), TS)  # type: ignore[arg-type]
            primary.journal.flush()
            await until(lambda: standby.of(Unfollowed), "the end of the stream")
            gone = standby.of(Unfollowed)[0]
            assert gone.reason is Reason.UNREADABLE and "entry 2 (AmendSent)" in gone.text
            assert standby.replica.held_lsn == 2
            with pytest.raises(Exception, match="entry 2"):
                await standby.close()
            standby.replica.journal.close()

    try:
        run(test())
    except Exception as error:  # noqa: BLE001 - closing folds once more
        assert "entry 2" in str(error)


def test_with_durability_replica_an_entry_is_durable_when_the_standby_holds_it(tmp_path: Path) -> None:
    async def test() -> None:
        primary = Leader(tmp_path, durability="replica")
        primary.begin(1)
        now = primary.server._clock_ns()
        patient = DurabilitySettings("process", 60_000_000_000)
        safe = ReplicaDurability(patient, 0, now)
        await primary.serve(1, durability=safe)
        durable: list[int] = []
        primary.journal.on_durable(durable.append)
        last = primary.fill(5)
        assert primary.journal.durable_lsn == 0
        async with following(tmp_path, primary.address) as standby:
            await until(lambda: primary.journal.durable_lsn == last, "the standby's word")
            assert standby.replica.held_lsn == last
            assert durable[-1] == last
        await primary.close()

    run(test())


@pytest.mark.parametrize(
    ("on_lost", "modes"), [("process", [Mode.PROCESS]), ("halt", [Mode.HALTING, Mode.HALTED])]
)
def test_a_lost_standby_means_what_the_operator_chose(
    tmp_path: Path, on_lost: str, modes: list[Mode]
) -> None:
    async def test() -> None:
        primary = Leader(tmp_path, durability="replica")
        primary.begin(1)
        chosen = DurabilitySettings(on_lost, 30_000_000, 50_000_000)  # type: ignore[arg-type]
        await primary.serve(1, durability=ReplicaDurability(chosen, 0, primary.server._clock_ns()))
        last = primary.fill(3)
        await until(lambda: len(primary.of(ModeChange)) == len(modes), "the change")
        assert [change.mode for change in primary.of(ModeChange)] == modes
        assert primary.journal.durable_lsn == last
        async with following(tmp_path, primary.address):
            await until(lambda: primary.of(ModeChange)[-1].mode is Mode.REPLICA, "a standby that counts")
            # A loaded machine may lose it again meanwhile, and take it back.
            last = primary.fill(1)
            await until(lambda: primary.journal.durable_lsn >= last, "its acknowledgement")
        await primary.close()

    run(test())


def test_what_peers_have_to_say_travels_on_the_same_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            await until(primary.server.standbys, "the standby")
            await standby.holds(1)
            primary.server.ask_claims(1, 77, 600)
            await until(lambda: standby.of(ClaimAsked), "the question")
            assert standby.of(ClaimAsked) == [ClaimAsked("a", 1, 77, 600)]
            standby.client.promise(1, 77)
            await until(lambda: primary.of(ClaimPromised), "the promise")
            assert primary.of(ClaimPromised) == [ClaimPromised("b", 1, 77)]
            primary.server.notify_heir("nobody")
            primary.server.notify_heir("b")
            await until(lambda: standby.of(HeirNamed), "the notice")
            ill = StandbyHealth(True, True, ("market_data:acc",), "its feed stalls")
            primary.server.health = ill
            await until(
                lambda: ill in [said.health for said in standby.of(PrimaryHealth)], "the primary's health"
            )
            standby.client.set_health(StandbyHealth(is_fit=False, reason="no plugin x"))
            await until(lambda: primary.server.standbys()[0].why_not == "no plugin x", "the standby's")

    run(test())


def test_two_standbys_follow_one_primary(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            leading(tmp_path) as primary,
            following(tmp_path, primary.address, node="b") as one,
            following(tmp_path, primary.address, node="c") as other,
        ):
            last = primary.fill(20)
            await one.holds(last)
            await other.holds(last)
            assert [view.node for view in primary.server.standbys()] == ["b", "c"]
            assert primary.server.oldest_needed_lsn() is not None
        assert same_entries(one.folder, other.folder)

    run(test())


def test_a_standby_finds_whoever_leads_among_its_peers_and_leaves_who_is_over(tmp_path: Path) -> None:
    async def test() -> None:
        idle = Leader(tmp_path, node="c")
        await idle.serve()
        idle.server.leader = "a"
        async with (
            leading(tmp_path) as primary,
            following(tmp_path, idle.address, primary.address) as standby,
        ):
            last = primary.fill(3)
            await standby.holds(last)
            refused = standby.of(Unfollowed)[0]
            assert (refused.reason, refused.is_refused) == (Reason.NOT_PRIMARY, True)
            assert "a leads" in refused.text
            standby.client.require_epoch(2)
            await until(lambda: "epoch 2 has begun" in standby.of(Unfollowed)[-1].text or None, "its leave")
            primary.server.step_down("the lease is lost")
            await until(lambda: "does not lead" in standby.of(Unfollowed)[-1].text or None, "the refusal")
        await idle.close()

    run(test())


def test_a_journal_that_cannot_be_written_ends_the_client_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary:
            standby = Follower(tmp_path, primary.address)
            standby.client.start()
            await standby.holds(1)
            standby.replica.journal.close()
            primary.fill(1)
            await until(lambda: standby.of(Unfollowed), "the end")
            assert standby.of(Unfollowed)[-1].reason is Reason.JOURNAL_FAILED
            with pytest.raises(JournalError, match="closed"):
                await standby.client.stop()
            primary.fill(3)  # and the primary goes on

    run(test())
