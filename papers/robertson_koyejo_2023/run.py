"""Conserved quantities of feedback alignment on trained networks: `python -m papers.robertson_koyejo_2023.run --fast`.

Laws and formulas come from `derive` (found, proved, turned into code there); the networks of `networks.py` know nothing of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from sklearn.datasets import load_digits

from derive import (
    DFA,
    FA,
    GD,
    MLP,
    Rational,
    at_infinite_width,
    conservation_laws,
    kolen_pollack,
    lam,
    leaky_relu,
    sign,
    two_layer_modes,
    w,
    x,
)
from derive.two_layer import s as singular_value
from numerics import Problem, jaxify, solve_dmft, track_laws
from papers.harness import Measured, main
from papers.robertson_koyejo_2023.figures import draw
from papers.robertson_koyejo_2023.networks import Setup, Weights, forward, loss, start, train

HIDDEN = 3
DECAY = 0.2
LEAK = 0.1
STARTS = "0", "0.25", "0.5", "0.75", "1", "small"
TIME = 4.0
STEPS = 0.02, 0.01, 0.005, 0.0025


def law(rule: Any, activation: str, kind: str, layer: int, **options: Any) -> Any:
    """One law, as derived for a network of three hidden layers."""
    biased = options.pop("biased", False)
    found = conservation_laws(rule, MLP(HIDDEN, activation, sigma_b=1 if biased else 0), **options)
    return next(each for each in found if (each.kind, each.layer) == (kind, layer) and not each.found.linear)


# Name → law, and the network in which it is to hold. `pace` shortens time and steps where weights move faster.
LAWS = {
    "FA, linear": (lambda: law(FA(), "linear", "layer", 1), Setup(activation="linear")),
    "FA, ReLU": (lambda: law(FA(), "relu", "layer", 2), Setup()),
    "FA, leaky ReLU": (lambda: law(FA(), "leaky_relu", "layer", 2), Setup(activation="leaky_relu")),
    "FA, ReLU²": (lambda: law(FA(), "relu2", "layer", 3), Setup(activation="relu2", scale=0.8)),
    "FA, ReLU, per neuron": (lambda: law(FA(), "relu", "neuron", 2), Setup()),
    "FA, linear, matrix": (lambda: law(FA(), "linear", "matrix", 2), Setup(activation="linear")),
    "FA, ReLU, biases, softmax": (lambda: law(FA(), "relu", "layer", 1, biased=True), Setup(biased=True, loss="softmax")),
    "gradient descent, ReLU": (lambda: law(GD(), "relu", "layer", 2), Setup(rule="gd")),
    "sign symmetry, ReLU": (lambda: law(GD(), "relu", "layer", 2, feedback=sign(w)), Setup(rule="sign", pace=0.25)),
    "Kolen–Pollack, ReLU": (lambda: law(kolen_pollack(0), "relu", "layer", 2), Setup(rule="kp")),
    "Kolen–Pollack with decay": (lambda: law(kolen_pollack(lam), "relu", "layer", 2, decay=lam), Setup(rule="kp", decay=DECAY)),
    "DFA, ReLU, last pair": (lambda: law(DFA(), "relu", "layer", 3), Setup(rule="dfa")),
    "DFA, linear, product feedback": (lambda: law(DFA(), "linear", "layer", 2), Setup(rule="dfa", activation="linear")),
    "DFA, ReLU, ghost readout": (lambda: law(DFA(), "relu", "layer", 1), Setup(rule="dfa")),
}
# Laws in networks that break them.
BROKEN = {
    "tanh with the law of ReLU": (lambda: law(FA(), "relu", "layer", 2), Setup(activation="tanh")),
    "matrix law on ReLU": (lambda: law(FA(), "linear", "matrix", 2), Setup()),
    "biases left out": (lambda: law(FA(), "relu", "layer", 1), Setup(biased=True, loss="softmax")),
    "degree 1 for ReLU²": (lambda: law(FA(), "relu", "layer", 3), Setup(activation="relu2", scale=0.8)),
    "DFA, product feedback on ReLU": (lambda: law(DFA(), "linear", "layer", 2), Setup(rule="dfa")),
    "FA with weight decay": (lambda: law(FA(), "relu", "layer", 2), Setup(decay=DECAY)),
    "Adam": (lambda: law(FA(), "relu", "layer", 2), Setup(optimiser="adam", pace=0.1)),
}


def value(module: Any, weights: Weights, time: float) -> np.ndarray:
    """A law's generated code on the weights of a network without width factors."""
    known = dict(weights)
    for l in (1, 2):
        if f"C{l}" in module.LETTERS:  # F^{l+1} C^l = F^l; the code has the factor √N of networks that divide by it
            known[f"C{l}"] = np.linalg.pinv(weights[f"F{l + 1}"]) @ weights[f"F{l}"] / np.sqrt(weights[f"F{l}"].shape[1])
    parameters = {name: {"alpha": 0.1, "lambda_": DECAY, "lam": DECAY}[name] for name in module.PARAMETERS}
    times = {"t": time} if module.value.__kwdefaults__ else {}
    return np.asarray(module.value(**{name: known[name] for name in module.LETTERS}, **parameters, **times))


