"""All plugins on offer, as one value that is built beside the one in use and then swapped in."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import pluggy

from host.loader.capture import Version, capture
from host.loader.contract import check_signatures
from host.loader.discover import discover
from host.loader.importer import import_version, problem_of, unload
from host.loader.offers import Kind, Offer, collect_offers, new_manager
from host.loader.problem import PluginProblem, PluginRejected, UnknownPlugin
from host.loader.schema import check_params, check_state

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
        imported directly, here: a node starts with files that ran before. Unproven bytes go through
        `probe` first.
        """
        catalog = cls()
        discovery = discover(map(Path, plugin_dirs))
        catalog.problems.extend(discovery.problems)
        catalog.notes.extend(discovery.notes)
        for path in discovery.plugins.values():
            catalog._try(functools.partial(catalog._add_file, path))
        if entry_points:
            for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
                catalog._try(functools.partial(catalog._add_installed, entry_point))
        return catalog

    def add(self, version: Version) -> list[Offer]:
        """Import one version and offer what it provides; raise `PluginRejected` and change nothing."""
        module = import_version(version)
        try:
            offers = self._admit(module, version)
        except PluginRejected:
            unload(version)
            raise
        self._imported.append(version)
        return offers

    def with_version(self, version: Version) -> "Catalog":
        """Return a catalog like this one in which the plugin of that name is `version`.

        This one is left as it is. Raises `PluginRejected`.
        """
        other = Catalog()
        try:
            for name, kept in self.versions.items():
                if name != version.name and kept.digest:
                    import_version(kept)
                    other._imported.append(kept)
                if name != version.name:
                    other.versions[name] = kept
            other._offers = {
                key: offer for key, offer in self._offers.items() if offer.version.name != version.name
            }
            other.problems = [problem for problem in self.problems if problem.plugin != version.name]
            other.add(version)
        except PluginRejected:
            other.close()
            raise
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

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except PluginRejected as rejected:
            self.problems.extend(rejected.problems)

    def _add_file(self, path: Path) -> None:
        self.add(capture(path))

    def _admit(self, module: ModuleType, version: Version) -> list[Offer]:
        offers = collect_offers(self.manager, module, version)
        problems: list[PluginProblem] = []
        for offer in offers:
            for check in (check_signatures, check_params, check_state):
                try:
                    check(offer)
                except PluginRejected as rejected:
                    problems.extend(rejected.problems)
            taken = self._offers.get((offer.kind, offer.name))
            if taken is not None:
                problems.append(
                    version.problem(
                        f'offers {offer.kind} "{offer.name}", which {taken.version.root} offers too',
                        next_step="rename one of them",
                    )
                )
        if problems:
            self.manager.unregister(module)
            raise PluginRejected(problems)
        self._offers.update({(offer.kind, offer.name): offer for offer in offers})
        self.versions[version.name] = version
        return offers

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
