"""The session, as a process: IPython, and Python's own prompt where IPython is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lazyrich.repl import BANNER, namespace

TYPED = """\
kernel = lazy_kernel(FA(rho), MLP(depth=1, activation="relu"))
kernel
p = Problem(X, y, gamma0=1.0, eta=0.1, steps=2, X_test=X_test, y_test=y_test)
solve_lazy(p, GD(), MLP(depth=1)).loss.shape
sqrt(rho)/2
exit()
"""


@pytest.mark.parametrize("ipython", [True, False])
def test_session(ipython, tmp_path):
    hide = "" if ipython else "sys.modules['IPython'] = None; "
    code = f"import sys; {hide}sys.argv = ['lazyrich']; from lazyrich.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=TYPED, capture_output=True, text=True, timeout=300, check=False,
        env=_environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.startswith(BANNER)
    assert "(2,)" in done.stdout  # the loss curve of solve_lazy
    assert "√ρ" in done.stdout  # pretty printing is on
    assert ("In [1]" in done.stdout) == ipython
    assert ("IPython is not installed" in done.stderr) == (not ipython)


def _environment(tmp_path):
    import os

    return os.environ | {"IPYTHONDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}


def test_banner_is_five_lines_that_fit_a_terminal():
    lines = BANNER.splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 120


def test_everything_the_banner_names_is_there():
    names = namespace()
    for name in (
        "lazy_kernel",
        "FA",
        "rho",
        "MLP",
        "jaxify",
        "Problem",
        "solve_dmft",
        "GD",
        "X",
        "y",
        "expectation",
        "x",
    ):
        assert name in names
    assert names["X"].shape == (20, 64) and names["y"].shape == (20,)
