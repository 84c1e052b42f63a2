"""Training: what a step sees and does, that a kill costs nothing, and that bad input is named."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codesign_kernel import train as phase
from codesign_kernel.batches import batch, indices
from codesign_kernel.datasets import ArraySplit, Dataset, load
from codesign_kernel.errors import InputError
from codesign_kernel.files import read_arrays, write_arrays
from codesign_kernel.space import load_space
from codesign_kernel.supernet import Supernet
from codesign_kernel.train import (
    PRESETS,
    Preset,
    accuracy,
    calibration_images,
    channels_last,
    load_supernet,
    optimiser_of,
    rate_at,
    subnet,
    summary,
    train,
)

ROOT = Path(__file__).parent.parent
SPACE = load_space("digits")
TINY = Preset(steps=6, batch=16, distil=0.5)
# At a low rate rounding errors do not grow, so that two ways to compute one run stay together.
CALM = Preset(steps=4, batch=16, rate=0.1, decay=0.01, distil=0.5)
State = Mapping[str, Tensor]
Starter = Callable[..., "subprocess.Popen[str]"]


class Interrupted(Exception):
    """What a `Lasting` split ends with."""


@dataclass(frozen=True, eq=False)
class Lasting(ArraySplit):
    """A split that can be read so many times."""

    left: list[int]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Interrupted
        return super().batch(indices)


def lasting(split: Any, reads: int) -> Lasting:
    return Lasting(split.images, split.labels, [reads])


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    """The weights and the file of an uninterrupted run of TINY with seed 0, never saved between."""
    path = tmp_path_factory.mktemp("whole") / "net"
    net = train(SPACE, digits, "tiny", 0, path, preset=TINY, save_every_s=1e9)
    return net.state_dict(), path


@pytest.fixture(scope="module")
def halfway(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run of TINY with seed 0 that was interrupted after three steps."""
    path = tmp_path_factory.mktemp("half") / "net"
    cut = replace(digits, train=lasting(digits.train, 3))
    with pytest.raises(Interrupted):
        train(SPACE, cut, "tiny", 0, path, preset=TINY, save_every_s=0)
    return path


# --- what a step sees ---------------------------------------------------------------------------


def pictures(n: int, shape: tuple[int, int, int], name: str = "cifar10") -> Dataset:
    """Random pictures without any black, so that one can tell how each was moved."""
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.integers(1, 256, (n, *shape), np.uint8), np.arange(n))
    moments = np.zeros(shape[2], np.float32), np.ones(shape[2], np.float32)
    classes = tuple(map(str, range(n)))
    return Dataset(name, split, split, split, classes, shape, *moments)


class Move(NamedTuple):
    """How a picture became an image of a batch."""

    label: int
    down: int
    right: int
    mirrored: bool


def moves(data: Dataset, images: Tensor) -> list[Move]:
    """Find each image among all shifts of all pictures; there must be just one that fits."""
    height, width, _ = data.shape
    originals = data.train.batch(np.arange(len(data.train)))
    pad = np.pad(originals, ((0, 0), (height, height), (width, width), (0, 0)))
    shifts = [
        Move(label, down, right, mirrored)
        for label in range(len(originals))
        for down in range(-4, 5)
        for right in range(-4, 5)
        for mirrored in (False, True)
    ]
    found: dict[bytes, Move] = {}
    for move in shifts:
        source = pad[move.label][:, ::-1] if move.mirrored else pad[move.label]
        top, left = height - move.down, width - move.right
        found[source[top : top + height, left : left + width].tobytes()] = move
    assert len(found) == len(shifts)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [found[image.tobytes()] for image in pixels]


@pytest.mark.parametrize(
    ("shape", "reach"), [((8, 8, 1), (0, 0)), ((16, 15, 1), (1, 0)), ((34, 50, 3), (2, 3))]
)
def test_batch_shifts_within_a_sixteenth_and_mirrors_half(
    shape: tuple[int, int, int], reach: tuple[int, int]
) -> None:
    data = pictures(5, shape)
    seen = []
    for step in range(60):
        images, labels = batch(data, 8, 3, step, augment=True)
        assert images.shape == (8, shape[2], *shape[:2])
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        seen += moves(data, images)
        assert [move.label for move in seen[-8:]] == labels.tolist()
    assert {move.down for move in seen} == {*range(-reach[0], reach[0] + 1)}
    assert {move.right for move in seen} == {*range(-reach[1], reach[1] + 1)}
    assert 0.4 < np.mean([move.mirrored for move in seen]) < 0.6


