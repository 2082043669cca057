"""What the command line is given, turned into rules, networks, data and paths.

Everything here raises `BadInput` before any computation starts.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sympy as sp

from derive import activations, feedback, rules, symbols
from derive.activations import Activation, activation
from derive.errors import BadInput
from derive.loss import loss_of
from derive.network import MLP
from derive.rules import Rule
from derive.training import Training
from lazyrich.console import counted

# What `--rule` understands. A rule without ρ ignores none: giving it one is an error.
RULES: Mapping[str, Callable[..., Rule]] = {
    "gd": rules.GD,
    "fa": rules.FA,
    "dfa": rules.DFA,
    "hebb": rules.Hebb,
    "gln": rules.GLN,
    "sign-concordant": feedback.sign_concordant,
    "symmetric-alignment": feedback.symmetric_alignment,
    "activation-alignment": feedback.activation_alignment,
    "information-alignment": feedback.information_alignment,
    "kolen-pollack": feedback.kolen_pollack,
    "weight-mirror": feedback.weight_mirror,
}

FUNCTIONS: Mapping[str, Callable[..., sp.Expr]] = {
    **{name: getattr(sp, name) for name in ("exp", "log", "sqrt", "sin", "cos", "sinh", "cosh", "tanh", "atan", "erf")},
    **{name: getattr(sp, name) for name in ("sign", "Heaviside", "Max", "Min", "Abs")},
    **{
        name: getattr(activations, name)
        for name in ("relu", "step", "gelu", "sigmoid", "softplus", "silu", "normal_cdf")
    },
    "abs": sp.Abs,
    "max": sp.Max,
    "min": sp.Min,
}
OPERATORS: Mapping[type, Callable[..., sp.Basic]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
    ast.UAdd: lambda a: a,
    ast.USub: lambda a: -a,
}
COMPARISONS: Mapping[type, Callable[..., sp.Basic]] = {
    ast.Lt: sp.Lt,
    ast.LtE: sp.Le,
    ast.Gt: sp.Gt,
    ast.GtE: sp.Ge,
}


# ---- expressions ----------------------------------------------------------------------------------------------------


def expression(text: str, names: Mapping[str, sp.Basic]) -> sp.Expr:
    """A formula as SymPy reads it, built node by node: the text is never evaluated as Python.

    Args:
        text: arithmetic, comparisons in Piecewise, the functions in `FUNCTIONS`; decimals become exact rationals.
        names: the symbols that may occur.

    Raises:
        BadInput: syntax errors, unknown names (with the nearest match), anything that is not arithmetic.
    """
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{text!r} is not a formula ({error.args[0]}): write for example 'x*exp(-x**2)'") from error
    return _build(tree.body, text, names)


def _build(node: ast.expr, text: str, names: Mapping[str, sp.Basic]) -> sp.Expr:
    down = lambda child: _build(child, text, names)
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and math.isfinite(number):
            return sp.Rational(repr(number))
        case ast.Name(id=name):
            return _known(name, names, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](down(left), down(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](down(operand))
        case ast.Call(func=ast.Name(id="Piecewise"), args=pieces, keywords=[]) if pieces and all(
            isinstance(piece, ast.Tuple) and len(piece.elts) == 2 for piece in pieces
        ):
            return sp.Piecewise(*((down(piece.elts[0]), _condition(piece.elts[1], text, names)) for piece in pieces))  # type: ignore[attr-defined]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            function = _known(name, FUNCTIONS, text)
            try:
                return function(*map(down, args))
            except TypeError as error:
                raise BadInput(f"{name} in {text!r} does not take {len(args)} arguments") from error
    raise BadInput(
        f"{ast.unparse(node)!r} in {text!r} is not arithmetic: use numbers, x, + - * / **, and {_listed(FUNCTIONS)}"
    )


def _condition(node: ast.expr, text: str, names: Mapping[str, sp.Basic]) -> sp.Basic:
    """Where a piece of a Piecewise holds."""
    match node:
        case ast.Constant(value=bool(value)):
            return sp.true if value else sp.false
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            sides = _build(left, text, names), _build(right, text, names)
            try:
                return COMPARISONS[type(op)](*sides)
            except TypeError as error:
                raise BadInput(f"{ast.unparse(node)!r} in {text!r} compares what has no order ({error}): compare real numbers") from error
    raise BadInput(f"{ast.unparse(node)!r} in {text!r} is no condition: compare, as in (x, x > 0), or end with (0, True)")


def _known(name: str, names: Mapping, text: str):
    if name in names:
        return names[name]
    raise BadInput(f"{name!r} in {text!r} is not known: {_nearest(name, names)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


# ---- parameters, rules, networks ------------------------------------------------------------------------------------


def declared(parameters: Iterable[str]) -> dict[str, sp.Expr]:
    """`--parameter` values: `a` (real symbol), `a>0` (positive symbol) or `a=0.5` (that number)."""
    found: dict[str, sp.Expr] = {}
    for entry in parameters:
        name, relation, value = entry.replace(" ", ""), "", ""
        for sign in ("=", ">"):
            if sign in name:
                name, relation, value = (*name.partition(sign)[:1], sign, name.partition(sign)[2])
                break
        if not name.isidentifier() or name == "x":
            raise BadInput(f"--parameter {entry} does not name a parameter: write --parameter a, 'a>0' or a=0.5")
        if name in found:
            raise BadInput(f"--parameter {entry}: {name} is given before, and can have one value only; give it once")
        if relation == "=":
            found[name] = expression(value, {"pi": sp.pi})
        elif relation == ">":
            if value != "0":
                raise BadInput(f"--parameter {entry}: the only assumption understood is {name}>0")
            found[name] = sp.Symbol(name, positive=True)
        else:
            known = getattr(symbols, name, None)
            found[name] = known if isinstance(known, sp.Symbol) else sp.Symbol(name, real=True)
    return found


def build_activation(text: str, parameters: Iterable[str] = ()) -> Activation:
    """The activation a name or a formula in x stands for."""
    values = declared(parameters)
    if text in activations.BUILTIN:
        named = activation(text)
        chosen = {p: values[str(p)] for p in named.parameters if str(p) in values}
        fixed = {p: q for p, q in chosen.items() if q.is_number}
        return (
            named if not fixed else activation(named.expr.subs(fixed), [p for p in named.parameters if p not in fixed])
        )
    if text.isidentifier() and text != "x":
        return activation(text)  # a name, but not a known one: `activation` says which is nearest
    unknown = sorted(_names_in(text) - {"x", "pi", "True", "False", "Piecewise", *values, *FUNCTIONS})
    if unknown and not any(difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.7) for name in unknown):
        raise BadInput(
            f"the activation {text} uses {_listed(unknown)} besides x: declare parameters, for example "
            f"--parameter {unknown[0]} (symbolic) or --parameter {unknown[0]}=0.5"
        )
    expr = expression(text, {"x": symbols.x, "pi": sp.pi, **values})
    free = [value for value in values.values() if value.is_Symbol and value in expr.free_symbols]
    return activation(expr, parameters=free)


def refuse_unused(parameters: Iterable[str], activation: str, rule: str) -> None:
    """Refuse values of parameters that neither the activation nor the rule has.

    Raises:
        BadInput: naming the first, and those that there are.
    """
    key = rule.strip().lower().replace("_", "-")
    defaults = (about.default for about in inspect.signature(RULES[key]).parameters.values()) if key in RULES else ()
    known = {str(default) for default in defaults if isinstance(default, sp.Symbol)}
    builtin = activation in activations.BUILTIN
    known |= set(map(str, build_activation(activation).parameters)) if builtin else _names_in(activation) - {"x", "pi", *FUNCTIONS}
    for name in declared(parameters):
        if name not in known:
            options = {"rho": "--rho", "sigma_w": "--sigma-w", "sigma_b": "--sigma-b"}
            remedy = f"use {options[name]}" if name in options else f"their parameters: {_listed(sorted(known)) or 'none'}"
            raise BadInput(f"--parameter {name}: neither the activation {activation} nor the rule {rule} has it; {remedy}")


def _names_in(text: str) -> set[str]:
    try:
        return {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError):
        return set()


def build_rule(name: str, rho: str | None, depth: int, parameters: Iterable[str] = ()) -> Rule:
    """The rule called `name`.

    Args:
        name: a key of `RULES`.
        rho: for FA a number, one per layer ("0.1,0.5"), or a symbol when not given; for rules whose feedback weights learn, the correlation
            at the start, 0 when not given.
        depth: hidden layers.
        parameters: values of the rule's rates, by the names of their symbols ("lambda=0.1").
    """
    key = name.strip().lower().replace("_", "-")
    if key not in RULES:
        raise BadInput(f"unknown rule {name!r}: {_nearest(key, RULES)}")
    if key != "fa":
        return _built(key, name, rho, declared(parameters))
    values = [expression(part, {"rho": symbols.rho}) for part in (rho or "rho").split(",")]
    if len(values) > 1 and len(values) != depth:
        raise BadInput(
            f"--rho {rho} has {len(values)} entries for {counted(depth, 'hidden layer')}: give one, or one per hidden layer"
        )
    return rules.FA(values if len(values) > 1 else values[0])


def _built(key: str, name: str, rho: str | None, values: Mapping[str, sp.Expr]) -> Rule:
    """A rule with the values of those of its arguments that have a symbol as default."""
    arguments = inspect.signature(RULES[key]).parameters
    if rho is not None and "rho" not in arguments:
        able = ", ".join(other for other, make in RULES.items() if "rho" in inspect.signature(make).parameters)
        raise BadInput(f"--rho {rho} has no meaning for {name}: only {able} have a feedback correlation")
    given: dict[str, object] = {} if rho is None else {"rho": expression(rho, {"rho": symbols.rho})}
    for argument, about in arguments.items():
        if isinstance(about.default, sp.Symbol) and str(about.default) in values:
            given[argument] = values[str(about.default)]
    return RULES[key](**given)


def build_training(loss: str, momentum: str, weight_decay: str, batches: bool = False, outputs: str = "1") -> Training:
    """How training goes: numbers, or the symbols beta (momentum), lambda (weight decay) and C (outputs)."""
    named = {"beta": symbols.beta, "lambda": symbols.lam, "lam": symbols.lam, "C": sp.Symbol("C", integer=True, positive=True)}
    plain = lambda text: symbols.lam if text.strip() == "lambda" else expression(text, named)
    return Training(loss_of(loss), plain(momentum), plain(weight_decay), batches, plain(outputs))


def consecutive_batches(size: int, examples: int) -> list[list[int]] | None:
    """Examples in batches of `size`, in their order; None for 0: all at once."""
    if not 0 <= size <= examples:
        raise BadInput(f"--batch-size {size} is no size of a batch of {examples} examples: give 1 to {examples}, or 0 for all at once")
    return [list(range(start, min(start + size, examples))) for start in range(0, examples, size)] if size else None


def build_network(depth: int, phi: Activation, sigma_w: str, sigma_b: str) -> MLP:
    """The network; σ_w and σ_b are numbers, formulas such as sqrt(2), or the symbols sigma_w, sigma_b."""
    named = {"sigma_w": symbols.sigma_w, "sigma_b": symbols.sigma_b, "pi": sp.pi}
    return MLP(depth=depth, activation=phi, sigma_w=expression(sigma_w, named), sigma_b=expression(sigma_b, named))


def need_numbers(rule: Rule, net: MLP) -> None:
    """Refuse symbols where numbers are needed."""
    loose = sorted({*map(str, rule.parameters), *map(str, net.parameters)})
    if loose:
        fix = {"rho": "--rho 0.5", "sigma_w": "--sigma-w 1", "sigma_b": "--sigma-b 0"}
        hints = " ".join(fix.get(name, f"--parameter {name}=0.5") for name in loose)
        raise BadInput(f"{_listed(loose)} without a value: solving needs numbers, for example {hints}")


# ---- data and paths -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Arrays for a `Problem`; the test part may be absent."""

    name: str
    arrays: dict


