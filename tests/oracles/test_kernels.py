"""Kernels against frozen values of an independent library."""

from pathlib import Path

import numpy as np
import pytest

from derive import GD, MLP, Rational, exp, lazy_kernel, leaky_relu, x
from numerics import jaxify

DATA = np.load(Path(__file__).parent / "data" / "lazy_kernels.npz")
ACTIVATIONS = {
    "Relu": "relu",
    "LeakyRelu_0.3": leaky_relu(x, Rational(3, 10)),
    "Erf": "erf",
    "Gelu": "gelu",
    "Sin": "sin",
    "Exp_0.5_0.4": exp(Rational(2, 5) * x) / 2,
    "Monomial_2": x**2,
}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nngp_and_ntk(name: str, depth: int) -> None:
    kernel = jaxify(lazy_kernel(GD(), MLP(depth, ACTIVATIONS[name])))
    for what, value in (("ntk", kernel), ("nngp", kernel.nngp)):
        expected = DATA[f"A/{name}/L{depth}/{what}12"]
        # entries that nearly cancel carry the reference's own absolute error of about 1e-15
        np.testing.assert_allclose(value(DATA["X1"], DATA["X2"]), expected, rtol=1e-12, atol=1e-15)
