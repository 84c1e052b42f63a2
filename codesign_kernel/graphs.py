"""Training on CUDA: one step is captured as a graph, and replayed.

A step of a small network is some hundreds of kernels, most of them shorter than their launch; a
graph launches them all at once. The training images and what all steps draw lie on the GPU, where
a step finds its own share by counting, so that every step is the same work. Networks may be trained
side by side, each in a thread of one process.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from .batches import indices
from .datasets import Dataset
from .train import Preset, check_finite

CHECK = 100  # steps between two looks for divergence, each of which waits for the GPU
LOCK = Lock()  # held for what concerns all threads: torch's random numbers, and captures
Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # of images, labels, their indices


class Batches:
    """The batches of `batches.batch` for all steps, gathered at `place`, torch's device."""

    def __init__(
        self, dataset: Dataset, preset: Preset, steps: int, seed: int, place: torch.device
    ) -> None:
        split, size = dataset.train, preset.batch
        drawn = [dataset.draws(size, seed, step) for step in range(steps * preset.augment)]
        arrays = {
            "images": split.batch(np.arange(len(split))),
            "labels": split.labels,
            "indices": indices(len(split), size * steps, seed, 0).reshape(steps, size),
            "mirrored": np.array([mirrored for mirrored, _ in drawn]),
            "corners": np.array([corner for _, corner in drawn]),
        }
        self.parts = {name: torch.from_numpy(array).to(place) for name, array in arrays.items()}
        self.augment = preset.augment

    def __call__(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images (size, C, H, W) in [0, 1], labels and indices (size,) of the step, (1,)."""
        order = self.parts["indices"].index_select(0, step)[0]
        images = self.parts["images"][order]
        if self.augment:
            mirrored = self.parts["mirrored"].index_select(0, step)[0]
            images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
            corner = self.parts["corners"].index_select(0, step)[0]
            height, width = images.shape[1:3]
            images = F.pad(images, (0, 0, *[width // 16] * 2, *[height // 16] * 2))
            for axis, side in enumerate((height, width)):
                kept = corner[axis] + torch.arange(side, device=corner.device)
                images = images.index_select(axis + 1, kept)
        images = images.permute(0, 3, 1, 2).float().div_(255)
        return images, self.parts["labels"][order], order


class Step:
    """One step of training, the next whenever it is called; nothing in it leaves the processor.

    `optimiser` has momentum and is fused; `rates` are the learning rates of all steps.
    """

    def __init__(
        self, network: nn.Module, optimiser: torch.optim.SGD, loss_of: Loss, batches: Batches,
        rates: Sequence[float],
    ) -> None:  # fmt: skip
        self.network, self.optimiser = network, optimiser
        self.loss_of, self.batches = loss_of, batches
        self.start = [weights.detach().clone() for weights in network.parameters()]
        self.rates = torch.tensor(rates, device=self.start[0].device)
        self.count = torch.zeros(1, dtype=torch.int64, device=self.rates.device)
        self.rate, self.loss = self.rates[:1].clone(), self.rates[0].clone()
        for group in optimiser.param_groups:
            group["lr"] = self.rate

    def __call__(self) -> None:
        torch.index_select(self.rates, 0, self.count, out=self.rate)
        self.optimiser.zero_grad()
        loss = self.loss_of(*self.batches(self.count))
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.loss.copy_(loss.detach())
        self.count.add_(1)

    @torch.no_grad()
    def rewind(self) -> None:
        """Go back to the first step: weights as they were, and no momentum."""
        for weights, start in zip(self.network.parameters(), self.start, strict=True):
            weights.copy_(start)
            self.optimiser.state[weights]["momentum_buffer"].zero_()
        self.count.zero_()


def fit(step: Step, progress: str) -> None:
    """Run all steps from the first, replayed where the network is on CUDA; its BN statistics are
    of no use then. Raises InputError if training diverges."""
    network, place, steps = step.network, step.rates.device, len(step.rates)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.1  # with None, the share of a batch would be counted outside the GPU
    graph = torch.cuda.CUDAGraph() if place.type == "cuda" else None
    stream = torch.cuda.Stream(place) if graph else None  # type: ignore[no-untyped-call]
    if stream:  # the step's tensors come from this one
        stream.wait_stream(torch.cuda.current_stream(place))
    with torch.cuda.stream(stream):
        with LOCK:
            for _ in range(3 if graph else 0):  # so that nothing is set up during the capture
                step()
                step.rewind()
            if graph:
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    step()
        advance = graph.replay if graph else step
        for at in trange(steps, desc=progress, unit="step"):
            advance()
            if at % CHECK == CHECK - 1 or at == steps - 1:
                check_finite(network, step.loss, at)  # waits, too, until the steps are done
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if graph:
        with LOCK:
            graph.reset()
