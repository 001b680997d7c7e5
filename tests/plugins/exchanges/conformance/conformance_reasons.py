"""Why some adapters have not got what others have, where more than one file of the suite says so."""

from collections.abc import Mapping
from typing import Final

from conformance_columns import WITHOUT_PERPETUALS

__all__ = ["NOT_IN_PLACE", "NO_LINE", "NO_POSITIONS"]

NO_POSITIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "spot holds balances, not positions": WITHOUT_PERPETUALS,
}
NOT_IN_PLACE: Final[Mapping[str, tuple[str, ...]]] = {
    "Binance spot changes no price in place: keepPriority only shrinks an order, all else is a new one": (
        "binance spot",
    ),
}
NO_LINE: Final[Mapping[str, tuple[str, ...]]] = {
    "in this process there is no line that could break": ("paper here",),
}
