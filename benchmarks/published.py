"""The published way to solve the mean-field theory: alternate between whole trajectories and their averages.

Baseline for `speed.py`; nothing else uses it. With n = T P and kernels as n × n matrices, one sweep is

1. Δ from the eNTK, in time order;
2. for every layer ℓ, S samples of whole trajectories u ~ GP(0, Φ^{ℓ−1}) and r ~ GP(0, G^{ℓ+1}) (rules with feedback of their own: ζ, q too)
   by eigendecomposition, negative eigenvalues set to zero;
3. their paths h(t), z(t), by fixed-point iteration over all times at once (`paths="fixed-point"`, as published) or forward in time
   (`paths="causal"`, which the published code does not do and which costs one iteration instead of many);
4. averages Φ^ℓ, G^ℓ, G̃^ℓ, H^ℓ, and responses A^ℓ, B^{ℓ−1}, B̃^{ℓ−1} from the Jacobians of every sample's path, 2 n tangents each;
5. damping: order parameter = β · estimate + (1 − β) · order parameter before, β = `new_share`.

All layers of a sweep see the order parameters of the sweep before. The published notebooks differ in that they are not compiled, compute
responses nobody uses (A^L, B^0), show z̃ the new h only an iteration later, and let Δ follow from the kernels to first order in η, which
`continuous=True` does here too. By default Δ obeys the telescoped update of gradient descent, exact at any η:

    γ0 [f_μ(t+1) − f_μ(t)] = c0 Σ_ν Δ_ν(t) Σ_ℓ G̃^{ℓ+1}_μν(t,t) Φ^ℓ_μν(t+1,t) + Σ_ℓ ⟨z^ℓ_μ(t) (φ^ℓ_μ(t+1) − φ^ℓ_μ(t) − φ̇^ℓ_μ(t) [h^ℓ_μ(t+1) − h^ℓ_μ(t)])⟩

Limits of the method itself, ours kept: derivatives of single paths miss the δ-functions of a kink, so that with L ≥ 2 the responses, and with
them the limit, are wrong for ReLU (the notebooks use smooth units there); and every sweep holds kernels of n² entries.

Source: Bordelon & Pehlevan 2022 (GD), 2023 (other rules), and their notebooks; equations in the form of THEORY section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numerics import Problem
from numerics.dynamics import Dynamics, dynamics


@dataclass(frozen=True)
class Published:
    """What the published method found.

    Attributes:
        loss: of every recorded time.
        Phi, G: layers 1…L.
        movement: relative change of Δ in the last sweep.

    Shapes:
        loss (T,); Phi, G each (T, P, T, P).
    """

    loss: Float[np.ndarray, "T"]
    Phi: tuple[Float[np.ndarray, "T P T P"], ...]
    G: tuple[Float[np.ndarray, "T P T P"], ...]
    movement: float

    def digest(self) -> dict[str, np.ndarray]:
        """Loss curve and kernels at the last recorded time."""
        found = {"loss": self.loss}
        for l, (Phi, G) in enumerate(zip(self.Phi, self.G, strict=True), 1):
            found[f"Phi{l}"], found[f"G{l}"] = Phi[-1, :, -1], G[-1, :, -1]
        return found


class Settings(NamedTuple):
    """Static choices, see `solve_published`."""

    samples: int
    sweeps: int
    new_share: float
    paths: str
    path_tol: float
    path_steps: int
    jacobian_steps: int
    batch: int
    continuous: bool


class Order(NamedTuple):
    """Order parameters of one layer: kernels and responses, n × n each, and the second-order part of df, (T, P)."""

    Phi: Any
    G: Any
    G_tilde: Any
    H: Any
    A: Any
    B: Any
    B_tilde: Any
    beyond: Any


class Drive(NamedTuple):
    """Gaussian parts of one sample, or of many: rows of n, or shorter ones that repeat in time."""

    u: Any
    r: Any
    zeta: Any
    q: Any
    xi: Any
    m: Any


class Couplings(NamedTuple):
    """h = u + C g̃, z = r + E φ, z̃ = κ (ζ + Ẽ φ) + c q + d ξ; C strictly causal, E and Ẽ causal."""

    C: Any
    E: Any
    E_tilde: Any
    path: tuple[Any, Any, Any]
    Delta: Any


def solve_published(
    p: Problem, rule: Any, net: Any, samples: int = 1000, *, sweeps: int = 15, new_share: float = 0.8, seed: int = 0,
    paths: str = "fixed-point", path_tol: float = 1e-10, path_steps: int = 500, jacobian_steps: int = 30, batch: int = 50,
    continuous: bool = False, dtype: str = "float64",
) -> Published:  # fmt: skip
    """Solve by the published alternating algorithm.

    Args:
        p, rule, net: as for `solve_dmft`; σ_w = 1, σ_b = 0, no free parameters.
        samples: S, drawn anew for every layer in every sweep.
        sweeps: how many.
        new_share: β, the share of the new estimate in the damped order parameters.
        seed: of all samples.
        paths: "fixed-point" or "causal".
        path_tol: relative squared change at which fixed-point iterations stop (the notebooks: 1e-6 deep, 1e-10 two-layer).
        path_steps, jacobian_steps: most iterations for paths and for their Jacobians.
        batch: samples whose Jacobians are held at once; divides S.
        continuous: update Δ to first order in η, as published.
        dtype: "float64" or "float32".

    Raises:
        ValueError: a setting or rule that this baseline does not cover.
    """
    bound, values = dynamics(rule, net)
    if values or bound.biased or float(bound.module.scales()[0]) != 1.0:
        raise ValueError(f"{bound.name}: the baseline covers sigma_w=1, sigma_b=0 and no free parameters")
    if not bound.gradient and any("transported" in kinds for kinds in bound.module.PATH):
        raise ValueError(f"{bound.name}: the baseline covers feedback by current weights in gradient descent only")
    if paths not in ("fixed-point", "causal") or samples % batch:
        raise ValueError(f"paths={paths!r} must be 'fixed-point' or 'causal', and batch={batch} must divide samples={samples}")
    settings = Settings(samples, sweeps, new_share, paths, path_tol, path_steps, jacobian_steps, batch, continuous)
    put = lambda value: jnp.asarray(value, dtype)
    found = _solve(jax.random.key(seed), put(p.Kx), put(p.y), put(p.eta), put(p.gamma0), bound, p.steps, settings)
    Phi, G, Delta, movement = jax.tree.map(np.asarray, found)
    shape = (p.steps, p.P, p.steps, p.P)
    return Published(0.5 * np.mean(Delta**2, axis=1), tuple(k.reshape(shape) for k in Phi), tuple(k.reshape(shape) for k in G), float(movement))


@partial(jax.jit, static_argnames=("rule", "steps", "settings"))
def _solve(key, Kx, y, eta, gamma0, rule: Dynamics, steps: int, settings: Settings):
    """All sweeps."""
    key, first = jax.random.split(key)
    orders = _initial(first, Kx, y, rule, steps, settings)
    Delta = _errors(orders, Kx, y, eta, gamma0, steps, settings.continuous)

    def sweep(k, carry):
        orders, Delta, _ = carry
        keys = jax.random.split(jax.random.fold_in(key, k), rule.depth)
        below = [_repeat(Kx, steps), *(order.Phi for order in orders[:-1])]
        new = [_layer(keys[l], l, below[l], orders, Delta, Kx, eta * gamma0 / len(y), rule, settings) for l in range(rule.depth)]
        blend = lambda estimate, before: settings.new_share * estimate + (1 - settings.new_share) * before
        orders = jax.tree.map(blend, new, orders)
        updated = _errors(orders, Kx, y, eta, gamma0, steps, settings.continuous)
        return orders, updated, jnp.linalg.norm(updated - Delta) / jnp.linalg.norm(Delta)

    orders, Delta, movement = jax.lax.fori_loop(0, settings.sweeps, sweep, (orders, Delta, jnp.zeros((), Kx.dtype)))
    return [order.Phi for order in orders], [order.G for order in orders], Delta, movement


def _repeat(block: Float[Array, "P Q"], steps: int) -> Float[Array, "n m"]:
    """A kernel that is the same at all times."""
    return jnp.tile(block, (steps, steps))


def _initial(key, Kx, y, rule: Dynamics, steps: int, settings: Settings) -> list[Order]:
    """Static order parameters, those of initialisation, from samples at one time."""
    P, L = len(y), rule.depth
    zero = jnp.zeros((P, P), Kx.dtype)
    empty = Order(zero, zero, zero, zero, zero, zero, zero, jnp.zeros((1, P), Kx.dtype))
    keys = jax.random.split(key, 2 * L)
    orders, below = [empty] * L, Kx
    at_once = settings._replace(paths="causal")
    rate = jnp.zeros((), Kx.dtype)
    for l in range(L):  # features first: they need nothing from above
        orders[l] = _layer(keys[l], l, below, orders, y[None], Kx, rate, rule, at_once, responses=False)
        below = orders[l].Phi
    for l in reversed(range(L)):
        below = orders[l - 1].Phi if l else Kx
        orders[l] = _layer(keys[L + l], l, below, orders, y[None], Kx, rate, rule, at_once, responses=False)
    repeat = lambda order: Order(*(_repeat(block, steps) for block in order[:-1]), jnp.zeros((steps, P), Kx.dtype))
    no_response = lambda order: order._replace(A=jnp.zeros_like(order.A), B=jnp.zeros_like(order.B), B_tilde=jnp.zeros_like(order.B_tilde))
    return [no_response(repeat(order)) for order in orders]


def _errors(orders: list[Order], Kx, y, eta, gamma0, steps: int, continuous: bool) -> Float[Array, "T P"]:
    """Δ(t+1) = Δ(t) − (η/P) K(t) Δ(t) − second-order part/γ0."""
    P = len(y)
    at = jnp.arange(steps)
    block = lambda kernel, later: kernel.reshape(steps, P, steps, P)[jnp.minimum(at + later, steps - 1), :, at]
    step = 0 if continuous else 1
    features = [jnp.broadcast_to(Kx, (steps, P, P)), *(block(order.Phi, step) for order in orders)]
    gradients = [*(block(order.G_tilde, 0) for order in orders), jnp.ones((steps, P, P), Kx.dtype)]
    K = sum(feature * gradient for feature, gradient in zip(features, gradients, strict=True))
    beyond = 0.0 * K[:, :, 0] if continuous else sum(order.beyond for order in orders) / gamma0

    def update(Delta, now):
        kernel, rest = now
        return Delta - eta / P * kernel @ Delta - rest, Delta

    return jax.lax.scan(update, y, (K, beyond))[1]


def _layer(key, l: int, below, orders, Delta, Kx, rate, rule: Dynamics, settings: Settings, responses: bool = True) -> Order:
    """New estimates of one layer's order parameters."""
    P, steps = len(Kx), Delta.shape[0]
    last = l == rule.depth - 1
    ones = jnp.ones_like(below)
    none = jnp.zeros_like(below)
    above = Order(ones, ones, ones, ones, none, none, none, None) if last else orders[l + 1]
    A = orders[l - 1].A if l else none
    drives = _draw(key, l, below, above, Kx, steps, rule, settings.samples)
    couplings = _couplings(A, below, above, Delta, rate, rule, l, P)
    h, z_tilde = _paths(drives, couplings, rule, P, settings)
    a, z, g, g_tilde = _fields(h, z_tilde, drives, couplings, rule)
    mean = lambda left, right: left.T @ right / settings.samples
    reacts = rule.gradient or rule.uses(l + 1, "initial")
    wanted = (reacts and not last, l > 0) if responses else (False, False)
    A, B, B_tilde = _responses(h, z_tilde, drives, couplings, rule, P, settings, *wanted)
    return Order(mean(a, a), mean(g, g), mean(g, g_tilde), mean(g_tilde, g_tilde), A, B, B_tilde, _beyond(h, a, z, g, P))


