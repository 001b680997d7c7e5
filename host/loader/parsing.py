"""Reading Python source, from any thread."""

import ast
import importlib.util
import threading

__all__ = ["parse"]

_ONE_AT_A_TIME = threading.Lock()
"""Python 3.11 counts how deep it is in one place for all threads: where a finalizer lets another one run
meanwhile, both end with `SystemError: AST constructor recursion depth mismatch`."""


def parse(content: bytes, filename: str = "<unknown>") -> ast.Module:
    """Return the syntax tree of a file; raise what `ast.parse` does, or `ValueError` for bytes that are no text."""
    source = importlib.util.decode_source(content)
    with _ONE_AT_A_TIME:
        return ast.parse(source, filename)
