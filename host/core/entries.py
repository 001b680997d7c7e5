"""What the journal holds: one record type for every way in which trading state can change.

Trading state is a fold over these (`host/core/state.py`); recovery, the standby, the SQL
projection and the audit log are readers of them. Entries are encoded as [tag, field, ...]: fields
are only ever appended, with a default, and a tag is never reused.
"""

from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from host.api import (
    AccountSnapshot,
    AmendRejected,
    CancelRejected,
    ConnectionChanged,
    Fill,
    Instrument,
    Order,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    OrderType,
    RequestUnanswered,
    Side,
    TimeInForce,
)

__all__ = [
    "AccountReported",
    "Alert",
    "AmendSent",
    "AuditAnchored",
    "AutoReloadSet",
    "CancelSent",
    "Change",
    "CommandRefused",
    "ConfigApplied",
    "ConnectionReported",
    "Entry",
    "EquityMarked",
    "FillAdopted",
    "FlattenSet",
    "InstanceAdded",
    "InstanceChanged",
    "InstanceConfigured",
    "InstanceHeld",
    "InstanceIsolated",
    "InstanceRemoved",
    "InstanceRevised",
    "InstanceState",
    "InstrumentSet",
    "KillSwitchSet",
    "MaintenanceSet",
    "NodeStarted",
    "NodeStopped",
    "OrderAdopted",
    "OrderReport",
    "OrderResolved",
    "ParamsChanged",
    "PlaceSent",
    "PluginLoaded",
    "PositionAdjusted",
    "Record",
    "Reported",
    "RequestServed",
    "RiskLimitsSet",
    "StageReported",
    "StateDigest",
    "StrategyStateSaved",
    "TriggerFired",
    "VersionMoved",
    "VersionState",
]


class _Entry(Struct, frozen=True, array_like=True, tag_field="entry", gc=False):
    pass


class InstanceState(StrEnum):
    """The life of an instance: LOADED → STARTING → RUNNING ⇄ PAUSED → STOPPED, or QUARANTINED."""

    LOADED = "loaded"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    """Receives data, has no quotes."""
    STOPPED = "stopped"
    """Receives nothing."""
    QUARANTINED = "quarantined"
    """Its code misbehaved: receives nothing, its orders were pulled."""


OrderReport = (
    OrderAccepted
    | OrderRejected
    | OrderFilled
    | OrderCancelled
    | OrderExpired
    | OrderAmended
    | AmendRejected
    | CancelRejected
    | RequestUnanswered
    | OrderSnapshot
    | OrderNotFound
)
"""The reports that concern one order and so change its state."""


# -- the node and its plugins --------------------------------------------------------------------


class NodeStarted(_Entry, frozen=True, tag="node_started"):
    """A process took up this journal. `epoch` is one more than any before it."""

    node: str
    cell: str
    epoch: int
    host_version: str


class NodeStopped(_Entry, frozen=True, tag="node_stopped"):
    """The process ended on purpose."""

    reason: str


class PluginLoaded(_Entry, frozen=True, tag="plugin_loaded"):
    """A plugin's bytes were loaded. `digest` is the SHA-256 of all its files, in hex."""

    plugin: str
    path: str
    digest: str
    offers: tuple[str, ...]


class VersionState(StrEnum):
    """What became of a version of a plugin's bytes."""

    STAGED = "staged"
    """Proved up to warm-up; waits for an operator to activate it."""
    ACTIVE = "active"
    """Runs, on probation: a restart comes back to the permanent version."""
    PERMANENT = "permanent"
    """Runs, and a restart comes back to it."""
    REFUSED = "refused"
    """Failed a stage before it went live; not tried again by itself."""
    ROLLED_BACK = "rolled_back"
    """Went live, misbehaved and was taken back; not tried again by itself."""
    STUCK = "stuck"
    """Retired, but something still holds its code."""


class StageReported(_Entry, frozen=True, tag="stage_reported"):
    """One stage of a reload is over. `outcome` is `passed`, `failed` or `skipped`."""

    plugin: str
    digest: str
    stage: str
    outcome: str
    duration_us: int
    detail: str


class VersionMoved(_Entry, frozen=True, tag="version_moved"):
    """A version of a plugin reached another state."""

    plugin: str
    digest: str
    state: VersionState
    reason: str


class InstanceRevised(_Entry, frozen=True, tag="instance_revised"):
    """From here on an instance runs other plugin bytes; its orders and positions stay its own."""

    instance: str
    digest: str
    reason: str


class AutoReloadSet(_Entry, frozen=True, tag="auto_reload_set"):
    """Changed files of a plugin go live by themselves (`is_on`), or only when an operator says so."""

    plugin: str
    is_on: bool
    reason: str