def _draw(key, l: int, below, above: Order, Kx, steps: int, rule: Dynamics, samples: int) -> Drive:
    """Whole trajectories; Cov(r, ζ) = G̃. The first layer's u and the readout's fields are constant in time: drawn once."""
    P, n = len(Kx), below.shape[0]
    ku, kr, kq, kxi, km = jax.random.split(key, 5)
    tile = lambda rows: jnp.tile(rows, (1, n // P))
    u = tile(_gaussians(ku, Kx, samples)) if l == 0 else _gaussians(ku, below, samples)
    one = lambda k: jnp.broadcast_to(jax.random.normal(k, (samples, 1), Kx.dtype), (samples, n))
    zeta = q = xi = None
    if l == rule.depth - 1:
        r = one(kr)
        zeta = r if rule.uses(l + 1, "initial") else None
    elif rule.uses(l + 1, "initial"):
        both = _gaussians(kr, jnp.block([[above.G, above.G_tilde], [above.G_tilde.T, above.H]]), samples)
        r, zeta = both[:, :n], both[:, n:]
    else:
        r = _gaussians(kr, above.G, samples)
    if rule.uses(l + 1, "independent"):
        q = one(kq) if l == rule.depth - 1 else _gaussians(kq, above.H, samples)
    if rule.uses(l + 1, "direct"):
        xi = one(kxi)
    return Drive(u, r, zeta, q, xi, tile(_gaussians(km, Kx, samples)) if rule.gated else None)


def _gaussians(key, covariance: Float[Array, "n n"], samples: int) -> Float[Array, "S n"]:
    values, axes = jnp.linalg.eigh(covariance)
    return jax.random.normal(key, (samples, len(values)), covariance.dtype) @ (axes * jnp.sqrt(jnp.maximum(values, 0.0))).T


def _couplings(A, below, above: Order, Delta, rate, rule: Dynamics, l: int, P: int) -> Couplings:
    """C = A + c0 Φ Δ, E = B + c0 G̃ Δ before t; Ẽ = B̃ (frozen feedback learns nothing)."""
    time = jnp.arange(Delta.shape[0])
    before = jnp.repeat(jnp.repeat(time[:, None] > time, P, 0), P, 1)
    until = jnp.repeat(jnp.repeat(time[:, None] >= time, P, 0), P, 1)
    signal = rate * Delta.reshape(-1)
    E = above.B * until + above.G_tilde * signal * before
    initial, independent, direct = rule.module.path()[l][1:]
    return Couplings((A + below * signal) * before, E, above.B_tilde * until, (initial, independent, direct), Delta.reshape(-1))


def _fields(h, z_tilde, drive: Drive, at: Couplings, rule: Dynamics):
    """φ, z, g and g̃ on a path."""
    a = rule.module.forward(h, drive.m)
    z = z_tilde if rule.gradient else drive.r + a @ at.E.T
    g = rule.module.slope(h, drive.m) * z
    return a, z, g, g if rule.gradient else _pseudo_gradient(h, z_tilde, drive, at.Delta, rule)


def _pseudo_gradient(h, z_tilde, drive: Drive, Delta, rule: Dynamics):
    return jnp.broadcast_to(rule.module.pseudo_gradient(h, z_tilde, drive.m, Delta), h.shape)


def _feedback(collected, drive: Drive, at: Couplings, rule: Dynamics):
    """z̃ from what φ contributes: r + E φ for gradient descent, κ (ζ + Ẽ φ) + c q + d ξ otherwise."""
    if rule.gradient:
        return drive.r + collected
    total = jnp.zeros_like(drive.u)
    for coefficient, part in zip(at.path, (None if drive.zeta is None else drive.zeta + collected, drive.q, drive.xi), strict=True):
        total = total if part is None else total + coefficient * part
    return total


def _iterate(h, z_tilde, drive: Drive, at: Couplings, rule: Dynamics):
    """One fixed-point iteration of all times at once; z̃ sees the new h already, which halves the number of iterations."""
    h = drive.u + _pseudo_gradient(h, z_tilde, drive, at.Delta, rule) @ at.C.T
    a = rule.module.forward(h, drive.m)
    return h, _feedback(a @ (at.E if rule.gradient else at.E_tilde).T, drive, at, rule)


def _paths(drive: Drive, at: Couplings, rule: Dynamics, P: int, settings: Settings):
    """h and z̃ of all samples."""
    if settings.paths == "causal":
        return _forward_in_time(drive, at, rule, P)
    start = (drive.u, _feedback(jnp.zeros_like(drive.u), drive, at, rule))
    return _until_still(lambda x: _iterate(*x, drive, at, rule), start, settings.path_tol, settings.path_steps)


def _until_still(update, start, tol: float, most: int):
    """Fixed-point iteration until the relative squared change is below `tol`."""
    size = lambda tree: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))

    def again(carry):
        return (carry[1] >= tol) & (carry[2] < most)

    def body(carry):
        x = update(carry[0])
        change = size(jax.tree.map(jnp.subtract, x, carry[0]))
        return x, change / jnp.maximum(size(carry[0]), jnp.finfo(change.dtype).tiny), carry[2] + 1

    infinite = jnp.full((), jnp.inf, jax.tree.leaves(start)[0].dtype)
    return jax.lax.while_loop(again, body, (start, infinite, 0))[0]


