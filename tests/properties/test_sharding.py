"""Samples spread over devices give the numbers of one device, up to the order of summation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from derive import FA, MLP
from numerics import Problem, solve_dmft
from numerics.sharding import Placement

ROOT = Path(__file__).parents[2]
RUN = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from derive import FA, MLP
from numerics import Problem, solve_dmft

def solve(replicas, **options):
    random = np.random.default_rng(2)
    p = Problem(random.normal(size=(3, 5)), random.normal(size=3), eta=0.3, steps=6, X_test=random.normal(size=(2, 5)))
    return solve_dmft(p, FA(0.5), MLP(depth=2, activation="tanh"), samples=64, replicas=replicas, **options)

def numbers(solution):
    return dict(f=solution.f, f_test=solution.f_test, entk=solution.entk, Phi=solution.Phi[2].dense(), G=solution.G[1].dense())
"""
EIGHT = """
from numerics import causal
np.savez({out!r}, **numbers(solve(2)))
print(len(causal.jax.devices()), causal._compiled.cache_info().misses)
"""
# round-off, amplified by divisions by residuals of energy 1e-7
TOLERANCE = {"rtol": 0, "atol": 1e-9}


def environment(devices: int) -> dict[str, str]:
    given = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    # first: XLA stops reading at a word that is no flag
    flags = " ".join([f"--xla_force_host_platform_device_count={devices}", *given])
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def single() -> dict[int, dict[str, np.ndarray]]:
    """What one device finds, by number of replicas."""
    scope: dict = {}
    exec(RUN.format(root=str(ROOT)), scope)
    return {replicas: scope["numbers"](scope["solve"](replicas, devices=1)) for replicas in (1, 2)}


def assert_close(path: Path, single: dict[str, np.ndarray]) -> None:
    with np.load(path) as found:
        for name, expected in single.items():
            np.testing.assert_allclose(found[name], expected, **TOLERANCE, err_msg=name)


def test_eight_devices_agree_with_one(tmp_path, single):
    code = RUN.format(root=str(ROOT)) + EIGHT.format(out=str(tmp_path / "eight.npz"))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(8))
    # one compilation for both replicas: layouts stay as they are
    assert found.stdout.split() == ["8", "1"]
    assert_close(tmp_path / "eight.npz", single[2])


JOIN = """
import jax
jax.distributed.initialize("127.0.0.1:{port}", num_processes=2, process_id={index})
"""
MEMBER = """
assert jax.process_count() == 2 and len(jax.devices()) == 2 and len(jax.local_devices()) == 1
solution = solve(1, checkpoint={checkpoint!r}, every=3, capacity=24)
assert solution.stats["capacity"] > 24
np.savez({out!r}, **numbers(solution))
"""


def test_two_processes_agree_with_one(tmp_path, single):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    members = []
    for index in range(2):
        out, checkpoint = str(tmp_path / f"{index}.npz"), str(tmp_path / "run.ckpt")
        code = JOIN.format(port=port, index=index) + RUN.format(root=str(ROOT)) + MEMBER.format(out=out, checkpoint=checkpoint)
        members.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=environment(1)))  # fmt: skip
    try:
        reports = [member.communicate(timeout=300)[0] for member in members]
    finally:
        for member in members:
            member.kill()
    for index, member in enumerate(members):
        assert member.returncode == 0, reports[index]
        assert_close(tmp_path / f"{index}.npz", single[1])


def test_samples_must_be_shared_equally():
    devices = [jax.devices()[0]] * 8  # only their number matters here
    with pytest.raises(ValueError, match=r"samples=100 cannot be spread over 8 devices.*samples=104 .or 96.*devices=1"):
        Placement.of(devices, 100)
    with pytest.raises(ValueError, match=r"samples=5 .*give samples=8, or"):
        Placement.of(devices, 5)


def test_devices_that_are_not_there():
    p = Problem(np.eye(2), [1.0, -1.0], steps=2)
    count = len(jax.local_devices())
    for devices, message in ((count + 1, f"JAX sees {count} here"), (0, "devices=0 is not a number of devices"), ([], "is empty")):
        with pytest.raises(ValueError, match=message):
            solve_dmft(p, FA(0.5), MLP(depth=1, activation="relu"), samples=64, devices=devices)
