"""A desk whose API is served from a thread of its own, and `tandem ctl` that talks to it."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from click.testing import CliRunner, Result
from control_tools import ControlDesk

from host.api import TandemError
from host.cli import main
from host.core.entries import Entry

T = TypeVar("T")
PATIENCE_S = 30.0
EntryType = TypeVar("EntryType", bound=Entry)


class LiveDesk:
    """A desk that a command line can talk to. Everything about the desk is done in its own thread."""

    def __init__(self, desk: ControlDesk) -> None:
        self.desk = desk
        self.address = f"unix:{desk.home}/c.sock"
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def serving(self) -> Iterator["LiveDesk"]:
        """Serve its API; the venue answers by itself."""
        ready: Future[None] = Future()
        over = asyncio.Event()

        async def story() -> None:
            async with self.desk.serving():
                ready.set_result(None)
                while not over.is_set():
                    self.desk.settle()
                    await asyncio.sleep(0.002)

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            try:
                self._loop.run_until_complete(story())
            except TandemError as error:
                ready.set_exception(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            ready.result(PATIENCE_S)
            yield self
        finally:
            self._loop.call_soon_threadsafe(over.set)
            thread.join(PATIENCE_S)
            self._loop.close()

    def do(self, work: Callable[[], T]) -> T:
        """Do something with the desk, between two events."""

        async def step() -> T:
            return work()

        return self.run(step())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the desk that takes several steps."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to become true of the desk."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.do(is_so):
            assert time.monotonic() < deadline_s, "it did not become true"
            time.sleep(0.002)

    def entries(self, kind: type[EntryType]) -> list[EntryType]:
        """Return the journal's entries of one kind."""

        def read() -> list[EntryType]:
            self.desk.journal.flush()
            return [entry for entry in self.desk.entries if isinstance(entry, kind)]

        return self.do(read)

    def ctl(self, *words: str) -> Result:
        """Run `tandem ctl` as a person without a terminal does."""
        return CliRunner().invoke(main, ["ctl", "--address", self.address, *words])

    def ok(self, *words: str) -> str:
        """Run `tandem ctl`, which has to succeed; return what it printed."""
        result = self.ctl(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words: str) -> Any:
        """Run `tandem ctl ... --json`, which has to succeed; return what it printed."""
        return json.loads(self.ok(*words, "--json"))
