"""The vocabulary of mean-field equations as SymPy functions: fields, kernels, averages, partial derivatives.

A field carries (layer, example, time), a kernel (layer, example, example, time, time). They print as the literature writes them,
h^{ℓ}_{μ}(t) and Φ^{ℓ}_{μν}(t, s).
"""

from __future__ import annotations

from functools import cache

import sympy as sp
from sympy.printing.latex import LatexPrinter

ell = sp.Symbol("ell", integer=True, positive=True)
mu, nu = sp.symbols("mu nu", integer=True, positive=True)
t, s = sp.symbols("t s", integer=True, nonnegative=True)
P, T, L = sp.symbols("P T L", integer=True, positive=True)
# Outputs, where there are several.
c, d = sp.symbols("c d", integer=True, positive=True)
c0 = sp.Symbol("c_0", positive=True)


def _joined(first: str, second: str) -> str:
    """Two indices below a kernel, apart where one of them is double."""
    return f"{first},{second}" if " " in first + second else first + second


class with_output(sp.Function):
    """Example and output as one index, printed μc."""

    nargs = 2

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        return " ".join(printer._print(arg) for arg in self.args)


class Field(sp.Function):
    """A single-site variable at (layer, example, time); subclasses are made by `field`."""

    is_real = True
    tex = "?"

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        layer, *rest = (printer._print(arg) for arg in self.args)
        example, *time = rest if rest else ("",)
        text = rf"{self.tex}^{{{layer}}}" + (rf"_{{{example}}}" if example else "") + (f"({time[0]})" if time else "")
        return text if exp is None else rf"\bigl({text}\bigr)^{{{exp}}}"


class Kernel(sp.Function):
    """An order parameter or response at (layer, example, example, time, time)."""

    is_real = True
    tex = "?"

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        layer, first, second, *times = (printer._print(arg) for arg in self.args)
        text = rf"{self.tex}^{{{layer}}}_{{{_joined(first, second)}}}({','.join(times)})"
        return text if exp is None else rf"\bigl({text}\bigr)^{{{exp}}}"


class entk(sp.Function):
    """The eNTK at (example, example, time, time)."""

    is_real = True

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        first, second, *times = (printer._print(arg) for arg in self.args)
        return rf"K_{{{_joined(first, second)}}}({','.join(times)})"


class Signal(sp.Function):
    """A quantity at (example, time) that has no layer: the output and the error signal."""

    is_real = True
    tex = "?"

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        example, time = (printer._print(arg) for arg in self.args)
        text = rf"{self.tex}_{{{example}}}({time})"
        return text if exp is None else rf"\bigl({text}\bigr)^{{{exp}}}"


class TimeFunction(sp.Function):
    """A number that depends on time alone: what training keeps of weights and of updates."""

    is_real = True
    tex = "?"

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        text = rf"{self.tex}({','.join(printer._print(time) for time in self.args)})"
        return text if exp is None else rf"{text}^{{{exp}}}"


class average(sp.Function):
    """⟨·⟩, the average over the single-site process (1/N Σ_i over units, for N → ∞)."""

    nargs = 1
    is_real = True

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        return rf"\Bigl\langle {printer._print(self.args[0])} \Bigr\rangle"


class partial(sp.Function):
    """∂ first/∂ second, the response of one field to another."""

    nargs = 2
    is_real = True

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        top, bottom = (printer._print(arg) for arg in self.args)
        return rf"\frac{{\partial {top}}}{{\partial {bottom}}}"


class covariance_of(sp.Function):
    """Cov(first, second) over the single-site process."""

    nargs = 2
    is_real = True

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        first, second = (printer._print(arg) for arg in self.args)
        return rf"\operatorname{{Cov}}\bigl({first},\,{second}\bigr)"


@cache
def _kind(base: type, name: str, tex: str) -> type:
    return type(name, (base,), {"tex": tex})


# Single-site fields.
field_h = _kind(Field, "h", "h")
field_z = _kind(Field, "z", "z")
field_z_tilde = _kind(Field, "z_tilde", r"\tilde z")
field_g = _kind(Field, "g", "g")
field_g_tilde = _kind(Field, "g_tilde", r"\tilde g")
field_m = _kind(Field, "m", "m")
# The Gaussian parts of W(0)F, W(0)ᵀg, W(0)ᵀg̃, Vᵀg̃, and the direct feedback vector.
field_u = _kind(Field, "u", "u")
field_r = _kind(Field, "r", "r")
field_zeta = _kind(Field, "zeta", r"\zeta")
field_q = _kind(Field, "q", "q")
field_xi = _kind(Field, "xi", r"\xi")
# For feedback weights that learn from what they carry: the Gaussian parts of VF, Vᵀh and W(0)ᵀh, the bias, and Bᵀφ and Bh themselves.
field_p = _kind(Field, "p", "p")
field_chi = _kind(Field, "chi", r"\chi")
field_theta = _kind(Field, "theta", r"\vartheta")
field_b = _kind(Field, "b", "b")
field_omega = _kind(Field, "omega", r"\omega")
field_psi = _kind(Field, "psi", r"\psi")
# Order parameters and responses.
Phi = _kind(Kernel, "Phi", r"\Phi")
G = _kind(Kernel, "G", "G")
G_tilde = _kind(Kernel, "G_tilde", r"\tilde G")
H = _kind(Kernel, "H", "H")
R = _kind(Kernel, "R", "R")
R_h = _kind(Kernel, "R_h", r"\hat R")
S = _kind(Kernel, "S", "S")
C = _kind(Kernel, "C", "C")
Psi = _kind(Kernel, "Psi", r"\Psi")
A = _kind(Kernel, "A", "A")
B = _kind(Kernel, "B", "B")
B_tilde = _kind(Kernel, "B_tilde", r"\tilde B")
A_V = _kind(Kernel, "A_V", r"\hat A")
B_V = _kind(Kernel, "B_V", r"\hat B")
D = _kind(Kernel, "D", "D")
D_V = _kind(Kernel, "D_V", r"\hat D")
E = _kind(Kernel, "E", "E")
E_V = _kind(Kernel, "E_V", r"\hat E")
# Signals.
output = _kind(Signal, "f", "f")
target = sp.IndexedBase("y")
error = _kind(Signal, "Delta", r"\Delta")
share = _kind(Signal, "omega", r"\omega")
# What is left of the initial weights, and of an update.
kept = _kind(TimeFunction, "k_0", "k")
memory = _kind(TimeFunction, "k", "k")
