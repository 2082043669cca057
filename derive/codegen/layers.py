"""Write the order parameters of every layer at initialisation as a JAX module."""

from __future__ import annotations

import sympy as sp

from ..duals import pair_function
from ..errors import BadInput
from ..lazy import LazyKernel
from ..rules import BoundRule
from ..symbols import Delta, z
from .emit import called, kernel_constants, kernel_header, module_text, parameter_names, signature
from .kernel import RESERVED, KernelWriter, Pairs, Single, needed, product


def layers_source(kernel: LazyKernel) -> str:
    """A module that evaluates Φ^ℓ, G^ℓ, G̃^ℓ and H^ℓ, ℓ = 1…L, at t = 0.

    Args:
        kernel: the lazy kernel, whose layers they are.

    Returns:
        Python source: the functions of the expectations, and layers_pairs(K_mumu, K_munu, K_nunu) and layers_diagonal(K), which return
        the four by name, a tuple over layers each. H is left out (an empty tuple) where g̃ depends on the error signal Δ, or its z on h.

    Raises:
        BadInput: an expression with a function or a symbol that the printer does not know; units jump, so that training does not follow the kernel.
    """
    if kernel.left_out:
        raise BadInput(
            f"rule {kernel.rule.name!r}, activation {kernel.net.activation}: {kernel.left_out}, so that lazy training does not follow it: give a forward "
            "map without jumps (a steep one, such as tanh(5*x)), or solve_dmft with a small gamma0"
        )
    writer = KernelWriter(kernel, parameter_names(kernel.bound.parameters, RESERVED))
    keywords = tuple(writer.keywords.values())
    recursions = [
        _function("layers_pairs", "K_mumu, K_munu, K_nunu, s_K=None", Pairs(writer), keywords),
        _function("layers_diagonal", "K", Single(writer), keywords),
    ]
    functions = called(writer.expectation_functions(), "\n".join(recursions))
    constants = f"{kernel_constants(writer, keywords)}\nSCALES_WITH_ERROR = {_scales_with_error(kernel.bound)}"
    body = "\n\n\n".join([constants, *functions, *recursions])
    return module_text(kernel_header(kernel, "Order parameters at initialisation"), body)


def _function(name: str, arguments: str, layers: Pairs, keywords: tuple[str, ...]) -> str:
    layers.forward()
    layers.backward()
    kernel = layers.kernel
    unreached = ["0"] * (kernel.deepest_reached - 1)
    found = {
        "Phi": [names[1] for names in layers.Phi],
        "G": _gradients(layers),
        "G_tilde": [*unreached, *layers.G_tilde],
        "H": _pseudo_gradients(layers),
    }
    rows = ", ".join(f'"{order}": ({"".join(f"{entry}, " for entry in entries)})' for order, entries in found.items())
    lines = needed(layers.lines, "{" + rows + "}")
    doc = '    """Φ^ℓ, G^ℓ, G̃^ℓ and H^ℓ by name, ℓ = 1…L, from the input kernel."""'
    return "\n".join([f"def {name}({signature(arguments, keywords)}):", doc, *(f"    {line}" for line in lines)])


def _gradients(layers: Pairs) -> list[str]:
    """G^ℓ = σ_w² E[F′(h) F′(h)] G^{ℓ+1}."""
    bound, above, values = layers.kernel.bound, "1", []
    slopes = pair_function("slopes", bound.slope, bound.slope)
    weight = layers.coefficient(layers.kernel.net.sigma_w**2)
    for layer in range(layers.kernel.depth, 0, -1):
        slope = layers.pair(slopes, f"slopes_{layer}", layers.sigma[layer - 1], None, f"E[F′(h) F′(h)], h ~ N(0, Σ^{layer})")[1]
        above = layers.put(f"true_G_{layer}", product(weight, slope, above), f"G^{layer} = σ_w² E[F′ F′] G^{layer + 1}")
        values.append(above)
    return values[::-1]


def _pseudo_gradients(layers: Pairs) -> list[str]:
    """H^ℓ = E[g̃ g̃], of g̃/Δ if g̃ is proportional to the error signal; nothing if it contains it otherwise, or if z̃ depends on h."""
    bound = layers.kernel.bound
    if _scales_with_error(bound):
        own = bound.pseudo_gradient.subs(Delta, 1)
        function = pair_function("H", own, own)
        each = range(1, layers.kernel.depth + 1)
        return [layers.pair(function, f"H_{layer}", layers.sigma[layer - 1], None, f"H^{layer} = E[g̃ g̃]/(Δ Δ)")[1] for layer in each]
    unknown = Delta in bound.pseudo_gradient.free_symbols or layers.kernel.features_feed_back
    return [] if unknown else [names[1] for names in layers.feedback()[1]]


def _scales_with_error(bound: BoundRule) -> bool:
    own = bound.pseudo_gradient
    return z not in own.free_symbols and sp.expand(own - Delta * own.subs(Delta, 1)) == 0
