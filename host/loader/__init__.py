"""Finds plugin files, versions them by content and loads them by path."""

from host.loader.archive import ArchivedVersionDamaged, ArchivedVersionMissing, VersionArchive
from host.loader.capture import Version, capture
from host.loader.catalog import ENTRY_POINT_GROUP, Catalog
from host.loader.check import CheckReport, check_plugin
from host.loader.discover import Discovery, Found, discover, find_versions
from host.loader.fork_server import ForkServer, ForkServerFailed
from host.loader.importer import import_version, unload
from host.loader.known import KnownVersions
from host.loader.offers import Kind, Offer
from host.loader.params import InstanceFailed, ParamsInvalid, decode_params, make
from host.loader.probe import PROBE_DEADLINE_S, ProbeResult, probe
from host.loader.problem import PluginProblem, PluginRejected, UnknownPlugin
from host.loader.proving import Proved, Prover, catalog_of, load_proved, together
from host.loader.scaffold import ScaffoldRefused, scaffold
from host.loader.schema import located
from host.loader.settle import NotStable, settle, settle_files
from host.loader.source import CompiledVersion
from host.loader.stages import Outcome, Stage, StageReport
from host.loader.watch import Notice, PluginWatcher, WatchFailed

__all__ = [
    "ENTRY_POINT_GROUP",
    "PROBE_DEADLINE_S",
    "ArchivedVersionDamaged",
    "ArchivedVersionMissing",
    "Catalog",
    "CheckReport",
    "CompiledVersion",
    "Discovery",
    "ForkServer",
    "ForkServerFailed",
    "Found",
    "InstanceFailed",
    "Kind",
    "KnownVersions",
    "NotStable",
    "Notice",
    "Offer",
    "Outcome",
    "ParamsInvalid",
    "PluginProblem",
    "PluginRejected",
    "PluginWatcher",
    "ProbeResult",
    "Proved",
    "Prover",
    "ScaffoldRefused",
    "Stage",
    "StageReport",
    "UnknownPlugin",
    "Version",
    "VersionArchive",
    "WatchFailed",
    "capture",
    "catalog_of",
    "check_plugin",
    "decode_params",
    "discover",
    "find_versions",
    "import_version",
    "load_proved",
    "located",
    "make",
    "probe",
    "scaffold",
    "settle",
    "settle_files",
    "together",
    "unload",
]
