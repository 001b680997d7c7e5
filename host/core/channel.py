"""What one instance needs to trade one symbol."""

from typing import Any, Final

from host.api import AmendSupport, ExchangeAdapter, Instrument
from host.core.client_id import ClientIdMaker
from host.core.quoting import QuoteLane
from host.core.risk import Lane

__all__ = ["Channel"]


class Channel:
    """What one instance needs to trade one symbol: its quoting, its risk lane, its order ids."""

    __slots__ = (
        "account",
        "adapter",
        "can_amend",
        "commands",
        "ids",
        "instance",
        "instrument",
        "last_refusal_ns",
        "last_refusal_text",
        "quoting",
        "refusals",
        "risk",
        "symbol",
    )

    def __init__(
        self,
        instance: str,
        account: str,
        adapter: ExchangeAdapter[Any],
        instrument: Instrument,
        quoting: QuoteLane,
        risk: Lane,
        ids: ClientIdMaker,
    ) -> None:
        self.instance: Final = instance
        self.account: Final = account
        self.adapter = adapter
        self.can_amend = adapter.amend_support is AmendSupport.NATIVE
        self.symbol: Final = instrument.symbol
        self.instrument = instrument
        self.quoting: Final = quoting
        self.risk: Final = risk
        self.ids: Final = ids
        self.last_refusal_text = ""
        self.last_refusal_ns = 0
        self.commands = 0
        """Orders and amends sent, ever."""
        self.refusals = 0
        """Wishes refused by risk checks or because they make no order, ever."""
