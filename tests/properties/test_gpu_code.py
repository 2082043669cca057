"""What is compiled here could be compiled for a GPU: the same functions, lowered for CUDA as far as XLA's input. It needs no GPU, and tests none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from derive import DFA, FA, GD, GLN, MLP, Evolution, Feedback, Hebb, Rule, dphi, h, lazy_kernel, rho, z
from numerics import Problem, causal, finite, jaxify, rows, solve_dmft, train_finite

KOLEN_POLLACK = Rule("Kolen-Pollack", dphi(h) * z, Feedback(independent=1, evolution=Evolution(decay=0.05, copy=1)))
RULES = [GD(), FA(0.5), DFA(), Hebb(), GLN(), KOLEN_POLLACK]
NET = MLP(depth=3, activation="tanh")
SAMPLES, PARTS = 2 * rows.PART, 8  # so many that averages are cut on a GPU


class Lowered(Exception):
    """Ends a run where it would be compiled."""


def lowered(function, *arguments, **options) -> str:
    """What XLA gets for a GPU."""
    return function.trace(*arguments, **options).lower(lowering_platforms=("cuda",)).as_text()


def problem(**changes) -> Problem:
    random = np.random.default_rng(0)
    return Problem(**{"X": random.normal(size=(3, 5)), "y": np.array([1.0, -1.0, 1.0]), "steps": 4, "X_test": random.normal(size=(2, 5)), **changes})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_solver(rule, dtype, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def stop(rule, blocks, record, times, placement, structure, leaves):
        arguments = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, kind) for shape, kind, _ in leaves])
        step = jax.jit(partial(causal._advance, rule, blocks, record, times, placement))
        raise Lowered(lowered(step, *arguments))

    monkeypatch.setattr(causal, "_compiled", stop)
    with pytest.raises(Lowered) as found:
        solve_dmft(problem(), rule, NET, samples=SAMPLES, replicas=1, dtype=dtype, method="sampling", devices=1)
    text = str(found.value)
    # fields of this precision, cut for sums only if it is single
    assert f"x{SAMPLES}x{'f32' if dtype == 'float32' else 'f64'}>" in text
    assert (f"x{PARTS}x{SAMPLES // PARTS}xf32>" in text) == (dtype == "float32")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_networks(rule, monkeypatch):
    texts = []

    def and_lowered(function):
        def both(*arguments, **options):
            texts.append(lowered(function, *arguments, **options))
            return function(*arguments, **options)

        return both

    for name in ("_begin", "_advance"):
        monkeypatch.setattr(finite, name, and_lowered(getattr(finite, name)))
    train_finite(problem(), rule, NET, width=8, seeds=2)
    assert len(texts) >= 2 and all("stablehlo" in text for text in texts)


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
def test_kernels(activation):
    k = jaxify(lazy_kernel(FA(rho), MLP(depth=2, activation=activation)))
    X = jnp.asarray(problem().X, "float32")
    text = lowered(jax.jit(lambda X, rho: k(X, rho=rho)), X, jnp.float32(0.5))
    # no array of double precision on the way from single to single
    assert "x3xf32>" in text and "xf64>" not in text
