"""What a node can be told: one struct per section of the configuration file.

Every field has the type that the rest of the program uses, so that nothing is checked twice. Times
carry their unit in the name. Relative paths are relative to the working directory.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from host.config.client import ClientSection
from host.config.failover import FailoverSection
from host.config.numbers import MOST, Positive
from host.config.schedule import ScheduleSection
from host.core.risk_limits import Limits, RiskConfig

__all__ = [
    "AccountSection",
    "ControlSection",
    "ControlTlsSection",
    "InstanceSection",
    "ModelRef",
    "NodeConfig",
    "NodeSection",
    "RiskSection",
    "RunOptions",
    "SecretsSection",
    "StoreSection",
    "WatchdogSection",
    "WorkerLimits",
    "WorkerSection",
    "bundled_plugins",
]

SYMBOL_PATTERN: Final = re.compile(r"[A-Z0-9]+-[A-Z0-9]+(-PERP)?")
"""How symbols are written everywhere: BASE-QUOTE for spot, BASE-QUOTE-PERP for perpetuals."""

DEFAULT_CONTROL_ADDRESS: Final = "127.0.0.1:7600"

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
ParamsTable = dict[str, Any]
"""Parameters as written; the plugin's own `Params` class checks them when the plugin is loaded."""


class NodeSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[node]`: the process itself."""

    name: Name = "tandem"
    data_dir: Path = Path("var/tandem")
    """Holds the journal, the store and what adapters keep. One node at a time uses it."""
    plugin_dirs: tuple[Path, ...] = ()
    """Folders with your plugins; the bundled ones are always there."""
    durability: Literal["process", "disk", "replica"] = "process"
    """When an entry counts as written: in the page cache (survives kill -9), synced to disk, or held by a standby."""
    journal_segment_kb: Annotated[int, Meta(ge=64, le=4_194_304)] = 65_536
    """Size of the journal's files. The disk needs room for two, and trading stops where there is not."""
    snapshot_every_entries: Positive = 100_000
    """A restart reads at most this many journal entries."""
    digest_every_entries: Positive = 10_000
    """How often a hash of the trading state goes into the journal."""
    state_save_ms: Positive = 1_000
    """How much of a strategy's own state a crash may lose, at most."""
    equity_every_ms: Positive = 1_000
    """How often profit and loss are marked to market."""
    reload: Literal["auto", "stage", "off"] = "auto"
    """What a changed plugin file leads to: it goes live, it waits for an operator, or nothing."""
    probation_s: Annotated[float, Meta(gt=0)] = 30.0
    """How long a version that went live is watched before it is permanent."""
    probation_events: Positive = 50
    """How many events it must have handled by then."""
    rollback_policy: Literal["cancel", "keep", "flatten"] = "cancel"
    """What happens to resting orders that a version placed which is rolled back."""
    order_window_ms: Positive = 2_000
    """How long a request to a venue may take; the venue must not accept it later."""
    stop_timeout_ms: Positive = 5_000
    """How long a clean stop waits for the venue to confirm that no order is left open."""


class AccountSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[account]]`: one account at one venue."""

    name: Name
    exchange: str
    """The name under which a plugin offers the adapter, such as `paper`."""
    params: ParamsTable = {}


class WorkerLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker process is held to."""

    group: str = ""
    """What is of one group shares a worker process, and its fate; empty: it has its own."""
    deadline_ms: Positive = 1_000
    """A worker that handles nothing for so long, though there is something to handle, is lost."""
    memory_mb: Positive = 512
    """What it may hold in memory."""
    cpu_share: Annotated[float, Meta(gt=0)] | None = None
    """What it may use of one processor core over 5 s; None: all it wants."""
    crashes: Positive = 5
    """Lost so often within `crash_window_s`, its instance is quarantined, its model given up."""
    crash_window_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    backoff_ms: Positive = 100
    """The pause before it is started again; it doubles with each further loss, up to 10 s."""
    start_ms: Positive = 20_000
    """How long it may take to start."""


