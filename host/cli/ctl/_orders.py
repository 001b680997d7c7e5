"""Verbs about orders and fills; trading by hand."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import click

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Change, Listing, watch
from host.cli.ctl._verb import verb
from host.cli.ctl._words import clock, full_name, money, short, word
from tandem.v1 import common_pb2 as c
from tandem.v1 import trading_pb2 as t

__all__ = ["filter_of", "filter_options"]

F = TypeVar("F", bound=Callable[..., Any])

DONE: Final = frozenset(
    {t.ORDER_STATUS_FILLED, t.ORDER_STATUS_CANCELLED, t.ORDER_STATUS_REJECTED, t.ORDER_STATUS_EXPIRED}
)


def _moved(now: str, pending: str) -> str:
    """Return what an amend that is on its way makes of a price or quantity."""
    return f"{now} → {pending}" if pending and pending != now else now


ORDERS = Listing(
    "orders",
    ("order", "of", "account", "symbol", "side", ">price", ">qty", ">filled", "status", "changed", "reason"),
    lambda one: (
        one.client_id,
        f"{short(one.instance)}{f' ({one.placed_by})' if one.placed_by else ''}",
        short(one.account),
        one.symbol,
        word(c.Side, one.side),
        _moved(one.price or "market", one.pending_price),
        _moved(one.qty, one.pending_qty),
        one.filled,
        word(t.OrderStatus, one.status),
        clock(one.update_time),
        one.reason,
    ),
    lambda one: one.status in DONE,
)
FILLS = Listing(
    "fills",
    ("time (UTC)", "of", "account", "symbol", "side", ">price", ">qty", ">fee", "liquidity", "order"),
    lambda one: (
        clock(one.time),
        short(one.instance),
        short(one.account),
        one.symbol,
        word(c.Side, one.side),
        one.price,
        one.qty,
        f"{money(one.fee)} {one.fee_currency}",
        word(t.Liquidity, one.liquidity),
        short(one.order),
    ),
)


def filter_options(command: F) -> F:
    """Add `--account`, `--instance`, `--symbol` and `--side`."""
    for option in (
        click.option("--side", type=click.Choice(["buy", "sell"]), help="Only these."),
        click.option("--symbol", shell_complete=complete.symbols, help="Only in this symbol."),
        click.option("--instance", shell_complete=complete.instances, help="Only of this instance."),
        click.option("--account", shell_complete=complete.accounts, help="Only on this account."),
    ):
        command = option(command)
    return command


def filter_of(
    account: str | None, instance: str | None, symbol: str | None, side: str | None
) -> t.TradingFilter:
    """Return what these options ask for."""
    return t.TradingFilter(
        account=full_name(account, "accounts") if account else "",
        instance=full_name(instance, "instances") if instance else "",
        symbol=symbol or "",
        side=c.Side.Value(f"SIDE_{side.upper()}") if side else c.SIDE_UNSPECIFIED,
    )


_limit = click.option(
    "-n", "--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many."
)


@verb(
    ctl,
    "orders",
    watches=True,
    example="orders\norders --instance mm-btc --watch\norders --all --limit 20\n"
    "orders --json | jq -r '.[].clientId'",
)
@filter_options
@click.option("--all", "include_done", is_flag=True, help="Also those that are done: the latest 4096.")
@_limit
async def orders(
    session: Session,
    account: str | None,
    instance: str | None,
    symbol: str | None,
    side: str | None,
    include_done: bool,
    limit: int,
) -> None:
    """List the open orders, newest first."""
    wanted = filter_of(account, instance, symbol, side)
    if session.is_watch:
        await watch(ORDERS, _order_changes(session, wanted), is_json=session.is_json)
        return
    request = t.ListOrdersRequest(filter=wanted, include_done=include_done)
    session.show(ORDERS, await session.all(session.control.trading.list_orders, request, "orders", limit))


async def _order_changes(session: Session, wanted: t.TradingFilter) -> AsyncGenerator[Change]:
    async for answer in session.control.trading.watch_orders(t.WatchOrdersRequest(filter=wanted)):
        yield Change(answer.orders, answer.snapshot)


@verb(ctl, "order", example="order tdtcf5aa03i2n16")
@click.argument("order", shell_complete=complete.orders)
async def order_(session: Session, order: str) -> None:
    """Show one order: an open one, or one of the latest that ended."""
    request = t.GetOrderRequest(name=full_name(order, "orders"))
    found = (await session.control.trading.get_order(request)).order
    session.say(found, _order_line(found))


@verb(ctl, "fills", watches=True, example="fills --instance mm-btc\nfills --watch")
@filter_options
@_limit
async def fills(
    session: Session,
    account: str | None,
    instance: str | None,
    symbol: str | None,
    side: str | None,
    limit: int,
) -> None:
    """List the fills, newest first; with --watch print each as it comes."""
    wanted = filter_of(account, instance, symbol, side)
    if session.is_watch:
        await watch(FILLS, _fill_changes(session, wanted), is_json=session.is_json, in_place=False)
        return
    request = t.ListFillsRequest(filter=wanted)
    session.show(FILLS, await session.all(session.control.trading.list_fills, request, "fills", limit))


async def _fill_changes(session: Session, wanted: t.TradingFilter) -> AsyncGenerator[Change]:
    async for answer in session.control.trading.watch_fills(t.WatchFillsRequest(filter=wanted)):
        yield Change(answer.fills)


@verb(
    ctl,
    "place",
    changes=("yes",),
    example="place buy 0.01 BTC-USDT --price 60000 --account paper\n"
    "place sell 0.01 BTC-USDT --market --account paper --yes\n"
    "place buy 0.01 BTC-USDT --price 60000 --account paper --dry-run",
)
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("qty")
@click.argument("symbol", shell_complete=complete.symbols)
@click.option("--account", required=True, shell_complete=complete.accounts, help="The account to trade on.")
@click.option("--price", help="A limit order, at this price or better.")
@click.option("--market", is_flag=True, help="A market order, at whatever is there.")
@click.option(
    "--tif", type=click.Choice(["gtc", "ioc", "fok"]), help="How long it may rest. [default: gtc, market ioc]"
)
@click.option("--post-only", is_flag=True, help="It must rest and never cross.")
@click.option("--reduce-only", is_flag=True, help="It may only make a position smaller.")
async def place(
    session: Session,
    side: str,
    qty: str,
    symbol: str,
    account: str,
    price: str | None,
    market: bool,
    tif: str | None,
    post_only: bool,
    reduce_only: bool,
) -> None:
    """Send one order by hand, within the risk limits. It outlives this command and a crash of the node."""
    if market == (price is not None):
        raise click.UsageError("say either --price PRICE, or --market")
    request = t.PlaceOrderRequest(
        account=full_name(account, "accounts"),
        symbol=symbol,
        side=c.Side.Value(f"SIDE_{side.upper()}"),
        type=t.ORDER_TYPE_MARKET if market else t.ORDER_TYPE_LIMIT,
        time_in_force=t.TimeInForce.Value(f"TIME_IN_FORCE_{(tif or 'unspecified').upper()}"),
        price=price or "",
        qty=qty,
        post_only=post_only,
        reduce_only=reduce_only,
    )
    answer = await session.change(
        session.control.trading.place_order,
        request,
        lambda trial: f"{_order_line(trial.order)}, at {session.control.address}. Send it?",
    )
    session.say(answer.order, _order_line(answer.order))


@verb(
    ctl,
    "amend",
    changes=("etag", "yes"),
    example="amend tdtcf5aa03i2n16 --price 60010\namend tdtcf5aa03i2n16 --qty 0.02 --yes",
)
@click.argument("order", shell_complete=complete.orders)
@click.option("--price", default="", help="The new price.")
@click.option("--qty", default="", help="The new quantity, what is filled included.")
async def amend(session: Session, order: str, price: str, qty: str) -> None:
    """Change price or quantity of an open order that was placed by hand."""
    if not price and not qty:
        raise click.UsageError("say what to change: --price, --qty or both")
    new = " and ".join(text for text in (price and f"price {price}", qty and f"quantity {qty}") if text)
    answer = await session.change(
        session.control.trading.amend_order,
        t.AmendOrderRequest(name=full_name(order, "orders"), price=price, qty=qty),
        lambda trial: f"{_order_line(trial.order)}: give it {new}?",
    )
    session.say(answer.order, _order_line(answer.order))


@verb(ctl, "cancel", changes=("reason", "etag"), example="cancel tdtcf5aa03i2n16")
@click.argument("order", shell_complete=complete.orders)
async def cancel(session: Session, order: str) -> None:
    """Cancel one order, anybody's. An instance that runs may quote again at once."""
    request = t.CancelOrderRequest(name=full_name(order, "orders"))
    answer = await session.change(session.control.trading.cancel_order, request)
    session.say(answer.order, _order_line(answer.order))


def _order_line(order: t.Order) -> str:
    """Return an order on one line: `tdt1: BUY 0.01 BTC-USDT at 60000 on paper, OPEN`."""
    name = f"{order.client_id}: " if order.client_id else ""
    price = f"at {_moved(order.price, order.pending_price)}" if order.price else "at the market"
    filled = f", {order.filled} filled" if order.filled not in ("", "0") else ""
    status = f", {word(t.OrderStatus, order.status)}" if order.status else ""
    reason = f" ({order.reason})" if order.reason else ""
    extra = "".join(
        f" {text}"
        for text, is_on in (("post-only", order.post_only), ("reduce-only", order.reduce_only))
        if is_on
    )
    return (
        f"{name}{word(c.Side, order.side)} {_moved(order.qty, order.pending_qty)} {order.symbol} {price}{extra} "
        f"on {short(order.account)}{filled}{status}{reason}"
    )
