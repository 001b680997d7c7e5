"""The bundled quote models."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from fakes import load_plugin

from host.api import Adjustment, Features, Quote

inventory_skew = load_plugin("models/inventory_skew.py")

QUOTE = Quote.around(100.0, 5.0, Decimal(1))
CALM = Features(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def features(**changed: float) -> Features:
    return msgspec.structs.replace(CALM, **changed)


def skew(**params: Any) -> Any:
    return inventory_skew.InventorySkew(inventory_skew.InventorySkewParams(**params))


# -- inventory_skew ------------------------------------------------------------------------------


def test_inventory_skew_leaves_a_flat_book_in_a_still_market_alone() -> None:
    assert skew().adjust(CALM, QUOTE) == Adjustment()


def test_inventory_skew_shifts_down_when_long_and_up_when_short() -> None:
    model = skew(skew_bps=4.0)
    assert model.adjust(features(inventory_ratio=0.5), QUOTE).shift_bps == -2.0
    assert model.adjust(features(inventory_ratio=-1.0), QUOTE).shift_bps == 4.0


def test_inventory_skew_widens_with_volatility_up_to_its_limit() -> None:
    model = skew(widen_per_bps=0.5, max_scale=3.0)
    assert model.adjust(features(volatility_bps=2.0), QUOTE).spread_scale == 2.0
    assert model.adjust(features(volatility_bps=50.0), QUOTE).spread_scale == 3.0


@pytest.mark.parametrize("bad", [{"skew_bps": -1.0}, {"widen_per_bps": -0.1}, {"max_scale": 0.5}])
def test_inventory_skew_refuses_parameters_out_of_bounds(bad: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, inventory_skew.InventorySkewParams)
