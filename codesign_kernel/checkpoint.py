"""Training that was stopped, as arrays in a file: weights, and the optimiser's momenta."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InputError

MOMENTUM = "momentum/"  # of arrays, before the parameter's name


def momenta_of(net: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Return the optimiser's momenta as arrays, by MOMENTUM and the parameter's name."""
    state = optimiser.state
    return {MOMENTUM + name: state[parameter]["momentum_buffer"].numpy()
            for name, parameter in net.named_parameters()}  # fmt: skip


def fill_momenta(path: Path, arrays: dict[str, np.ndarray], net: nn.Module,
                 optimiser: torch.optim.Optimizer) -> None:  # fmt: skip
    """Give the optimiser the momenta that `momenta_of` returned. Raises InputError as `fill`."""
    parameters = dict(net.named_parameters())
    momenta = {name: torch.empty_like(value) for name, value in parameters.items()}
    fill(path, arrays, momenta, MOMENTUM)
    for name, parameter in parameters.items():
        optimiser.state[parameter]["momentum_buffer"] = momenta[name]


@torch.no_grad()
def fill(path: Path, arrays: dict[str, np.ndarray], tensors: Mapping[str, Tensor],
         start: str = "") -> None:  # fmt: skip
    """Copy into each of `tensors` the array of that name behind `start`. Raises InputError."""
    for name, tensor in tensors.items():
        array, shape = arrays.get(start + name), tuple(tensor.shape)
        if array is None or array.dtype != np.float32 or array.shape != shape:
            raise InputError(f"{path} is damaged: it lacks {start}{name} in float32 of {shape}.")
        if not np.isfinite(array).all():
            raise InputError(f"{path} is damaged: {start}{name} has numbers that are not finite.")
        tensor.copy_(torch.from_numpy(array))
