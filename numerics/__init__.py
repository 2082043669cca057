"""Arrays: solvers, finite networks and evaluation of derived kernels. Imports JAX, never SymPy.

Double precision is switched on here, once, unless the environment variable JAX_ENABLE_X64 says otherwise.
"""

import os

import jax

if "JAX_ENABLE_X64" not in os.environ:
    jax.config.update("jax_enable_x64", True)

from .checkpoint import Partial, load_checkpoint
from .conserved import Tracked, track_laws
from .deep_linear import DeepLinearSolution, solve_deep_linear, train_deep_linear
from .direct import DirectRun, train_direct
from .dmft import solve_dmft
from .errors import SolveFailed
from .extrapolate import extrapolate
from .finite import train_finite
from .jaxify import jaxify
from .lazy import solve_lazy
from .linear import solve_linear
from .networks import Classes, NetworkRun, NetworkTraining, train_network
from .observables import alignment_with, entk_layers, learning_shares, movement
from .online import OnlineSolution, solve_online
from .online_sgd import simulate_online
from .plotting import plot, plot_compare
from .problem import Problem
from .residual import Stage, train_residual
from .solution import Solution
from .sweep import Sweep, sweep

__all__ = [
    "Classes", "DeepLinearSolution", "DirectRun", "NetworkRun", "NetworkTraining", "OnlineSolution", "Partial", "Problem", "Solution", "SolveFailed",
    "Stage", "Sweep", "Tracked", "alignment_with", "entk_layers", "extrapolate", "jaxify", "learning_shares", "load_checkpoint",
    "movement", "plot", "plot_compare", "simulate_online", "solve_deep_linear", "solve_dmft", "solve_lazy", "solve_linear",
    "solve_online", "sweep", "track_laws", "train_deep_linear", "train_direct", "train_finite", "train_network", "train_residual",
]  # fmt: skip
