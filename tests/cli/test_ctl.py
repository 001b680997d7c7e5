"""`tandem ctl`: what each verb does to a node, and what it says about it."""

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from control_tools import MAKER, ControlDesk
from ctl_tools import LiveDesk

from host.cli.ctl._instances import described
from host.core import entries as e
from host.core.entries import InstanceState
from host.loader import settle
from tandem.v1 import plugin_pb2 as p


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveDesk]:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    desk = ControlDesk(folder)
    desk.tick()
    with LiveDesk(desk).serving() as live:
        yield live


def state(live: LiveDesk, name: str = "mm") -> InstanceState:
    return live.do(lambda: live.desk.instance(name).state)


def resting(live: LiveDesk, instance: str = "mm") -> list[str]:
    return live.do(
        lambda: [one.client_id for one in live.desk.engine.state.orders.values() if one.instance == instance]
    )


# -- instances -----------------------------------------------------------------------------------


def test_instances_are_listed_with_state_and_parameters(live: LiveDesk) -> None:
    table = live.ok("list")
    assert all(word in table for word in ("mm", "RUNNING", "maker", "acc", "BTC-USDT", "away=2"))
    (one,) = live.json("list")
    assert (one["name"], one["state"], one["params"]["away"]) == (
        "instances/mm",
        "INSTANCE_STATE_RUNNING",
        2.0,
    )
    assert live.json("list", "--state", "paused") == []
    assert live.json("list", "--plugin", "maker", "--account", "acc", "--state", "running")
    assert live.ok("list", "--state", "stopped") == "no instances\n"


def test_one_instance_is_shown_with_what_its_parameters_may_be(live: LiveDesk) -> None:
    said = live.ok("get", "mm")
    assert "mm is RUNNING" in said
    assert "away: number, above 0" in said
    assert live.json("get", "instances/mm")["paramsSchema"]


def test_an_instance_is_paused_resumed_stopped_and_started(live: LiveDesk) -> None:
    assert live.ok("pause", "mm", "--reason", "lunch").startswith("mm is PAUSED")
    assert state(live) is InstanceState.PAUSED
    assert "lunch" in live.do(lambda: live.desk.engine.state.instances["mm"].reason)
    live.ok("resume", "mm")
    assert state(live) is InstanceState.RUNNING
    live.ok("stop", "mm")
    assert state(live) is InstanceState.STOPPED
    live.until(lambda: not live.desk.venue.open())
    live.ok("start", "mm", "--paused")
    assert state(live) is InstanceState.PAUSED


def test_a_parameter_is_set_and_put_back_to_its_default(live: LiveDesk) -> None:
    said = live.ok("set", "mm", "away=3", "size=1.250")
    assert said == "mm: away=3 raises=false size=1.250   (was: away=2 raises=false size=1)\n"
    params = live.do(lambda: live.desk.instance().strategy.params)
    assert (params.away, params.size) == (3.0, Decimal("1.250"))
    live.ok("set", "mm", "--default", "size")
    params = live.do(lambda: live.desk.instance().strategy.params)
    assert (params.away, params.size) == (3.0, Decimal(1))


@pytest.mark.parametrize("setting", ["away=-1", "size=much", "nonsense=1", "away"])
def test_a_parameter_that_cannot_be_changes_nothing_and_exits_with_2(setting: str, live: LiveDesk) -> None:
    before = live.do(lambda: live.desk.instance().strategy.params)
    result = live.ctl("set", "mm", "size=2", setting)
    assert result.exit_code == 2
    assert setting.partition("=")[0] in result.stderr
    assert ("has no parameter" in result.stderr) == setting.startswith("nonsense")
    assert live.do(lambda: live.desk.instance().strategy.params) == before


def test_a_dry_run_says_what_would_be_and_changes_nothing(live: LiveDesk) -> None:
    result = live.ctl("set", "mm", "away=5", "--dry-run")
    assert result.exit_code == 0
    assert "nothing was changed" in result.stderr
    assert "away=5" in result.stdout
    live.ok("pause", "mm", "--dry-run")
    assert "would be removed" not in live.ok("list")
    assert live.do(lambda: live.desk.instance().strategy.params.away) == 2.0
    assert state(live) is InstanceState.RUNNING


