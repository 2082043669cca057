"""The symbols of the field, as THEORY names them; `from derive import *` brings them all.

Data enter a kernel through three numbers, the entries of the input kernel K^x = X Xᵀ/D at the pair (μ, ν):
`K_mumu`, `K_munu`, `K_nunu`. `phi`, `dphi` stand for the network's activation and its derivative inside a rule, until the
rule meets a network.
"""

from __future__ import annotations

import sympy as sp

# The argument of every activation.
x = sp.Symbol("x", real=True)

# Single-site fields in which a rule is written: preactivation, feedback field, gate, error signal.
h, z, m, Delta = sp.symbols("h z m Delta", real=True)

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


class phi(sp.Function):
    """The network's activation, before it is known."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return dphi(self.args[0])


class dphi(sp.Function):
    """φ̇, the derivative of the network's activation (almost everywhere)."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return ddphi(self.args[0])


class ddphi(sp.Function):
    """φ̈, the second derivative of the network's activation (almost everywhere)."""

    nargs = 1
    is_real = True


LATEX_NAMES = {
    K_mumu: r"K^{x}_{\mu\mu}",
    K_munu: r"K^{x}_{\mu\nu}",
    K_nunu: r"K^{x}_{\nu\nu}",
    Delta: r"\Delta",
}
