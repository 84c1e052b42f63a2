"""Phase 1: train the supernet, apart from any hardware, and measure its subnets.

Each step follows the sandwich rule (Yu and Huang, Universally Slimmable Networks, ICCV 2019): the
largest, the smallest and a few random subnets see the same images, and their gradients add up. All
learn from the labels at first; late, the others also learn from the largest one's answers.

What a step draws depends on the seed and the step's number alone. So a run that was killed goes on
from its checkpoint to the very result of an uninterrupted one.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm, trange

from .batches import batch, to_tensor
from .checkpoint import fill, fill_momenta, momenta_of
from .datasets import Dataset, Split
from .errors import InputError, choice, integer, number
from .files import read_arrays, write_arrays
from .margins import Codes, encode
from .space import Architecture, SearchSpace, space_of, to_table
from .supernet import Plain, Subnet, Supernet, extract, recalibrate
from .threads import ranks

CALIBRATION_IMAGES = 1024
CHUNK = 500  # images evaluated at a time
FILES = "list of images"  # in a checkpoint
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Preset:
    """The size of a training run. `rate` is the peak learning rate of SGD with momentum 0.9, which
    warms up over 5 % of the steps and falls as a cosine; `distil` is the fraction of the steps
    after which the largest subnet teaches the others, `random` how many random subnets a step.
    `augment`: whether images are shifted and mirrored, which pays only where each is seen often."""

    steps: int
    batch: int
    rate: float = 0.3
    decay: float = 1e-4
    distil: float = 0.7
    random: int = 2
    augment: bool = False


PRESETS = {
    "quick": Preset(steps=320, batch=64, rate=0.1),
    "standard": Preset(steps=4400, batch=128),
    "full": Preset(steps=20000, batch=128, augment=True),
}


def channels_last(network: Network) -> Network:
    """Return the network with weights laid out as `to_tensor` lays out images: a third faster."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def rate_at(preset: Preset, step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine to zero."""
    warm = min(1.0, (step + 1) / max(1.0, 0.05 * steps))
    return float(peak * warm * 0.5 * (1 + np.cos(np.pi * step / steps)))


