#!/usr/bin/env python3
"""Make docs/images/pair.svg: the screen of `tandem pair` after a kill, a freeze and a switchover.

Run it in Tandem's environment: .venv/bin/python scripts/picture_pair.py
"""

import asyncio
import tempfile
from pathlib import Path

import uvloop
from msgspec import structs

from host.pair.faults import parse_script
from host.pair.lines import run_lines
from host.pair.pair import Pair
from host.pair.plan import PairPlan
from host.pair.screen import PairView, render_svg
from host.pair.viewing import make_view

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "pair.svg"
WIDTH, HEIGHT = 112, 32
SCRIPT = "kill a@3s, freeze b@ready+2s, thaw b@+2s, switchover@ready+2s"


async def film(folder: Path) -> PairView:
    """Run the script and return the last picture in which both nodes are well."""
    pair = Pair(PairPlan(folder=folder))
    try:
        await run_lines(pair, parse_script(SCRIPT, pair.plan.names), None, asyncio.Event(), print)
        while not pair.is_whole:
            pair.look()
            await asyncio.sleep(0.1)
        return make_view(pair)
    finally:
        await pair.stop()


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory(prefix="tandem-pair-") as folder:
        view = uvloop.run(film(Path(folder) / "demo"))
    PICTURE.write_text(render_svg(structs.replace(view, folder="/tmp/tandem-pair-demo"), WIDTH, HEIGHT))
    print(PICTURE)


if __name__ == "__main__":
    main()
