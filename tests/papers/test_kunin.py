"""Linear layers: what the claim on their time course and its control see. Data of the classifiers: another source, and what its arrays are."""

import numpy as np
import pytest

from papers.kunin_2020 import layers, networks


def test_the_time_course_and_its_control_look_at_the_simulation(monkeypatch):
    """A simulation whose clock is two per cent fast meets the late solution in place of the right one."""
    whole, integrate = layers.layer, layers._runge_kutta
    monkeypatch.setattr(layers, "layer", lambda n, m, seed: whole(6, 4, seed))
    monkeypatch.setattr(layers, "MARKS", layers.MARKS[:2])
    monkeypatch.setattr(layers, "RULES", {"IA": layers.RULES["IA"]})
    right = layers.angles(False)
    assert right["IA error"] < 1e-8 and right["IA late"] > 1e-3
    monkeypatch.setattr(layers, "_runge_kutta", lambda flow, B, h, steps: integrate(flow, B, layers.LATE * h, steps))
    fast = layers.angles(False)
    assert fast["IA error"] > 1e-3 and fast["IA late"] < 1e-8


def test_other_images_are_taken_by_option(monkeypatch):
    asked, random = [], np.random.default_rng(0)
    part = lambda count: (random.integers(0, 256, (count, 28, 28, 1)), np.arange(count) % 10)
    monkeypatch.setattr(networks, "ten_classes", lambda source, train, test: asked.append((source, train, test)) or (part(40), part(20)))
    monkeypatch.setattr(networks, "_source", ["digits"])
    networks.use("mnist:somewhere")
    found = networks.data()
    assert asked == [("mnist:somewhere", 4000, 2000)] * 2
    assert found.X.shape == (40, 784) and found.X_test.shape == (20, 784) and found.count == 10
    np.testing.assert_allclose((found.X.mean(), found.X.std()), (0, 1), atol=1e-12)
    with pytest.raises(ValueError, match="images of one channel; give mnist:FOLDER"):
        networks.use("cifar10:somewhere")


def test_digits_are_split_once():
    found = networks.data()
    assert found.X.shape == (1200, 64) and found.X_test.shape == (597, 64)
    assert not set(map(bytes, found.X)) & set(map(bytes, found.X_test))
