"""Makes a verb of `tandem ctl` from a coroutine function: its options, its errors, its exit code."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import click

from host.cli._output import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, print_json
from host.cli.ctl._node_options import control_of, given, node_options

if TYPE_CHECKING:
    from host.client import ControlError

__all__ = ["EXIT_DEADLINE", "EXIT_NOT_FOUND", "EXIT_NOT_PERMITTED", "EXIT_UNREACHABLE", "verb"]

EXIT_NOT_FOUND: Final = 4
EXIT_NOT_PERMITTED: Final = 5
EXIT_UNREACHABLE: Final = 6
EXIT_DEADLINE: Final = 7

Body = Callable[..., Awaitable[None]]

_CHANGE_OPTIONS: Final = {
    "etag": click.option("--etag", help="Only if it still has this etag, which `--json` shows."),
    "reason": click.option("--reason", metavar="TEXT", help="Why: kept in the journal and the audit log."),
    "yes": click.option("-y", "--yes", is_flag=True, help="Do not ask."),
}
_DRY_RUN: Final = click.option("--dry-run", is_flag=True, help="Have the node check it, and change nothing.")
_REQUEST_ID: Final = click.option(
    "--request-id", metavar="ID", help="Repeated with the same ID, it is done once."
)
_ALSO: Final = "Takes the options of `tandem ctl` too, such as --address, --config and --timeout."
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
_WATCH: Final = click.option("-w", "--watch", is_flag=True, help="Go on with what changes, until Ctrl-C.")


def verb(
    group: click.Group,
    name: str,
    *,
    example: str,
    changes: Collection[str] | None = None,
    watches: bool = False,
) -> Callable[[Body], click.Command]:
    """Return what makes a coroutine function, whose first argument is a `Session`, a verb of `group`.

    `changes` says that it changes something, and which of `yes`, `reason` and `etag` it takes; `watches`
    gives it `--watch`. `example` is a line or more of what to type after `tandem ctl`.
    """

    def make(body: Body) -> click.Command:
        wanted = inspect.signature(body).parameters.keys()

        @functools.wraps(body)
        @click.pass_context
        def callback(ctx: click.Context, /, **arguments: Any) -> None:
            _run(ctx, body, {key: value for key, value in arguments.items() if key in wanted})

        command: Any = node_options(hidden=True)(_JSON(callback))
        if watches:
            command = _WATCH(command)
        if changes is not None:
            command = _DRY_RUN(_REQUEST_ID(command))
            for option in sorted(changes, reverse=True):
                command = _CHANGE_OPTIONS[option](command)
        lines = "\n".join(f"  tandem ctl {line}" for line in example.splitlines())
        return group.command(name, epilog=f"\b\nExamples:\n{lines}\n\n{_ALSO}")(command)

    return make


def _run(ctx: click.Context, body: Body, arguments: dict[str, Any]) -> None:
    """Run a verb; a call that failed becomes a message and an exit code."""
    from host.cli.ctl._session import Session
    from host.client import ControlError

    options = given(ctx)

    async def story() -> None:
        async with control_of(options) as control:
            await body(Session(control, options), **arguments)

    try:
        asyncio.run(story())
    except ControlError as error:
        _tell(error, is_json=bool(options.get("as_json")))
        ctx.exit(_exit_code(error))
    except KeyboardInterrupt:
        if options.get("watch"):
            return  # it is how a watch ends
        raise


def _tell(error: "ControlError", *, is_json: bool) -> None:
    """Say why a call was not carried out, and what to do about it."""
    if is_json:
        told = {
            "code": error.code.name,
            "reason": error.reason,
            "message": error.text,
            "fields": error.fields,
            "metadata": error.metadata,
            "request_id": error.request_id,
        }
        print_json({"error": told}, err=True)
        return
    click.echo(f"error: {error.text}", err=True)
    if error.request_id:
        click.echo(
            "It may have been carried out all the same. To be sure, repeat it with "
            f"--request-id {error.request_id}",
            err=True,
        )
    if hint := _hint(error):
        click.echo(hint, err=True)


def _hint(error: "ControlError") -> str:
    from host.client import DeadlineExceeded, NotPermitted, Unreachable

    if isinstance(error, Unreachable) and not error.request_id:
        return "Does a node run there? Start one with `tandem run`, or say where it is with --address or -c."
    if isinstance(error, DeadlineExceeded):
        return "Give it longer with --timeout SECONDS."
    if isinstance(error, NotPermitted):
        return (
            "A token with a role is made by `tandem token create`; show it with --token-file or TANDEM_TOKEN."
        )
    return ""


def _exit_code(error: "ControlError") -> int:
    from host import client

    codes: tuple[tuple[type[ControlError], int], ...] = (
        (client.InvalidRequest, EXIT_USAGE),
        (client.NotFound, EXIT_NOT_FOUND),
        (client.Refused, EXIT_REFUSED),
        (client.Conflict, EXIT_REFUSED),
        (client.NotPermitted, EXIT_NOT_PERMITTED),
        (client.Unavailable, EXIT_UNREACHABLE),
        (client.DeadlineExceeded, EXIT_DEADLINE),
    )
    return next((code for cls, code in codes if isinstance(error, cls)), EXIT_FAILED)
