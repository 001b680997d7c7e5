"""NodeService: what the node is doing, what happened, and how to stop it."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Final

from host.control.call import Call
from host.control.config_view import shown_config
from host.control.convert_failover import failover_message
from host.control.event_methods import EventMethods
from host.control.failover_methods import FailoverMethods
from host.control.names import scope_name
from host.control.plain import duration, duration_ns, timestamp, to_struct
from host.control.reasons import Refused
from host.control.recorded import recorded_instances
from host.control.subject import Phase, Subject
from host.core.entries import InstanceState
from host.runtime.latency import Histogram
from host.runtime.turn import turn
from tandem.v1 import node_pb2 as pb

__all__ = ["NodeService"]

_log = logging.getLogger("tandem.control")

MIN_INTERVAL_NS: Final = 100_000_000
DEFAULT_INTERVAL_NS: Final = 1_000_000_000
DEFAULT_DRAIN_NS: Final = 5_000_000_000
MAX_DRAIN_NS: Final = 60_000_000_000
RATE_WINDOW_S: Final = 2.0
"""The rate of events is measured anew after so long."""

_PHASES: Final = {
    Phase.STARTING: pb.NODE_PHASE_STARTING,
    Phase.RUNNING: pb.NODE_PHASE_RUNNING,
    Phase.STOPPING: pb.NODE_PHASE_STOPPING,
}


class NodeService(EventMethods, FailoverMethods):
    """The methods of `tandem.v1.NodeService`."""

    def __init__(self, subject: Subject) -> None:
        EventMethods.__init__(self, subject)
        FailoverMethods.__init__(self, subject)
        self._started_s = self._rate_s = time.monotonic()
        self._rate_engine = subject.engine
        self._rate_events = subject.engine.events
        self._rate = 0.0

    # -- status ------------------------------------------------------------------------------------

    def get_status(self, _request: pb.GetStatusRequest, _call: Call) -> pb.GetStatusResponse:
        """Return what the node is doing now."""
        return pb.GetStatusResponse(status=self._status())

    async def watch_status(
        self, request: pb.WatchStatusRequest, _call: Call
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """Send the status again and again."""
        interval_ns = duration_ns(request.interval) if request.HasField("interval") else DEFAULT_INTERVAL_NS
        if interval_ns < MIN_INTERVAL_NS:
            text = f"expected at least {MIN_INTERVAL_NS / 1e9:g} s, was {interval_ns / 1e9:g} s"
            raise Refused.field("interval", text)
        while True:
            yield pb.WatchStatusResponse(status=self._status())
            await asyncio.sleep(interval_ns / 1e9)

    def _status(self) -> pb.NodeStatus:
        engine, subject = self._subject.engine, self._subject
        state, journal, primary = engine.state, engine.journal, subject.standby_of()
        pair = None if subject.leadership is None else subject.leadership.status()
        now_s = time.monotonic()
        if self._rate_engine is not engine:
            self._rate, self._rate_s, self._rate_engine, self._rate_events = 0.0, now_s, engine, engine.events
        if now_s - self._rate_s >= RATE_WINDOW_S:
            self._rate = (engine.events - self._rate_events) / (now_s - self._rate_s)
            self._rate_s, self._rate_events = now_s, engine.events
        status = pb.NodeStatus(
            # Not as the journal has them: a standby's is its primary's.
            node=subject.config().node.name,
            cell=state.cell if pair is None else pair.cell,
            role=pb.NODE_ROLE_STANDBY if subject.is_standby else pb.NODE_ROLE_PRIMARY,
            primary_address=primary or "",
            phase=pb.NODE_PHASE_HALTED if engine.halted else _PHASES[subject.phase],
            halted=engine.halted,
            epoch=state.epoch,
            last_lsn=journal.last_lsn,
            flushed_lsn=journal.flushed_lsn,
            first_lsn=journal.first_lsn,
            host_version=subject.host_version,
            start_time=timestamp(subject.started_ns),
            time=timestamp(engine.clock.now_ns()),
            uptime=duration(int((now_s - self._started_s) * 1e9)),
            counters=pb.Counters(
                events=engine.events,
                orders=engine.oms.outbox.orders_sent,
                amends=engine.oms.outbox.amends_sent,
                cancels=engine.oms.outbox.cancels_sent,
                fills=engine.fills,
                rejects=engine.rejects,
                refused=engine.oms.outbox.refused,
                reloads=0 if subject.reloader is None else subject.reloader.reloads,
            ),
            events_per_second=self._rate,
            tick_to_order=_latency(engine.tick_to_order),
            open_orders=len(state.orders),
            instances=Counter(state.upper() for state in self._instance_states()),
            accounts=[self._account(name) for name in engine.feeds],
            stopped_scopes={scope_name(scope): why for scope, why in state.kill_switches.items()},
        )
        lag = subject.store_lag()
        if lag is not None:
            status.store_lag = lag
        if pair is not None:
            status.failover.CopyFrom(failover_message(pair))
        return status

    def _instance_states(self) -> Iterable[InstanceState]:
        subject = self._subject
        if subject.instances is None:
            return (record.state for record in recorded_instances(subject).values())
        return (one.state for one in subject.engine.roster.instances.values())

    def _account(self, name: str) -> pb.AccountStatus:
        engine = self._subject.engine
        feed = engine.feeds[name]
        exchange = next((a.exchange for a in self._subject.config().account if a.name == name), "")
        ready = engine.reconciler.is_ready(name) and not feed.failure
        detail = "" if ready else feed.failure or f"waits for {engine.reconciler.waiting_for(name)}"
        return pb.AccountStatus(name=f"accounts/{name}", exchange=exchange, ready=ready, detail=detail)

    # -- configuration -----------------------------------------------------------------------------

    def get_config(self, _request: pb.GetConfigRequest, _call: Call) -> pb.GetConfigResponse:
        """Return the configuration in force, without secrets."""
        subject = self._subject
        response = pb.GetConfigResponse(files=map(str, subject.config_files))
        to_struct(shown_config(subject.config()), response.config)
        return response

    # -- the log -----------------------------------------------------------------------------------

    def get_log_level(self, _request: pb.GetLogLevelRequest, _call: Call) -> pb.GetLogLevelResponse:
        """Return how much the node logs."""
        return pb.GetLogLevelResponse(level=_level_in_force())

    def set_log_level(self, request: pb.SetLogLevelRequest, call: Call) -> pb.SetLogLevelResponse:
        """Change how much the node logs, until it restarts."""
        wanted = _LEVELS.get(request.level)
        if wanted is None:
            names = ", ".join(pb.LogLevel.Name(level) for level in _LEVELS)
            raise Refused.field("level", f"expected one of {names}, was {request.level}")
        if not request.validate_only:
            call.before = logging.getLevelName(_logger().level)
            _logger().setLevel(wanted)
            call.after = logging.getLevelName(wanted)
        return pb.SetLogLevelResponse(level=request.level)

    # -- the end -----------------------------------------------------------------------------------

    async def drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        """Pause every running instance, cancel every order, and wait until the venue has confirmed it."""
        wait_ns = duration_ns(request.wait) if request.HasField("wait") else DEFAULT_DRAIN_NS
        if not 0 <= wait_ns <= MAX_DRAIN_NS:
            text = f"expected 0 to {MAX_DRAIN_NS / 1e9:g} s, was {wait_ns / 1e9:g} s"
            raise Refused.field("wait", text)
        engine = self._subject.engine
        orders = len(engine.state.orders)
        running = [one for one in engine.roster.instances.values() if one.state is InstanceState.RUNNING]
        response = pb.DrainResponse(open_orders=orders)
        if request.validate_only:
            return response
        response.paused_instances.extend(f"instances/{one.instance}" for one in running)
        response.cancelled_orders = orders
        call.before = {"running": [one.instance for one in running], "open_orders": orders}
        why = f"drained by {call.because(request.reason)}"
        with turn(engine) as now_ns:
            for instance in running:
                engine.roster.pause(instance, why)
            engine.oms.cancel_all(engine.state.orders.values(), why, now_ns, call.principal.name)
            call.keep(response)
        call.after = {"running": [], "open_orders": len(engine.state.orders)}
        try:
            async with asyncio.timeout(wait_ns / 1e9):
                while engine.state.orders and not engine.halted:
                    await self._subject.tail.wait(engine.journal.flushed_lsn + 1)
        except TimeoutError:
            _log.warning("drain: %d orders are not confirmed cancelled yet", len(engine.state.orders))
        response.open_orders = len(engine.state.orders)
        call.after = {"running": [], "open_orders": response.open_orders}
        return response

    def shutdown(self, request: pb.ShutdownRequest, call: Call) -> pb.ShutdownResponse:
        """Have the node stop cleanly, once this answer is sent."""
        if not request.validate_only:
            call.before, call.after = str(self._subject.phase), "stopping"
            self._subject.stop(f"shut down by {call.because(request.reason)}")
        return pb.ShutdownResponse()


def _latency(histogram: Histogram) -> pb.LatencyStats:
    if not histogram.count:
        return pb.LatencyStats()
    return pb.LatencyStats(
        count=histogram.count,
        p50=duration(int(histogram.quantile_us(0.5) * 1e3)),
        p99=duration(int(histogram.quantile_us(0.99) * 1e3)),
        max=duration(histogram.max_ns),
    )


_LEVELS: Final = {
    pb.LOG_LEVEL_DEBUG: logging.DEBUG,
    pb.LOG_LEVEL_INFO: logging.INFO,
    pb.LOG_LEVEL_WARNING: logging.WARNING,
    pb.LOG_LEVEL_ERROR: logging.ERROR,
}


def _logger() -> logging.Logger:
    """Return the logger that every part of Tandem logs under."""
    return logging.getLogger("tandem")


def _level_in_force() -> "pb.LogLevel.ValueType":
    effective = _logger().getEffectiveLevel()
    return next((ours for ours, level in _LEVELS.items() if level >= effective), pb.LOG_LEVEL_ERROR)
