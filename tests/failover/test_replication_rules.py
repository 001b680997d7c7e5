"""The rules of replication, without I/O: who may follow from where, what counts as held, who is behind."""

from collections import deque

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failover.replication import (
    DurabilitySettings,
    EligibilityLimits,
    Era,
    History,
    Mode,
    Reason,
    ReplicaDurability,
    ReplicationConfigError,
    StandbyHealth,
    StandbyView,
    StreamBroken,
    StreamRefused,
)
from failover.replication.batch import Batch, batch_crc, frames_of
from failover.replication.credentials import check_address, named_in
from failover.replication.dialing import Backoff
from failover.replication.greeting import PROTOCOL_VERSION, Greeting, PrimarySide, answer
from failover.replication.history import common_lsn
from failover.replication.lag import LagClock, why_not_eligible
from failover.replication.window import SendWindow

MS = 1_000_000

# -- greetings ---------------------------------------------------------------------------------------


def history(*eras: tuple[int, int], last: int) -> History:
    return History(tuple(Era(epoch, lsn) for epoch, lsn in eras), last)


PRIMARY = PrimarySide(
    cell="main", node="a", epoch=3, history=history((1, 1), (3, 50), last=100), first_lsn=1, snapshot_lsn=60,
    max_catch_up=1_000,
)  # fmt: skip


def greeting(held: History | None = None, **changes: object) -> Greeting:
    fields: dict[str, object] = {
        "version": PROTOCOL_VERSION,
        "cell": "main",
        "node": "b",
        "session": "s",
        "history": held or History((), 0),
    }
    return Greeting(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "lsn", "is_replacing"),
    [
        (history(last=0), 0, False),
        (history((1, 1), last=20), 20, False),
        (history((1, 1), (3, 50), last=100), 100, False),
        # Entries that the new epoch never saw.
        (history((1, 1), last=70), 49, False),
        # An epoch in between, of a leader whose entries nobody else got.
        (history((1, 1), (2, 40), last=45), 39, False),
        # Nothing in common.
        (history((2, 1), last=45), 60, True),
    ],
)
def test_a_stream_starts_after_the_last_common_entry(held: History, lsn: int, is_replacing: bool) -> None:
    start = answer(greeting(held), PRIMARY)
    assert (start.resume_lsn, start.is_replacing) == (lsn, is_replacing)


def test_what_is_pruned_comes_as_a_snapshot() -> None:
    from msgspec.structs import replace

    primary = replace(PRIMARY, first_lsn=41)
    assert answer(greeting(history((1, 1), last=40)), primary).resume_lsn == 40
    for held in (history(last=0), history((1, 1), last=39)):
        start = answer(greeting(held), primary)
        assert (start.resume_lsn, start.is_replacing) == (60, True)


def test_a_standby_far_behind_a_snapshot_gets_that() -> None:
    from msgspec.structs import replace

    primary = replace(PRIMARY, max_catch_up=30)
    assert not answer(greeting(history((1, 1), last=30)), primary).is_replacing
    assert answer(greeting(history((1, 1), last=29)), primary).is_replacing


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, Reason.PROTOCOL_VERSION),
        ({"cell": "other"}, Reason.OTHER_CELL),
        ({"node": "a"}, Reason.SAME_NAME),
        ({"node": ""}, Reason.BAD_GREETING),
        ({"session": ""}, Reason.BAD_GREETING),
        ({"history": history((1, 1), (4, 90), last=95)}, Reason.FROM_THE_FUTURE),
        ({"history": history((1, 1), (3, 50), last=101)}, Reason.FROM_THE_FUTURE),
        ({"history": history((3, 50), (1, 60), last=70)}, Reason.BAD_GREETING),
        ({"history": history((1, 9), last=5)}, Reason.BAD_GREETING),
        ({"history": history(last=-1)}, Reason.BAD_GREETING),
    ],
)
def test_who_cannot_follow_is_told_why(changes: dict[str, object], reason: Reason) -> None:
    with pytest.raises(StreamRefused) as refused:
        answer(greeting(**changes), PRIMARY)  # type: ignore[arg-type]
    assert refused.value.reason is reason


