"""A standby's side of replication: its journal follows whoever leads, and it knows how current that is."""

import logging
from collections.abc import Callable
from typing import Final

from failover.clock import boottime_ns
from failover.replication import (
    PeerCredentials,
    Replica,
    ReplicationClient,
    StandbyHealth,
    StreamSettings,
)
from failover.replication.events import Following, PrimaryHealth, StandbyEvent, Unfollowed
from host.config import FailoverSection

__all__ = ["Followed"]

_log = logging.getLogger("tandem.failover")


class Followed:
    """Keeps one replica at a time equal to the journal of whoever leads, from `begin` to `end`.

    `on_event` is told what happens. `session` names this process to its peers, and `control_address` is what
    the clients of this node dial.
    """

    def __init__(
        self,
        section: FailoverSection,
        session: str,
        control_address: str,
        settings: StreamSettings,
        tls: PeerCredentials | None,
        on_event: Callable[[StandbyEvent], None],
    ) -> None:
        self.primary_control = ""
        """The control address of the node that is followed."""
        self._section: Final = section
        self._session: Final = session
        self._control_address: Final = control_address
        self._settings: Final = settings
        self._tls: Final = tls
        self._on_event: Final = on_event
        self._client: ReplicationClient | None = None
        self._heard_ns = 0
        """When a primary was last known to be there, by CLOCK_BOOTTIME; 0: none since `begin`."""
        self._told_unfollowed = ""

    def begin(self, replica: Replica, health: StandbyHealth) -> None:
        """Keep `replica` equal to the primary's journal, until `end`; `health` is how this node is."""
        if not self._section.peers:
            return
        self._heard_ns = 0
        self._client = ReplicationClient(
            replica,
            list(self._section.peers.values()),
            self._session,
            self._take,
            tls=self._tls,
            settings=self._settings,
            control_address=self._control_address,
        )
        self._client.set_health(health)
        self._client.start()

    async def end(self) -> None:
        """End the stream; the replica has taken in all that was received. Harmless when nothing is followed."""
        client, self._client = self._client, None
        self.primary_control = ""
        if client is not None:
            await client.stop()

    # -- what is so ------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Return whether somebody is looked for or followed."""
        return self._client is not None

    @property
    def primary(self) -> str:
        """Return the name of the node that is followed; empty if none is."""
        return "" if self._client is None else self._client.primary

    @property
    def failure(self) -> str:
        """Return why this node receives nothing any more; empty while it may."""
        error = None if self._client is None else self._client.failure
        return "" if error is None else f"replication has ended: {error}"

    def why_not_current(self) -> str:
        """Return why this standby may lack entries of its primary; empty where it has been told of none.

        One that was cut off knows no more than what it heard last: for a short time that counts, since
        else nobody could take over from a primary that has just died.
        """
        client, section = self._client, self._section
        if client is None or not self._heard_ns:
            return "it has not followed a primary since it started"
        if client.lag > section.max_lag_entries:
            return f"its replica is {client.lag} entries behind, {section.max_lag_entries} are allowed"
        patience_ms = max(section.max_lag_ms, 3 * section.ttl_ms)
        if client.primary:
            self._heard_ns = boottime_ns()
        elif (silent_ms := (boottime_ns() - self._heard_ns) // 1_000_000) > patience_ms:
            return f"it has been cut off from its primary for {silent_ms / 1000:.1f} s"
        return ""

    # -- what its primary is told: lost where there is none -----------------------------------------

    def set_health(self, health: StandbyHealth) -> None:
        """Tell the primary how this node is, now or with the next stream."""
        if self._client is not None:
            self._client.set_health(health)

    def promise(self, epoch: int, asked_ns: int) -> None:
        """Promise the primary not to claim the lease."""
        if self._client is not None:
            self._client.promise(epoch, asked_ns)

    def hold_version(self, plugin: str, digest: str, problem: str) -> None:
        """Tell the primary whether this node could run a version of a plugin."""
        if self._client is not None:
            self._client.hold_version(plugin, digest, problem)

    def require_epoch(self, epoch: int) -> None:
        """Follow nobody who leads in an earlier epoch."""
        if self._client is not None:
            self._client.require_epoch(epoch)

    # -- inside ----------------------------------------------------------------------------------

    def _take(self, event: StandbyEvent) -> None:
        match event:
            case Following():
                self._heard_ns = boottime_ns()
                self._told_unfollowed = ""
                self.primary_control = event.control_address
                _log.info("following %s in epoch %d from %s", event.node, event.epoch, event.address)
            case Unfollowed():
                is_news = event.reason is not None and self._told_unfollowed != event.text
                if is_news and not _is_usual(event):
                    self._told_unfollowed = event.text
                    _log.warning("replication: %s", event.text)
            case PrimaryHealth():
                self._heard_ns = boottime_ns()
        self._on_event(event)


def _is_usual(event: Unfollowed) -> bool:
    return event.reason is not None and event.reason.name == "NOT_PRIMARY"
