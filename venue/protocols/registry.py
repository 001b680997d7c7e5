"""Every protocol that the venue speaks, by name. A new one is added here and nowhere else."""

from collections.abc import Callable, Mapping
from typing import Final

from venue.protocols.binance.front import BinanceFront
from venue.protocols.bybit.front import BybitFront
from venue.protocols.front import Desk, Front
from venue.protocols.okx.front import OkxFront

__all__ = ["FRONTS"]

FRONTS: Final[Mapping[str, Callable[[Desk], Front]]] = {
    BinanceFront.name: BinanceFront,
    BybitFront.name: BybitFront,
    OkxFront.name: OkxFront,
}
