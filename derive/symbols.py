"""The symbols of the field, as THEORY names them; `from derive import *` brings them all.

Data enter a kernel through three numbers, the entries of the input kernel K^x = X Xᵀ/D at the pair (μ, ν):
`K_mumu`, `K_munu`, `K_nunu`. `phi`, `dphi` stand for the network's activation and its derivative inside a rule, until the
rule meets a network.
"""

from __future__ import annotations

from collections.abc import Iterable

import sympy as sp
from sympy.printing.latex import LatexPrinter

from .errors import BadInput

# The argument of every activation.
x = sp.Symbol("x", real=True)

# Single-site fields in which a rule is written: preactivation, feedback field, gate, error signal.
h, z, m, Delta = sp.symbols("h z m Delta", real=True)
# An entry of the forward weights as they are now, for saying (and being told) what depends on it.
W = sp.Symbol("W", real=True)
# Output and target of one example, and the normalisation log Σ_c exp f_c of its outputs, in which a loss is written.
f, y = sp.symbols("f y", real=True)
log_Z = sp.Symbol("log_Z", real=True)
# The pseudo-gradient of the layer above, for feedback weights that learn from it.
g_tilde = sp.Symbol("g_tilde", real=True)
# What the feedback weights, used forward, make of the layer below: Bᵀφ/√N, for weights that learn from it.
omega = sp.Symbol("omega", real=True)

# Parameters.
rho = sp.Symbol("rho", real=True)
gamma0, eta = sp.symbols("gamma_0 eta", positive=True)
sigma_w = sp.Symbol("sigma_w", positive=True)
sigma_b = sp.Symbol("sigma_b", nonnegative=True)
alpha, beta, lam, kappa = sp.symbols("alpha beta lambda kappa", real=True)
a, b, c = sp.symbols("a b c", real=True)

# Jointly Gaussian variables for `expectation`, in this order.
u, v, w, s = sp.symbols("u v w s", real=True)
GAUSSIAN = (u, v, w, s)

# The input kernel at a pair of examples.
K_mumu, K_nunu = sp.symbols("K_mumu K_nunu", positive=True)
K_munu = sp.Symbol("K_munu", real=True)


def recognised(value: object, ours: Iterable[sp.Symbol]) -> sp.Expr:
    """What SymPy makes of a value; symbols that have the name of one of ours are that one, whatever they assume of it, as `Symbol("h")` is.

    Raises:
        BadInput: SymPy makes no expression of it.
    """
    try:
        expr = sp.sympify(value)
    except (sp.SympifyError, TypeError) as error:
        raise BadInput(f"{value!r} is no expression that SymPy can read: give one such as x*exp(-x**2)") from error
    if not isinstance(expr, sp.Expr):
        raise BadInput(f"{value!r} is no scalar expression: give one such as x*exp(-x**2)")
    by_name = {symbol.name: symbol for symbol in ours}
    return expr.xreplace({symbol: by_name[symbol.name] for symbol in expr.atoms(sp.Symbol) if symbol.name in by_name})


def _applied(self: sp.Function, printer: LatexPrinter, exp: str | None = None) -> str:
    """f(x), or f(x)^{n}, with the class's own LaTeX name."""
    text = rf"{self.tex}\left({printer._print(self.args[0])}\right)"
    return text if exp is None else rf"{text}^{{{exp}}}"


class phi(sp.Function):
    """The network's activation, before it is known."""

    nargs = 1
    is_real = True
    tex = r"\varphi"
    _latex = _applied

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return dphi(self.args[0])


class dphi(sp.Function):
    """φ̇, the derivative of the network's activation (almost everywhere)."""

    nargs = 1
    is_real = True
    tex = r"\dot\varphi"
    _latex = _applied

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return ddphi(self.args[0])


class ddphi(sp.Function):
    """φ̈, the second derivative of the network's activation (almost everywhere)."""

    nargs = 1
    is_real = True
    tex = r"\ddot\varphi"
    _latex = _applied


_DIGITS = "0123456789"
_PAIRS = {"mumu": r"\mu\mu", "munu": r"\mu\nu", "nunu": r"\nu\nu"}
_BASES = {
    "K": "K^{x}", "K_eNTK": "K", "q": "q", "Sigma": r"\Sigma", "Phi": r"\Phi", "dotPhi": r"\dot\Phi", "G_tilde": r"\tilde G", "Gamma": r"\Gamma", "H": "H",
    "Z": "Z", "Sigma_tilde": r"\tilde\Sigma",
}  # fmt: skip


def layer_symbol(base: str, layer: int | None = None, pair: str | None = None, **assumptions: bool) -> sp.Symbol:
    """The symbol of a kernel by name, layer ℓ and pair of examples: layer_symbol("Sigma", 1, "munu") is Σ¹_μν.

    The second of several kernels with a name has a number: "dotPhi2" prints as Φ̇ with (2) above.
    """
    parts = [base, *([str(layer)] if layer is not None else []), *([pair] if pair else [])]
    return sp.Symbol("_".join(parts), **(assumptions or {"real": True}))


def latex_name(symbol: sp.Symbol) -> str:
    """How a kernel's symbol is printed, layer above and pair below; empty for other symbols, which SymPy prints well."""
    if symbol.is_integer:  # a number of units, not a kernel
        return ""
    if symbol.name == "Delta":
        return r"\Delta"
    base, _, pair = symbol.name.rpartition("_")
    if symbol.name == "log_Z":
        return r"\log Z"
    if symbol.name == "g_tilde":
        return r"\tilde g"
    if symbol.name == "K_eNTK":
        return r"K_{\mu\nu}"
    if pair not in _PAIRS:
        base, pair = symbol.name, ""
    head, _, layer = base.rpartition("_")
    if not (layer.isdigit() and head.rstrip(_DIGITS) in _BASES):
        head, layer = base, ""
    known = head.rstrip(_DIGITS)
    if known not in _BASES:
        return ""
    above = ",".join(part for part in (f"({head.removeprefix(known)})" if head != known else "", layer) if part)
    return _BASES[known] + (f"^{{{above}}}" if above else "") + (f"_{{{_PAIRS[pair]}}}" if pair else "")
