"""A small space whose designs can all be enumerated, predictors for it, and a tiny real study."""

import ctypes
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from codesign_kernel import baselines, cost
from codesign_kernel.accelerator import Accelerators, Device, load_device
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import usable
from codesign_kernel.predict import (
    Predictors,
    accuracy_features,
    accuracy_surrogate,
    hardware_features,
    hardware_surrogate,
)
from codesign_kernel.space import Genomes, SearchSpace, Stage, load_space
from codesign_kernel.study import Study, create, open_study
from codesign_kernel.workload import layers_of, totals

DEVICES = ("ecp5-25f", "ecp5-85f")
SPACE = SearchSpace(
    "tiny", "digits", (8, 8, 1), 10, 8, 3, 1,
    (Stage((8, 16), (1, 2), (3, 5), 1), Stage((16, 24), (1, 2), (1, 3, 5), 2)),
)  # fmt: skip
ARCHITECTURES, DESIGNS = 20, 30
_made: list[Path] = []


def score(space: SearchSpace, genomes: Genomes) -> np.ndarray:
    """An accuracy in %, made up for tests: it grows with MACs, and saturates."""
    macs = np.log2(totals(space, genomes)[0])
    return np.asarray(60 + 39 * (1 - np.exp(-(macs - 14) / 4)) - genomes[:, 1])


@cache
def engines(device: Device) -> Accelerators:
    """Return the accelerators that the device holds."""
    return usable(device, Constraints())


def pairs(space: SearchSpace, device: Device, n: int, seed: int) -> tuple[Genomes, Accelerators]:
    """Draw `n` designs of a device."""
    rng = np.random.default_rng(seed)
    grid = engines(device)
    return space.sample(n, rng), grid[rng.integers(0, len(grid), n)]


def predictors(
    space: SearchSpace = SPACE, n: int = 40, names: tuple[str, ...] = DEVICES
) -> Predictors:
    """Fit predictors to `n` architectures' `score` and the closed form of `n` designs a device."""
    devices = {name: load_device(name) for name in names}
    genomes = space.sample(n, np.random.default_rng(0))
    accuracy = accuracy_surrogate().fit(accuracy_features(space, genomes)[0], score(space, genomes))
    found = Predictors(space, devices, accuracy)
    for seed, (name, device) in enumerate(devices.items()):
        genomes, acc = pairs(space, device, n, seed)
        layers = layers_of(space, genomes)
        figures = cost.figures(layers, acc, device)
        X, _ = hardware_features(layers, acc, device, ())
        for quantity in ("latency_ms", "power_w"):
            model = hardware_surrogate().fit(X[quantity], getattr(figures, quantity))
            found.hardware[quantity, name] = model
    return found


def quick_fit(patch: pytest.MonkeyPatch) -> None:
    """Cross-validate fits in two folds and not in ten."""
    patch.setattr(baselines, "compare", partial(baselines.compare, folds=2))


def study(factory: pytest.TempPathFactory, root: Path) -> Study:
    """Return a copy at `root` of a study of the digits: 40 training steps, all phases done.

    It is made once a process.
    """
    if not _made:
        _made.append(_make(factory.mktemp("study") / "made"))
    shutil.copytree(_made[0], root)
    return open_study(root)


def _make(root: Path) -> Path:
    from codesign_kernel import datasets, explore, fits, measure, meters, train

    space, dataset = load_space("digits"), datasets.load("digits")
    made = create(root, space, "digits", "quick", 0, [load_device(name) for name in DEVICES])
    preset = train.Preset(steps=40, batch=64)
    train.train(space, dataset, "quick", 0, made.supernet_path, preset=preset)
    accuracy, hardware = measure.plan(made, ARCHITECTURES, DESIGNS)
    measure.measure(made, meters.Accuracy(made), accuracy, "accuracy")
    measure.measure(made, meters.Closed(made), hardware, "hardware")
    with pytest.MonkeyPatch.context() as patch:
        quick_fit(patch)
        fits.fit(made)
    found = explore.explore(made.predictors(), DEVICES, Constraints(), generations=5)
    made.save_exploration(found, Constraints(), sample=True)
    return root


def contents(root: Path) -> dict[str, bytes]:
    """The files in a folder, by their path in it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def assert_one_sentence(text: str) -> None:
    """The text is one line that ends as a sentence does, and quotes no exception."""
    assert "\n" not in text, text
    assert text.endswith("."), text
    assert "Error(" not in text, text
    assert len(text) < 700, text


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Make a folder and its files read-only, for the administrator too."""
    paths = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & 0o555)
    with _without_override():
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode)


@contextmanager
def _without_override() -> Iterator[None]:
    """Give up, for a while, Linux's capability to write where permissions forbid it."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    held, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    fewer[:] = [*held]
    fewer[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of the effective ones
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing on fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
