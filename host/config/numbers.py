"""The whole numbers of the configuration: what a timer of the kernel takes, and a message of the control API."""

from typing import Annotated, Final

from msgspec import Meta

__all__ = ["MOST", "Positive"]

MOST: Final = 2**31 - 1
"""Milliseconds of 24 days, and more of anything than is meant: beyond it is a slip of the hand."""
Positive = Annotated[int, Meta(gt=0, le=MOST)]
