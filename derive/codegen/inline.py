"""Put the helper functions that a generated module calls into the module itself."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import BadInput

MODULES = ("safe", "quadrature")


def inline(body: str) -> str:
    """The body preceded by the definitions of `numerics.safe` and `numerics.quadrature` that it uses, under prefixed names.

    Args:
        body: generated code that calls `safe.…` and `quadrature.…`.

    Returns:
        Code without those two modules; the helpers are called safe_… and quadrature_….
    """
    helpers = {(module, name): text for module in MODULES for name, text in definitions(module).items()}
    wanted: set[tuple[str, str]] = set()
    waiting = _calls(body)
    while waiting:
        key = waiting.pop()
        if key in wanted or key not in helpers:
            continue
        wanted.add(key)
        waiting |= _calls(helpers[key]) | {(key[0], name) for name in _names(helpers[key]) if (key[0], name) in helpers}
        # rules of differentiation are not called by name
        waiting |= {other for other, text in helpers.items() if other[0] == key[0] and text.startswith(f"@{key[1]}.defjvp")}
    parts = [_prefixed(text, module) for (module, name), text in helpers.items() if (module, name) in wanted]
    imports = [line for line in _IMPORTS if re.search(line[0], "\n".join(parts))]
    return "\n\n\n".join(["\n".join(text for _, text in imports), *parts, _renamed(body)])


_IMPORTS = (
    (r"\bCallable|Sequence", "from collections.abc import Callable, Sequence"),
    (r"\bcache\b", "from functools import cache"),
    (r"\bpairwise\b", "from itertools import pairwise\n"),
    (r"\bjax\.", "import jax"),
    (r"\bnp\.", "import numpy as np"),
    (r"\blax\.", "from jax import lax"),
)


@cache
def definitions(module: str) -> dict[str, str]:
    """Top-level definitions and constants of a module of `numerics`, by name, read as text: nothing is imported."""
    spec = find_spec("numerics")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("a standalone module copies helpers from the package numerics, which is not installed here")
    text = (Path(spec.submodule_search_locations[0]) / f"{module}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
        elif isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            for name in names:
                found[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


def _calls(text: str) -> set[tuple[str, str]]:
    return {(module, name) for module, name in re.findall(rf"\b({'|'.join(MODULES)})\.(\w+)", text)}


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def _prefixed(text: str, module: str) -> str:
    """A definition with the module's own names prefixed."""
    own = set(definitions(module))
    rename = lambda match: f"{module}_{match[0].lstrip('_')}" if match[0] in own else match[0]
    code = re.sub(r"(?<![\w.\"'])[A-Za-z_]\w*(?!\w*=[^=])", rename, text) if own else text
    return _renamed(code)


def _renamed(text: str) -> str:
    return re.sub(rf"\b({'|'.join(MODULES)})\.(_?\w+)", lambda match: f"{match[1]}_{match[2].lstrip('_')}", text)
