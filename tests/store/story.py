"""Journal records of a plausible trading session, made from a seed."""

from decimal import Decimal
from random import Random

from host.api import (
    AccountSnapshot,
    Balance,
    Instrument,
    InstrumentKind,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderType,
    RequestUnanswered,
    Side,
    TimeInForce,
)
from host.core import entries as e

START_NS = 1_700_000_000_000_000_000
SYMBOL = "BTC-USDT"
INSTRUMENT = Instrument(
    symbol=SYMBOL,
    kind=InstrumentKind.SPOT,
    base="BTC",
    quote="USDT",
    tick_size=Decimal("0.01"),
    lot_size=Decimal("0.00001"),
)


def records_of(entries: list[e.Entry], first_lsn: int = 1) -> list[e.Record]:
    """Number entries and space them one microsecond apart."""
    return [e.Record(lsn, START_NS + lsn * 1_000, entry) for lsn, entry in enumerate(entries, first_lsn)]


def opening(node: str = "a", cell: str = "main", epoch: int = 1) -> list[e.Entry]:
    """What a node journals before its first order."""
    balances = (Balance("BTC", Decimal("1.5")), Balance("USDT", Decimal("100000"), Decimal("250.5")))
    return [
        e.NodeStarted(node, cell, epoch, "0.1.0"),
        e.PluginLoaded("two_sided", "plugins/strategies/two_sided.py", "ab" * 32, ("TwoSided",)),
        e.InstrumentSet("paper", INSTRUMENT),
        e.InstanceAdded("mm-btc", 1, "two_sided", "ab" * 32, "paper", (SYMBOL,), b'{"size":"0.01"}'),
        e.InstanceChanged("mm-btc", e.InstanceState.RUNNING, ""),
        e.AccountReported("paper", AccountSnapshot(balances, (), START_NS)),
    ]


def place(number: int, side: Side = Side.BUY, price: str = "60000.10", qty: str = "0.01") -> e.PlaceSent:
    """An order of `mm-btc`."""
    return e.PlaceSent(
        f"t1x{number}",
        "mm-btc",
        "paper",
        SYMBOL,
        side,
        OrderType.LIMIT,
        TimeInForce.GTC,
        Decimal(price),
        Decimal(qty),
        True,
        False,
        0,
    )


def fill(order: e.PlaceSent, trade_id: str, qty: str | None = None) -> e.Reported:
    """An execution of `order` at its price, all of it or `qty`."""
    assert order.price is not None
    quantity = order.qty if qty is None else Decimal(qty)
    fee = order.price * quantity / 1000
    return e.Reported(
        order.account,
        OrderFilled(
            order.client_id,
            order.symbol,
            order.side,
            trade_id,
            order.price,
            quantity,
            fee,
            "USDT",
            Liquidity.MAKER,
            START_NS,
        ),
    )


def accepted(order: e.PlaceSent) -> e.Reported:
    """The venue's acknowledgement."""
    return e.Reported(order.account, OrderAccepted(order.client_id, f"v{order.client_id}", START_NS))


def session(orders: int, seed: int = 7) -> list[e.Entry]:
    """Orders that are acknowledged, amended, filled in parts, cancelled, lost and marked, mixed up."""
    random = Random(seed)
    entries = opening()
    for number in range(1, orders + 1):
        side = random.choice([Side.BUY, Side.SELL])
        price = f"{60_000 + random.randint(-10_000, 10_000) / 100:.2f}"
        order = place(number, side, price, f"{random.randint(2, 400)}E-5")
        entries.append(order)
        entries.append(accepted(order))
        kind = random.random()
        half = str(order.qty // Decimal("2E-5") * Decimal("1E-5"))
        if kind < 0.3:
            entries += [fill(order, f"{number}a", half), fill(order, f"{number}a", half)]
        elif kind < 0.5:
            entries.append(fill(order, f"{number}b"))
            continue
        elif kind < 0.7:
            assert order.price is not None
            price_now = order.price + 1
            entries.append(e.AmendSent((e.Change(order.client_id, price_now, order.qty),)))
            amended = OrderAmended(order.client_id, price_now, order.qty, START_NS)
            entries.append(e.Reported("paper", amended))
        elif kind < 0.75:
            entries.append(e.Reported("paper", RequestUnanswered(order.client_id, "timeout", START_NS)))
        elif kind < 0.8:
            entries.append(
                e.CommandRefused("mm-btc", "paper", SYMBOL, "place", "max_position", "1.2 is over 1")
            )
            entries.append(e.Alert("drift", "book differs from the venue's", "mm-btc"))
        if random.random() < 0.9:
            entries.append(e.CancelSent(order.client_id, "requote"))
            entries.append(e.Reported("paper", OrderCancelled(order.client_id, START_NS)))
        if number % 20 == 0:
            mark = Decimal("60000.5")
            one = Decimal("1.25")
            entries.append(e.EquityMarked("paper", "mm-btc", SYMBOL, mark, one, one, one, one, one))
    return entries
