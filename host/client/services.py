"""Every RPC of the API by name, with its types. What each does is documented in `proto/tandem/v1/`."""

import re
from typing import Any, TypeVar, get_origin, get_type_hints

from google.protobuf.descriptor import ServiceDescriptor

from host.client.calling import Caller, Unary, Watch
from tandem.v1 import node_pb2 as n
from tandem.v1 import plugin_pb2 as p
from tandem.v1 import trading_pb2 as t

__all__ = ["NodeCalls", "PluginCalls", "TradingCalls", "bind"]

Service = TypeVar("Service")


class NodeCalls:
    """`tandem.v1.NodeService`."""

    get_status: Unary[n.GetStatusRequest, n.GetStatusResponse]
    watch_status: Watch[n.WatchStatusRequest, n.WatchStatusResponse]
    list_events: Unary[n.ListEventsRequest, n.ListEventsResponse]
    watch_events: Watch[n.WatchEventsRequest, n.WatchEventsResponse]
    get_config: Unary[n.GetConfigRequest, n.GetConfigResponse]
    get_log_level: Unary[n.GetLogLevelRequest, n.GetLogLevelResponse]
    set_log_level: Unary[n.SetLogLevelRequest, n.SetLogLevelResponse]
    drain: Unary[n.DrainRequest, n.DrainResponse]
    shutdown: Unary[n.ShutdownRequest, n.ShutdownResponse]
    get_failover: Unary[n.GetFailoverRequest, n.GetFailoverResponse]
    switchover: Unary[n.SwitchoverRequest, n.SwitchoverResponse]
    promote: Unary[n.PromoteRequest, n.PromoteResponse]
    set_maintenance: Unary[n.SetMaintenanceRequest, n.SetMaintenanceResponse]


class PluginCalls:
    """`tandem.v1.PluginService`: plugins, versions and instances."""

    list_plugins: Unary[p.ListPluginsRequest, p.ListPluginsResponse]
    get_plugin: Unary[p.GetPluginRequest, p.GetPluginResponse]
    watch_plugins: Watch[p.WatchPluginsRequest, p.WatchPluginsResponse]
    list_versions: Unary[p.ListVersionsRequest, p.ListVersionsResponse]
    reload_plugin: Unary[p.ReloadPluginRequest, p.ReloadPluginResponse]
    activate_version: Unary[p.ActivateVersionRequest, p.ActivateVersionResponse]
    promote_plugin: Unary[p.PromotePluginRequest, p.PromotePluginResponse]
    roll_back_plugin: Unary[p.RollBackPluginRequest, p.RollBackPluginResponse]
    set_auto_reload: Unary[p.SetAutoReloadRequest, p.SetAutoReloadResponse]
    list_instances: Unary[p.ListInstancesRequest, p.ListInstancesResponse]
    get_instance: Unary[p.GetInstanceRequest, p.GetInstanceResponse]
    watch_instances: Watch[p.WatchInstancesRequest, p.WatchInstancesResponse]
    create_instance: Unary[p.CreateInstanceRequest, p.CreateInstanceResponse]
    start_instance: Unary[p.StartInstanceRequest, p.StartInstanceResponse]
    pause_instance: Unary[p.PauseInstanceRequest, p.PauseInstanceResponse]
    resume_instance: Unary[p.ResumeInstanceRequest, p.ResumeInstanceResponse]
    stop_instance: Unary[p.StopInstanceRequest, p.StopInstanceResponse]
    remove_instance: Unary[p.RemoveInstanceRequest, p.RemoveInstanceResponse]
    set_params: Unary[p.SetParamsRequest, p.SetParamsResponse]


class TradingCalls:
    """`tandem.v1.TradingService`: what is traded, trading by hand, risk limits."""

    list_orders: Unary[t.ListOrdersRequest, t.ListOrdersResponse]
    get_order: Unary[t.GetOrderRequest, t.GetOrderResponse]
    watch_orders: Watch[t.WatchOrdersRequest, t.WatchOrdersResponse]
    list_fills: Unary[t.ListFillsRequest, t.ListFillsResponse]
    watch_fills: Watch[t.WatchFillsRequest, t.WatchFillsResponse]
    list_positions: Unary[t.ListPositionsRequest, t.ListPositionsResponse]
    watch_positions: Watch[t.WatchPositionsRequest, t.WatchPositionsResponse]
    list_balances: Unary[t.ListBalancesRequest, t.ListBalancesResponse]
    watch_balances: Watch[t.WatchBalancesRequest, t.WatchBalancesResponse]
    list_books: Unary[t.ListBooksRequest, t.ListBooksResponse]
    get_book: Unary[t.GetBookRequest, t.GetBookResponse]
    watch_books: Watch[t.WatchBooksRequest, t.WatchBooksResponse]
    place_order: Unary[t.PlaceOrderRequest, t.PlaceOrderResponse]
    amend_order: Unary[t.AmendOrderRequest, t.AmendOrderResponse]
    cancel_order: Unary[t.CancelOrderRequest, t.CancelOrderResponse]
    cancel_all_orders: Unary[t.CancelAllOrdersRequest, t.CancelAllOrdersResponse]
    flatten: Unary[t.FlattenRequest, t.FlattenResponse]
    panic_stop: Unary[t.PanicStopRequest, t.PanicStopResponse]
    release_panic_stop: Unary[t.ReleasePanicStopRequest, t.ReleasePanicStopResponse]
    list_risk_limits: Unary[t.ListRiskLimitsRequest, t.ListRiskLimitsResponse]
    get_risk_limits: Unary[t.GetRiskLimitsRequest, t.GetRiskLimitsResponse]
    set_risk_limits: Unary[t.SetRiskLimitsRequest, t.SetRiskLimitsResponse]


def bind(calls: type[Service], service: ServiceDescriptor, caller: Caller) -> Service:
    """Return one of the above, each RPC of it ready to be called."""
    bound = calls()
    methods = {_snake(method.name): method for method in service.methods}
    for name, hint in get_type_hints(calls).items():
        make: Any = get_origin(hint)
        setattr(bound, name, make(caller, methods[name]))
    return bound


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
