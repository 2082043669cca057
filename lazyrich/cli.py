"""The command line: `lazyrich` opens a session; its subcommands derive, generate, solve and demonstrate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from derive import lazy_kernel
from derive.errors import BadInput
from derive.lazy import LazyKernel
from derive.network import MLP
from derive.rules import Rule
from lazyrich import arguments, console, records

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a learning rule to formulas, JAX kernels and infinite-width solutions. Without a subcommand: a session.",
)

RuleName = Annotated[
    str,
    typer.Option(
        "--rule", "-r",
        help="gd, fa, dfa, hebb, gln, sign-concordant, symmetric-alignment, activation-alignment, information-alignment, "
        "kolen-pollack or weight-mirror.",
    ),
]  # fmt: skip
Phi = Annotated[str, typer.Option("--activation", "-a", help="A name (relu, tanh, erf, …) or a formula in x.")]
Depth = Annotated[int, typer.Option("--depth", "-d", help="Hidden layers.")]
Rho = Annotated[
    str | None,
    typer.Option("--rho", help="Feedback correlation of fa: 0.3, or 0.1,0.5 for each layer; symbolic if not given. Of feedback that learns: at the start."),
]
Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="A parameter of activation or rule: a, 'a>0', a=0.5, lambda=0.1. Repeatable."),
]
SigmaW = Annotated[str, typer.Option("--sigma-w", help="Standard deviation of the weights: 1, sqrt(2) or sigma_w.")]
SigmaB = Annotated[str, typer.Option("--sigma-b", help="Standard deviation of the biases: 0, 0.1 or sigma_b.")]
LossName = Annotated[str, typer.Option("--loss", help="squared, logistic or cross-entropy.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print LaTeX.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DocumentOut = Annotated[Path | None, typer.Option("--out", "-o", help="Write .tex (standalone document), .json or .txt.")]


EXPANDED_OPERATIONS = 20_000  # up to which the JSON has the kernel in the input kernel alone, beyond in the symbols of its layer equations


@app.callback(invoke_without_command=True)
@console.guarded
def session(context: typer.Context) -> None:
    """Open a session with everything imported when no subcommand is given."""
    if context.invoked_subcommand is None:
        from lazyrich.repl import start

        start()


@app.command()
@console.guarded
def kernel(
    rule: RuleName = "gd",
    activation: Phi = "relu",
    depth: Depth = 2,
    rho: Rho = None,
    parameter: Parameter = None,
    sigma_w: SigmaW = "1",
    sigma_b: SigmaB = "0",
    derivation: Annotated[bool, typer.Option("--derivation", help="Print every step with its reason.")] = False,
    latex: Latex = False,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write .tex (standalone document), .json, .txt or .py.")
    ] = None,
) -> None:
    """Derive the lazy-limit kernel of a rule on a network.

    Examples:

        lazyrich kernel --rule fa --activation relu --depth 2

        lazyrich kernel --rule fa --activation relu --depth 2 --out fa.tex

        lazyrich kernel --activation "x*exp(-x**2)" --depth 1 --derivation

        lazyrich kernel --rule gln --activation leaky_relu --parameter alpha=0.1 --latex
    """
    target = arguments.writable_file(out, (".tex", ".json", ".txt", ".py"))
    found = lazy_kernel(*_rule_and_network(rule, activation, depth, rho, parameter, sigma_w, sigma_b))
    _deliver(found, lambda: _kernel_record(found), target, derivation, latex, as_json, shown=_kernel_text)


@app.command()
@console.guarded
def equations(
    rule: RuleName = "gd",
    activation: Phi = "tanh",
    depth: Depth = 2,
    rho: Rho = None,
    parameter: Parameter = None,
    sigma_w: SigmaW = "1",
    sigma_b: SigmaB = "0",
    loss: LossName = "squared",
    momentum: Annotated[str, typer.Option("--momentum", help="A number, or beta.")] = "0",
    weight_decay: Annotated[str, typer.Option("--weight-decay", help="A number, or lambda.")] = "0",
    batches: Annotated[bool, typer.Option("--batches", help="Mini-batches in a given order.")] = False,
    outputs: Annotated[str, typer.Option("--outputs", help="How many outputs: a number, or C.")] = "1",
    derivation: Annotated[bool, typer.Option("--derivation", help="Print how they follow.")] = False,
    latex: Latex = False,
    as_json: Json = False,
    out: DocumentOut = None,
) -> None:
    """Write down the mean-field equations of a rule in the rich regime; vanishing responses are named, with the reason.

    Examples:

        lazyrich equations --rule dfa --depth 2

        lazyrich equations --rule fa --rho 0.5 --depth 3 --out fa.tex

        lazyrich equations --rule symmetric-alignment --loss logistic --momentum beta --weight-decay lambda
    """
    from derive import dmft_equations

    target = arguments.writable_file(out, (".tex", ".json", ".txt"))
    training = arguments.build_training(loss, momentum, weight_decay, batches, outputs)
    found = dmft_equations(*_rule_and_network(rule, activation, depth, rho, parameter, sigma_w, sigma_b), training)
    record = lambda: {
        "title": found.title(),
        "latex": found.latex(),
        "equations": {k: str(v) for k, v in found.equations.items()},
    }
    _deliver(found, record, target, derivation, latex, as_json)


@app.command()
@console.guarded
def laws(
    rule: RuleName = "fa",
    activation: Phi = "relu",
    depth: Depth = 2,
    rho: Rho = None,
    parameter: Parameter = None,
    sigma_b: SigmaB = "0",
    weight_decay: Annotated[str, typer.Option("--weight-decay", help="A number, or lambda.")] = "0",
    rates: Annotated[bool, typer.Option("--rates", help="A learning rate of its own for each layer.")] = False,
    feedback: Annotated[
        str | None, typer.Option("--feedback", help="Feedback weights as a function of the forward weight w: sign(w).")
    ] = None,
    proof: Annotated[bool, typer.Option("--proof", help="Print every step with its reason.")] = False,
    latex: Latex = False,
    as_json: Json = False,
    out: DocumentOut = None,
) -> None:
    """Find what a rule conserves, and prove it; what is not conserved comes with its rate of change.

    Examples:

        lazyrich laws --rule fa --activation relu --depth 3

        lazyrich laws --rule kolen-pollack --weight-decay lambda --proof

        lazyrich laws --rule gd --feedback "sign(w)" --out sign.tex
    """
    from derive import conservation_laws, w

    target = arguments.writable_file(out, (".tex", ".json", ".txt"))
    chosen, net = _rule_and_network(rule, activation, depth, rho, parameter, "1", sigma_b)
    decay = arguments.build_training("squared", "0", weight_decay).weight_decay
    own = None if feedback is None else arguments.expression(feedback, {"w": w})
    found = conservation_laws(chosen, net, rates=rates, decay=decay, feedback=own)
    entry = lambda each, value: {"kind": each.kind, "layer": each.layer, "latex": each.statement(), "expr": str(value)}
    record = lambda: {
        "title": found.title(),
        "laws": [{**entry(law, law.expr), "rate": str(law.rate), "weights": list(law.letters)} for law in found],
        "not_conserved": [{**entry(each, each.rate), "because": list(each.obstacles)} for each in found.violations],
    }
    _deliver(found, record, target, proof, latex, as_json)


@app.command()
@console.guarded
def codegen(
    rule: RuleName = "gd",
    activation: Phi = "relu",
    depth: Depth = 2,
    rho: Rho = None,
    parameter: Parameter = None,
    sigma_w: SigmaW = "1",
    sigma_b: SigmaB = "0",
    standalone: Annotated[bool, typer.Option("--standalone", help="Import JAX only, not numerics.safe.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the module there; else print it.")] = None,
) -> None:
    """Generate a readable JAX module that evaluates the kernel.

    Examples:

        lazyrich codegen --rule fa --activation erf --depth 3 --out kernel.py

        lazyrich codegen --activation gelu --standalone > kernel.py
    """
    target = arguments.writable_file(out, (".py",))
    found = lazy_kernel(*_rule_and_network(rule, activation, depth, rho, parameter, sigma_w, sigma_b))
    source = found.source(standalone=standalone)
    if target is None:
        typer.echo(source)
    else:
        _write(target, source)


@app.command()
@console.guarded
def solve(
    data: Annotated[
        str, typer.Option("--data", help="digits, mnist:FOLDER, cifar10:FOLDER or file.npz (X, y).")
    ] = "digits",
    rule: RuleName = "gd",
    activation: Phi = "relu",
    depth: Depth = 1,
    rho: Rho = None,
    parameter: Parameter = None,
    sigma_w: SigmaW = "1",
    sigma_b: SigmaB = "0",
    gamma0: Annotated[float, typer.Option("--gamma0", help="Feature-learning strength; lazy as it goes to 0.")] = 1.0,
    eta: Annotated[float, typer.Option("--eta", help="Learning rate.")] = 1.0,
    loss: LossName = "squared",
    momentum: Annotated[float, typer.Option("--momentum", help="Share of the last step that the next one keeps.")] = 0.0,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="Weights shrink by eta times this a step.")] = 0.0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples of a step, in order; 0: all.")] = 0,
    steps: Annotated[int, typer.Option("--steps", help="Times 0…T−1 that are recorded, t after t updates.")] = 50,
    samples: Annotated[
        int, typer.Option("--samples", help="Single-site samples S of the infinite-width solver.")
    ] = 2048,
    replicas: Annotated[int, typer.Option("--replicas", help="Independent replicas, for standard errors.")] = 4,
    width: Annotated[int, typer.Option("--width", help="Also train networks of this width; 0: none.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", help="How many of them.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of examples, the solver and the networks.")] = 0,
    classes: Annotated[str, typer.Option("--classes", help="Two labels of the data set.")] = "3,8",
    train: Annotated[int, typer.Option("--train", help="Training examples P.")] = 20,
    test: Annotated[int, typer.Option("--test", help="Test examples.")] = 100,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for solutions, figure and summary.")] = Path(
        "out/solve"
    ),
) -> None:
    """Solve the training dynamics at infinite width, and check them against finite networks with --width.

    Examples:

        lazyrich solve --rule gd --steps 50

        lazyrich solve --rule fa --rho 0.5 --depth 2 --width 1024 --seeds 4 --out out/fa

        lazyrich solve --data file.npz --rule hebb --gamma0 0.5 --json
    """
    phi = arguments.build_activation(activation, parameter or ())
    chosen = arguments.build_rule(rule, rho, depth, parameter or ())
    arguments.refuse_unused(parameter or (), activation, rule)
    net = arguments.build_network(depth, phi, sigma_w, sigma_b)
    arguments.need_numbers(chosen, net)
    from lazyrich import solving

    examples = arguments.load_examples(data, classes, train, test, seed)
    settings = solving.Settings(gamma0, eta, steps, samples, replicas, width, seeds, seed,
                                loss=loss, momentum=momentum, weight_decay=weight_decay, batch_size=batch_size)  # fmt: skip
    problem = solving.problem(examples, settings)
    folder = arguments.writable_folder(out)
    summary = solving.run(problem, chosen, net, settings, folder, progress=not quiet)
    typer.echo(records.dump(summary)) if as_json else solving.show(summary)


@app.command()
@console.guarded
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path("out/demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A small version, to see that everything works.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything again instead of resuming.")] = False,
    as_json: Json = False,
) -> None:
    """Every learning rule on handwritten digits: formulas, generated kernels, theory against networks, one-page report.

    Results are saved as each rule finishes; running it again resumes.

    Examples:

        lazyrich demo

        lazyrich demo --fast --out /tmp/demo
    """
    from lazyrich import demo as main_job

    screen = console.notes() if as_json else None  # standard output is for the JSON then
    summary = main_job.run(
        arguments.writable_folder(out), main_job.FAST if fast else main_job.FULL, fresh=fresh, screen=screen
    )
    if as_json:
        typer.echo(records.dump(summary))


def main() -> None:
    """Entry point of the `lazyrich` command."""
    try:
        app()
    except SystemExit as end:
        if end.code != console.INTERRUPTED:
            raise
        # A computation that was interrupted may still run in JAX's threads, and unloading the library under them crashes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(console.INTERRUPTED)


# ---- helpers --------------------------------------------------------------------------------------------------------


def _rule_and_network(
    rule: str, activation: str, depth: int, rho: str | None, parameter: list[str] | None, sigma_w: str, sigma_b: str
) -> tuple[Rule, MLP]:
    net = arguments.build_network(depth, arguments.build_activation(activation, parameter or ()), sigma_w, sigma_b)
    chosen = arguments.build_rule(rule, rho, depth, parameter or ())
    arguments.refuse_unused(parameter or (), activation, rule)
    return chosen, net


def _deliver(
    found: Any, record: Callable[[], dict], target: Path | None, derivation: bool, latex: bool, as_json: bool,
    shown: Callable[[Any], str] = repr,
) -> None:  # fmt: skip
    """Write a result to its file, print it in the form asked for.

    Raises:
        BadInput: more than one form asked for.
    """
    if latex + as_json + derivation > 1:
        raise BadInput("two of --latex, --json and steps (--derivation, --proof) at once: give one of them; the JSON has the LaTeX under \"latex\"")
    if target is not None:
        text = {
            ".tex": lambda: _document(found),
            ".json": lambda: records.dump(record()),
            ".txt": lambda: f"{found!r}\n\n{found.derivation()}\n",
            ".py": lambda: found.source(),
        }[target.suffix]()
        _write(target, text)
    if latex:
        typer.echo(found.latex())
    elif as_json:
        typer.echo(records.dump(record()))
    elif derivation or target is None:
        console.output().print(Text(f"{found!r}\n\n{found.derivation()}" if derivation else shown(found)))


def _kernel_record(found: LazyKernel) -> dict:
    from derive.lazy_text import Compact

    # written out, a kernel grows exponentially with the depth
    expanded = bool(found.operations <= EXPANDED_OPERATIONS)
    named = Compact(found)
    return {
        "rule": found.rule.name,
        "activation": str(found.net.activation),
        "depth": found.depth,
        "parameters": [str(p) for p in found.parameters],
        "closed_form": found.closed,
        "expanded": expanded,
        "kernel": str(found.expr if expanded else named.total),
        "nngp": str(found.nngp if expanded else named.sigma[-1]),
        "contributions": [str(term) for term in (found.contributions if expanded else named.contributions)],
        "layers": [f"{equation.lhs} = {equation.rhs}" for equation in found.recursion],
        "latex": found.latex(),
    }


def _kernel_text(found: LazyKernel) -> str:
    """The kernel and the layer equations that define what is in it."""
    layers = "\n".join(f"  {equation.lhs} = {equation.rhs}" for equation in found.recursion)
    return f"{found!r}\nLayer by layer:\n{layers}"


def _document(found: object) -> str:
    from derive.latex import document

    return document(found)  # type: ignore[arg-type]


def _write(target: Path, text: str) -> None:
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out {target} cannot be written ({error.strerror}): give another path") from error
    console.notes().print(Text(f"wrote {target}"))
