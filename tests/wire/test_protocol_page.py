"""docs/strategy-protocol.md says what the messages are."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host.api import BookTop, Candle, Depth, Fill, Instrument, Order, Position, Ticker, Trade
from host.wire import JSON, CodecError
from host.wire import messages as m

PAGE = Path(__file__).parents[2] / "docs" / "strategy-protocol.md"
GROUPS = {
    "from the strategy": m.FromStrategy,
    "requests": m.Request,
    "from the host": m.FromHost,
    "events": m.Event,
    "reports": m.Report,
}
DATA = {
    "book": BookTop,
    "depth": Depth,
    "trade": Trade,
    "ticker": Ticker,
    "candle": Candle,
    "order": Order,
    "fill": Fill,
    "instrument": Instrument,
    "position": Position,
}


def shown(table: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(f"<!-- {table} -->\n")[2].partition("<!-- end -->")[0].splitlines()


def fields(cls: type[msgspec.Struct]) -> str:
    return ", ".join(f"`{field.encode_name}`" for field in msgspec.structs.fields(cls))


def row(cls: type[msgspec.Struct]) -> str:
    return f"| `{cls.__struct_config__.tag}` | {fields(cls)} |"


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_names_every_message_with_its_fields(group: str) -> None:
    classes: tuple[Any, ...] = typing.get_args(GROUPS[group])
    assert shown(f"messages: {group}") == ["| type | fields |", "|---|---|", *map(row, classes)]


def test_the_page_names_the_fields_of_what_messages_carry() -> None:
    rows = [f"| {name} | {fields(cls)} |" for name, cls in DATA.items()]
    assert shown("fields") == ["| data | fields |", "|---|---|", *rows]


def test_the_page_names_what_is_left_out_by_the_host_and_is_not_nothing() -> None:
    messages = [
        cls for group in ("from the host", "events", "reports") for cls in typing.get_args(GROUPS[group])
    ]
    odd = {
        f"absent `{field.encode_name}` is {field.default if field.default == 1 else f'`{field.default}`'}"
        for cls in messages
        for field in msgspec.structs.fields(cls)
        if field.default not in (msgspec.NODEFAULT, 0, "", None, (), m.NO_STATE)
    }
    text = PAGE.read_text(encoding="utf-8")
    assert odd == set(re.findall(r"absent `[a-z_]+` is (?:`[a-z]+`|[0-9]+)", text))


def test_the_page_names_the_version() -> None:
    assert f"Version **{m.PROTOCOL}**." in PAGE.read_text(encoding="utf-8")


def test_the_examples_are_messages() -> None:
    text = "\n".join(re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    decoder, at, count = json.JSONDecoder(), 0, 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        count += 1
        body = json.dumps(value).encode()
        try:
            JSON.decode_from_strategy(body)
        except CodecError:
            JSON.decode_from_host(body)
    assert count == 4
