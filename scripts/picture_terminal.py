#!/usr/bin/env python3
"""Make docs/images/terminal.svg: the live view of a node that ran on the simulated market.

Run it in Tandem's environment: .venv/bin/python scripts/picture_terminal.py [SECONDS]
"""

import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from host import node
from host.config import RunOptions, default_config
from host.terminal import NodeView, render_svg

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "terminal.svg"
WIDTH, HEIGHT = 110, 20


class Camera:
    """Stands where the screen would be and keeps what it was shown."""

    views: list[NodeView] = []  # noqa: RUF012 - the one film of the one node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put away."""

    def update(self, view: NodeView) -> None:
        """Keep `view`."""
        self.views.append(view)


def main() -> None:
    """Run the default node for a while and draw the last view with all quotes and, if any, positions."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    node.TerminalView = Camera  # type: ignore[assignment, misc, attr-defined]
    with tempfile.TemporaryDirectory(prefix="tandem-picture-") as folder:
        config = default_config()
        config = msgspec.structs.replace(
            config, node=msgspec.structs.replace(config.node, data_dir=Path(folder))
        )
        report = node.run(config, RunOptions(duration_s=seconds, ui=True))
    quoting = [
        index
        for index, view in enumerate(Camera.views)
        if all(row.bid is not None and row.ask is not None for row in view.instances)
    ]
    if not quoting:
        sys.exit(f"no moment in {seconds:g} s in which every instance quoted both sides: {report.stopped}")
    holding = [index for index in quoting if any(row.position for row in Camera.views[index].instances)]
    last = (holding or quoting)[-1]
    history = [float(sum(view.pnl.values())) for view in Camera.views[: last + 1]]
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(render_svg(Camera.views[last], WIDTH, HEIGHT, history[-60:]), encoding="utf-8")
    print(f"{PICTURE}: {report.events} events, {report.fills} fills")


if __name__ == "__main__":
    main()