def load_examples(source: str, classes: str, train: int, test: int, seed: int) -> Examples:
    """Data from `digits`, `mnist:FOLDER`, `cifar10:FOLDER` or an .npz file."""
    from lazyrich import data

    kind, _, folder = source.partition(":")
    folders = {"mnist": data.mnist, "cifar10": data.cifar10}
    if kind == "digits" or kind in folders:
        if (kind == "digits") == bool(folder):
            raise BadInput(f"--data {source}: write digits, mnist:FOLDER, cifar10:FOLDER or file.npz")
        for option, count in (("--train", train), ("--test", test)):
            if count < 2:
                raise BadInput(f"{option} {count} leaves one of two classes without examples: give {option} 2 or more")
        labels = _classes(classes)
        if kind == "digits":
            drawn = data.digits(labels, train, test, seed)
        else:
            drawn = folders[kind](folder, labels, train, test, seed)
        arrays = {"X": drawn.X, "y": drawn.y, "X_test": drawn.X_test, "y_test": drawn.y_test}
        return Examples(f"{drawn.name} {drawn.classes[0]} vs {drawn.classes[1]}", arrays)
    if not source.endswith(".npz"):
        raise BadInput(
            f"--data {source} is not known: {_nearest(kind, ['digits', *folders])}, or a file that ends in .npz"
        )
    return Examples(source, data.from_npz(source))


