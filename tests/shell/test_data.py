"""Loaders: shapes, normalisation, disjointness; and the published file formats, written here in small."""

from __future__ import annotations

import gzip
import pickle
import struct

import numpy as np
import pytest

from derive.errors import BadInput
from lazyrich.data import cifar10, digits, from_npz, mnist, read_cifar_binary, read_cifar_pickle, read_idx, ten_classes


def test_digits_are_balanced_normalised_and_disjoint():
    data = digits((3, 8), train=20, test=100, seed=1)
    assert data.X.shape == (20, 64) and data.X_test.shape == (100, 64)
    for X in (data.X, data.X_test):
        np.testing.assert_allclose(
            np.sum(X**2, axis=1) / 64, 1, rtol=1e-14
        )  # K^x has ones on its diagonal, to rounding
    assert data.y.sum() == 0 and data.y_test.sum() == 0
    assert set(data.y) == {-1.0, 1.0}
    overlap = data.X @ data.X_test.T / 64
    assert overlap.max() < 1 - 1e-9  # no test image is a training image


def test_digits_follow_the_seed():
    np.testing.assert_array_equal(digits(seed=3).X, digits(seed=3).X)
    assert not np.array_equal(digits(seed=3).X, digits(seed=4).X)


def test_centring_uses_the_training_mean_only():
    few, many = digits(test=10, seed=0), digits(test=100, seed=0)
    np.testing.assert_array_equal(few.X, many.X)


def _write_idx(path, array, packed):
    content = (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )
    if packed:
        with gzip.open(path.with_name(path.name + ".gz"), "wb") as file:
            file.write(content)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files(tmp_path, packed):
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 40)):
        _write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)), packed)
        _write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(count) % 10, packed)
    data = mnist(tmp_path, classes=(1, 7), train=8, test=6)
    assert data.X.shape == (8, 784) and data.X_test.shape == (6, 784)
    np.testing.assert_array_equal(np.sort(data.y), [-1, -1, -1, -1, 1, 1, 1, 1])
    (images, labels), (others, _) = ten_classes(f"mnist:{tmp_path}", 60, 5)
    assert images.shape == (60, 28, 28, 1) and others.shape == (5, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(labels), 6)
    with pytest.raises(BadInput, match="60 images where 61"):
        ten_classes(f"mnist:{tmp_path}", 61, 5)


def test_ten_classes_of_digits_are_disjoint_and_whole_images():
    from sklearn.datasets import load_digits

    (images, labels), (others, _) = ten_classes("digits", 1000, 797)
    together = np.concatenate([images, others]).reshape(1797, 64)
    np.testing.assert_array_equal(np.sort(together.sum(1)), np.sort(load_digits().data.sum(1)))
    assert set(labels) == set(range(10)) and images.shape == (1000, 8, 8, 1)
    with pytest.raises(BadInput, match="give digits, mnist:FOLDER"):
        ten_classes("letters", 10, 10)


def test_idx_keeps_values_and_order(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    _write_idx(tmp_path / "a-idx3-ubyte", array, packed=False)
    np.testing.assert_array_equal(read_idx(tmp_path / "a-idx3-ubyte"), array)


@pytest.mark.parametrize("version", ["python", "binary"])
def test_cifar10_files(tmp_path, version):
    rng = np.random.default_rng(0)
    for name, count in (*((f"data_batch_{number}", 20) for number in range(1, 6)), ("test_batch", 30)):
        pixels, labels = rng.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count) % 10
        if version == "python":
            folder = tmp_path / "cifar-10-batches-py"
            folder.mkdir(exist_ok=True)
            batch = {
                b"data": pixels,
                b"labels": labels.tolist(),
                b"batch_label": b"batch",
                b"filenames": [b"x.png"] * count,
            }
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        else:
            np.column_stack([labels.astype(np.uint8), pixels]).tofile(tmp_path / f"{name}.bin")
    data = cifar10(tmp_path, classes=(0, 9), train=16, test=6)
    assert data.X.shape == (16, 3072) and data.X_test.shape == (6, 3072)
    assert data.name == "CIFAR-10"
    (images, _), (others, labels) = ten_classes(f"cifar10:{tmp_path}", 100, 30)
    assert images.shape == (100, 32, 32, 3) and np.all(np.bincount(labels) == 3)
    # the last batch is the test part; files hold one colour after the other
    np.testing.assert_array_equal(np.sort(others.mean((1, 2)), axis=0), np.sort(pixels.reshape(30, 3, 1024).mean(2), axis=0))


    next(tmp_path.rglob("data_batch_4*")).unlink()
    with pytest.raises(BadInput, match="not data_batch_4"):
        cifar10(tmp_path)


@pytest.mark.parametrize(("images", "labels"), [((3, 3072), 4), ((3, 3071), 3)])
def test_cifar10_batches_that_do_not_fit_their_labels_are_refused(tmp_path, images, labels):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": np.zeros(images, np.uint8), b"labels": [1] * labels}))
    with pytest.raises(BadInput, match="rows of 3072 bytes, and a label 0…9 for each"):
        read_cifar_pickle(tmp_path / "data_batch_1")


def test_labels_above_nine_are_refused(tmp_path):
    np.full(3073, 10, np.uint8).tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(BadInput, match="1 labels up to 10"):
        read_cifar_binary(tmp_path / "data_batch_1.bin")


@pytest.mark.parametrize(("shape", "labels"), [((6, 28, 28), 5), ((6, 28, 28), 7), ((6, 27, 28), 6)])
def test_mnist_images_that_do_not_fit_their_labels_are_refused(tmp_path, shape, labels):
    _write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros(shape, np.uint8), packed=False)
    _write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(labels, np.uint8), packed=False)
    with pytest.raises(BadInput, match=r"train-labels-idx1-ubyte .* of images and \(n,\) of labels"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.gz", b"no gzip", "cannot be unpacked"),
        ("a.gz", gzip.compress(bytes(100))[:-20], "cannot be unpacked"),
        ("a", b"\x00\x00\x08\x03\x00\x00", "ends within its header"),
    ],
)  # fmt: skip
def test_damaged_idx_files_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says):
        read_idx(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_damaged_npz_files_are_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot be read as an \.npz file"):
        from_npz(tmp_path / "a.npz")


def test_a_pickle_that_is_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("executed",)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Trap(), b"labels": [0]}))
    with pytest.raises(BadInput, match=r"builtins\.print"):
        read_cifar_pickle(tmp_path / "data_batch_1")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda path: digits((3, 3)), "two different labels"),
        (lambda path: digits((3, 8), train=1), "at least 2"),
        (lambda path: digits((3, 8), train=1000), "fewer than the 500"),
        (lambda path: mnist(path), "four MNIST IDX files"),
        (lambda path: cifar10(path), "no CIFAR-10 batch files"),
        (lambda path: from_npz(path / "none.npz"), "does not exist"),
    ],
)
def test_bad_requests_say_what_to_do(tmp_path, call, says):
    with pytest.raises(BadInput, match=says):
        call(tmp_path)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "cut-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01" + struct.pack(">I", 10) + b"123")
    with pytest.raises(BadInput, match="holds 3"):
        read_idx(tmp_path / "cut-idx1-ubyte")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(BadInput, match=r"numpy\.savez"):
        from_npz(tmp_path / "text.npz")
    np.savez(tmp_path / "half.npz", X=np.eye(2))
    with pytest.raises(BadInput, match="no array y"):
        from_npz(tmp_path / "half.npz")
