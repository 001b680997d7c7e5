"""Keys of a terminal, one by one and without Enter."""

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["keys_of"]


@contextmanager
def keys_of(fd: int, on_key: Callable[[str], None]) -> Iterator[None]:
    """Call `on_key` with each character typed at the terminal `fd`, until the block ends.

    Ctrl-C still is a signal. To be used on a running event loop.
    """
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(fd)

    def read() -> None:
        data = os.read(fd, 64)
        if not data:
            loop.remove_reader(fd)  # the terminal is gone, and would be readable for ever
            return
        if data.startswith(b"\x1b"):
            return  # an arrow or a function key, which comes as several characters
        for key in data.decode(errors="ignore"):
            on_key(key)

    tty.setcbreak(fd)
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
