"""Finds plugin files, versions them by content and loads them by path."""

from host.loader.archive import ArchivedVersionDamaged, ArchivedVersionMissing, VersionArchive
from host.loader.capture import Version, capture
from host.loader.catalog import Catalog
from host.loader.check import CheckReport, check_plugin
from host.loader.discover import Discovery, discover
from host.loader.fork_server import ForkServer, ForkServerFailed
from host.loader.importer import import_version, unload
from host.loader.offers import Kind, Offer
from host.loader.params import InstanceFailed, ParamsInvalid, decode_params, make
from host.loader.probe import ProbeResult, probe
from host.loader.problem import PluginProblem, PluginRejected, UnknownPlugin
from host.loader.scaffold import ScaffoldRefused, scaffold
from host.loader.schema import located
from host.loader.settle import NotStable, settle, settle_files
from host.loader.source import CompiledVersion
from host.loader.stages import Outcome, Stage, StageReport
from host.loader.watch import Notice, PluginWatcher, WatchFailed

__all__ = [
    "ArchivedVersionDamaged",
    "ArchivedVersionMissing",
    "Catalog",
    "CheckReport",
    "CompiledVersion",
    "Discovery",
    "ForkServer",
    "ForkServerFailed",
    "InstanceFailed",
    "Kind",
    "NotStable",
    "Notice",
    "Offer",
    "Outcome",
    "ParamsInvalid",
    "PluginProblem",
    "PluginRejected",
    "PluginWatcher",
    "ProbeResult",
    "ScaffoldRefused",
    "Stage",
    "StageReport",
    "UnknownPlugin",
    "Version",
    "VersionArchive",
    "WatchFailed",
    "capture",
    "check_plugin",
    "decode_params",
    "discover",
    "import_version",
    "located",
    "make",
    "probe",
    "scaffold",
    "settle",
    "settle_files",
    "unload",
]
