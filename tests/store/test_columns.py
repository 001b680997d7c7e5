from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Table, delete, insert, select

from host.store.columns import ExactDecimal, FreeText

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("value", ExactDecimal),
    Column("text", FreeText),
)
MONEY = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)


def _round_trip(engine: Engine, value: Decimal | None, text: str = "") -> tuple[Decimal | None, str]:
    with engine.begin() as connection:
        connection.execute(delete(THINGS))
        connection.execute(insert(THINGS), {"id": 1, "value": value, "text": text})
        row = connection.execute(select(THINGS)).one()
    return row.value, row.text


def test_decimals_of_28_digits_survive(engine: Engine) -> None:
    THINGS.create(engine)
    for text in ("1234567890.123456789012345678", "-0.0000000000000000000000000001", "9" * 28, "1E-18"):
        stored, _ = _round_trip(engine, Decimal(text))
        assert stored == Decimal(text)
        assert isinstance(stored, Decimal)
    assert _round_trip(engine, None)[0] is None


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=60,
    deadline=None,
    derandomize=True,
)
@given(value=MONEY)
def test_any_amount_comes_back_as_it_went_in(engine: Engine, value: Decimal) -> None:
    THINGS.create(engine, checkfirst=True)
    assert _round_trip(engine, value)[0] == value


def test_sqlite_holds_plain_notation_that_other_tools_can_read(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    THINGS.create(engine)
    _round_trip(engine, Decimal("1E-8"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("select value from things").scalar() == "0.00000001"


def test_text_with_nul_is_stored_on_every_database(engine: Engine) -> None:
    THINGS.create(engine)
    assert _round_trip(engine, None, "bad\0text")[1] == "bad\ufffdtext"
