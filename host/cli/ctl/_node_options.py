"""Which node a command talks to, and as whom: options of `tandem ctl`, before the verb or after it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from host.cli._options import given_or_here

if TYPE_CHECKING:
    from host.client import Address, Control

__all__ = ["ADDRESS_VARIABLE", "TOKEN_VARIABLE", "addresses_given", "control_of", "node_options"]

F = TypeVar("F", bound=Callable[..., object])

ADDRESS_VARIABLE: Final = "TANDEM_CONTROL"
TOKEN_VARIABLE: Final = "TANDEM_TOKEN"
PATIENCE_S: Final = 1.0
"""A person would rather be told soon that no node runs."""

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


def node_options(*, hidden: bool) -> Callable[[F], F]:
    """Return what adds the options; verbs have them too, without showing them in each help text."""

    def add(command: F) -> F:
        for option in reversed(_OPTIONS):
            command = click.option(*option[0], **option[1], hidden=hidden)(command)
        return command

    return add


_OPTIONS: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (
        ("-a", "--address"),
        {
            "multiple": True,
            "metavar": "ADDRESS",
            "help": "unix:PATH or HOST:PORT; give both nodes of a pair, and the primary is found. "
            f"The variable {ADDRESS_VARIABLE} says the same, separated by commas. "
            "[default: where the configuration says the node listens]",
        },
    ),
    (
        ("-c", "--config", "path"),
        {
            "type": _FILE,
            "help": "The node's configuration file. [default: tandem.toml here, else built-in]",
        },
    ),
    (("--env",), {"help": "Overlay tandem.ENV.toml; the variable TANDEM_ENV says the same."}),
    (
        ("--data-dir",),
        {"type": click.Path(path_type=Path, file_okay=False), "help": "Instead of node.data_dir."},
    ),
    (
        ("--token-file",),
        {
            "type": _FILE,
            "help": "A file of mode 0600 with the token to show; or set the variable " + TOKEN_VARIABLE + ".",
        },
    ),
    (("--ca",), {"type": _FILE, "help": "Who signs the node's certificate (PEM)."}),
    (("--cert", "certificate"), {"type": _FILE, "help": "A client certificate (PEM), with --key."}),
    (("--key",), {"type": _FILE, "help": "Its private key, mode 0600."}),
    (("--server-name",), {"help": "The name in the node's certificate, if it is not the address's."}),
    (
        ("--timeout", "timeout_s"),
        {
            "type": click.FloatRange(min=0, min_open=True),
            "metavar": "SECONDS",
            "help": "How long one call may take. [default: 10; 60 where plugins are loaded]",
        },
    ),
)


def given(ctx: click.Context) -> dict[str, Any]:
    """Return the options above as they were given: after the verb, before it, or not at all."""
    found: dict[str, Any] = {}
    at: click.Context | None = ctx
    while at is not None:
        for name, value in at.params.items():
            if value not in (None, (), ""):
                found.setdefault(name, value)
        at = at.parent
    return found


def control_of(options: dict[str, Any], *, timeout_s: float | None = None) -> "Control":
    """Return a client of the node that the options name; raise `TandemError` for what cannot be."""
    from host.client import Control, Credentials

    credentials = Credentials.load(
        token=os.environ.get(TOKEN_VARIABLE, ""),
        token_file=options.get("token_file"),
        ca=options.get("ca"),
        certificate=options.get("certificate"),
        key=options.get("key"),
        server_name=options.get("server_name", ""),
    )
    limit_s = timeout_s or options.get("timeout_s") or 10.0
    return Control(
        addresses_given(options), credentials, timeout_s=limit_s, patience_s=min(PATIENCE_S, limit_s)
    )


def addresses_given(options: dict[str, Any]) -> "list[Address]":
    """Return where the node is, as the options, the environment or the configuration say."""
    from host.cli._options import whereabouts
    from host.client import Address, addresses_of

    written = options.get("address") or [
        text for text in os.environ.get(ADDRESS_VARIABLE, "").split(",") if text.strip()
    ]
    if written:
        # Who names whom to trust, or shows a certificate, means TLS: on loopback too.
        wants_tls = bool(options.get("ca") or options.get("certificate"))
        parsed = [Address.parse(text.strip()) for text in written]
        return [
            one
            if one.is_tls or not wants_tls or one.target.startswith("unix:")
            else Address.parse(f"tls:{one}")
            for one in parsed
        ]
    path, data_dir = given_or_here(options.get("path")), options.get("data_dir")
    known = addresses_of(whereabouts(path, options.get("env"), data_dir))
    if not known:
        source = path or "the configuration"
        raise click.UsageError(
            f"{source} does not say where the node takes calls (control.listen); give --address"
        )
    # A configured node is at its own socket or it does not run: its port may be another node's by now.
    # Without a configuration there is no such node to mistake another one for.
    is_default = path is None and data_dir is None
    if is_default and known[0].target.startswith("unix:"):
        socket = Path(known[0].target.removeprefix("unix:"))
        return [known[0] if socket.exists() or len(known) == 1 else known[1]]
    return [known[0]]
