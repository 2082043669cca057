"""Write a lazy kernel as a JAX module: one function per expectation, then the recursion over layers, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import sympy as sp

from ..duals import Dual, PairFunction, pair_function, q_mumu, q_munu, q_nunu
from ..lazy import LazyKernel
from ..symbols import h, m, u, v, x, z
from .lower import GAP, SAFE_FUNCTIONS, SCALE, Lowered, gap, lower
from .printer import FUNCTIONS, JnpPrinter
from .series import Quadrature, quadrature, refuse_infinite

# names in a layer's text: (μ,μ), (μ,ν), (ν,ν)
Names = tuple[str, str, str]
K_NAMES: Names = ("K_mumu", "K_munu", "K_nunu")
RESERVED = (*K_NAMES, "X1", "X2", "K", "jnp", "math", "safe", "quadrature", "x", "s", "scale", "gap")


class KernelPrinter(JnpPrinter):
    """Prints the bodies of dual functions."""

    functions: ClassVar[dict[type, str]] = {**FUNCTIONS, **SAFE_FUNCTIONS}


@dataclass
class Expectation:
    """One dual as a generated function.

    Attributes:
        name: E1, E2, ….
        dual: the expectation.
        pair, diagonal: the lowered closed forms; None where there is none.
        gap: see `lower.gap`.
        rule: how to integrate it at a pair of inputs, where there is no closed form.
    """

    name: str
    dual: Dual
    pair: Lowered | None
    diagonal: sp.Expr | None
    gap: sp.Expr | None = None
    rule: Quadrature | None = None

    @property
    def takes_root(self) -> bool:
        """Whether the function is given s = √(q_mumu q_nunu − q_munu²)."""
        return self.pair is not None and any(root.plain for root in self.pair.roots)


@dataclass
class KernelWriter:
    """The text of a kernel's module, piece by piece."""

    kernel: LazyKernel
    keywords: dict[sp.Symbol, str]
    expectations: dict[Dual, Expectation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fields = {q_mumu: "q_mumu", q_munu: "q_munu", q_nunu: "q_nunu", x: "x", SCALE: "scale", GAP: "gap"}
        self.printer = KernelPrinter({**fields, **self.keywords})
        for dual in self.kernel.duals:
            refuse_infinite(dual)
        for number, dual in enumerate(self.kernel.duals, 1):
            self.expectations[dual] = self._expectation(f"E{number}", dual)

    # ---- expectations ------------------------------------------------------------------------------------------------

    def _expectation(self, name: str, dual: Dual) -> Expectation:
        pair = lower(dual.closed) if dual.closed is not None else None
        diagonal = lower(dual.closed_diagonal).expr if dual.closed_diagonal is not None else None
        made = Expectation(name, dual, pair, diagonal)
        if pair is None or diagonal is None:
            made.rule = quadrature(dual)
        if made.takes_root and dual.f == dual.g and pair is not None and diagonal is not None and len(pair.roots) == 1:
            made.gap = gap(pair.expr, diagonal, pair.roots[0])
        return made

    def call(self, dual: Dual, suffix: str, arguments: str) -> str:
        """E1(…), with the parameters that its text uses."""
        return f"{self.expectation(dual).name}{suffix}({arguments}{self._passed(dual)})"

    def _passed(self, dual: Dual) -> str:
        used = [name for symbol, name in self.keywords.items() if symbol in dual.free_symbols]
        return "".join(f", {name}={name}" for name in used)

    def function(self, name: str, arguments: str, dual: Dual, doc: str, lines: list[str]) -> str:
        used = [name for symbol, name in self.keywords.items() if symbol in dual.free_symbols]
        keywords = f", *, {', '.join(used)}" if used else ""
        return "\n".join([f"def {name}({arguments}{keywords}):", f'    """{doc}"""', *(f"    {line}" for line in lines)])

    def array(self, expr: sp.Expr, like: sp.Symbol) -> str:
        """An expression; a constant as an array of the argument's shape and dtype."""
        text = self.printer.doprint(expr)
        covariances = {q_mumu, q_munu, q_nunu, *(s for s in expr.free_symbols if s not in self.keywords)}
        return text if expr.free_symbols & covariances else f"jnp.full_like({self.printer.doprint(like)}, {text})"

    def roots(self, lowered: Lowered) -> list[str]:
        """Lines that compute the roots that are not given as an argument."""
        printer = self.printer
        lines = []
        for root in lowered.roots:
            printer.names[root.symbol] = root.symbol.name
            if not root.plain:
                parts = ", ".join(printer.doprint(part) for part in (root.P, root.Q, root.R))
                lines.append(f"{root.symbol.name} = safe.sqrt(safe.det2({parts}))")
        return lines

    def single_site(self, made: Expectation) -> tuple[list[str], str]:
        """The functions under an integral, and the text that names them in a call."""
        functions: list[str] = []
        names: list[str] = []
        number = made.name.removeprefix("E")
        for letter, expr in (("f", made.dual.f), ("g", made.dual.g)):
            if letter == "g" and made.dual.f == made.dual.g:
                names.append(names[0])
                continue
            used = [name for symbol, name in self.keywords.items() if symbol in expr.free_symbols]
            keywords = f", *, {', '.join(used)}" if used else ""
            text = self.printer.doprint(expr)
            text = text if x in expr.free_symbols else f"jnp.full_like(x, {text})"
            doc = f"{letter}(x) = {sp.sstr(expr)}."
            functions.append(f'def {letter}{number}(x{keywords}):\n    """{doc}"""\n    return {text}')
            passed = "".join(f", {name}={name}" for name in used)
            names.append(f"lambda x: {letter}{number}(x{passed})" if used else f"{letter}{number}")
        return functions, ", ".join(names)

    def integrals(self, made: Expectation) -> list[str]:
        """Functions that integrate what has no closed form."""
        if made.rule is None:
            return []
        text, names = self.single_site(made)
        doc = f"E[f{made.name[1:]}(u) {'f' if made.dual.f == made.dual.g else 'g'}{made.name[1:]}(v)]"
        if made.pair is None:
            call = f"quadrature.{made.rule.kind}({names}, q_mumu, q_munu, q_nunu, {made.rule.arguments})"
            why = f"{doc}: {made.rule}.\n\n    No closed form: {made.dual.reason}.\n    "
            text.append(self.function(made.name, "q_mumu, q_munu, q_nunu", made.dual, why, [f"return {call}"]))
        if made.diagonal is None:
            breaks = tuple(sorted(set(made.rule.breaks[0]) | set(made.rule.breaks[1])))
            call = f"quadrature.single({names}, q_mumu, {breaks}{', True' if made.rule.at_run_time else ''})"
            text.append(self.function(f"{made.name}_diagonal", "q_mumu", made.dual, f"{doc} at v = u.", [f"return {call}"]))
        return text

    def closed_functions(self, made: Expectation) -> list[str]:
        """The functions of an expectation: at a pair of inputs, at one input, and its gap."""
        text, printer = [], self.printer
        value = f"E[{sp.sstr(made.dual.f.subs(x, u))} · {sp.sstr(made.dual.g.subs(x, v))}]"
        if made.pair is not None:
            arguments = "q_mumu, q_munu, q_nunu" + (", s" if made.takes_root else "")
            lines = [*self.roots(made.pair), f"return {self.array(made.pair.expr, q_munu)}"]
            text.append(self.function(made.name, arguments, made.dual, f"{value}.", lines))
        if made.gap is not None:
            line = f"return {printer.doprint(made.gap)}"
            doc = f"√(E_μμ E_νν) − E_μν of {made.name}, with the digits that the difference would lose at near inputs."
            arguments = "q_munu, s, scale, gap"
            text.append(self.function(f"{made.name}_gap", arguments, made.dual, doc, [line]))
        if made.diagonal is not None:
            line = f"return {self.array(made.diagonal, q_mumu)}"
            text.append(self.function(f"{made.name}_diagonal", "q_mumu", made.dual, f"{value} at v = u.", [line]))
        return text

    def expectation_functions(self) -> list[str]:
        """The functions of all expectations that were called."""
        made = self.expectations.values()
        return [text for one in made for text in (*self.integrals(one), *self.closed_functions(one))]

    @property
    def measured_parameters(self) -> tuple[str, ...]:
        """Parameters on which the error of a quadrature depends, by keyword."""
        used = [one.dual.free_symbols for one in self.expectations.values() if one.rule is not None and one.rule.at_run_time]
        return tuple(name for symbol, name in self.keywords.items() if any(symbol in free for free in used))

    @property
    def rules(self) -> dict[str, Quadrature]:
        """The quadratures in use, by the functions that they integrate."""
        name = lambda dual: f"{dual.f}, {dual.g}" if dual.f != dual.g else str(dual.f)
        made = self.expectations.values()
        return {name(one.dual): one.rule for one in made if one.rule is not None and one.pair is None}

    def expectation(self, dual: Dual) -> Expectation:
        """The generated function of a dual; a new one if no layer has asked for it yet."""
        if dual not in self.expectations:
            self.expectations[dual] = self._expectation(f"E{len(self.expectations) + 1}", dual)
        return self.expectations[dual]

    def recursion(self, output: str, diagonal: bool) -> list[str]:
        """Lines of the function `output` ("ntk" or "nngp"), at pairs or at single inputs; lines not needed are left out."""
        layers = (Single if diagonal else Pairs)(self)
        layers.forward()
        result = layers.sigma[-1][1] if output == "nngp" else layers.backward()
        lines = needed(layers.lines, result)
        if re.search(rf"\b({'|'.join(layers.inputs)})\b", "\n".join(line for line in lines if not line.startswith("#"))):
            return lines
        # a constant activation: the kernel does not depend on the inputs
        return [*lines[:-1], f"return jnp.full_like({layers.inputs[1]}, {lines[-1].removeprefix('return ')})"]


@dataclass
class Pairs:
    """The layers of a kernel as assignments (name, expression, comment), at pairs of inputs."""

    writer: KernelWriter
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    inputs: Names = K_NAMES
    suffixes: tuple[str, ...] = ("_mumu", "_munu", "_nunu")

    def __post_init__(self) -> None:
        self.kernel = self.writer.kernel
        self.sigma: list[Names] = []
        self.Phi: list[Names] = []
        self.G_tilde: list[str] = []

    def put(self, name: str, expression: str, comment: str = "") -> str:
        """Add a line, once, and return its name; a plain name or number needs no line."""
        if re.fullmatch(r"[\w.]+", expression):
            return expression
        if all(line[0] != name for line in self.lines):
            self.lines.append((name, expression, comment))
        return name

    # ---- forward -----------------------------------------------------------------------------------------------------

    def forward(self) -> None:
        """Σ¹ … Σ^{L+1} from the input kernel."""
        self.sigma.append(self.affine(1, self.inputs))
        for layer in range(1, self.kernel.depth + 1):
            below = self.sigma[-1]
            comment = f"Φ^{layer} = E[φ(h) φ(h)], h ~ N(0, Σ^{layer})"
            phi = self.pair(self.kernel.Phi, f"Phi_{layer}", below, None, comment)
            self.Phi.append(phi)
            self.sigma.append(self.affine(layer + 1, phi))
            self.carry_gap(below, phi, self.sigma[-1])

    def affine(self, layer: int, q: Names) -> Names:
        """Σ = σ_w² q + σ_b²."""
        comment = f"Σ^{layer} = σ_w² {f'Φ^{layer - 1}' if layer > 1 else 'K'} + σ_b²"
        return self.each(lambda i: self.put(f"Sigma_{layer}{self.suffixes[i]}", self.shifted(q[i]), comment * (i == 0)))

    def each(self, make: Callable[[int], str]) -> Names:
        """The entries (μ,μ), (μ,ν), (ν,ν)."""
        return make(0), make(1), make(2)

    def scaled(self, name: str) -> str:
        width = self.kernel.net.sigma_w
        return name if width == 1 else f"{self.coefficient(width**2)}*{name}"

    def shifted(self, name: str) -> str:
        bias = self.kernel.net.sigma_b
        return self.scaled(name) + ("" if bias == 0 else f" + {self.writer.printer.doprint(bias**2)}")

    def coefficient(self, value: sp.Expr) -> str:
        text = self.writer.printer.doprint(value)
        return text if value.is_Symbol or value.is_Integer else f"({text})"

    # ---- √(ab − c²) and what is missing to coincidence ---------------------------------------------------------------

    def scale(self, q: Names) -> str:
        return self.put(f"scale_{_stem(q)}", f"safe.sqrt({q[0]})*safe.sqrt({q[2]})")

    def root(self, q: Names) -> str:
        """s = √(q_μμ q_νν − q_μν²), from the gap where the layer below has handed one up."""
        gap_name = f"gap_{_stem(q)}"
        if any(line[0] == gap_name for line in self.lines):
            return self.put(f"s_{_stem(q)}", f"safe.root_of_gap({gap_name}, {self.scale(q)})")
        if q == K_NAMES:
            given = "safe.sqrt(safe.det2(K_mumu, K_nunu, K_munu)) if s_K is None else s_K"
            return self.put("s_K", given, "√(K_μμ K_νν − K_μν²), given where it is known from the difference of the inputs")
        if q == self.sigma[0]:
            bias = self.writer.printer.doprint(self.kernel.net.sigma_b**2)
            below = ", ".join(self.scaled(name) for name in (self.root(K_NAMES), *K_NAMES))
            return self.put(f"s_{_stem(q)}", f"safe.shifted_root({below}, {bias})", "√(q_μμ q_νν − q_μν²)")
        return self.put(f"s_{_stem(q)}", f"safe.sqrt(safe.det2({q[0]}, {q[2]}, {q[1]}))", "√(q_μμ q_νν − q_μν²)")

    def carry_gap(self, below: Names, phi: Names, above: Names) -> None:
        """√(Φ_μμ Φ_νν) − Φ_μν, where the activation has a form for it that keeps its digits."""
        terms = self.kernel.Phi.terms
        if len(terms) != 1 or terms[0].coefficient != 1 or len(terms[0].duals) != 1:
            return
        used, dual = terms[0].duals[0]
        if used != h or self.writer.expectation(dual).gap is None:
            return
        root, scale = self.root(below), self.scale(below)
        # an even Φ sees |q_μν| only, and so does an odd one as long as no bias is added to it
        even, odd = (sp.simplify(dual.f.subs(x, -x) - side * dual.f) == 0 for side in (1, -1))
        covariance = f"jnp.abs({below[1]})" if even or (odd and self.kernel.net.sigma_b == 0) else below[1]
        comment = f"√(q_μμ q_νν) − {'|q_μν|' if covariance != below[1] else 'q_μν'}"
        missing = self.put(f"gap_{_stem(below)}", f"safe.gap({covariance}, {root}, {scale})", comment)
        call = self.writer.call(dual, "_gap", f"{covariance}, {root}, {scale}, {missing}")
        carried = self.put(f"gap_{_stem(phi)}", call)
        if above[1] != phi[1]:
            parts = [self.scaled(name) for name in (carried, phi[0], phi[2])]
            bias = self.kernel.net.sigma_b
            shift = self.writer.printer.doprint(bias**2)
            self.put(f"gap_{_stem(above)}", parts[0] if bias == 0 else f"safe.shifted_gap({', '.join(parts)}, {shift})")

    # ---- a pair function at a layer ----------------------------------------------------------------------------------

    def pair(self, function: PairFunction, name: str, preactivation: Names, feedback: Names | None, comment: str) -> Names:
        """Σ_terms coefficient · Π_field E(field's covariance), at (μ,μ), (μ,ν) and (ν,ν)."""
        at = {h: preactivation, m: self.inputs, z: feedback or self.inputs}

        def entry(index: int) -> str:
            summands = []
            for term in function.terms:
                factors = [self.factor(dual, at[used], index) for used, dual in term.duals]
                summands.append(product(self.coefficient(term.coefficient), *factors))
            return self.put(f"{name}{self.suffixes[index]}", " + ".join(summands) or "0", comment * (index == 1))

        return self.each(entry)

    def factor(self, dual: Dual, q: Names, index: int) -> str:
        """A dual at one entry."""
        if index != 1 or q[0] == q[1] == q[2]:
            return self.writer.call(dual, "_diagonal", q[index])
        root = f", {self.root(q)}" if self.writer.expectation(dual).takes_root else ""
        return self.writer.call(dual, "", ", ".join(q) + root)

    # ---- backward ----------------------------------------------------------------------------------------------------

    def backward(self) -> str:
        """G̃^{L+1} = 1 down to the lowest layer that the signal reaches, and the sum Σ_ℓ G̃^{ℓ+1} Σ^{ℓ+1}."""
        kernel = self.kernel
        terms, above = [self.sigma[-1][1]], "1"
        feedback = self.feedback()[0] if kernel.G.uses(z) else [None] * kernel.depth
        for layer in range(kernel.depth, kernel.deepest_reached - 1, -1):
            comment = f"G^{layer} = E[F′(h) ∂g̃/∂z(h)]"
            slope = self.pair(kernel.G, f"G_{layer}", self.sigma[layer - 1], feedback[layer - 1], comment)[1]
            weight = kernel.net.sigma_w**2 * kernel.weights[layer - 1]
            comment = f"G̃^{layer} = σ_w² c_{layer} G^{layer} G̃^{layer + 1}, c_{layer} = {sp.sstr(kernel.weights[layer - 1])}"
            above = self.put(f"G_tilde_{layer}", product(self.coefficient(weight), slope, above), comment)
            self.G_tilde.insert(0, above)
            terms.append(product(above, self.sigma[layer - 1][1]))
        return self.put("ntk", " + ".join(terms), "Σ_ℓ G̃^{ℓ+1} Σ^{ℓ+1}, ℓ = L … 0")

    def feedback(self) -> tuple[list[Names], list[Names]]:
        """Cov(z̃^ℓ, z̃^ℓ), which the kernel needs only when g̃ is not linear in z̃, and H^ℓ, for ℓ = 1…L."""
        bound = self.kernel.bound
        pseudo = pair_function("H", bound.pseudo_gradient, bound.pseudo_gradient)
        above: Names = ("1", "1", "1")
        values, pseudo_gradients = [], []
        for layer in range(self.kernel.depth, 0, -1):
            path = bound.path[layer - 1]
            carried, direct = self.kernel.carried(path), self.writer.printer.doprint(path.direct**2)
            if above == ("1", "1", "1") or carried == 0:  # the same feedback field for all examples
                value = f"jnp.full_like({self.inputs[1]}, {self.writer.printer.doprint(carried + path.direct**2)})"
                here: Names = (self.put(f"Z_{layer}", value),) * 3
            else:
                entries = [" + ".join(part for part in (product(self.coefficient(carried), entry), direct) if part != "0") for entry in above]
                here = self.each(partial(self._put_entry, f"Z_{layer}", entries))
            values.append(here)
            above = self.pair(pseudo, f"H_{layer}", self.sigma[layer - 1], here, f"H^{layer} = E[g̃ g̃]")
            pseudo_gradients.append(above)
        return values[::-1], pseudo_gradients[::-1]

    def _put_entry(self, name: str, entries: Sequence[str], index: int) -> str:
        return self.put(f"{name}{self.suffixes[index]}", entries[index])


@dataclass
class Single(Pairs):
    """The layers at one input: the diagonal of the kernel, from the expectations at v = u."""

    inputs: Names = ("K", "K", "K")
    suffixes: tuple[str, ...] = ("", "", "")

    def each(self, make: Callable[[int], str]) -> Names:
        return (make(1),) * 3

    def carry_gap(self, below: Names, phi: Names, above: Names) -> None:
        """Nothing is missing to coincidence."""

    def factor(self, dual: Dual, q: Names, index: int) -> str:
        return self.writer.call(dual, "_diagonal", q[index])


def needed(lines: list[tuple[str, str, str]], result: str) -> list[str]:
    """The lines that `result` depends on, with their comments, and the return."""
    wanted = set(re.findall(r"\w+", result))
    kept = []
    for name, expression, comment in reversed(lines):
        if name in wanted:
            wanted |= set(re.findall(r"\w+", expression))
            kept.append((name, expression, comment))
    kept.reverse()
    last = f"return {result}"
    if kept and kept[-1][0] == result:
        *kept, (_, expression, comment) = kept
        last = "\n".join([*([f"# {comment}"] if comment else []), f"return {expression}"])
    text = []
    for name, expression, comment in kept:
        text += [f"# {comment}"] if comment else []
        text.append(f"{name} = {expression}")
    return [*text, *last.split("\n")]


def product(*factors: str) -> str:
    """Factors joined, ones left out."""
    return "*".join(factor for factor in factors if factor != "1") or "1"


def _stem(q: Names) -> str:
    """K_munu → K, Sigma_2_munu → Sigma_2."""
    return q[1].removesuffix("_munu")
