"""From a version's bytes to code objects, and the rules that can be read off the source."""

import ast
import importlib.util
import marshal
import sys
from collections.abc import Mapping
from types import CodeType

from msgspec import Struct

from host.loader.capture import Version
from host.loader.parsing import parse
from host.loader.problem import PluginProblem, PluginRejected

__all__ = ["CompiledVersion", "compile_files"]


class CompiledVersion(Struct, frozen=True):
    """What a version compiles to, as one process of an interpreter hands it to another.

    Compiling is one long call that no other thread can interrupt: a process that trades leaves it to
    a child. `digest` says of which bytes, `magic` by which interpreter, `codes` are marshalled code
    objects by file.
    """

    digest: str
    magic: bytes
    codes: Mapping[str, bytes]

    @classmethod
    def of(cls, version: Version) -> "CompiledVersion":
        """Compile a version here; raise `PluginRejected` as `compile_files` does."""
        codes = {file: marshal.dumps(code) for file, code in compile_files(version).items()}
        return cls(version.digest, importlib.util.MAGIC_NUMBER, codes)

    def codes_of(self, version: Version) -> dict[str, CodeType]:
        """Return the code objects; those of other bytes, another place or interpreter are made anew."""
        if (self.digest, self.magic) == (version.digest, importlib.util.MAGIC_NUMBER):
            codes: dict[str, CodeType] = {file: marshal.loads(code) for file, code in self.codes.items()}
            if all(code.co_filename == version.code_filename(file) for file, code in codes.items()):
                return codes
        return compile_files(version)


def compile_files(version: Version) -> dict[str, CodeType]:
    """Compile every Python file of a version, keyed by its relative path.

    Raises `PluginRejected` with each syntax error, and with each absolute import of the plugin's
    own modules: `import helpers` binds one global module for ever, which neither a second version
    nor a second plugin with a `helpers.py` could live with.
    """
    codes: dict[str, CodeType] = {}
    problems: list[PluginProblem] = []
    own_modules = _own_modules(version)
    for file, content in version.sources.items():
        if not file.endswith(".py"):
            continue
        filename = version.code_filename(file)
        try:
            tree = parse(content, filename)
            # Compiled from bytes each time: bytecode caches are keyed by whole seconds and size,
            # and so serve old code after a quick edit of the same length.
            codes[file] = compile(tree, filename, "exec", dont_inherit=True)
        except SyntaxError as error:
            problems.append(version.problem(f"syntax error: {error.msg}", file=file, line=error.lineno or 0))
        except (ValueError, RecursionError) as error:  # null bytes, an undecodable file, absurd nesting
            problems.append(version.problem(f"cannot be compiled: {error}", file=file))
        else:
            if file in version.files:
                problems.extend(_absolute_imports(version, file, tree, own_modules))
    if problems:
        raise PluginRejected(problems)
    return codes


def _own_modules(version: Version) -> frozenset[str]:
    if version.main != "__init__.py":
        return frozenset({version.name})
    tops = {file.split("/")[0].removesuffix(".py") for file in version.files if file.endswith(".py")}
    # `import json` is the standard library's even where the folder has a json.py of its own.
    return frozenset((tops - {"__init__"} | {version.name}) - sys.stdlib_module_names)


def _absolute_imports(
    version: Version, file: str, tree: ast.Module, own_modules: frozenset[str]
) -> list[PluginProblem]:
    problems = []
    dots = "." * (file.count("/") + 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = ", ".join(alias.name for alias in node.names)
            imports = [(node.module, f"from {dots}{{}} import {names}")]
        elif isinstance(node, ast.Import):
            imports = [(alias.name, "") for alias in node.names]
        else:
            continue
        for module, form in imports:
            top, _, rest = module.partition(".")
            if top not in own_modules:
                continue
            if top == version.name and top + ".py" not in version.files:
                module = rest  # noqa: PLW2901 - `alpha.core` inside alpha is `.core`
            parent, _, last = module.rpartition(".")
            wanted = form.format(module) if form else f"from {dots}{parent} import {last}"
            problems.append(
                version.problem(
                    f'absolute import of the plugin\'s own module "{top}"',
                    file=file,
                    line=node.lineno,
                    next_step=f'write "{wanted}"',
                )
            )
    return problems
