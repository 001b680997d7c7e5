"""The worker's side of a quote model: start it, then answer one question at a time."""

import asyncio
import os
import time
from typing import Any, Final

import msgspec
import zmq

from host.api import Adjustment, AsyncQuoteModel, QuoteModel
from host.isolation.assignment import SeatPlan
from host.isolation.model_messages import Answer, Ask, Broke, Ready, decode, encode
from host.loader import Kind, import_version, make
from host.loader.offers import collect_offers, new_manager
from host.runtime.plugin_errors import describe_error

__all__ = ["run_model"]

READY_EVERY_MS: Final = 5
LOOK_UP_MS: Final = 200


def run_model(plan: SeatPlan, parent: int) -> None:
    """Run the model of a plan until the host ends this process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    events, turns = context.socket(zmq.SUB), context.socket(zmq.PUSH)
    events.connect(plan.events)
    events.setsockopt(zmq.SUBSCRIBE, plan.key)
    turns.connect(plan.turns)

    def say(message: Any) -> None:
        turns.send_multipart((plan.key, encode(message)))

    where = "its construction"
    try:
        model = _made(plan)
        where = "on_start"
        model.on_start()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
        say(Broke(0, where, describe_error(error)))
        time.sleep(1.0)  # the host ends this process once it has heard
        return
    is_heard = False
    with asyncio.Runner() as runner:
        while os.getppid() == parent:
            if not is_heard:
                say(Ready())
            if not events.poll(LOOK_UP_MS if is_heard else READY_EVERY_MS):
                continue
            message = decode(events.recv_multipart()[1])
            if isinstance(message, Ask):
                say(_answer(runner, model, message))
            elif isinstance(message, Ready):
                is_heard = True


def _made(plan: SeatPlan) -> QuoteModel[Any]:
    version = plan.version
    offers = collect_offers(new_manager(), import_version(version), version)
    (offer,) = (one for one in offers if one.kind is Kind.MODEL and one.name == plan.offer)
    model: QuoteModel[Any] = make(offer, msgspec.json.decode(plan.model_params), instance=plan.instance)
    return model


def _answer(runner: asyncio.Runner, model: QuoteModel[Any], ask: Ask) -> Answer | Broke:
    where = "predict" if isinstance(model, AsyncQuoteModel) else "adjust"
    try:
        if isinstance(model, AsyncQuoteModel):
            return Answer(ask.seq, _plain(runner.run(model.predict(ask.features))))
        return Answer(ask.seq, _plain(model.adjust(ask.features, ask.quote)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
        return Broke(ask.seq, where, describe_error(error))


def _plain(adjustment: Any) -> Adjustment:
    """Return an answer as it can be sent: a library's own kind of number, such as NumPy's, is a float here."""
    if not isinstance(adjustment, Adjustment):
        raise TypeError(f"it should have returned an Adjustment, was {type(adjustment).__name__}")
    return Adjustment(*map(float, msgspec.structs.astuple(adjustment)))
