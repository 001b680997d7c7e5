"""Writes the first version of a plugin: complete, commented and working."""

import keyword
from importlib.resources import files
from pathlib import Path

from host.api import TandemError
from host.loader.offers import Kind

__all__ = ["ScaffoldRefused", "scaffold"]


class ScaffoldRefused(TandemError):  # noqa: N818 - a refusal is an answer
    """Nothing was written: the kind or the name is not usable, or the file is there already."""


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write `folder/name.py`, an example of this kind under its new name, and return what was written.

    The class is named after the plugin: `my_maker` holds `MyMaker`. Existing files are never
    touched. Raises `ScaffoldRefused`.
    """
    if kind not in list(Kind):
        raise ScaffoldRefused(f'a plugin kind is one of {", ".join(Kind)}, was "{kind}"')
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name != name.lower():
        raise ScaffoldRefused(
            f'a plugin name is lower-case letters, digits and _, and starts with a letter, was "{name}"'
        )
    path = folder / f"{name}.py"
    if path.exists() or (folder / name).exists():
        raise ScaffoldRefused(f"{path} is there already; choose another name or delete it first")
    template = files("host.loader").joinpath("templates", f"{kind}.py").read_text(encoding="utf-8")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(template.replace("Example", class_name).replace('"example', f'"{name}'))
    return [path]
