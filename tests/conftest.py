"""Options of the test suite; shapes and types of these modules are checked at run time (arrays of compiled code: by JAX itself)."""

import pytest
from jaxtyping import install_import_hook

install_import_hook(["numerics.sampling", "numerics.order_parameters"], "beartype.beartype")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the generated modules in tests/codegen/golden")
