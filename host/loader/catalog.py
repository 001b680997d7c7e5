"""All plugins on offer, as one value that is built beside the one in use and then swapped in."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pluggy

from host.loader.capture import Version, capture
from host.loader.contract import check_signatures, class_line
from host.loader.discover import find_versions
from host.loader.importer import import_version, problem_of, unload
from host.loader.offers import Kind, Offer, collect_offers, new_manager
from host.loader.problem import PluginProblem, PluginRejected, UnknownPlugin
from host.loader.schema import check_params, check_state
from host.loader.source import CompiledVersion

__all__ = ["ENTRY_POINT_GROUP", "Catalog"]

ENTRY_POINT_GROUP = "tandem.plugins"


class Catalog:
    """The offers of every usable plugin, and the problems of the others."""

    def __init__(self) -> None:
        self.manager: pluggy.PluginManager = new_manager()
        self.versions: dict[str, Version] = {}
        self.problems: list[PluginProblem] = []
        self.notes: list[str] = []
        """What is unusual and no problem: which plugins stand in for others of their name."""
        self._offers: dict[tuple[Kind, str], Offer] = {}
        self._imported: list[Version] = []

    @classmethod
    def load(cls, plugin_dirs: Iterable[str | Path], entry_points: bool = True) -> "Catalog":
        """Import every plugin in these folders, and those that installed packages announce.

        Never raises for a bad plugin: it is left out and told of in `problems`. Plugins are
        imported directly, here: this is for files that are known to be good. `load_proved` is for others.
        """
        catalog = cls()
        found = find_versions(plugin_dirs)
        catalog.problems.extend(found.problems)
        catalog.notes.extend(found.notes)
        for version in found.versions.values():
            catalog.admit(version)
        if entry_points:
            catalog.admit_installed()
        return catalog

    def admit(self, version: Version, compiled: CompiledVersion | None = None) -> None:
        """Do what `add` does; what is wrong is told of in `problems`."""
        self._try(functools.partial(self.add, version, compiled))

    def admit_installed(self) -> None:
        """Import the plugins that installed packages announce; what is wrong is told of in `problems`."""
        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            self._try(functools.partial(self._add_installed, entry_point))

    def add(self, version: Version, compiled: CompiledVersion | None = None) -> list[Offer]:
        """Import one version and offer what it provides; raise `PluginRejected` and change nothing.

        `compiled` is what a probe that passed made of this version: its checks are not repeated then.
        """
        module = import_version(version, compiled)
        try:
            offers = self._admit(module, version, is_proved=compiled is not None)
        except PluginRejected:
            unload(version)
            raise
        self._imported.append(version)
        return offers

    def with_version(self, version: Version, compiled: CompiledVersion | None = None) -> "Catalog":
        """Return a catalog like this one in which the plugin of that name is `version`.

        `compiled` is as for `add`. This one is left as it is. Raises `PluginRejected`, for a plugin of an
        installed package too.
        """
        other = self._without(version.name)
        try:
            other.add(version, compiled)
        except PluginRejected:
            other.close()
            raise
        return other

    def with_offers(self, version: Version, offers: Sequence[Offer]) -> "Catalog":
        """Return a catalog like this one in which `version`, which is loaded, offers what it did before.

        Nothing is imported or checked again, so it does not hold up what runs. Raises `PluginRejected`
        where another plugin offers something of that name by now.
        """
        other = self._without(version.name)
        problems = other._conflicts(version, offers)
        if problems:
            other.close()
            raise PluginRejected(problems)
        import_version(version)
        other._imported.append(version)
        other._take(version, offers)
        return other

    def is_installed(self, plugin: str) -> bool:
        """Return whether the plugin came with an installed package, by its entry point."""
        version = self.versions.get(plugin)
        return version is not None and version not in self._imported

    def check_reloadable(self, plugin: str) -> None:
        """Raise `PluginRejected` for a plugin whose code only a restart can change."""
        if self.is_installed(plugin):
            cause = "RESTART_REQUIRED: it comes with an installed package, whose code is never reloaded"
            next_step = (
                "restart the node to run what is installed, or give the file in its place another name"
            )
            raise PluginRejected([self.versions[plugin].problem(cause, next_step=next_step)])

    def _without(self, plugin: str) -> "Catalog":
        self.check_reloadable(plugin)
        other = Catalog()
        for name, kept in self.versions.items():
            if name != plugin:
                if kept in self._imported:  # else an installed package's: its modules are not ours
                    import_version(kept)
                    other._imported.append(kept)
                other.versions[name] = kept
        other._offers = {key: offer for key, offer in self._offers.items() if offer.version.name != plugin}
        other.problems = [problem for problem in self.problems if problem.plugin != plugin]
        return other

    def close(self) -> None:
        """Give back this catalog's modules and offers, so that it holds no code any more.

        A version that another catalog holds stays loaded.
        """
        self._offers = {}
        self.manager = new_manager()
        while self._imported:
            unload(self._imported.pop())

    @property
    def offers(self) -> Mapping[tuple[Kind, str], Offer]:
        """Return everything on offer, by kind and name."""
        return self._offers

    def offers_of(self, plugin: str) -> list[Offer]:
        """Return what one plugin offers; nothing where there is none of that name."""
        return [offer for offer in self._offers.values() if offer.version.name == plugin]

    def strategy(self, name: str) -> Offer:
        """Return a strategy by the name that configurations use; raise `UnknownPlugin`."""
        return self.find(Kind.STRATEGY, name)

    def exchange(self, name: str) -> Offer:
        """Return an exchange adapter by name; raise `UnknownPlugin`."""
        return self.find(Kind.EXCHANGE, name)

    def model(self, name: str) -> Offer:
        """Return a quote model by name; raise `UnknownPlugin`."""
        return self.find(Kind.MODEL, name)

    def find(self, kind: Kind, name: str) -> Offer:
        """Return the offer of this kind and name; raise `UnknownPlugin`, which tells why there is none."""
        offer = self._offers.get((kind, name))
        if offer is not None:
            return offer
        plugin = name.partition(".")[0]
        raise UnknownPlugin(
            kind,
            name,
            [offered for offered_kind, offered in self._offers if offered_kind is kind],
            [problem for problem in self.problems if problem.plugin == plugin],
        )

    def plugin_of(self, kind: Kind, name: str) -> str:
        """Return the plugin that offers this; where none does, the one that its name points to."""
        offer = self._offers.get((kind, name))
        return name.partition(".")[0] if offer is None else offer.version.name

    def find_after(self, before: "Catalog", kind: Kind, name: str, version: Version) -> Offer:
        """Return what `version` offers in the place of an offer of the catalog `before`.

        Raises `PluginRejected`, which names the class that took its place, where there is none.
        """
        try:
            return self.find(kind, name)
        except UnknownPlugin as error:
            known = {offer.name for offer in before.offers_of(version.name)}
            new = [o for o in self.offers_of(version.name) if o.kind is kind and o.name not in known]
            place = class_line(version, new[0].cls) if new else {}
            raise PluginRejected([version.problem(str(error), **place)]) from None

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except PluginRejected as rejected:
            self.problems.extend(rejected.problems)

    def _admit(self, module: ModuleType, version: Version, *, is_proved: bool = False) -> list[Offer]:
        offers = collect_offers(self.manager, module, version)
        problems = self._conflicts(version, offers)
        for offer in () if is_proved else offers:
            for check in (check_signatures, check_params, check_state):
                try:
                    check(offer)
                except PluginRejected as rejected:
                    problems.extend(rejected.problems)
        if problems:
            self.manager.unregister(module)
            raise PluginRejected(problems)
        self._take(version, offers)
        return offers

    def _conflicts(self, version: Version, offers: Sequence[Offer]) -> list[PluginProblem]:
        return [
            version.problem(
                f'offers {offer.kind} "{offer.name}", which {taken.version.root} offers too',
                next_step="rename one of them",
            )
            for offer in offers
            if (taken := self._offers.get((offer.kind, offer.name))) is not None
        ]

    def _take(self, version: Version, offers: Sequence[Offer]) -> None:
        self._offers.update({(offer.kind, offer.name): offer for offer in offers})
        self.versions[version.name] = version

    def _add_installed(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Offer what an installed package's entry point names: a module, imported the ordinary way.

        Its version is the digest of the package's files, but a change of it needs a restart: code
        outside the plugin folders is never reloaded.
        """
        nowhere = Version(entry_point.name, Path(entry_point.value), "", {})
        try:
            module = entry_point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary
            raise PluginRejected([problem_of(nowhere, error, "at import of its entry point")]) from None
        if not isinstance(module, ModuleType) or module.__file__ is None:
            raise PluginRejected(
                [nowhere.problem(f"its entry point names a module, was {type(module).__name__}")]
            )
        file = Path(sys.modules[module.__name__].__file__ or "")
        found = capture(file.parent if file.name == "__init__.py" else file)
        self._admit(module, Version(entry_point.name, found.root, found.digest, found.files))
