"""From generated text to functions.

`jaxify(obj)` asks an object of the symbolic half for its source and runs it. Nothing else crosses between the halves.
"""

from __future__ import annotations

import linecache
from functools import lru_cache
from types import ModuleType
from typing import Any

from .kernel import KernelFunction


@lru_cache(maxsize=256)
def load_source(text: str, name: str = "generated") -> ModuleType:
    """Execute generated Python source as a module of its own; the same text gives the same module, so that what JAX compiled for it is kept.

    Args:
        text: source, as `.source()` of a rule on a network or of a kernel returns it.
        name: the module's name, for tracebacks.

    Returns:
        The module, not registered in `sys.modules`; `inspect.getsource` and tracebacks show the text.
    """
    module = ModuleType(name)
    filename = f"<generated {name} {hash(text) & 0xFFFFFFFF:08x}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module.__file__ = filename
    exec(compile(text, filename, "exec"), module.__dict__)
    return module


def jaxify(obj: Any) -> Any:
    """Turn a derived object into functions on arrays.

    Args:
        obj: anything with `.source()`: a rule bound to a network, a lazy kernel; or source text itself.

    Returns:
        The generated module; for a kernel, a `KernelFunction` to call: k(X1, X2=None, rho=0.3).

    Raises:
        TypeError: `obj` has no source.
    """
    if isinstance(obj, str):
        text = obj
    elif callable(getattr(obj, "source", None)):
        text = obj.source()
    else:
        raise TypeError(f"{obj!r} has no generated source: give rule.bind(net), lazy_kernel(rule, net) or source text")
    return _functions(text)


@lru_cache(maxsize=256)
def _functions(text: str) -> Any:
    module = load_source(text)
    return KernelFunction(module, text) if hasattr(module, "ntk_pairs") else module