def test_a_node_that_the_primary_does_not_name_is_refused() -> None:
    known = msgspec.structs.replace(PRIMARY, peers=frozenset({"b", "c"}))
    assert answer(greeting(), known) == answer(greeting(), PRIMARY)
    with pytest.raises(StreamRefused, match="no peer named 'x', it has b, c") as refused:
        answer(greeting(node="x"), known)
    assert refused.value.reason is Reason.UNKNOWN_PEER


@pytest.mark.parametrize("certified", ["", "c"])
def test_a_certificate_that_names_somebody_else_is_refused(certified: str) -> None:
    with pytest.raises(StreamRefused, match="certificate") as refused:
        answer(greeting(), PRIMARY, certified)
    assert refused.value.reason is Reason.WRONG_CERTIFICATE
    assert answer(greeting(), PRIMARY, "b").resume_lsn == 0


@given(
    eras=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    shared=st.integers(0, 5),
    ours=st.lists(st.integers(1, 9), max_size=3),
    theirs=st.lists(st.integers(1, 9), max_size=3),
)
def test_the_common_entry_is_where_two_histories_part(
    eras: list[int], shared: int, ours: list[int], theirs: list[int]
) -> None:
    """Entries are told apart by (epoch, place); the two sides go on in epochs that the other never saw."""
    trunk = [epoch for epoch, length in enumerate(eras[:shared], 1) for _ in range(length)]
    one = trunk + [10 + 2 * epoch for epoch, length in enumerate(ours) for _ in range(length)]
    other = trunk + [11 + 2 * epoch for epoch, length in enumerate(theirs) for _ in range(length)]

    def made(epochs: list[int]) -> History:
        starts = [(epoch, lsn) for lsn, epoch in enumerate(epochs, 1) if epochs[: lsn - 1][-1:] != [epoch]]
        return history(*starts, last=len(epochs))

    assert common_lsn(made(one), made(other)) == len(trunk)
    assert common_lsn(made(other), made(one)) == len(trunk)


# -- batches -----------------------------------------------------------------------------------------


