"""Finds plugin files, versions them by content and loads them by path."""

from host.loader.capture import Version, capture
from host.loader.catalog import Catalog
from host.loader.discover import Discovery, discover
from host.loader.importer import import_version, unload
from host.loader.offers import Kind, Offer
from host.loader.params import InstanceFailed, ParamsInvalid, decode_params, make
from host.loader.problem import PluginProblem, PluginRejected, UnknownPlugin

__all__ = [
    "Catalog",
    "Discovery",
    "InstanceFailed",
    "Kind",
    "Offer",
    "ParamsInvalid",
    "PluginProblem",
    "PluginRejected",
    "UnknownPlugin",
    "Version",
    "capture",
    "decode_params",
    "discover",
    "import_version",
    "make",
    "unload",
]
