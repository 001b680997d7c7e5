"""`tandem venue`: the simulated exchange as a server of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from venue.protocols.server import ProtocolServer
    from venue.protocols.settings import Settings

__all__ = ["venue"]

PROTOCOLS = ("binance", "okx", "bybit")
"""Spelled out, so that asking for help loads no server; `venue.protocols.registry` is the truth."""

F = TypeVar("F", bound=Callable[..., Any])


def _protocol_options(command: F) -> F:
    for name in reversed(PROTOCOLS):
        command = click.option(f"--{name}", metavar="HOST:PORT", help=f"Speak {name}'s protocol there.")(
            command
        )
    return command


@click.command(
    epilog="""\b
Examples:
  tandem venue
  tandem venue --binance 127.0.0.1:7710 --admin 127.0.0.1:7799 --requests requests.jsonl
  tandem venue --binance 127.0.0.1:7710 --fault latency,request=place,delay_ms=20,jitter_ms=5
  tandem venue --listen 127.0.0.1:7700 --log venue.jsonl --replay RECORDING --speed 10"""
)
@click.option(
    "--listen",
    default="127.0.0.1:7700",
    show_default=True,
    help="The house protocol: HOST:PORT or unix:PATH.",
)
@_protocol_options
@click.option("--admin", metavar="HOST:PORT", help="Faults on command and the request log over HTTP.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Accounts, addresses and faults of the protocols (docs/venue.md).",
)
@click.option(
    "--requests",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every request of the protocols and its verdict to this file, as JSON lines.",
)
@click.option(
    "--fault", "faults", multiple=True, metavar="KIND,FIELD=VALUE,...", help="Misbehave so; repeatable."
)
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The exchange's own log: accounts come back from it after a restart.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True),
    help="A recording instead of the synthetic market.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How fast the market's time passes.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Decides the synthetic market and the faults."
)
def venue(
    listen: str,
    admin: str | None,
    config: Path | None,
    requests: Path | None,
    faults: tuple[str, ...],
    log: Path | None,
    replay: Path | None,
    speed: float,
    seed: int,
    **addresses: str | None,
) -> None:
    """Run the simulated exchange until Ctrl-C."""
    from venue.server import run

    settings = _settings(config, addresses, admin, requests, faults)
    run(listen, seed=seed, log=log, replay=replay, speed=speed, protocols=settings, on_start=_introduce)


def _settings(
    config: Path | None,
    addresses: dict[str, str | None],
    admin: str | None,
    requests: Path | None,
    faults: tuple[str, ...],
) -> "Settings":
    import msgspec

    from venue.protocols.faults import parse_fault
    from venue.protocols.settings import Settings, load_settings

    settings = load_settings(config) if config is not None else Settings()
    given = {name: address for name, address in addresses.items() if address}
    return msgspec.structs.replace(
        settings,
        listen={**settings.listen, **given},
        admin=admin or settings.admin,
        requests=str(requests) if requests is not None else settings.requests,
        fault=[*settings.fault, *map(parse_fault, faults)],
    )


def _introduce(server: "ProtocolServer") -> None:
    for name, address in server.addresses.items():
        click.echo(f"{name:8} http://{address}")
    if server.courses:
        for account in server.accounts.listed():
            click.echo(f"account  {account.name}: key {account.api_key} {_credentials(account)}")


def _credentials(account: Any) -> str:
    """Say what else a client needs: the money is simulated, so the demo's secrets may be seen."""
    from venue.protocols.accounts import DEMO_ACCOUNTS

    if account not in DEMO_ACCOUNTS:
        return "(secret as configured)"
    return f"secret {account.secret} passphrase {account.passphrase}"
