"""What the studies of Refinetti et al. do to data, and their measures on data made up."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from numerics import Classes
from papers.claims import Paper
from papers.refinetti_2021 import images, run, theory

CLAIMS = Paper.read(Path(run.__file__).parent).claims


def test_probability_of_learning_counts_signs():
    for K, M in theory.SIZES:
        signs = np.array(list(product((0, 1), repeat=K)))
        assert theory.probability(K, M) == np.mean(signs.sum(1) >= M)


def test_shares_are_scored_against_the_law():
    """Runs that fit exactly where they may give scores of the draw alone; one blocked run that fits is seen."""
    rng, d = np.random.default_rng(0), {}
    for K, M in theory.SIZES:
        F = rng.normal(size=(50, K))
        d |= {f"F_{K}_{M}": F, f"eg_{K}_{M}": np.stack([np.ones(50), np.where((F > 0).sum(1) >= M, 1e-6, 0.5)], 1)}
    found = theory.measure_learnable(d)
    assert found["relu-table"].value < 3 and found["relu-table-blocked"].value == 0 and found["relu-table-allowed"].value == 1
    d["eg_3_3"][:, 1] = 1e-6
    assert theory.measure_learnable(d)["relu-table-blocked"].value > 0 and theory.measure_learnable(d)["relu-table"].value > 10


def test_labels_are_replaced_in_training_only():
    rng = np.random.default_rng(1)
    data = Classes(rng.normal(size=(4000, 3)), rng.integers(0, 10, 4000), rng.normal(size=(9, 3)), np.arange(9))
    wrong = images.noisy(data, 3000, 0.5)
    assert len(wrong.X) == len(wrong.labels) == 3000 and wrong.labels_test is data.labels_test
    # half of the labels are drawn anew, and a tenth of these fall on the old one: 45 % ± 0.9 %
    assert np.mean(wrong.labels != data.labels[:3000]) == pytest.approx(0.45, abs=0.03)


def test_onsets_and_falls():
    times = np.array([0, 1, 10, 100])
    rise = np.array([[0, 0, 0.6, 0.5], [0, 0, 0, 0.6]])
    d = {"x_times": times, "x_weight_alignment": np.stack([rise, rise])}
    np.testing.assert_allclose(images.onsets(d, "x"), [10**0.5, 10**1.5])
    np.testing.assert_allclose(images.falls(d, "x"), [[0.1, 0.1], [0, 0]])


def test_other_images_are_pooled_and_normalised(monkeypatch):
    asked = []

    def loaded(source, train, test):
        asked.append((source, train, test))
        rng = np.random.default_rng(2)
        return (rng.random((train, 32, 32, 3)), np.arange(train) % 10), (rng.random((test, 32, 32, 3)), np.arange(test) % 10)

    monkeypatch.setattr(images, "ten_classes", loaded)
    monkeypatch.setattr(images, "_source", ["digits"])
    images._images.cache_clear()
    images.use("cifar10:somewhere")
    data, side = images._images(images._source[-1], images.LARGEST)
    assert side == 8 and data.X.shape == (1200, 64) and asked == [("cifar10:somewhere", 1200, 597)] * 2
    np.testing.assert_allclose([data.X.mean(), data.X.std()], [0, 1], atol=1e-12)
    whole, _ = images._images(images._source[-1], None)
    assert whole.X.shape == (1200, 3072)
    images._images.cache_clear()


@pytest.mark.parametrize(("share", "holds"), [(0.1, True), (0.9, False)], ids=["far below", "as well as a dense layer"])
def test_a_convolution_that_aligned_would_be_seen(share, holds):
    d = {"independent_bound": 0.1, "constant_bound": 0.5}
    for name, reached in (("independent", share * 0.1), ("constant", share * 0.5), ("dense", 0.9), ("bp", 0.0)):
        d |= {f"{name}_weight_alignment": np.full((4, 1, 3), reached), f"{name}_test": np.full((4, 3), 0.9)}
    found = images.measure_convolutional(d)
    assert [CLAIMS[name].holds(found[name].value) for name in ("conv-trained", "conv-trained-constant")] == [holds, holds]


@pytest.mark.parametrize(("cosine", "wrong"), [(0.9, True), (0.97, False)], ids=["not aligned", "aligned"])
def test_backpropagation_is_judged_as_direct_feedback_is(cosine, wrong):
    """The control on BP fails for just those cosines with which the claim on DFA would hold."""
    d = {"t": np.arange(3.0)}
    for rule in ("dfa", "bp"):
        d |= {f"{rule}_eg": np.array([1.0, 0.95, 0.5]), f"{rule}_cos": np.array([0.0, cosine, 1.0])}
    found = run._phases(d)
    assert CLAIMS["align-first-bp"].holds(found["align-first-bp"].value) is wrong
    assert CLAIMS["align-first"].holds(found["align-first"].value) is not wrong
