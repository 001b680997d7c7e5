"""A quote model in a worker process, from the host's side: asked beside the quotes, its last answer used.

However slow, stuck or dead it is, a quote goes out: with the last answer, or without one that is too old.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from host.api import Adjustment, AsyncQuoteModel, Features, Params, Quote, TandemError
from host.isolation.fate import Fate
from host.isolation.model_messages import Answer, Ask, Broke, Ready, decode, encode
from host.isolation.seat import NoSeat, Seat
from host.isolation.settings import WorkerSettings
from host.loader import Offer, decode_params
from host.runtime.latency import Histogram
from host.runtime.models import SAMPLE_EVERY, SAMPLES_KEPT, apply_adjustment
from host.runtime.plugin_errors import shortened
from host.runtime.remote import RemoteModel, RemoteStatus

if TYPE_CHECKING:
    from host.isolation.workers import Workers
    from host.runtime.engine import Engine

__all__ = ["ModelInWorker", "NoAnswer"]

_READY: Final = encode(Ready())
MOST_READIES: Final = 10_000
"""It says so every 5 ms until it is heard, while this process may be busy with something else."""


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
        self.recent = deque(maxlen=SAMPLES_KEPT)
        self.last_error = "it was asked nothing yet"
        self.valid_ms = (
            offer.cls.valid_ms if issubclass(offer.cls, AsyncQuoteModel) else AsyncQuoteModel.valid_ms
        )
        self._instance: Final = instance
        self._engine: Final = engine
        self._node: Final = node
        self._offer: Final = offer
        self._settings: Final = settings
        self._fate: Final = Fate(settings)
        self._seat: Seat | None = None
        self._unseated: asyncio.Handle | None = None
        """Tells, once who started it has gone on, that it got no seat."""
        self._started_ns = self._starts_ns = 0
        self._is_ready = False
        self._readies = 0
        self._is_on_trial = False
        """Whether its version has yet to earn its place: lost, it is not started again."""
        self._seq = 0
        self._question: tuple[Features, Quote] | None = None
        """What it was asked and has not answered."""
        self._asked_ns = 0
        self._answer: Adjustment | None = None
        self._answered_ns = 0
        self._answering: Final = Histogram()
        """From question to answer."""
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def of(
        cls,
        engine: "Engine",
        node: "Workers",
        instance: str,
        offer: Offer,
        params: Mapping[str, object],
        settings: WorkerSettings,
    ) -> "ModelInWorker":
        """Return what stands for an offer with the parameters as configured; raise `ParamsInvalid`."""
        decoded = decode_params(offer, params, instance=f"{instance}, model {offer.name}")
        return cls(engine, node, instance, offer, decoded, settings)

    # -- the model -------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start its worker, which runs the model's own `on_start`."""
        self.is_wanted = True
        self._node.add(self)
        self._start()

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Ask it, unless it owes an answer, and return its last one; raise `NoAnswer`."""
        if self._is_ready and self._question is None:
            self._ask(features, quote)
        answer = self._answer
        if answer is None or time.monotonic_ns() - self._answered_ns > self.valid_ms * 1e6:
            raise NoAnswer(self.last_error)
        return answer

    def close(self) -> None:
        """End its worker for good."""
        self.is_wanted = False
        self.failure = ""
        self.end()

    # -- as another version ----------------------------------------------------------------------

    def renewed(self, offer: Offer, params: Mapping[str, object]) -> "ModelInWorker":
        """Return what stands for another version of it, not started; raise `ParamsInvalid`."""
        return ModelInWorker.of(self._engine, self._node, self._instance, offer, params, self._settings)

    async def begin_trial(self) -> None:
        """Start it, and return once it can be asked; raise `NoAnswer` where it does not come to that."""
        self._is_on_trial = True
        self.on_start()
        while not self._is_ready:
            if not self.is_wanted:
                raise NoAnswer(self.failure or "it was ended")
            await self._told()

    async def answer(self, features: Features, quote: Quote) -> Adjustment:
        """Ask it and wait for the answer; raise `NoAnswer` where it raises, is lost or ended."""
        if not self._is_ready:
            raise NoAnswer(self.failure or "it was ended")
        self._answer = None
        self._ask(features, quote)
        while self._question is not None:
            await self._told()
        if self._answer is None:
            raise NoAnswer(self.failure or self.last_error)
        return self._answer

    def prove_itself(self) -> None:
        """Have it on trial no more: lost, it is started again, this very moment if it was."""
        self._is_on_trial = False
        if self.failure:
            self.failure = ""
            self.on_start()

    # -- its worker ------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Return False: a model has no last word."""
        return False

    @property
    def is_over(self) -> bool:
        """Return whether nothing is to be done any more."""
        return not self.is_wanted

    @property
    def pid(self) -> int:
        """Return the id of its process; 0 while none runs."""
        return 0 if self._seat is None else self._seat.pid

    def status(self) -> RemoteStatus:
        """Return how things are with its worker; what concerns events alone is left out."""
        seat, is_asked = self._seat, self._question is not None
        if seat is None:
            state = "waiting" if self._starts_ns else "ended"
        else:
            state = "running" if self._is_ready else "starting"
        return RemoteStatus(
            state=state,
            pid=self.pid,
            restarts=self.restarts,
            behind=int(is_asked),
            lag_ns=time.monotonic_ns() - self._asked_ns if is_asked else 0,
            slowest_us=self._answering.max_ns // 1000,
            handled_p50_us=self._answering.quantile_us(0.5),
            handled_p99_us=self._answering.quantile_us(0.99),
            memory_bytes=0 if seat is None or seat.process is None else seat.process.memory_bytes(),
        )

    def end(self) -> None:
        """End its process, and hear no more of it."""
        self._starts_ns = 0
        self._is_ready, self._question = False, None
        if self._unseated is not None:
            self._unseated.cancel()
            self._unseated = None
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.end()
        self._wake()

    def look(self, now_ns: int) -> None:
        """Find out whether it answers within its limits; restart it when that is due."""
        settings, seat = self._settings, self._seat
        if self._starts_ns:
            if now_ns >= self._starts_ns:
                self.restarts += 1
                self._start()
            return
        if seat is None:
            return
        if self._is_ready:
            waited_ns = 0 if self._question is None else now_ns - self._asked_ns
            limit_ns, why = settings.deadline_ns, f"it has not answered for {waited_ns / 1e6:.0f} ms"
        else:
            waited_ns = now_ns - self._started_ns
            limit_ns, why = settings.start_ns, f"it did not start within {settings.start_ns / 1e9:g} s"
        seat.waits(waited_ns, limit_ns)
        if waited_ns > limit_ns:
            self._lost(f"{why}{seat.where}")
        elif fault := seat.fault(now_ns):
            self._lost(fault)

    def _start(self) -> None:
        self._starts_ns = self._readies = 0
        self._started_ns = time.monotonic_ns()
        try:
            seat = self._seat = Seat(self._node, self._settings, self._lost)
        except NoSeat as error:
            self._unseated = asyncio.get_running_loop().call_soon(self._lost, str(error))
            return
        # Nobody shares the fate of what has to prove itself.
        group = "" if self._is_on_trial else self._settings.group
        params = msgspec.json.encode(self.params)
        seat.begin(self.name, self._offer, self._on_message, group=group, model_params=params)

    def _ask(self, features: Features, quote: Quote) -> None:
        assert self._seat is not None
        self._seq += 1
        self.asked += 1
        self._question, self._asked_ns = (features, quote), time.monotonic_ns()
        self._seat.channel.send(encode(Ask(self._seq, features, quote)))

    def _on_message(self, body: bytes) -> None:
        try:
            message = decode(body)
        except msgspec.DecodeError as error:
            self._lost(shortened(f"it sent what is no message: {error}"))
            return
        if isinstance(message, Ready):
            self._on_ready()
        elif isinstance(message, Broke) and not message.seq:
            self._lost(shortened(f"{message.where} raised {message.error}"), alone=True)
        elif isinstance(message, Answer | Broke) and message.seq == self._seq and self._question is not None:
            self._on_answer(message, *self._question)
        else:
            self._lost("it sent what it was not asked for")

    def _on_ready(self) -> None:
        seat = self._seat
        self._readies += 1
        if self._readies > MOST_READIES:
            self._lost(f"it said more than {MOST_READIES} times that it is ready")
            return
        if seat is None or not seat.channel.is_subscribed():
            return  # an answer would be lost: it says so once more
        seat.channel.send(_READY)
        if self._is_ready:
            return
        self._is_ready = True
        if not self._is_on_trial:
            again = f", restart {self.restarts}" if self.restarts else ""
            text = f"instance {self.name} runs in process {seat.pid}{again}"
            self._engine.alert("worker_started", text, self._instance)
        self._wake()

    def _on_answer(self, message: Answer | Broke, features: Features, quote: Quote) -> None:
        self._question = None
        self._answering.add(time.monotonic_ns() - self._asked_ns)
        answer, error = _answer_of(message, quote)
        if len(self.recent) < SAMPLES_KEPT or self._seq % SAMPLE_EVERY == 0:
            self.recent.append((features, quote, answer))
        if answer is None:
            self.broken += 1
            self.last_error = error
        else:
            self._answer, self._answered_ns = answer, time.monotonic_ns()
            self.last_error = "its last answer is too old"
        self._wake()

    async def _told(self) -> None:
        """Wait until it says something, or ends."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lost(self, why: str, *, alone: bool = False) -> None:
        """End what is left of it, and of those who share its process but for `alone`; start it again, or give it up."""
        if self._seat is not None and not alone:
            if self._seat.process is not None and (others := self._seat.process.others):
                why = f"{why}; it shared its process with {others}, one of which may be the cause"
            self._seat.kill()
        self.last_error = why
        if self.is_wanted and self._is_on_trial:
            self.is_wanted, self.failure = False, why
        self.end()
        if not self.is_wanted or self._engine.halted:  # nothing is journaled any more: another node may lead
            return
        delay_ns = self._fate.lost(time.monotonic_ns())
        text = f"instance {self.name}: {why}"
        if delay_ns is None:
            self.is_wanted = False
            text = f"{text}; lost {self._fate.count} times, it is given up, and quotes go out without it"
        else:
            self._starts_ns = time.monotonic_ns() + delay_ns
        self._engine.alert("worker_lost", text, self._instance)


def _answer_of(message: Answer | Broke, quote: Quote) -> tuple[Adjustment | None, str]:
    """Return an answer that is of use, or None and why there is none."""
    if isinstance(message, Broke):
        return None, shortened(f"{message.where} raised {message.error}")
    if apply_adjustment(message.adjustment, quote) is None:
        return None, f"its answer makes no quote: {message.adjustment}"
    return message.adjustment, ""
