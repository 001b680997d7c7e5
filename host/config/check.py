"""Finds everything that is wrong with a configuration, not the first thing only.

msgspec stops at the first mistake, so the tree is walked along the structs here and each leaf is
converted by itself.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from host.config.check_failover import Finding, failover_contradictions
from host.config.client import find_client_mistakes
from host.config.schedule import find_schedule_mistakes
from host.config.schema import SYMBOL_PATTERN, InstanceSection, NodeConfig
from host.config.sources import KeyPath

__all__ = ["Finding", "convert", "find_instance_mistakes", "find_mistakes"]

LEFT_OUT: Final[Mapping[tuple[str, str], str]] = {
    ("takeover_orphans", "adopt"): (
        'what such an order was for is not known: it is taken in and cancelled; use "cancel"'
    ),
}
"""Values that one might expect, and why there are none such."""
MASTER_KEY_REFERENCE: Final = re.compile(r"file:.+|env:[A-Za-z_][A-Za-z0-9_]*")


def convert(tree: Mapping[str, Any]) -> NodeConfig:
    """Turn a tree without mistakes into the configuration."""
    return msgspec.convert(tree, NodeConfig, dec_hook=_decode)


def find_mistakes(tree: Mapping[str, Any]) -> list[Finding]:
    """Return everything wrong with `tree`: unknown keys, wrong types, names that name nothing."""
    return [
        *_walk(tree, NodeConfig, ()),
        *_contradictions(tree),
        *find_schedule_mistakes(tree),
        *find_client_mistakes(tree),
        *failover_contradictions(tree),
    ]


def find_instance_mistakes(
    table: Mapping[str, Any], others: Iterable[InstanceSection] = ()
) -> Iterator[Finding]:
    """Find what is wrong with the keys that `table` has of an `[[instance]]`, one more beside `others`.

    Places begin at the instance. `table` has a `name`; what it lacks is not missed.
    """
    types = {field.encode_name: field.type for field in msgspec.structs.fields(InstanceSection)}
    for key, value in table.items():
        yield from _walk(value, types[key], (key,))
    tree = {"instance": [*map(_known, others), table]}
    last = len(tree["instance"]) - 1
    for at, text in (*find_schedule_mistakes(tree), *find_client_mistakes(tree)):
        is_circle = at[2:] == ("after",)  # it is of this instance, wherever it begins: there was none before
        if at[1] == last or is_circle:
            yield at[2:], text


def _known(section: InstanceSection) -> dict[str, Any]:
    """Return of an instance that is there what another one may contradict."""
    client = {"listen": section.client.listen, "curve": section.client.curve}
    return {
        "name": section.name,
        "after": list(section.after),
        "isolation": section.isolation,
        "client": client,
    }


# -- shape: keys and types -----------------------------------------------------------------------


def _walk(value: Any, type_: Any, at: KeyPath) -> Iterator[Finding]:
    yield from list(_walk_inside(value, _bare(type_), at)) or _convert(value, type_, at)


def _convert(value: Any, type_: Any, at: KeyPath) -> Iterator[Finding]:
    try:
        msgspec.convert(value, type_, dec_hook=_decode)
    except msgspec.ValidationError as error:
        yield _explain(value, type_, at, str(error))


def _walk_inside(value: Any, type_: Any, at: KeyPath) -> Iterator[Finding]:
    if _is_struct(type_) and isinstance(value, dict):
        yield from _walk_struct(value, type_, at)
    elif get_origin(type_) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, get_args(type_)[0], (*at, index))
    elif get_origin(type_) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, get_args(type_)[1], (*at, key))


def _walk_struct(table: dict[str, Any], type_: type[Struct], at: KeyPath) -> Iterator[Finding]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    is_optional = not any(field.required for field in fields.values())
    for key, value in table.items():
        if key not in fields:
            yield (*at, key), f"unknown key{_nearest(key, fields)}"
            continue
        found = list(_walk(value, fields[key].type, (*at, key)))
        yield from found or (_convert({key: value}, type_, at) if is_optional else ())
    for key, field in fields.items():
        if field.required and key not in table:
            yield (*at, key), f"expected {_expected(field.type)}, was missing"


def _decode(type_: type[Any], value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"expected text, was {value!r}")
    return type_(value)


def _bare(type_: Any) -> Any:
    """Return `type_` without annotations and without `| None`."""
    if get_origin(type_) is Annotated:
        return _bare(get_args(type_)[0])
    options = [option for option in get_args(type_) if option is not NoneType]
    if NoneType in get_args(type_) and len(options) == 1:
        return _bare(options[0])
    return type_


def _explain(value: Any, type_: Any, at: KeyPath, error: str) -> Finding:
    if isinstance(value, dict) and _is_struct(_bare(type_)):
        # The fields are good one by one, so this is a rule of the struct's own, "field: what is wrong".
        key, colon, text = error.partition(": ")
        return ((*at, key), text) if colon and key in value else (at, error)
    why = LEFT_OUT.get((str(at[-1]), value)) if at and isinstance(value, str) else None
    return at, why or f"expected {_expected(type_)}, was {_shown(value)}"


_WORDS: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    Decimal: 'a decimal number such as "0.01"',
    tuple: "a list",
    dict: "a table",
}


def _expected(type_: Any) -> str:
    bare = _bare(type_)
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(bare))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return "one of " + ", ".join(f'"{choice.value}"' for choice in bare)
    if get_origin(bare) in (Union, UnionType):
        return ", or ".join(_expected(option) for option in get_args(bare) if option is not NoneType)
    words = _WORDS.get(get_origin(bare) or bare, "a table")
    return words + "".join(_bounds(type_))


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, Struct)


def _bounds(type_: Any) -> Iterator[str]:
    for option in (type_, *get_args(type_)):
        for meta in get_args(option)[1:] if get_origin(option) is Annotated else ():
            if isinstance(meta, Meta):
                names = {
                    "gt": ">",
                    "ge": ">=",
                    "lt": "<",
                    "le": "<=",
                    "pattern": "like",
                    "min_length": "of at least",
                }
                bounds = {word: getattr(meta, name) for name, word in names.items()}
                yield from (f" {word} {bound}" for word, bound in bounds.items() if bound is not None)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    return f"{value} ({_WORDS.get(type(value), type(value).__name__)})"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known here: {', '.join(sorted(known)) or 'none'}"


# -- sense: names that belong together -----------------------------------------------------------


def _contradictions(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what types cannot say. `tree` may have any shape: the walk reports that part."""
    accounts = {name for _, entry in _entries(tree, "account") if isinstance(name := entry.get("name"), str)}
    instances = {
        name for _, entry in _entries(tree, "instance") if isinstance(name := entry.get("name"), str)
    }
    master_key = _table(tree.get("secrets")).get("master_key")
    if isinstance(master_key, str) and not MASTER_KEY_REFERENCE.fullmatch(master_key):
        # It may be the key itself, which must not come into a message.
        text = 'expected "file:PATH" or "env:VARIABLE", was something else; a key never stands in a configuration'
        yield ("secrets", "master_key"), text
    symbols: set[str] = set()
    for index, entry in _entries(tree, "instance"):
        account = entry.get("account")
        if isinstance(account, str) and account not in accounts:
            yield (
                ("instance", index, "account"),
                f'no account is named "{account}"{_nearest(account, accounts)}',
            )
        for place, symbol in enumerate(_list(entry.get("symbols"))):
            if isinstance(symbol, str):
                yield from _bad_symbol(symbol, ("instance", index, "symbols", place))
                if symbol in _list(entry["symbols"])[:place]:
                    yield ("instance", index, "symbols", place), f'"{symbol}" is listed twice'
                symbols |= {symbol} if SYMBOL_PATTERN.fullmatch(symbol) else set()
    risk = _table(tree.get("risk"))
    for kind, known in (("account", accounts), ("instance", instances), ("symbol", symbols)):
        for name in _table(risk.get(kind)):
            if name not in known:
                what = "no instance trades" if kind == "symbol" else f"no {kind} is named"
                yield (
                    ("risk", kind, name),
                    f'{what} "{name}", so these limits protect nothing{_nearest(name, known)}',
                )


def _bad_symbol(symbol: str, at: KeyPath) -> Iterator[Finding]:
    if not SYMBOL_PATTERN.fullmatch(symbol):
        guess = re.sub(r"[/_:]", "-", symbol.upper())
        hint = f'; did you mean "{guess}"?' if SYMBOL_PATTERN.fullmatch(guess) else ""
        yield at, f'expected BASE-QUOTE or BASE-QUOTE-PERP such as "BTC-USDT", was "{symbol}"{hint}'


def _entries(tree: Mapping[str, Any], section: str) -> list[tuple[int, dict[str, Any]]]:
    return [(index, entry) for index, entry in enumerate(_list(tree.get(section))) if isinstance(entry, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
