"""The group `tandem ctl` itself."""

import importlib
from typing import Final

import click

from host.cli.ctl._node_options import node_options

__all__ = ["SECTIONS", "ctl"]

SECTIONS: Final = {
    "Look": (
        "status", "list", "get", "orders", "order", "fills", "positions", "balances", "book", "events", "config",
    ),
    "Instances": ("set", "pause", "resume", "stop", "start", "create", "remove"),
    "Plugins": ("plugins", "versions", "reload", "activate", "promote", "rollback", "auto-reload"),
    "Trading by hand": ("place", "amend", "cancel", "limits"),
    "Stopping": ("cancel-all", "panic", "flatten", "release", "drain", "shutdown"),
    "The pair": ("failover", "switchover", "maintenance"),
    "Log": ("log-level",),
}  # fmt: skip
"""The verbs, in the order in which the help text shows them."""


class _Verbs(click.Group):
    """Loads its verbs when one is asked for: no other command of `tandem` waits for gRPC's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs by section."""
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, None where there is none of that name."""
        importlib.import_module("host.cli.ctl._verbs")
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, each with the first sentence of its help."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                found = [(name, self.get_command(ctx, name)) for name in names]
                rows = [(name, _first_sentence(command)) for name, command in found if command]
                formatter.write_dl(rows, col_max=12)


def _first_sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.partition(". ")[0].removesuffix(".")


@click.group(
    cls=_Verbs,
    epilog="""\b
Start here:
  tandem ctl status                      what the node is doing
  tandem ctl list --watch                its instances, kept up to date
  tandem ctl set mm-btc size=0.02        a parameter, between two events
  tandem ctl panic node --reason "news"  stop all trading, now
  tandem ctl events --watch              everything that happens

\b
Names: an instance is mm-btc or instances/mm-btc, an order's its client id. What applies to many takes
a scope: node, accounts/NAME, instances/NAME or symbols/NAME.

\b
Exit codes:
  0  done
  1  it failed: a version was refused, a drain left orders open, the node has a fault, nobody said yes
  2  the command line is wrong, or a value in it
  3  refused: the node's state does not allow it, the etag is old, or --yes is missing
  4  there is no such thing
  5  not permitted: unknown caller, or the role is too low
  6  no node answers, or it cannot do it now
  7  the time was over before the answer came""",
)
@node_options(hidden=False)
def ctl(**_: object) -> None:
    """Drive a running node: look, change, trade by hand, stop.

    Every verb takes --json for scripts, those that change something --dry-run; dangerous ones ask first,
    or want --yes.
    """