def test_an_old_etag_is_refused_and_a_request_id_happens_once(live: LiveDesk) -> None:
    etag = live.json("get", "mm")["etag"]
    for _ in range(2):
        live.ok("set", "mm", "away=3", "--etag", etag, "--request-id", "deploy-1")
    assert len(live.entries(e.ParamsChanged)) == 1
    assert live.ctl("set", "mm", "away=4", "--etag", etag).exit_code == 3


def test_an_instance_is_created_and_removed(live: LiveDesk) -> None:
    said = live.ok(
        "create", "two", "maker", "--account", "acc", "--symbol", "ETH-USDT", "--model", "shift",
        "--tolerance-bps", "1.5", "size=0.500", "away=9",
    )  # fmt: skip
    assert "two is RUNNING" in said
    params = live.do(lambda: live.desk.instance("two").strategy.params)
    assert (params.size, params.away) == (Decimal("0.500"), 9.0)
    assert live.json("get", "two")["quoteToleranceBps"] == 1.5
    assert [one["model"] for one in live.json("get", "two")["models"]] == ["shift"]
    assert live.ok("remove", "two", "--yes", "--dry-run") == "two would be removed\n"
    assert live.ok("remove", "two", "--yes") == "two is removed\n"
    live.until(lambda: "two" not in live.desk.engine.roster.instances)


def test_an_instance_is_created_with_models_and_what_each_of_them_is_to_have(live: LiveDesk) -> None:
    live.ok(
        "create", "two", "maker", "--account", "acc", "--symbol", "ETH-USDT", "--model", "shift",
        "--model-set", "shift.bps=-3", "--model-process", "shift", "--outside", "stop", "--window", "sun 00:00-00:01",
    )  # fmt: skip
    (model,) = live.json("get", "two")["models"]
    assert (model["model"], model["params"], model["isolation"]) == (
        "shift",
        {"bps": -3.0},
        "ISOLATION_PROCESS",
    )


def test_what_runs_an_instance_is_called_what_it_is() -> None:
    worker = p.WorkerStatus(state="waiting")
    for isolation, who in (
        (p.ISOLATION_PROCESS, "worker     waiting, 0 restarts"),
        (p.ISOLATION_CLIENT, "client     waiting"),
    ):
        assert f"\n  {who}, 0 events behind" in described(p.Instance(isolation=isolation, worker=worker))


def test_a_refused_start_or_resume_names_the_call_that_was_meant(live: LiveDesk) -> None:
    live.ok("pause", "mm")
    assert "can be started; resume it" in live.ctl("start", "mm").output
    live.ok("stop", "mm")
    assert "can be resumed; start it" in live.ctl("resume", "mm").output


def test_why_a_model_was_skipped_is_shown(live: LiveDesk) -> None:
    live.ok(
        "create", "two", "maker", "--account", "acc", "--symbol", "BTC-USDT", "--model", "shift",
        "--model-set", "shift.bps=1000",
    )  # fmt: skip
    assert "shift (used 0, skipped 0)" in live.ok("get", "two")
    live.do(lambda: live.desk.tick(101.0))
    (model,) = live.json("get", "two")["models"]
    assert (model["skipped"], model["lastError"]) == ("1", "ValueError: told to")
    assert "shift (used 0, skipped 1, last because ValueError: told to)" in live.ok("get", "two")


