"""Studies of one linear layer with Gaussian inputs: the theory's numbers, and simulations that know only the generated gradients."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from derive import BatchNoise, CoTraining, Regulariser, alignment_theory, amp, decay, null, self_feedback, sparse
from numerics import jaxify

a, d, s, nu, t = sp.symbols("a d s nu t_", positive=True)
RULES: dict[str, Regulariser] = {
    "SA": d * decay / 2 + t * self_feedback,
    "AA": s * sparse / 2 + a * amp,
    "WM": d * decay / 2 + a * amp,
    "IA": d * decay / 2 + a * amp + nu * null / 2,
}
UNIT = {"SA": {"d": 1.0, "t_": 1.0}, "AA": {"s": 1.0, "a": 1.0}, "WM": {"d": 1.0, "a": 1.0}, "IA": {"d": 1.0, "a": 1.0, "nu": 1.0}}
MARKS = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
LATE = 1.02  # what the control multiplies times of the closed form with
DEGREES = 180 / np.pi


def layer(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """W, an independent B(0) of the same norm, Σ with a log-normal spectrum of trace n, and its spectrum."""
    random = np.random.default_rng(seed)
    spectrum = np.exp(0.75 * random.normal(size=n))
    spectrum /= spectrum.mean()
    axes = np.linalg.qr(random.normal(size=(n, n)))[0]
    W, B = random.normal(size=(m, n)) / np.sqrt(n), random.normal(size=(n, m)) / np.sqrt(n)
    return W, B, axes * spectrum @ axes.T, spectrum


def angles(full: bool) -> dict[str, object]:
    """Angle of B and Wᵀ against time with W fixed: Runge–Kutta against the closed form, and the average over random W."""
    W, B0, Sigma, spectrum = layer(*((240, 160) if full else (60, 40)), 0)
    # X Xᵀ/P = Σ exactly
    inputs, h = np.linalg.cholesky(Sigma) * np.sqrt(len(Sigma)), 0.0025
    fine = np.linspace(0, 8, 81)[1:]
    found: dict[str, object] = {"marks": MARKS, "fine": fine, "participation": spectrum.sum() ** 2 / (spectrum**2).sum() / len(spectrum)}
    for name, regulariser in RULES.items():
        module, theory = jaxify(regulariser), jaxify(alignment_theory(regulariser))
        flow = lambda B, module=module, name=name: -module.feedback_gradient(W, B, inputs, **UNIT[name])
        B, now, simulated = jnp.asarray(B0), 0.0, []
        errors: list[float] = []
        late: list[float] = []
        for mark in MARKS:
            B = jax.jit(_runge_kutta, static_argnums=(0, 3))(flow, B, h, round((mark - now) / h))
            now = mark
            simulated.append(DEGREES * float(theory.angle_between(B, W.T)))
            for distances, factor in ((errors, 1.0), (late, LATE)):
                closed = theory.feedback(factor * mark, B0, W, Sigma, **UNIT[name])
                distances.append(float(jnp.linalg.norm(B - closed) / jnp.linalg.norm(closed)))
        curve = [DEGREES * float(theory.angle(time, B0, W, Sigma, **UNIT[name])) for time in fine]
        found |= {f"{name} simulated": simulated, f"{name} error": max(errors), f"{name} late": max(late), f"{name} theory": curve}
        if hasattr(theory, "random_angle"):
            found[f"{name} random"] = [DEGREES * float(theory.random_angle(time, spectrum, **UNIT[name])) for time in MARKS]
    return found


def _runge_kutta(flow, B, h, steps):
    def one(_, B):
        k1 = flow(B)
        k2 = flow(B + h / 2 * k1)
        k3 = flow(B + h / 2 * k2)
        return B + h / 6 * (k1 + 2 * k2 + 2 * k3 + flow(B + h * k3))

    return jax.lax.fori_loop(0, steps, one, B)


def cotraining(full: bool) -> dict[str, object]:
    """W and B moved together on white inputs of second moment 3/2: growth rates, balance, and where they end."""
    n, m = (60, 40) if full else (30, 20)
    W, B, _, _ = layer(n, m, 1)
    inputs, times = np.sqrt(1.5 * n) * np.eye(n), np.linspace(0, 12, 25)
    found: dict[str, object] = {"times": times, "forgetting": np.array([1.0, 1.5, 2.0])}
    for forgetting in (1.0, 1.5, 2.0):
        course = _together("WM", {"d": forgetting, "a": 1.0}, W, B, inputs, times)
        norms = np.linalg.norm(course["W"] + course["B"].transpose(0, 2, 1), axis=(1, 2))
        odd = np.linalg.norm(course["W"] - course["B"].transpose(0, 2, 1), axis=(1, 2))
        found |= {f"even {forgetting:g}": norms, f"odd {forgetting:g}": odd}
        at_zero = np.linalg.eigvalsh(np.asarray(jaxify(CoTraining(RULES["WM"])).jacobian(0.0, 0.0, 1.5, d=forgetting, a=1.0)))
        found[f"rates {forgetting:g}"] = at_zero
    course = _together("IA", {"d": 0.2, "a": 1.0, "nu": 1.0}, W, B, inputs, times)
    imbalance = np.linalg.norm(course["W"] @ course["W"].transpose(0, 2, 1) - course["B"].transpose(0, 2, 1) @ course["B"], axis=(1, 2))
    theory = jaxify(alignment_theory(RULES["IA"]))
    found["IA angle"] = [DEGREES * float(theory.angle_between(B, W.T)) for W, B in zip(course["W"], course["B"], strict=True)]
    found |= {"IA balance": imbalance / imbalance[0], "IA singular values": np.linalg.svd(course["W"][-1], compute_uv=False) ** 2}
    point = jaxify(CoTraining(RULES["IA"])).fixed_points(1.5, d=0.2, a=1.0, nu=1.0)[-1]
    return found | {"IA fixed point": float(point[0]) ** 2}


def _together(name: str, values: Mapping[str, float], W, B, inputs, times, h: float = 0.005) -> dict[str, np.ndarray]:
    module = jaxify(RULES[name].configure(update_forward=True))
    flow = lambda both: jax.tree.map(
        jnp.negative, (module.forward_gradient(*both, inputs, **values), module.feedback_gradient(*both, inputs, **values))
    )

    def one(_, both):
        # Heun's method: second order, like everything that is compared here
        slope = flow(both)
        ahead = flow(jax.tree.map(lambda x, v: x + h * v, both, slope))
        return jax.tree.map(lambda x, v, w: x + h / 2 * (v + w), both, slope, ahead)

    between = jax.jit(lambda both: jax.lax.fori_loop(0, round((times[1] - times[0]) / h), one, both))
    course = [(jnp.asarray(W), jnp.asarray(B))]
    for _ in times[1:]:
        course.append(between(course[-1]))
    return {"W": np.stack([both[0] for both in course]), "B": np.stack([both[1] for both in course])}


def depth(full: bool) -> dict[str, object]:
    """Eight linear layers W_l = g · orthogonal, every B_l relaxed on the activities that reach it: the product of |B_l|/|W_l|."""
    n, layers, gains = (96 if full else 32), 8, np.array([0.8, 1.0, 1.2])
    random = np.random.default_rng(2)
    found: dict[str, object] = {"gains": gains}
    for name in ("WM", "IA"):
        module, theory = jaxify(RULES[name]), jaxify(alignment_theory(RULES[name]))
        flow = lambda B, W, inputs, module=module, name=name: -module.feedback_gradient(W, B, inputs, **UNIT[name])
        relaxed = jax.jit(lambda W, x, flow=flow: _runge_kutta(lambda B: flow(B, W, x), jnp.zeros((n, n)), 0.05, 400))
        measured, predicted = [], []
        for g in gains:
            inputs, ratios, expected = np.sqrt(n) * np.linalg.qr(random.normal(size=(n, n)))[0], [], []
            for level in range(layers):
                W = g * np.linalg.qr(random.normal(size=(n, n)))[0]
                ratios.append(float(jnp.linalg.norm(relaxed(W, inputs)) / np.linalg.norm(W)))
                l = g ** (2 * level)
                expected.append(float(theory.drive(l, **UNIT[name]) / theory.rate(l, l * g**2, **UNIT[name])))
                inputs = W @ inputs
            measured.append(np.cumprod(ratios))
            predicted.append(np.cumprod(expected))
        found |= {f"{name} measured": measured, f"{name} predicted": predicted}
    return found


def floors(full: bool) -> dict[str, object]:
    """The angle that batches of fresh Gaussian inputs leave, against the solved balance; and noise in the updates of SA and KP."""
    cases = [("WM", 100, 60, 0.01, 10), ("WM", 100, 60, 0.01, 50), ("IA", 60, 40, 0.02, 10), ("IA", 60, 20, 0.02, 20), ("AA", 60, 40, 0.02, 40)]
    burn, steps = (4000, 6000) if full else (1500, 1500)
    measured, predicted, shares = [], [], []
    for index, (name, n, m, eta, batch) in enumerate(cases):
        W = np.random.default_rng(index).normal(size=(m, n)) / np.sqrt(n)
        module, theory = jaxify(RULES[name]), jaxify(BatchNoise(alignment_theory(RULES[name])))
        star = theory.fixed_point(W, np.eye(n), **UNIT[name])

        def step(B, key, W=W, module=module, name=name, n=n, eta=eta, batch=batch, theory=theory, star=star):
            B = B - eta * module.feedback_gradient(W, B, jax.random.normal(key, (n, batch)), **UNIT[name])
            return B, (theory.angle_between(B, W.T), jnp.sum((B - star) ** 2))

        start = star if name != "AA" else star + np.random.default_rng(9).normal(size=star.shape) / np.sqrt(n)
        course = jax.jit(lambda key, step=step, start=start: jax.lax.scan(step, start, jax.random.split(key, burn + steps))[1])
        found, deviation = (np.asarray(each)[burn:] for each in course(jax.random.key(index)))
        angle, columns = theory.floor(W, np.eye(n), eta, batch, **UNIT[name])
        measured.append(DEGREES * found.mean())
        predicted.append(DEGREES * float(angle))
        shares.append(deviation.mean() / max(float(np.sum(columns)), 1e-30) if name != "AA" else np.nan)
    names = np.array([f"{name}, n={n}, m={m}, η={eta:g}, batch {batch}" for name, n, m, eta, batch in cases])
    return {"cases": names, "measured": measured, "predicted": predicted, "shares": shares} | _update_noise(full)


def _update_noise(full: bool) -> dict[str, object]:
    """Noise of variance v in every step: the mode's variance at the rates of SA (fast) and of Kolen–Pollack (a weight decay)."""
    theory, eta, v = jaxify(alignment_theory(RULES["SA"])), 0.05, 1e-3
    rates = np.array([0.002, 0.02, 0.2])
    # the slowest mode relaxes in 1/(η rate) = 10 000 steps
    random, walks, steps = np.random.default_rng(5), (8000 if full else 2000), 60000
    predicted = np.array([float(theory.weight_noise_variance(eta, v, 0.0, 0.0, d=rate, t_=rate)) for rate in rates])
    x, total = np.zeros((len(rates), walks)), np.zeros(len(rates))
    for index in range(steps):
        x = (1 - eta * rates)[:, None] * x + eta * np.sqrt(v) * random.normal(size=x.shape)
        if index >= 2 * steps // 3:
            total += np.mean(x**2, axis=1) / (steps - 2 * steps // 3)
    return {"noise rates": rates, "noise measured": total, "noise predicted": predicted}
