"""What only the lease store itself can tell of a configuration: is it there, is the cell in it, is it fast enough?"""

import asyncio
from typing import Final

from host.config import FailoverSection, LoadedConfig, Problem

__all__ = ["LeaseCheck"]

DEADLINE_S: Final = 5.0
"""For each call; a store that takes longer carries no lease."""


class LeaseCheck:
    """Asks the lease store of a configuration. `round_trip_ms` is known once it was found good."""

    def __init__(self) -> None:
        self.round_trip_ms: float | None = None

    def problems(self, loaded: LoadedConfig, *, offline: bool) -> list[Problem]:
        """Return what would keep the node from taking part; offline, what its URL alone tells.

        The time is measured on a record of its own, which is removed again.
        """
        if loaded.config.failover is None:
            return []
        return asyncio.run(self._ask(loaded, loaded.config.failover, offline=offline))

    async def _ask(self, loaded: LoadedConfig, section: FailoverSection, *, offline: bool) -> list[Problem]:
        from failover.lease import LeaseError, LeaseUnansweredError, check_cell, check_ttl, open_store

        key = "lease"
        try:
            store = open_store(section.lease)
            try:
                if not offline:
                    key = "cell"
                    await check_cell(store, section.lease, section.cell, DEADLINE_S)
                    key = "ttl"
                    self.round_trip_ms = await check_ttl(store, section.ttl_ms, DEADLINE_S)
            finally:
                await store.close()
        except LeaseUnansweredError as error:
            text = f"{error}; start it or correct the URL, or check the rest with --offline"
            return [loaded.problem(("failover", "lease"), text)]
        except LeaseError as error:
            return [loaded.problem(("failover", key), str(error).removeprefix(f"failover.{key}: "))]
        return []
