"""From configuration values to running objects."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import NonNegative, Params, Strategy
from host.loader import Catalog, InstanceFailed, Kind, Offer, ParamsInvalid, Version, decode_params, make
from tests.loader.conftest import WritePlugin

SOURCE = """
    from decimal import Decimal
    from msgspec import Struct
    from host.api import Fraction, Params, Positive, PositiveInt, Strategy

    class Leg(Struct, frozen=True):
        weight: Fraction = 0.5

    class AlphaParams(Params, frozen=True):
        half_spread_bps: Positive = 5.0
        size: Decimal = Decimal("0.01")
        levels: PositiveInt = 1
        legs: list[Leg] = []
        names: tuple[str, ...] = ()

    class Alpha(Strategy[AlphaParams]):
        def __init__(self, params):
            super().__init__(params)
            if params.levels == 13:
                raise ValueError("unlucky")
"""


@pytest.fixture
def offer(write: WritePlugin, load: Callable[[], Catalog]) -> Offer:
    write("alpha.py", SOURCE)
    return load().strategy("alpha")


def test_toml_values_take_the_declared_types(offer: Offer) -> None:
    params: Any = make(offer, {"half_spread_bps": 3, "size": "0.10", "names": ["a"]}).params

    assert (params.half_spread_bps, params.size, params.names) == (3.0, Decimal("0.10"), ("a",))
    assert isinstance(params.half_spread_bps, float)
    assert isinstance(params.size, Decimal)


def test_float_in_toml_means_the_decimal_that_was_written(offer: Offer) -> None:
    assert make(offer, {"size": 0.1}).params.size == Decimal("0.1")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"half_spread_bps": -1}, "params.half_spread_bps must be > 0, was -1"),
        ({"half_spread_bps": "5"}, "params.half_spread_bps must be of type float, was '5' (str)"),
        ({"levels": 1.5}, "params.levels must be of type int, was 1.5 (float)"),
        ({"levels": True}, "params.levels must be of type int, was True (bool)"),
        ({"size": "much"}, "params.size is not valid: Invalid decimal string, was 'much'"),
        ({"half_spred_bps": 1}, 'params.half_spred_bps is not a parameter; did you mean "half_spread_bps"?'),
        (
            {"zzz": 1},
            "params.zzz is not a parameter; the fields are half_spread_bps, size, levels, legs, names",
        ),
        ({"legs": [{}, {"weight": 2}]}, "params.legs[1].weight must be <= 1, was 2"),
    ],
)
def test_wrong_values_are_named_with_field_bound_and_value(
    offer: Offer, params: dict[str, object], message: str
) -> None:
    with pytest.raises(ParamsInvalid) as caught:
        make(offer, params, instance="mm-btc")

    assert str(caught.value) == f'instance "mm-btc": {message}'
    assert caught.value.field == message.split(maxsplit=1)[0]


def test_what_a_constructor_raises_is_the_instances_problem(offer: Offer) -> None:
    with pytest.raises(InstanceFailed) as caught:
        make(offer, {"levels": 13}, instance="mm-btc")

    assert 'instance "mm-btc": plugin alpha: alpha.py:19: ValueError when constructed: unlucky' in str(
        caught.value
    )


class BoundedParams(Params, frozen=True):
    x: NonNegative = 0.0
    qty: Decimal = Decimal(0)


class Bounded(Strategy[BoundedParams]):
    pass


BOUNDED = Offer("bounded", Kind.STRATEGY, Bounded, Version("bounded", __import__("pathlib").Path(), "", {}))


@given(
    st.dictionaries(st.sampled_from(["x", "qty", "y"]), st.none() | st.integers() | st.floats() | st.text())
)
def test_any_table_is_either_decoded_or_refused_by_name(table: dict[str, object]) -> None:
    try:
        decoded: Any = decode_params(BOUNDED, table, instance="i")
    except ParamsInvalid as error:
        assert error.field.split(".")[1] in table
    else:
        assert decoded.x >= 0
        assert isinstance(decoded.qty, Decimal)
