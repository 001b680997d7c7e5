"""One run of a verb: the node it talks to, how it answers, and whether it may go on."""

import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from google.protobuf.message import Message

from host.cli._output import Refused, print_json
from host.cli.ctl._tables import Listing, print_rows
from host.cli.ctl._words import as_json
from host.client import Control

if TYPE_CHECKING:
    from host.client.calling import Unary

__all__ = ["Session"]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

PAGE_SIZE: Final = 1000
_CHANGE_FIELDS: Final = ("reason", "etag", "request_id")


class Session:
    """What a verb works with: `control` is the client, `options` what was given on the command line."""

    def __init__(self, control: Control, options: dict[str, Any]) -> None:
        self.control = control
        self.is_json = bool(options.get("as_json"))
        self.is_watch = bool(options.get("watch"))
        self.is_dry_run = bool(options.get("dry_run"))
        self._is_sure = bool(options.get("yes"))
        self._change = {name: options[name] for name in _CHANGE_FIELDS if options.get(name)}
        self.timeout_s: float | None = options.get("timeout_s")

    async def change(
        self,
        call: "Unary[Request, Response]",
        request: Request,
        question: Callable[[Response], str] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a change, with the reason, etag and request id that were given; return the answer.

        With a `question` somebody has to say yes first. It is asked with what the node answers to a trial,
        so that nobody is asked about what would be refused anyway.
        """
        for name, value in self._change.items():
            setattr(request, name, value)
        trial: Any = type(request)()
        trial.CopyFrom(request)
        trial.validate_only = True
        timeout_s = self.timeout_s or timeout_s
        if self.is_dry_run:
            answer = await call(trial, timeout_s=timeout_s)
            if not self.is_json:
                click.echo("nothing was changed (--dry-run); it would come to this:", err=True)
            return answer
        if question is not None and not self._is_sure:
            if not sys.stdin.isatty():
                raise Refused(
                    "this needs somebody to say yes, and there is no terminal to ask on: "
                    "see what it would do with --dry-run, and do it with --yes"
                )
            _confirm(question(await call(trial, timeout_s=timeout_s)))
        return await call(request, timeout_s=timeout_s)

    def without(self, option: str) -> None:
        """Raise `click.UsageError` where an option was given that does not apply here."""
        if option in self._change:
            raise click.UsageError(f"--{option} has no place here")

    def say(self, message: Message, text: str) -> None:
        """Print an answer: `text` for people, or the message for scripts."""
        if self.is_json:
            print_json(as_json(message))
        else:
            click.echo(text)

    def show(self, listing: Listing, messages: Sequence[Any]) -> None:
        """Print a list: a table for people, or one JSON list."""
        if self.is_json:
            print_json([as_json(one) for one in messages])
        elif messages:
            print_rows(listing, messages)
        else:
            click.echo(f"no {listing.title}")

    async def all(
        self, call: "Unary[Request, Response]", request: Request, field: str, most: int = sys.maxsize
    ) -> list[Any]:
        """Return what a list holds, from all its pages, up to `most` of it."""
        request.page_size = min(PAGE_SIZE, most)  # type: ignore[attr-defined]
        found: list[Any] = []
        pages: AsyncIterator[Any] = self.control.pages(call, request)
        async for page in pages:
            found.extend(getattr(page, field))
            if len(found) >= most:
                break
        return found[:most]


def _confirm(question: str) -> None:
    """Have somebody say yes; raise `click.Abort` for anything else."""
    # asyncio's own handler only marks the task as cancelled, which a prompt that waits never sees.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.confirm(question, abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)
