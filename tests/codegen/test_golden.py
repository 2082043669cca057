"""Generated text, compared letter by letter; `pytest --update-golden` rewrites it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from derive import DFA, FA, GD, GLN, MLP, Hebb, Rational, lazy_kernel, rho, sigma_w
from derive.codegen.inline import MODULES, definitions
from numerics import jaxify

GOLDEN = Path(__file__).parent / "golden"
KERNELS = {
    "fa_relu_2": (FA(rho), MLP(2, "relu")),
    "gd_erf_1_bias": (GD(), MLP(1, "erf", sigma_w=sigma_w, sigma_b=Rational(1, 10))),
    "dfa_gelu_2": (DFA(), MLP(2, "gelu")),
    "gln_relu_2": (GLN(), MLP(2, "relu")),
    "hebb_leaky_relu_1": (Hebb(), MLP(1, "leaky_relu")),
    "gd_tanh_1": (GD(), MLP(1, "tanh")),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_text(name: str, pytestconfig: pytest.Config) -> None:
    compare(name, lazy_kernel(*KERNELS[name]).source(), pytestconfig)


@pytest.mark.parametrize(("name", "rule", "net"), [("dynamics_fa_elu_2", FA(rho), MLP(2, "elu")), ("dynamics_gln_1", GLN(), MLP(1))])
def test_dynamics_text(name: str, rule, net, pytestconfig: pytest.Config) -> None:
    compare(name, rule.bind(net).source(), pytestconfig)


def compare(name: str, text: str, config: pytest.Config) -> None:
    path = GOLDEN / f"{name}.txt"
    if config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_text_does_not_depend_on_hash_seed() -> None:
    program = "from derive import *; print(lazy_kernel(FA(rho), MLP(2, 'gelu', sigma_w=sigma_w)).source())"
    texts = {run(program, PYTHONHASHSEED=str(seed)) for seed in (1, 2)}
    assert len(texts) == 1


def test_only_what_is_needed_is_computed() -> None:
    text = lazy_kernel(DFA(), MLP(3, "relu")).source()
    assert "coangle" not in text and "G_tilde" not in text
    assert "nngp_pairs(K_mumu, K_munu, K_nunu, s_K=None)" in lazy_kernel(FA(rho), MLP(2, "relu")).source()


@pytest.mark.parametrize("name", ["relu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tanh", "elu"))])
def test_standalone_module_needs_jax_only(name: str, tmp_path: Path) -> None:
    kernel = lazy_kernel(FA(rho), MLP(1, name))
    kernel.save(tmp_path / "alone.py", standalone=True)
    X = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "X.npy", X)
    program = (
        "import sys, jax, numpy; jax.config.update('jax_enable_x64', True); import alone\n"
        "assert not {'derive', 'numerics', 'sympy'} & set(sys.modules)\n"
        "numpy.save('K.npy', jax.jit(alone.kernel)(numpy.load('X.npy'), rho=0.3))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "K.npy"), jaxify(kernel)(X, rho=0.3), rtol=1e-13)


@pytest.mark.parametrize("module", MODULES)
def test_inlined_helpers_keep_names_of_their_own(module: str) -> None:
    names = [name.lstrip("_") for name in definitions(module)]
    assert len(names) == len(set(names))


def test_layering() -> None:
    assert run("import sys, derive, derive.codegen.emit; print('jax' in sys.modules, 'numerics' in sys.modules)") == "False False"
    assert run("import sys, numerics; print('sympy' in sys.modules, 'derive' in sys.modules)") == "False False"


def run(program: str, **environment: str) -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()
