"""Classes that do not keep to their base class, and data that the host could not carry."""

from collections.abc import Callable

import pytest

from host.loader import Catalog
from tests.loader.conftest import WritePlugin

Load = Callable[[], Catalog]

HEAD = """from typing import Annotated, Any
from decimal import Decimal
import collections
from msgspec import Meta, Struct
from host.api import *
"""  # five lines: what follows starts at line 6


def problems(write: WritePlugin, load: Load, body: str) -> list[str]:
    write("alpha.py", HEAD + body)
    return [str(problem) for problem in load().problems]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "def on_book(self, book, depth): ...",
            "alpha.py:7: Alpha.on_book takes (self, book), was (self, book, depth)",
        ),
        ("def on_stop(self, why): ...", "Alpha.on_stop takes (self), was (self, why)"),
        ("def on_book(self): ...", "Alpha.on_book takes (self, book), was (self)"),
        ("def __init__(self): ...", "Alpha.__init__ takes (self, params), was (self)"),
        ("async def on_fill(self, fill): ...", "Alpha.on_fill is a plain def, was async def"),
        ("def on_trade(self, trade): yield", "Alpha.on_trade must not yield"),
        ("on_order = None", "Alpha.on_order is a method, was NoneType"),
        ("@staticmethod\n    def on_book(book): ...", "Alpha.on_book is a method, was staticmethod"),
        (
            "def on_bok(self, book): ...",
            'alpha.py:7: Alpha.on_bok is not a callback; did you mean "on_book"?',
        ),
        ("def on_zzz(self): ...", "the host would never call it: rename it to _on_zzz"),
        ("def quote(self, symbol): ...", "Alpha.quote takes (self, symbol, *quotes), was (self, symbol)"),
    ],
)
def test_wrong_methods_are_named_with_line_wanted_and_found(
    write: WritePlugin, load: Load, method: str, expected: str
) -> None:
    (problem,) = problems(write, load, f"class Alpha(Strategy):\n    {method}\n")

    assert expected in problem


@pytest.mark.parametrize(
    "method",
    [
        "def on_book(self, top): ...",
        "def on_book(self, book, extra=1): ...",
        "def on_book(self, *args): ...",
        "def _on_signal(self, x, y): ...",
        "def helper(self, x): ...",
    ],
)
def test_compatible_methods_are_fine(write: WritePlugin, load: Load, method: str) -> None:
    assert problems(write, load, f"class Alpha(Strategy):\n    {method}\n") == []


def test_every_wrong_method_is_reported_at_once(write: WritePlugin, load: Load) -> None:
    body = "class Alpha(Strategy):\n    def on_bok(self): ...\n    def on_fill(self): ...\n"

    assert len(problems(write, load, body)) == 2


def test_methods_inherited_from_a_plugin_base_are_checked(write: WritePlugin, load: Load) -> None:
    body = "class _Base(Strategy):\n    def on_book(self): ...\nclass Alpha(_Base): ...\n"

    assert "alpha.py:7: Alpha.on_book takes" in problems(write, load, body)[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "class Alpha(QuoteModel): ...",
            "alpha.py:6: Alpha does not define adjust; define adjust(self, features, quote)",
        ),
        (
            "class Alpha(QuoteModel):\n    def ajust(self, features, quote): ...",
            'did you mean it by "ajust"?',
        ),
        (
            "class Alpha(AsyncQuoteModel):\n    def predict(self, features): ...",
            "Alpha.predict is an async def",
        ),
        ("class Alpha(AsyncQuoteModel): ...", "Alpha does not define predict"),
        ("class Alpha(ExchangeAdapter): ...", "Alpha does not define connect"),
        (
            "class Alpha(ExchangeAdapter):\n    async def send(self, command, deadline_ns): ...",
            "is a plain def, was async",
        ),
    ],
)
def test_methods_that_a_kind_must_define(write: WritePlugin, load: Load, body: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(write, load, body + "\n"))


def test_adapters_may_have_event_handlers_of_their_own(write: WritePlugin, load: Load) -> None:
    found = problems(write, load, "class Alpha(ExchangeAdapter):\n    def on_frame(self, frame): ...\n")

    assert not any("on_frame" in problem for problem in found)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            "class P(Params, frozen=True):\n    size: float\n",
            "alpha.py:7: P.size has no default; give it one",
        ),
        ("class P(Params, frozen=False): ...\n", "alpha.py:6: P is frozen, was not"),
        (
            "class P(Params, frozen=True):\n    x: Positive = -1.0\n",
            "alpha.py:7: the default of P.x must be > 0, was -1.0",
        ),
        (
            "class P(Params, frozen=True):\n    x: int = 'a'\n",
            "the default of P.x must be of type int, was 'a' (str)",
        ),
        (
            "class P(Params, frozen=True):\n    x: Annotated[Decimal, Meta(gt=0)] = Decimal(1)\n",
            "P is not plain, typed",
        ),
        ("class P(Params, frozen=True):\n    x: collections.Counter = None\n", "P is not plain, typed data"),
        ("class P(Struct, frozen=True):\n    x: int = 1\n", "alpha.py:6: P is a subclass of Params, was not"),
    ],
)
def test_parameters_that_the_host_cannot_describe(
    write: WritePlugin, load: Load, params: str, expected: str
) -> None:
    (problem,) = problems(write, load, f"{params}class Alpha(Strategy[P]): ...\n")

    assert expected in problem


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("class S(State):\n    x: int\n", "alpha.py:7: S.x has no default"),
        ("class S(State):\n    x: Any = object()\n", "S is not plain data: Encoding objects of type object"),
        ("class S(State):\n    x: int = 'a'\n", "S is not plain data: Expected `int`, got `str`"),
        ("class S(State):\n    state_version = 2\n", "S.state_version is 2 but upgrade is not defined"),
        ("class S(State):\n    state_version = 0\n", "S.state_version is a whole number from 1, was 0"),
        ("S = dict\n", "state is annotated with a State subclass, was dict"),
    ],
)
def test_state_that_could_not_be_saved(write: WritePlugin, load: Load, state: str, expected: str) -> None:
    (problem,) = problems(write, load, f"{state}class Alpha(Strategy):\n    state: S\n")

    assert expected in problem


def test_upgradable_state_is_fine(write: WritePlugin, load: Load) -> None:
    body = """class S(State):
    state_version = 2
    ema: float | None = None
    by_symbol: dict[str, Decimal] = {}
    @classmethod
    def upgrade(cls, version, data): return data
class Alpha(Strategy):
    state: S
"""
    assert problems(write, load, body) == []
