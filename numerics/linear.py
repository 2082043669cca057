"""Linear units: the mean-field equations solved exactly, without sampling, in one causal pass.

Every field is a linear combination of Gaussian parts, kept as coefficient rows over (source, s, ν). At each time new rows follow from the
couplings of the derived equations, order parameters are second moments of rows, and responses are coefficients. Nothing is iterated and
nothing is dropped: errors are those of rounding. Cost O(L (T P)³), memory O(L (T P)²).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from .dynamics import dynamics, settle
from .jaxify import jaxify
from .order_parameters import DenseKernel, Layers, twice
from .problem import Problem
from .solution import Solution, assemble

Rows = dict[str, np.ndarray]
Pairs = dict[tuple[str, str], np.ndarray]


def solve_linear(
    p: Problem, rule: Any, net: Any, *, parameters: Mapping[str, float] | None = None, responses: bool = True, throw: bool = True,
) -> Solution:  # fmt: skip
    """Solve the mean-field theory of linear units to machine precision.

    Args:
        p: the problem.
        rule, net: learning rule and network (`derive.Rule`, `derive.MLP`); the activation must be linear in x.
        parameters: values of symbolic parameters of rule and network, by name.
        responses: False drops the responses A, B and B̃: not the theory, but shows what they do.
        throw: raise when training diverges.

    Returns:
        The same record as `solve_dmft`; standard errors are zero.

    Raises:
        ValueError: units or rule are not linear, a symbolic parameter has no value, or the problem has weight decay or several outputs.
        SolveFailed: training diverged (unless `throw=False`).

    Source: Bordelon & Pehlevan 2022, 2023, deep linear networks; THEORY sections 4 and 5.
    """
    if p.weight_decay:
        raise ValueError(
            f"weight_decay={p.weight_decay:g}: the exact equations of linear units are those of matrices that keep their random part; "
            "give solve_dmft(..., method='sampling')"
        )
    if p.outputs > 1:
        raise ValueError(f"y has {p.outputs} outputs: the exact equations of linear units are those of one; give solve_dmft(..., method='sampling')")
    module = jaxify(rule.dmft_equations(net).linear())
    values = settle(module.NAME, module.PARAMETERS, parameters)
    bound, _ = dynamics(rule, net, parameters)
    responses = bool(responses)
    with np.errstate(over="ignore", invalid="ignore"):
        march = _March(p, module, values, responses)
        for t in range(p.steps):
            march.step(t)
    shape = (p.steps, p.P, p.steps, p.P)
    layers = lambda name: Layers([_exact(layer.kernels[name].reshape(shape)) for layer in march.layers], 1)
    return assemble(
        p, bound, values, "dmft", twice(march.f), None if march.f_test is None else twice(march.f_test),
        layers("Phi"), layers("G"), layers("G_tilde"), layers("H"), {"method": "exact", "responses": responses}, {}, throw,
    )  # fmt: skip


def _exact(whole: Float[np.ndarray, "T P T P"]) -> DenseKernel:
    """A kernel without sampling error."""
    return DenseKernel(twice(np.einsum("tmtn->tmn", whole)), whole, np.zeros_like(whole))


class _Layer:
    """One layer's history: coefficient rows of h, g̃ and g, covariances of its Gaussian parts, and its order parameters.

    Arrays are (n, n) over (t, μ) × (s, ν) with n = T P, filled up to the present.
    """

    def __init__(self, n: int, sources: tuple[str, ...], backward: tuple[str, ...]) -> None:
        self.sources, self.backward = sources, backward
        empty = lambda names: {name: np.zeros((n, n)) for name in names}
        self.h, self.g_tilde, self.g = empty(sources), empty(sources), empty(backward)
        self.kernels = {name: np.zeros((n, n)) for name in ("Phi", "G", "G_tilde", "H")}
        self.covariance: Pairs = {(a, a): np.zeros((n, n)) for a in backward}
        if "zeta" in sources:
            self.covariance["r", "zeta"] = np.zeros((n, n))

    def between(self, a: str, b: str, rows: slice, columns: slice) -> np.ndarray | None:
        """Cov of two Gaussian parts; None if they are independent."""
        if (a, b) in self.covariance:
            return self.covariance[a, b][rows, columns]
        return self.covariance[b, a][columns, rows].T if (b, a) in self.covariance else None

    def moments(self, left: Rows, right: Rows, end: int) -> np.ndarray:
        """⟨left rightᵀ⟩ for rows with `end` columns each."""
        return self.against(self.with_sources(left, end), right, end)

    def with_sources(self, left: Rows, end: int) -> Rows:
        """⟨left · source⟩ for every Gaussian part."""
        found: Rows = {}
        known = slice(0, end)
        for a, rows in left.items():
            for b in self.backward:
                cov = self.between(a, b, known, known)
                if cov is not None:
                    product = rows[:, :end] @ cov
                    found[b] = found[b] + product if b in found else product
        return found

    def against(self, left: Rows, right: Rows, end: int) -> np.ndarray:
        """⟨left rightᵀ⟩ from what `with_sources` made of the left."""
        shared = [b for b in right if b in left]
        if not shared:
            return np.zeros((len(next(iter(left.values()))), len(next(iter(right.values())))))
        return sum((left[b] @ right[b][:, :end].T for b in shared[1:]), left[shared[0]] @ right[shared[0]][:, :end].T)


class _March:
    """The equations' causal order: layers up, output, layers down, at one time after the other."""

    def __init__(self, p: Problem, module: ModuleType, values: Mapping[str, float], responses: bool) -> None:
        self.p, self.module, self.values, self.responses = p, module, values, responses
        self.P, self.n = p.P, p.steps * p.P
        self.c0 = p.eta * p.gamma0 / p.P
        # k(t, s) = 1 + β + … + β^{t−1−s}: momentum repeats an update; entry n belongs to t − s = n
        self.memory = np.concatenate([[0.0], np.cumsum(p.momentum ** np.arange(p.steps))])
        shares = np.ones((1, p.P)) if p.shares is None else p.shares
        self.shares = shares[np.arange(p.steps) % len(shares)].ravel()
        self.weight, self.bias = (float(scale) ** 2 for scale in module.scales(**values))
        self.slope = float(module.forward_slope(**values))
        self.path = [dict(zip(("transported", "initial", "independent", "direct"), row, strict=True)) for row in module.path(**values)]
        self.parts = [self._parts(at) for at in self.path]
        self.layers = []
        for part in self.parts:
            driven = tuple(name for name in part if name != "u")
            sources = ("u", *driven)
            self.layers.append(_Layer(self.n, sources, tuple(dict.fromkeys((*sources, "r")))))
        self.Delta, self.f = np.zeros(self.n), np.zeros((p.steps, p.P))
        self.f_test = None if p.X_test is None else np.zeros((p.steps, len(p.X_test)))

    def _parts(self, at: Mapping[str, Any]) -> dict[str, float]:
        """Coefficients of the Gaussian parts ζ (r where g̃ = g), q and ξ in z̃."""
        if self.module.SAME:
            return {"r": 1.0}
        if not self.module.USES_FEEDBACK:
            return {}
        found = {"zeta": float(at["transported"] + at["initial"]), "q": float(at["independent"]), "xi": float(at["direct"])}
        return {name: value for name, value in found.items() if value != 0}

    def step(self, t: int) -> None:
        """Everything at time t."""
        now, past = slice(t * self.P, (t + 1) * self.P), t * self.P
        Phi, A = np.tile(self.p.Kx, (1, t + 1)), np.zeros((self.P, past))
        probe = None if self.p.X_test is None else (np.tile(self.p.X_test @ self.p.X.T / self.p.D, (1, t + 1)), 0.0)
        seen: tuple[Rows, np.ndarray] | None = None
        for layer in self.layers:
            Phi, A = self._up(layer, Phi, A, now)
            if probe is not None:
                seen, probe = self._probe(layer, *probe, now)
        one, none = np.ones((self.P, now.stop)), np.zeros((self.P, now.stop))
        above = {"G": one, "G_tilde": one, "G_tilde_T": one, "H": one, "B": none, "B_tilde": none}
        for l in reversed(range(len(self.layers))):
            z = self._gradient(l, above, now)
            if l == len(self.layers) - 1:
                self._output(z, seen, now, t)
            above = self._pseudo_gradient(l, above, now)

    def _fill(self, kernel: np.ndarray, rows: np.ndarray, now: slice) -> None:
        """A symmetric kernel's new rows and columns."""
        kernel[now, : now.stop], kernel[: now.stop, now] = rows, rows.T

    def _collected(self, layer: _Layer, Phi: np.ndarray, A: Any, past: int) -> Rows:
        """C(t, ·) times the rows of g̃: h(t) without its own u."""
        A = A if self.responses else 0.0
        C = self.module.forward_coupling(A, Phi[:, :past], self._signal(past, past), self.c0, **self.values)
        return {a: C @ rows[:past] for a, rows in layer.g_tilde.items()}

    def _reaction(self, layer: _Layer, rows: Rows, past: int) -> np.ndarray | float:
        """A(t, ·): the coefficients of the field that came down through W(0)ᵀ, in F(t)."""
        carried = rows.get("r" if self.module.SAME else "zeta")
        return 0.0 if carried is None else self.slope * carried[:, :past]

    def _up(self, layer: _Layer, Phi: np.ndarray, A: Any, now: slice) -> tuple[np.ndarray, Any]:
        """h(t) = u(t) + C(t, ·) g̃; returns Φ(t, ·) and A(t, ·) of this layer."""
        self._fill(layer.covariance["u", "u"], self.weight * Phi + self.bias, now)
        for a, rows in self._collected(layer, Phi, A, now.start).items():
            layer.h[a][now] = rows
        layer.h["u"][now, now] += np.eye(self.P)
        new = {a: rows[now] for a, rows in layer.h.items()}
        Phi = self.slope**2 * layer.moments(new, _until(layer.h, now), now.stop)
        self._fill(layer.kernels["Phi"], Phi, now)
        return Phi, self._reaction(layer, new, now.start)

    def _probe(self, layer: _Layer, Phi: np.ndarray, A: Any, now: slice) -> tuple[tuple[Rows, np.ndarray], tuple[np.ndarray, Any]]:
        """Test points at one layer.

        Returns:
            Rows of h_test(t) without its own u_test and Cov(u_test(t), u); Φ(test, train) and A(test, train) for the next layer.
        """
        rows = self._collected(layer, Phi, A, now.start)
        own = self.weight * Phi + self.bias
        known = _until(layer.h, now)
        Phi = self.slope**2 * (layer.moments(rows, known, now.stop) + own @ known["u"][:, : now.stop].T)
        return (rows, own), (Phi, self._reaction(layer, rows, now.start))

    def _gradient(self, l: int, above: Mapping[str, np.ndarray], now: slice) -> Rows:
        """z(t) = r(t) + E_r(t, ·) F and g = f z; returns the rows of z."""
        layer = self.layers[l]
        self._backward_covariances(layer, above, now)
        B = above["B"] if self.responses else 0.0
        learned = self._signal(now.start, now.stop)
        E_r = self.module.gradient_coupling(B, _before(above["G_tilde"], now), learned, self.c0, **self.values)
        z = {a: np.zeros((self.P, self.n)) for a in layer.backward}
        for a, rows in layer.h.items():
            z[a] += self.slope * (E_r @ rows[: now.stop])
        z["r"][:, now] += np.eye(self.P)
        for a, rows in z.items():
            layer.g[a][now] = self.slope * rows
        return z

    def _backward_covariances(self, layer: _Layer, above: Mapping[str, np.ndarray], now: slice) -> None:
        """Cov(r, r) = σ_w² G, Cov(ζ, ζ) = Cov(q, q) = σ_w² H, Cov(r, ζ) = σ_w² G̃ of the layer above; ξ is one normal."""
        G, H = self.weight * above["G"], self.weight * above["H"]
        for name, kernel in (("r", G), ("zeta", H), ("q", H), ("xi", np.ones((self.P, now.stop)))):
            if (name, name) in layer.covariance:
                self._fill(layer.covariance[name, name], kernel, now)
        if "zeta" in layer.sources:
            layer.covariance["r", "zeta"][now, : now.stop] = self.weight * above["G_tilde"]
            layer.covariance["r", "zeta"][: now.stop, now] = self.weight * above["G_tilde_T"].T

    def _signal(self, start: int, end: int) -> np.ndarray:
        """k(t, s) ω(s) Δ(s), as it acts at time t, whose entries begin at `start`; the present one is not known yet and meets zeros only."""
        if not self.p.momentum and self.p.batches is None:
            return self.Delta[:end]
        steps = start // self.P - np.arange(end) // self.P
        return self.memory[steps] * self.shares[:end] * self.Delta[:end]

    def _output(self, z: Rows, probe: tuple[Rows, np.ndarray] | None, now: slice, t: int) -> None:
        """f(t) = ⟨z F⟩/γ0 at the last layer, Δ(t) = −∂loss/∂f."""
        layer, p = self.layers[-1], self.p
        shift = self.bias * p.eta / p.P * float(np.sum(self._signal(now.start, now.start)))
        new = {a: rows[now] for a, rows in layer.h.items()}
        self.f[t] = self.slope * np.diag(layer.moments(z, new, now.stop)) / p.gamma0 + shift
        self.Delta[now] = p.objective.error(self.f[t], p.y)
        if probe is not None and self.f_test is not None:
            rows, own = probe
            readout = {a: entry[:1] for a, entry in z.items()}  # w(t), the same on every example
            overlap = layer.moments(rows, readout, now.stop) + own @ readout["u"][:, : now.stop].T
            self.f_test[t] = self.slope * overlap[:, 0] / p.gamma0 + shift

    def _pseudo_gradient(self, l: int, above: Mapping[str, np.ndarray], now: slice) -> dict[str, np.ndarray]:
        """g̃(t) = α h + β z̃; returns this layer's order parameters and responses at t."""
        layer = self.layers[l]
        if self.module.SAME:
            for a, rows in layer.g.items():
                layer.g_tilde[a][now] = rows[now]
        else:
            self._own_path(l, above, now)
        found = self._second_moments(layer, now)
        self._fill(layer.kernels["G"], found["G"], now)
        self._fill(layer.kernels["H"], found["H"], now)
        layer.kernels["G_tilde"][now, : now.stop] = found["G_tilde"]
        layer.kernels["G_tilde"][: now.stop, now] = found["G_tilde_T"].T
        return found

    def _second_moments(self, layer: _Layer, now: slice) -> dict[str, np.ndarray]:
        """Order parameters and responses of g and g̃ at t."""
        end, known, known_own = now.stop, _until(layer.g, now), _until(layer.g_tilde, now)
        gradient = layer.with_sources({a: rows[now] for a, rows in layer.g.items()}, end)
        B = layer.g["u"][now, :end]
        G = layer.against(gradient, known, end)
        if self.module.SAME:
            return {"G": G, "G_tilde": G, "G_tilde_T": G, "H": G, "B": B, "B_tilde": B}
        own = layer.with_sources({a: rows[now] for a, rows in layer.g_tilde.items()}, end)
        return {
            "G": G, "G_tilde": layer.against(gradient, known_own, end), "G_tilde_T": layer.against(own, known, end),
            "H": layer.against(own, known_own, end), "B": B, "B_tilde": layer.g_tilde["u"][now, :end],
        }  # fmt: skip

    def _own_path(self, l: int, above: Mapping[str, np.ndarray], now: slice) -> None:
        """z̃(t) = κ ζ + c q + d ξ + E(t, ·) F, where the feedback is not the true gradient's."""
        layer, module = self.layers[l], self.module
        alpha, beta = (np.broadcast_to(v, (self.P,))[:, None] for v in module.pseudo_gradient_slopes(self.Delta[now], **self.values))
        B_tilde = above["B_tilde"] if self.responses else np.zeros_like(above["B_tilde"])
        learned = self._signal(now.start, now.stop)
        E = module.feedback_coupling(B_tilde, _before(above["H"], now), learned, self.c0, **self.path[l], **self.values)
        E = np.broadcast_to(E, B_tilde.shape)
        for a, rows in layer.h.items():
            layer.g_tilde[a][now] = alpha * rows[now] + beta * self.slope * (E @ rows[: now.stop])
        for a, coefficient in self.parts[l].items():
            layer.g_tilde[a][now, now] += beta * coefficient * np.eye(self.P)


def _until(field: Rows, now: slice) -> Rows:
    """Rows up to the present."""
    return {a: rows[: now.stop] for a, rows in field.items()}


def _before(rows: np.ndarray, now: slice) -> np.ndarray:
    """A kernel's rows with zeros in the present: what was learned before t."""
    masked = rows.copy()
    masked[:, now] = 0.0
    return masked
