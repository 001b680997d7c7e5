"""What a plugin's exception says, for the journal and for the person who wrote the plugin."""

import traceback
from typing import Final

__all__ = ["describe_error"]

MAX_TEXT: Final = 2_000
"""Characters of an error's text that are kept: it goes into the journal."""


def describe_error(error: BaseException) -> str:
    """Return type and text of an error and, for the person who wrote the code, file and line.

    An error whose own text cannot be had is described all the same.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - plugin boundary: an error class may be as broken as its raiser
        text = "its text cannot be had"
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
