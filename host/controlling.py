"""The control API of a node: puts the server together and takes it down again."""

import logging
import time
from datetime import UTC, datetime
from typing import Final

from host.config import NodeConfig, RunOptions
from host.control.audit import AuditError, AuditEvent, AuditLog
from host.control.audit_chain import AUDIT_FOLDER, Anchor
from host.control.callers import Callers
from host.control.door import DoorRefusal
from host.control.front import Front
from host.control.listen import plan_listeners
from host.control.node_service import NodeService
from host.control.plugin_service import PluginService
from host.control.principal import Role
from host.control.server import ControlServer
from host.control.subject import Phase, Subject
from host.control.tls import ServerTls, TlsFiles
from host.control.tokens import TOKENS_FILE, TokenStore
from host.control.trading_service import TradingService
from host.core.entries import AuditAnchored
from host.journal import JournalError

__all__ = ["Control"]

_log = logging.getLogger("tandem.control")
CLOSE_GRACE_S: Final = 0.5
"""How long calls under way may take when the node ends."""


class Control:
    """Serves a node's control API from `start` to `close`; without an address it does nothing."""

    def __init__(self, config: NodeConfig, options: RunOptions, subject: Subject) -> None:
        self._config = config
        self._subject = subject
        # Simulated time has no operator; its journal must depend on the recording alone.
        is_served = not options.is_simulated or config.control.listen is not None
        self._listen = config.control_listen if is_served else ()
        self._server: ControlServer | None = None
        self._callers: Callers | None = None
        self._audit: AuditLog | None = None
        self._tls: ServerTls | None = None
        self._tls_warning = ""

    async def start(self) -> None:
        """Listen; raise `TandemError` where that cannot be done, or not safely."""
        if not self._listen:
            return
        config, subject = self._config, self._subject
        folder = config.node.data_dir
        tokens = TokenStore.open(folder / TOKENS_FILE)
        tls = _tls(config)
        listeners = plan_listeners(
            self._listen,
            has_server_certificate=tls is not None,
            has_caller_proof=any(not one.is_expired(time.time_ns()) for one in tokens.records())
            or (tls is not None and tls.files.client_ca is not None),
        )
        self._tls = tls
        self._audit = AuditLog.open(folder / AUDIT_FOLDER, on_anchor=self._anchor)
        role = config.control.loopback_role
        self._callers = Callers(
            tokens, time.time_ns, loopback_role=None if role == "none" else Role.parse(role)
        )
        front = Front(subject, self._callers, self._audit, config.control.watch_stall_ms / 1e3)
        services = {
            "tandem.v1.NodeService": NodeService(subject),
            "tandem.v1.PluginService": PluginService(subject),
            "tandem.v1.TradingService": TradingService(subject),
        }
        self._server = ControlServer(services, front, self._callers, folder)
        await self._server.start(listeners, tls, self._on_refused)
        self.look_after()

    def look_after(self) -> None:
        """Do what is due with the housekeeping of the engine that the subject has now."""
        if self._server is not None:
            self._subject.engine.upkeep.duties.append(self._on_time)

    async def running(self, *, is_primary: bool = True) -> None:
        """Say that the node trades from here on, or else that it stands by and answers."""
        self._subject.phase = Phase.RUNNING
        if self._server is not None:
            await self._server.set_primary(is_primary=is_primary)

    async def stopping(self) -> None:
        """Say that the node does not trade any more."""
        self._subject.phase = Phase.STOPPING
        if self._server is not None:
            await self._server.set_primary(is_primary=False)

    async def close(self) -> None:
        """End every call and stop listening."""
        if self._server is not None:
            await self._server.close(CLOSE_GRACE_S)
        if self._callers is not None:
            self._callers.close()
        self._subject.tail.close()
        if self._audit is not None:
            try:
                self._audit.close(time.time_ns())
            except AuditError as error:
                _log.error("%s", error)

    def _anchor(self, anchor: Anchor) -> None:
        """Journal what the audit log's newest record is: a log that is cut short later does not agree."""
        engine = self._subject.engine
        if not self._subject.may_record:
            return  # nothing is written any more, or yet; the log's own chain goes on
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        try:
            engine.record(AuditAnchored(anchor.seq, anchor.hash), now_ns)
        except JournalError as error:
            engine.abort_turn(error)
            return
        engine.end_turn(now_ns, 0)

    def _warn_of_tls(self) -> None:
        """Alert once for each thing about the node's certificate that needs somebody's hand."""
        text = "" if self._tls is None else self._tls.warning(datetime.now(UTC))
        if text and text != self._tls_warning and not self._subject.engine.halted:
            self._subject.engine.alert("tls_warning", text)
        self._tls_warning = text

    def _on_time(self, _now_ns: int) -> None:
        assert self._audit is not None
        self._warn_of_tls()
        try:
            self._audit.tick(time.time_ns())
        except AuditError as error:
            _log.error("%s", error)

    def _on_refused(self, refusal: DoorRefusal) -> None:
        assert self._audit is not None
        event = AuditEvent(
            who="", peer=refusal.address, method="connect", outcome=refusal.reason, detail=refusal.text
        )
        try:
            self._audit.refuse(event, time.time_ns(), refusal.count)
        except AuditError as error:
            _log.error("%s", error)


def _tls(config: NodeConfig) -> ServerTls | None:
    section = config.control.tls
    if section is None:
        return None
    files = TlsFiles(
        certificate=section.certificate,
        key=section.key,
        client_ca=section.client_ca,
        require_client_certificate=section.require_client_certificate,
    )
    return ServerTls(files, datetime.now(UTC))
