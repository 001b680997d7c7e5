"""Real nodes at a real venue, with known credentials: nothing that a node leaves or says contains one of them."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from click.testing import CliRunner
from secret_tools import sources_at

from host.cli import main
from host.secrets import write_new_key
from venue.protocols.request_log import RequestLine

PATIENCE_S = 200.0
PROTOCOLS = ("binance", "okx", "bybit")
# As hard to spot as they get: each has characters that base64, JSON and URLs write in another way.
CREDENTIALS = {
    "api_key": "7f3a/KEY+of~one=account&9c",
    "api_secret": "S3cr3t?of%an/account+4e1b=Zq",
    "passphrase": 'Pass"phrase\\of+a/trader 77',
}
WRONG = {"api_secret": "Wr0ng?secret/that+was=typed 31", "passphrase": 'Wr0ng"passphrase\\that+was/typed 52'}
TYPED_IN = "Typed?into/the+configuration=by mistake 68"

SABOTEUR = '''
import os
from decimal import Decimal

from host.api import BookTop, Params, Quote, Secret, Strategy


class SaboteurParams(Params, frozen=True):
    how: str = ""
    after: int = 40


class Crash(BaseException):
    """Nobody expects this."""


class Saboteur(Strategy[SaboteurParams]):
    """Quotes, and after some books breaks the node where it hurts: in the midst of signing, or out of any order."""

    def on_start(self) -> None:
        self._books = 0

    def on_book(self, book: BookTop) -> None:
        self._books += 1
        self.quote(book.symbol, Quote.around(book.mid, 3.0 + self._books % 5, Decimal("0.01")))
        if self._books == self.params.after:
            getattr(self, "_" + self.params.how or "_nothing", lambda: None)()

    def _abort_while_signing(self) -> None:
        Secret.reveal = lambda secret: os.abort()

    def _raise_while_signing(self) -> None:
        def fail(secret: Secret) -> str:
            raise RuntimeError(f"cannot sign with {secret!r}", secret)

        Secret.reveal = fail

    def _raise(self) -> None:
        raise Crash
'''


def forms_of(text: str) -> dict[str, bytes]:
    """Return the ways in which a credential could stand in a file, by name."""
    raw = text.encode()
    forms = {
        "plain": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": quote(text, safe="").encode(),
        "json": msgspec.json.encode(text)[1:-1],
    }
    for shift in range(3):  # base64 of something that contains it looks like one of these within
        whole = base64.b64encode(b"\0" * shift + raw)
        inner = whole[4 if shift else 0 : -4]
        forms[f"base64+{shift}"] = inner
        forms[f"base64url+{shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def assert_clean(places: Mapping[str, bytes], secrets: Iterable[tuple[str, str]]) -> None:
    found = [
        f"{name} ({form}) in {place}"
        for name, text in secrets
        for form, pattern in forms_of(text).items()
        for place, data in places.items()
        if pattern in data
    ]
    assert found == []


@contextmanager
def venue_at(folder: Path) -> Iterator[dict[str, str]]:
    """Run `tandem venue` with an account that has the credentials; return its addresses."""
    folder.mkdir()
    account = {"name": "demo", "api_key": CREDENTIALS["api_key"], "secret": CREDENTIALS["api_secret"]}
    account["passphrase"] = CREDENTIALS["passphrase"]
    lines = "".join(f"{name} = {msgspec.json.encode(text).decode()}\n" for name, text in account.items())
    settings = folder / "venue.toml"
    listen = "".join(f'{name} = "127.0.0.1:0"\n' for name in PROTOCOLS)
    settings.write_text(
        f'requests = "{folder}/requests.jsonl"\nhas_rate_limits = false\n[listen]\n{listen}[[account]]\n{lines}'
    )
    venue = tandem(folder, "venue", "--listen", f"unix:{folder}/house", "--config", str(settings))
    try:
        said = folder / "out"
        wait_until(lambda: said.read_text().count("http://") == len(PROTOCOLS), "the venue to listen")
        words = [line.split() for line in said.read_text().splitlines()]
        yield {word[0]: word[1] for word in words if word[1:] and word[1].startswith("http://")}
    finally:
        venue.kill()
        venue.wait()


def tandem(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start the command in `folder`; its output goes to `out` and `err` there."""
    code = "import sys; from host.cli import main; sys.exit(main())"
    environ = {name: text for name, text in os.environ.items() if not name.startswith("TANDEM")}
    with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=folder, env=environ, stdout=out, stderr=err
        )


