"""`tandem certs`: TLS for the control API and between nodes, without a company's CA."""

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
  tandem certs init --client grafana --role viewer --days 90
  tandem certs init --peer a --host 10.0.0.1                 what node a shows the other nodes of its cell"""
)
@click.option(
    "--dir", "folder", default="certs", show_default=True, type=click.Path(path_type=Path, file_okay=False),
    help="Where to write them; its CA is used if there is one.",
)  # fmt: skip
@click.option("--node", callback=_named, help="Make a node's certificate, node-NAME.crt.", metavar="NAME")
@click.option(
    "--peer",
    callback=_named,
    help="Make what the node of that name shows the other nodes of its cell, peer-NAME.crt.",
    metavar="NAME",
)
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST",
    help="A name or IP address that callers and peers reach the node by; may be repeated. [default: this machine's]",
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
    peer: str | None,
    hosts: tuple[str, ...],
    client: str | None,
    role: str | None,
    days: int,
    force: bool,
) -> None:
    """Make a local CA, and certificates for nodes and clients.

    Without --node, --peer and --client it makes a node's, for this machine, and that of a client named admin with
    the role admin. Private keys have mode 0600. ca.key signs whoever you want to let in: keep it off the nodes.
    """
    from host.control.authority import Authority

    if hosts and client and not node and not peer:
        raise click.UsageError("--host is for a node's certificate; add --node NAME or --peer NAME")
    if role and not client:
        raise click.UsageError("--role is for a client's certificate; add --client NAME")
    if not node and not client and not peer:
        node, client, role = "local" if not hosts else hosts[0], "admin", "admin"
    kinds = {"node": node, "peer": peer, "client": client}
    stems = [f"{kind}-{name}" for kind, name in kinds.items() if name]
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
    if peer:
        made.peer(peer, hosts or _own_hosts())
    if made.sections:
        click.echo("\n".join(["\nIn the node's configuration:", *made.sections]))


class _Maker:
    def __init__(self, authority: "Authority", now: datetime, days: int) -> None:
        self._authority = authority
        self._now = now
        self._days = days
        self.sections: list[str] = []

    def client(self, name: str, role: str) -> None:
        from host.control.principal import Role

        certificate, key = self._authority.issue_client(name, Role.parse(role), self._now, self._days)
        click.echo(f"made {certificate} and {key.name}: {name} is {role}, for {self._days} days")

    def node(self, name: str, hosts: tuple[str, ...]) -> None:
        certificate, key = self._authority.issue_node(name, hosts, self._now, self._days)
        click.echo(f"made {certificate} and {key.name}: for {', '.join(hosts)}, for {self._days} days")
        self._say("control.tls", certificate, key, "client_ca")

    def peer(self, name: str, hosts: tuple[str, ...]) -> None:
        certificate, key = self._authority.issue_peer(name, hosts, self._now, self._days)
        click.echo(
            f"made {certificate} and {key.name}: node {name} at {', '.join(hosts)}, for {self._days} days"
        )
        self._say("failover.tls", certificate, key, "ca")

    def _say(self, section: str, certificate: Path, key: Path, ca: str) -> None:
        self.sections.append(
            f'\n[{section}]\ncertificate = "{certificate}"\nkey = "{key}"\n{ca} = "{certificate.with_name("ca.crt")}"'
        )


def _refuse_to_replace(folder: Path, stems: list[str], *, force: bool) -> None:
    for path in [folder / f"{stem}{ending}" for stem in stems for ending in (".crt", ".key")]:
        if path.exists() and not force:
            raise Refused(f"{path} exists; name another certificate, or replace it with --force")


def _own_hosts() -> tuple[str, ...]:
    found: dict[str, None] = dict.fromkeys((socket.gethostname(), "localhost", "127.0.0.1", "::1"))
    return tuple(found)