def _forward_in_time(drive: Drive, at: Couplings, rule: Dynamics, P: int):
    """The same paths, one time after the other: fields that are not there yet are zero."""
    E = at.E if rule.gradient else at.E_tilde
    put = partial(jax.lax.dynamic_update_slice_in_dim, axis=-1)
    zero = jnp.zeros_like(drive.u)

    def advance(t, carry):
        h, z_tilde, a, g_tilde = carry
        here = t * P
        now = jax.tree.map(lambda part: jax.lax.dynamic_slice_in_dim(part, here, P, axis=-1), drive)
        row = lambda kernel: jax.lax.dynamic_slice_in_dim(kernel, here, P, axis=0).T
        h_now = now.u + g_tilde @ row(at.C)
        a = put(a, rule.module.forward(h_now, now.m), here)
        z_now = _feedback(a @ row(E), now, at, rule)
        g_now = _pseudo_gradient(h_now, z_now, now, jax.lax.dynamic_slice_in_dim(at.Delta, here, P), rule)
        return put(h, h_now, here), put(z_tilde, z_now, here), a, put(g_tilde, g_now, here)

    return jax.lax.fori_loop(0, zero.shape[-1] // P, advance, (zero, zero, zero, zero))[:2]


def _responses(h, z_tilde, drives: Drive, at: Couplings, rule: Dynamics, P: int, settings: Settings, up: bool, down: bool):
    """A = ⟨∂φ/∂r⟩ (∂ζ for frozen feedback) if `up`, B = ⟨∂g/∂u⟩ and B̃ = ⟨∂g̃/∂u⟩ if `down`, else zero."""
    none = jnp.zeros_like(at.C)
    averaged = partial(_mean_jacobian, h, z_tilde, drives, at, rule, P, settings)
    A = averaged("r" if rule.gradient else "zeta", lambda a, z, g, g_tilde: (a,))[0] if up else none
    if not down:
        return A, none, none
    if rule.gradient:
        B = averaged("u", lambda a, z, g, g_tilde: (g,))[0]
        return A, B, B
    return A, *averaged("u", lambda a, z, g, g_tilde: (g, g_tilde))


def _mean_jacobian(h, z_tilde, drives: Drive, at: Couplings, rule: Dynamics, P: int, settings: Settings, name: str, select):
    """⟨∂out/∂source⟩, a batch of samples after the other."""
    cut = lambda part: part.reshape(-1, settings.batch, part.shape[1])
    derive = _jacobian_forward_in_time if settings.paths == "causal" else _jacobian_fixed_point

    def add(total, some):
        return jax.tree.map(jnp.add, total, derive(*some, at, rule, P, settings, name, select)), None

    pieces = jax.tree.map(cut, (h, z_tilde, drives))
    nothing = tuple(jnp.zeros_like(at.C) for _ in select(0, 0, 0, 0))
    total, _ = jax.lax.scan(add, nothing, pieces)
    return tuple(entry / settings.samples for entry in total)


def _tangents(drive: Drive) -> Float[Array, "n b n"]:
    """Every direction of a source, for each sample of the batch."""
    b, n = drive.u.shape
    return jnp.broadcast_to(jnp.eye(n, dtype=drive.u.dtype)[:, None], (n, b, n))


def _jacobian_forward_in_time(h, z_tilde, drive: Drive, at, rule, P, settings, name, select):
    """Σ over the batch of the path's forward-mode derivative."""

    def out(source):
        moved = drive._replace(**{name: source})
        return select(*_fields(*_forward_in_time(moved, at, rule, P), moved, at, rule))

    push = lambda tangent: jax.jvp(out, (getattr(drive, name),), (tangent,))[1]
    return tuple(jnp.sum(entry, axis=1).T for entry in jax.vmap(push)(_tangents(drive)))


def _jacobian_fixed_point(h, z_tilde, drive: Drive, at, rule, P, settings, name, select):
    """Σ over the batch of the fixed point of the linearised iteration, on the path found before."""
    tangents = _tangents(drive)
    moved = lambda source: drive._replace(**{name: source})
    source = getattr(drive, name)
    update = jax.linearize(lambda h, z, s: _iterate(h, z, moved(s), at, rule), h, z_tilde, source)[1]
    read = jax.linearize(lambda h, z, s: select(*_fields(h, z, moved(s), at, rule)), h, z_tilde, source)[1]
    start = jax.vmap(update)(jnp.zeros_like(tangents), jnp.zeros_like(tangents), tangents)
    move = lambda x: jax.vmap(update)(*x, tangents)
    dh, dz = _until_still(move, start, settings.path_tol, settings.jacobian_steps)
    return tuple(jnp.sum(entry, axis=1).T for entry in jax.vmap(read)(dh, dz, tangents))


def _beyond(h, a, z, g, P: int) -> Float[Array, "T P"]:
    """⟨z(t) δφ(t) − g(t) δh(t)⟩, δ the change over the next step: what the kernels miss at finite η."""
    rest = jnp.mean(z[:, :-P] * (a[:, P:] - a[:, :-P]) - g[:, :-P] * (h[:, P:] - h[:, :-P]), axis=0)
    return jnp.concatenate([rest, jnp.zeros(P, rest.dtype)]).reshape(-1, P)
