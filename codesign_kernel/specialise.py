"""One subnet trained by itself: specialised from the supernet's weights, or alone from scratch."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm, trange

from . import graphs
from .batches import batch, indices
from .checkpoint import fill, fill_momenta, momenta_of
from .datasets import Dataset
from .errors import InputError, integer
from .files import digest, read_arrays, write_arrays
from .space import Architecture, SearchSpace
from .supernet import Network, Subnet, Supernet, extract, recalibrate
from .threads import ranks
from .train import (
    CHUNK,
    Preset,
    calibration_images,
    channels_last,
    check_data,
    check_finite,
    chunks,
    optimiser_of,
    rate_at,
    subnet,
)

TEMPERATURE = 2.0  # softens the teacher's answers (Hinton, Vinyals and Dean, 2015, section 2)
HARD = 0.1  # weight of the labels beside the teacher's answers
SAVE_EVERY_S = 20.0


def fit_subnet(
    network: Network, dataset: Dataset, preset: Preset, steps: int, peak: float, seed: int,
    progress: str = "train subnet", answers: Tensor | None = None, kept: Path | None = None,
) -> Network:  # fmt: skip
    """Train one plain network for `steps` steps on the labels, and on a teacher's `answers` if
    given, logits (training images, classes); recalibrate its BN. It is trained where it is, on
    whatever processor; on CUDA by `graphs.fit`, of which several threads may call this. On another,
    how far it has come is stored in the file `kept`, if given, from where another call goes on.

    Raises InputError if the data set does not fit the network's space, training diverges, or the
    file is damaged.
    """
    torch.set_num_threads(1)
    check_data(network.space, dataset)
    network, place = channels_last(network.train()), network.mean.device
    rates = [rate_at(preset, step, steps, peak) for step in range(steps)]
    if place.type == "cuda":
        there = None if answers is None else answers.to(place)

        def loss_there(images: Tensor, labels: Tensor, order: Tensor) -> Tensor:
            return _loss(network(images), labels, None if there is None else there[order])

        optimiser = optimiser_of(network, preset, fused=True)
        batches = graphs.Batches(dataset, preset, steps, seed, place)
        graphs.fit(graphs.Step(network, optimiser, loss_there, batches, rates), progress)
        return recalibrate(network, calibration_images(dataset))
    optimiser = optimiser_of(network, preset)
    start = _restore(kept, network, optimiser, steps) if kept and kept.exists() else 0
    saved = time.monotonic()
    # Of many in a row, below the bar that counts them, a short one is not shown and none stays.
    for step in trange(start, steps, initial=start, total=steps, desc=progress, unit="step",
                       leave=None, delay=1, disable=ranks()[0] > 0):  # fmt: skip
        images, labels = (part.to(place) for part in
                          batch(dataset, preset.batch, seed, step, preset.augment))  # fmt: skip
        for group in optimiser.param_groups:
            group["lr"] = rates[step]
        optimiser.zero_grad()
        taught = None
        if answers is not None:
            taught = answers[indices(len(dataset.train), preset.batch, seed, step)].to(place)
        loss = _loss(network(images), labels, taught)
        torch.autograd.backward(loss)
        optimiser.step()
        check_finite(network, loss, step)
        if kept and (step + 1 == steps or time.monotonic() - saved > SAVE_EVERY_S):
            saved = time.monotonic()
            _save(kept, network, optimiser, step + 1)
    return recalibrate(network, calibration_images(dataset))


def _save(path: Path, network: Network, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Store weights and momenta after so many steps; BN's statistics are measured at the end."""
    arrays = {name: value.detach().numpy() for name, value in network.named_parameters()}
    write_arrays(path, arrays | momenta_of(network, optimiser), {"step": step})


def _restore(path: Path, network: Network, optimiser: torch.optim.Optimizer, steps: int) -> int:
    """Read what `_save` stored, and return after how many steps."""
    arrays, about = read_arrays(path)
    fill(path, arrays, dict(network.named_parameters()))
    fill_momenta(path, arrays, network, optimiser)
    return integer(f"step of {path}", about.get("step"), 1, steps)


