"""Two classes of a data set as the arrays a `Problem` takes, and images of all classes (`ten_classes`).

`digits` comes with scikit-learn. `mnist` and `cifar10` read the files that those data sets are published as, from a
folder that the user has; nothing here downloads. Images are centred with the mean training image, then every row is
scaled to x·x = D, so that the input kernel K^x = X Xᵀ/D has ones on its diagonal.
"""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from derive.errors import BadInput

Images = tuple[np.ndarray, np.ndarray]
Pair = tuple[int, int]
WRITE_NPZ = "write it with numpy.savez(path, X=X, y=y)"


@dataclass(frozen=True)
class TwoClasses:
    """Training and test examples of two classes.

    Attributes:
        X, X_test: P×D arrays, rows of norm √D.
        y, y_test: −1 for the first class, +1 for the second.
        classes: the two labels.
        name: of the data set.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[int, int]
    name: str


def digits(classes: Pair = (3, 8), train: int = 20, test: int = 100, seed: int = 0) -> TwoClasses:
    """Two of scikit-learn's bundled handwritten digits (8×8 pixels, about 180 images a class)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rng = _generator(seed)
    chosen, rest = _draw(labels, classes, train, rng, "digits")
    held, _ = _draw(labels[rest], classes, test, rng, f"digits, after {train} training images were taken,")
    return _two_classes((images[chosen], labels[chosen]), (images[rest][held], labels[rest][held]), classes, "digits")


def mnist(folder: str | Path, classes: Pair = (3, 8), train: int = 20, test: int = 100, seed: int = 0) -> TwoClasses:
    """Two MNIST classes from the four published IDX files, gzipped or not, in `folder`."""
    return _from_parts(*_mnist_parts(folder), classes, train, test, seed, "MNIST")


def cifar10(folder: str | Path, classes: Pair = (0, 1), train: int = 20, test: int = 100, seed: int = 0) -> TwoClasses:
    """Two CIFAR-10 classes from the published python-pickle or binary files in `folder` (or its usual subfolder)."""
    return _from_parts(*_cifar10_parts(folder), classes, train, test, seed, "CIFAR-10")


def ten_classes(source: str, train: int, test: int, seed: int = 0) -> tuple[Images, Images]:
    """Images and labels of all ten classes, to train and to test: as they are stored, (P, rows, columns, channels), drawn without repetition.

    Args:
        source: digits, mnist:FOLDER or cifar10:FOLDER.
        train, test: how many.
        seed: of the draw.
    """
    kind, _, folder = source.partition(":")
    rng = _generator(seed)
    if kind == "digits" and not folder:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = rng.permutation(len(images))
        parts = [(images[rows], labels[rows]) for rows in (order[:train], order[train:])]
    elif kind in ("mnist", "cifar10") and folder:
        parts = list((_mnist_parts if kind == "mnist" else _cifar10_parts)(folder))
        parts = [(images[rows], labels[rows]) for (images, labels), rows in ((part, rng.permutation(len(part[0]))) for part in parts)]
    else:
        raise BadInput(f"data {source!r}: give digits, mnist:FOLDER or cifar10:FOLDER")
    for (images, _), wanted in zip(parts, (train, test), strict=True):
        if len(images) < wanted:
            raise BadInput(f"{source} has {len(images)} images where {wanted} are asked for: ask for fewer")
    shape = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (3, 32, 32)}[kind]
    square = lambda images: images.reshape(-1, *shape).transpose(0, 2, 3, 1) if kind == "cifar10" else images.reshape(-1, *shape)
    (X, labels), (X_test, labels_test) = ((square(images[:n]), np.asarray(of[:n], int)) for (images, of), n in zip(parts, (train, test), strict=True))
    return (X, labels), (X_test, labels_test)


def _mnist_parts(folder: str | Path) -> tuple[Images, Images]:
    """Training and test part."""
    return _mnist_part(folder, "train"), _mnist_part(folder, "t10k")


def _mnist_part(folder: str | Path, name: str) -> Images:
    files = [_find(folder, f"{name}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")]
    images, labels = map(read_idx, files)
    if images.shape[1:] != (28, 28) or labels.shape != (len(images),):
        raise BadInput(f"{files[0]} holds {images.shape} bytes and {files[1]} {labels.shape}: MNIST has (n, 28, 28) of images and (n,) of labels")
    return images, labels


def _cifar10_parts(folder: str | Path) -> tuple[Images, Images]:
    """Training and test part."""
    versions = (("cifar-10-batches-py", "", read_cifar_pickle), ("cifar-10-batches-bin", ".bin", read_cifar_binary))
    root = Path(folder)
    for sub, suffix, read in versions:
        for place in (root, root / sub):
            if (place / f"test_batch{suffix}").exists():
                batches = [place / f"data_batch_{number}{suffix}" for number in range(1, 6)]
                if missing := [batch.name for batch in batches if not batch.exists()]:
                    raise BadInput(f"{place} has test_batch{suffix} but not {', '.join(missing)}: unpack the whole archive")
                images, labels = zip(*map(read, batches), strict=True)
                return (np.concatenate(images), np.concatenate(labels)), read(place / f"test_batch{suffix}")
    raise BadInput(
        f"no CIFAR-10 batch files in {root}: expected test_batch and data_batch_1…5 of the python version, "
        "or the same with .bin of the binary version"
    )


