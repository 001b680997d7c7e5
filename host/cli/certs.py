"""`tandem certs`: TLS for the control API, without a company's CA."""

import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from host.cli._output import Refused
from host.cli.token import ROLES

if TYPE_CHECKING:
    from host.control.authority import Authority

__all__ = ["certs"]

DEFAULT_DAYS: Final = 365
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


def _named(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _NAME.fullmatch(value):
        raise click.BadParameter(f'expected 1 to 64 of A-Z a-z 0-9 _ . @ -, was "{value}"', param=param)
    return value


@click.group()
def certs() -> None:
    """Make the certificates with which nodes and their callers know each other."""


@certs.command(
    epilog="""\b
Examples:
  tandem certs init                                          a CA, this machine's node, an admin client
  tandem certs init --node a --host a.example.com --host 10.0.0.5
  tandem certs init --client grafana --role viewer --days 90"""
)
@click.option(
    "--dir", "folder", default="certs", show_default=True, type=click.Path(path_type=Path, file_okay=False),
    help="Where to write them; its CA is used if there is one.",
)  # fmt: skip
@click.option("--node", callback=_named, help="Make a node's certificate, node-NAME.crt.", metavar="NAME")
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST",
    help="A name or IP address that callers reach the node by; may be repeated. [default: this machine's]",
)  # fmt: skip
@click.option(
    "--client", callback=_named, help="Make a client's certificate, client-NAME.crt.", metavar="NAME"
)
@click.option("--role", type=click.Choice(ROLES), help="What that client may do. [default: viewer]")
@click.option(
    "--days",
    default=DEFAULT_DAYS,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="How long they are good.",
)
@click.option("--force", is_flag=True, help="Replace certificates of that name; the CA is never replaced.")
def init(
    folder: Path,
    node: str | None,
    hosts: tuple[str, ...],
    client: str | None,
    role: str | None,
    days: int,
    force: bool,
) -> None:
    """Make a local CA, and certificates for a node and a client.

    Without --node and --client it makes one of each: this machine's node, and a client named admin
    with the role admin. Private keys have mode 0600. ca.key signs whoever you want to let in: keep it
    off the nodes.
    """
    from host.control.authority import Authority

    if hosts and client and not node:
        raise click.UsageError("--host is for a node's certificate; add --node NAME")
    if role and not client:
        raise click.UsageError("--role is for a client's certificate; add --client NAME")
    if not node and not client:
        node, client, role = "local" if not hosts else hosts[0], "admin", "admin"
    stems = [stem for stem in (node and f"node-{node}", client and f"client-{client}") if stem]
    _refuse_to_replace(folder, stems, force=force)
    now = datetime.now(UTC)
    authority = Authority.open(folder)
    if authority is None:
        authority = Authority.create(folder, now)
        click.echo(f"made {folder / 'ca.crt'} and its key: whoever has the key can let callers in")
    made = _Maker(authority, now, days)
    if client:
        made.client(client, role or "viewer")
    if node:
        made.node(node, hosts or _own_hosts())


class _Maker:
    def __init__(self, authority: "Authority", now: datetime, days: int) -> None:
        self._authority = authority
        self._now = now
        self._days = days

    def client(self, name: str, role: str) -> None:
        from host.control.principal import Role

        certificate, key = self._authority.issue_client(name, Role.parse(role), self._now, self._days)
        click.echo(f"made {certificate} and {key.name}: {name} is {role}, for {self._days} days")

    def node(self, name: str, hosts: tuple[str, ...]) -> None:
        certificate, key = self._authority.issue_node(name, hosts, self._now, self._days)
        click.echo(f"made {certificate} and {key.name}: for {', '.join(hosts)}, for {self._days} days")
        click.echo(
            "\nIn the node's configuration:\n\n"
            "[control.tls]\n"
            f'certificate = "{certificate}"\n'
            f'key = "{key}"\n'
            f'client_ca = "{certificate.with_name("ca.crt")}"'
        )


def _refuse_to_replace(folder: Path, stems: list[str], *, force: bool) -> None:
    for path in [folder / f"{stem}{ending}" for stem in stems for ending in (".crt", ".key")]:
        if path.exists() and not force:
            raise Refused(f"{path} exists; name another certificate, or replace it with --force")


def _own_hosts() -> tuple[str, ...]:
    found: dict[str, None] = dict.fromkeys((socket.gethostname(), "localhost", "127.0.0.1", "::1"))
    return tuple(found)