@pytest.mark.parametrize("name", ["digits", "images:/signs"])
def test_batch_never_mirrors_what_may_be_another_class_then(name: str) -> None:
    data = pictures(5, (8, 8, 1), name=name)
    assert not data.mirror
    seen = [
        move for step in range(30) for move in moves(data, batch(data, 8, 3, step, augment=True)[0])
    ]
    assert not any(move.mirrored for move in seen)


def test_batch_is_left_as_it_is_without_augmentation() -> None:
    data = pictures(5, (34, 50, 3))
    for step in range(10):
        images, labels = batch(data, 8, 3, step)
        assert moves(data, images) == [Move(label, 0, 0, False) for label in labels.tolist()]
        assert torch.equal(labels, batch(data, 8, 3, step, augment=True)[1])
        assert labels.tolist() == indices(5, 8, 3, step).tolist()


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**31 - 1))
def test_batches_walk_through_permutations(n: int, size: int, seed: int) -> None:
    data = pictures(n, (1, 1, 1))
    steps = -(-3 * n // size)
    labels = np.concatenate([batch(data, size, seed, step)[1] for step in range(steps)])
    for epoch in range(3):
        assert sorted(labels[epoch * n : (epoch + 1) * n]) == list(range(n))
    if n > 20:
        assert list(labels[:n]) != list(labels[n : 2 * n])


@given(st.integers(0, 2**31 - 2), st.integers(0, 10**6))
@settings(max_examples=20)
def test_batch_depends_on_seed_and_step_alone(seed: int, step: int) -> None:
    data = pictures(200, (16, 16, 1))
    one = batch(data, 16, seed, step, augment=True)
    batch(data, 16, seed + 1, step + 1)
    again = batch(data, 16, seed, step, augment=True)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[1], batch(data, 16, seed + 1, step)[1])
    assert not torch.equal(one[1], batch(data, 16, seed, step + 1)[1])


def test_rate_warms_up_and_falls_as_a_cosine() -> None:
    preset = Preset(steps=100, batch=1)
    rates = [rate_at(preset, step, 100, 0.4) for step in range(100)]
    assert rates[0] == pytest.approx(0.4 / 5)
    assert rates[50] == pytest.approx(0.2)
    assert rates[75] == pytest.approx(0.2 * (1 - 0.5**0.5))
    assert 0 < rates[-1] < 2e-4
    assert np.argmax(rates) == 4
    assert rate_at(preset, 0, 1, 0.4) == pytest.approx(0.4)


def test_only_convolutions_decay() -> None:
    net = Supernet(SPACE, [0.0], [1.0])
    optimiser = optimiser_of(net, Preset(steps=1, batch=1, decay=0.125))
    decay = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }
    expected = {id(p): 0.125 * (".weight" in n and "units" in n) for n, p in net.named_parameters()}
    assert decay == expected


# --- what a step does ---------------------------------------------------------------------------


def reference(dataset: Dataset, preset: Preset, seed: int, ranks: list[int], world: int) -> State:
    """The sandwich rule as the paper says it, in plain SGD steps of one process: the gradients of
    the shares `ranks` of each batch are averaged."""
    torch.manual_seed(seed)
    net = channels_last(Supernet(SPACE, dataset.mean.tolist(), dataset.std.tolist()))
    low, high = (SPACE.decode(genome) for genome in SPACE.extremes())
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for step in range(preset.steps):
        images, labels = batch(dataset, preset.batch, seed, step, preset.augment)
        drawn = SPACE.sample(preset.random, np.random.default_rng([seed, step, 2]))
        total = torch.zeros(())
        for rank in ranks:
            x, y = images[rank::world], labels[rank::world]
            answers = net(x, high)
            total = total + F.cross_entropy(answers, y)
            for small in [low, *map(SPACE.decode, drawn)]:
                logits = net(x, small)
                hard = -logits.log_softmax(1)[torch.arange(len(y)), y].mean()
                soft = -(answers.detach().softmax(1) * logits.log_softmax(1)).sum(1).mean()
                late = step / preset.steps >= preset.distil
                total = total + (0.5 * hard + 0.5 * soft if late else hard)
        net.zero_grad()
        torch.autograd.backward(total / len(ranks))
        rate = rate_at(preset, step, preset.steps, preset.rate)
        with torch.no_grad():
            for name, p in net.named_parameters():
                assert p.grad is not None
                gradient = p.grad + (preset.decay * p if p.ndim == 4 else 0)
                velocity[name] = 0.9 * velocity[name] + gradient
                p -= rate * (gradient + 0.9 * velocity[name])
    return net.state_dict()


