"""Verbs that end trading of a scope, and the one that lets it go on."""

import click

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._session import Session
from host.cli.ctl._verb import verb
from host.cli.ctl._words import scope_of
from tandem.v1 import trading_pb2 as t

__all__: list[str] = []

_scope = click.argument("scope", shell_complete=complete.scopes)


def _orders(count: int) -> str:
    return "1 open order" if count == 1 else f"{count} open orders"


@verb(
    ctl,
    "cancel-all",
    changes=("reason", "yes"),
    example="cancel-all instances/mm-btc\ncancel-all node --yes",
)
@_scope
async def cancel_all(session: Session, scope: str) -> None:
    """Cancel every open order of SCOPE, once. Instances that run quote again; `panic` stops them."""
    scope = scope_of(scope)
    answer = await session.change(
        session.control.trading.cancel_all_orders,
        t.CancelAllOrdersRequest(scope=scope),
        lambda trial: f"Cancel {_orders(trial.cancelled_orders)} of {scope}, at {session.control.address}?",
    )
    session.say(answer, f"asked to cancel {_orders(answer.cancelled_orders)} of {scope}")


@verb(
    ctl,
    "panic",
    changes=("reason", "yes"),
    example='panic node --reason "venue announces an outage"\npanic instances/mm-btc --yes',
)
@_scope
async def panic(session: Session, scope: str) -> None:
    """Stop trading of SCOPE: cancel its orders and refuse new ones, over restarts too, until `release`.

    Positions stay as they are; `flatten` closes them as well.
    """
    scope = scope_of(scope)
    answer = await session.change(
        session.control.trading.panic_stop,
        t.PanicStopRequest(scope=scope),
        lambda trial: (
            f"Stop all trading of {scope}, at {session.control.address}, and cancel "
            f"{_orders(trial.cancelled_orders)}?"
        ),
    )
    session.say(
        answer,
        f"{scope} is stopped, {_orders(answer.cancelled_orders)} cancelled. "
        f"To let it trade again: tandem ctl release {scope}",
    )


@verb(ctl, "flatten", changes=("reason", "yes"), example='flatten instances/mm-btc --reason "too large"')
@_scope
async def flatten(session: Session, scope: str) -> None:
    """Stop trading of SCOPE as `panic` does, and close its positions at the market."""
    scope = scope_of(scope)
    answer = await session.change(
        session.control.trading.flatten,
        t.FlattenRequest(scope=scope),
        lambda trial: (
            f"Stop all trading of {scope}, at {session.control.address}, cancel "
            f"{_orders(trial.cancelled_orders)} and close {_positions(trial)} at the market?"
        ),
    )
    session.say(
        answer,
        f"{scope} is stopped, {_orders(answer.cancelled_orders)} cancelled, closing {_positions(answer)}. "
        f"To let it trade again: tandem ctl release {scope}",
    )


def _positions(answer: t.FlattenResponse) -> str:
    names = (name.split("/") for name in answer.closing)
    return ", ".join(f"{symbol} of {instance}" for _, instance, _, symbol in names) or "no position"


@verb(ctl, "release", changes=("reason", "yes"), example="release node\nrelease instances/mm-btc --yes")
@_scope
async def release(session: Session, scope: str) -> None:
    """Let SCOPE trade again after `panic`, `flatten` or a risk limit that stopped it."""
    scope = scope_of(scope)
    answer = await session.change(
        session.control.trading.release_panic_stop,
        t.ReleasePanicStopRequest(scope=scope),
        lambda trial: (
            f"{scope} was stopped because of {trial.stopped_scopes.get(scope, 'an unknown reason')}. "
            f"Let it trade again, at {session.control.address}?"
        ),
    )
    left = ", ".join(
        f"{name} ({why})" for name, why in sorted(answer.stopped_scopes.items()) if name != scope
    )
    session.say(
        answer,
        f"{scope} {'would' if session.is_dry_run else 'may'} trade again; "
        + (f"still stopped: {left}" if left else "nothing else is stopped"),
    )
