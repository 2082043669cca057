"""The interactive session: everything imported, formulas printed as formulas."""

from __future__ import annotations

import code
import importlib
import sys
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.text import Text

BANNER = """\
lazyrich: learning rules at infinite width. Everything of derive and numerics is imported.
  kernel = lazy_kernel(FA(rho), MLP(depth=2, activation="relu"))   the lazy kernel; kernel.expr, .derivation(), .latex()
  k = jaxify(kernel); k(X, rho=0.3)                                its values; jit, vmap and grad work
  p = Problem(X, y, gamma0=1.0, eta=0.1, steps=100)                data and training; X, y: 20 digits (3 vs 8)
  sol = solve_dmft(p, GD(), MLP(depth=1)); sol.plot()              the rich regime; help(name) explains any name\
"""


def namespace() -> dict[str, Any]:
    """What the session starts with: `from derive import *`, `from numerics import *`, and a small data set."""
    from lazyrich.data import digits

    names: dict[str, Any] = {}
    for half in ("derive", "numerics"):
        module = importlib.import_module(half)
        names.update({name: getattr(module, name) for name in module.__all__})
    data = digits()
    return names | {"X": data.X, "y": data.y, "X_test": data.X_test, "y_test": data.y_test}


def start() -> None:
    """Open IPython, or Python's own prompt where IPython is missing."""
    from sympy import init_printing

    Console(highlight=False).print(Text(BANNER), soft_wrap=True)
    names = namespace()
    ipython = _ipython()
    if ipython is None:
        init_printing(use_unicode=True)
        code.interact(banner="", local=names, exitmsg="")
        return
    config = importlib.import_module("traitlets.config").Config()
    config.TerminalIPythonApp.display_banner = False
    config.InteractiveShellApp.exec_lines = ["from sympy import init_printing as _pretty", "_pretty(use_unicode=True)"]
    ipython.start_ipython(argv=[], user_ns=names, config=config)


def _ipython() -> ModuleType | None:
    try:
        return importlib.import_module("IPython")
    except ImportError:
        print("IPython is not installed: this is Python's own prompt (pip install ipython).", file=sys.stderr)
        return None
