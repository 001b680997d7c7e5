"""Verbs about what is held, and at which prices: positions, balances, books."""

from collections.abc import AsyncGenerator

import click
from google.protobuf.timestamp_pb2 import Timestamp

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._orders import filter_of
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Change, Listing, watch
from host.cli.ctl._verb import verb
from host.cli.ctl._words import clock, full_name, money, short
from tandem.v1 import trading_pb2 as t

__all__: list[str] = []

POSITIONS = Listing(
    "positions",
    ("of", "account", "symbol", ">qty", ">average", ">mark", ">realised", ">unrealised", ">fees"),
    lambda one: (
        short(one.instance),
        short(one.account),
        one.symbol,
        one.qty,
        money(one.average_price),
        money(one.mark_price),
        f"{money(one.realised)} {one.currency}",
        f"{money(one.unrealised)} {one.currency}",
        ", ".join(f"{money(amount)} {currency}" for currency, amount in sorted(one.fees.items())),
    ),
)
BALANCES = Listing(
    "balances",
    ("account", "currency", ">total"),
    lambda one: (short(one.account), one.currency, money(one.total)),
)
BOOKS = Listing(
    "books",
    ("account", "symbol", ">bid size", ">bid", ">ask", ">ask size", "received (UTC)", "fault"),
    lambda one: (
        short(one.account),
        one.symbol,
        f"{one.bids[0].size:.12g}" if one.bids else "-",
        f"{one.bids[0].price:.12g}" if one.bids else "-",
        f"{one.asks[0].price:.12g}" if one.asks else "-",
        f"{one.asks[0].size:.12g}" if one.asks else "-",
        clock(one.receive_time),
        one.fault,
    ),
)

_account = click.option("--account", shell_complete=complete.accounts, help="Only on this account.")


@verb(ctl, "positions", watches=True, example="positions\npositions --account paper --watch")
@_account
@click.option("--instance", shell_complete=complete.instances, help="Only of this instance.")
@click.option("--symbol", shell_complete=complete.symbols, help="Only in this symbol.")
@click.option("--all", "include_flat", is_flag=True, help="Also those that are flat now.")
async def positions(
    session: Session, account: str | None, instance: str | None, symbol: str | None, include_flat: bool
) -> None:
    """List the positions: what each instance's fills add up to, and what that is worth."""
    wanted = filter_of(account, instance, symbol, None)
    if session.is_watch:
        await watch(POSITIONS, _position_changes(session, wanted), is_json=session.is_json)
        return
    request = t.ListPositionsRequest(filter=wanted, include_flat=include_flat)
    session.show(POSITIONS, await session.all(session.control.trading.list_positions, request, "positions"))


async def _position_changes(session: Session, wanted: t.TradingFilter) -> AsyncGenerator[Change]:
    async for answer in session.control.trading.watch_positions(t.WatchPositionsRequest(filter=wanted)):
        yield Change(answer.positions, answer.snapshot)


@verb(ctl, "balances", watches=True, example="balances\nbalances --account paper --watch")
@_account
async def balances(session: Session, account: str | None) -> None:
    """List the balances: the venue's last word, and the fills since."""
    name = full_name(account, "accounts") if account else ""
    if session.is_watch:
        await watch(BALANCES, _balance_changes(session, name), is_json=session.is_json)
        return
    request = t.ListBalancesRequest(account=name)
    session.show(BALANCES, await session.all(session.control.trading.list_balances, request, "balances"))


async def _balance_changes(session: Session, account: str) -> AsyncGenerator[Change]:
    async for answer in session.control.trading.watch_balances(t.WatchBalancesRequest(account=account)):
        yield Change(answer.balances, answer.snapshot)


@verb(
    ctl,
    "book",
    watches=True,
    example="book\nbook BTC-USDT --depth 5\nbook BTC-USDT --account paper --watch",
)
@click.argument("symbol", required=False, shell_complete=complete.symbols)
@_account
@click.option("--depth", type=click.IntRange(1, 100), default=10, show_default=True, help="Levels of a side.")
async def book(session: Session, symbol: str | None, account: str | None, depth: int) -> None:
    """Show the books as strategies see them: the best prices of all, or the levels of one symbol."""
    request = t.ListBooksRequest(account=full_name(account, "accounts") if account else "")
    found = await session.all(session.control.trading.list_books, request, "books")
    if symbol is not None:
        # Without an account it is whichever follows the symbol; the node names those that there are.
        name = next(
            (one.name for one in found if one.symbol == symbol), f"accounts/{account or 'any'}/books/{symbol}"
        )
        found = [one for one in found if one.name == name]
    if session.is_watch:
        await watch(BOOKS, _book_changes(session, [one.name for one in found]), is_json=session.is_json)
    elif symbol is not None:
        level = (await session.control.trading.get_book(t.GetBookRequest(name=name, depth=depth))).book
        session.say(level, _ladder(level))
    else:
        session.show(BOOKS, found)


async def _book_changes(session: Session, names: list[str]) -> AsyncGenerator[Change]:
    async for answer in session.control.trading.watch_books(t.WatchBooksRequest(names=names)):
        yield Change(answer.books)


def _ladder(book: t.Book) -> str:
    """Return a book's levels, asks above bids, the best next to each other."""
    at: Timestamp = book.receive_time
    head = f"{book.symbol} on {short(book.account)}, received {clock(at)} UTC"
    fault = [f"  fault: {book.fault}"] if book.fault else []
    levels = [("ask", one) for one in reversed(book.asks)] + [("bid", one) for one in book.bids]
    rows = [f"  {side}  {one.price:>16.12g}  {one.size:>16.12g}" for side, one in levels]
    return "\n".join([head, *fault, *rows])
