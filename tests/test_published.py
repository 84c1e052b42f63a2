"""Published data sets are read as published, wherever they lie, and damaged files are named."""

import gzip
import hashlib
import io
import os
import pickle
import pickletools
import shutil
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from codesign_kernel import published
from codesign_kernel.datasets import Dataset, Split, load
from codesign_kernel.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CIFAR_BIN = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
PARTS = ("train", "validation", "test")


def pixels_of(split: Split) -> NDArray[np.uint8]:
    return split.batch(np.arange(len(split)))


def digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def rows(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> list[tuple[bytes, int]]:
    """The labelled images in an order of their own, so that two collections can be compared."""
    pairs = zip(images, labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


def refused(**asked: object) -> str:
    """The sentence that loading ends with: one line, ended by a full stop."""
    with pytest.raises(InputError) as caught:
        load(**asked)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the cache of the user who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CODESIGN_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(published, "SHARED", tmp_path / "nowhere")


def same(one: Dataset, other: Dataset) -> bool:
    return all(
        np.array_equal(pixels_of(getattr(one, part)), pixels_of(getattr(other, part)))
        and np.array_equal(getattr(one, part).labels, getattr(other, part).labels)
        for part in PARTS
    )


# Fashion-MNIST, from Debian's package.


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    return load("fashion-mnist")


def original(name: str) -> bytes:
    """The .gz as its authors published it: Debian's holds the same but for the gzip header."""
    written = 1504176627 - 21 * name.startswith("train")  # 31 August 2017, 10:50 UTC
    head = b"\x1f\x8b\x08\x08" + struct.pack("<I", written) + b"\x00\x03" + name.encode() + b"\x00"
    return head + (DEBIAN / f"{name}.gz").read_bytes()[10:]


def linked(folder: Path, leave_out: str = "") -> Path:
    """Return `folder` with links to Debian's four files, without the one that is left out."""
    folder.mkdir(parents=True)
    for name in published.FASHION:
        if name != leave_out:
            (folder / f"{name}.gz").symlink_to(DEBIAN / f"{name}.gz")
    return folder


@pytest.mark.fashion
def test_fashion_mnist_is_the_published_one(fashion: Dataset) -> None:
    assert [len(getattr(fashion, part)) for part in PARTS] == [50_000, 10_000, 10_000]
    assert fashion.shape == (28, 28, 1)
    assert fashion.classes[0] == "T-shirt/top"
    assert fashion.classes[-1] == "Ankle boot"
    assert set(np.bincount(fashion.validation.labels)) == {1000}

    def raw(name: str, header: int) -> NDArray[np.uint8]:
        return np.frombuffer(gzip.open(DEBIAN / name).read()[header:], np.uint8)

    test = raw("t10k-images-idx3-ubyte.gz", 16)
    np.testing.assert_array_equal(pixels_of(fashion.test).ravel(), test)
    np.testing.assert_array_equal(fashion.test.labels, raw("t10k-labels-idx1-ubyte.gz", 8))
    official = raw("train-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    images = np.concatenate([pixels_of(fashion.train), pixels_of(fashion.validation)])
    labels = np.concatenate([fashion.train.labels, fashion.validation.labels])
    assert rows(images, labels) == rows(official, raw("train-labels-idx1-ubyte.gz", 8))
    assert digest(fashion.validation.labels) == "95d66d6377debb65"


@pytest.mark.fashion
def test_the_hashes_are_those_of_the_files_that_its_authors_published(tmp_path: Path) -> None:
    sums = {  # MD5, from the README of the data set
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    assert set(sums) == set(published.FASHION)
    for name, md5 in sums.items():
        data = original(name)
        assert hashlib.md5(data).hexdigest() == md5
        assert hashlib.sha256(gzip.decompress(data)).hexdigest() == published.FASHION[name]


@pytest.mark.fashion
@pytest.mark.parametrize("unzipped", [False, True])
def test_fashion_mnist_is_read_zipped_or_not(
    fashion: Dataset, tmp_path: Path, no_debian: None, unzipped: bool
) -> None:
    for name in published.FASHION:
        data = gzip.decompress(original(name)) if unzipped else original(name)
        (tmp_path / (name if unzipped else f"{name}.gz")).write_bytes(data)
    assert same(load("fashion-mnist", folder=tmp_path), fashion)


@pytest.mark.fashion
def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file shows which place was read."""
    name = "t10k-labels-idx1-ubyte"
    cache = linked(tmp_path / "cache" / "codesign" / "fashion-mnist", name)
    common = linked(tmp_path / "common" / "fashion-mnist", name)
    own = linked(tmp_path / "own", name)
    for place in (own, common, cache):
        (place / f"{name}.gz").write_bytes(b"damaged")
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path / "common"))
    assert str(own) in refused(name="fashion-mnist", folder=own)
    assert str(common) in refused(name="fashion-mnist")
    monkeypatch.delenv("CODESIGN_DATA")
    assert len(load("fashion-mnist").test) == 10_000  # Debian's come before the cache
    monkeypatch.setattr(published, "SHARED", tmp_path / "nowhere")
    assert str(cache) in refused(name="fashion-mnist")


@pytest.mark.fashion
@pytest.mark.parametrize("name", published.FASHION)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = linked(tmp_path / "own", leave_out=name)
    path = folder / f"{name}.gz"
    path.write_bytes((DEBIAN / f"{name}.gz").read_bytes()[:-9])
    assert f"{path} is damaged" in refused(name="fashion-mnist", folder=folder)
    if name == next(iter(published.FASHION)):  # the first to be read, so that these take no time
        for damaged in (b"", b"<html></html>", b"\x1f\x8b", gzip.compress(b"other")):
            path.write_bytes(damaged)
            assert f"{path} is damaged" in refused(name="fashion-mnist", folder=folder)


def test_absent_files_are_asked_for(tmp_path: Path, no_debian: None) -> None:
    sentence = refused(name="fashion-mnist", folder=tmp_path)
    for hint in (str(tmp_path), "dataset-fashion-mnist", "--download", "train-images-idx3"):
        assert hint in sentence
    sentence = refused(name="cifar10")
    for hint in (str(tmp_path / "cache"), "--download", "cifar-10-binary.tar.gz"):
        assert hint in sentence
    assert "Debian" not in sentence


# Fetching, from a server on this machine.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Cut(Quiet):
    """Promises a thousand bytes, sends four, and hangs up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"four")
        self.close_connection = True


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers = []

    def start(folder: Path, handler: type[Quiet] = Quiet) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.fashion
def test_fashion_mnist_is_fetched_once(
    fashion: Dataset,
    tmp_path: Path,
    no_debian: None,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(published, "FASHION_URL", serve(DEBIAN))
    assert same(load("fashion-mnist", download=True), fashion)
    assert "train-images-idx3-ubyte.gz: 100%" in capfd.readouterr().err
    cache = tmp_path / "cache" / "codesign" / "fashion-mnist"
    assert sorted(os.listdir(cache)) == sorted(f"{name}.gz" for name in published.FASHION)
    monkeypatch.setattr(published, "FASHION_URL", "http://127.0.0.1:9")
    assert same(load("fashion-mnist", download=True), fashion)
    new = tmp_path / "new"
    monkeypatch.setattr(published, "SHARED", tmp_path / "cache" / "codesign")
    shutil.move(cache / "t10k-labels-idx1-ubyte.gz", tmp_path)
    monkeypatch.setattr(published, "FASHION_URL", serve(DEBIAN))
    load("fashion-mnist", folder=new, download=True)
    assert os.listdir(new) == ["t10k-labels-idx1-ubyte.gz"]  # what was lacking, and no more


def test_a_fetched_file_of_other_content_is_not_kept(
    tmp_path: Path, no_debian: None, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"other"))
    (served / "cifar-10-binary.tar.gz").write_bytes(b"other")
    url = serve(served)
    monkeypatch.setattr(published, "FASHION_URL", url)
    monkeypatch.setattr(published, "CIFAR_URL", f"{url}/cifar-10-binary.tar.gz")
    for name, file in (("fashion-mnist", "train-images-idx3-ubyte.gz"),
                       ("cifar10", "cifar-10-binary.tar.gz")):  # fmt: skip
        folder = tmp_path / name
        sentence = refused(name=name, folder=folder, download=True)
        assert f"{url}/{file} sent another file than the published" in sentence
        assert os.listdir(folder) == []


def test_a_server_that_fails_is_named(
    tmp_path: Path, no_debian: None, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    gone, cut = serve(empty), serve(empty, Cut)
    for url, reason in (
        (gone, "File not found"),
        (cut, "sent another file"),
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://host.invalid", "cannot be fetched"),
    ):
        monkeypatch.setattr(published, "CIFAR_URL", f"{url}/cifar-10-binary.tar.gz")
        sentence = refused(name="cifar10", download=True)
        assert reason in sentence
        assert f"{url}/cifar-10-binary.tar.gz" in sentence
    assert os.listdir(tmp_path / "cache" / "codesign" / "cifar10") == []


def test_what_is_published_is_fetched_over_https() -> None:
    assert published.FASHION_URL.startswith("https://")
    assert published.CIFAR_URL.startswith("https://")
    assert published.CIFAR_MD5 == "c32a1d4ab5d03f1284b67883e8d87530"


# CIFAR-10, in batches of 20 made like the published ones of 10,000.

Batches = list[tuple[NDArray[np.uint8], list[int]]]


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Pixels (20, 3072), plane by plane, and labels of the five training batches and the test."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(6):
        labels = [int(label) for label in random.permutation(np.arange(20) % 10)]
        made.append((random.integers(0, 256, (20, 3072), np.uint8), labels))
    return made


def binary(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    return b"".join(
        bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True)
    )


def pickled_by_python_2(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The opcodes of a published batch: a protocol-2 dict written by Python 2's cPickle."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87R"
        b"q\x09(K\x01K" + bytes([len(labels)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00"
        b"K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    names = b"".join(text(f"automobile_s_{number:06}.png") for number in range(len(labels)))
    return (
        b"\x80\x02}q\x01(" + text("batch_label") + b"q\x02" + text("training batch 1 of 5")
        + b"q\x03" + text("labels") + b"q\x04]q\x05("
        + b"".join(b"K" + bytes([label]) for label in labels) + b"e" + text("data") + b"q\x06"
        + array + text("filenames") + b"q\x0c]q\x0d(" + names + b"eu."
    )  # fmt: skip


def pickled_by_python_3(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    batch = {b"batch_label": b"testing batch", b"labels": labels, b"data": pixels}
    return pickle.dumps({**batch, b"filenames": [b"a.png"] * len(labels)}, protocol=2)


FORMS: dict[str, tuple[str, str, Callable[[NDArray[np.uint8], list[int]], bytes]]] = {
    "binary": ("bin", ".bin", binary),
    "python 2": ("py", "", pickled_by_python_2),
    "python 3": ("py", "", pickled_by_python_3),
}


def write_cifar(folder: Path, form: str, batches: Batches) -> Path:
    """Write the six batches and the names of the classes, as published, and return their folder."""
    short, suffix, encode = FORMS[form]
    inside = folder / f"cifar-10-batches-{short}"
    inside.mkdir(parents=True)
    names = published.CIFAR_CLASSES.split(",")
    if short == "py":
        meta = {"num_cases_per_batch": 20, "label_names": names, "num_vis": 3072}
        (inside / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    else:
        (inside / "batches.meta.txt").write_text("\n".join(names))
    for name, batch in zip(CIFAR_BIN, batches, strict=True):
        (inside / name.replace(".bin", suffix)).write_bytes(encode(*batch))
    return inside


def archive_cifar(inside: Path) -> Path:
    """Replace the folder that `write_cifar` wrote by a .tar.gz of it, and return that."""
    long = {"bin": "binary", "py": "python"}[inside.name.rpartition("-")[2]]
    path = inside.parent / f"cifar-10-{long}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inside, inside.name)
    shutil.rmtree(inside)
    return path


def test_the_python_2_batch_is_a_well_formed_pickle(batches: Batches) -> None:
    listing = io.StringIO()
    pickletools.dis(pickled_by_python_2(*batches[0]), listing)
    assert "BINSTRING" in listing.getvalue()
    assert "highest protocol among opcodes = 2" in listing.getvalue()


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_cifar10_is_read_in_every_form(
    tmp_path: Path, batches: Batches, form: str, archived: bool
) -> None:
    inside = write_cifar(tmp_path, form, batches)
    if archived:
        archive_cifar(inside)
    cifar = load("cifar10", folder=tmp_path)
    assert [len(getattr(cifar, part)) for part in PARTS] == [90, 10, 20]
    assert (cifar.shape, cifar.classes[0], cifar.classes[9]) == ((32, 32, 3), "airplane", "truck")
    # A row is 1,024 red values row by row, then the green and the blue.
    pixels, labels = batches[5]
    for image, row in zip(pixels_of(cifar.test), pixels, strict=True):
        for channel in range(3):
            assert image[..., channel].tobytes() == row[1024 * channel :][:1024].tobytes()
    assert cifar.test.labels.tolist() == labels
    images = np.concatenate([pixels_of(cifar.train), pixels_of(cifar.validation)])
    planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    found = rows(planes, np.concatenate([cifar.train.labels, cifar.validation.labels]))
    training = [np.concatenate(column) for column in zip(*batches[:5], strict=True)]
    assert found == rows(*training)


def test_cifar10_is_found_wherever_it_is_looked_for(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = write_cifar(tmp_path / "common" / "cifar10", "binary", batches)
    expected = load("cifar10", folder=inside)
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path / "common"))
    assert same(load("cifar10"), expected)
    monkeypatch.delenv("CODESIGN_DATA")
    shutil.move(tmp_path / "common", tmp_path / "cache" / "codesign")
    assert same(load("cifar10"), expected)


def test_cifar10_is_fetched_in_its_binary_form(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    path = archive_cifar(write_cifar(tmp_path / "served", "binary", batches))
    monkeypatch.setattr(published, "CIFAR_URL", f"{serve(path.parent)}/{path.name}")
    monkeypatch.setattr(published, "CIFAR_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    fetched = load("cifar10", download=True)
    assert same(fetched, load("cifar10", folder=path.parent))
    assert same(fetched, load("cifar10"))


class Payload:
    """What a hostile archive holds: reading it as a pickle would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_no_pickle_is_ever_run(tmp_path: Path, batches: Batches) -> None:
    inside = write_cifar(tmp_path, "python 3", batches)
    pixels, labels = batches[0]
    trap = tmp_path / "trap"
    hostile = {b"labels": labels, b"data": pixels, b"filenames": Payload(str(trap))}
    (inside / "data_batch_1").write_bytes(pickle.dumps(hostile, protocol=2))
    (inside / "batches.meta").write_bytes(pickle.dumps(Payload(str(trap)), protocol=2))
    load("cifar10", folder=tmp_path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(str(trap)), protocol=2)).close()
    assert trap.exists()  # so that the trap would have sprung


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_batch_is_named(tmp_path: Path, batches: Batches, form: str) -> None:
    inside = write_cifar(tmp_path, form, batches)
    path = inside / f"data_batch_3{FORMS[form][1]}"
    whole = path.read_bytes()
    pixels, labels = batches[2]
    eleventh = FORMS[form][2](pixels, [10, *labels[1:]])
    for damaged in (b"", whole[:-3073], whole[:40_000], whole[1:], b"<html></html>", eleventh):
        path.write_bytes(damaged)
        if form == "binary" and damaged == whole[:-3073]:
            assert len(load("cifar10", folder=tmp_path).train) == 89  # whole records, only fewer
            continue
        assert f"{path} is damaged" in refused(name="cifar10", folder=tmp_path)
    path.unlink()
    assert f"{path} cannot be read: No such file" in refused(name="cifar10", folder=tmp_path)


def test_pixels_in_fortran_order_are_not_misread(tmp_path: Path, batches: Batches) -> None:
    pixels, labels = batches[0]
    inside = write_cifar(tmp_path, "python 3", batches)
    batch = {"data": np.asfortranarray(pixels), "labels": labels}
    (inside / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    assert "C-ordered" in refused(name="cifar10", folder=tmp_path)


@given(st.data())
def test_a_mangled_pickle_is_refused_or_read_whole(batches: Batches, data: st.DataObject) -> None:
    mangled = bytearray(pickled_by_python_2(batches[0][0][:1], batches[0][1][:1]))
    for _ in range(data.draw(st.integers(1, 3))):
        mangled[data.draw(st.integers(0, 330) | st.integers(0, len(mangled) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        pixels, labels = published._python_batch(
            bytes(mangled[: data.draw(st.integers(0, len(mangled)))])
        )
    except ValueError:
        return
    assert pixels.shape == (len(labels), 3072)


@pytest.mark.parametrize("form", ["binary", "python 2"])
def test_a_damaged_archive_is_named(tmp_path: Path, batches: Batches, form: str) -> None:
    path = archive_cifar(write_cifar(tmp_path, form, batches))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    wrong_sum = bytearray(whole)
    wrong_sum[-6] ^= 255  # in gzip's checksum
    short = whole[: len(whole) // 2]
    for damaged in (b"", b"<html></html>", whole[:-4], short, flipped, wrong_sum):
        path.write_bytes(damaged)
        assert str(path) in refused(name="cifar10", folder=tmp_path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.txt"))
    assert "lacks data_batch_1" in refused(name="cifar10", folder=tmp_path)
