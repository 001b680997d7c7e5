"""What a plugin's exception says, for the journal and for the person who wrote the plugin."""

import re
import traceback
from pathlib import PurePath
from typing import Final

__all__ = ["OF_A_PLUGIN", "describe_error", "shortened"]

MAX_TEXT: Final = 2_000
"""Characters of an error's text that are kept: it goes into the journal."""
OF_A_PLUGIN: Final = re.compile(r"@[0-9a-f]{12}$")
"""Plugins are compiled under the names of their files, with the version's digest behind."""


def shortened(text: str) -> str:
    """Return as much of a text that a plugin, or a peer, made up as is kept."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def describe_error(error: BaseException) -> str:
    """Return type and text of an error and, for the person who wrote the code, file and line.

    The line is the plugin's own where one of its lines is among those that led there: what a library
    raised deep inside says little. Such a file goes by its name and version, not by its whole path.

    An error whose own text cannot be had is described all the same.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - plugin boundary: an error class may be as broken as its raiser
        text = "its text cannot be had"
    text = shortened(text)
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return f"{type(error).__name__}: {text}"
    own = [frame for frame in frames if OF_A_PLUGIN.search(frame.filename)]
    frame = own[-1] if own else frames[-1]
    file = PurePath(frame.filename).name if own else frame.filename
    where = f" ({file}, line {frame.lineno})"
    return f"{type(error).__name__}: {text}{where}"