def distance(one: State, other: State) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_training_is_the_sandwich_rule(digits: Dataset, tmp_path: Path) -> None:
    data = replace(digits, name="cifar10")  # which may be mirrored
    preset = replace(CALM, augment=True)
    weights = train(SPACE, data, "tiny", 0, tmp_path / "net", preset=preset).state_dict()
    assert distance(weights, reference(data, preset, 0, [0], 1)) < 1e-5
    # The bound is tight enough to tell what is left out or added.
    for change in ({"distil": 1.0}, {"decay": 0.0}, {"random": 1}, {"augment": False}):
        other = reference(data, replace(preset, **change), 0, [0], 1)
        assert distance(weights, other) > 1e-4


# What the processes that tests start have in common: the data set without scikit-learn, whose
# import would take longer than the training.
START = """
import os, resource, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from codesign_kernel import datasets, files, space, train

arrays, about = files.read_arrays(Path(sys.argv[1]))

@dataclass(frozen=True, eq=False)
class Slow(datasets.ArraySplit):
    left: list[int]

    def batch(self, indices):
        self.left[0] -= 1
        if self.left[0] < 0:
            print("waiting", flush=True)
            time.sleep(60)
        return super().batch(indices)

def digits(reads=1000):
    split = Slow(arrays["images"], arrays["labels"], [reads])
    return datasets.Dataset("digits", split, None, None, tuple("0123456789"), (8, 8, 1),
                            arrays["mean"], arrays["std"])
"""
PAIR = f"""{START}
net = train.train(space.load_space("digits"), digits(), "tiny", 0, Path("net"),
                  preset=train.{CALM}, save_every_s=0)
weights = {{name: value.numpy() for name, value in net.state_dict().items()}}
files.write_arrays(Path(f"rank{{os.environ['RANK']}}"), weights, {{}})
"""
# With a limit the kernel kills the process in the middle of the first write that is longer.
KILLED = f"""{START}
reads, limit = int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
train.train(space.load_space("digits"), digits(reads), "tiny", 0, Path("net"),
            preset=train.{TINY}, save_every_s=0)
"""


