"""Parameters as people type them, made what a schema says they are."""

from collections.abc import Iterable
from typing import Any

import click
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct

from host.config.sources import typed_value

__all__ = ["params_of", "properties"]


def properties(schema: Struct) -> dict[str, dict[str, Any]]:
    """Return the parameters of a JSON schema of the API: name, and what is said of it."""
    tree: dict[str, Any] = MessageToDict(schema)
    while "$ref" in tree:
        at: Any = MessageToDict(schema)
        for part in tree["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        tree = at
    found: dict[str, dict[str, Any]] = tree.get("properties", {})
    return found


def params_of(settings: Iterable[str], schema: Struct | None) -> Struct:
    """Return `KEY=VALUE` settings as parameters; raise `click.BadParameter`.

    What the schema takes as text stays as it was typed, so that a decimal number keeps every digit; the
    rest is read as in the configuration file. Whether it fits is for the node to say.
    """
    known = {} if schema is None else properties(schema)
    table: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise click.BadParameter(f'expected KEY=VALUE, was "{setting}"', param_hint="KEY=VALUE")
        table[name] = text if _is_text(known.get(name, {})) else typed_value(text)
    try:
        return ParseDict(table, Struct())
    except ParseError as error:
        raise click.BadParameter(str(error), param_hint="KEY=VALUE") from error


def _is_text(schema: dict[str, Any]) -> bool:
    choices = [schema, *schema.get("anyOf", ())]
    return any(one.get("type") == "string" for one in choices)
