from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Engine, create_engine, event, func, select, update
from sqlalchemy.pool import StaticPool

from host.api import AccountSnapshot, Balance, OrderStatus, Side
from host.core import entries as e
from host.core.state import TradingState
from host.store import (
    DatabaseBusyError,
    ForeignDatabaseError,
    JournalGapError,
    Projector,
    SchemaMismatchError,
    equity,
    fills,
    open_engine,
    orders,
    schema,
)
from host.store.database import database_name
from host.store.rows import load_state
from tests.store.story import (
    INSTRUMENT,
    START_NS,
    SYMBOL,
    accepted,
    fill,
    opening,
    place,
    records_of,
    session,
)


def _fold(records: list[e.Record]) -> TradingState:
    state = TradingState()
    for record in records:
        state.apply(record.lsn, record.ts_ns, record.entry)
    return state


def _assert_tables_hold(engine: Engine, state: TradingState) -> None:
    with engine.connect() as connection:
        loaded = load_state(connection)
    assert loaded.orders == state.orders
    assert loaded.retired == state.retired
    assert list(loaded.retired) == list(state.retired)
    assert loaded.holdings == state.holdings
    assert loaded.instruments == state.instruments
    assert loaded.instances == state.instances
    assert loaded.balances == state.balances


def _count(engine: Engine, name: str) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.metadata.tables[name])).scalar_one()


def test_the_tables_hold_what_the_core_folds(engine: Engine) -> None:
    records = records_of(session(300))
    Projector(engine).apply(records)
    state = _fold(records)
    assert len(state.orders) > 10
    assert len(state.retired) > 100
    _assert_tables_hold(engine, state)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    restarts=st.sets(st.integers(0, 12)),
)
def test_batches_and_restarts_change_nothing(seed: int, cuts: list[int], restarts: set[int]) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    records = records_of(session(40, seed))
    projector = Projector(engine)
    start = 0
    for index, size in enumerate([*cuts, len(records)]):
        if index in restarts:
            projector = Projector(engine)
        # Each batch begins with records that the tables hold already.
        projector.apply(records[max(0, start - 3) : start + size])
        start = min(start + size, len(records))
    assert projector.last_lsn == len(records)
    _assert_tables_hold(engine, _fold(records))
    engine.dispose()


def test_an_order_is_readable_in_each_stage_of_its_life(engine: Engine) -> None:
    order = place(1, Side.BUY, "60000.10", "0.01")
    records = records_of([*opening(), order, accepted(order), fill(order, "x1", "0.004")])
    projector = Projector(engine)
    projector.apply(records[:-2])
    assert [row.status for row in orders(engine)] == [OrderStatus.PENDING_NEW]
    projector.apply(records)
    (row,) = orders(engine, instance="mm-btc", symbol=SYMBOL, is_live=True)
    assert (row.status, row.filled, row.venue_id) == (OrderStatus.PARTIALLY_FILLED, Decimal("0.004"), "vt1x1")
    assert row.created_ns == records[-3].ts_ns
    assert row.updated_ns == records[-1].ts_ns
    assert orders(engine, is_live=False) == []
    (execution,) = fills(engine, client_id="t1x1")
    assert (execution.trade_id, execution.qty, execution.ts_ns) == ("x1", Decimal("0.004"), START_NS)


def test_a_fill_reported_twice_counts_once(engine: Engine) -> None:
    order = place(1)
    partial = fill(order, "x1", "0.004")
    projector = Projector(engine)
    records = records_of([*opening(), order, partial, partial])
    projector.apply(records[:-1])
    Projector(engine).apply(records[-1:])  # the second one is met by a process that never saw the first
    assert orders(engine)[0].filled == Decimal("0.004")
    assert _count(engine, "fills") == 1


def test_a_trade_number_may_repeat_on_another_symbol_or_account(engine: Engine) -> None:
    one = place(1)
    records = records_of([*opening(), one, fill(one, "7")])
    other = e.InstrumentSet("other", INSTRUMENT)
    two = replace(one, client_id="t1y1", account="other")
    more = records_of([other, two, fill(two, "7")], len(records) + 1)
    Projector(engine).apply([*records, *more])
    assert {execution.account for execution in fills(engine)} == {"paper", "other"}


def test_balances_follow_fills_and_the_venue_has_the_last_word(engine: Engine) -> None:
    order = place(1, Side.BUY, "60000", "0.01")
    records = records_of([*opening(), order, fill(order, "x1")])
    projector = Projector(engine)
    projector.apply(records)
    assert _balances(engine) == {
        "BTC": (Decimal("1.51"), Decimal(0)),
        "USDT": (Decimal("99399.4"), Decimal("250.5")),
    }
    snapshot = AccountSnapshot((Balance("USDT", Decimal(5)),), (), START_NS)
    projector.apply(records_of([e.AccountReported("paper", snapshot)], len(records) + 1))
    assert _balances(engine) == {"USDT": (Decimal(5), Decimal(0))}
    assert _count(engine, "balance_history") == 3


