"""A venue connection that takes its time to come, or to go, while a file says so.

It is a drop-in plugin of the nodes under test, found by `node.plugin_dirs`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from host.api import ExchangeAdapter, Instrument, hookimpl
from plugins.exchanges.paper import PaperRemote, PaperRemoteParams

LOOK_S = 0.005


class PaperLingeringParams(PaperRemoteParams, frozen=True):
    """Beside what a venue connection needs: where `coming` and `going` lie while it should linger."""

    folder: str = ""


class PaperLingering(PaperRemote):
    """Connects once there is no file `coming`, and closes once there is no file `going`."""

    params: PaperLingeringParams
    params_type = PaperLingeringParams

    async def connect(self) -> Sequence[Instrument]:
        """Connect, in a while."""
        await self._while_there("coming")
        return await super().connect()

    async def close(self) -> None:
        """Close, in a while."""
        await self._while_there("going")
        await super().close()

    async def _while_there(self, name: str) -> None:
        while (Path(self.params.folder) / name).exists():
            await asyncio.sleep(LOOK_S)


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer it under a name of its own."""
    return {"paper_lingering": PaperLingering}
