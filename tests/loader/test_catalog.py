"""What a set of plugin folders offers."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from host.api import Strategy
from host.loader import Catalog, Kind, Offer, PluginRejected, UnknownPlugin, Version, capture
from host.loader.importer import is_loaded
from tests.loader.conftest import STRATEGY, WritePlugin

Load = Callable[[], Catalog]

TWO_CLASSES = """
    from host.api import Adjustment, Features, Quote, QuoteModel, Strategy

    class Fast(Strategy): ...
    class Slow(Strategy): ...
    class _Hidden(Strategy): ...

    class Lean(QuoteModel):
        def adjust(self, features: Features, quote: Quote) -> Adjustment:
            return Adjustment()
"""


def names(catalog: Catalog) -> list[str]:
    return sorted(f"{kind}:{name}" for kind, name in catalog.offers)


def test_only_class_of_a_kind_takes_the_plugin_name_and_several_are_qualified(
    write: WritePlugin, load: Load
) -> None:
    write("alpha.py", TWO_CLASSES)

    assert names(load()) == ["model:alpha", "strategy:alpha.Fast", "strategy:alpha.Slow"]


def test_classes_count_where_they_are_defined_and_not_where_they_are_imported(
    write: WritePlugin, load: Load
) -> None:
    write("alpha/__init__.py", "from .core import Alpha, Strategy\n")
    write("alpha/core.py")

    assert names(load()) == ["strategy:alpha"]


def test_hookimpl_decides_and_names_freely(write: WritePlugin, load: Load) -> None:
    hook = """
    from host.api import hookimpl

    @hookimpl
    def provide_strategies():
        return {"quick": Fast}
    """
    write("alpha.py", TWO_CLASSES + hook)
    catalog = load()

    assert names(catalog) == ["strategy:quick"]
    assert catalog.strategy("quick").cls.__name__ == "Fast"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "def provide_strategys(): return {}",
            'there is no hook "provide_strategys"; did you mean "provide_strat',
        ),
        ("def provide_strategies(): return [1]", "as a mapping, was list"),
        ("def provide_strategies(): return {'a': int}", "was 'a': <class 'int'>"),
        ("def provide_strategies(): 1 / 0", "ZeroDivisionError in provide_strategies: division by zero"),
        ("def provide_strategies(extra): return {}", "these hooks take no arguments"),
        ("def provide_strategies(): return {}", "offers nothing"),
    ],
)
def test_bad_hookimpls_are_problems_with_a_place(
    write: WritePlugin, load: Load, body: str, expected: str
) -> None:
    write("alpha.py", f"from host.api import hookimpl\n\n@hookimpl\n{body}\n")
    write("beta.py")
    catalog = load()

    assert names(catalog) == ["strategy:beta"]
    assert expected in str(catalog.problems[0])
    assert str(catalog.problems[0]).startswith("plugin alpha: alpha.py")


def test_bad_plugins_never_stop_the_others(write: WritePlugin, load: Load) -> None:
    write("a_syntax.py", "def f(:\n")
    write("b_import.py", "import nopackage\n")
    write("c_raises.py", "1 / 0\n")
    write("d_exits.py", "import sys\nsys.exit(1)\n")
    write("e_signature.py", STRATEGY.replace("book: BookTop)", "book: BookTop, depth: int)"))
    write("f_good.py")
    catalog = load()

    assert names(catalog) == ["strategy:f_good"]
    assert [problem.plugin for problem in catalog.problems] == [
        "a_syntax",
        "b_import",
        "c_raises",
        "d_exits",
        "e_signature",
    ]
    assert all(problem.path.exists() and problem.cause for problem in catalog.problems)
    assert [problem.line for problem in catalog.problems] == [1, 1, 1, 2, 7]


def test_rejected_plugins_leave_no_module_behind(write: WritePlugin, load: Load) -> None:
    path = write("alpha.py", STRATEGY.replace("on_book", "on_bok"))
    load()

    assert not is_loaded(capture(path))


def test_unknown_name_suggests_the_near_one(write: WritePlugin, load: Load) -> None:
    write("two_sided.py")

    with pytest.raises(
        UnknownPlugin, match=r'no strategy plugin is named "two_sidd"; did you mean "two_sided"\?'
    ):
        load().strategy("two_sidd")


def test_unknown_name_tells_of_the_problem_with_its_file(write: WritePlugin, load: Load) -> None:
    write("alpha.py", "import nopackage\n")

    with pytest.raises(
        UnknownPlugin, match=r'refused: plugin alpha: alpha\.py:1: no module named "nopackage"'
    ):
        load().strategy("alpha")


def test_renamed_class_is_missed_with_what_is_there_instead(write: WritePlugin, load: Load) -> None:
    write("alpha.py", TWO_CLASSES.replace("Fast", "Quick"))

    with pytest.raises(UnknownPlugin, match=r"on offer: alpha\.Quick, alpha\.Slow"):
        load().strategy("alpha.Fastest_of_all")


def test_kinds_do_not_mix(write: WritePlugin, load: Load) -> None:
    write("alpha.py")

    with pytest.raises(UnknownPlugin, match="on offer: none"):
        load().model("alpha")


def test_two_plugins_offering_one_name_are_told_apart_by_a_problem(write: WritePlugin, load: Load) -> None:
    hook = """
    from host.api import hookimpl

    @hookimpl
    def provide_strategies():
        return {"x": Alpha}
    """
    first = write("one.py", STRATEGY + hook)
    write("two.py", STRATEGY + hook)
    catalog = load()

    assert catalog.strategy("x").version.root == first
    assert f'two.py: offers strategy "x", which {first} offers too' in str(catalog.problems[0])


def test_offer_carries_the_version_that_runs(write: WritePlugin, load: Load) -> None:
    path = write("alpha.py")
    offer = load().strategy("alpha")

    assert offer.version == capture(path)
    assert offer.kind is Kind.STRATEGY
    assert issubclass(offer.cls, Strategy)


def test_a_catalog_built_beside_another_shares_unchanged_versions_only(
    write: WritePlugin, load: Load
) -> None:
    write("same.py")
    write("edited.py")
    old = load()
    write("edited.py", STRATEGY.replace("5.0", "6.0"))
    new = load()

    assert old.strategy("same").cls is new.strategy("same").cls
    assert old.strategy("edited").cls is not new.strategy("edited").cls
    edited = old.strategy("edited").version
    old.close()
    assert is_loaded(new.strategy("same").version)
    assert not is_loaded(edited)
    assert not old.offers  # nothing keeps the code of a retired version


def install(folder: Path, module: str, text: str, entry: str) -> None:
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tandem.plugins]\n{entry}\n")


def test_installed_packages_offer_through_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from host.api import Strategy\nclass Gamma(Strategy): ...\n"
    install(tmp_path, "gamma_package", source, "gamma = gamma_package")
    install(tmp_path, "broken_package", "import nopackage\n", "broken = broken_package")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    catalog = Catalog.load([])

    offer = catalog.strategy("gamma")
    assert offer.cls.__module__ == "gamma_package"
    assert offer.version.digest == capture(tmp_path / "gamma_package.py").digest
    assert "plugin broken: " in str(catalog.problems[0])
    assert 'no module named "nopackage"' in str(catalog.problems[0])


def test_installed_plugin_stays_as_it_is_whatever_is_reloaded_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: WritePlugin
) -> None:
    source = "import delta_package\nfrom host.api import Strategy\nclass Delta(Strategy): ...\n"
    install(tmp_path, "delta_package", source, "delta = delta_package")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    path = write("edited.py")
    catalog = Catalog.load([path.parent])
    installed = catalog.strategy("delta")

    write("edited.py", STRATEGY.replace("5.0", "6.0"))
    other = catalog.with_version(capture(path))

    assert other.strategy("delta") is installed
    assert not is_loaded(installed.version), "no second copy of the package's module"
    for version in (capture(tmp_path / "delta_package.py"), capture(write("delta.py"))):
        named = Version("delta", version.root, version.digest, version.files)
        with pytest.raises(PluginRejected, match="RESTART_REQUIRED: it comes with an installed package"):
            other.with_version(named)
    assert other.strategy("delta") is installed
    other.close()
    catalog.close()


def test_version_that_is_loaded_is_offered_again_as_it_was(write: WritePlugin) -> None:
    path = write("edited.py")
    old = Catalog.load([path.parent], entry_points=False)
    before, offers = old.versions["edited"], old.offers_of("edited")
    write("edited.py", STRATEGY.replace("5.0", "6.0"))
    new = old.with_version(capture(path))

    again = new.with_offers(before, offers)
    old.close()

    assert again.strategy("edited") is offers[0]
    assert again.versions["edited"] is before and is_loaded(before)
    new.close()
    taken = Offer("edited", Kind.STRATEGY, offers[0].cls, before)
    with pytest.raises(PluginRejected, match=r'offers strategy "edited", which .* offers too'):
        again.with_offers(Version("other", path, "0" * 64, {"other.py": b""}), [taken])
    again.close()
    assert not is_loaded(before)


def test_bundled_plugins_load_without_a_problem() -> None:
    catalog = Catalog.load([Path(__file__).parents[2] / "plugins"], entry_points=False)

    assert catalog.problems == []
    assert catalog.strategy("two_sided").cls.__name__ == "TwoSided"
    catalog.close()
