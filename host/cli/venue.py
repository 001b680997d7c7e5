"""`tandem venue`: the simulated exchange as a server of its own."""

from pathlib import Path

import click

__all__ = ["venue"]


@click.command(
    epilog="""\b
Examples:
  tandem venue
  tandem venue --listen 127.0.0.1:7700 --log venue.jsonl --replay RECORDING"""
)
@click.option("--listen", default="127.0.0.1:7700", show_default=True, help="HOST:PORT or unix:PATH.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every request and answer to this file.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True),
    help="A recording instead of the synthetic market.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the synthetic market.")
def venue(listen: str, log: Path | None, replay: Path | None, seed: int) -> None:
    """Run the simulated exchange until Ctrl-C."""
    from venue.server import run

    run(listen, seed=seed, log=log, replay=replay)
