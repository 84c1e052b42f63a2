"""From a design to its predicted accuracy, latency and power: features, fitting, prediction.

Accuracy depends on the architecture alone; latency and power on both, per device. So there is one
Gaussian process for accuracy and two for each device. DSP, block RAM and LUT need no prediction:
the closed form gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import cost
from .accelerator import Accelerators, Device
from .errors import InputError
from .space import Genomes, SearchSpace
from .workload import Layers, layers_of

if TYPE_CHECKING:  # scikit-learn takes 85 MB and 1.2 s: who only reads predictions does without
    from .surrogate import Surrogate

COVERAGE = 0.9
QUANTITIES = ("accuracy", "latency_ms", "power_w")


def accuracy_features(space: SearchSpace, genomes: Genomes) -> tuple[np.ndarray, list[str]]:
    """Return what accuracy is predicted from, (n, f), and the names of the columns.

    The choices of each stage, and base-2 logarithms of MACs and parameters.
    """
    columns, names = space.features(genomes)
    layers = layers_of(space, genomes)
    sizes = [layers.macs.sum(axis=1), layers.parameters.sum(axis=1)]
    return np.column_stack([columns, *np.log2(sizes)]), [*names, "log2_macs", "log2_parameters"]


def hardware_features(
    quantity: str, layers: Layers, acc: Accelerators, device: Device
) -> tuple[np.ndarray, list[str]]:
    """Return what latency or power is predicted from, (n, f), and the names of the columns.

    Column 0 is the analytic prior, in the quantity's unit. Then the accelerator, and base-2
    logarithms of totals of the network: MACs, weights, feature maps, and what the ends of lanes
    waste when filters, channels or pixels do not fill them.
    """
    prior = (
        cost.roofline_ms(layers, acc, device)
        if quantity == "latency_ms"
        else cost.simple_w(acc, device)
    )
    columns, names = acc.features()
    macs = layers.macs.sum(axis=1)
    issued = cost.compute_cycles(layers, cost.column(acc)).sum(axis=1) * acc.pf * acc.pc * acc.pv
    maps = (layers.inputs + layers.outputs).sum(axis=1)
    totals = [macs, layers.weights.sum(axis=1), maps, issued / macs]
    depth = (layers.filters > 0).sum(axis=1)
    return (
        np.column_stack([prior, columns, *np.log2(totals), depth]),
        ["prior", *names, "log2_macs", "log2_weights", "log2_maps", "log2_waste", "layers"],
    )


@dataclass
class Predictors:
    """The fitted Gaussian processes of a study. Keys of `hardware`: (quantity, device name)."""

    space: SearchSpace
    devices: Mapping[str, Device]
    accuracy: Surrogate
    hardware: dict[tuple[str, str], Surrogate] = field(default_factory=dict)

    def means(self, genomes: Genomes, acc: Accelerators, device: str) -> np.ndarray:
        """Return accuracy (%), latency (ms) and power (W) of `n` designs, (n, 3).

        Raises InputError if the predictors are damaged, so that they predict no finite figure.
        """
        layers = layers_of(self.space, genomes)
        columns = [self.accuracy.predict(accuracy_features(self.space, genomes)[0])]
        for quantity in QUANTITIES[1:]:
            inputs, _ = hardware_features(quantity, layers, acc, self.devices[device])
            columns.append(self.hardware[quantity, device].predict(inputs))
        columns[0] = np.clip(columns[0], 0.0, 100.0)
        means = np.column_stack(columns)
        if not np.isfinite(means).all():
            raise InputError("the predictors give no finite figures: run `codesign fit` again.")
        return means

    def intervals(
        self, genomes: Genomes, acc: Accelerators, device: str, coverage: float = COVERAGE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends of the intervals of `means`, (n, 3) each."""
        layers = layers_of(self.space, genomes)
        inputs = accuracy_features(self.space, genomes)[0]
        ends = [self.accuracy.interval(inputs, coverage)]
        for quantity in QUANTITIES[1:]:
            inputs, _ = hardware_features(quantity, layers, acc, self.devices[device])
            ends.append(self.hardware[quantity, device].interval(inputs, coverage))
        low, high = (np.column_stack(side) for side in zip(*ends, strict=True))
        for side in (low, high):
            side[:, 0] = np.clip(side[:, 0], 0.0, 100.0)
        return low, high


def accuracy_surrogate() -> Surrogate:
    """Return the unfitted Gaussian process for accuracy."""
    from .surrogate import Surrogate

    return Surrogate()


def hardware_surrogate() -> Surrogate:
    """Return the unfitted Gaussian process for latency or power: column 0 is the prior mean."""
    from .surrogate import Surrogate

    return Surrogate(prior=0, log=True)