def _loss(logits: Tensor, labels: Tensor, answers: Tensor | None) -> Tensor:
    loss = F.cross_entropy(logits, labels)
    if answers is None:
        return loss
    soft = F.softmax(answers.float() / TEMPERATURE, dim=1)
    taught = F.cross_entropy(logits / TEMPERATURE, soft) * TEMPERATURE**2
    return HARD * loss + (1 - HARD) * taught


@torch.no_grad()
def answers_of(supernet: Supernet, dataset: Dataset) -> Tensor:
    """Return what the largest subnet answers to each training image: logits (images, classes),
    float16. They are worth keeping: every specialisation learns from the same ones."""
    torch.set_num_threads(1)
    largest = supernet.space.decode(supernet.space.extremes()[1])
    teacher = channels_last(subnet(supernet, largest, calibration_images(dataset)))
    parts = tqdm(chunks(dataset.train), "teacher", -(-len(dataset.train) // CHUNK), unit="batch")
    return torch.cat([teacher(images).half() for images, _ in parts])


def kept_answers(study_folder: Path, supernet: Supernet, dataset: Dataset) -> Tensor:
    """Return `answers_of`, from the study's file if it holds them for the supernet there.

    Else they are stored in it; where that cannot be, they are only returned.
    """
    path, of = study_folder / "answers.safetensors", digest(study_folder / "supernet.safetensors")
    with suppress(InputError):  # absent or damaged
        arrays, about = read_arrays(path)
        kept = arrays.get("answers", np.zeros(0))
        asked = (of, (len(dataset.train), len(dataset.classes)), np.dtype(np.float16))
        if (about.get("supernet"), kept.shape, kept.dtype) == asked and np.isfinite(kept).all():
            return torch.from_numpy(kept)
    answers = answers_of(supernet, dataset)
    with suppress(InputError):  # a shared study may be read-only
        write_arrays(path, {"answers": answers.numpy()}, {"supernet": of})
    return answers


def specialise(
    supernet: Supernet, architecture: Architecture, dataset: Dataset, preset: Preset, seed: int,
    answers: Tensor | None = None, steps: int | None = None, kept: Path | None = None,
) -> Subnet:  # fmt: skip
    """Fine-tune one subnet, from the supernet's weights, for `steps` steps, or if not given for a
    seventh of the preset's. `answers` are those of `answers_of`, which is called if they are
    absent; `kept` is that of `fit_subnet`.

    Many small steps move further than few large ones: the batch is half the preset's. Raises
    InputError as `fit_subnet` does, and if the space does not hold the architecture.
    """
    start = extract(supernet, architecture)
    check_data(supernet.space, dataset)
    if answers is None:
        answers = answers_of(supernet, dataset)
    half = replace(preset, batch=max(1, preset.batch // 2))
    return fit_subnet(start, dataset, half, steps or preset.steps // 7, preset.rate * 2 / 3, seed,
                      "specialise", answers, kept)  # fmt: skip


def train_alone(
    space: SearchSpace, architecture: Architecture, dataset: Dataset, preset: Preset, seed: int,
    place: str = "cpu",
) -> Subnet:  # fmt: skip
    """Train one architecture from scratch for all the preset's steps: the baseline. `place` is
    torch's name of the processor that does it.

    Raises InputError as `fit_subnet` does, and if the space does not hold the architecture.
    """
    check_data(space, dataset)
    with graphs.LOCK:
        torch.manual_seed(seed)
        network = Subnet(space, architecture)
    return fit_alone(network, dataset, preset, seed, place)


def fit_alone(
    network: Network, dataset: Dataset, preset: Preset, seed: int, place: str = "cpu"
) -> Network:
    """Train any plain network as `train_alone` trains an architecture, from the weights it has."""
    # The data set's own statistics, as in the supernet.
    network.mean.copy_(torch.from_numpy(dataset.mean).reshape(1, -1, 1, 1))
    network.std.copy_(torch.from_numpy(dataset.std).reshape(1, -1, 1, 1))
    network = network.to(place)
    return fit_subnet(network, dataset, preset, preset.steps, preset.rate, seed, "train alone")
