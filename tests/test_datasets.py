"""Data sets: every source is read as published, the parts never overlap, bad files are named."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from codesign_kernel import datasets
from codesign_kernel.datasets import ArraySplit, Dataset, Split, load
from codesign_kernel.errors import InputError

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


# What every data set keeps to.


def test_importing_stays_light() -> None:
    code = (
        "import sys, codesign_kernel.datasets;"
        "print([m for m in ('torch', 'sklearn', 'PIL') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "[]\n", printed.stderr


def check(dataset: Dataset) -> None:
    """The promises of Dataset and Split, on any data set."""
    train = pixels_of(dataset.train) / 255
    np.testing.assert_allclose(dataset.mean, train.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, train.std((0, 1, 2)).clip(1 / 255), rtol=1e-5)
    assert dataset.mean.dtype == dataset.std.dtype == np.float32
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.labels.dtype == np.int64
        assert split.labels.shape == (len(split),)
        assert set(split.labels) == set(range(len(dataset.classes)))
        indices = np.array([len(split) - 1, 0, 0])
        batch = split.batch(indices)
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, pixels_of(split)[indices])
        assert split.batch(np.array([], np.int64)).shape == (0, *dataset.shape)
        part = split.part(indices[:2])
        np.testing.assert_array_equal(pixels_of(part), batch[:2])
        np.testing.assert_array_equal(part.labels, split.labels[indices[:2]])


def same(one: Dataset, other: Dataset) -> bool:
    return all(
        np.array_equal(pixels_of(getattr(one, part)), pixels_of(getattr(other, part)))
        and np.array_equal(getattr(one, part).labels, getattr(other, part).labels)
        for part in PARTS
    )


@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=12),
    st.lists(st.floats(0, 0.3), max_size=2),
    st.randoms(use_true_random=False),
)
def test_a_division_is_stratified_and_disjoint(
    counts: list[int], shares: list[float], random: Random
) -> None:
    shuffled = np.repeat(np.arange(len(counts)), counts).tolist()
    random.shuffle(shuffled)
    labels = np.array(shuffled)
    number = len(labels)
    whole = ArraySplit(np.arange(number).reshape(-1, 1, 1, 1), labels)  # type: ignore[arg-type]
    sizes = [int(number * share) for share in shares]
    parts = datasets._divide(whole, sizes, list(map(str, counts)))
    indices = [pixels_of(part).ravel() for part in parts]
    np.testing.assert_array_equal(np.sort(np.concatenate(indices)), np.arange(number))
    for part, chosen in zip(parts, indices, strict=True):
        np.testing.assert_array_equal(part.labels, labels[chosen])
        assert (np.diff(chosen) > 0).all()
        assert set(part.labels) == set(range(len(counts)))
    for part, size in zip(parts[1:], sizes, strict=True):
        quota = np.array(counts) * size / number
        taken = np.bincount(part.labels)
        assert (np.abs(taken - quota) <= 1).all()
        assert len(part) == size or (len(part) > size and (quota < 1).any())


@pytest.mark.parametrize("name", ["mnist", "", "Digits", "imagenet"])
def test_an_unknown_name_lists_the_known(name: str) -> None:
    sentence = refused(name=name)
    assert repr(name) in sentence
    assert "digits, fashion-mnist, cifar10, images:PATH" in sentence


def test_a_shape_that_the_data_set_does_not_have_is_refused() -> None:
    assert "(8, 8, 1)" in refused(name="digits", shape=(32, 32, 3))
    assert load("digits", shape=(8, 8, 1)).shape == (8, 8, 1)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "typo") in refused(name="fashion-mnist", folder=tmp_path / "typo")


# Digits.


def test_digits_hold_each_published_image_once() -> None:
    from sklearn.datasets import load_digits

    digits = load("digits")
    check(digits)
    assert [len(getattr(digits, part)) for part in PARTS] == [1137, 300, 360]
    assert (digits.shape, digits.classes) == ((8, 8, 1), tuple("0123456789"))
    held = [getattr(digits, part) for part in PARTS]
    images = np.concatenate([pixels_of(split) for split in held])
    labels = np.concatenate([split.labels for split in held])
    published = load_digits()
    # 16 steps of grey on 0..255: the nearest to v·255/16.
    scaled = np.floor(published.data * 255 / 16 + 0.5).astype(np.uint8)
    assert rows(images, labels) == rows(scaled, published.target)


def test_digits_are_always_divided_alike() -> None:
    digits = load("digits")
    assert same(digits, load("digits"))
    assert not digits.mirror  # a mirrored digit is another or none
    assert digest(digits.validation.labels) == "5dbaa6d047bc0733"
    assert digest(pixels_of(digits.test)) == "b6205d398968fdac"


@pytest.mark.fashion
def test_fashion_mnist_keeps_to_it_too() -> None:
    check(load("fashion-mnist"))


# Folders of images.


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> Path:
    """Write an image of one colour, in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def paint_classes(folder: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """Write for each class so many images of different colours, and return the folder."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            paint(folder / name / f"{number:03}{suffix}", (60 * label, number, 99))
    return folder


def colours(split: Split) -> set[tuple[int, ...]]:
    """The colours of a split's images, each of one colour all over."""
    images = pixels_of(split)
    assert (images == images[:, :1, :1]).all()
    return {tuple(map(int, image[0, 0])) for image in images}


SHAPE = (6, 8, 3)


@pytest.mark.parametrize("named", ["images:", "images"])
def test_a_folder_of_class_folders_is_divided(tmp_path: Path, named: str) -> None:
    folder = paint_classes(tmp_path / "pets", {"dog": 30, "cat": 30, "água": 40})
    if named == "images":
        dataset = load("images", folder=folder, shape=SHAPE)
    else:
        dataset = load(f"images:{folder}", shape=SHAPE)
    check(dataset)
    assert dataset.name == f"images:{folder}"
    assert dataset.classes == ("cat", "dog", "água")
    assert [np.bincount(getattr(dataset, part).labels).tolist() for part in PARTS] == [
        [24, 24, 32],
        [3, 3, 4],
        [3, 3, 4],
    ]
    sets = [colours(getattr(dataset, part)) for part in PARTS]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 100
    assert same(dataset, load(f"images:{folder}", shape=SHAPE))
    red = {0: 60, 1: 0, 2: 120}  # of the classes in their sorted order
    for part in PARTS:
        split = getattr(dataset, part)
        found = pixels_of(split)[:, 0, 0, 0]
        assert found.tolist() == [red[label] for label in split.labels.tolist()]


def test_the_smallest_classes_are_in_every_part(tmp_path: Path) -> None:
    folder = paint_classes(tmp_path, {"a": 3, "b": 3})
    check(load(f"images:{folder}", shape=SHAPE))
    (folder / "b" / "002.png").unlink()
    sentence = refused(name=f"images:{folder}", shape=SHAPE)
    assert "'b' has 2 images" in sentence
    assert "at least 3" in sentence


@pytest.mark.parametrize("val", ["val", "validation", "test"])
def test_a_lone_val_is_for_testing_as_in_imagenet(tmp_path: Path, val: str) -> None:
    paint_classes(tmp_path / "train", {"a": 20, "b": 30})
    for number in range(4):
        paint(tmp_path / val / "ab"[number % 2] / f"{number}.png", (200, number, 200))
    dataset = load(f"images:{tmp_path}", shape=SHAPE)
    check(dataset)
    assert colours(dataset.test) == {(200, number, 200) for number in range(4)}
    assert [np.bincount(getattr(dataset, part).labels).tolist() for part in PARTS] == [
        [18, 27],
        [2, 3],
        [2, 2],
    ]
    assert not colours(dataset.train) & colours(dataset.validation)


def test_train_val_and_test_are_taken_as_they_are(tmp_path: Path) -> None:
    for blue, part in enumerate(("train", "val", "test")):
        for name in ("a", "b"):
            paint(tmp_path / part / name / "deeper" / "0.png", (0, ord(name), blue))
    dataset = load(f"images:{tmp_path}", shape=SHAPE)
    check(dataset)
    for blue, part in enumerate(PARTS):
        assert colours(getattr(dataset, part)) == {(0, 97, blue), (0, 98, blue)}


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    assert load(
        f"images:{paint_classes(tmp_path, {'train': 5, 'bus': 5})}", shape=SHAPE
    ).classes == ("bus", "train")


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    paint_classes(tmp_path / "train", {"a": 5, "b": 5})
    paint_classes(tmp_path / "val", {"a": 5, "c": 5})
    assert "the same class folders" in refused(name=f"images:{tmp_path}", shape=SHAPE)
    shutil.rmtree(tmp_path / "val")
    paint_classes(tmp_path / "val", {"a": 5, "b": 5})
    paint_classes(tmp_path / "validation", {"a": 5, "b": 5})
    assert "val, validation" in refused(name=f"images:{tmp_path}", shape=SHAPE)


def test_every_kind_of_file_is_read_and_the_rest_passed_over(tmp_path: Path) -> None:
    names = [f"0{suffix}" for suffix in datasets.SUFFIXES] + ["1.JPG", "2.PnG"]
    for colour, folder in (((200, 0, 0), "a"), ((0, 0, 200), "b")):
        for name in names:
            paint(tmp_path / folder / name, colour)
        (tmp_path / folder / "notes.txt").write_text("no image")
        paint(tmp_path / folder / "._hidden.png", (0, 255, 0))
        paint(tmp_path / folder / ".ipynb_checkpoints" / "0.png", (0, 255, 0))
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("no class")
    dataset = load(f"images:{tmp_path}", shape=SHAPE)
    assert dataset.classes == ("a", "b")
    assert sum(len(getattr(dataset, part)) for part in PARTS) == 2 * len(names)
    for part in PARTS:
        assert pixels_of(getattr(dataset, part))[..., 1].max() < 10


def one(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The image in `path`, as a split decodes it."""
    split = datasets.FolderSplit((str(path),), np.zeros(1, np.int64), shape)
    image: NDArray[np.uint8] = split.batch(np.array([0]))[0]
    return image


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (40, 40), (10, 30)])
@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16, 1), (8, 20, 3), (24, 12, 1)])
def test_images_are_scaled_to_cover_and_cropped_at_the_centre(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    """Against resizing whole and cropping after; both round, so that a few levels may differ."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) * 255 / width, np.arange(height) * 255 / height)
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=98, subsampling=0)
    scale = max(shape[1] / width, shape[0] / height)
    whole = (round(width * scale), round(height * scale))
    left, top = (whole[0] - shape[1]) / 2, (whole[1] - shape[0]) / 2
    expected = (
        image.convert("L" if shape[2] == 1 else "RGB")
        .resize(whole, Image.Resampling.BILINEAR)
        .crop((int(left), int(top), int(left) + shape[1], int(top) + shape[0]))
    )
    wanted = np.asarray(expected, np.float64).reshape(shape)
    for name in ("a.png", "a.jpg"):
        got = one(tmp_path / name, shape)
        # Half a pixel of the target is where the two croppings may differ.
        slack = 255 / min(whole) / 2 + 4
        assert np.abs(got - wanted).max() <= slack
        assert abs(got.mean() - wanted.mean()) <= 255 / min(whole) / 2 + 1


def test_pixels_keep_their_meaning(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(path)
    assert (one(path, (4, 4, 3)) == (10, 20, 30)).all()  # alpha is dropped
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(path, transparency=b"\x00\x80")
    assert (one(path, (4, 4, 3)) == (9, 8, 7)).all()
    Image.new("1", (8, 8), 1).save(path)
    assert (one(path, (4, 4, 1)) == 255).all()
    Image.new("L", (8, 8), 77).save(path)
    assert (one(path, (4, 4, 3)) == 77).all()
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(path)
    with pytest.raises(InputError, match=r"a\.png .*8 bits a channel"):
        one(path, (4, 4, 1))


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (250, 0, 0))
    image.paste((0, 0, 250), (20, 0, 40, 20))  # red left, blue right
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=98)
    upright = one(tmp_path / "a.jpg", (40, 20, 3))
    assert upright[2, 10, 0] > 200
    assert upright[37, 10, 2] > 200


