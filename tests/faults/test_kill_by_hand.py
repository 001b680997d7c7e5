"""`kill -9` of a node with an order by hand: the order rests on, and the next process takes it up."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tandem.v1 import common_pb2, trading_pb2_grpc
from tandem.v1 import trading_pb2 as pb
from tests.faults.fault_tools import DEADLINE_S, INSTANCES, TandemProcess, Venue, wait_until

BOOK = "accounts/acc/books/BTC-USDT"


class Node:
    """A node that is started again and again on one data folder, and a client of it."""

    def __init__(self, folder: Path, venue: Venue) -> None:
        self._folder = folder
        # A Unix socket's path has to be short, and pytest's folders are not.
        self._socket = Path(f"/tmp/tandem-{os.getpid()}-hand/control.sock")
        self._socket.parent.mkdir(mode=0o700)
        self._config = folder / "tandem.toml"
        self._config.write_text(
            f'[node]\nname = "handy"\ndata_dir = "{folder}/data"\norder_window_ms = 500\n'
            "journal_segment_kb = 32768\n"
            f'[control]\nlisten = ["unix:{self._socket}"]\n[store]\nurl = ""\n'
            f'[[account]]\nname = "acc"\nexchange = "paper_remote"\nparams = {{ url = "{venue.url}" }}\n{INSTANCES}'
        )

    @contextmanager
    def running(self) -> Iterator[tuple[TandemProcess, trading_pb2_grpc.TradingServiceStub]]:
        """Run it, and give a client once it trades."""
        output = self._folder / "node.out"
        with (
            TandemProcess(output, "run", "-c", self._config, "--no-ui") as process,
            grpc.insecure_channel(f"unix:{self._socket}") as channel,
        ):
            stub = trading_pb2_grpc.TradingServiceStub(channel)

            def trades() -> bool:
                assert process.is_alive, process.said()
                try:
                    orders = stub.ListOrders(pb.ListOrdersRequest(), timeout=1.0).orders
                except grpc.RpcError:
                    return False
                return any(not order.placed_by for order in orders)

            wait_until(trades, "the node to trade")
            yield process, stub

    def remove(self) -> None:
        """Leave nothing outside the test's folder."""
        self._socket.unlink(missing_ok=True)
        self._socket.parent.rmdir()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.delenv(
        "TANDEM__CONTROL__LISTEN", raising=False
    )  # which keeps other tests' nodes from listening
    with Venue(tmp_path, seed=71) as venue:
        node = Node(tmp_path, venue)
        yield node
        node.remove()


def test_an_order_by_hand_is_taken_up_by_the_next_process_and_gone_after_a_clean_stop(node: Node) -> None:
    with node.running() as (process, stub):
        top = stub.GetBook(pb.GetBookRequest(name=BOOK), timeout=DEADLINE_S).book.bids[0].price
        request = pb.PlaceOrderRequest(
            account="accounts/acc",
            symbol="BTC-USDT",
            side=common_pb2.SIDE_BUY,
            price=f"{round(top * 0.9)}",
            qty="0.001",
        )
        placed = stub.PlaceOrder(request, timeout=DEADLINE_S).order
        wanted = pb.GetOrderRequest(name=placed.name)

        def rests() -> bool:
            return stub.GetOrder(wanted, timeout=DEADLINE_S).order.status == pb.ORDER_STATUS_OPEN

        wait_until(rests, "the order to rest")
        process.kill()
    with node.running() as (process, stub):
        order = stub.GetOrder(wanted, timeout=DEADLINE_S).order
        assert (order.status, order.placed_by) == (pb.ORDER_STATUS_OPEN, placed.placed_by)
        amend = pb.AmendOrderRequest(name=order.name, qty="0.002", etag=order.etag)
        stub.AmendOrder(amend, timeout=DEADLINE_S)
        wait_until(
            lambda: stub.GetOrder(wanted, timeout=DEADLINE_S).order.qty == "0.002", "the order to be amended"
        )
        assert process.stop() == 0, process.said()