def asked(folder: Path, *arguments: str) -> int:
    """Give a command in this process; what it prints is added to `out`."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(main, arguments)
    with (folder / "out").open("a") as out:
        out.write(result.output)
    return result.exit_code


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.01)


class Node:
    """A node in a folder of its own, with an account at each of the venue's protocols."""

    def __init__(self, folder: Path, venue: Path, urls: Mapping[str, str]) -> None:
        self.folder = folder
        self._venue = venue
        self._urls = urls
        folder.mkdir()
        (folder / "mine").mkdir()
        (folder / "mine" / "saboteur.py").write_text(SABOTEUR)
        write_new_key(folder / "master.key")

    def configure(self, how: str = "", secrets: Mapping[str, str] = CREDENTIALS, extra: str = "") -> None:
        store = sources_at(self.folder).store
        for name, text in {**CREDENTIALS, **secrets}.items():
            store.set(f"venue/{name}", text)
        parts = [
            """
[node]
name = "leaky"
data_dir = "data"
plugin_dirs = ["mine"]
journal_segment_kb = 256
state_save_ms = 50
stop_timeout_ms = 500
[secrets]
master_key = "file:master.key"
[control]
listen = ["unix:data/control.sock"]
"""
        ]
        for name in PROTOCOLS:
            keys = ["api_key", "api_secret", *(["passphrase"] if name == "okx" else [])]
            params = "".join(f'{key} = "secret:venue/{key}"\n' for key in keys)
            parts.append(
                f'[[account]]\nname = "{name}"\nexchange = "{name}"\n'
                f'[account.params]\nurl = "{self._urls[name]}"\n{params}{extra}'
                f'[[instance]]\nname = "mm-{name}"\nplugin = "saboteur"\naccount = "{name}"\n'
                f'symbols = ["BTC-USDT"]\nparams = {{ how = "{how}" }}\n'
            )
        self.config.write_text("".join(parts))

    @property
    def config(self) -> Path:
        return self.folder / "tandem.toml"

    def said(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    def placed(self) -> set[str]:
        """Return at which protocols an order was accepted so far."""
        data = (self._venue / "requests.jsonl").read_bytes().split(b"\n")[:-1]
        lines = [msgspec.json.decode(line, type=RequestLine) for line in data]
        return {line.protocol for line in lines if (line.kind, line.verdict) == ("place", "accepted")}

    def left(self) -> dict[str, bytes]:
        """Return everything that is in the folder, output included; not what the test itself put there."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in ("master.key", "tandem.toml")
        }

    def assert_clean(self, *more: Mapping[str, str]) -> None:
        """Look for the credentials, the master key, and what else must not be there."""
        secrets = [("master key", (self.folder / "master.key").read_text().strip())]
        secrets += [pair for part in (CREDENTIALS, *more) for pair in part.items()]
        places = self.left()
        assert {"data/secrets.json", "err", "out"} <= places.keys()
        assert any(place.startswith("data/journal/") for place in places)
        assert_clean(places, secrets)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("venue") / "v"
    with venue_at(folder) as urls:
        yield folder, urls


@pytest.fixture
def node(tmp_path: Path, venue: tuple[Path, dict[str, str]]) -> Node:
    return Node(tmp_path / "node", *venue)


def core_limit(process: "subprocess.Popen[bytes]") -> str:
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith("Max core file size")).split()[4]


def test_every_form_is_found_where_it_is() -> None:
    for text in (*CREDENTIALS.values(), *WRONG.values(), TYPED_IN):
        raw = text.encode()
        for data in (
            b"<" + raw + b">",
            raw.hex().encode(),
            quote(text, safe="").encode(),
            msgspec.json.encode({"x": text}),
            *(base64.b64encode(b"abc"[:shift] + raw + b"tail") for shift in range(3)),
            *(base64.urlsafe_b64encode(b"abc"[:shift] + raw) for shift in range(3)),
        ):
            with pytest.raises(AssertionError, match="one"):
                assert_clean({"there": b"before " + data + b" after"}, [("one", text)])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_that_trades_is_looked_at_and_changed(node: Node) -> None:
    node.configure()
    process = tandem(node.folder, "run", "--report", "json")
    try:
        wait_until(lambda: node.placed() == set(PROTOCOLS), f"orders everywhere: {node.said()[-2000:]}")
        assert core_limit(process) == "0"
        at = ("--address", "unix:data/control.sock")
        wait_until((node.folder / "data/control.sock").exists, "the control API")
        for verb in ("config", "status", "list", "orders", "events"):
            assert asked(node.folder, "ctl", verb, "--json", *at) == 0, verb
        assert asked(node.folder, "ctl", "pause", "mm-okx", *at) == 0
        config = node.config.read_text()
        node.config.write_text(config.replace('"secret:venue/api_secret"', f'"{TYPED_IN}"'))
        wait_until(lambda: "config_refused" in node.said(), "the edit to be refused")
        for command in (["config", "check", "--json"], ["secret", "list"]):
            asked(node.folder, *command)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, node.said()[-3000:]
    finally:
        process.kill()
        process.wait()
    assert asked(node.folder, "journal", "dump") == 0
    assert asked(node.folder, "audit", "show", "--json") == 0
    places = node.left()
    assert any(place.startswith("data/control/audit") for place in places) and "data/store.db" in places
    node.assert_clean({"typed in": TYPED_IN})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nodes_that_are_refused_and_that_crash(tmp_path: Path, venue: tuple[Path, dict[str, str]]) -> None:
    marks = {
        "wrong keys": [f"account {name}" for name in PROTOCOLS],
        "abort_while_signing": ["most recent call first", "saboteur.py"],
        "raise_while_signing": ["cannot sign with Secret(***)"],
        "raise": ["saboteur.Crash", "Traceback (most recent call last)"],
    }
    # Short names: a socket's path has room for a hundred characters.
    nodes = {how: Node(tmp_path / str(number), *venue) for number, how in enumerate(marks)}
    running = {}
    try:
        for how, node in nodes.items():  # together: most of their time they wait
            node.configure(how, WRONG if how == "wrong keys" else CREDENTIALS)
            # What is raised in the loop is told, and ends nothing: that node's time has to be up.
            running[how] = tandem(node.folder, "--debug", "run", "--for", "6s" if how == "raise" else "60s")
        codes = {how: process.wait(PATIENCE_S) for how, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    for how, node in nodes.items():
        said = node.said()
        assert codes[how] != 0 or how == "raise", (how, codes, said[-3000:])
        assert all(mark in said for mark in marks[how]), (how, codes, said[-3000:])
        node.assert_clean(WRONG)