def test_constant_channels_do_not_divide_by_zero(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            paint(tmp_path / name / f"{number}.png", (0, 0, 255))
    dataset = load(f"images:{tmp_path}", shape=SHAPE)
    assert dataset.mean.tolist() == [0, 0, 1]
    np.testing.assert_allclose(dataset.std, 1 / 255, rtol=1e-6)


def test_statistics_of_many_images_come_from_a_thousand_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = paint_classes(tmp_path, {"a": 3, "b": 3})
    files = sorted(str(path) for path in folder.rglob("*.png"))
    labels = np.arange(1500) % 2
    split = datasets.FolderSplit(tuple(files[3 * label] for label in labels), labels, (2, 2, 3))
    decoded = []
    decode = datasets.FolderSplit._decode

    def counted(self: datasets.FolderSplit, index: int) -> NDArray[np.uint8]:
        decoded.append(index)
        return decode(self, index)

    monkeypatch.setattr(datasets.FolderSplit, "_decode", counted)
    dataset = datasets._dataset("many", split, (150, 150), [], ("a", "b"))
    assert len(dataset.train) == 1200
    assert len(set(decoded)) == 1000
    assert dataset.mean[0] == pytest.approx(30 / 255, rel=0.1)


@pytest.mark.parametrize(
    "shape", [None, (8, 8), (8, 8, 2), (0, 8, 3), (8, 8.0, 3), (8, 9999, 1), "888"]
)
def test_a_wrong_shape_is_refused(tmp_path: Path, shape: object) -> None:
    assert "shape" in refused(name=f"images:{tmp_path}", shape=shape)


@pytest.mark.parametrize("name", ["images", "images:"])
def test_an_image_folder_has_to_be_named(name: str) -> None:
    assert "images:PATH" in refused(name=name, shape=SHAPE)


def test_a_file_more_or_less_or_of_another_name_is_another_data_set(tmp_path: Path) -> None:
    folder = paint_classes(tmp_path / "own", {"a": 9, "b": 9})
    first = load(f"images:{folder}", shape=SHAPE)
    assert first.files == load(f"images:{folder}", shape=SHAPE).files != ""
    moved = folder.rename(tmp_path / "moved")
    assert load(f"images:{moved}", shape=SHAPE).files == first.files
    one = next((moved / "a").iterdir())
    renamed = one.rename(one.with_name(f"z{one.name}"))
    other = load(f"images:{moved}", shape=SHAPE)
    assert other.files != first.files
    renamed.unlink()
    assert load(f"images:{moved}", shape=SHAPE).files not in (first.files, other.files)
    assert load("digits").files == ""


def test_a_folder_stands_in_for_a_path_that_has_moved(tmp_path: Path) -> None:
    folder = paint_classes(tmp_path / "new", {"a": 3, "b": 3})
    moved = load(f"images:{tmp_path / 'old'}", folder=folder, shape=SHAPE)
    assert same(moved, load(f"images:{folder}", shape=SHAPE))
    assert moved.name == f"images:{folder}"


def test_folders_that_hold_no_classes_are_named(tmp_path: Path) -> None:
    assert f"{tmp_path} has too few class folders: 0" in refused(
        name=f"images:{tmp_path}", shape=SHAPE
    )
    paint_classes(tmp_path, {"a": 3})
    assert f"{tmp_path} has too few class folders: 1" in refused(
        name=f"images:{tmp_path}", shape=SHAPE
    )
    (tmp_path / "b").mkdir()
    assert f"{tmp_path / 'b'} holds no image" in refused(name=f"images:{tmp_path}", shape=SHAPE)


@pytest.mark.parametrize("name", ["absent", "file", "loop", "x" * 300, "nul\0"])
def test_what_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert str(tmp_path / name) in refused(name=f"images:{tmp_path / name}", shape=SHAPE)


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Yield a folder that all may enter, for a test during which this process is not root."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("closed", [".", "a", "a/deeper", "a/000.png"])
def test_what_may_not_be_read_is_named(ordinary_user: Path, closed: str) -> None:
    folder = paint_classes(ordinary_user / "images", {"a": 3, "b": 3})
    paint(folder / "a" / "deeper" / "3.png", (0, 0, 0))
    path = folder / closed
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        sentence = refused(name=f"images:{folder}", shape=SHAPE)
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o755)
    assert f"{path} cannot be read: Permission denied." == sentence


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp", ".tif"])
def test_a_broken_image_is_named(tmp_path: Path, suffix: str) -> None:
    """What Pillow's verify passes by is found at the latest when the image is decoded."""
    folder = paint_classes(tmp_path, {"a": 3, "b": 3}, suffix)
    path = folder / "a" / f"001{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()

    def load_and_decode() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = load(f"images:{folder}", shape=SHAPE)
        for part in PARTS:
            pixels_of(getattr(dataset, part))

    for damaged in (b"", b"<html></html>", whole[:20], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            load_and_decode()
        assert str(caught.value).startswith(f"{path} is damaged")
    path.write_bytes(whole)
    load_and_decode()


def test_a_broken_test_image_is_found_on_loading(tmp_path: Path) -> None:
    """Long before it is decoded."""
    paint_classes(tmp_path / "train", {"a": 3, "b": 3})
    path = paint_classes(tmp_path / "val", {"a": 1, "b": 1}) / "b" / "000.png"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path} is damaged" in refused(name=f"images:{tmp_path}", shape=SHAPE)


def test_an_image_that_goes_away_is_named(tmp_path: Path) -> None:
    folder = paint_classes(tmp_path, {"a": 3, "b": 3})
    dataset = load(f"images:{folder}", shape=SHAPE)
    shutil.rmtree(folder / "a")
    with pytest.raises(InputError, match=r"a.00\d\.png cannot be read: No such file"):
        pixels_of(dataset.train)