def _classes(text: str) -> tuple[int, int]:
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(f"--classes {text} are not two labels: write for example --classes 3,8") from error
    return first, second


def writable_file(path: Path | None, suffixes: tuple[str, ...] = ()) -> Path | None:
    """Check, before anything is computed, that `path` can be written and has a known ending."""
    if path is None:
        return None
    if suffixes and path.suffix not in suffixes:
        raise BadInput(f"--out {path} ends in {path.suffix or 'nothing'!r}: use {' or '.join(suffixes)}")
    if path.is_dir():
        raise BadInput(
            f"--out {path} is a folder: give a file name in it, such as {path / ('result' + (suffixes or ('',))[0])}"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise BadInput(f"--out {path} exists and cannot be overwritten: change its permissions or give another path")
    if not path.parent.is_dir():
        raise BadInput(
            f"--out {path}: the folder {path.parent} does not exist: create it (mkdir -p {path.parent}) first"
        )
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadInput(f"--out {path}: no permission to write in {path.parent}: give a path in a folder of yours")
    return path


def writable_folder(path: Path) -> Path:
    """Create the folder `path` for results, or say why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"--out {path} cannot be created ({error.strerror}): give a folder that you may write"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadInput(f"--out {path}: no permission to write there: give a folder of yours")
    return path
