"""The alignment that weight sharing and locality allow: derived bounds against the nearest convolution."""

import numpy as np
import pytest

from derive.convolution import alignment_bounds, d_in, d_out, k
from numerics.convolution import convolution_alignment, convolution_matrix, nearest_convolution

SHAPES = [((3, 2), 8, 3), ((4, 4), 10, 5)]


def bound(name, side, width):
    return float(alignment_bounds()[name].subs({d_in: side, d_out: side - width + 1, k: width}))


@pytest.mark.parametrize(("channels", "side", "width"), SHAPES)
def test_bounds(channels, side, width):
    rng, out = np.random.default_rng(0), side - width + 1
    draw = lambda count, size: rng.normal(size=(count * size**2, 10))
    found = [convolution_alignment(draw(channels[0], out), draw(channels[1], side), channels, side, width) for _ in range(12)]
    # a mean square over 12 × (54 or 400) projections, correlated by the rank 10 of F Fᵀ
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(bound("independent", side, width), rel=0.12)
    spread = lambda count, size: np.repeat(rng.normal(size=(count, 10)), size**2, axis=0)
    assert convolution_alignment(spread(channels[0], out), spread(channels[1], side), channels, side, width) == pytest.approx(
        bound("constant", side, width), rel=1e-12
    )
    # locality without sharing would allow far more
    assert np.mean(found) < 0.5 * width / side


def test_the_nearest_convolution_is_nearest():
    rng = np.random.default_rng(1)
    kernel, target = rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(3 * 36, 2 * 64))
    assert np.allclose(nearest_convolution(convolution_matrix(kernel, 8), (3, 2), 8, 3), kernel)
    best = nearest_convolution(target, (3, 2), 8, 3)
    distance = lambda weights: np.linalg.norm(target - convolution_matrix(weights, 8))
    assert all(distance(best) < distance(best + 0.1 * rng.normal(size=best.shape)) for _ in range(5))
    image = rng.normal(size=(2, 8, 8))
    direct = sum(kernel[:, c, a, b][:, None, None] * image[c, a : a + 6, b : b + 6] for c in range(2) for a in range(3) for b in range(3))
    assert np.allclose(convolution_matrix(kernel, 8) @ image.ravel(), direct.ravel())
