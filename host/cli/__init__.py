"""The `tandem` command. Each command lives in its own module and imports what it needs when it runs."""

import os
import traceback
from typing import Any, Final

import click

from host.api import TandemError
from host.cli._output import exit_code
from host.cli.audit import audit
from host.cli.certs import certs
from host.cli.config import config
from host.cli.ctl import ctl
from host.cli.journal import journal
from host.cli.node import node
from host.cli.pair import pair
from host.cli.plugin import plugin
from host.cli.run import run
from host.cli.secret import secret
from host.cli.store import store
from host.cli.token import token
from host.cli.venue import venue

__all__ = ["main"]

_STDERR: Final = 2


class _Root(click.Group):
    """Turns the project's own errors into one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TandemError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            else:
                click.echo(f"error: {error}", err=True)
            ctx.exit(exit_code(error))


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0  it worked; what was checked is good
  1  it failed, or what was checked is bad
  2  the command line or the configuration is wrong
  3  refused, because it would not be safe

\b
Start here:
  tandem run                        a node on a simulated market, until Ctrl-C
  tandem pair                       two nodes and a venue, to break and to watch
  tandem ctl status                 what a running node does; `tandem ctl --help` for the rest
  tandem plugin new strategy mine   a strategy of your own, ready to edit
  tandem config check               what is wrong with tandem.toml, all at once""",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="tandem", message="tandem %(version)s")
def main(debug: bool) -> None:
    """Run trading plugins that never have to stop."""
    _fill_standard_descriptors()


def _fill_standard_descriptors() -> None:
    """Open what of 0, 1 and 2 whoever started this has closed, for child processes too.

    Else a journal or a socket gets such a number: what a library prints is written there, and the event loop, whose
    own must not be among them, aborts the process when it is closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


for _command in (run, pair, ctl, config, plugin, journal, store, node, venue, certs, token, secret, audit):
    main.add_command(_command)
