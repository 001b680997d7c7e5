"""What an edit of the configuration asks a node to change."""

from pathlib import Path
from typing import Any

import pytest

from host.config import ConfigPlan, ConfigSource, NodeConfig, diff, load_config
from host.core.risk_limits import RiskConfig

TEXT = """
[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "a"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
params = { size = 1, skew_bps = 2.0 }

[[instance]]
name = "b"
plugin = "two_sided"
account = "paper"
symbols = ["ETH-USDT"]
"""


def config(tmp_path: Path, text: str) -> NodeConfig:
    path = tmp_path / "tandem.toml"
    path.write_text(text)
    return load_config(path, None, {}).config


@pytest.mark.parametrize(
    ("before", "after", "group", "names"),
    [
        ("size = 1", "size = 2", "params", ["a"]),
        ('"BTC-USDT"', '"BTC-USDT", "ETH-USDT"', "replaced", ["a"]),
        ('name = "b"', 'name = "c"', "added", ["c"]),
        ('name = "b"', 'name = "c"', "removed", ["b"]),
        ("params = {", 'models = ["skew"]\nparams = {', "models", ["a"]),
        ("params = {", "quote_tolerance_bps = 9\nparams = {", "tolerances", ["a"]),
        ("params = {", 'start = "paused"\nparams = {', "starts", ["a"]),
    ],
)
def test_each_difference_is_in_its_group_alone(
    tmp_path: Path, before: str, after: str, group: str, names: list[str]
) -> None:
    plan = diff(config(tmp_path, TEXT), config(tmp_path, TEXT.replace(before, after)))

    assert [section.name for section in getattr(plan, group)] == names
    others = {"added", "removed", "replaced", "params", "models", "tolerances", "starts"} - {group}
    others -= {"added", "removed"} if group in ("added", "removed") else set()
    assert not any(getattr(plan, other) for other in others)
    assert plan.changes
    assert not plan.needs_restart


def test_an_instance_that_is_replaced_is_in_no_other_group(tmp_path: Path) -> None:
    text = TEXT.replace("size = 1", "size = 2").replace('"BTC-USDT"', '"ETH-USDT"')

    plan = diff(config(tmp_path, TEXT), config(tmp_path, text))

    assert [section.name for section in plan.replaced] == ["a"]
    assert plan.params == ()
    assert len(plan.changes) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[[account]]", "# a comment\n[[account]]"),
        ("size = 1", "size = 1.0"),
        ("skew_bps = 2.0", "skew_bps = 2"),
    ],
)
def test_another_spelling_is_no_difference(tmp_path: Path, before: str, after: str) -> None:
    assert diff(config(tmp_path, TEXT), config(tmp_path, TEXT.replace(before, after))) == ConfigPlan()


def test_limits_and_reload_settings_differ_by_themselves(tmp_path: Path) -> None:
    text = TEXT + '[risk.node]\nmax_open_orders = 4\n[risk.symbol."BTC-USDT"]\nmax_position = 2\n'
    plan = diff(config(tmp_path, TEXT), config(tmp_path, text + "[node]\nprobation_s = 5\n"))

    assert isinstance(plan.limits, RiskConfig)
    assert plan.limits.node.max_open_orders == 4
    assert plan.reload is not None
    assert plan.reload.probation_s == 5
    assert plan.changes == (
        "node.probation_s: 30.0 → 5.0",
        "risk.node.max_open_orders: none → 4",
        'risk.symbol."BTC-USDT".max_position: none → "2"',
    )


@pytest.mark.parametrize(
    ("extra", "at"),
    [
        ('[node]\nname = "x"\n', ("node", "name")),
        ('[node]\ndurability = "disk"\n', ("node", "durability")),
        ('[node]\nplugin_dirs = ["mine"]\n', ("node", "plugin_dirs")),
        ('[store]\nurl = ""\n', ("store", "url")),
        ("[control]\nlisten = []\n", ("control", "listen")),
        ('[[account]]\nname = "other"\nexchange = "paper"\n', ("account", 1)),
    ],
)
def test_what_needs_a_restart_is_named_by_its_key(tmp_path: Path, extra: str, at: tuple[Any, ...]) -> None:
    plan = diff(config(tmp_path, TEXT), config(tmp_path, TEXT + extra))

    [need] = plan.needs_restart
    assert need.at == at
    assert str(need).startswith("RESTART_REQUIRED: ")
    back = diff(config(tmp_path, TEXT + extra), config(tmp_path, TEXT))
    assert len(back.needs_restart) == 1


def test_source_reads_file_overlay_and_variables_anew(tmp_path: Path) -> None:
    path, overlay = tmp_path / "tandem.toml", tmp_path / "tandem.prod.toml"
    path.write_text(TEXT)
    overlay.write_text("[node]\nstate_save_ms = 5\n")
    source = ConfigSource(path, "prod", {"TANDEM__NODE__NAME": "z"})

    assert source.files == (path, overlay)
    assert source.load().config.node.state_save_ms == 5
    overlay.write_text("[node]\nstate_save_ms = 7\n")
    again = source.load().config.node
    assert (again.state_save_ms, again.name) == (7, "z")
    assert ConfigSource(None, None, {}).files == ()