def optimiser_of(network: nn.Module, preset: Preset, fused: bool | None = None) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; only convolutions and no BN or biases decay."""
    convolutions = [p for p in network.parameters() if p.ndim == 4]
    others = [p for p in network.parameters() if p.ndim != 4]
    groups = [
        {"params": convolutions, "weight_decay": preset.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=preset.rate, momentum=0.9, nesterov=True, fused=fused)


def train(
    space: SearchSpace, dataset: Dataset, preset_name: str, seed: int, path: Path, *,
    preset: Preset | None = None, save_every_s: float = 20.0,
) -> Supernet:  # fmt: skip
    """Train a supernet to the end, from the checkpoint at `path` if there is one, and return it.

    The checkpoint is written at the start, every `save_every_s` seconds and at the end. Under
    torchrun each process takes its share of every batch, gradients are averaged, and process 0
    writes. Raises InputError if the data set does not fit the space, the checkpoint cannot be
    written, is damaged or of another run, or training diverges.
    """
    torch.set_num_threads(1)
    check_data(space, dataset)
    preset = preset or PRESETS[choice("preset", preset_name, tuple(PRESETS))]
    torch.manual_seed(integer("seed", seed, 0, 2**31 - 1))
    rank, world = _join(preset.batch)
    net = channels_last(Supernet(space, dataset.mean.tolist(), dataset.std.tolist()))
    optimiser = optimiser_of(net, preset)
    run = {"space": to_table(space), "dataset": dataset.name, "seed": seed, "preset": preset_name,
           **asdict(preset)}  # fmt: skip
    if dataset.files:
        run[FILES] = dataset.files
    start, seconds = 0, 0.0
    losses: list[list[float]] = []
    if path.exists():
        start, losses, seconds = _restore(path, net, optimiser, run)
    elif rank == 0:  # so that a folder that cannot be written shows before the work, not after
        _save(path, net, optimiser, run, 0, losses, seconds)
    low, high = (space.decode(genome) for genome in space.extremes())
    saved = began = time.monotonic()
    bar = trange(start, preset.steps, initial=start, total=preset.steps, desc="train supernet",
                 unit="step", disable=rank > 0)  # fmt: skip
    for step in bar:
        images, labels = batch(dataset, preset.batch, seed, step, preset.augment)
        images, labels = images[rank::world], labels[rank::world]
        rng = np.random.default_rng([seed, step, 2])
        others = [space.decode(genome) for genome in space.sample(preset.random, rng)]
        for group in optimiser.param_groups:
            group["lr"] = rate_at(preset, step, preset.steps, preset.rate)
        optimiser.zero_grad()
        logits = net(images, high)
        loss = F.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        late = step >= preset.distil * preset.steps
        teacher = F.softmax(logits.detach(), dim=1) if late else None
        for architecture in [low, *others]:
            torch.autograd.backward(_loss(net(images, architecture), labels, teacher))
        if world > 1:
            for gradient in (p.grad for p in net.parameters() if p.grad is not None):
                dist.all_reduce(gradient)
                gradient /= world
        optimiser.step()
        check_finite(net, loss, step)
        if step % 50 == 0:
            losses.append([step, round(loss.item(), 4)])
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if rank == 0 and time.monotonic() - saved > save_every_s:
            saved = time.monotonic()
            _save(path, net, optimiser, run, step + 1, losses, seconds + saved - began)
    if rank == 0 and start < preset.steps:
        _save(path, net, None, run, preset.steps, losses, seconds + time.monotonic() - began)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return net.eval()


def _loss(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    return hard if teacher is None else 0.5 * hard + 0.5 * F.cross_entropy(logits, teacher)


def _join(size: int) -> tuple[int, int]:
    """Return this process's rank and the number of processes that share batches of `size`, joining
    torchrun's group if any. Raises InputError if the shares are unequal or too small for BN."""
    world = ranks()[1]
    if world == 1:
        return 0, 1
    if size % world or size < 2 * world:
        raise InputError(
            f"the number of processes is {world}, but must divide the batch of {size} images and "
            "leave each at least 2."
        )
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def check_finite(network: nn.Module, loss: Tensor, step: int) -> None:
    """Raise InputError if the loss or a weight is no finite number; asks a GPU once, and waits."""
    if not torch.stack([torch.isfinite(p).all() for p in (loss, *network.parameters())]).all():
        raise InputError(f"training diverged: the loss or a weight is not finite at step {step}.")


def check_data(space: SearchSpace, dataset: Dataset) -> None:
    """Raise InputError if the images or the classes are not those that the space is for."""
    if dataset.shape != space.input or len(dataset.classes) != space.classes:
        raise InputError(
            f"data set {dataset.name} has images of {dataset.shape} in {len(dataset.classes)} "
            f"classes, but space {space.name} is for {space.input} in {space.classes}."
        )


def _save(path: Path, net: Supernet, optimiser: torch.optim.SGD | None, run: dict[str, Any],
          step: int, losses: list[list[float]], seconds: float) -> None:  # fmt: skip
    if _is_finished(path, run):  # by another process, to the same weights: what was measured with
        return  # that very file stays valid
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    if optimiser is not None and step:
        arrays |= momenta_of(net, optimiser)
    about = {**run, "step": step, "losses": losses, "seconds": round(seconds, 1)}
    write_arrays(path, arrays, about)


def _is_finished(path: Path, run: dict[str, Any]) -> bool:
    with suppress(InputError):  # absent or damaged
        about = read_arrays(path)[1]
        return about | run == about and about.get("step") == run["steps"]
    return False


