"""Which images a step of training sees, and how they enter a network.

They depend on the seed and the step's number alone, so that a run can go on from any step.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .datasets import Dataset


def batch(
    dataset: Dataset, size: int, seed: int, step: int, augment: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the images (size, C, H, W) in [0, 1] and labels (size,) of one training step.

    Steps walk through a new permutation each epoch. With `augment` all are shifted alike, by up to
    a sixteenth of each side, and where the data set allows it each is mirrored with even chances.
    """
    order = indices(len(dataset.train), size, seed, step)
    images = dataset.train.batch(order)
    labels = torch.from_numpy(dataset.train.labels[order])
    if not augment:
        return to_tensor(images), labels
    mirrored, (down, right) = dataset.draws(size, seed, step)
    images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (height // 16,) * 2, (width // 16,) * 2, (0, 0)))
    images = padded[:, down : down + height, right : right + width]
    return to_tensor(images), labels


def indices(n: int, size: int, seed: int, step: int) -> np.ndarray:
    """Return which of `n` training images are in the batch of a step, (size,)."""
    first, last = step * size, (step + 1) * size - 1
    epochs = [_permutation(n, seed, epoch) for epoch in range(first // n, last // n + 1)]
    return np.concatenate(epochs)[first % n :][:size]


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 0]).permutation(n)


def to_tensor(images: np.ndarray) -> Tensor:
    """Turn uint8 images (N, H, W, C) into float32 (N, C, H, W) in [0, 1], channels last."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