class InstanceAdded(_Entry, frozen=True, tag="instance_added"):
    """An instance exists. `number` stands for it in client order ids and is never reused."""

    instance: str
    number: int
    plugin: str
    digest: str
    account: str
    symbols: tuple[str, ...]
    params: bytes
    """JSON."""


class InstanceChanged(_Entry, frozen=True, tag="instance_changed"):
    """An instance moved to another state, or stays there for another reason."""

    instance: str
    state: InstanceState
    reason: str
    by: str = ""
    """`schedule` or `dependency` where the scheduler did it, and takes it back; empty: somebody or something else."""


class TriggerFired(_Entry, frozen=True, tag="trigger_fired"):
    """A trigger of an instance's schedule, due at `due_ns`, is about to call it: it does so once, on any node."""

    instance: str
    trigger: str
    due_ns: int


class ParamsChanged(_Entry, frozen=True, tag="params_changed"):
    """An instance has new parameters. `params` is JSON, `who` is the caller, `config`, or `reload`.

    The last is written where those of the version that is permanent by now are others than those before it.
    """

    instance: str
    params: bytes
    who: str


class InstanceConfigured(_Entry, frozen=True, tag="instance_configured"):
    """An instance that the control API made is configured so from here on, over restarts too.

    `section` is what an `[[instance]]` of the configuration file would hold, as JSON.
    """

    instance: str
    section: bytes
    who: str


class InstanceRemoved(_Entry, frozen=True, tag="instance_removed"):
    """An instance that the control API made is not to come back after a restart."""

    instance: str
    who: str


class InstanceHeld(_Entry, frozen=True, tag="instance_held"):
    """An operator stopped an instance (`is_held`): it is not started until an operator starts it."""

    instance: str
    is_held: bool
    who: str


class InstanceIsolated(_Entry, frozen=True, tag="instance_isolated"):
    """An instance runs in a worker process from here on, whatever is configured, while its plugin has this digest.

    An empty digest: it runs as it is configured again.
    """

    instance: str
    digest: str
    reason: str


class RequestServed(_Entry, frozen=True, tag="request_served"):
    """A mutation that came with a request id was carried out and answered with `response`.

    `digest` is the SHA-256 of the request, in hex: the same id with another request is refused.
    """

    who: str
    request_id: str
    method: str
    digest: str
    response: bytes


class ConfigApplied(_Entry, frozen=True, tag="config_applied"):
    """An edit of the configuration file is in force from here on. Each change: key, before → after."""

    changes: tuple[str, ...]


class StrategyStateSaved(_Entry, frozen=True, tag="strategy_state_saved"):
    """The state of a strategy as of this entry. `data` is msgpack of plain data.

    `heard` is how many of its oldest news (`TradingState.unheard`) it has taken in; −1: all of them.
    """

    instance: str
    state_version: int
    data: bytes
    heard: int = -1


class InstrumentSet(_Entry, frozen=True, tag="instrument_set"):
    """What the venue of `account` allows for one symbol, from here on."""

    account: str
    instrument: Instrument


# -- orders --------------------------------------------------------------------------------------


class PlaceSent(_Entry, frozen=True, tag="place_sent"):
    """An order is about to be sent. Written before the bytes leave."""

    client_id: str
    instance: str
    account: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: Decimal | None
    qty: Decimal
    post_only: bool
    reduce_only: bool
    slot: int
    by: str = ""
    """Who placed it by hand; empty: the instance's own code did."""


class Change(Struct, frozen=True, array_like=True, gc=False):
    """A new price and total quantity (filled part included) for one resting order."""

    client_id: str
    price: Decimal
    qty: Decimal


class AmendSent(_Entry, frozen=True, tag="amend_sent"):
    """Changes of resting orders are about to be sent: all that one quote asks for."""

    changes: tuple[Change, ...]
    by: str = ""
    """Who asked for it by hand; empty: the host itself."""


class CancelSent(_Entry, frozen=True, tag="cancel_sent"):
    """A cancel is about to be sent."""

    client_id: str
    reason: str
    by: str = ""
    """Who asked for it by hand; empty: the host or the instance's own code."""


class CommandRefused(_Entry, frozen=True, tag="command_refused"):
    """A risk check or the gate kept a command from the venue. `client_id` is set once it has one.

    Where `client_id` names a journaled order that was pending-new, the order never left: it is
    dead, and this entry is the proof.
    """

    instance: str
    account: str
    symbol: str
    action: str
    reason: str
    detail: str
    client_id: str = ""


class Reported(_Entry, frozen=True, tag="reported"):
    """The venue of `account` said something about one order."""

    account: str
    report: OrderReport


