"""What each RPC needs: one row for every method of every service; a test holds it against the protos."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from host.control.principal import Role

__all__ = ["RULES", "Rule"]


class Rule(Struct, frozen=True):
    """What a caller must be, and what holds for the call.

    `mutates`: it may change something, so it is audited and a request id makes it happen once.
    `on_standby`: a node that does not trade answers too. `stops`: it only makes trading less, and so
    must work even where it cannot be audited. `changes_role`: the node's role changes while it is carried
    out, which ends all other calls.
    """

    role: Role
    mutates: bool = False
    on_standby: bool = False
    stops: bool = False
    changes_role: bool = False


_LOOK: Final = Rule(Role.VIEWER, on_standby=True)
_RUN: Final = Rule(Role.OPERATOR, mutates=True)
_STOP: Final = Rule(Role.OPERATOR, mutates=True, stops=True)
_TRADE: Final = Rule(Role.TRADER, mutates=True)

RULES: Final[Mapping[str, Rule]] = {
    "tandem.v1.NodeService/GetStatus": _LOOK,
    "tandem.v1.NodeService/WatchStatus": _LOOK,
    "tandem.v1.NodeService/ListEvents": _LOOK,
    "tandem.v1.NodeService/WatchEvents": _LOOK,
    # Addresses of databases and venues are nothing for everybody who may look.
    "tandem.v1.NodeService/GetConfig": Rule(Role.OPERATOR, on_standby=True),
    "tandem.v1.NodeService/GetLogLevel": _LOOK,
    "tandem.v1.NodeService/SetLogLevel": Rule(Role.OPERATOR, mutates=True, on_standby=True),
    "tandem.v1.NodeService/Drain": Rule(Role.ADMIN, mutates=True, stops=True),
    "tandem.v1.NodeService/Shutdown": Rule(Role.ADMIN, mutates=True, on_standby=True, stops=True),
    "tandem.v1.NodeService/GetFailover": _LOOK,
    "tandem.v1.NodeService/Switchover": Rule(Role.ADMIN, mutates=True, changes_role=True),
    "tandem.v1.NodeService/Promote": Rule(Role.ADMIN, mutates=True, on_standby=True, changes_role=True),
    "tandem.v1.NodeService/SetMaintenance": Rule(Role.ADMIN, mutates=True, on_standby=True),
    "tandem.v1.PluginService/ListPlugins": _LOOK,
    "tandem.v1.PluginService/GetPlugin": _LOOK,
    "tandem.v1.PluginService/WatchPlugins": _LOOK,
    "tandem.v1.PluginService/ListVersions": _LOOK,
    "tandem.v1.PluginService/ReloadPlugin": _RUN,
    "tandem.v1.PluginService/ActivateVersion": _RUN,
    "tandem.v1.PluginService/PromotePlugin": _RUN,
    "tandem.v1.PluginService/RollBackPlugin": _RUN,
    "tandem.v1.PluginService/SetAutoReload": _RUN,
    "tandem.v1.PluginService/ListInstances": _LOOK,
    "tandem.v1.PluginService/GetInstance": _LOOK,
    "tandem.v1.PluginService/WatchInstances": _LOOK,
    "tandem.v1.PluginService/CreateInstance": _RUN,
    "tandem.v1.PluginService/StartInstance": _RUN,
    "tandem.v1.PluginService/PauseInstance": _STOP,
    "tandem.v1.PluginService/ResumeInstance": _RUN,
    "tandem.v1.PluginService/StopInstance": _STOP,
    "tandem.v1.PluginService/RemoveInstance": _RUN,
    "tandem.v1.PluginService/SetParams": _RUN,
    "tandem.v1.TradingService/ListOrders": _LOOK,
    "tandem.v1.TradingService/GetOrder": _LOOK,
    "tandem.v1.TradingService/WatchOrders": _LOOK,
    "tandem.v1.TradingService/ListFills": _LOOK,
    "tandem.v1.TradingService/WatchFills": _LOOK,
    "tandem.v1.TradingService/ListPositions": _LOOK,
    "tandem.v1.TradingService/WatchPositions": _LOOK,
    "tandem.v1.TradingService/ListBalances": _LOOK,
    "tandem.v1.TradingService/WatchBalances": _LOOK,
    "tandem.v1.TradingService/ListBooks": _LOOK,
    "tandem.v1.TradingService/GetBook": _LOOK,
    "tandem.v1.TradingService/WatchBooks": _LOOK,
    "tandem.v1.TradingService/PlaceOrder": _TRADE,
    "tandem.v1.TradingService/AmendOrder": _TRADE,
    "tandem.v1.TradingService/CancelOrder": Rule(Role.TRADER, mutates=True, stops=True),
    # Stopping is the operator's: it makes nothing worse that can be made worse.
    "tandem.v1.TradingService/CancelAllOrders": _STOP,
    "tandem.v1.TradingService/PanicStop": _STOP,
    "tandem.v1.TradingService/Flatten": _TRADE,
    "tandem.v1.TradingService/ReleasePanicStop": _TRADE,
    "tandem.v1.TradingService/ListRiskLimits": _LOOK,
    "tandem.v1.TradingService/GetRiskLimits": _LOOK,
    "tandem.v1.TradingService/SetRiskLimits": _TRADE,
}
"""By full method name, as gRPC writes it without the first slash."""
