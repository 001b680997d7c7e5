"""The part of PluginService that is about instances."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from host.control.call import Call
from host.control.etags import check_etag
from host.control.instances import STATES, InstanceView
from host.control.names import id_of
from host.control.paging import page_of
from host.control.plain import struct, to_struct
from host.control.plugins import PluginView
from host.control.reasons import Refused, Violation
from host.control.subject import Subject
from host.core.entries import InstanceState
from host.loader import ParamsInvalid
from host.runtime.instance import Instance
from host.runtime.instance_control import RECEIVING, NotNow
from tandem.v1 import plugin_pb2 as pb

__all__ = ["InstanceMethods"]


class InstanceMethods:
    """Lists, makes, starts, pauses, resumes, stops and removes instances, and sets their parameters."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._instances = InstanceView(subject)
        self._plugins = PluginView(subject)

    # -- looking -----------------------------------------------------------------------------------

    def list_instances(self, request: pb.ListInstancesRequest, _call: Call) -> pb.ListInstancesResponse:
        """Return a page of instances, by name."""
        states = {ours for ours, theirs in STATES.items() if theirs in request.states}
        if request.states and len(states) < len(set(request.states)):
            raise Refused.field("states", f"expected states of instances, was {list(request.states)}")
        account = id_of("account", request.account, "accounts") if request.account else ""
        if account:
            self._instances.check_account(account)
        plugin = id_of("plugin", request.plugin, "plugins") if request.plugin else ""
        if plugin and self._subject.reloader is not None:
            self._plugins.check(plugin)  # a standby does not know of those that never changed

        def is_wanted(name: str) -> bool:
            state, of_account, of_plugin = self._instances.belongs(name)
            return (
                (not states or state in states) and account in ("", of_account) and plugin in ("", of_plugin)
            )

        wanted = [name for name in self._instances.names() if is_wanted(name)]
        names, token = page_of(wanted, request, sorted(states), account, plugin)
        shown = map(self._instances.show_named, names)
        return pb.ListInstancesResponse(instances=shown, next_page_token=token)

    def get_instance(self, request: pb.GetInstanceRequest, _call: Call) -> pb.GetInstanceResponse:
        """Return one instance with the schema of its parameters."""
        name = id_of("name", request.name, "instances")
        return pb.GetInstanceResponse(instance=self._instances.show_named(name, with_schema=True))

    # -- making and removing -----------------------------------------------------------------------

    async def create_instance(
        self, request: pb.CreateInstanceRequest, call: Call
    ) -> pb.CreateInstanceResponse:
        """Make an instance and start it."""
        section = self._instances.read(request)
        _, control = self._subject.trading()
        if request.validate_only:
            control.check_free(section)
            return pb.CreateInstanceResponse(instance=self._instances.preview(section))
        response = pb.CreateInstanceResponse()

        def made(instance: Instance) -> None:
            response.instance.CopyFrom(self._instances.show(instance))
            call.after = self._summary(instance)
            call.keep(response)

        await control.create(section, call.principal.name, made)
        return response

    def remove_instance(self, request: pb.RemoveInstanceRequest, call: Call) -> pb.RemoveInstanceResponse:
        """Stop an instance that the API made, and forget it; one that could not be made at the start, too."""
        _, control = self._subject.trading()
        name = id_of("name", request.name, "instances")
        if control.was_left_out(name):
            before: dict[str, Any] = {"state": "not started"}
        else:
            before = self._summary(self._named_instance(request))
        control.check_removable(name)
        if not request.validate_only:
            call.before = before
            control.remove(name, call.principal.name, call.because(request.reason))
        return pb.RemoveInstanceResponse()

    # -- starting and stopping ---------------------------------------------------------------------

    async def start_instance(self, request: pb.StartInstanceRequest, call: Call) -> pb.StartInstanceResponse:
        """Start a stopped or quarantined instance."""
        instance = self._named_instance(request)
        _check_state(
            instance, "started", InstanceState.STOPPED, InstanceState.QUARANTINED, InstanceState.LOADED
        )
        _, control = self._subject.trading()
        control.check_not_held(instance.instance, "start it")
        response = pb.StartInstanceResponse()
        if request.validate_only:
            response.instance.CopyFrom(self._instances.show(instance))
            return response
        call.before = self._summary(instance)

        def started(instance: Instance) -> None:
            response.instance.CopyFrom(self._instances.show(instance))
            call.after = self._summary(instance)
            call.keep(response)

        await control.start(
            instance.instance,
            call.principal.name,
            paused=request.paused,
            as_configured=request.inline,
            then=started,
        )
        return response

    def pause_instance(self, request: pb.PauseInstanceRequest, call: Call) -> pb.PauseInstanceResponse:
        """Pull an instance's quotes."""
        instance = self._named_instance(request)
        _check_state(instance, "paused", *RECEIVING)
        _, control = self._subject.trading()
        self._do(request, call, instance, lambda why: control.pause(instance.instance, why))
        return pb.PauseInstanceResponse(instance=self._instances.show(instance))

    def resume_instance(self, request: pb.ResumeInstanceRequest, call: Call) -> pb.ResumeInstanceResponse:
        """Let a paused instance trade again."""
        instance = self._named_instance(request)
        _check_state(instance, "resumed", *RECEIVING)
        _, control = self._subject.trading()
        control.check_not_held(instance.instance, "resume it")
        self._do(request, call, instance, lambda why: control.resume(instance.instance, why))
        return pb.ResumeInstanceResponse(instance=self._instances.show(instance))

    def stop_instance(self, request: pb.StopInstanceRequest, call: Call) -> pb.StopInstanceResponse:
        """Stop an instance until somebody starts it."""
        instance = self._named_instance(request)
        (_, control), who = self._subject.trading(), call.principal.name
        if not control.is_stopped_for_now(instance.instance):
            _check_state(instance, "stopped", *RECEIVING, InstanceState.QUARANTINED)
        self._do(request, call, instance, lambda why: control.stop(instance.instance, who, why))
        return pb.StopInstanceResponse(instance=self._instances.show(instance))

    # -- parameters --------------------------------------------------------------------------------

    def set_params(self, request: pb.SetParamsRequest, call: Call) -> pb.SetParamsResponse:
        """Change parameters of an instance, between two events."""
        instance = self._named_instance(request)
        name, (_, control) = instance.instance, self._subject.trading()
        fields = type(instance.strategy).params_type.__struct_fields__
        mask = list(request.update_mask.paths)
        for path in mask:
            if path != "*" and path not in fields:
                known = f"{', '.join(fields)}, and * is all of them" if fields else "none"
                text = f'{name} has no parameter "{path[:80]}"; it has {known}'
                raise Refused.field("update_mask", text)
        try:
            table, params = control.merged_params(name, struct(request.params), mask)
        except ParamsInvalid as error:
            text = f"{error.field}: {error.detail}"
            raise Refused("INVALID_PARAMS", text, Violation(error.field, error.detail)) from error
        if request.validate_only:
            shown = self._instances.show(instance)
            shown.params.Clear()
            to_struct(msgspec.to_builtins(params), shown.params)
            return pb.SetParamsResponse(instance=shown)
        call.before = msgspec.to_builtins(instance.strategy.params)
        control.set_params(name, table, params, call.principal.name)
        call.after = msgspec.to_builtins(instance.strategy.params)
        return pb.SetParamsResponse(instance=self._instances.show(instance))

    # -- inside ------------------------------------------------------------------------------------

    def _named_instance(self, request: Any) -> Instance:
        """Return the instance that a request names, as the caller last saw it; raise `Refused`."""
        instance = self._instances.find(id_of("name", request.name, "instances"))
        if request.etag:
            check_etag(request.name, request.etag, self._instances.etag(instance))
        return instance

    def _do(self, request: Any, call: Call, instance: Instance, step: Callable[[str], None]) -> None:
        if not request.validate_only:
            call.before = self._summary(instance)
            step(call.because(request.reason))
            call.after = self._summary(instance)

    @staticmethod
    def _summary(instance: Instance) -> dict[str, Any]:
        return {"state": str(instance.state), "params": msgspec.to_builtins(instance.strategy.params)}


_NEXT: Final = {
    ("started", InstanceState.PAUSED): "resume it",
    ("resumed", InstanceState.STOPPED): "start it",
    ("resumed", InstanceState.QUARANTINED): "start it",
}
"""The call that was meant, where there is one."""


def _check_state(instance: Instance, verb: str, *allowed: InstanceState) -> None:
    if instance.state not in allowed:
        names = " or ".join(allowed)
        text = f"instance {instance.instance} is {instance.state}; only one that is {names} can be {verb}"
        if next_step := _NEXT.get((verb, instance.state)):
            text = f"{text}; {next_step}"
        raise NotNow("WRONG_STATE", text)
