"""A quote model in a worker process, from the host's side: asked beside the quotes, its last answer used.

However slow, stuck or dead it is, a quote goes out: with the last answer, or without one that is too old.
"""

import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec

from host.api import Adjustment, AsyncQuoteModel, Features, Params, Quote, TandemError
from host.isolation.fate import Fate
from host.isolation.model_messages import Answer, Ask, Broke, Ready, decode, encode
from host.isolation.seat import Seat
from host.isolation.settings import WorkerSettings
from host.loader import Offer
from host.runtime.remote import RemoteModel

if TYPE_CHECKING:
    from host.isolation.workers import Workers
    from host.runtime.engine import Engine

__all__ = ["ModelInWorker", "NoAnswer"]

_log = logging.getLogger("tandem.workers")
_READY: Final = encode(Ready())


class NoAnswer(TandemError):  # noqa: N818 - the fact, in the words operators see
    """A model in a worker has no answer that is not too old."""


class ModelInWorker(RemoteModel):
    """Stands in a chain of models for one that runs in a worker, and looks after that worker.

    Lost like any worker, it is started again after a pause; in a crash loop it is given up, and quotes go
    out without it. What it raises is counted with the quotes that went without it.
    """

    def __init__(
        self,
        engine: "Engine",
        node: "Workers",
        instance: str,
        offer: Offer,
        params: Params,
        settings: WorkerSettings,
    ) -> None:
        super().__init__(params)
        self.name: Final = f"{instance}, model {offer.name}"
        self.is_wanted = False
        self.restarts = 0
        self._instance: Final = instance
        self._engine: Final = engine
        self._node: Final = node
        self._offer: Final = offer
        self._settings: Final = settings
        valid_ms = offer.cls.valid_ms if issubclass(offer.cls, AsyncQuoteModel) else AsyncQuoteModel.valid_ms
        self._valid_ns: Final = int(valid_ms * 1e6)
        self._fate: Final = Fate(settings)
        self._seat: Seat | None = None
        self._started_ns = self._starts_ns = 0
        self._is_ready = False
        self._seq = 0
        self._asked_ns = 0
        """When it was asked what it has not answered; 0 where there is nothing."""
        self._answer: Adjustment | None = None
        self._answered_ns = 0
        self._error = "it was asked nothing yet"

    # -- the model -------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start its worker, which runs the model's own `on_start`."""
        self.is_wanted = True
        self._node.add(self)
        self._start()

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Ask it, unless it owes an answer, and return its last one; raise `NoAnswer`."""
        now_ns = time.monotonic_ns()
        if self._is_ready and not self._asked_ns:
            assert self._seat is not None
            self._seq += 1
            self._asked_ns = now_ns
            self._seat.channel.send(encode(Ask(self._seq, features, quote)))
        answer = self._answer
        if answer is None or now_ns - self._answered_ns > self._valid_ns:
            raise NoAnswer(self._error)
        return answer

    def close(self) -> None:
        """End its worker for good."""
        self.is_wanted = False
        self.end()

    # -- its worker ------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Return False: a model has no last word."""
        return False

    @property
    def is_over(self) -> bool:
        """Return whether nothing is to be done any more."""
        return not self.is_wanted

    def end(self) -> None:
        """End its process, and hear no more of it."""
        self._starts_ns = self._asked_ns = 0
        self._is_ready = False
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.end()

    def look(self, now_ns: int) -> None:
        """Find out whether it answers within its limits; restart it when that is due."""
        settings = self._settings
        if self._starts_ns:
            if now_ns >= self._starts_ns:
                self.restarts += 1
                self._start()
        elif self._seat is None:
            return
        elif not self._is_ready and now_ns - self._started_ns > settings.start_ns:
            self._lost(f"it did not start within {settings.start_ns / 1e9:g} s")
        elif self._asked_ns and now_ns - self._asked_ns > settings.deadline_ns:
            self._lost(f"it has not answered for {(now_ns - self._asked_ns) / 1e6:.0f} ms")
        elif fault := self._seat.fault(now_ns):
            self._lost(fault)

    def _start(self) -> None:
        self._starts_ns = 0
        self._started_ns = time.monotonic_ns()
        seat = self._seat = Seat(self._node, self._settings, self._lost)
        seat.begin(self.name, self._offer, self._on_message, model_params=msgspec.json.encode(self.params))

    def _on_message(self, body: bytes) -> None:
        seat = self._seat
        try:
            message = decode(body)
        except msgspec.DecodeError as error:
            self._lost(f"it sent what is no message: {error}")
            return
        if isinstance(message, Answer) and message.seq == self._seq:
            self._asked_ns, self._answered_ns = 0, time.monotonic_ns()
            self._answer = message.adjustment
            self._error = "its last answer is too old"
        elif isinstance(message, Broke):
            self._asked_ns = 0
            self._error = message.error
            if not message.seq:
                self._lost(f"it did not start: {message.error}")
        elif isinstance(message, Ready) and seat is not None and seat.channel.is_subscribed():
            seat.channel.send(_READY)
            if not self._is_ready:
                self._is_ready = True
                again = f", restart {self.restarts}" if self.restarts else ""
                text = f"instance {self.name} runs in process {seat.pid}{again}"
                self._engine.alert("worker_started", text, self._instance)

    def _lost(self, why: str) -> None:
        self._error = why
        self.end()
        if not self.is_wanted:
            return
        delay_ns = self._fate.lost(time.monotonic_ns())
        text = f"instance {self.name}: {why}"
        if delay_ns is None:
            self.is_wanted = False
            text = f"{text}; lost {self._fate.count} times, it is given up, and quotes go out without it"
        else:
            self._starts_ns = time.monotonic_ns() + delay_ns
        self._engine.alert("worker_lost", text, self._instance)