@pytest.fixture(scope="module")
def start(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Starter:
    """Start a Python program, in the given folder, with the data set as its first argument."""
    data = tmp_path_factory.mktemp("data") / "digits"
    split = digits.train
    arrays = {"images": split.batch(np.arange(len(split))), "labels": split.labels}
    write_arrays(data, arrays | {"mean": digits.mean, "std": digits.std}, {})
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(
        folder: Path, *program: str, arguments: tuple[int, ...] = ()
    ) -> subprocess.Popen[str]:
        command = [sys.executable, *program, str(data), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    return start


def test_two_processes_average_their_gradients(
    digits: Dataset, start: Starter, tmp_path: Path
) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(tmp_path, *torchrun, "pair.py")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "pair.py", "rank0", "rank1"]
    zero, one = (
        {name: torch.from_numpy(array) for name, array in read_arrays(tmp_path / rank)[0].items()}
        for rank in ("rank0", "rank1")
    )
    assert same(zero, one)
    assert same(zero, load_supernet(tmp_path / "net").state_dict())
    assert distance(zero, reference(digits, CALM, 0, [0, 1], 2)) < 1e-5
    for alone in ([0], [1]):  # had each process kept to the gradients of its half
        assert distance(zero, reference(digits, CALM, 0, alone, 2)) > 1e-2


@pytest.mark.parametrize(("world", "size"), [("3", 16), ("16", 16), ("32", 16)])
def test_shares_of_a_batch_must_be_equal_and_enough_for_bn(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str, size: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match=f"processes is {world}, .* batch of {size}") as caught:
        train(SPACE, digits, "tiny", 0, tmp_path / "net", preset=Preset(steps=1, batch=size))
    sentence(caught.value)


def test_quick_preset_learns_digits(digits: Dataset, tmp_path: Path) -> None:
    net = train(SPACE, digits, "quick", 0, tmp_path / "net")
    small, large = (SPACE.decode(genome) for genome in SPACE.extremes())
    calibration = calibration_images(digits)
    assert accuracy(subnet(net, large, calibration), digits.test) >= 98
    assert accuracy(subnet(net, small, calibration), digits.test) >= 92
    found = summary(net, digits)
    assert found["largest"] == accuracy(subnet(net, large, calibration), digits.validation)
    assert found["smallest"] == accuracy(subnet(net, small, calibration), digits.validation)
    assert found["16 random, lowest"] < found["16 random, mean"] < found["16 random, highest"]
    assert len(found) == 5


def test_seed_decides(digits: Dataset, whole: tuple[State, Path], tmp_path: Path) -> None:
    again = train(SPACE, digits, "tiny", 0, tmp_path / "again", preset=TINY)
    assert same(again.state_dict(), whole[0])
    assert not again.training
    other = train(SPACE, digits, "tiny", 1, tmp_path / "other", preset=TINY)
    assert distance(other.state_dict(), whole[0]) > 1e-2


def test_training_reads_no_validation_or_test_image(
    digits: Dataset, whole: tuple[State, Path], tmp_path: Path
) -> None:
    sealed = replace(digits, validation=lasting(digits.validation, 0), test=lasting(digits.test, 0))
    net = train(SPACE, sealed, "tiny", 0, tmp_path / "net", preset=TINY)
    assert same(net.state_dict(), whole[0])
    assert len(calibration_images(sealed)) == 1024


# --- a kill costs nothing -----------------------------------------------------------------------


def test_killed_training_goes_on_to_the_very_same_weights(
    digits: Dataset, whole: tuple[State, Path], start: Starter, tmp_path: Path
) -> None:
    path = tmp_path / "net"
    with start(tmp_path, "-c", KILLED, arguments=(2, 0)) as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert read_arrays(path)[1]["step"] == 2

    # Then killed again, this time while it writes: the old checkpoint stays, whole.
    before = path.read_bytes()
    process = start(tmp_path, "-c", KILLED, arguments=(100, len(before) // 2))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGXFSZ, output
    assert path.read_bytes() == before
    others = [other.stat().st_size for other in tmp_path.iterdir() if other != path]
    assert others == [len(before) // 2]

    net = train(SPACE, digits, "tiny", 0, path, preset=TINY)
    assert same(net.state_dict(), whole[0])
    arrays, about = read_arrays(path)
    expected, about_whole = read_arrays(whole[1])
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    assert about | {"seconds": 0} == about_whole | {"seconds": 0}


def test_interrupted_training_goes_on_from_any_step(
    digits: Dataset, whole: tuple[State, Path], tmp_path: Path
) -> None:
    path = tmp_path / "net"
    for step in range(TINY.steps):
        cut = replace(digits, train=lasting(digits.train, min(step, 1)))
        with pytest.raises(Interrupted):
            train(SPACE, cut, "tiny", 0, path, preset=TINY, save_every_s=0)
        assert read_arrays(path)[1]["step"] == step
        with pytest.raises(InputError, match=f"only to step {step} of 6; run `codesign train`"):
            load_supernet(path)
    net = train(SPACE, digits, "tiny", 0, path, preset=TINY)
    assert same(net.state_dict(), whole[0])


def test_finished_training_returns_at_once(digits: Dataset, whole: tuple[State, Path]) -> None:
    weights, path = whole
    before = path.stat()
    unread = replace(digits, train=lasting(digits.train, 0))
    net = train(SPACE, unread, "tiny", 0, path, preset=TINY)
    assert same(net.state_dict(), weights)
    assert path.stat() == before
    assert same(load_supernet(path).state_dict(), weights)
    assert not load_supernet(path).training


def test_a_straggler_leaves_what_another_finished(
    digits: Dataset, whole: tuple[State, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, finished = whole
    path = tmp_path / "net"

    def meanwhile(*_: object) -> None:
        shutil.copy(finished, path)

    monkeypatch.setattr(phase, "check_finite", meanwhile)
    net = train(SPACE, digits, "tiny", 0, path, preset=TINY, save_every_s=0)
    assert same(net.state_dict(), weights)
    assert path.read_bytes() == finished.read_bytes()  # with its seconds: measurements go by it


# --- bad input is named -------------------------------------------------------------------------

Change = Callable[[dict[str, np.ndarray], dict[str, Any]], object]
DAMAGES: dict[str, Change] = {
    "step of .* is 7, but must be from 0 to 6": lambda _, about: about.update(step=7),
    "step of .* is -1": lambda _, about: about.update(step=-1),
    "step of .* is '3'": lambda _, about: about.update(step="3"),
    "step of .* is True": lambda _, about: about.update(step=True),
    "step of .* is None": lambda _, about: about.pop("step"),
    "steps of .* is None": lambda _, about: about.pop("steps"),
    "steps of .* is 0": lambda _, about: about.update(steps=0),
    "lacks the list of losses": lambda _, about: about.pop("losses"),
    "seconds of .* is None": lambda _, about: about.pop("seconds"),
    "seconds of .* is -1": lambda _, about: about.update(seconds=-1),
    "another seed": lambda _, about: about.update(seed=1),
    "another preset": lambda _, about: about.update(preset="full"),
    "another steps": lambda _, about: about.update(steps=12),
    "another batch": lambda _, about: about.update(batch=32),
    "another rate": lambda _, about: about.update(rate=0.1),
    "another augment": lambda _, about: about.update(augment=True),
    "another distil": lambda _, about: about.pop("distil"),
    "another dataset": lambda _, about: about.update(dataset="cifar10"),
    "another space": lambda _, about: about["space"].update(name="fashion"),
    "lacks units.3.weight in float32 of .24, 24, 5, 5.": lambda arrays, _: arrays.pop(
        "units.3.weight"
    ),
    "lacks units.1.scale in float32 of .3, 24.": lambda arrays, _: arrays.update(
        {"units.1.scale": np.ones((3, 25), np.float32)}
    ),
    "lacks classifier.bias in float32": lambda arrays, _: arrays.update(
        {"classifier.bias": np.zeros(10, np.int64)}
    ),
    "lacks momentum/units.0.shift in": lambda arrays, _: arrays.pop("momentum/units.0.shift"),
    "lacks momentum/units.2.weight in": lambda arrays, _: arrays.update(
        {"momentum/units.2.weight": np.zeros(1, np.float32)}
    ),
    "classifier.bias has numbers that are not finite": lambda arrays, _: arrays[
        "classifier.bias"
    ].fill(np.nan),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoint_that_does_not_fit_is_refused(
    digits: Dataset, halfway: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "net"
    arrays, about = read_arrays(halfway)
    DAMAGES[damage](arrays, about)
    write_arrays(path, arrays, about)
    before = path.read_bytes()
    with pytest.raises(InputError, match=damage) as caught:
        train(SPACE, digits, "tiny", 0, path, preset=TINY)
    sentence(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.5, 0.9999])
def test_truncated_checkpoint_is_refused(
    digits: Dataset, halfway: Path, tmp_path: Path, part: float
) -> None:
    path = tmp_path / "net"
    content = halfway.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    for read in (
        lambda: train(SPACE, digits, "tiny", 0, path, preset=TINY),
        lambda: load_supernet(path),
    ):
        with pytest.raises(InputError, match="damaged") as caught:
            read()
        sentence(caught.value)


def test_checkpoint_that_is_no_file_of_this_program_is_refused(
    digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("A page of text, which is no safetensors file.")
    write_arrays(tmp_path / "other", {"weight": np.zeros(3)}, {"design": "w8k3"})
    for name in ("folder", "text", "other"):
        for read in (
            lambda path: train(SPACE, digits, "tiny", 0, path, preset=TINY),
            load_supernet,
        ):
            with pytest.raises(InputError, match=name) as caught:
                read(tmp_path / name)
            sentence(caught.value)
    with pytest.raises(InputError, match=r"absent does not exist\."):
        load_supernet(tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "change"),
    [
        ("space of .* is None", lambda arrays, about: about.pop("space")),
        ("stages of space of", lambda arrays, about: about["space"].update(stages=[])),
        ("lacks units.0.weight", lambda arrays, about: about["space"]["stem"].update(width=16)),
        ("lacks mean in float32", lambda arrays, about: arrays.pop("mean")),
    ],
)
def test_damaged_supernet_is_refused(
    whole: tuple[State, Path], tmp_path: Path, damage: str, change: Change
) -> None:
    arrays, about = read_arrays(whole[1])
    change(arrays, about)
    write_arrays(tmp_path / "net", arrays, about)
    with pytest.raises(InputError, match=damage) as caught:
        load_supernet(tmp_path / "net")
    sentence(caught.value)


def test_place_that_cannot_be_written_shows_before_any_step(
    digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    unread = replace(digits, train=lasting(digits.train, 0))
    with pytest.raises(InputError, match="cannot be written"):
        train(SPACE, unread, "tiny", 0, tmp_path / "file" / "net", preset=TINY)


@pytest.mark.parametrize("steps", [20, 55])
def test_diverging_training_is_named_and_never_saved(
    digits: Dataset, tmp_path: Path, steps: int
) -> None:
    path = tmp_path / "net"
    preset = Preset(steps=steps, batch=16, rate=1e6, random=0)
    with pytest.raises(InputError, match=r"training diverged: .* at step \d+") as caught:
        train(SPACE, digits, "tiny", 0, path, preset=preset, save_every_s=0)
    sentence(caught.value)
    arrays, about = read_arrays(path)
    assert about["step"] < steps
    assert all(np.isfinite(arrays[name]).all() for name in arrays if "momentum" not in name)


def test_data_that_does_not_fit_the_space_is_refused(digits: Dataset, tmp_path: Path) -> None:
    fewer = replace(digits, classes=digits.classes[:9])
    with pytest.raises(InputError, match=r"in 9 classes, but space digits is for .* in 10"):
        train(SPACE, fewer, "tiny", 0, tmp_path / "net", preset=TINY)
    with pytest.raises(InputError, match=r"images of \(8, 8, 1\) .* for \(28, 28, 1\)") as caught:
        train(load_space("fashion"), digits, "tiny", 0, tmp_path / "net", preset=TINY)
    sentence(caught.value)
    assert not (tmp_path / "net").exists()


def test_unknown_preset_and_seed_are_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="preset is 'slow', but must be one of: quick, standard"):
        train(SPACE, digits, "slow", 0, tmp_path / "net")
    with pytest.raises(InputError, match="seed is -1"):
        train(SPACE, digits, "quick", -1, tmp_path / "net")
    assert set(PRESETS) == {"quick", "standard", "full"}


# --- accuracy -----------------------------------------------------------------------------------


class Brightness(nn.Module):
    """Answers with the class whose number is the first pixel's grey level."""

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 255).round().long(), 256).float()


@pytest.mark.parametrize(
    ("levels", "labels", "expected"),
    [
        ([3, 1, 4, 1], [3, 1, 4, 1], 100.0),
        ([3, 1, 4, 1], [3, 1, 4, 2], 75.0),
        ([0, 0, 0], [1, 2, 3], 0.0),
        ([7] * 1001, [7] * 700 + [8] * 301, 100 * 700 / 1001),
    ],
)
def test_accuracy_counts_right_answers(
    levels: list[int], labels: list[int], expected: float
) -> None:
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1)
    split = ArraySplit(images, np.array(labels))
    assert accuracy(Brightness(), split) == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]


def test_weights_are_of_the_files_they_were_trained_on(tmp_path: Path, digits: Dataset) -> None:
    own = replace(digits, name="images:own", files="0123456789ab")
    path = tmp_path / "supernet.safetensors"
    train(SPACE, own, "quick", 0, path, preset=TINY)
    load_supernet(path, own)
    load_supernet(path)
    with pytest.raises(InputError, match="images:own does not hold the same image files as when"):
        load_supernet(path, replace(own, files="ba9876543210"))
    with pytest.raises(InputError, match="was trained with another list of images"):
        train(SPACE, replace(own, files="ba9876543210"), "quick", 0, path, preset=TINY)
