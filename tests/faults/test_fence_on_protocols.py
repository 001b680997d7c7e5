"""The fence that a venue enforces, on the wire protocols of real ones.

A lease fences nodes. What a node had in hand when it was frozen, behind its gate and before its socket, only
the venue can fence: each order carries until when it is good. Real nodes trade through the bundled adapters,
and the venue's request log is the judge of what became of that one order.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from host.api import PlaceOrder
from host.config.secret_files import SECRETS_FOLDER, SecretFiles
from host.core.client_id import parse_client_id
from tests.faults.fault_tools import wait_until
from tests.faults.intents import PREFIX
from tests.faults.pair_judge import Verdict, read_lines
from tests.faults.pair_tools import Cell
from tests.faults.wire import Wire
from tests.servers import free_ports
from venue.ledger import RequestSeen
from venue.protocols.accounts import DEMO_ACCOUNTS
from venue.protocols.bybit.names import Product
from venue.protocols.bybit.order_rows import execution_id
from venue.protocols.request_log import RequestLine

pytestmark = pytest.mark.timeout(300)
PLUGINS = Path(__file__).parent / "plugins"
DEMO = DEMO_ACCOUNTS[0]


class Protocol(Struct, frozen=True):
    """A protocol to trade by: what the nodes need for it, and what its venue says of an order too old."""

    name: str
    too_old: str
    """The venue's code, as a refusal begins in the request log."""
    secrets: dict[str, str]
    wire: Wire


KEYS = {"api_key": DEMO.api_key, "api_secret": DEMO.secret}
BINANCE = Protocol("binance", "-1021", KEYS, Wire("demo/spot", fee_step=Decimal("1E-8")))
OKX = Protocol("okx", "51149", KEYS | {"passphrase": DEMO.passphrase}, Wire("demo/trading"))
BYBIT = Protocol("bybit", "10002", KEYS, Wire("demo/unified", trade_id=partial(execution_id, Product.SPOT)))


@contextmanager
def pair_at(protocol: Protocol, folder: Path) -> Iterator[Cell]:
    """Give a pair that trades by this protocol, with adapters that stop before their socket when asked to."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = folder / "venue.toml"
    settings.write_text(
        f'requests = "{folder}/requests.jsonl"\nhas_rate_limits = false\n'
        f'[listen]\n{protocol.name} = "127.0.0.1:{port}"\n'
    )
    options = ("--config", settings)
    node = f'plugin_dirs = ["{PLUGINS}"]'
    with Cell(folder, node=node, wire=protocol.wire, venue_options=options) as cell:
        wait_until(lambda: _listens(port), "the protocol's server to listen")
        named = "".join(f', {name} = "secret:{name}"' for name in protocol.secrets)
        for machine in cell.machines.values():
            machine.rewrite('exchange = "paper_remote"', f'exchange = "{protocol.name}_stalling"')
            machine.rewrite(
                f'params = {{ url = "{cell.venue.url}"',
                f'params = {{ stall = "{folder}/stall", url = "{url}"{named}',
            )
            # Room for a venue's limits of orders: these are the adapter's own to keep.
            text = machine.config.read_text()
            machine.config.write_text(text.replace("quote_tolerance_bps = 0.0", "quote_tolerance_bps = 0.5"))
            for name, value in protocol.secrets.items():
                SecretFiles(machine.data / SECRETS_FOLDER).set(name, value)
        yield cell


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def requests(folder: Path, client_id: str) -> list[RequestLine]:
    """Return what the venue was asked about one order to place, by its request log."""
    whole = (folder / "requests.jsonl").read_bytes().split(b"\n")[:-1]
    lines = [msgspec.json.decode(line, type=RequestLine) for line in whole]
    return [line for line in lines if line.kind == "place" and line.client_id == client_id]


@pytest.mark.parametrize("protocol", [BINANCE, OKX, BYBIT], ids=lambda protocol: protocol.name)
def test_an_order_that_was_frozen_behind_the_gate_is_refused_by_the_venue_for_its_age(
    tmp_path: Path, conclude: Callable[[Cell], Verdict], protocol: Protocol
) -> None:
    with pair_at(protocol, tmp_path) as cell:
        cell.start()
        cell.until_traded(20)
        stall, done = tmp_path / "stall", tmp_path / "stall.done"
        stall.touch()
        cell.until(done.exists, "an order to be in hand")
        client_id = done.read_text()
        parsed = parse_client_id(client_id, PREFIX)
        assert parsed is not None
        cell.until_epoch_after(parsed.epoch)
        assert requests(tmp_path, client_id) == []

        cell["a"].thaw()
        cell.until(lambda: bool(requests(tmp_path, client_id)), "the order to reach the venue")
        cell.until_ready()
        cell.until_traded(20)
        verdict = conclude(cell)

        [line] = requests(tmp_path, client_id)
        assert (line.verdict, line.transport) == ("refused", "ws")
        assert line.reason.startswith(protocol.too_old), line.reason
        engine = [one for one in read_lines(cell.venue.log.read_bytes()) if isinstance(one, RequestSeen)]
        placed = [one.client_id for one in engine if isinstance(one.command, PlaceOrder)]
        assert placed and client_id not in placed
        [switch] = verdict.switches
        assert (switch.old_leader, switch.new_leader) == ("a", "b")