class OrderResolved(_Entry, frozen=True, tag="order_resolved"):
    """Reconciliation settled an order's fate. `proof` says what the venue's answer was."""

    client_id: str
    status: OrderStatus
    proof: str


class OrderAdopted(_Entry, frozen=True, tag="order_adopted"):
    """An order with our prefix that the journal did not know was found live at the venue."""

    order: Order


class FillAdopted(_Entry, frozen=True, tag="fill_adopted"):
    """A fill of an order that the journal does not know, found at the venue."""

    fill: Fill


# -- accounts ------------------------------------------------------------------------------------


class AccountReported(_Entry, frozen=True, tag="account_reported"):
    """The venue's view of balances and positions; balances are taken over from it."""

    account: str
    snapshot: AccountSnapshot


class PositionAdjusted(_Entry, frozen=True, tag="position_adjusted"):
    """Our position was set right by `qty` to match the venue's. Always comes with an alert."""

    account: str
    instance: str
    symbol: str
    qty: Decimal
    price: Decimal
    reason: str


class EquityMarked(_Entry, frozen=True, tag="equity_marked"):
    """Profit and loss of one instance in one symbol at a mark price. All in settlement currency.

    `total` = `realised` + `unrealised` − `fees`; fees in other currencies are converted at `mark`
    where the symbol prices them and otherwise left out and listed by the fills alone.
    """

    account: str
    instance: str
    symbol: str
    mark: Decimal
    qty: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    total: Decimal


# -- safety --------------------------------------------------------------------------------------


class KillSwitchSet(_Entry, frozen=True, tag="kill_switch_set"):
    """New orders of `scope` are refused (`is_on`) or allowed again.

    A scope is `node`, `account:NAME`, `instance:NAME` or `symbol:NAME`.
    """

    scope: str
    is_on: bool
    reason: str
    by: str = ""
    """Who asked for it by hand; empty: a risk limit, or the operator of a stopped node."""


class FlattenSet(_Entry, frozen=True, tag="flatten_set"):
    """The positions of `scope` are being closed (`is_on`), or no longer: `reason` says how it ended."""

    scope: str
    is_on: bool
    reason: str
    by: str = ""
    """Who asked for it by hand; empty: a risk limit or the host."""


class RiskLimitsSet(_Entry, frozen=True, tag="risk_limits_set"):
    """Other limits hold for `scope` than its configuration says, or, where `limits` is empty, no longer.

    Both are JSON of `host.core.risk_limits.Limits`; `configured` is what they stand in for.
    """

    scope: str
    limits: bytes
    configured: bytes
    by: str


class MaintenanceSet(_Entry, frozen=True, tag="maintenance_set"):
    """No node of the cell takes over by itself (`is_on`), or they may again. `by` is who said so."""

    is_on: bool
    by: str


class ConnectionReported(_Entry, frozen=True, tag="connection_reported"):
    """A venue connection came up or went down."""

    account: str
    change: ConnectionChanged


class Alert(_Entry, frozen=True, tag="alert"):
    """Something that a person should look at. `kind` is a stable code."""

    kind: str
    text: str
    instance: str = ""


class AuditAnchored(_Entry, frozen=True, tag="audit_anchored"):
    """The audit log's newest record and its SHA-256, kept here so that a log cut short is found out."""

    seq: int
    hash: str


class StateDigest(_Entry, frozen=True, tag="state_digest"):
    """A hash of the trading state before this entry, so that two nodes can prove they agree."""

    digest: str


Entry = (
    NodeStarted
    | NodeStopped
    | PluginLoaded
    | StageReported
    | VersionMoved
    | InstanceRevised
    | AutoReloadSet
    | InstanceAdded
    | InstanceChanged
    | TriggerFired
    | ParamsChanged
    | InstanceConfigured
    | InstanceRemoved
    | InstanceHeld
    | InstanceIsolated
    | RequestServed
    | ConfigApplied
    | StrategyStateSaved
    | InstrumentSet
    | PlaceSent
    | AmendSent
    | CancelSent
    | CommandRefused
    | Reported
    | OrderResolved
    | OrderAdopted
    | FillAdopted
    | AccountReported
    | PositionAdjusted
    | EquityMarked
    | KillSwitchSet
    | FlattenSet
    | RiskLimitsSet
    | ConnectionReported
    | MaintenanceSet
    | Alert
    | AuditAnchored
    | StateDigest
)


class Record(Struct, frozen=True, array_like=True):
    """One journal entry with its place and time. LSNs rise by one from 1."""

    lsn: int
    ts_ns: int
    entry: Entry
