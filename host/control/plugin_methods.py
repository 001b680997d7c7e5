"""The part of PluginService that is about plugins and their versions."""

from typing import Any

from host.control.call import Call
from host.control.etags import check_etag
from host.control.names import child_of, id_of
from host.control.paging import page_of
from host.control.plugins import KINDS, STATES, PluginView, VersionLog, show_version, stage_of
from host.control.reasons import Refused
from host.control.subject import Subject
from host.runtime.instance_control import NotNow
from tandem.v1 import plugin_pb2 as pb

__all__ = ["PluginMethods"]

MIN_DIGITS = 8
"""So many digits of a digest name a version."""


class PluginMethods:
    """Lists plugins and versions, and takes plugins from one version to another."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._plugins = PluginView(subject)
        self._versions = VersionLog(subject)

    # -- looking -----------------------------------------------------------------------------------

    def list_plugins(self, request: pb.ListPluginsRequest, _call: Call) -> pb.ListPluginsResponse:
        """Return a page of plugins, by name."""
        if request.kind and request.kind not in KINDS.values():
            raise Refused.field("kind", f"expected a kind of plugin, was {request.kind}")
        wanted = [
            name
            for name in self._plugins.names()
            if not request.kind or request.kind in self._plugins.kinds(name)
        ]
        names, token = page_of(wanted, request, request.kind)
        return pb.ListPluginsResponse(plugins=map(self._plugins.show, names), next_page_token=token)

    def get_plugin(self, request: pb.GetPluginRequest, _call: Call) -> pb.GetPluginResponse:
        """Return one plugin with the schemas of what it offers."""
        name = id_of("name", request.name, "plugins")
        self._plugins.check(name)
        return pb.GetPluginResponse(plugin=self._plugins.show(name, with_schemas=True))

    async def list_versions(self, request: pb.ListVersionsRequest, _call: Call) -> pb.ListVersionsResponse:
        """Return a page of versions, newest first."""
        plugin = id_of("parent", request.parent, "plugins")
        self._plugins.check(plugin)
        versions = await self._versions.of(plugin)
        keys = [(known.lsn, known.digest) for known in versions.values()]
        page, token = page_of(keys, request, plugin, descending=True)
        shown = [show_version(plugin, versions[digest]) for _, digest in page]
        return pb.ListVersionsResponse(versions=shown, next_page_token=token)

    # -- versions ----------------------------------------------------------------------------------

    async def reload_plugin(self, request: pb.ReloadPluginRequest, call: Call) -> pb.ReloadPluginResponse:
        """Take a plugin to the bytes that its files have now."""
        name = self._named_plugin(request)
        if request.validate_only:
            return pb.ReloadPluginResponse(plugin=self._plugins.show(name))
        reloader, _ = self._subject.trading()
        assert self._subject.reload is not None, "it comes with the reloader"
        call.before = reloader.catalog.versions[name].digest
        report = await self._subject.reload(name)
        call.after = {"digest": report.digest, "state": report.state, "reason": report.reason}
        return pb.ReloadPluginResponse(
            plugin=self._plugins.show(name),
            digest=report.digest,
            state=pb.VERSION_STATE_UNSPECIFIED if report.state is None else STATES[report.state],
            reason=report.reason,
            stages=map(stage_of, report.stages),
        )

    async def activate_version(
        self, request: pb.ActivateVersionRequest, call: Call
    ) -> pb.ActivateVersionResponse:
        """Let a staged version go live."""
        name, digest = child_of("name", request.name, "plugins", "versions")
        self._plugins.check(name)
        check_etag(f"plugins/{name}", request.etag, self._plugins.etag(name))
        record = self._subject.engine.state.plugins.get(name)
        staged = record.staged if record is not None else ""
        if len(digest) < MIN_DIGITS or not staged.startswith(digest):
            text = f"version {digest} of plugin {name} is not staged; staged is {staged or 'none'}"
            raise Refused("VERSION_NOT_FOUND", text, staged=staged)
        if request.validate_only:
            return pb.ActivateVersionResponse(plugin=self._plugins.show(name))
        reloader, _ = self._subject.trading()
        call.before = reloader.catalog.versions[name].digest
        report = await reloader.activate(name, digest)
        call.after = {"digest": report.digest, "state": report.state, "reason": report.reason}
        return pb.ActivateVersionResponse(
            plugin=self._plugins.show(name),
            state=pb.VERSION_STATE_UNSPECIFIED if report.state is None else STATES[report.state],
            reason=report.reason,
            stages=map(stage_of, report.stages),
        )

    def promote_plugin(self, request: pb.PromotePluginRequest, call: Call) -> pb.PromotePluginResponse:
        """End the probation of the version that runs."""
        name = self._on_probation(request)
        if not request.validate_only:
            reloader, _ = self._subject.trading()
            call.before = "on probation"
            reloader.promote(name)
            call.after = {"permanent": self._subject.engine.state.plugin(name).permanent}
        return pb.PromotePluginResponse(plugin=self._plugins.show(name))

    def roll_back_plugin(self, request: pb.RollBackPluginRequest, call: Call) -> pb.RollBackPluginResponse:
        """Take the version on probation back."""
        name = self._on_probation(request)
        if not request.validate_only:
            reloader, _ = self._subject.trading()
            call.before = reloader.catalog.versions[name].digest
            reloader.roll_back(name, f"by {call.because(request.reason)}")
            call.after = reloader.catalog.versions[name].digest
        return pb.RollBackPluginResponse(plugin=self._plugins.show(name))

    def set_auto_reload(self, request: pb.SetAutoReloadRequest, call: Call) -> pb.SetAutoReloadResponse:
        """Say whether changed files of a plugin go live by themselves."""
        name = self._named_plugin(request)
        if not request.validate_only:
            reloader, _ = self._subject.trading()
            call.before = self._subject.engine.state.plugin(name).is_auto
            reloader.set_auto(name, request.enabled, call.because(request.reason))
            call.after = request.enabled
        return pb.SetAutoReloadResponse(plugin=self._plugins.show(name))

    # -- inside ------------------------------------------------------------------------------------

    def _named_plugin(self, request: Any) -> str:
        """Return the plugin that a request names, as the caller last saw it; raise `Refused`."""
        name = id_of("name", request.name, "plugins")
        self._plugins.check(name)
        check_etag(request.name, request.etag, self._plugins.etag(name))
        return name

    def _on_probation(self, request: Any) -> str:
        name = self._named_plugin(request)
        reloader, _ = self._subject.trading()
        if name not in reloader.on_probation:
            raise NotNow("WRONG_STATE", f"no version of plugin {name} is on probation")
        return name