class WorkerSection(WorkerLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`worker` of an `[[instance]]`: what its worker process is held to, and what happens when it fails."""

    on_loss: Literal["pull", "keep"] = "pull"
    """Its resting orders while it is gone: cancelled, or kept until it is back."""


class ModelRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A quote model of an instance, with its parameters. `"NAME"` is short for `{name = "NAME"}`."""

    name: str
    params: ParamsTable = {}
    isolation: Literal["inline", "process"] = "inline"
    """Whether it runs on the node's event loop, or in a worker process of its own."""
    worker: WorkerLimits = WorkerLimits()
    """What such a worker is held to."""


class InstanceSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[instance]]`: one configured, runnable copy of a strategy."""

    name: Name
    plugin: str
    """The name under which a plugin offers the strategy, such as `two_sided`."""
    account: str
    symbols: Annotated[tuple[str, ...], Meta(min_length=1)]
    models: tuple[ModelRef, ...] = ()
    """Applied to every quote, in this order."""
    isolation: Literal["inline", "process", "client"] = "inline"
    """Whether it runs on the node's event loop, in a worker process of its own, or in a program that attaches."""
    worker: WorkerSection = WorkerSection()
    """What such a worker is held to."""
    client: ClientSection = ClientSection()
    """Where such a program attaches, and what it is held to."""
    params: ParamsTable = {}
    quote_tolerance_bps: Annotated[float, Meta(ge=0)] = 0.5
    """How far, in basis points of the price, a wanted quote may move before its order follows."""
    start: Literal["running", "paused"] = "running"
    """The state in which a new instance starts; a paused one receives data and has no quotes."""
    schedule: ScheduleSection = ScheduleSection()
    after: tuple[str, ...] = ()
    """Instances that it depends on: each event reaches them first, they start before it and stop after it."""
    on_dependency_lost: Literal["pause", "stop", "keep"] = "pause"
    """What becomes of it while one of those is stopped, quarantined or not there."""


class RiskSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[risk.…]`: limits. An order must pass those of its node, account, instance and symbol."""

    node: Limits = Limits()
    account: dict[str, Limits] = {}
    instance: dict[str, Limits] = {}
    symbol: dict[str, Limits] = {}

    @property
    def limits(self) -> RiskConfig:
        """Return these limits as the risk engine takes them."""
        return RiskConfig(node=self.node, accounts=self.account, instances=self.instance, symbols=self.symbol)


class StoreSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[store]`: the SQL projection of the journal."""

    url: str | None = None
    """A SQLAlchemy URL; None is SQLite in `data_dir`, and the empty text turns the store off."""


class SecretsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[secrets]`: where the credentials are that accounts refer to."""

    master_key: str | None = None
    """Opens the encrypted store: `file:PATH` (mode 0600) or `env:VARIABLE`, never the key itself.

    None is the variable `TANDEM_MASTER_KEY`, if it is set.
    """
    store: Path | None = None
    """The encrypted store; None is `secrets.json` in `data_dir`."""


class WatchdogSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[watchdog]`: what is done about code that holds the event loop, on which everything else waits then."""

    limit_ms: Annotated[int, Meta(ge=10, le=60_000)] = 500
    """How long a callback may hold it."""
    on_block: Literal["warn", "quarantine", "worker", "give_up"] = "warn"
    """What becomes of an instance whose callback holds it longer, as soon as control returns.

    `worker` has it go on in a worker process; `give_up`, as `warn`, leaves it where it is.
    """
    give_up_ms: Annotated[int, Meta(ge=100, le=MOST)] = 10_000
    """With all but `warn`: where control does not return for so long, the process ends, for others to go on."""

    def __post_init__(self) -> None:
        if self.on_block != "warn" and self.give_up_ms < 3 * self.limit_ms:
            raise ValueError(
                f"give_up_ms: expected at least 3 times limit_ms, which is {self.limit_ms}, so that what blocks is "
                f"named first; was {self.give_up_ms}"
            )


class ControlTlsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.tls]`: what the control API needs where other machines can reach it. PEM files."""

    certificate: Path
    """The node's certificate, followed by those that signed it."""
    key: Path
    """The key of that certificate, readable by the node's user alone."""
    client_ca: Path | None = None
    """Who signs the certificates of callers; None takes no client certificates."""
    require_client_certificate: bool = False
    """Refuse the connection of a client without one, even if it has a token."""


class ControlSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: where the control API is served, and how it is secured."""

    listen: tuple[str, ...] | None = None
    """`unix:PATH` and `HOST:PORT`; None is `control.sock` in `data_dir` and 127.0.0.1:7600, empty is nowhere.

    A run in simulated time serves it only where this is set.
    """
    loopback_role: Literal["none", "viewer", "operator", "trader", "admin"] = "admin"
    """What the node's own user may do over loopback without a token; other users always need one."""
    tls: ControlTlsSection | None = None
    watch_stall_ms: Positive = 5_000
    """How long a watcher may leave an answer unread; then it is dropped."""
    max_watches: Positive = 1_024
    """How many watches may go on at a time."""
    max_watches_per_caller: Positive = 256
    """How many of them one caller may have."""
    reflection: bool = True
    """Whether the node tells what services there are, as grpcurl asks without a proto file."""


class NodeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node is configured with."""

    node: NodeSection = NodeSection()
    account: tuple[AccountSection, ...] = ()
    instance: tuple[InstanceSection, ...] = ()
    risk: RiskSection = RiskSection()
    store: StoreSection = StoreSection()
    secrets: SecretsSection = SecretsSection()
    watchdog: WatchdogSection = WatchdogSection()
    control: ControlSection = ControlSection()
    failover: FailoverSection | None = None
    """None: the node stands alone."""

    @property
    def plugin_dirs(self) -> tuple[Path, ...]:
        """Return the folders to load plugins from: the bundled one first, none of them twice."""
        folders = (bundled_plugins(), *self.node.plugin_dirs)
        return tuple({folder.resolve(): folder for folder in folders}.values())

    @property
    def journal_dir(self) -> Path:
        """Return the folder of the journal."""
        return self.node.data_dir / "journal"

    @property
    def control_listen(self) -> tuple[str, ...]:
        """Return where the control API is served, as the configuration or the defaults say."""
        if self.control.listen is None:
            return (f"unix:{self.node.data_dir / 'control.sock'}", DEFAULT_CONTROL_ADDRESS)
        return self.control.listen

    @property
    def control_address(self) -> str:
        """Return where other machines dial this node's control API; empty if nowhere."""
        if self.failover is not None and self.failover.control_address is not None:
            return self.failover.control_address
        listen = (text.removeprefix("tls:") for text in self.control_listen if not text.startswith("unix:"))
        return next(listen, "")

    @property
    def store_url(self) -> str:
        """Return the SQLAlchemy URL of the store, or the empty text where it is off."""
        if self.store.url is None:
            return f"sqlite:///{self.node.data_dir / 'store.db'}"
        return self.store.url


class RunOptions(Struct, frozen=True, kw_only=True):
    """How to run a node this once; none of it belongs to the configuration."""

    replay: Path | None = None
    """A recording that stands in for the market, or None."""
    speed: float | None = 1.0
    """Market time per wall-clock time; None is as fast as possible."""
    duration_s: float | None = None
    """Stop so many seconds of the node's own clock (in a replay: recorded seconds) after the instances started."""
    seed: int = 1
    """Decides everything random: the synthetic market and the simulated latency."""
    ui: bool = False
    """Show the live terminal view."""

    @property
    def is_simulated(self) -> bool:
        """Return whether time is the market's own: in a replay, and at any speed but that of the wall clock."""
        return self.replay is not None or self.speed != 1.0


def bundled_plugins() -> Path:
    """Return the folder of the plugins that come with Tandem."""
    return Path(__file__).resolve().parents[2] / "plugins"
