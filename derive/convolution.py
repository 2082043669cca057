"""How well a convolution can align with DFA's feedback: the matrix of a convolution shares weights and has zeros, F_l F_{l−1}ᵀ has neither."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import sympy as sp

k, d_in, d_out, c_in, c_out = sp.symbols("k d_in d_out c_in c_out", integer=True, positive=True)


def alignment_bounds() -> Mapping[str, sp.Expr]:
    """The largest cosine of a convolution's matrix with F_l F_{l−1}ᵀ over all kernels.

    Matrices of convolutions (k × k kernels, feature maps of sides d_in and d_out, no padding) are a linear space: one direction for each kernel
    entry, which sits at d_out² places of the matrix. The largest cosine is the length of a target's projection onto it.

    Returns:
        "independent": root mean square for targets whose entries are uncorrelated (independent feedback entries): √(directions/entries);
        "constant": for feedback that is constant over positions within a channel.

    Source: Refinetti et al. 2021 (why feedback alignment fails for convolutions); the bound is derived here.
    """
    directions, entries = c_out * c_in * k**2, c_out * d_out**2 * c_in * d_in**2
    # Constant per pair of channels: a direction's unit vector has d_out² entries 1/d_out, so each of k² projections is d_out × the constant.
    constant = k**2 * d_out**2 / (d_out**2 * d_in**2)
    return MappingProxyType({"independent": sp.sqrt(sp.cancel(directions / entries)), "constant": sp.sqrt(sp.cancel(constant))})


__all__ = ["alignment_bounds"]
