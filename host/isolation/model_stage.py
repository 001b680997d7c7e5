"""A quote model in its worker: it is started, and then asked one thing at a time."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from host.api import Adjustment, AsyncQuoteModel, QuoteModel
from host.isolation.assignment import SeatPlan
from host.isolation.model_messages import Answer, Ask, Broke, Message, Ready, decode, encode
from host.loader import Kind, import_version, make
from host.loader.offers import collect_offers, new_manager
from host.runtime.plugin_errors import describe_error

__all__ = ["ModelStage"]


class ModelStage:
    """Runs one model for a worker, which calls it as it calls the `Stage` of a strategy.

    Where the model cannot be started the host is told so, and the stage is over.
    """

    def __init__(self, plan: SeatPlan, send: Callable[[bytes], None]) -> None:
        self.is_welcome = False
        """Whether the host has heard that it is ready."""
        self.is_over = False
        self._send: Final = send
        self._runner: Final = asyncio.Runner()
        where = "its construction"
        try:
            self._model: Final = _made(plan)
            where = "on_start"
            self._model.on_start()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
            self.is_over = True
            self._say(Broke(0, where, describe_error(error)))

    def say_hello(self) -> None:
        """Say that it is ready; to be said again until it is welcome."""
        self._say(Ready())

    def receive(self, body: bytes) -> None:
        """Answer a question, or take note that the host has heard."""
        message = decode(body)
        if isinstance(message, Ask):
            self._say(self._answer(message))
        elif isinstance(message, Ready):
            self.is_welcome = True

    def next_timer_ns(self) -> None:
        """Return None: a model has no timers."""

    def on_time(self) -> None:
        """Do nothing: a model acts when it is asked."""

    def idle(self) -> None:
        """Do nothing: all is said."""

    def _say(self, message: Message) -> None:
        self._send(encode(message))

    def _answer(self, ask: Ask) -> Answer | Broke:
        model = self._model
        where = "predict" if isinstance(model, AsyncQuoteModel) else "adjust"
        try:
            if isinstance(model, AsyncQuoteModel):
                return Answer(ask.seq, _plain(self._runner.run(model.predict(ask.features))))
            return Answer(ask.seq, _plain(model.adjust(ask.features, ask.quote)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
            return Broke(ask.seq, where, describe_error(error))


def _made(plan: SeatPlan) -> QuoteModel[Any]:
    version = plan.version
    offers = collect_offers(new_manager(), import_version(version), version)
    (offer,) = (one for one in offers if one.kind is Kind.MODEL and one.name == plan.offer)
    model: QuoteModel[Any] = make(offer, msgspec.json.decode(plan.model_params), instance=plan.instance)
    return model


def _plain(adjustment: Any) -> Adjustment:
    """Return an answer as it can be sent: a library's own kind of number, such as NumPy's, is a float here."""
    if not isinstance(adjustment, Adjustment):
        raise TypeError(f"it should have returned an Adjustment, was {type(adjustment).__name__}")
    return Adjustment(*map(float, msgspec.structs.astuple(adjustment)))
