"""What a worker is held to, and what happens when it fails."""

from typing import Final, Literal

from msgspec import Struct, structs

from host.config import ClientSection
from host.config.schema import WorkerLimits, WorkerSection

__all__ = ["WorkerSettings", "client_settings_of", "settings_of"]

SECOND_NS: Final = 1_000_000_000


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """Limits of one worker. Times in ns by the machine's monotonic clock, sizes in bytes."""

    group: str = ""
    """Those of one group that start together share a process; empty: it has its own."""
    start_ns: int = 20 * SECOND_NS
    """How long it may take to start, imports included."""
    deadline_ns: int = SECOND_NS
    """How long it may handle nothing while there is something to handle: the budget of one callback."""
    stop_ns: int = SECOND_NS
    """How long it may take to handle `stop` and end."""
    memory_bytes: int = 512 << 20
    """What it may hold, resident."""
    cpu_share: float | None = None
    """What it may use of one core, over `cpu_window_ns`; None: all it wants."""
    cpu_window_ns: int = 5 * SECOND_NS
    on_loss: Literal["pull", "keep"] = "pull"
    """Its resting orders when it is lost: cancelled, or kept until it is back."""
    crashes: int = 5
    """Lost so often within `crash_window_ns`, its instances are quarantined."""
    crash_window_ns: int = 300 * SECOND_NS
    backoff_ns: int = SECOND_NS // 10
    """Pause before the first restart; each further one in the window doubles it, ..."""
    most_backoff_ns: int = 10 * SECOND_NS
    """... up to this."""
    window: int = 128
    """Events that may be with the worker unhandled; what comes beyond waits in the host."""
    most_waiting: int = 1024
    """Market events that may wait in the host before they are conflated, ..."""
    conflate_after_ns: int = SECOND_NS // 10
    """... and for how long."""
    heartbeat_ns: int = SECOND_NS // 4
    """An idle worker is asked for a sign of progress so often."""
    messages_at_once: int = 5_000
    """What the host reads of one peer within a tenth of a second; one that sends more is cut off.

    At most `window` events are with it, so this is many times what it may have reason to say. A flood is
    read at some 100,000 messages a second, so it is over after a twentieth of one.
    """
    busy_ns: int = 10 * SECOND_NS
    """How long it may keep asking for more of the host's time than is its share, unasked, before it is cut off."""
    strikes: int = 20
    """Messages that break the protocol, within 10 s, before a worker is cut off."""


def settings_of(section: WorkerLimits) -> WorkerSettings:
    """Return what the configuration says of a worker, of a strategy or a model."""
    settings = WorkerSettings(
        group=section.group,
        start_ns=section.start_ms * 1_000_000,
        deadline_ns=section.deadline_ms * 1_000_000,
        memory_bytes=section.memory_mb << 20,
        cpu_share=section.cpu_share,
        crashes=section.crashes,
        crash_window_ns=int(section.crash_window_s * 1e9),
        backoff_ns=section.backoff_ms * 1_000_000,
    )
    if isinstance(section, WorkerSection):
        return structs.replace(settings, on_loss=section.on_loss)
    return settings


def client_settings_of(section: ClientSection) -> WorkerSettings:
    """Return what the configuration says of a stand-alone client."""
    return WorkerSettings(
        deadline_ns=section.deadline_ms * 1_000_000,
        on_loss=section.on_loss,
        # Nobody waits for a client that was cut off, and each flood takes the loop's time until it is seen.
        backoff_ns=SECOND_NS,
        most_backoff_ns=60 * SECOND_NS,
    )
