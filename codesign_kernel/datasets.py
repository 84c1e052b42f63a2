"""Image data sets, each in a train, a validation and a test part that never overlap.

Digits come with scikit-learn, Fashion-MNIST and CIFAR-10 from their published files (published.py),
and a folder of images can stand in for them.
The parts are stratified and always the same. Select on validation images, never on the test part.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .errors import InputError, choice, integer
from .published import cifar10, fashion_mnist, reading

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.int64]
Shape: TypeAlias = tuple[int, int, int]

NAMES = ("digits", "fashion-mnist", "cifar10", "images:PATH")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SEED = 2022


class Split(Protocol):
    """One part of a data set: N images of one shape (H, W, C) and their labels (N,)."""

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> Pixels:
        """Return the images at `indices` (B,) as uint8 (B, H, W, C)."""

    def part(self, indices: Indices) -> Self:
        """Return the split of the images at `indices` alone."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A Split of `images` (N, H, W, C) held in memory."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Pixels:
        """Return the images at `indices` (B,) as uint8 (B, H, W, C)."""
        return np.take(self.images, indices, axis=0)

    def part(self, indices: Indices) -> Self:
        """Return the split of the images at `indices` alone."""
        return replace(self, images=self.batch(indices), labels=self.labels[indices])


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """A Split of image `files`, each decoded to `shape` (H, W, C) only when it is asked for."""

    files: tuple[str, ...]
    labels: Labels
    shape: Shape

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Pixels:
        """Return the images at `indices` (B,) as uint8 (B, H, W, C).

        Each is scaled until it just covers H×W, and its centre kept; alpha is dropped. Raises
        InputError that names a file that is broken or gone.
        """
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            images = list(pool.map(self._decode, indices))
        return np.array(images, np.uint8).reshape(-1, *self.shape)

    def part(self, indices: Indices) -> Self:
        """Return the split of the files at `indices` alone."""
        files = tuple(self.files[i] for i in indices)
        return replace(self, files=files, labels=self.labels[indices])

    def _decode(self, index: int) -> Pixels:
        from PIL import Image, ImageOps

        height, width, channels = self.shape
        mode = "L" if channels == 1 else "RGB"
        with reading(self.files[index]), Image.open(self.files[index]) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"{image.mode} pixels, where 8 bits a channel can be read")
            image.draft(mode, (max(height, width),) * 2)  # large JPEGs decode at a coarser scale
            image.info.pop("transparency", None)
            upright = ImageOps.exif_transpose(image).convert(mode)
            fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
            return np.asarray(fitted).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three parts, with images of `shape` (H, W, C).

    `mean` and `std` (float32, (C,)) are those of the training pixels in units of [0, 1], for an
    image folder over at most 1,000 training images; `std` is at least one grey level, 1/255.
    `files` stands for the names of an image folder's files in each part, and is else empty.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: Shape
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    files: str = ""

    @property
    def mirror(self) -> bool:
        """Whether training may mirror images: not where that makes another class of them."""
        return self.name in ("fashion-mnist", "cifar10")

    def draws(self, size: int, seed: int, step: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """Return which images of a step of training are mirrored, (size,), and the corner, down and
        right in pixels, from which all are cut once a sixteenth of each side pads them."""
        rng = np.random.default_rng([seed, step, 1])
        mirrored = rng.random(size) < 0.5 * self.mirror
        down, right = (int(rng.integers(0, 2 * (side // 16) + 1)) for side in self.shape[:2])
        return mirrored, (down, right)


def load(
    name: str, *, folder: Path | None = None, download: bool = False, shape: Shape | None = None
) -> Dataset:
    """Return the data set called `name`, one of NAMES.

    Fashion-MNIST and CIFAR-10 are looked for in `folder`, in $CODESIGN_DATA/<name>, among Debian's
    shared data sets and in the user's cache; `download` fetches them into `folder`, else the cache.
    An image folder, PATH or else `folder`, holds one folder a class, or train and val or test with
    those inside, and needs the `shape` (H, W, C) that images are brought to. A `folder` given
    beside a PATH stands in for it, as when the images have moved.

    Raises InputError for an unknown name, absent, damaged or unreachable files, or a wrong shape.
    """
    where = None if folder is None else Path(os.path.expanduser(folder))
    if name == "images" or name.startswith("images:"):
        path = os.path.expanduser(name[len("images:") :])
        if not (where or path):
            raise InputError(f"data set is {name!r}, but must be images:PATH or have a folder.")
        return _images(where or Path(path), shape)
    choice("data set", name, NAMES)
    if where and not download and not os.path.isdir(where):
        raise InputError(f"folder is {str(where)!r}, but must be a folder that exists.")
    if name == "digits":
        dataset = _dataset(name, _digits(), (300, 360), [], "0123456789")
    else:
        read, share = (cifar10, 10) if name == "cifar10" else (fashion_mnist, 6)
        images, labels, test_images, test_labels, classes = read(where, download)
        train, test = ArraySplit(images, labels), ArraySplit(test_images, test_labels)
        dataset = _dataset(name, train, (len(train) // share,), [test], classes)
    if shape is not None and tuple(shape) != dataset.shape:
        raise InputError(f"shape is {shape}, but the images of {name} are {dataset.shape}.")
    return dataset


def _digits() -> ArraySplit:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)  # published as 0..16
    return ArraySplit(images, bunch.target.astype(np.int64))


def _images(folder: Path, shape: Shape | None) -> Dataset:
    if not isinstance(shape, tuple | list) or len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(f"shape is {shape}, but an image folder needs (height, width, 1 or 3).")
    height, width = (integer("a side of shape", side, 1, 4096) for side in shape[:2])
    shape = (height, width, shape[2])
    held = [name for name in ("val", "validation", "test") if os.path.isdir(folder / name)]
    if held and os.path.isdir(folder / "train"):
        classes, train = _scan(folder / "train", shape)
        scanned = [_scan(folder / name, shape) for name in held]
        if held[:2] == ["val", "validation"] or any(names != classes for names, _ in scanned):
            raise InputError(
                f"{folder} holds train, {', '.join(held)}, but must hold train, val or validation, "
                "and test (or only one of these), each with the same class folders."
            )
        rest = [part for _, part in scanned]
    else:
        (classes, train), rest = _scan(folder, shape), []
    files = [file for part in (train, *rest) for file in part.files]
    if len(files) <= 20_000:  # more take minutes: there, a broken one is named on being decoded
        from PIL import Image

        for file in tqdm(files, "checking images", delay=1, leave=False):
            with reading(file), Image.open(file) as image:
                image.verify()
    # What the folder lacks comes out of train. A lone val is for testing, as in ImageNet.
    sizes = (len(train) // 10,) * (2 - len(rest))
    dataset = _dataset(f"images:{folder}", train, sizes, rest, classes)
    # With a file more or less, images of one part come to lie in another.
    names = []
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split, FolderSplit)
        names += ["", *(os.path.relpath(file, folder) for file in split.files)]
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    return replace(dataset, files=digest[:12])


def _scan(folder: Path, shape: Shape) -> tuple[list[str], FolderSplit]:
    """Return the names of the class folders in `folder` and the split of all their images."""

    def refuse(error: OSError) -> None:
        raise error

    with reading(folder):
        inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    classes = [name for name in inside if not name.startswith(".")]
    if len(classes) < 2:
        raise InputError(
            f"{folder} has too few class folders: {len(classes)}, but needs 2 or more."
        )
    files: list[str] = []
    labels: list[int] = []
    for label, top in enumerate(os.path.join(folder, name) for name in classes):
        with reading(top):
            walk = os.walk(top, onerror=refuse)
            found = sorted(os.path.join(root, name) for root, _, names in walk for name in names)
        shown = (file for file in found if f"{os.sep}." not in file[len(top) :])
        files += (file for file in shown if file.lower().endswith(SUFFIXES))
        if len(files) == len(labels):
            raise InputError(f"{top} holds no image ({', '.join(SUFFIXES)}).")
        labels += [label] * (len(files) - len(labels))
    return classes, FolderSplit(tuple(files), np.array(labels, np.int64), shape)


def _divide(whole: Split, sizes: Sequence[int], classes: Sequence[str]) -> list[Split]:
    """Return disjoint parts of `whole`: what remains, then one of each of `sizes`, in order.

    Each class is in each part in proportion (by largest remainders) and at least once, for which a
    part may come out larger than asked. Raises InputError for a class with too few images.
    """
    labels = whole.labels
    counts = np.bincount(labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] <= len(sizes):
        raise InputError(
            f"class {classes[least]!r} has {counts[least]} images to split into train, validation "
            f"and test, but needs at least {len(sizes) + 1}."
        )
    # Raw words of PCG64 are a stream that numpy never changes; its permutations may change.
    order = np.lexsort((np.random.PCG64(SEED).random_raw(len(labels)), labels))
    group = labels[order]
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[group]  # within the class
    start = np.zeros_like(counts)
    parts = []
    for size in sizes:
        quota = counts * size / len(labels)
        take = np.maximum(quota.astype(np.int64), 1)
        missing = max(0, size - int(take.sum()))
        take[np.argsort(take - quota, kind="stable")[:missing]] += 1
        parts.append(order[(start[group] <= rank) & (rank < (start + take)[group])])
        start += take
    return [whole.part(np.sort(part)) for part in (order[start[group] <= rank], *parts)]


def _dataset(
    name: str, train: Split, sizes: Sequence[int], rest: Sequence[Split], classes: Sequence[str]
) -> Dataset:
    """Return the data set of `train` with parts of `sizes` taken out of it, and of the `rest`."""
    train, validation, test = *_divide(train, sizes, classes), *rest
    order = np.argsort(np.random.PCG64(SEED).random_raw(len(train)), kind="stable")
    sample = order[:1000] if isinstance(train, FolderSplit) else order
    height, width, channels = train.batch(sample[:1]).shape[1:]
    sums = np.zeros((2, channels))
    chunks = np.array_split(sample, len(sample) * height * width * channels // 2**23 + 1)
    for chunk in tqdm(chunks, "mean and std", delay=1, leave=False):
        pixels = train.batch(chunk) / 255
        sums += pixels.sum((0, 1, 2)), np.square(pixels).sum((0, 1, 2))
    mean, square = sums / (len(sample) * height * width)
    std = np.sqrt(np.maximum(square - mean**2, 255**-2))
    figures = mean.astype(np.float32), std.astype(np.float32)
    shape = (height, width, channels)
    return Dataset(name, train, validation, test, tuple(classes), shape, *figures)
