"""From a version's bytes to code objects, and the rules that can be read off the source."""

import ast
import importlib.util
import sys
from types import CodeType

from host.loader.capture import Version
from host.loader.problem import PluginProblem, PluginRejected

__all__ = ["compile_files"]


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
            tree = ast.parse(importlib.util.decode_source(content), filename)
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
