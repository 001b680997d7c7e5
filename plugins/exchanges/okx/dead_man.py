"""The dead man's switch of OKX: it cancels the orders with one tag unless it is set again in time.

An order's tag is made of what its client id begins with: the cell and the epoch of the node that placed
it. So the timer of a node that died cancels that node's orders and no others.
"""

import re
from typing import Final

from .rest_client import RestClient

__all__ = ["LEAST_S", "MOST_S", "arm", "tag_of"]

LEAST_S: Final = 10
MOST_S: Final = 120
_MOST_TAG: Final = 16
"""Characters of a tag: letters and digits."""
_CELL_AND_EPOCH: Final = re.compile(r"[a-z0-9]{1,6}?t(?:0|[1-9a-f][0-9a-f]*)(?=i|$)")
_PATH: Final = "/api/v5/trade/cancel-all-after"


def tag_of(client_id: str) -> str:
    """Return the venue's tag for an order, or for what the client ids of several begin with.

    These are the last 16 characters of the cell and the epoch; empty for an id that is none of ours.
    """
    found = _CELL_AND_EPOCH.match(client_id)
    return found.group()[-_MOST_TAG:] if found else ""


async def arm(rest: RestClient, after_ms: int, tag: str) -> None:
    """Have the venue cancel the orders with a tag in `after_ms`; 0 disarms. Raises `ExchangeError`."""
    await rest.set(_PATH, {"timeOut": str(-(-after_ms // 1000)), "tag": tag_of(tag)})
