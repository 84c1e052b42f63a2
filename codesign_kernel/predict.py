"""From a design to its predicted accuracy, latency and power: features, fitting, prediction.

Accuracy depends on the architecture alone; latency and power on both, per device. So there is one
Gaussian process for accuracy and two for each device. DSP, block RAM and LUT need no prediction:
the closed form gives them. Where latency and power rest on measurements, the closed form is their
prior mean; where they are modelled, it is what is learnt, and the prior is a roofline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cost
from .accelerator import Accelerators, Device
from .cycles import Port, cycles, runs
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
    layers: Layers, acc: Accelerators, device: Device, measured: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what latency and power are predicted from, (n, f) each, and the names of the columns.

    Column 0 is the analytic prior, in the quantity's unit: the closed form if the quantities were
    `measured`, else a roofline. Then the accelerator, and base-2 logarithms of totals of the
    network: MACs, weights, feature maps, and what the ends of lanes waste when filters, channels or
    pixels do not fill them.
    """
    spent = cycles(layers, cost.column(acc), Port.of(device))
    if measured:
        figures = cost.figures(layers, acc, device, spent)
        priors = {"latency_ms": figures.latency_ms, "power_w": figures.power_w}
    else:
        latency = cost.roofline_ms(layers, acc, device)
        priors = {"latency_ms": latency, "power_w": cost.simple_w(acc, device)}
    columns, names = acc.features()
    macs = layers.macs.sum(axis=1)
    issued = spent.compute.sum(axis=1) * acc.pf * acc.pc * acc.pv
    maps = (layers.inputs + layers.outputs).sum(axis=1)
    totals = [macs, layers.weights.sum(axis=1), maps, issued / macs]
    depth = (layers.filters > 0).sum(axis=1)
    rest = np.column_stack([columns, *np.log2(totals), depth])
    names = ["prior", *names, "log2_macs", "log2_weights", "log2_maps", "log2_waste", "layers"]
    return {name: np.column_stack([prior, rest]) for name, prior in priors.items()}, names


@dataclass
class Predictors:
    """The fitted Gaussian processes of a study. Keys of `hardware`: (quantity, device name).
    `measured`: devices whose hardware figures rest on simulation, and place and route."""

    space: SearchSpace
    devices: Mapping[str, Device]
    accuracy: Surrogate
    hardware: dict[tuple[str, str], Surrogate] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)

    def runs(self, genomes: Genomes, acc: Accelerators, device: str) -> np.ndarray:
        """Whether the engine can run each of `n` designs, boolean (n,)."""
        layers, port = layers_of(self.space, genomes), Port.of(self.devices[device])
        return np.asarray(runs(layers, cost.column(acc), port).all(axis=1))

    def means(self, genomes: Genomes, acc: Accelerators, device: str) -> np.ndarray:
        """Return accuracy (%), latency (ms) and power (W) of `n` designs, (n, 3).

        Raises InputError if the predictors are damaged, so that they predict no finite figure.
        """
        layers = layers_of(self.space, genomes)
        columns = [self.accuracy.predict(accuracy_features(self.space, genomes)[0])]
        inputs, _ = hardware_features(layers, acc, self.devices[device], device in self.measured)
        for quantity in QUANTITIES[1:]:
            columns.append(self.hardware[quantity, device].predict(inputs[quantity]))
        columns[0] = np.clip(columns[0], 0.0, 100.0)
        means = np.column_stack(columns)
        if not np.isfinite(means).all():
            raise InputError("the predictors give no finite figures: run `codesign fit` again.")
        return means

    def intervals(
        self, genomes: Genomes, acc: Accelerators, device: str, coverage: float = COVERAGE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends of the intervals of `means`, (n, 3) each.

        That of latency includes how far the clock of an engine is known before it is placed and
        routed, that of power how far the coefficients of its model are.
        """
        chip, layers = self.devices[device], layers_of(self.space, genomes)
        ends = [self.accuracy.interval(accuracy_features(self.space, genomes)[0], coverage)]
        inputs, _ = hardware_features(layers, acc, chip, device in self.measured)
        for quantity in QUANTITIES[1:]:
            ends.append(self.hardware[quantity, device].interval(inputs[quantity], coverage))
        within: dict[int, Any] = {
            1: chip.clock_within,
            2: cost.figures(layers, acc, chip).power_within,
        }
        wide = NormalDist().inv_cdf((1 + coverage) / 2) / NormalDist().inv_cdf(0.95)
        for i, factor in within.items():  # independent of what the Gaussian process does not know
            half = np.log(ends[i][1] / ends[i][0]) / 2
            more = np.exp(np.hypot(half, wide * np.log(factor)) - half)
            ends[i] = ends[i][0] / more, ends[i][1] * more
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