def test_notices_and_marks_are_kept_with_their_words(engine: Engine) -> None:
    one = Decimal(1)
    entries: list[e.Entry] = [
        *opening(),
        e.ParamsChanged("mm-btc", b'{"size":"0.02"}', "config"),
        e.KillSwitchSet("account:paper", True, "daily loss"),
        e.Alert("drift", "by 0.1\0BTC", "mm-btc"),
        e.EquityMarked("paper", "mm-btc", SYMBOL, one, one, one, one, one, one),
        e.NodeStopped("asked to"),
    ]
    records = records_of(entries)
    Projector(engine).apply(records)
    with engine.connect() as connection:
        rows = connection.execute(select(schema.events).order_by(schema.events.c.lsn)).all()
    assert [row.kind for row in rows] == [
        "node_started",
        "plugin_loaded",
        "instance_changed",
        "kill_switch_set",
        "alert",
        "node_stopped",
    ]
    assert rows[4].text == "by 0.1\ufffdBTC"
    assert _count(engine, "params_history") == 2
    (point,) = equity(engine, instance="mm-btc", since_ns=records[-2].ts_ns)
    assert point.total == one
    assert equity(engine, since_ns=records[-2].ts_ns + 1) == []


def test_a_restarted_node_makes_orders_in_flight_unknown(engine: Engine) -> None:
    order = place(1)
    records = records_of([*opening(), order, e.NodeStarted("a", "main", 2, "0.1.0")])
    projector = Projector(engine)
    projector.apply(records[:-1])
    projector.apply(records)
    assert orders(engine)[0].status is OrderStatus.UNKNOWN


def test_what_cannot_be_is_listed_as_an_anomaly(engine: Engine) -> None:
    order = place(1)
    Projector(engine).apply(records_of([*opening(), order, fill(order, "x1"), fill(order, "x2")]))
    with engine.connect() as connection:
        row = connection.execute(select(schema.events).where(schema.events.c.kind == "anomaly")).one()
    assert (row.code, row.instance, row.symbol) == ("overfill", "mm-btc", SYMBOL)
    assert _count(engine, "fills") == 1


def test_a_gap_is_refused_and_nothing_of_the_batch_is_kept(engine: Engine) -> None:
    records = records_of(session(5))
    projector = Projector(engine)
    projector.apply(records[:4])
    with pytest.raises(JournalGapError, match=r"should be LSN 5, was 6.*store rebuild") as caught:
        projector.apply(records[5:])
    assert (caught.value.expected, caught.value.found) == (5, 6)
    with pytest.raises(JournalGapError, match="should be LSN 7, was 8"):
        projector.apply([*records[4:6], *records[7:]])
    assert projector.last_lsn == Projector(engine).last_lsn == 4
    projector.apply(records)
    _assert_tables_hold(engine, _fold(records))


def test_a_failed_write_leaves_tables_and_projector_as_they_were(engine: Engine) -> None:
    records = records_of(session(30))
    projector = Projector(engine)
    projector.apply(records[:50])

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "INTO fills" in statement:
            raise RuntimeError("connection lost")

    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="connection lost"):
        projector.apply(records[50:])
    event.remove(engine, "before_cursor_execute", fail)
    assert projector.last_lsn == 50
    _assert_tables_hold(engine, _fold(records[:50]))
    projector.apply(records[50:])
    _assert_tables_hold(engine, _fold(records))


@pytest.mark.parametrize(
    ("node", "cell", "message"),
    [("b", "main", "belongs to node 'a', this journal's is 'b'"), ("a", "other", "belongs to cell 'main'")],
)
def test_a_database_of_another_node_or_cell_is_refused(
    engine: Engine, node: str, cell: str, message: str
) -> None:
    records = records_of(opening())
    Projector(engine).apply(records)
    started = records_of([e.NodeStarted(node, cell, 2, "0.1.0")], len(records) + 1)
    with pytest.raises(ForeignDatabaseError, match=message):
        Projector(engine).apply(started)


def test_a_journal_whose_tail_was_replaced_is_refused(engine: Engine) -> None:
    records = records_of(opening())
    Projector(engine).apply(records)
    last = records[-1]
    with pytest.raises(ForeignDatabaseError, match="entry 6 has time"):
        Projector(engine).apply([e.Record(last.lsn, last.ts_ns + 1, last.entry)])


def test_tables_of_a_newer_version_are_refused_and_left_alone(engine: Engine) -> None:
    Projector(engine)
    newer = schema.SCHEMA_VERSION + 1
    with engine.begin() as connection:
        connection.execute(update(schema.projection).values(schema_version=newer))
    message = f"should be {schema.SCHEMA_VERSION}, was {newer}; upgrade Tandem"
    with pytest.raises(SchemaMismatchError, match=message):
        Projector(engine)


def test_of_two_projectors_one_is_refused(engine: Engine) -> None:
    records = records_of(opening())
    one, two = Projector(engine), Projector(engine)
    one.apply(records)
    with pytest.raises(DatabaseBusyError, match="was at LSN 0 when opened"):
        two.apply(records)
    assert _count(engine, "events") == 3


def test_messages_never_show_the_password() -> None:
    name = database_name(open_engine("postgresql://tandem:secret@localhost/x"))
    assert name.startswith("postgresql+psycopg://tandem:***@localhost/x")


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "var" / "a" / "store.db"
    engine = open_engine(f"sqlite:///{path}")
    Projector(engine)
    engine.dispose()
    assert path.exists()


def _balances(engine: Engine) -> dict[str, tuple[Decimal, Decimal]]:
    with engine.connect() as connection:
        rows = connection.execute(select(schema.balances)).all()
    return {row.currency: (row.total, row.locked) for row in rows}