def _restore(
    path: Path, net: Supernet, optimiser: torch.optim.SGD, run: dict[str, Any]
) -> tuple[int, list[list[float]], float]:
    arrays, about = read_arrays(path)
    step = _progress(path, about)
    for key, value in run.items():
        if about.get(key) != value:
            raise InputError(
                f"{path} was trained with another {key}; choose another study folder or remove "
                "that file."
            )
    fill(path, arrays, net.state_dict())
    if 0 < step < run["steps"]:
        fill_momenta(path, arrays, net, optimiser)
    seconds = number(f"seconds of {path}", about.get("seconds"), 0)
    if not isinstance(about.get("losses"), list):
        raise InputError(f"{path} is damaged: it lacks the list of losses.")
    return step, about["losses"], seconds


def _progress(path: Path, about: dict[str, Any]) -> int:
    steps = integer(f"steps of {path}", about.get("steps"), 1)
    return integer(f"step of {path}", about.get("step"), 0, steps)


def load_supernet(path: Path, dataset: Dataset | None = None) -> Supernet:
    """Read a supernet. Raises InputError if it is absent, damaged or not trained to its end, or if
    it was trained on other image files than those of `dataset`."""
    arrays, about = read_arrays(path)
    if dataset is not None and about.get(FILES, dataset.files) != dataset.files:
        raise InputError(
            f"{dataset.name} does not hold the same image files as when {path} was trained, so "
            "that images trained on would come to be tested on: bring the same file names back, "
            "or start a new study."
        )
    step = _progress(path, about)
    if step < about["steps"]:
        raise InputError(
            f"{path} is trained only to step {step} of {about['steps']}; "
            "run `codesign train` on its study again to finish it."
        )
    space = space_of(about.get("space"), f"space of {path}")
    net = Supernet(space, [0.0] * space.input[2], [1.0] * space.input[2])
    fill(path, arrays, net.state_dict())
    return net.eval()


def calibration_images(dataset: Dataset) -> Tensor:
    """Return the training images on which BN statistics of subnets are taken, (N, C, H, W)."""
    order = np.random.default_rng(0).permutation(len(dataset.train))
    return to_tensor(dataset.train.batch(order[:CALIBRATION_IMAGES]))


def subnet(supernet: Supernet, architecture: Architecture, calibration: Tensor) -> Subnet:
    """Return the plain network of one architecture, ready to be evaluated."""
    return recalibrate(extract(supernet, architecture), calibration)


@torch.no_grad()
def accuracy(network: Plain, split: Split, place: str = "cpu") -> float:
    """Return the top-1 accuracy in % over all images of the split; `place` is the network's."""
    torch.set_num_threads(1)
    right = 0
    for images, labels in chunks(split):
        right += int((network(images.to(place)).argmax(dim=1).cpu() == labels).sum())
    return 100.0 * right / len(split)


def margins(network: Plain, split: Split) -> Codes:
    """Return by how much each image of the split is right, (n,), as `margins.encode` has it."""
    torch.set_num_threads(1)
    found = []
    for images, labels in chunks(split):
        out = network(images).detach()
        mine = out.gather(1, labels[:, None])[:, 0]
        others = out.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        found.append(encode((mine - others).numpy(), (out.argmax(dim=1) == labels).numpy()))
    return np.concatenate(found)


def summary(supernet: Supernet, dataset: Dataset) -> dict[str, float]:
    """Return validation accuracies in %: of the largest and the smallest subnet, and of 16 random
    ones, always the same, the mean and the range."""
    calibration = calibration_images(dataset)
    genomes = [*supernet.space.extremes(), *supernet.space.sample(16, np.random.default_rng(0))]
    found = [
        accuracy(subnet(supernet, supernet.space.decode(genome), calibration), dataset.validation)
        for genome in tqdm(genomes, desc="evaluate", unit="subnet")
    ]
    random = found[2:]
    return {
        "largest": found[1], "smallest": found[0], "16 random, mean": float(np.mean(random)),
        "16 random, lowest": min(random), "16 random, highest": max(random),
    }  # fmt: skip


def chunks(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images (CHUNK, C, H, W) and labels of a split, in order."""
    for first in range(0, len(split), CHUNK):
        indices = np.arange(first, min(first + CHUNK, len(split)))
        yield to_tensor(split.batch(indices)), torch.from_numpy(split.labels[indices])