def test_an_instance_is_created_with_a_schedule_and_shown_with_it(live: LiveDesk) -> None:
    said = live.ok(
        "create", "day", "maker", "--account", "acc", "--symbol", "ETH-USDT", "--window", "mon-fri 09:00-10:00",
        "--window", "sun 22:00-02:00", "--outside", "stop", "--time-zone", "Europe/Zurich", "--trigger",
        "flat=55 9 * * mon-fri", "--trigger", "look=every 5s", "--no-market-events", "--catch-up", "10",
        "--after", "mm", "--on-dependency-lost", "keep", "--isolation", "process", "--worker", "memory_mb=64",
        "--worker", "on_loss=keep", "--worker", "cpu_share=0.5",
    )  # fmt: skip
    assert "day is STOPPED: outside its trading windows" in said
    for line in (
        "runs       process",
        "windows    mon-fri 09:00-10:00, sun 22:00-02:00 (Europe/Zurich); outside: stop",
        "trigger    flat: 55 9 * * mon-fri (Europe/Zurich)",
        "trigger    look: every 5s (Europe/Zurich)",
        "runs on    triggers and its own orders, not on market data",
        "after      mm; when lost: keep",
        "deadline_ms=1000 memory_mb=64 cpu_share=0.5 on_loss=keep",
    ):
        assert line in said
        assert line in live.ok("get", "day")
    schedule = live.json("get", "day")["schedule"]
    assert (schedule["catchUpS"], schedule["outside"]) == (10.0, "HOLD_STOP")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        (
            "--window",
            "9 to 5",
            'instance.schedule.windows[0]: expected a window such as "mon-fri 09:00-17:30"',
        ),
        ("--trigger", "soon", 'expected NAME=VALUE, was "soon"'),
        ("--trigger", "x=soon", "instance.schedule.triggers.x"),
        ("--after", "nobody", 'no instance is named "nobody"; there are: mm'),
        ("--worker", "memory=64", 'there is no "memory"; there are group, deadline_ms, memory_mb'),
        ("--worker", "memory_mb=much", 'memory_mb cannot be "much"'),
        ("--worker", "on_loss=sell", 'on_loss cannot be "sell"'),
        (
            "--worker",
            "memory_mb=0",
            "instance.worker_settings.memory_mb: expected a whole number > 0 <= 2147483647, was 0",
        ),
        ("--model=shift", "--model-set=shift.bps", 'expected KEY=VALUE, was "bps"'),
        ("--model=shift", "--model-set=shift.width=1", "instance.models[0].params"),
        ("--client", "token=abc", 'there is no "token"; there are deadline_ms, on_loss'),
        ("--model-set", "shift.bps=1", '"shift" is no model of this instance; there is no --model'),
        ("--model-process", "shift", '"shift" is no model of this instance; there is no --model'),
        ("--outside", "keep", "'keep' is not one of 'pause', 'stop'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(live: LiveDesk, option: str, value: str, told: str) -> None:
    result = live.ctl("create", "x", "maker", "--account", "acc", "--symbol", "ETH-USDT", option, value)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not live.entries(e.InstanceConfigured)


def test_all_that_is_wrong_with_a_new_instance_is_said_at_once(live: LiveDesk) -> None:
    result = live.ctl("create", "bad name", "nothing", "--account", "x", "--symbol", "btc")
    assert result.exit_code == 2
    assert all(field in result.stderr for field in ("instance_id", "instance.account", "instance.symbols[0]"))


# -- plugins -------------------------------------------------------------------------------------


def test_plugins_are_listed_with_their_versions(live: LiveDesk) -> None:
    table = live.ok("plugins")
    assert "maker (strategy)" in table
    assert "shift (model)" in table
    digest = live.json("plugins")[0]["digest"]
    assert live.json("versions", "maker")[0]["digest"] == digest
    assert digest[:12] in live.ok("versions", "maker")


def test_a_version_goes_live_is_promoted_or_rolled_back(live: LiveDesk) -> None:
    first = live.json("plugins")[0]["digest"]
    live.do(lambda: live.desk.maker_file.write_text(MAKER + "\n# 1\n"))
    said = live.ok("reload", "maker")
    assert "validate" in said
    second = live.json("plugins")[0]
    assert second["digest"] == second["probationDigest"] != first
    assert "is permanent" in live.ok("promote", "maker")
    assert live.json("plugins")[0]["permanentDigest"] == second["digest"]

    live.do(lambda: live.desk.maker_file.write_text(MAKER + "\n# 2\n"))
    live.ok("reload", "maker")
    assert second["digest"][:12] in live.ok("rollback", "maker", "--reason", "odd quotes")
    assert live.json("plugins")[0]["digest"] == second["digest"]
    assert live.ctl("promote", "maker").exit_code == 3
    times = [datetime.fromisoformat(one["time"]) for one in live.json("versions", "maker")]
    assert len(times) == 3
    assert times == sorted(times, reverse=True), "newest first, by the time that is shown"


def test_a_version_that_is_refused_exits_with_1_and_says_why(live: LiveDesk) -> None:
    live.do(lambda: live.desk.maker_file.write_text("def oops(:\n"))
    result = live.ctl("reload", "maker")
    assert result.exit_code == 1
    assert "REFUSED" in result.stdout
    assert "maker.py:1: syntax error" in result.stdout
    assert state(live) is InstanceState.RUNNING


def test_nothing_staged_is_nothing_to_activate(live: LiveDesk) -> None:
    result = live.ctl("activate", "maker")
    assert (result.exit_code, "no version of plugin maker waits" in result.stderr) == (3, True)
    assert live.ctl("activate", "maker", "--version", "0123456789").exit_code == 4


def test_a_staged_version_is_activated(live: LiveDesk) -> None:
    async def stage() -> None:
        desk = live.desk
        desk.reloader.settings = msgspec.structs.replace(desk.reloader.settings, mode="stage")
        desk.maker_file.write_text(MAKER + "\n# 1\n")
        await desk.reloader.reload("maker", lambda: settle(desk.maker_file, apart_ms=1))

    live.run(stage())
    staged = live.json("plugins")[0]["stagedDigest"]
    assert staged
    assert staged[:12] in live.ok("activate", "maker", "--dry-run")
    live.ok("activate", "maker")
    assert live.json("plugins")[0]["digest"] == staged


def test_automatic_reload_is_turned_off_and_on(live: LiveDesk) -> None:
    assert live.ok("auto-reload", "maker", "off") == "maker: automatic reload is off\n"
    assert not live.do(lambda: live.desk.engine.state.plugin("maker").is_auto)
    live.ok("auto-reload", "maker", "on", "--reason", "freeze is over")
    assert live.do(lambda: live.desk.engine.state.plugin("maker").is_auto)


# -- orders --------------------------------------------------------------------------------------


def test_orders_are_listed_filtered_and_shown_alone(live: LiveDesk) -> None:
    orders = live.json("orders")
    assert {one["clientId"] for one in orders} == set(resting(live))
    assert [one["side"] for one in live.json("orders", "--side", "buy", "--instance", "mm")] == ["SIDE_BUY"]
    assert live.json("orders", "--symbol", "ETH-USDT", "--account", "acc") == []
    assert len(live.json("orders", "--limit", "1")) == 1
    assert "BTC-USDT" in live.ok("orders")
    one = orders[0]["clientId"]
    assert live.ok("order", one).startswith(f"{one}: ")
    live.ok("pause", "mm")
    live.until(lambda: not live.desk.engine.state.orders)
    assert live.json("orders") == []
    assert {one["clientId"] for one in orders} <= {one["clientId"] for one in live.json("orders", "--all")}


def test_an_order_is_placed_amended_and_cancelled_by_hand(live: LiveDesk) -> None:
    placed = live.json("place", "buy", "0.500", "BTC-USDT", "--price", "50.00", "--account", "acc", "--yes")
    name = placed["clientId"]
    live.until(lambda: live.desk.engine.state.orders[name].status == "open")
    order = live.do(lambda: live.desk.engine.state.orders[name])
    assert (order.price, order.qty, order.instance) == (Decimal("50.00"), Decimal("0.500"), "hand@acc")
    assert "→ 51.00" in live.ok("amend", name, "--price", "51.00", "--yes")
    live.until(lambda: live.desk.engine.state.orders[name].price == 51)
    assert live.ok("cancel", name, "--reason", "enough").startswith(f"{name}: BUY 0.500 BTC-USDT at 51.00")
    live.until(lambda: name not in live.desk.engine.state.orders)


def test_a_market_order_needs_to_be_asked_for_as_one(live: LiveDesk) -> None:
    words = ("place", "sell", "0.001", "BTC-USDT", "--account", "acc")
    assert live.ctl(*words, "--yes").exit_code == 2
    assert live.ctl(*words, "--yes", "--market", "--price", "1").exit_code == 2
    placed = live.json(*words, "--yes", "--market")
    assert (placed["type"], placed["price"]) == ("ORDER_TYPE_MARKET", "")


def test_an_order_that_is_refused_says_why_and_is_not_sent(live: LiveDesk) -> None:
    sent = len(live.entries(e.PlaceSent))
    result = live.ctl("place", "buy", "0.0001", "BTC-USDT", "--price", "50", "--account", "acc", "--yes")
    assert (result.exit_code, "lot" in result.stderr) == (2, True)
    result = live.ctl("place", "buy", "1", "XXX-USDT", "--price", "50", "--account", "acc", "--yes")
    assert (result.exit_code, "XXX-USDT" in result.stderr) == (4, True)
    assert len(live.entries(e.PlaceSent)) == sent


def test_fills_positions_balances_and_books_are_shown(live: LiveDesk) -> None:
    def trade() -> None:
        (bid,) = [one for one in live.desk.venue.open() if one.side == "buy"]
        live.desk.venue.trade(bid, "0.250")

    live.do(trade)
    live.until(lambda: live.desk.engine.fills == 1)
    (fill,) = live.json("fills", "--side", "buy")
    assert (fill["instance"], fill["qty"]) == ("instances/mm", "0.250")
    (position,) = live.json("positions", "--instance", "mm", "--symbol", "BTC-USDT")
    assert Decimal(position["qty"]) == Decimal("0.250")
    balances = {one["currency"]: one["total"] for one in live.json("balances", "--account", "acc")}
    assert Decimal(balances["BTC"]) == Decimal("100.250")
    assert {one["symbol"] for one in live.json("book")} == {"BTC-USDT", "ETH-USDT"}
    assert live.json("book", "BTC-USDT", "--depth", "1")["bids"][0]["price"] == 100.0
    assert live.ctl("book", "BTC-USDT", "--account", "none").exit_code == 4
    assert live.ctl("book", "XXX-USDT").exit_code == 4
    for verb, said in (("fills", "0.250"), ("positions", "mm"), ("balances", "100.25"), ("book", "101")):
        assert said in live.ok(verb)
    assert "ask" in live.ok("book", "BTC-USDT")


# -- stopping ------------------------------------------------------------------------------------


def test_panic_stops_a_scope_until_it_is_released(live: LiveDesk) -> None:
    said = live.ok("panic", "instances/mm", "--yes", "--reason", "news")
    assert "instances/mm is stopped, 2 open orders cancelled" in said
    live.until(lambda: not live.desk.venue.open())
    assert "news" in live.do(lambda: live.desk.engine.state.kill_switches["instance:mm"])
    assert "instances/mm" in live.ok("status")
    # As the journal and `tandem node` write it.
    assert "may trade again" in live.ok("release", "instance:mm", "--yes")
    assert live.do(lambda: not live.desk.engine.state.kill_switches)
    assert live.ctl("release", "instances/mm", "--yes").exit_code == 3


def test_flatten_closes_positions(live: LiveDesk) -> None:
    live.do(lambda: live.desk.venue.trade(live.desk.venue.open()[0], "0.250"))
    live.until(lambda: live.desk.engine.fills == 1)
    assert "closing BTC-USDT of mm" in live.ok("flatten", "instances/mm", "--yes")

    def has_begun() -> bool:
        live.desk.advance(0.1)  # a position is closed once its orders are gone, with the next housekeeping
        return any(isinstance(one, e.PlaceSent) and one.type == "market" for one in live.desk.entries)

    live.until(has_begun)


def test_all_orders_of_a_scope_are_cancelled(live: LiveDesk) -> None:
    before = set(resting(live))
    assert live.ok("cancel-all", "symbols/BTC-USDT", "--yes") == (
        "asked to cancel 2 open orders of symbols/BTC-USDT\n"
    )
    live.until(lambda: not before & live.desk.engine.state.orders.keys())


def test_a_drain_pauses_everything_and_ends_without_orders(live: LiveDesk) -> None:
    said = live.ok("drain", "--yes", "--reason", "upgrade")
    assert said == "paused mm; 2 orders cancelled, 0 still open\n"
    assert state(live) is InstanceState.PAUSED
    assert live.do(lambda: not live.desk.engine.state.orders)


def test_a_drain_that_is_not_confirmed_in_time_exits_with_1(live: LiveDesk) -> None:
    live.do(lambda: setattr(live.desk.venue, "is_deaf", True))
    result = live.ctl("drain", "--yes", "--wait", "0.1")
    assert (result.exit_code, result.stdout) == (1, "paused mm; 2 orders cancelled, 2 still open\n")


def test_a_shutdown_stops_the_node(live: LiveDesk) -> None:
    assert live.ok("shutdown", "--yes", "--dry-run") == "the node would stop\n"
    assert not live.desk.stopped
    assert live.ok("shutdown", "--yes", "--reason", "upgrade") == "the node is stopping\n"
    assert ["upgrade" in why for why in live.desk.stopped] == [True]


@pytest.mark.parametrize(
    "words",
    [
        ("panic", "node"),
        ("flatten", "node"),
        ("cancel-all", "node"),
        ("drain",),
        ("shutdown",),
        ("limits", "set", "node", "max_open_orders=1"),
        ("place", "buy", "0.5", "BTC-USDT", "--price", "50", "--account", "acc"),
    ],
)
def test_what_is_dangerous_is_not_done_without_a_terminal_or_a_yes(
    words: tuple[str, ...], live: LiveDesk
) -> None:
    before = live.do(lambda: live.desk.journal.last_lsn)
    result = live.ctl(*words)
    assert (result.exit_code, "--yes" in result.stderr) == (3, True)
    assert live.do(lambda: live.desk.journal.last_lsn) == before
    assert not live.desk.stopped


# -- limits and the node -------------------------------------------------------------------------


def test_limits_are_set_and_taken_away(live: LiveDesk) -> None:
    said = live.ok(
        "limits", "set", "instances/mm", "max_order_qty=2.5", "max_open_orders=7", "price_collar_bps=50",
        "max_data_age=1500ms", "max_daily_loss=500 USDT", "self_trade=refuse", "on_breach.daily_loss=flatten",
        "on_breach.stale_data=refuse", "--yes",
    )  # fmt: skip
    limits = live.do(lambda: live.desk.engine.risk_settings.limits("instance:mm"))
    assert (limits.max_order_qty, limits.max_open_orders, limits.max_data_age_ms) == (Decimal("2.5"), 7, 1500)
    assert (limits.max_daily_loss, limits.on_breach) == (
        "500 USDT",
        {"daily_loss": "flatten", "stale_data": "refuse"},
    )
    assert 'max_daily_loss="500 USDT"' in said
    live.ok("limits", "set", "instances/mm", "max_order_qty=none", "on_breach.stale_data=none", "--yes")
    limits = live.do(lambda: live.desk.engine.risk_settings.limits("instance:mm"))
    assert (limits.max_order_qty, limits.max_open_orders) == (None, 7)
    assert limits.on_breach == {"daily_loss": "flatten"}
    assert "max_open_orders=7" in live.ok("limits", "get", "instances/mm")
    assert [one["name"] for one in live.json("limits", "get")] == ["instances/mm/riskLimits"]


@pytest.mark.parametrize(
    "setting",
    ["max_open_orders=-1", "max_open_orders=many", "max_daily_loss=500", "max_data_age=soon", "self_trade=no",
     "on_breach=kill", "on_breach.daily_loss=explode", "nonsense=1", "max_position"],
)  # fmt: skip
def test_a_limit_that_cannot_be_changes_nothing_and_exits_with_2(setting: str, live: LiveDesk) -> None:
    result = live.ctl("limits", "set", "node", "max_order_qty=1", setting, "--yes")
    assert (result.exit_code, setting.partition("=")[0] in result.stderr) == (2, True)
    assert live.do(lambda: live.desk.engine.risk_settings.limits("node").max_order_qty) is None


def test_the_status_is_told(live: LiveDesk) -> None:
    said = live.ok("status")
    assert said.startswith("desk is PRIMARY of cell main, RUNNING\n")
    assert "1 RUNNING" in said
    assert live.json("status")["openOrders"] == "2"


def test_the_latest_events_are_printed_or_those_from_one_on(live: LiveDesk) -> None:
    live.ok("pause", "mm")
    live.ok("resume", "mm")
    changed = live.ok("events", "--kind", "instance_changed", "--limit", "2").splitlines()
    assert ["paused" in line for line in changed] == [True, False]
    last = live.do(lambda: live.desk.journal.flushed_lsn)
    lines = [json.loads(line) for line in live.ok("events", "--limit", "5", "--json").splitlines()]
    assert [int(line["lsn"]) for line in lines] == list(range(last - 4, last + 1))
    first = live.ok("events", "--from", "1", "--limit", "3", "--json").splitlines()
    assert [json.loads(line)["lsn"] for line in first] == [1, 2, 3]
    assert live.ctl("events", "--kind", "nonsense").exit_code == 2
    assert live.ctl("events", "--from", "999999").exit_code == 2


def test_the_configuration_is_shown_without_secrets(live: LiveDesk) -> None:
    said = live.ok("config")
    assert '"plugin": "maker"' in said
    assert "hush" not in said
    assert live.json("config")["config"]["instance"][0]["name"] == "mm"


def test_the_log_level_is_shown_and_changed(live: LiveDesk) -> None:
    before = live.ok("log-level").strip()
    try:
        assert live.ok("log-level", "error") == "error\n"
        assert live.ok("log-level") == "error\n"
    finally:
        live.ok("log-level", before)
