"""Fashion-MNIST and CIFAR-10: found on this machine or fetched, and read as they were published.

Fashion-MNIST is Xiao et al., 2017, arXiv:1708.07747; CIFAR-10 is Krizhevsky, 2009. No pickle is
run. A file that is damaged, cut short or another than the published is named in one sentence.
"""

import gzip
import hashlib
import http.client
import os
import pickletools
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .errors import InputError
from .files import cache_folder, replacing

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
# Images (N, H, W, C) and labels (N,) to train on, both to test on, and the names of the classes.
Published: TypeAlias = tuple[Pixels, Labels, Pixels, Labels, list[str]]

SHARED = Path("/usr/share/datasets")  # where Debian's dataset-* packages put their files

FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
# SHA-256 of the files once unzipped: Debian zips them anew, so its .gz are not the published ones.
FASHION = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as its authors publish it beside the link
CIFAR_CLASSES = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"


def fashion_mnist(folder: Path | None, download: bool) -> Published:
    """Return Fashion-MNIST, 60,000 images to train and 10,000 to test, each (28, 28, 1).

    Raises InputError if its files are absent, damaged or, on `download`, out of reach.
    """
    arrays = []
    for name in FASHION:
        files, url = (f"{name}.gz", name), f"{FASHION_URL}/{name}.gz"
        path = _find("fashion-mnist", files, folder, download, url, partial(_idx, name=name))
        arrays.append(_idx(path, name))
    images, labels, test_images, test_labels = arrays
    return images, labels, test_images, test_labels, FASHION_CLASSES.split(",")


def _idx(path: Path, name: str) -> NDArray[Any]:
    """Return the images or labels in `path`; raise InputError if it is not the published file."""
    with reading(path):
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        if hashlib.sha256(data).hexdigest() != FASHION[name]:
            raise ValueError("its content is not that of the published file")
    # The hash vouches for the header: 16 bytes before images, 8 before labels.
    if "labels" in name:
        return np.frombuffer(data, np.uint8, offset=8).astype(np.int64)
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28, 1)


def cifar10(folder: Path | None, download: bool) -> Published:
    """Return CIFAR-10, 50,000 images to train and 10,000 to test, each (32, 32, 3).

    Raises InputError if its files are absent, damaged or, on `download`, out of reach.
    """
    files = ["cifar-10-batches-bin", "cifar-10-binary.tar.gz", "data_batch_1.bin"]
    files += ["cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"]
    path = _find("cifar10", files, folder, download, CIFAR_URL, _check_cifar)
    suffix, decode = (".bin", _binary_batch) if "bin" in path.name else ("", _python_batch)
    source = path.parent if path.name.startswith("data_batch") else path
    names = [*(f"data_batch_{i}{suffix}" for i in range(1, 6)), f"test_batch{suffix}"]
    batches = {}
    for name, data in tqdm(_members(source, names), "cifar10", 6, delay=1, leave=False):
        with reading(source / name):
            pixels, labels = decode(data)
            if not (len(labels) and 0 <= labels.min() <= labels.max() <= 9):
                raise ValueError("its labels are not all from 0 to 9")
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        batches[name] = np.ascontiguousarray(images), labels
    if absent := sorted(set(names) - set(batches)):
        raise InputError(f"{source} is not whole: it lacks {', '.join(absent)}.")
    *train, (test_images, test_labels) = (batches[name] for name in names)
    images, labels = (np.concatenate(column) for column in zip(*train, strict=True))
    return images, labels, test_images, test_labels, CIFAR_CLASSES.split(",")


def _check_cifar(path: Path) -> None:
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != CIFAR_MD5:
        raise InputError(f"{path} is not the published file.")


def _members(source: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of those of `names` that the folder or .tar.gz `source` holds."""
    with reading(source):
        if os.path.isdir(source):
            yield from ((name, (source / name).read_bytes()) for name in names)
            return
        with gzip.open(source) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in names and (file := archive.extractfile(member)):
                    yield name, file.read()
            while stream.read(1 << 20):  # gzip checks its checksum only at the end of the file
                pass


def _binary_batch(data: bytes) -> tuple[Pixels, Labels]:
    """Return pixels (N, 3072) and labels (N,) of a batch: N records of a label and its pixels."""
    if len(data) % 3073:
        raise ValueError(f"its {len(data)} bytes are not a whole number of 3073-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _python_batch(data: bytes) -> tuple[Pixels, Labels]:
    """Return pixels (N, 3072) and labels (N,) of a pickled batch without unpickling it.

    pickletools names the opcodes one by one and runs none of them. The labels are the integers
    that follow the string "labels"; the pixels are the longest string.
    """
    pixels, labels, key, flag, fortran = b"", [], b"", False, False
    for opcode, argument, _ in pickletools.genops(data):
        if isinstance(argument, str | bytes):
            text = argument.encode("latin-1") if isinstance(argument, str) else argument
            if len(text) > len(pixels):
                pixels, fortran = text, flag
            key = key if text == b"latin1" else text  # Python 3 adds this to strings of bytes
        elif key == b"labels" and opcode.name.startswith("BININT"):
            labels.append(argument)
        elif opcode.name in ("NEWTRUE", "NEWFALSE"):  # the last before the pixels is their order
            flag = opcode.name == "NEWTRUE"
    if fortran or len(pixels) != 3072 * len(labels):
        raise ValueError(f"it holds no C-ordered array of {len(labels)} labelled images")
    return np.frombuffer(pixels, np.uint8).reshape(-1, 3072), np.array(labels, np.int64)


def _find(
    name: str,
    files: Sequence[str],
    folder: Path | None,
    download: bool,
    url: str,
    check: Callable[[Path], object],
) -> Path:
    """Return the first of `files` in the first place that has one, else what `url` has.

    What is fetched is kept only if it is whole and `check` raises no InputError.
    """
    common = os.environ.get("CODESIGN_DATA")
    places = [*([folder] if folder else []), *([Path(common, name)] if common else [])]
    places += [SHARED / name, cache_folder() / name]
    for path in (place / file for place in places for file in files):
        if os.path.exists(path):
            return path
    path = (folder or places[-1]) / url.rpartition("/")[2]
    by_hand = f"put {path.name} in {path.parent}"
    if not download:
        debian = ", install Debian's package dataset-fashion-mnist" if "fashion" in name else ""
        raise InputError(
            f"{path.name} of {name} is in none of {', '.join(map(str, places))}: "
            f"load it with download=True (--download){debian}, or {by_hand}."
        )
    with replacing(path) as temporary:
        try:
            with (
                urllib.request.urlopen(url, timeout=30) as response,
                temporary.open("wb") as file,
                tqdm.wrapattr(file, "write", response.length, desc=path.name) as bar,
            ):
                shutil.copyfileobj(response, bar)
            check(temporary)
        except InputError:
            raise InputError(f"{url} sent another file than the published; none kept.") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            cause = getattr(error, "reason", error)  # urllib wraps what the system says
            why = getattr(cause, "strerror", None) or cause
            raise InputError(f"{url} cannot be fetched ({why}): go online or {by_hand}.") from None
    return path


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn whatever goes wrong in reading `path` into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # on damaged files Pillow, tarfile and zlib raise many kinds
        if isinstance(error, OSError) and error.strerror:
            where = error.filename or path
            raise InputError(f"{where} cannot be read: {error.strerror}.") from error
        why = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path} is damaged or of another kind: {why}.") from error
