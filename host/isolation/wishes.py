"""What a strategy in another process asks for in a turn: done by its instance, as the wishes of an inline one are."""

import logging
from typing import Final

from host.api import OrderRefused, OrderStatus
from host.isolation.conduct import Conduct
from host.isolation.numbers_in import check_order, check_quotes
from host.isolation.order_ids import OrderIds
from host.isolation.settings import SECOND_NS
from host.runtime.instance import Instance
from host.wire.messages import MOST_LOG_TEXT, Cancel, Log, OrderRefusal, Place, PutQuotes, Request

__all__ = ["Wishes", "keep_refusal"]

LOG_LINES_PER_S: Final = 100
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
MOST_REFUSALS: Final = 4096
"""Refused orders of one instance that nobody has heard of yet and that are kept to be told."""
_BREACHES: Final = ("NOT_YOURS", "UNKNOWN_SYMBOL", "ORDER_ID", "NO_NUMBER")
"""Why a wish is refused that no peer has by mistake; other reasons are the market's or an operator's."""


class Wishes:
    """Does what one peer asks for. Its orders use up `ids`; `conduct` is told of what breaks the rules."""

    def __init__(self, instance: Instance, ids: OrderIds, conduct: Conduct) -> None:
        self._instance: Final = instance
        self._ids: Final = ids
        self._conduct: Final = conduct
        self._log_second_ns = 0
        self._log_lines = 0

    def do(self, request: Request, now_ns: int) -> OrderRefusal | None:
        """Do what one request asks for, within a turn; return what the peer is to be told where it may not be."""
        instance = self._instance
        try:
            if isinstance(request, PutQuotes):
                check_quotes(request)
                instance.quote(request.symbol, request.quotes)
            elif isinstance(request, Place):
                check_order(request.order)
                self._ids.use(request.client_id)
                instance.place(request.order, request.client_id)
            elif isinstance(request, Cancel):
                instance.cancel(request.client_id)
            elif isinstance(request, Log):
                self._log(request, now_ns)
        except OrderRefused as refused:
            if refused.reason in _BREACHES:
                self._conduct.strike(str(refused), now_ns)
            symbol = request.order.symbol if isinstance(request, Place) else getattr(request, "symbol", "")
            client_id = "" if isinstance(request, PutQuotes) else getattr(request, "client_id", "")
            action = str(type(request).__struct_config__.tag)
            return OrderRefusal(symbol, refused.reason, refused.detail, client_id, action)
        return None

    def _log(self, line: Log, now_ns: int) -> None:
        if now_ns - self._log_second_ns >= SECOND_NS:
            if (left_out := self._log_lines - LOG_LINES_PER_S) > 0:
                self._instance.log.warning(
                    "at least %d log lines were left out: of those of one second %d are kept",
                    left_out,
                    LOG_LINES_PER_S,
                )
            self._log_second_ns, self._log_lines = now_ns, 0
        self._log_lines += 1
        if self._log_lines <= LOG_LINES_PER_S:
            level = _LEVELS.get(line.level, logging.INFO)
            self._instance.log.log(level, "%s", line.text[:MOST_LOG_TEXT])


def keep_refusal(instance: Instance, place: Place, refusal: OrderRefusal, now_ns: int) -> bool:
    """Keep an order that was refused for whoever comes where the one who placed it does not hear of that.

    Its saved state may have the order. Returns False for one that broke the rules: that is nobody's order.
    """
    if refusal.reason in _BREACHES:
        return False
    kept, why = instance.unheard_refusals, f"{refusal.reason}: {refusal.detail}"
    kept[place.client_id] = place.order.as_order(
        place.client_id, instance.instance, instance.account, OrderStatus.REJECTED, now_ns, why
    )
    if len(kept) > MOST_REFUSALS:
        del kept[next(iter(kept))]
    return True
