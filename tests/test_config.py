"""Configuration: what is read, what wins over what, and what a mistake is answered with."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.config import (
    ConfigError,
    ModelRef,
    NodeConfig,
    bundled_plugins,
    default_config,
    load_config,
    replay_config,
)
from host.config.schema import AccountSection, InstanceSection, NodeSection, SecretsSection, StoreSection
from host.config.sources import typed_value
from host.core.risk_limits import Limits

GOOD = """
[node]
name = "a"
data_dir = "var/a"

[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
models = ["inventory_skew", { name = "onnx_adjust", params = { gain = 0.5 } }]
params = { half_spread_bps = 5.0, size = "0.01" }

[[instance]]
name = "mm-eth"
plugin = "two_sided"
account = "paper"
symbols = ["ETH-USDT-PERP"]
"""


def load(
    folder: Path, text: str, env: str | None = None, environ: Mapping[str, str] | None = None
) -> NodeConfig:
    path = folder / "tandem.toml"
    path.write_text(text)
    return load_config(path, env, environ or {}).config


def problems(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ=environ)
    return {problem.key: problem.text for problem in caught.value.problems}


def test_file_is_read_into_types(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + '[risk.node]\nmax_daily_loss = "500 USDT"\nmax_order_qty = 0.1\n')

    assert config.node.data_dir == Path("var/a")
    assert config.instance[0].models == (ModelRef("inventory_skew"), ModelRef("onnx_adjust", {"gain": 0.5}))
    assert config.instance[0].params == {"half_spread_bps": 5.0, "size": "0.01"}
    assert config.risk.node.max_order_qty == Decimal("0.1")
    loss = config.risk.node.daily_loss
    assert loss is not None
    assert (loss.amount, loss.currency) == (Decimal(500), "USDT")


def test_limits_reach_the_risk_engine_by_scope(tmp_path: Path) -> None:
    text = "[risk.account.paper]\nmax_open_orders = 4\n[risk.instance.mm-btc]\nmax_open_orders = 2\n"
    limits = load(tmp_path, GOOD + text + '[risk.symbol."BTC-USDT"]\nmax_open_orders = 3\n').risk.limits

    assert limits.accounts["paper"].max_open_orders == 4
    assert limits.instances["mm-btc"].max_open_orders == 2
    assert limits.symbols["BTC-USDT"].max_open_orders == 3


def test_overlay_changes_one_setting_of_one_instance(tmp_path: Path) -> None:
    (tmp_path / "tandem.prod.toml").write_text(
        '[[instance]]\nname = "mm-eth"\nparams = { half_spread_bps = 9.0 }\n'
        '[[account]]\nname = "second"\nexchange = "paper"\n'
    )

    config = load(tmp_path, GOOD, env="prod")

    assert [instance.name for instance in config.instance] == ["mm-btc", "mm-eth"]
    assert config.instance[0].params["half_spread_bps"] == 5.0
    assert config.instance[1].params == {"half_spread_bps": 9.0}
    assert config.instance[1].symbols == ("ETH-USDT-PERP",)
    assert [account.name for account in config.account] == ["paper", "second"]


def test_environment_variable_names_the_overlay_and_the_argument_wins(tmp_path: Path) -> None:
    (tmp_path / "tandem.prod.toml").write_text('[node]\nname = "prod"\n')
    (tmp_path / "tandem.test.toml").write_text('[node]\nname = "test"\n')

    assert load(tmp_path, GOOD, environ={"TANDEM_ENV": "prod"}).node.name == "prod"
    assert load(tmp_path, GOOD, env="test", environ={"TANDEM_ENV": "prod"}).node.name == "test"


def test_variables_win_over_files_and_reach_named_entries(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        GOOD,
        environ={
            "TANDEM__NODE__NAME": "from-shell",
            "TANDEM__INSTANCE__MM_BTC__PARAMS__HALF_SPREAD_BPS": "7.5",
            "TANDEM__INSTANCE__MM_ETH__SYMBOLS": '["SOL-USDT"]',
            "TANDEM__RISK__NODE__MAX_DAILY_LOSS": "500 USDT",
            "TANDEM__RISK__INSTANCE__MM_BTC__MAX_OPEN_ORDERS": "2",
            "TANDEM__RISK__SYMBOL__BTC_USDT__MAX_POSITION": "1.5",
            "PATH": "/bin",
        },
    )

    assert config.node.name == "from-shell"
    assert config.instance[0].params == {"half_spread_bps": 7.5, "size": "0.01"}
    assert config.instance[1].symbols == ("SOL-USDT",)
    assert config.risk.node.max_daily_loss == "500 USDT"
    assert config.risk.instance["mm-btc"].max_open_orders == 2
    assert config.risk.symbol["BTC-USDT"].max_position == Decimal("1.5")


def test_variable_that_names_no_entry_is_a_problem_of_that_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TANDEM__INSTANCE__MM_SOL__START: instance: has no entry"):
        load(tmp_path, GOOD, environ={"TANDEM__INSTANCE__MM_SOL__START": "paused"})


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('data_dir = "var/a"', "data_dir = 5").replace(
        'account = "paper"\nsymbols = ["B', 'account = "papr"\nsymbols = ["b'
    )

    assert set(problems(tmp_path, text + "[stor]\n")) == {
        "node.data_dir",
        "instance[mm-btc].account",
        "instance[mm-btc].symbols[0]",
        "stor",
    }


def test_message_names_file_key_expected_and_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD + "[risk.node]\nmax_open_orders = 1.5\n")

    assert str(caught.value) == (
        "the configuration has 1 problem:\n"
        f"  {tmp_path}/tandem.toml: risk.node.max_open_orders: expected a whole number, was 1.5 (a number)"
    )


def test_problem_is_blamed_on_the_overlay_that_caused_it(tmp_path: Path) -> None:
    overlay = tmp_path / "tandem.prod.toml"
    overlay.write_text('[[instance]]\nname = "mm-btc"\nstart = "later"\n')

    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, env="prod")

    assert [problem.source for problem in caught.value.problems] == [str(overlay)]


@pytest.mark.parametrize(
    ("old", "new", "key", "text"),
    [
        ("[node]", "[node]\ndurabilty = 1", "node.durabilty", 'unknown key; did you mean "durability"?'),
        (
            'plugin = "two_sided"',
            'plugn = "two_sided"',
            "instance[mm-btc].plugn",
            'unknown key; did you mean "plugin"?',
        ),
        ('exchange = "paper"', "exchange = 5", "account[paper].exchange", "expected text, was 5 (a whole number)"),
        ('exchange = "paper"', "", "account[paper].exchange", "expected text, was missing"),
        ('data_dir = "var/a"', "plugin_dirs = 'x'", "node.plugin_dirs", 'expected a list, was "x"'),
        (
            'data_dir = "var/a"',
            "state_save_ms = 0",
            "node.state_save_ms",
            "expected a whole number > 0 <= 2147483647, was 0 (a whole number)",
        ),
        (
            'data_dir = "var/a"',
            "durability = 'ram'",
            "node.durability",
            'expected one of "process", "disk", "replica", was "ram"',
        ),
        (
            'account = "paper"',
            'account = "papers"',
            "instance[mm-btc].account",
            'no account is named "papers"; did you mean "paper"?',
        ),
        (
            '"BTC-USDT"',
            '"BTC/USDT"',
            "instance[mm-btc].symbols[0]",
            'expected BASE-QUOTE or BASE-QUOTE-PERP such as "BTC-USDT", was "BTC/USDT"; did you mean "BTC-USDT"?',
        ),
        ('"BTC-USDT"', '"BTC-USDT", "BTC-USDT"', "instance[mm-btc].symbols[1]", '"BTC-USDT" is listed twice'),
        ('["BTC-USDT"]', "[]", "instance[mm-btc].symbols", "expected a list of at least 1, was a list of 0"),
        ('"mm-eth"', '"mm-btc"', "instance[mm-btc].name", 'expected a name used once, was "mm-btc" again'),
        ('"inventory_skew"', "7", "instance[mm-btc].models[0]", "expected a table, was 7 (a whole number)"),
    ],
)  # fmt: skip
def test_mistake_is_answered_with_what_was_expected(
    tmp_path: Path, old: str, new: str, key: str, text: str
) -> None:
    assert problems(tmp_path, GOOD.replace(old, new, 1))[key] == text


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ('[risk.node]\nmax_daily_loss = "500"', "risk.node.max_daily_loss", "an amount and a currency"),
        ("[risk.node]\nmax_position = -1", "risk.node.max_position", "expected a number above 0, was -1"),
        ('[risk.node]\non_breach = "x"', "risk.node.on_breach", 'one of "refuse", "pull", "kill", "flatten"'),
        ("[risk.nodes]", "risk.nodes", 'did you mean "node"?'),
        ("[risk.instance.mm-btx]", 'risk.instance."mm-btx"', 'did you mean "mm-btc"?'),
        ('[risk.symbol."BTC-USDC"]', 'risk.symbol."BTC-USDC"', 'no instance trades "BTC-USDC"'),
    ],
)
def test_limit_that_would_protect_nothing_is_refused(
    tmp_path: Path, section: str, key: str, text: str
) -> None:
    assert text in problems(tmp_path, f"{GOOD}\n{section}\n")[key]


@pytest.mark.parametrize(
    ("before", "written", "key"),
    [
        ("[[account]]", "[node]\nstop_timeout_ms = {}\n", "node.stop_timeout_ms"),
        ("[[account]]", "[watchdog]\ngive_up_ms = {}\n", "watchdog.give_up_ms"),
        ("[[account]]", '[failover]\nlease = "sqlite:///l"\ndrain_ms = {}\n', "failover.drain_ms"),
        ("models =", "worker = {{ memory_mb = {} }}\n", "instance[mm-btc].worker.memory_mb"),
        ("models =", "client = {{ deadline_ms = {} }}\n", "instance[mm-btc].client.deadline_ms"),
    ],
)
def test_whole_number_that_no_timer_and_no_message_takes_is_refused(
    tmp_path: Path, before: str, written: str, key: str
) -> None:
    text = GOOD[GOOD.index("[[account]]") :]
    load(tmp_path, text.replace(before, written.format(2**31 - 1) + before, 1))

    found = problems(tmp_path, text.replace(before, written.format(2**31) + before, 1))

    assert found[key].endswith("<= 2147483647, was 2147483648 (a whole number)")


def test_value_that_might_be_expected_is_refused_with_the_reason(tmp_path: Path) -> None:
    failover = '[failover]\nlease = "sqlite:///l"\ntakeover_orphans = "adopt"\n'
    found = problems(tmp_path, GOOD.replace("[node]", f"{failover}[node]", 1))
    assert found["failover.takeover_orphans"] == (
        'what such an order was for is not known: it is taken in and cancelled; use "cancel"'
    )


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "tandem.toml"
    broken.write_text("[node\n")

    with pytest.raises(ConfigError) as caught:
        load_config(broken, "prod", {})

    first, second = caught.value.problems
    assert (first.source, first.text.split(":")[0]) == (str(broken), "is not valid TOML")
    assert "line 1" in first.text
    assert str(second) == f"{tmp_path / 'tandem.prod.toml'}: no such file"


def test_wrong_shapes_are_reported_and_never_crash(tmp_path: Path) -> None:
    found = problems(tmp_path, 'node = 1\naccount = "x"\ninstance = [1, 2]\nrisk = []\nstore = true\n')

    assert set(found) >= {"node", "account", "risk", "store"}


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    [
                        "node",
                        "name",
                        "account",
                        "instance",
                        "symbols",
                        "risk",
                        "symbol",
                        "models",
                        "params",
                        "x",
                        "store",
                        "control",
                        "tls",
                        "failover",
                        "lease",
                        "ttl",
                        "peers",
                        "replicate",
                        "listen",
                        "durability",
                    ]
                ),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=20,
    )
)
def test_no_tree_makes_the_check_crash(tree: object) -> None:
    from host.config.check import convert, find_mistakes

    if isinstance(tree, dict) and not find_mistakes(tree):
        convert(tree)


def test_defaults_are_two_market_makers_on_two_symbols_with_limits() -> None:
    config = default_config()

    assert [(i.name, i.symbols, i.plugin) for i in config.instance] == [
        ("mm-btc", ("BTC-USDT",), "two_sided"),
        ("mm-eth", ("ETH-USDT",), "two_sided"),
    ]
    assert config.risk.node.daily_loss is not None
    assert set(config.risk.symbol) == {"BTC-USDT", "ETH-USDT"}


def test_replay_quotes_the_recorded_symbol_and_takes_variables() -> None:
    variables = {"TANDEM__INSTANCE__TWO_SIDED__PARAMS__HALF_SPREAD_BPS": "2"}

    config = replay_config(Path("recording"), "NEXO-USDT", variables)

    assert [(i.plugin, i.symbols, i.params) for i in config.instance] == [
        ("two_sided", ("NEXO-USDT",), {"half_spread_bps": 2})
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ("{ a = 1 }", {"a": 1}),
        ('{"a": null}', {"a": None}),
        ("500 USDT", "500 USDT"),
        ('"5"', "5"),
        ("", ""),
        ("var/a", "var/a"),
    ],
)
def test_variable_is_read_as_toml_then_json_then_text(text: str, value: object) -> None:
    assert typed_value(text) == value


def test_bundled_plugins_come_first_and_only_once() -> None:
    config = NodeConfig(node=NodeSection(plugin_dirs=(bundled_plugins() / ".." / "plugins", Path("mine"))))

    assert [path.resolve() for path in config.plugin_dirs] == [
        bundled_plugins().resolve(),
        Path("mine").resolve(),
    ]


def test_store_is_sqlite_in_the_data_folder_unless_said_otherwise(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).store_url == "sqlite:///var/a/store.db"
    assert load(tmp_path, GOOD + '[store]\nurl = ""\n').store_url == ""
    assert load(tmp_path, GOOD + '[store]\nurl = "postgresql://db/x"\n').store_url == "postgresql://db/x"


def test_documented_example_and_keys_are_the_real_ones(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    sections = (NodeSection, AccountSection, InstanceSection, StoreSection, SecretsSection, Limits)

    load(tmp_path, example)

    keys = [key for section in sections for key in section.__struct_fields__]
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_control_api_is_on_a_socket_in_the_data_folder_and_on_loopback_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    assert load(tmp_path, GOOD).control_listen == ("unix:var/a/control.sock", "127.0.0.1:7600")
    assert load(tmp_path, GOOD + "[control]\nlisten = []\n").control_listen == ()


def test_tls_needs_certificate_and_key(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + '[control.tls]\ncertificate = "a.pem"\n')

    assert found.keys() == {"control.tls.key"}


def test_watchdog_that_ends_the_process_before_it_can_say_why_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + '[watchdog]\non_block = "give_up"\nlimit_ms = 400\ngive_up_ms = 1000\n')
    assert found == {
        "watchdog.give_up_ms": "expected at least 3 times limit_ms, which is 400, so that what blocks is named first; "
        "was 1000"
    }
    assert load(tmp_path, GOOD + "[watchdog]\nlimit_ms = 60000\n").watchdog.on_block == "warn"