@given(first=st.integers(1, 2**40), count=st.integers(0, 9), data=st.binary(max_size=60), bit=st.integers(0))
def test_a_batch_with_a_flipped_bit_is_refused(first: int, count: int, data: bytes, bit: int) -> None:
    crc = batch_crc(first, count, data)
    flipped = bytearray(data + first.to_bytes(8, "little") + count.to_bytes(4, "little"))
    bit %= 8 * len(flipped)
    flipped[bit // 8] ^= 1 << bit % 8
    body, first_bytes, count_bytes = flipped[: len(data)], flipped[len(data) : -4], flipped[-4:]
    wrong = Batch(
        int.from_bytes(first_bytes, "little", signed=True),
        int.from_bytes(count_bytes, "little", signed=True),
        bytes(body),
        crc,
    )
    with pytest.raises(StreamBroken) as broken:
        frames_of(wrong, wrong.first_lsn - 1)
    assert broken.value.reason is Reason.DAMAGED


@pytest.mark.parametrize("held", [3, 5, 0])
def test_a_batch_that_does_not_follow_is_a_gap(held: int) -> None:
    with pytest.raises(StreamBroken) as broken:
        frames_of(Batch(5, 0, b"", batch_crc(5, 0, b"")), held)
    assert broken.value.reason is Reason.GAP


class WindowMachine(RuleBasedStateMachine):
    """Batches and acknowledgements in any order against a list of what is on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.window = SendWindow(7, 1_000)
        self.way: deque[tuple[int, int]] = deque()
        self.sent = self.acked = 7

    @rule(count=st.integers(1, 5), size=st.integers(1, 700))
    def send(self, count: int, size: int) -> None:
        if not self.window.room:
            return
        self.window.send(self.sent + 1, self.sent + count, size)
        self.sent += count
        self.way.append((self.sent, size))

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        lsn = data.draw(st.integers(self.acked, self.sent))
        assert self.window.ack(lsn) == (lsn > self.acked)
        self.acked = lsn
        while self.way and self.way[0][0] <= lsn:
            self.way.popleft()

    @rule(by=st.integers(1, 3))
    def ack_what_was_never_sent(self, by: int) -> None:
        with pytest.raises(StreamBroken):
            self.window.ack(self.sent + by)

    @precondition(lambda self: self.acked > 7)
    @rule()
    def take_an_acknowledgement_back(self) -> None:
        with pytest.raises(StreamBroken):
            self.window.ack(self.acked - 1)

    @invariant()
    def counts_what_is_on_the_way(self) -> None:
        assert self.window.acked_lsn == self.acked
        assert self.window.sent_lsn == self.sent
        assert self.window.bytes_in_flight == sum(size for _, size in self.way)
        assert (self.window.room > 0) == (self.window.bytes_in_flight < 1_000)


TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(max_examples=60, stateful_step_count=30)


# -- lag and eligibility -----------------------------------------------------------------------------


def test_lag_counts_from_when_the_oldest_entry_without_acknowledgement_was_written() -> None:
    clock = LagClock(10, 5)
    assert clock.lag_ns(100) == 0
    clock.grew(11, 100)
    clock.grew(12, 150)
    assert clock.lag_ns(160) == 60
    clock.acked(11)
    assert clock.lag_ns(160) == 10
    clock.acked(12)
    assert clock.lag_ns(999) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_lag_is_never_shown_smaller_than_it_is_nor_much_larger(steps: list[tuple[int, int, int]]) -> None:
    spacing = 10
    clock, now, lsn, acked = LagClock(0, spacing), 0, 0, 0
    written: dict[int, int] = {}
    for wait, grow, take in steps:
        now += wait
        for _ in range(grow):
            lsn += 1
            written[lsn] = now
        clock.grew(lsn, now)
        acked = min(acked + take, lsn)
        clock.acked(acked)
        true_lag = now - written[acked + 1] if acked < lsn else 0
        assert true_lag <= clock.lag_ns(now) <= true_lag + spacing


def view(node: str = "b", acked: int = 100, **changes: object) -> StandbyView:
    fields: dict[str, object] = {
        "node": node, "address": "x", "acked_lsn": acked, "applied_lsn": acked, "lag_entries": 0, "lag_bytes": 0,
        "lag_ns": 0, "round_trip_ns": 0, "health": StandbyHealth(), "differs_at_lsn": 0, "why_not": "",
    }  # fmt: skip
    return StandbyView(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"lag_entries": 11}, "11 entries behind, 10 are allowed"),
        ({"lag_ns": 6 * MS}, "6 ms behind, 5 ms are allowed"),
        ({"applied_lsn": 89}, "11 entries to take in"),
        ({"differs_at_lsn": 4}, "since entry 4"),
        ({"health": StandbyHealth(is_fit=False, reason="no plugin x")}, "no plugin x"),
    ],
)
def test_why_a_standby_could_not_take_over(changes: dict[str, object], why: str) -> None:
    found = why_not_eligible(view(**changes), EligibilityLimits(10, 5 * MS))  # type: ignore[arg-type]
    assert why in found and bool(found) == bool(why)


# -- durability `replica` ----------------------------------------------------------------------------


def durability(on_lost: str = "process") -> ReplicaDurability:
    chosen = DurabilitySettings(on_lost, 300 * MS, 2_000 * MS)  # type: ignore[arg-type]
    return ReplicaDurability(chosen, 100, 0)


def test_an_entry_is_safe_once_every_standby_that_counts_holds_it() -> None:
    safe = durability()
    assert safe.tick([view("b"), view("c")], 10 * MS) == []
    safe.flushed(105, 20 * MS)
    assert safe.durable_lsn == 100
    safe.acked("b", 105)
    assert safe.durable_lsn == 100
    safe.acked("c", 103)
    assert safe.durable_lsn == 103
    safe.acked("nobody", 999)
    assert safe.durable_lsn == 103


def test_a_standby_that_stalls_does_not_hold_the_others_up_for_longer_than_the_patience() -> None:
    safe = durability()
    safe.tick([view("b"), view("c")], 0)
    safe.flushed(105, 10 * MS)
    safe.acked("b", 105)
    safe.tick([view("b", 105), view("c", 100)], 200 * MS)
    assert safe.durable_lsn == 100
    safe.tick([view("b", 105), view("c", 100)], 400 * MS)
    assert (safe.durable_lsn, safe.counting, safe.mode) == (105, ("b",), Mode.REPLICA)
    safe.tick([view("b", 105), view("c", 105)], 500 * MS)
    assert safe.counting == ("b", "c")


def test_without_a_standby_it_falls_back_to_process_and_comes_back_by_itself() -> None:
    safe = durability()
    safe.tick([view("b")], 0)
    safe.flushed(105, 10 * MS)
    assert safe.tick([], 20 * MS) == []
    assert safe.durable_lsn == 100
    (change,) = safe.tick([], 350 * MS)
    assert (change.mode, safe.durable_lsn) == (Mode.PROCESS, 105)
    safe.flushed(110, 360 * MS)
    assert safe.durable_lsn == 110
    assert safe.tick([view("b", 104)], 400 * MS) == []  # not all that was written by the last tick
    (change,) = safe.tick([view("b", 110)], 500 * MS)
    assert change.mode is Mode.REPLICA
    safe.flushed(120, 510 * MS)
    assert safe.durable_lsn == 110


def test_halting_lets_nothing_go_until_it_is_too_late_for_what_waited() -> None:
    safe = durability("halt")
    safe.flushed(105, 0)
    (change,) = safe.tick([], 300 * MS)
    assert (change.mode, safe.durable_lsn) == (Mode.HALTING, 100)
    safe.flushed(106, 400 * MS)
    assert safe.tick([], 2_299 * MS) == []
    assert safe.durable_lsn == 100
    (change,) = safe.tick([], 2_300 * MS)
    assert (change.mode, safe.durable_lsn) == (Mode.HALTED, 106)
    safe.flushed(107, 2_400 * MS)
    assert safe.durable_lsn == 107


def test_a_standby_that_is_not_eligible_does_not_count() -> None:
    safe = durability()
    safe.tick([view("b", why_not="its state differs")], 0)
    assert safe.counting == ()


@settings(max_examples=80)
@given(
    on_lost=st.sampled_from(["process", "halt"]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["flush", "ack b", "ack c", "lose b", "lose c", "wait"]), st.integers(1, 400)
        ),
        max_size=60,
    ),
)
def test_in_replica_mode_nothing_is_safe_that_no_standby_holds(
    on_lost: str, steps: list[tuple[str, int]]
) -> None:
    safe = durability(on_lost)
    flushed, now, held = 100, 0, {"b": 100, "c": 100}
    attached = {"b", "c"}
    for what, amount in steps:
        before = safe.durable_lsn
        mode = safe.mode
        if what == "flush":
            flushed += amount
            safe.flushed(flushed, now)
        elif what.startswith("ack"):
            node = what[-1]
            attached.add(node)
            held[node] = min(held[node] + amount, flushed)
            safe.acked(node, held[node])
        elif what.startswith("lose"):
            attached.discard(what[-1])
        else:
            now += amount * MS
            safe.tick([view(node, held[node]) for node in sorted(attached)], now)
        assert before <= safe.durable_lsn <= flushed
        if mode is safe.mode is Mode.REPLICA and safe.durable_lsn > before:
            assert safe.durable_lsn <= max(held.values())
        if safe.mode is Mode.HALTING:
            assert safe.durable_lsn == before


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ReplicationConfigError, match="'process' or 'halt', was 'pray'"):
        ReplicaDurability(DurabilitySettings("pray"), 0, 0)  # type: ignore[arg-type]
    with pytest.raises(ReplicationConfigError, match="patience_ns"):
        ReplicaDurability(DurabilitySettings(patience_ns=0), 0, 0)


# -- addresses and certificates ----------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/x/y.sock"])
def test_loopback_needs_no_tls(address: str) -> None:
    check_address(address, None)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "node-a.example.com:1"])
def test_any_other_address_does(address: str) -> None:
    with pytest.raises(ReplicationConfigError, match="needs TLS"):
        check_address(address, None)


def test_the_name_in_a_certificate_is_the_one_of_a_node() -> None:
    tls = {"transport_security_type": [b"ssl"]}
    names = [b"127.0.0.1", b"urn:tandem:peer:b"]
    assert named_in({}) is None
    assert named_in(tls) == ""
    assert named_in(tls | {"x509_subject_alternative_name": names}) == "b"
    assert named_in(tls | {"x509_subject_alternative_name": [*names, b"urn:tandem:peer:c"]}) == ""


@given(rounds=st.integers(0, 5_000), draw=st.floats(0, 1))
def test_waits_grow_to_the_longest_and_are_never_all_alike(rounds: int, draw: float) -> None:
    backoff = Backoff(0.05, 2.0)
    delay = backoff.delay_s(rounds, draw)
    assert 0.025 <= delay <= 2.0
    assert delay <= backoff.delay_s(rounds + 1, draw)
