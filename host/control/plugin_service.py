"""PluginService: plugins, versions and instances, and watches of them."""

from collections.abc import AsyncIterator, Collection
from typing import Any

from host.control.call import Call
from host.control.instance_methods import InstanceMethods
from host.control.plugin_methods import PluginMethods
from host.control.subject import Subject
from host.control.watching import changes
from host.core import entries as e
from host.core.hand import is_hand
from tandem.v1 import plugin_pb2 as pb

__all__ = ["PluginService"]


class PluginService(PluginMethods, InstanceMethods):
    """The methods of `tandem.v1.PluginService`."""

    def __init__(self, subject: Subject) -> None:
        PluginMethods.__init__(self, subject)
        InstanceMethods.__init__(self, subject)

    async def watch_plugins(
        self, _request: pb.WatchPluginsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchPluginsResponse]:
        """Send all plugins, then each one that changes."""
        async for change in changes(self._subject, _plugins_in):
            wanted = self._plugins.names() if change.is_all else change.names & set(self._plugins.names())
            shown = [self._plugins.show(name) for name in sorted(wanted)]
            if shown or change.is_all:
                yield pb.WatchPluginsResponse(snapshot=change.is_all, plugins=shown, lsn=change.lsn)

    async def watch_instances(
        self, _request: pb.WatchInstancesRequest, _call: Call
    ) -> AsyncIterator[pb.WatchInstancesResponse]:
        """Send all instances, then each one that changes or goes."""
        async for change in changes(self._subject, _instances_in):
            there = set(self._instances.names())
            names = sorted(there if change.is_all else change.names)
            yield pb.WatchInstancesResponse(
                snapshot=change.is_all,
                instances=[self._instances.show_named(name) for name in names if name in there],
                removed=[f"instances/{name}" for name in names if name not in there],
                lsn=change.lsn,
            )


def _plugins_in(entry: Any) -> Collection[str]:
    match entry:
        case e.VersionMoved() | e.AutoReloadSet():
            return (entry.plugin,)
        case e.PluginLoaded():
            return (entry.plugin,)
        case _:
            return ()


_OF_INSTANCES = (
    e.InstanceAdded,
    e.InstanceChanged,
    e.InstanceRevised,
    e.ParamsChanged,
    e.InstanceConfigured,
    e.InstanceRemoved,
    e.InstanceHeld,
    e.InstanceIsolated,
)


def _instances_in(entry: Any) -> Collection[str]:
    # What people trade by hand is booked under a name of its own, which is no instance to anybody.
    is_one = isinstance(entry, _OF_INSTANCES) and not is_hand(entry.instance)
    return (entry.instance,) if is_one else ()