def from_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays X, y and, where present, X_test, y_test of an .npz file, unchanged."""
    target = Path(path)
    if not target.exists():
        raise BadInput(f"data file {target} does not exist: give digits, mnist:FOLDER, cifar10:FOLDER or an .npz file")
    try:
        with np.load(target, allow_pickle=False) as file:
            found = {key: file[key] for key in ("X", "y", "X_test", "y_test") if key in file.files}
            names = ", ".join(file.files)
    except (ValueError, OSError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{target} cannot be read as an .npz file ({error}): {WRITE_NPZ}") from error
    if missing := {"X", "y"} - found.keys():
        raise BadInput(f"{target} has no array {' or '.join(sorted(missing))} (it has: {names}): {WRITE_NPZ}")
    return found


# ---- published file formats -----------------------------------------------------------------------------------------


def read_idx(path: str | Path) -> np.ndarray:
    """An IDX file of unsigned bytes (MNIST's format): 0, 0, type 8, rank, then big-endian sizes and the data."""
    target = Path(path)
    opener: Callable[..., IO[bytes]] = gzip.open if target.suffix == ".gz" else open  # type: ignore[assignment]
    try:
        with opener(target, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{target} cannot be unpacked ({error}): the file is damaged") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise BadInput(f"{target} starts with {content[:4].hex()}, not 000008: it is no IDX file of unsigned bytes")
    rank = content[3]
    if len(content) < 4 + 4 * rank:
        raise BadInput(f"{target} ends within its header, after {len(content)} bytes: the file is damaged")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if data.size != np.prod(shape):
        raise BadInput(f"{target} announces {shape} bytes of data but holds {data.size}: the file is damaged")
    return data.reshape(shape)


def read_cifar_binary(path: str | Path) -> Images:
    """A CIFAR-10 .bin batch: records of 1 label byte and 3072 pixel bytes."""
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % 3073:
        raise BadInput(f"{path} holds {content.size} bytes, not a multiple of 3073: it is no CIFAR-10 binary batch")
    records = content.reshape(-1, 3073)
    return _cifar_batch(path, records[:, 1:], records[:, 0])


def read_cifar_pickle(path: str | Path) -> Images:
    """A CIFAR-10 python batch, read without running anything that the pickle may hold."""
    with open(path, "rb") as file:
        try:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
            images, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=int)
        except (pickle.UnpicklingError, KeyError, EOFError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BadInput(
                f"{path} is not a CIFAR-10 python batch ({error!r}): use those of cifar-10-python.tar.gz"
            ) from error
    return _cifar_batch(path, images, labels)


def _cifar_batch(path: str | Path, images: np.ndarray, labels: np.ndarray) -> Images:
    if images.shape != (labels.size, 3072) or not np.all((labels >= 0) & (labels <= 9)):
        raise BadInput(
            f"{path} holds images {images.shape} and {labels.size} labels up to {np.max(labels, initial=0)}: "
            "CIFAR-10 has rows of 3072 bytes, and a label 0…9 for each"
        )
    return images, labels.astype(int)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in containers and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.startswith("numpy"):
            return np.empty(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")


def _find(folder: str | Path, name: str) -> Path:
    for variant in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            for place in (Path(folder), Path(folder) / "MNIST" / "raw"):
                if (place / (variant + suffix)).exists():
                    return place / (variant + suffix)
    raise BadInput(f"no {name} (or {name}.gz) in {folder}: put the four MNIST IDX files there")


# ---- from images to X and y -----------------------------------------------------------------------------------------


def _generator(seed: int) -> np.random.Generator:
    from numerics.errors import seed_number  # here, because it loads JAX

    return np.random.default_rng(seed_number("seed", seed))


def _from_parts(train: Images, test: Images, classes: Pair, P: int, P_test: int, seed: int, name: str) -> TwoClasses:
    rng = _generator(seed)
    chosen, _ = _draw(train[1], classes, P, rng, f"{name} (training part)")
    held, _ = _draw(test[1], classes, P_test, rng, f"{name} (test part)")
    return _two_classes((train[0][chosen], train[1][chosen]), (test[0][held], test[1][held]), classes, name)


def _draw(
    labels: np.ndarray, classes: Pair, count: int, rng: np.random.Generator, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` random examples, half of each class and sorted by class; and all the indices not taken."""
    if len(classes) != 2 or classes[0] == classes[1]:
        raise BadInput(f"classes={classes} are not two different labels: give for example (3, 8)")
    if count < 2:
        raise BadInput(f"{count} examples of two classes: ask for at least 2")
    chosen = []
    for label, wanted in zip(classes, ((count + 1) // 2, count // 2), strict=True):
        members = np.flatnonzero(labels == label)
        if len(members) < wanted:
            raise BadInput(f"{name} has {len(members)} examples of class {label}, fewer than the {wanted} asked for")
        chosen.append(rng.choice(members, wanted, replace=False))
    taken = np.concatenate(chosen)
    return taken, np.setdiff1d(np.arange(len(labels)), taken)


def _two_classes(train: Images, test: Images, classes: Pair, name: str) -> TwoClasses:
    flat = [images.reshape(len(images), -1).astype(np.float64) for images, _ in (train, test)]
    mean = flat[0].mean(axis=0)
    X, X_test = (_unit_rows(part - mean) for part in flat)
    y, y_test = (np.where(labels == classes[1], 1.0, -1.0) for _, labels in (train, test))
    return TwoClasses(X, y, X_test, y_test, classes, name)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to x·x = D."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(norms > 0):
        raise BadInput(f"image {int(np.argmin(norms))} equals the mean training image: draw with another seed")
    return rows * np.sqrt(rows.shape[1]) / norms