def data(setup: Setup, examples: int = 12, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and targets, columns for examples."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(setup.widths[0], examples))
    if setup.loss == "softmax":
        return inputs, np.eye(setup.widths[-1])[:, random.integers(0, setup.widths[-1], examples)]
    return inputs, random.normal(size=(setup.widths[-1], examples))


def _drifts(cases: dict[str, Any]) -> dict[str, np.ndarray]:
    """|Q(T) − Q(0)| for four step sizes, what ½‖W‖² does meanwhile, and Q over time at the smallest step."""
    found: dict[str, np.ndarray] = {"steps": np.array(STEPS), "names": np.array(list(cases))}
    drifts, moves, curves = [], [], []
    for make, setup in cases.values():
        module = jaxify(make())
        inputs, targets = data(setup)
        sizes = []
        for eta in STEPS:
            count = round(TIME / eta)
            eta *= setup.pace
            every = count // 20
            kept = [each for t, each in enumerate(train(setup, start(setup, 0), inputs, targets, eta, count)) if t % every == 0]
            values = np.stack([value(module, each, setup.pace * TIME * t / 20) for t, each in enumerate(kept)])
            sizes.append(np.linalg.norm(values[-1] - values[0]))
        below = f"W{module.LAYER - 1}"
        norms = [np.sum(each[below] ** 2) / 2 for each in kept]
        drifts.append(sizes)
        moves.append(max(abs(norm - norms[0]) for norm in norms))
        curves.append([np.linalg.norm(each - values[0]) for each in values])
    return found | {"drift": np.array(drifts), "moved": np.array(moves), "curve": np.array(curves)}


def drift(full: bool) -> dict[str, np.ndarray]:
    """Laws under Euler's method."""
    return _drifts(LAWS)


def broken(full: bool) -> dict[str, np.ndarray]:
    """Negative controls."""
    return _drifts(BROKEN)


def identity(full: bool) -> dict[str, np.ndarray]:
    """Q(k) − Q(0) − ½η² Σ‖G‖² of full batches and of batches of three, and the drift of momentum."""
    module = jaxify(law(FA(), "relu", "layer", 2))
    setup = Setup()
    inputs, targets = data(setup)
    found = {}
    for name, batch in (("full", None), ("batches", 3)):
        run = list(train(setup, start(setup, 0), inputs, targets, 0.05, 400, batch))
        values = np.array([value(module, each, 0) for each in run])
        added = [float(module.increment(dW1=after["W1"] - before["W1"])) for before, after in pairwise(run)]
        found[f"{name} values"] = values
        found[f"{name} predicted"] = values[0] + np.concatenate([[0.0], np.cumsum(added)])
    momentum = replace(setup, optimiser="momentum")
    ends = []
    for eta in STEPS:
        *_, last = train(momentum, start(setup, 0), inputs, targets, eta, round(TIME / eta))
        ends.append(abs(float(value(module, last, 0) - value(module, start(setup, 0), 0))))
    return found | {"momentum": np.array(ends), "steps": np.array(STEPS)}


# ---- alignment on digits ----------------------------------------------------------------------------------------------------


def alignment(full: bool) -> dict[str, np.ndarray]:
    """Angles between W and B over time in ReLU networks on handwritten digits, for correlations ρ at the start and a small start."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).choice(len(images), 1500 if full else 400, replace=False)
    inputs = (images[chosen].T / 16 - 0.5) * 2
    targets = np.eye(10)[:, labels[chosen]]
    eta, steps, points = 0.02, 10000 if full else 2500, 60
    marks = np.unique(np.round(np.geomspace(1, steps + 1, points)).astype(int)) - 1
    modules = [jaxify(each) for each in conservation_laws(FA(), MLP(HIDDEN, "relu")) if each.kind == "layer"]
    found: dict[str, np.ndarray] = {"time": marks * eta}
    for name in STARTS:
        small = name == "small"
        setup = Setup((64, 40, 40, 40, 10), loss="softmax", rho=0 if small else float(name), scale=0.3 if small else 1.4, feedback_scale=1.4)
        cosine, predicted, overlap, losses, added = [], [], [], [], np.zeros(HIDDEN)
        before = None
        for t, now in enumerate(train(setup, start(setup, 0), inputs, targets, eta, steps)):
            if before is None:
                begin = np.array([value(module, now, 0) for module in modules])
            else:
                added += [float(m.increment(**{f"dW{l}": now[f"W{l}"] - before[f"W{l}"]})) for l, m in enumerate(modules)]
            before = now
            if t not in marks:
                continue
            norms = np.array([np.sum(now[f"W{l}"] ** 2) / 2 for l in range(HIDDEN)])
            sizes = np.array([np.linalg.norm(now[f"W{l}"]) * np.linalg.norm(now[f"B{l}"]) for l in range(1, HIDDEN + 1)])
            inner = np.array([np.sum(now[f"W{l}"] * now[f"B{l}"]) for l in range(1, HIDDEN + 1)])
            overlap.append(inner)
            cosine.append(inner / sizes)
            predicted.append((norms - begin - added) / sizes)
            losses.append(loss(setup, forward(setup, now, inputs)[0][-1], targets))
        found |= {
            f"{name} cosine": np.array(cosine), f"{name} predicted": np.array(predicted), f"{name} overlap": np.array(overlap),
            f"{name} loss": np.array(losses), f"{name} Q": begin,
        }  # fmt: skip
    return found


# ---- two layers -------------------------------------------------------------------------------------------------------------


def minimum_norm(full: bool) -> dict[str, np.ndarray]:
    """Over-parameterised linear networks: distance of the limit from the minimum-norm solution, against ‖W1 W0(0) P⊥‖."""
    random = np.random.default_rng(0)
    n, hidden, outputs, P = 40, 30, 3, 15
    inputs, targets = random.normal(size=(n, P)), random.normal(size=(outputs, P))
    least = targets @ np.linalg.pinv(inputs)
    outside = np.eye(n) - inputs @ np.linalg.pinv(inputs)
    scales = np.array([0.0, 0.01, 0.1, 0.3, 1.0])
    rows = []
    for scale in scales:
        setup = Setup((n, hidden, outputs), "linear")
        weights = start(setup, 0)
        weights |= {"W0": scale * weights["W0"], "W1": scale * weights["W1"]}
        begin = weights["W0"]
        *_, last = train(setup, weights, inputs, targets, 0.1, 20000 if full else 6000)
        limit = last["W1"] @ last["W0"]
        size = np.linalg.norm(least)
        rows.append([np.linalg.norm(limit - least) / size, np.linalg.norm(last["W1"] @ begin @ outside) / size, np.linalg.norm(limit @ inputs - targets)])
    excess, predicted, residual = np.array(rows).T
    return {"scale": scales, "excess": excess, "predicted": predicted, "residual": residual}


def modes(full: bool) -> dict[str, np.ndarray]:
    """Strengths of modes from zero weights: networks against the closed form of time as a function of the amplitude."""
    random = np.random.default_rng(0)
    n, hidden, outputs = 12, 20, 4
    targets_s = np.array([3.0, 1.5, 0.6, 0.2])
    orthogonal = lambda size: np.linalg.qr(random.normal(size=(size, size)))[0]
    U, V, B = orthogonal(outputs), orthogonal(n), orthogonal(hidden)[:outputs]
    inputs = np.eye(n)
    targets = U @ np.diag(targets_s) @ V[:, :outputs].T
    setup = Setup((n, hidden, outputs), "linear")
    zero = {"W0": np.zeros((hidden, n)), "W1": np.zeros((outputs, hidden)), "B1": B}
    step = 0.0005
    count = round(8 / step)
    strengths, readouts, off, losses, cosines = [], [], 0.0, [], []
    for t, now in enumerate(train(setup, zero, inputs, targets * 1.0, step * n, count)):  # the mean over n examples is undone by n
        if t % (count // 80):
            continue
        product = U.T @ now["W1"] @ now["W0"] @ V[:, :outputs]
        strengths.append(np.diag(product))
        off = max(off, float(np.abs(product - np.diag(np.diag(product))).max()))
        readouts.append(np.diag(U.T @ now["W1"] @ B.T @ U))
        losses.append(np.sum((now["W1"] @ now["W0"] - targets) ** 2) / 2)
        size = np.linalg.norm(now["W1"]) * np.linalg.norm(B)
        cosines.append(np.sum(now["W1"] * B) / size if size else np.nan)
    theory = two_layer_modes()
    functions = jaxify(theory)
    amplitudes = np.linspace(1e-6, 1 - 1e-6, 20000)[:, None] * np.cbrt(2 * targets_s)
    return {
        "t": np.arange(81) * step * (count // 80), "strength": np.array(strengths), "readout": np.array(readouts), "off": np.array(off),
        "loss": np.array(losses), "cosine": np.array(cosines), "s": targets_s,
        "theory_t": np.asarray(functions.time(amplitudes, targets_s)), "theory_strength": np.asarray(functions.strength(amplitudes)),
        "final_cosine": np.array(theory.final_cosine(tuple(targets_s), outputs)),
        "half_time": np.array(float(theory.half_time.subs(singular_value, 1))),
    }  # fmt: skip


# ---- infinite width ---------------------------------------------------------------------------------------------------------


def infinite(full: bool) -> dict[str, np.ndarray]:
    """The law per neuron on the single-site fields of `solve_dmft`, and the layers' drift from its order parameters against networks."""
    random = np.random.default_rng(3)
    X, y = random.normal(size=(6, 10)), np.array([1.0, -1, 1, 1, -1, -1])
    one = Problem(X, y, gamma0=1.0, eta=0.5, steps=40)
    net = MLP(1, leaky_relu(x, Rational(1, 10)))
    neuron = next(each for each in conservation_laws(FA(), net) if each.kind == "neuron")
    q, half, predicted = neuron_law(one, neuron, solve_dmft(one, FA(), net, samples=1024, replicas=1, method="sampling"))
    two = Problem(X, y, gamma0=1.0, eta=0.5, steps=40)
    deep = MLP(2, "relu")
    laws = [each for each in conservation_laws(FA(), deep) if each.kind == "layer"]
    solution = solve_dmft(two, FA(), deep, samples=4096 if full else 2048, replicas=4)
    c0 = two.eta * two.gamma0 / two.P
    theory = np.stack([layer_drift(each, solution, c0) for each in laws])
    widths, seeds = ((100, 400, 1000), 12) if full else ((100, 400), 8)
    networks = np.array([
        [[run.drift / N for run in track_laws(laws, two, N, seed)] for seed in range(seeds)] for N in widths
    ])  # fmt: skip
    return {"q": q, "half": half, "predicted": predicted, "theory": theory, "widths": np.array(widths), "networks": networks}


def layer_drift(found: Any, solution: Any, c0: float) -> np.ndarray:
    """q(t) − q(0) per neuron from Φ and H of a solution."""
    Phi = {l: kernel.equal_time() for l, kernel in solution.Phi.items()}
    H = {l: kernel.equal_time() for l, kernel in solution.H.items()}
    return np.asarray(jaxify(at_infinite_width(found)).drift(c0, solution.problem.y - solution.f, Phi, H))


def neuron_law(p: Problem, found: Any, solution: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q_i(t), ½‖W_i‖² and the predicted drift at every sample of a solution with one hidden layer, all from its single-site fields.

    The solution has φ(h), g = φ̇(h) w(t) and g̃ = φ̇(h) b of every sample at all times; leaky ReLU is inverted for h. W_i enters through
    h_iμ = W_i·x_μ/√D only, so that ½‖W_i‖² is ½ hᵀ(K^x)⁻¹h and a constant.
    """
    c0 = p.eta * p.gamma0 / p.P
    features, pseudo, gradient = (np.asarray(kernel[1].left[0]) for kernel in (solution.Phi, solution.H, solution.G))
    h = np.where(features > 0, features, features / LEAK)
    slopes = np.where(h > 0, 1.0, LEAK)
    w, b = (field[:, 0] / slopes[:, 0] for field in (gradient, pseudo))
    half = 0.5 * np.einsum("tps,pq,tqs->ts", h, np.linalg.inv(p.Kx), h)
    pairs = np.einsum("tps,tqs->stpq", pseudo, pseudo)
    drift = jaxify(at_infinite_width(found)).drift
    predicted = jax.vmap(lambda own: drift(c0, p.y - solution.f, {0: p.Kx[None]}, {1: own}))(pairs)
    return half - w * b, half, np.asarray(predicted)[:, :-1].T


STUDIES = {
    "drift": drift, "broken": broken, "identity": identity, "alignment": alignment, "minimum_norm": minimum_norm, "modes": modes,
    "infinite": infinite,
}  # fmt: skip


def slope(steps: np.ndarray, sizes: np.ndarray) -> float:
    """Order of the drift in the step."""
    return float(np.polyfit(np.log(steps), np.log(sizes), 1)[0])


def measure(found: dict[str, dict[str, np.ndarray]]) -> dict[str, Measured]:
    """Values of the claims."""
    laws, wrong = found["drift"], found["broken"]
    orders = {str(name): slope(laws["steps"], sizes) for name, sizes in zip(laws["names"], laws["drift"], strict=True)}
    worst = max(orders, key=lambda name: abs(orders[name] - 1))
    relative = laws["drift"][:, -1] / laws["moved"]
    result = {
        "order": Measured(orders[worst], note=f"the worst of {len(orders)}: {worst}"),
        "constancy": Measured(float(relative.max()), note=f"largest for {laws['names'][relative.argmax()]}"),
    }
    for k, name in enumerate(map(str, wrong["names"])):
        result[f"broken: {name}"] = Measured(float(wrong["drift"][k, -1] / wrong["drift"][k, 0]))
    same = found["identity"]
    for name in ("full", "batches"):
        result[f"identity {name}"] = Measured(float(np.abs(same[f"{name} values"] - same[f"{name} predicted"]).max() / np.abs(same[f"{name} values"]).max()))
    result["momentum"] = Measured(slope(same["steps"], same["momentum"]))
    turned = found["alignment"]
    gaps = [np.abs(turned[f"{name} cosine"] - turned[f"{name} predicted"]).max() for name in STARTS]
    result["alignment law"] = Measured(float(max(gaps)))
    dominant = [turned[f"{name} overlap"][:, l].min() for name in STARTS for l in range(HIDDEN) if turned[f"{name} Q"][l] <= 0]
    result["alignment condition"] = Measured(float(min(dominant)), note=f"{len(dominant)} layers in {len(STARTS)} runs start with Q(0) ≤ 0")
    result["alignment rho 0"] = Measured(float(turned["0 cosine"][-1].min()))
    result["alignment small"] = Measured(float(turned["small cosine"][-1].min()))
    least = found["minimum_norm"]
    result["minimum norm"] = Measured(float(least["excess"][0]))
    result["minimum norm excess"] = Measured(float(np.abs(least["excess"] - least["predicted"]).max()))
    result["minimum norm control"] = Measured(float(least["excess"][-1]))
    mode = found["modes"]
    theory = np.stack([
        np.interp(mode["t"], mode["theory_t"][:, k], mode["theory_strength"][:, k]) for k in range(len(mode["s"]))
    ], axis=1)  # fmt: skip
    result["modes"] = Measured(float(np.abs(mode["strength"] - theory).max()))
    result["modes off-diagonal"] = Measured(float(mode["off"]))
    result["modes half time"] = Measured(float(np.interp(mode["s"][0] / 2, mode["strength"][:, 0], mode["t"]) * mode["s"][0] ** (2 / 3)))
    result["modes cosine"] = Measured(float(mode["cosine"][-1]))
    wide = found["infinite"]
    result["infinite neuron"] = Measured(float(np.abs(wide["q"] - wide["q"][0] - wide["predicted"]).max() / np.abs(wide["half"] - wide["half"][0]).max()))
    result["infinite neuron moved"] = Measured(float(np.abs(wide["half"] - wide["half"][0]).max() / np.abs(wide["predicted"]).max()))
    result["infinite layer"] = further_off(wide["networks"][-1, :, :, -1] / wide["theory"][:, -1])
    return result


def further_off(ratios: np.ndarray) -> Measured:
    """The mean ratio of the layer where it is furthest from 1, whatever its error; from networks × layers."""
    mean, se = ratios.mean(0), ratios.std(0, ddof=1) / np.sqrt(len(ratios))
    layer = int(np.abs(mean - 1).argmax())
    shown = ", ".join(f"{each:.3f} ± {error:.3f}" for each, error in zip(mean, se, strict=True))
    return Measured(float(mean[layer]), float(se[layer]), f"layers {shown}")


if __name__ == "__main__":
    main(__file__, STUDIES, measure, draw)
