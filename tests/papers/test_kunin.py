"""Data of the classifiers: another source by option, and what its arrays are."""

import numpy as np
import pytest

from papers.kunin_2020 import networks


def test_other_images_are_taken_by_option(monkeypatch):
    asked, random = [], np.random.default_rng(0)
    part = lambda count: (random.integers(0, 256, (count, 28, 28, 1)), np.arange(count) % 10)
    monkeypatch.setattr(networks, "ten_classes", lambda source, train, test: asked.append((source, train, test)) or (part(40), part(20)))
    monkeypatch.setattr(networks, "_source", ["digits"])
    networks.use("mnist:somewhere")
    found = networks.data()
    assert asked == [("mnist:somewhere", 4000, 2000)]
    assert found.X.shape == (40, 784) and found.X_test.shape == (20, 784) and found.count == 10
    np.testing.assert_allclose((found.X.mean(), found.X.std()), (0, 1), atol=1e-12)
    with pytest.raises(ValueError, match="images of one channel; give mnist:FOLDER"):
        networks.use("cifar10:somewhere")


def test_digits_are_split_once():
    found = networks.data()
    assert found.X.shape == (1200, 64) and found.X_test.shape == (597, 64)
    assert not set(map(bytes, found.X)) & set(map(bytes, found.X_test))
