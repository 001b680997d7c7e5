"""The one way in: every call of every service passes here, and every convention is kept here.

Who is it, may they, is the node in a state to do it, was it done already, do it, write it down,
and answer: with what was asked for, or with one status that says why not.
"""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from host.api import TandemError
from host.control.audit import AuditError, AuditEvent, AuditLog
from host.control.call import Call
from host.control.callers import Callers
from host.control.plain import plain
from host.control.reasons import Refused, refusal_of, status_of
from host.control.requests import ServedRequests, check_reason, check_request_id, digest_of
from host.control.rules import RULES, Rule
from host.control.subject import Subject
from host.control.under_way import role_changed
from host.control.watch_limits import WatchLimits
from host.runtime.turn import turn

__all__ = ["Front", "snake"]

_log = logging.getLogger("tandem.control")
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
REPEATED: Final = "answered as before: this request id was served"
_NAME_OF_CODE: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class Front:
    """Turns a service's plain methods into gRPC handlers that keep the conventions.

    `stall_s` is how long a watcher may leave an answer unread.
    """

    def __init__(
        self,
        subject: Subject,
        callers: Callers,
        audit: AuditLog,
        stall_s: float,
    ) -> None:
        self._subject = subject
        self._callers = callers
        self._audit = audit
        self._audit_failure = ""
        self._stall_s = stall_s
        self._served = ServedRequests(subject)
        self._watches = WatchLimits()

    @property
    def has_reflection(self) -> bool:
        """Return whether strangers to the protos may ask what services there are."""
        return self._subject.config().control.reflection

    def handlers(
        self, service: ServiceDescriptor, methods: object
    ) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handlers of a service whose methods are those of `methods`, in snake case."""
        return {
            method.name: self._handler(method, getattr(methods, snake(method.name)))
            for method in service.methods
        }

    def _handler(self, method: MethodDescriptor, behaviour: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        full_name = f"{method.containing_service.full_name}/{method.name}"
        rule = RULES[full_name]
        request_type = message_factory.GetMessageClass(method.input_type)
        # Requests come in as bytes: ones that are no message are refused here, in our words.
        if method.server_streaming:
            stream = self._stream(full_name, rule, request_type, behaviour)
            return grpc.unary_stream_rpc_method_handler(stream)
        if not rule.mutates:
            way = self._look_in_steps if inspect.iscoroutinefunction(behaviour) else self._look
            return grpc.unary_unary_rpc_method_handler(
                self._unary(full_name, rule, request_type, behaviour, way)
            )
        way = self._change_in_steps if inspect.iscoroutinefunction(behaviour) else self._change
        return grpc.unary_unary_rpc_method_handler(self._unary(full_name, rule, request_type, behaviour, way))

    # -- the ways of a call ------------------------------------------------------------------------

    def _unary(
        self,
        method: str,
        rule: Rule,
        request_type: type[Message],
        behaviour: Any,
        way: Callable[[Any, Any, Call], Awaitable[bytes]],
    ) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        has_reason = "reason" in request_type.DESCRIPTOR.fields_by_name

        async def serve(data: bytes, context: _Context) -> bytes:
            call = request = None
            try:
                call = self._identify(method, context)
                self._admit(call, rule)
                request = self._parse(request_type, data)
                if rule.mutates:
                    check_request_id(request)
                if has_reason:
                    check_reason(request)
                response = await way(behaviour, request, call)
            except TandemError as error:
                await self._refuse(refusal_of(error), method, rule, call, request, context)
            except Exception as error:  # noqa: BLE001 - root of a call: our own fault, told without details
                _log.exception("%s failed", method)
                await self._refuse(_internal(error), method, rule, call, request, context)
            else:
                return response
            raise AssertionError("a refusal ends the call")

        return serve

    def _stream(
        self, method: str, rule: Rule, request_type: type[Message], behaviour: Any
    ) -> Callable[[bytes, _Context], Awaitable[None]]:
        async def serve(data: bytes, context: _Context) -> None:
            call = request = None
            try:
                call = self._identify(method, context)
                self._admit(call, rule)
                request = self._parse(request_type, data)
                # Before any answer: gRPC cannot end a call while its first write, with these, is under way.
                await context.send_initial_metadata(())
                limits = self._subject.config().control
                with self._watches.one_more(call.principal.name, limits):
                    async with self._subject.under_way.until_ended():
                        await self._watch(behaviour(request, call), call, context)
            except TandemError as error:
                await self._refuse(refusal_of(error), method, rule, call, request, context)
            except Exception as error:  # noqa: BLE001 - root of a call
                _log.exception("%s failed", method)
                await self._refuse(_internal(error), method, rule, call, request, context)

        return serve

    async def _look(self, behaviour: Any, request: Any, call: Call) -> bytes:
        response: Message = behaviour(request, call)
        return response.SerializeToString()

    async def _look_in_steps(self, behaviour: Any, request: Any, call: Call) -> bytes:
        response: Message = await behaviour(request, call)
        return response.SerializeToString()

    async def _change(self, behaviour: Any, request: Any, call: Call) -> bytes:
        """Carry out a mutation that does not await: effect, answer and audit mark are one journal write."""
        if request.validate_only:
            return await self._look(behaviour, request, call)
        digest = ""
        if request.request_id:
            await self._served.wait_for_other(call, request.request_id)
            digest = digest_of(request)
            known = self._served.find(call, request.request_id, digest)
            if known is not None:
                self._note(call, request, REPEATED)
                return known

        def carry_out() -> bytes:
            data: bytes = behaviour(request, call).SerializeToString()
            if digest:
                self._served.note(call, request.request_id, digest, data)
            self._note(call, request)
            return data

        data: bytes = self._in_turn(carry_out)
        return data

    async def _change_in_steps(self, behaviour: Any, request: Any, call: Call) -> bytes:
        """Carry out a mutation that awaits; a second one under the same id waits for its end."""
        if request.validate_only:
            return await self._look_in_steps(behaviour, request, call)
        try:
            # What changes the role itself goes on over the change.
            is_bound = not RULES[call.method].changes_role
            async with self._subject.under_way.until_ended() if is_bound else contextlib.nullcontext():
                if request.request_id:
                    return await self._change_once(behaviour, request, call, is_bound=is_bound)
                data = await self._look_in_steps(behaviour, request, call)
        except asyncio.CancelledError:
            if call.after is not None:  # nobody hears of it any more, and it happened
                self._note(call, request, "the caller was gone before the answer")
            raise
        self._note(call, request)
        return data

    async def _change_once(self, behaviour: Any, request: Any, call: Call, *, is_bound: bool) -> bytes:
        await self._served.wait_for_other(call, request.request_id)
        digest = digest_of(request)
        known = self._served.find(call, request.request_id, digest)
        if known is not None:
            self._note(call, request, REPEATED)
            return known
        data: bytes | None = None
        engine = self._subject.engine

        def keep(response: Message) -> None:
            nonlocal data
            if is_bound and self._subject.engine is not engine:
                raise role_changed()  # its end is on the way; the answer is no affair of the new journal
            answer = response.SerializeToString()
            if answer != data:
                self._served.note(call, request.request_id, digest, answer)
            data = answer

        call.keep = keep
        mark = self._served.begin(call, request.request_id)
        try:
            response = await behaviour(request, call)
            self._in_turn(lambda: keep(response))
        finally:
            self._served.end(call, request.request_id, mark)
        self._note(call, request)
        assert data is not None, "it was kept just now"
        return data

    def _in_turn(self, work: Callable[[], Any]) -> Any:
        if not self._subject.may_record:
            return work()  # it is one of the few that do not touch trading
        with turn(self._subject.engine):
            return work()

    async def _watch(self, responses: AsyncGenerator[Message, None], call: Call, context: _Context) -> None:
        """Send what a watch yields; it is asked for more only once the last answer was taken."""
        async with contextlib.aclosing(responses) as answers:
            await self._send(answers, call, context)

    async def _send(self, answers: AsyncIterator[Message], call: Call, context: _Context) -> None:
        async for response in answers:
            try:
                async with asyncio.timeout(self._stall_s):
                    await context.write(response.SerializeToString())
            except TimeoutError:
                text = (
                    f"{call.principal.name} at {call.peer} left {call.method} unread for {self._stall_s:g} s"
                )
                self._alert("watcher_dropped", text)
                raise Refused("WATCHER_TOO_SLOW", f"{text}; watch again, and read") from None

    # -- the conventions ---------------------------------------------------------------------------

    def _identify(self, method: str, context: _Context) -> Call:
        caller = self._callers.identify(context.peer(), context.invocation_metadata() or ())
        return Call(
            method=method,
            principal=caller.principal,
            peer=caller.address,
            time_left_s=context.time_remaining(),
        )

    def _admit(self, call: Call, rule: Rule) -> None:
        principal = call.principal
        if not principal.may(rule.role):
            raise Refused(
                "ROLE_TOO_LOW",
                f"{call.method} needs the role {rule.role}, {principal.name} has {principal.role}",
                role=str(principal.role),
                needed=str(rule.role),
            )
        if call.time_left_s is not None and call.time_left_s <= 0:
            raise Refused("DEADLINE_EXCEEDED", "the deadline was over when the call came; nothing was done")
        self._subject.check(rule)
        if rule.mutates and not rule.stops and self._audit_failure:
            raise Refused("AUDIT_FAILED", self._audit_failure)

    @staticmethod
    def _parse(request_type: type[Message], data: bytes) -> Message:
        try:
            return request_type.FromString(data)
        except DecodeError as error:
            text = f"these bytes are no {request_type.DESCRIPTOR.full_name}: {error}"
            raise Refused("INVALID_REQUEST", text) from error

    async def _refuse(
        self,
        refused: Refused,
        method: str,
        rule: Rule,
        call: Call | None,
        request: Message | None,
        context: _Context,
    ) -> None:
        if rule.mutates or refused.reason in ("NOT_AUTHENTICATED", "ROLE_TOO_LOW"):
            peer = self._callers.address(context.peer())
            event = self._event(method, call, request, peer, _NAME_OF_CODE[refused.code], refused.text)
            self._write(lambda: self._audit.refuse(event, time.time_ns()))
        await context.abort_with_status(rpc_status.to_status(status_of(refused)))

    def note_stranger(self, method: str, peer: str, refused: Refused) -> None:
        """Audit that a call which does not come through here was refused, to nobody knows whom."""
        address = self._callers.address(peer)
        event = self._event(method, None, None, address, _NAME_OF_CODE[refused.code], refused.text)
        self._write(lambda: self._audit.refuse(event, time.time_ns()))

    def _note(self, call: Call, request: Message, detail: str = "") -> None:
        """Audit what was carried out."""
        event = self._event(call.method, call, request, call.peer, "OK", detail)
        self._write(lambda: self._audit.append(event, time.time_ns()))

    def _event(
        self, method: str, call: Call | None, request: Message | None, peer: str, outcome: str, detail: str
    ) -> AuditEvent:
        principal = call.principal if call is not None else None
        return AuditEvent(
            who=principal.name if principal else "",
            role=str(principal.role) if principal else "",
            via=principal.via if principal else "",
            peer=peer,
            method=method,
            request=None if request is None else plain(request),
            before=None if call is None else call.before,
            after=None if call is None else call.after,
            outcome=outcome,
            detail=detail,
        )

    def _write(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except AuditError as error:
            if not self._audit_failure:
                self._alert("audit_failed", f"{error}; changes are refused until a restart")
            self._audit_failure = str(error)

    def _alert(self, kind: str, text: str) -> None:
        if self._subject.may_record:
            self._subject.engine.alert(kind, text)
        else:
            _log.warning("%s: %s", kind, text)


def _internal(error: Exception) -> Refused:
    return Refused("INTERNAL", f"the node failed to answer ({type(error).__name__}); its log says more")


def snake(name: str) -> str:
    """Return a method's name as Python has it: `GetStatus` is `get_status`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
