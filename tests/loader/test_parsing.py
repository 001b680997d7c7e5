"""Reading source in several threads."""

import ast
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.loader.parsing import parse

SOURCE = (Path(__file__).parents[2] / "plugins" / "exchanges" / "paper.py").read_bytes()
THREADS, TIMES = 4, 40


class Finalized:
    """Garbage that runs Python code when it is collected, at which another thread may go on."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        sum(range(2_000))


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching_often")
def test_threads_that_read_source_at_once_do_not_disturb_each_other() -> None:
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(TIMES):
                for _ in range(50):
                    Finalized()
                parse(SOURCE)
        except BaseException as error:  # noqa: BLE001 - told by the thread that joins
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_source_keeps_its_encoding_and_its_file_name() -> None:
    content = "# -*- coding: latin-1 -*-\nx = '\xe9'\n".encode("latin-1")
    assert "'\xe9'" in ast.dump(parse(content))
    with pytest.raises(SyntaxError) as caught:
        parse(b"x = (\n", "alpha.py")
    assert caught.value.filename == "alpha.py"
