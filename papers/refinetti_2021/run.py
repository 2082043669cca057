"""Refinetti et al. 2021: compute, measure, draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from derive import DFA, GD, deep_linear, early_time, erf, sqrt, teacher_student, x
from derive.convolution import alignment_bounds, d_in, d_out
from derive.convolution import k as k_
from derive.deep_linear import alignment_of_targets, alpha, beta
from derive.online_limits import A2, F2, t
from derive.symbols import eta
from derive.teacher_student import A, F, i, k, m, sigma
from numerics import simulate_online, solve_deep_linear, solve_online, train_deep_linear
from numerics.convolution import convolution_alignment
from papers.harness import Measured, main

from .figures import draw
from .images import convolutional, images, measure_convolutional, measure_images, measure_seeds, seeds, use
from .starts import converged, start, starts
from .theory import corruption, gradient, learnable, measure_corruption, measure_gradient, measure_learnable

SAAD = erf(x / sqrt(2))
TEACHER, FEEDBACK, RATE = np.array([1.0, 0.6]), np.array([1.0, -0.7]), 0.2
DIMENSIONS = (500, 1000, 4000)
RELU_SIZES = ((2, 1), (2, 2))


# ---- studies ----------------------------------------------------------------------------------------------------------


def phases(full: bool) -> dict[str, np.ndarray]:
    """One start, DFA and BP, equations and a network."""
    times = np.concatenate([[0.0], np.geomspace(0.1, 3000, 160)])
    common: dict[str, Any] = {**start(3, 2, 2, 1e-2), "A": TEACHER, "F": FEEDBACK, "eta": RATE}
    found: dict[str, Any] = {"t": times}
    for name, rule in (("dfa", DFA()), ("bp", GD())):
        ts = teacher_student(rule, SAAD)
        out = solve_online(ts, t=times, **common)
        seen = times[times <= (600 if full else 150)]
        sim = simulate_online(ts, t=seen, D=1000 if full else 400, **common)
        found |= {f"{name}_eg": out.eg, f"{name}_cos": out.cos_v_F, f"{name}_sim_t": seen}
        found |= {f"{name}_sim_eg": sim.eg[0], f"{name}_sim_cos": np.asarray(sim.cos_v_F)[0]}
    return found


def finite(full: bool) -> dict[str, np.ndarray]:
    """Distance of networks from the equations, by dimension."""
    times = np.linspace(1, 6, 6)
    common: dict[str, Any] = {**start(5, 2, 2, 0.5), "A": TEACHER, "F": FEEDBACK, "eta": RATE, "sigma": 0.1, "t": times}
    ts = teacher_student(DFA(), SAAD)
    limit = solve_online(ts, **common)
    wrong = solve_online(ts, **{**common, "eta": 1.1 * RATE})
    found: dict[str, Any] = {"D": np.array(DIMENSIONS), "eg": limit.eg, "t": times}
    for D in DIMENSIONS:
        sim = simulate_online(ts, D=D, seeds=(40 if full else 8), **common)
        # per seed: mean square distance over times and order parameters
        distance = lambda out, sim=sim: np.stack([np.mean((getattr(sim, q) - getattr(out, q)) ** 2, axis=tuple(range(1, getattr(sim, q).ndim))) for q in "QRv"])
        found |= {f"square_{D}": distance(limit), f"wrong_{D}": distance(wrong), f"eg_{D}": sim.eg}
    return found


def early(full: bool) -> dict[str, np.ndarray]:
    """The derived first instants beside the integrated equations."""
    ts = teacher_student(DFA(), SAAD)
    laws = early_time(ts)
    times = np.geomspace(1e-3, 30, 60)
    zero = np.zeros((2, 2))
    out = solve_online(ts, Q=zero, R=zero, T=np.eye(2), A=TEACHER, v=np.zeros(2), F=FEEDBACK, eta=RATE, t=times, rtol=1e-11, atol=1e-18)
    put = {A2: TEACHER @ TEACHER, F2: FEEDBACK @ FEEDBACK, eta: RATE, sigma: 0, F[i]: FEEDBACK[1], F[k]: FEEDBACK[0], A[m]: TEACHER[1]}
    law = lambda expr: np.array([float(expr.subs({**put, t: at})) for at in times])
    found = {"t": times, "R": out.R[:, 1, 1], "v": out.v[:, 1], "Q": out.Q[:, 1, 0], "drop": float(laws.start.subs(put)) - out.eg}
    found |= {f"{name}_law": law(getattr(laws, name)) for name in ("R", "v", "Q", "drop")}
    return found | {"eg": out.eg, "cos": np.asarray(out.cos_v_F)}


def degeneracy(full: bool) -> dict[str, np.ndarray]:
    """Many starts: which of the equivalent solutions each rule finds."""
    seeds = 128 if full else 40
    feedback = np.random.default_rng(77).normal(size=(seeds, 2))
    found: dict[str, np.ndarray] = {"F": feedback}
    for name, rule, std in (("dfa_small", DFA(), 1e-2), ("bp_small", GD(), 1e-2), ("dfa_large", DFA(), 1.0)):
        out = solve_online(
            teacher_student(rule, SAAD), A=TEACHER, F=feedback, eta=RATE, t=np.array([0.0, 20000.0]), rtol=1e-6, atol=1e-9, max_steps=100_000,
            **starts(seeds, 2, 2, std),
        )  # fmt: skip
        found |= {f"{name}_v": out.v[:, -1], f"{name}_R": out.R[:, -1], f"{name}_eg": out.eg}
    return found


def relu(full: bool) -> dict[str, np.ndarray]:
    """ReLU students: what the signs of F allow."""
    seeds = 96 if full else 32
    found: dict[str, np.ndarray] = {}
    for K, M in RELU_SIZES:
        feedback = np.random.default_rng(13).normal(size=(seeds, K))
        out = solve_online(
            teacher_student(DFA(), "relu"), A=np.ones(M), F=feedback, eta=0.1, t=np.array([0.0, 1000.0]), rtol=1e-4, atol=1e-7, max_steps=4000,
            integral_tol=0.05, throw=False, **starts(seeds, K, M, 0.1),
        )  # fmt: skip
        # a run whose student is driven to zero weights, where ReLU's kink makes steps shrink, stops there: it does not fit
        found |= {f"F_{K}_{M}": feedback, f"eg_{K}_{M}": out.eg, f"I4_error_{K}_{M}": out.stats["integral_error"]}
    return found


def linear(full: bool) -> dict[str, np.ndarray]:
    """Deep linear networks: the exact form, the first instants, and targets of different shape."""
    net, rng = deep_linear(4), np.random.default_rng(2)
    X, Y = rng.normal(size=(60, 20)), rng.normal(size=(60, 3))
    F_ = [np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (30, 30, 30)]
    whole = np.tile(np.arange(60), (1500, 1))
    reduced, trained = solve_deep_linear(net, X, Y, F_, 0.05, whole), train_deep_linear(net, X, Y, F_, 0.05, whole)
    S = Y.T @ X / len(X)
    found: dict[str, Any] = {
        "gap": np.array([np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(reduced.weights(), trained, strict=True)]),
        "loss": reduced.loss, "alignment": reduced.alignment, "kappa_P": np.linalg.cond(S @ S.T), "kappa": reduced.condition[:, 20],
        "norms": np.array([np.linalg.norm(A, axis=(1, 2)) for A in reduced.A]),
    }  # fmt: skip
    shapes = [(one, two) for one in (0.2, 0.6, 1.0) for two in (0.2, 0.6, 1.0)]
    measured = np.zeros((len(shapes), 20 if full else 8))
    for place, (one, two) in enumerate(shapes):
        root = np.linalg.cholesky(np.array([[1, one * (1 - two)], [one * (1 - two), one**2]]) + 1e-12 * np.eye(2))
        for seed in range(measured.shape[1]):
            draw_ = np.random.default_rng([seed, place])
            inputs, targets = draw_.normal(size=(1000, 200)), draw_.normal(size=(1000, 2)) @ root.T
            feedback = [np.linalg.qr(draw_.normal(size=(20, 2)))[0] for _ in range(2)]
            out = solve_deep_linear(deep_linear(3), inputs, targets, feedback, 1e-4, np.tile(np.arange(1000), (10, 1)))
            measured[place, seed] = out.alignment[0, -1]
    formula = alignment_of_targets()
    predicted = [float(formula.subs({alpha: one, beta: two})) for one, two in shapes]
    return found | {"shapes": np.array(shapes), "measured": measured, "predicted": np.array(predicted)}


def convolution(full: bool) -> dict[str, np.ndarray]:
    """The best convolution for random feedback, by kernel and image size."""
    shapes, draws = [(8, 3), (12, 3), (12, 5), (16, 7)], 40 if full else 8
    found = {"independent": np.zeros((len(shapes), draws)), "constant": np.zeros((len(shapes), draws))}
    for place, (side, width) in enumerate(shapes):
        rng, sizes = np.random.default_rng(place), ((4, side - width + 1), (4, side))
        for number in range(draws):
            plain = [rng.normal(size=(count * size**2, 10)) for count, size in sizes]
            spread = [np.repeat(rng.normal(size=(count, 10)), size**2, axis=0) for count, size in sizes]
            for name, (above, below) in (("independent", plain), ("constant", spread)):
                found[name][place, number] = convolution_alignment(above, below, (4, 4), side, width)
    bounds = alignment_bounds()
    at = lambda name: np.array([float(bounds[name].subs({d_in: side, d_out: side - width + 1, k_: width})) for side, width in shapes])
    return found | {"shapes": np.array(shapes), "independent_bound": at("independent"), "constant_bound": at("constant")}


STUDIES = {
    "phases": phases, "finite": finite, "early": early, "degeneracy": degeneracy, "relu": relu, "learnable": learnable, "linear": linear,
    "corruption": corruption, "gradient": gradient, "convolution": convolution, "images": images, "seeds": seeds, "convolutional": convolutional,
}  # fmt: skip


# ---- measures ---------------------------------------------------------------------------------------------------------


def share(hits: np.ndarray, note: str = "") -> Measured:
    """A share with its binomial standard error."""
    p = float(np.mean(hits))
    return Measured(p, float(np.sqrt(max(p * (1 - p), 0.25 / len(hits)) / len(hits))), note or f"{int(np.sum(hits))} of {len(hits)} runs")


def measure(data: dict[str, dict[str, np.ndarray]]) -> dict[str, Measured]:
    """Values of all claims."""
    parts = {
        "phases": _phases, "finite": _finite, "early": _early, "degeneracy": _degeneracy, "relu": _relu, "learnable": measure_learnable, "linear": _linear,
        "corruption": measure_corruption, "gradient": measure_gradient, "convolution": _convolution, "images": measure_images, "seeds": measure_seeds,
        "convolutional": measure_convolutional,
    }  # fmt: skip
    return {name: value for study, of in parts.items() for name, value in of(data[study]).items()}


def _phases(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    # the error has fallen by less than a tenth of what it will
    initial = d["dfa_eg"][0]
    plateau = d["dfa_eg"] > 0.9 * initial
    before = {rule: d[f"{rule}_cos"][d[f"{rule}_eg"] > 0.9 * initial][-1] for rule in ("dfa", "bp")}
    return {
        "align-first": Measured(float(before["dfa"]), note=f"at t = {d['t'][plateau][-1]:.1f}"),
        "align-first-bp": Measured(float(abs(before["bp"]))),
        "memorise": Measured(float(d["dfa_eg"][-1] / initial)),
    }


def _finite(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    dims = d["D"].astype(float)
    rms = lambda kind: np.sqrt(np.array([np.mean(d[f"{kind}_{int(D)}"]) for D in dims]))
    slope = lambda values: float(np.polyfit(np.log(dims), np.log(values), 1)[0])
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(400):
        pick = {D: rng.integers(0, d[f"square_{int(D)}"].shape[1], d[f"square_{int(D)}"].shape[1]) for D in dims}
        resampled.append(slope(np.sqrt(np.array([np.mean(d[f"square_{int(D)}"][:, pick[D]]) for D in dims]))))
    at = ", ".join(f"{value:.4f} at D = {int(D)}" for D, value in zip(dims, rms("square"), strict=True))
    return {"finite-D": Measured(slope(rms("square")), float(np.std(resampled)), f"rms distance {at}"), "finite-D-wrong": Measured(slope(rms("wrong")))}


def _early(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    near = d["t"] < 3e-2
    power = lambda name: float(np.polyfit(np.log(d["t"][near]), np.log(np.abs(d[name][near])), 1)[0])
    ratio = lambda name, at: float(np.interp(at, d["t"], d[name] / d[f"{name}_law"]))
    plateau = d["eg"] > 0.99 * d["eg"][0]
    return {
        "power-R": Measured(power("R")), "power-v": Measured(power("v")),
        "prefactor-R": Measured(ratio("R", 1e-2)), "prefactor-v": Measured(ratio("v", 1e-2)), "prefactor-Q": Measured(ratio("Q", 1e-2)),
        "prefactor-drop": Measured(ratio("drop", 0.1)), "aligned-on-plateau": Measured(float(d["cos"][plateau].min())),
    }  # fmt: skip


def _degeneracy(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for name in ("dfa_small", "bp_small", "dfa_large"):
        done = converged(d[f"{name}_eg"])
        v, F_ = d[f"{name}_v"][done], d["F"][done]
        found[f"signs-{name.replace('_', '-')}"] = share(np.sign(v) == np.sign(F_), f"units of {done.sum()} converged runs of {len(done)}")
        # the larger |F| gets the larger |A|, hence the larger |v|
        paired = (np.argmax(np.abs(v), 1) == np.argmax(np.abs(F_), 1)).astype(float)
        found[f"pairing-{name.replace('_', '-')}"] = share(paired)
    return found


def _relu(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    blocked: list[bool] = []
    allowed: list[bool] = []
    for K, M in RELU_SIZES:
        done, positive = converged(d[f"eg_{K}_{M}"]), (d[f"F_{K}_{M}"] > 0).sum(1)
        found[f"relu-{K}-{M}"] = share(done)
        blocked += list(done[positive < M])
        allowed += list(done[positive >= M])
    note = f"{int(np.sum(blocked))} of {len(blocked)} runs with fewer than M positive F fit{_stopped(d)}"
    found["relu-blocked"] = Measured(float(np.mean(blocked)), note=note)
    found["relu-allowed"] = share(np.array(allowed))
    return found


def _stopped(d: dict[str, np.ndarray]) -> str:
    """How many runs of ReLU students stopped, if any did."""
    count = sum(int(np.sum(np.isnan(d[f"eg_{K}_{M}"][:, -1]))) for K, M in RELU_SIZES)
    return f"; {count} of all runs stopped at zero weights" if count else ""


def _linear(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    mean = d["measured"].mean(1)
    worst = int(np.argmax(np.abs(mean - d["predicted"])))
    se = float(d["measured"][worst].std(ddof=1) / np.sqrt(d["measured"].shape[1]))
    slope = float(np.polyfit(d["predicted"], mean, 1)[0])
    return {
        "weak-alignment": Measured(float(d["gap"].max())),
        "conditioning": Measured(float(np.log(d["kappa"][1]) / np.log(d["kappa_P"])), note=f"κ(P) = {float(d['kappa_P']):.2f}"),
        "targets": Measured(float(np.abs(mean - d["predicted"]).max()), se, note="at alpha, beta = {}, {}".format(*d["shapes"][worst])),
        "targets-slope": Measured(slope),
    }


def _convolution(d: dict[str, np.ndarray]) -> dict[str, Measured]:
    rms = lambda name: np.sqrt(np.mean(d[name] ** 2, axis=1))
    ratio = rms("independent") / d["independent_bound"]
    worst = ratio[np.argmax(np.abs(ratio - 1))]
    local = d["shapes"][:, 1] / d["shapes"][:, 0]
    return {
        "conv-independent": Measured(float(worst), note=f"cosines {rms('independent').min():.3f} … {rms('independent').max():.3f}"),
        "conv-constant": Measured(float(np.max(np.abs(rms("constant") / d["constant_bound"] - 1)))),
        "conv-local": Measured(float(np.max(rms("independent") / local))),
    }


if __name__ == "__main__":
    main(__file__, STUDIES, measure, draw, use)


