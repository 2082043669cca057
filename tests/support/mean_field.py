"""Mean-field equations evaluated as they stand: whatever `dmft_equations` says is drawn, summed and differentiated, and nothing else.

Gaussian parts are drawn with the covariances that the equations give, fields follow from the field equations, order parameters are averages
over the draws and responses derivatives of fields by the Gaussian parts. The theory is causal, so that every sweep over the layers settles
one more step. No line here knows a rule; the project's solver, which never reads the equations, is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import sympy as sp

from derive import fields as F
from derive.fields import L, P, ell, mu, nu, s, t
from derive.symbols import eta, gamma0, x

LEAVES = (F.Field, F.Kernel, F.Signal, F.average, sp.Indexed)
# Relative to the largest variance: Cholesky's factor of fields that repeat themselves.
JITTER = 1e-9
STEP = 1e-20


class MeanField:
    """Equations of one output, with the numbers of a problem put in.

    Attributes:
        kernels: order parameters and responses by (name, layer), (T, P, T, P) arrays.
        f: outputs, (T, P).
    """

    def __init__(
        self, eqs, problem, parameters: Mapping[str, float] | None = None, samples: int = 2048, seed: int = 0,
        without: tuple[str, ...] = (), compiled: dict | None = None,
    ):  # fmt: skip
        """
        Args:
            eqs: of `dmft_equations`.
            problem: without test points.
            parameters: values of the rule's symbols, by name.
            samples: draws of each layer's process.
            seed: of the draws.
            without: names of equations whose left sides are set to zero, for negative controls.
            compiled: expressions that were compiled before, for the same equations and problem.
        """
        self.L, self.T, self.P, self.samples = eqs.net.depth, problem.steps, problem.P, samples
        self.y, self.inputs = np.asarray(problem.y), np.asarray(problem.X @ problem.X.T / problem.D)
        numbers = {L: self.L, P: self.P, gamma0: problem.gamma0, eta: problem.eta, F.c0: problem.eta * problem.gamma0 / self.P}
        numbers |= {symbol: parameters[symbol.name] for symbol in eqs.bound.parameters} if parameters else {}
        if problem.weight_decay:
            numbers[eqs.training.weight_decay] = problem.weight_decay
        self.shares = None if problem.shares is None else np.asarray(problem.shares)
        self.numbers, self.compiled = numbers, {} if compiled is None else compiled
        self.phi = {name: sp.lambdify(x, eqs.net.activation.derivative(order, x), "numpy") for order, name in enumerate(("phi", "dphi", "ddphi"))}
        self.equations = {name: equation for name, equation in eqs.equations.items() if name != "entk"}
        self.without = without
        random = np.random.default_rng(seed)
        self.normals = {layer: _whitened(random.normal(size=(len(self.drawn) * self.T * self.P + 4, samples))) for layer in range(1, self.L + 1)}
        self.Delta, self.f = np.zeros((self.T, self.P)), np.zeros((self.T, self.P))
        self.kernels, self.fields = self._start(), {}
        self.tops = {kind: np.zeros((self.T, self.P)) for kind, where in self.definitions if where == L + 1}

    # ---- reading ---------------------------------------------------------------------------------------------------

    @cached_property
    def definitions(self) -> dict[tuple[type, sp.Expr], sp.Expr]:
        """Right sides of fields by name and layer: ell, L or L + 1."""
        return {
            (equation.lhs.func, equation.lhs.args[0]): sp.S.Zero if name in self.without else equation.rhs
            for name, equation in self.equations.items()
            if isinstance(equation.lhs, F.Field)
        }

    @cached_property
    def covariances(self) -> list[tuple[sp.Expr, sp.Expr, sp.Expr]]:
        """(first, second, covariance) of Gaussian parts."""
        return [(*e.lhs.args, e.rhs) for e in self.equations.values() if isinstance(e.lhs, F.covariance_of)]

    @cached_property
    def drawn(self) -> list[type]:
        """Gaussian parts, in the order in which they are drawn."""
        return sorted({field.func for first, second, _ in self.covariances for field in (first, second)}, key=lambda kind: kind.__name__)

    @cached_property
    def averages(self) -> dict[str, tuple[type, sp.Expr]]:
        """Kernel and the average that it is, by the equation's name."""
        return {
            name: (e.lhs.func, e.rhs.args[0]) for name, e in self.equations.items() if isinstance(e.lhs, F.Kernel) and isinstance(e.rhs, F.average)
        }

    def _start(self):
        shape = (self.T, self.P, self.T, self.P)
        kernels = {(kind.__name__, layer): np.zeros(shape) for kind, _ in self.averages.values() for layer in range(self.L + 2)}
        kernels["Phi", 0] = np.broadcast_to(self.inputs[None, :, None, :], shape)
        return kernels | {(name, self.L + 1): np.ones(shape) for name in ("G", "G_tilde", "H")}

    # ---- numbers for expressions -------------------------------------------------------------------------------------

    def _value(self, expr: sp.Expr, place: Mapping[sp.Symbol, int], look):
        """An expression at a layer, example and time; `look` gives the values of its leaves."""
        key = (expr, *sorted(place.items(), key=str))
        if key not in self.compiled:
            closed = {e.lhs: e.rhs for e in self.equations.values() if isinstance(e.lhs, F.TimeFunction | sp.Symbol)}
            times = lambda q: q.replace(lambda e: isinstance(e, F.TimeFunction), lambda e: self._weight(e, closed))
            self.compiled[key] = self._function(times(expr.subs(place).subs(self.numbers).doit()).subs(self.numbers))
        function, leaves = self.compiled[key]
        return function(*map(look, leaves))

    def _function(self, expr: sp.Expr):
        """An expression as a function of its leaves, and these."""
        if expr not in self.compiled:
            leaves = _outermost(expr)
            dummies = [sp.Dummy() for _ in leaves]
            function = sp.lambdify(dummies, expr.xreplace(dict(zip(leaves, dummies, strict=True))), [self.phi, "numpy"])
            self.compiled[expr] = function, leaves
        return self.compiled[expr]

    def _at(self, expr: sp.Expr, layer: int, name: sp.Expr = ell + 1) -> sp.Expr:
        """An expression with a number for a layer's name; averages speak of ℓ or of ℓ + 1 alone."""
        key = (expr, layer, name)
        if key not in self.compiled:
            self.compiled[key] = expr.subs({name: layer}).subs(ell, layer).subs(self.numbers)
        return self.compiled[key]

    def _weight(self, function, closed):
        pattern, right = next((left, right) for left, right in closed.items() if left.func == function.func)
        found = right.subs(dict(zip(pattern.args, function.args, strict=True)))
        return found.subs({left: value for left, value in closed.items() if isinstance(left, sp.Symbol)})

    def _known(self, leaf):
        """What does not depend on the draws."""
        if isinstance(leaf, F.Kernel):
            layer, i, j, k, l = map(int, leaf.args)
            return self.kernels[type(leaf).__name__, layer][k, i - 1, l, j - 1]
        if isinstance(leaf, sp.Indexed):
            return self.y[int(leaf.indices[0]) - 1]
        if isinstance(leaf, F.Signal):
            example, time = map(int, leaf.args)
            if isinstance(leaf, F.share):
                return 1.0 if self.shares is None else self.shares[time % len(self.shares), example - 1]
            return (self.f if isinstance(leaf, F.output) else self.Delta)[time, example - 1]
        return self.tops[leaf.func][int(leaf.args[2]), int(leaf.args[1]) - 1]

    # ---- one layer's process -----------------------------------------------------------------------------------------

    def _gaussians(self, layer: int) -> dict[type, np.ndarray]:
        """Draws of all Gaussian parts of a layer, (T, P, S); vectors of the readout and frozen ones, (S,)."""
        present = [kind for kind in self.drawn if self._lives(kind, layer)]
        n, count = self.T * self.P, len(present)
        joint = np.zeros((self.T, count, self.P, self.T, count, self.P))
        frozen = dict(zip((F.field_r, F.field_q, F.field_xi, F.field_b), self.normals[layer][n * len(self.drawn) :], strict=True))
        with_frozen = {first.func: float(expr.subs(self.numbers)) for first, second, expr in self.covariances if len(second.args) == 1}
        for first, second, expr in self.covariances:
            if first.func in present and second.func in present and len(second.args) == 3:
                block = self._over_pairs(expr, layer)
                i, j = present.index(first.func), present.index(second.func)
                joint[:, i, :, :, j, :] = block
                joint[:, j, :, :, i, :] = block.transpose(2, 3, 0, 1)
        for kind, share in with_frozen.items():
            joint[:, present.index(kind), :, :, present.index(kind), :] -= share**2
        matrix = joint.reshape(n * count, n * count)
        factor = np.linalg.cholesky(matrix + JITTER * max(1.0, np.abs(matrix).max()) * np.eye(n * count))
        fields = (np.asarray(factor) @ self.normals[layer][: n * count]).reshape(self.T, count, self.P, -1)
        found = {kind: fields[:, place] for place, kind in enumerate(present)}
        for kind, share in with_frozen.items():
            found[kind] = found[kind] + share * frozen[F.field_b]
        return {kind: vector for kind, vector in frozen.items() if kind not in found} | found

    def _lives(self, kind: type, layer: int) -> bool:
        """Parts of what comes down are drawn below the last layer, those of feedback used forward from the second on."""
        if kind is F.field_b:
            return False
        return {F.field_u: True, F.field_p: layer > 1}.get(kind, layer < self.L)

    def _over_pairs(self, expr: sp.Expr, layer: int) -> np.ndarray:
        """A covariance (kernels and numbers) for all times and examples."""
        function, leaves = self._function(self._at(expr, layer, ell))
        values = []
        for leaf in leaves:
            if isinstance(leaf, F.average):
                above = int(next(iter(leaf.args[0].atoms(F.Field))).args[0])
                values.append(self._average(leaf.args[0], self.fields[above], above) if above in self.fields else np.zeros(()))
                continue
            kernel = self.kernels[type(leaf).__name__, int(leaf.args[0])]
            values.append(kernel if leaf.args[1:] == (mu, nu, t, s) else kernel.transpose(2, 3, 0, 1))
        return np.broadcast_to(np.asarray(function(*values), float), (self.T, self.P, self.T, self.P))

    def _site(self, layer: int, gaussians) -> dict[type, np.ndarray]:
        """All fields of a layer, (T, P, S), from its Gaussian parts."""
        known: dict[tuple, np.ndarray] = {}

        def look(leaf):
            if not isinstance(leaf, F.Field) or int(leaf.args[0]) > self.L:
                return self._known(leaf)
            kind = leaf.func
            if kind in gaussians:
                array = gaussians[kind]
                return array if array.ndim == 1 else array[int(leaf.args[2]), int(leaf.args[1]) - 1]
            key = (kind, *leaf.args)
            if key not in known:
                rule = self.definitions.get((kind, L)) if layer == self.L else None
                expr = rule if rule is not None else self.definitions[kind, ell]
                known[key] = self._value(expr, {ell: layer, mu: leaf.args[1], t: leaf.args[2]}, look)
            return known[key]

        kinds = {kind for kind, where in self.definitions if where in (ell, L) and self._there(kind, layer)}
        every = lambda kind: [[look(kind(layer, i, k)) for i in range(1, self.P + 1)] for k in range(self.T)]
        shape = np.broadcast_shapes(*(array.shape[2:] if array.ndim > 1 else array.shape for array in gaussians.values()))
        return {kind: np.stack([np.stack([np.broadcast_to(v, shape) for v in row]) for row in every(kind)]) for kind in kinds}

    def _there(self, kind: type, layer: int) -> bool:
        """Used forward, feedback reaches the second layer first; reconstructions need a layer above that is no readout's."""
        return layer > 1 if kind is F.field_omega else True

    def _average(self, expr: sp.Expr, fields, layer: int):
        """⟨·⟩ of an expression in fields at (μ, t) and (ν, s), for all of these."""
        function, leaves = self._function(self._at(expr, layer))

        def look(leaf):
            example, time = leaf.args[-2:]
            if isinstance(leaf, F.Signal):
                array = self.Delta[..., None]
            else:
                array = fields[leaf.func]
            if time == 0:
                array = np.broadcast_to(array[:1], array.shape)
            first = example == mu
            return array[:, :, None, None] if first else array[None, None]

        found = np.mean(np.atleast_1d(function(*map(look, leaves))), axis=-1)
        return np.broadcast_to(found, (self.T, self.P, self.T, self.P)) if found.ndim == 4 else found

    def _response(self, of: sp.Expr, to: sp.Expr, layer: int, gaussians):
        """⟨∂ of/∂ to⟩ for all times and examples, by complex steps: fields are analytic in their Gaussian parts."""
        at, n = int(to.args[0].subs(ell, layer)), self.T * self.P
        if not self._lives(to.func, at):
            return np.zeros((self.T, self.P, self.T, self.P))
        tangents = np.eye(n).reshape(n, self.T, self.P, 1)
        moved = {kind: array + 0j for kind, array in gaussians[at].items()}
        moved[to.func] = np.moveaxis(gaussians[at][to.func] + 1j * STEP * tangents, 0, 2)
        moved = {kind: array if kind is to.func or array.ndim == 1 else array[:, :, None] for kind, array in moved.items()}
        fields = self._site(at, moved)
        function, (leaf,) = self._function(self._at(of, at))
        found = np.mean(function(fields[leaf.func]).imag, axis=-1) / STEP
        return np.broadcast_to(found, (self.T, self.P, n)).reshape(self.T, self.P, self.T, self.P)

    # ---- sweeps --------------------------------------------------------------------------------------------------------

    def sweep(self) -> float:
        """All layers up and down, then the output; returns how much the output moved."""
        gaussians: dict[int, dict] = {}
        for layer in [*range(1, self.L + 1), *range(self.L - 1, 0, -1)]:
            gaussians[layer] = self._gaussians(layer)
            self.fields[layer] = self._site(layer, gaussians[layer])
            for name, (kind, inside) in self.averages.items():
                self._put(name, kind, inside, layer, gaussians)
        return self._outputs()

    def _put(self, name: str, kind: type, inside: sp.Expr, layer: int, gaussians) -> None:
        response = isinstance(inside, F.partial)
        # responses of what lies above belong to the matrix below
        index = layer - int(inside.args[0].has(ell + 1)) if response else layer
        if name in self.without or index < 1 or (response and index >= self.L):
            return
        needed = {leaf.func for leaf in _outermost(inside) if isinstance(leaf, F.Field)}
        if not response and not needed <= set(self.fields[layer]):
            return
        found = self._response(*inside.args, index, gaussians) if response else self._average(inside, self.fields[layer], layer)
        self.kernels[kind.__name__, index] = found

    def _outputs(self) -> float:
        top = self.fields[self.L]
        averaged = lambda leaf: self._average(leaf.args[0], top, self.L)
        for (kind, where), expr in self.definitions.items():
            if where == L + 1:
                self.tops[kind] = np.diagonal(np.diagonal(averaged(expr), axis1=1, axis2=3), axis1=0, axis2=1).T if expr else np.zeros((self.T, self.P))
        before = self.f
        self.f = self._signals("output")
        self.Delta = self._signals("error")
        return float(np.max(np.abs(self.f - before)))

    def _signals(self, name: str):
        top = self.fields[self.L]

        def look(leaf):
            if not isinstance(leaf, F.average):
                return self._known(leaf)
            field = lambda q: top[q.func][int(q.args[2]), int(q.args[1]) - 1]
            function, inner = self._function(leaf.args[0])
            return np.mean(function(*map(field, inner)))

        expr = self.equations[name].rhs
        return np.array([[self._value(expr, {mu: i, t: k}, look) for i in range(1, self.P + 1)] for k in range(self.T)])

    def solve(self, tolerance: float = 1e-7, most: int = 30):
        """Sweep until outputs stand still.

        Raises:
            AssertionError: they do not.
        """
        for _ in range(most):
            if self.sweep() < tolerance:
                return self
        raise AssertionError(f"the equations have not settled after {most} sweeps")


def _whitened(normals: np.ndarray) -> np.ndarray:
    """Rows with mean zero and the identity as second moment: most of the noise of averages is gone."""
    centred = normals - normals.mean(axis=1, keepdims=True)
    return np.linalg.solve(np.linalg.cholesky(centred @ centred.T / normals.shape[1]), centred)


def _outermost(expr: sp.Expr) -> list[sp.Expr]:
    """Leaves that are not inside other leaves."""
    if isinstance(expr, LEAVES):
        return [expr]
    found: list[sp.Expr] = []
    for argument in expr.args:
        found += [leaf for leaf in _outermost(argument) if leaf not in found]
    return found
