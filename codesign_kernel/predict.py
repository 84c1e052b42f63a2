"""From a design to its predicted accuracy, latency and power: features, fitting, prediction.

Accuracy depends on the architecture alone; latency and power on both, per device. So there is one
Gaussian process for accuracy and two for each device. DSP, block RAM and LUT need no prediction:
the closed form gives them. Where latency and power rest on measurements, the closed form is their
prior mean; where they are modelled, it is what is learnt, and the prior is a roofline. Latency is
cycles over clock: the clock of an engine that was placed and routed is known, that of another is
modelled, and how far off that may be is in the interval.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cost, routed
from .accelerator import Accelerator, Accelerators, Device
from .cycles import Port
from .errors import InputError
from .loops import outline
from .quantities import QUANTITIES
from .space import Genomes, SearchSpace
from .workload import Layers, layers_of

if TYPE_CHECKING:  # scikit-learn takes 85 MB and 1.2 s: who only reads predictions does without
    from .margins import Codes, ImageSurrogate
    from .surrogate import Surrogate

COVERAGE = 0.9
FOLDS = 5  # to choose between surrogates
BUFFERS = ("weight_kib", "feature_kib")
SIMULATED, RECORDED = "simulated", "recorded"
_ENGINE = Accelerator(8, 8, 1, 16, 16)  # to predict something with


def accuracy_features(
    space: SearchSpace, genomes: Genomes, layers: Layers | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return what accuracy is predicted from, (n, f), and the names of the columns.

    The choices of each stage, and base-2 logarithms of MACs and parameters. A kernel size K enters
    as 1 - 1/K, the part of a kernel's row that looks at neighbours: 0 for an absent block and for
    1 x 1. To accuracy 3 differs from 1 far more than 5 does from 3 (benchmarks/accuracy.md).
    `layers` are those of the genomes, if they are known.
    """
    columns, names = space.features(genomes)
    kernel = np.array(["_k" in name for name in names])
    columns[:, kernel] = 1 - 1 / np.maximum(columns[:, kernel], 1)
    names = [name.replace("_k", "_reach") for name in names]
    layers = layers or layers_of(space, genomes)
    sizes = [layers.macs.sum(axis=1), layers.parameters.sum(axis=1)]
    return np.column_stack([columns, *np.log2(sizes)]), [*names, "log2_macs", "log2_parameters"]


def image_features(
    space: SearchSpace, genomes: Genomes, layers: Layers | None = None
) -> np.ndarray:
    """Return what the margins on single images are predicted from, (n, f): `accuracy_features`, and
    of each gene whether it has each of its values. From as much as margins tell, that is learnt."""
    gene = np.repeat(np.arange(len(space.radix)), space.radix)
    value = np.concatenate([np.arange(size) for size in space.radix])
    features, _ = accuracy_features(space, genomes, layers)
    return np.column_stack([features, genomes[:, gene] == value])


def hardware_features(
    layers: Layers, acc: Accelerators, device: Device, measured: Collection[str],
    which: np.ndarray | slice = slice(None), busy: np.ndarray | None = None,
    clocks: Mapping[str, float] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:  # fmt: skip
    """Return what latency and power are predicted from, (n, f) each, and their columns' names.

    Accelerator i of `acc` runs network `which[i]` of the layers, fields (networks, layers), the
    multipliers being `busy`, (n,) cycles, if that is known. Column 0 is the analytic prior, in the
    quantity's unit: of the `measured` ones the closed form, at the clock that the engine reached if
    that is known (see `routed.clocks`), of the others a roofline. Then the accelerator, and base-2
    logarithms of totals of the network: MACs, weights, feature maps, and what the ends of lanes
    waste when filters, channels or pixels do not fill them. Of power that is measured the buffers
    are left out: the closed form has their blocks, and a handful of engines tells no more of them.
    """
    priors: dict[str, np.ndarray] = {}
    if measured:
        known = routed.clocks(acc, device, clocks)
        clock = np.where(np.isnan(known), cost.clock_mhz(acc, device), known)
        figures = cost.figures(layers[which], acc, device, clock=clock)
        priors = {"latency_ms": figures.latency_ms, "power_w": figures.power_w}
    if "latency_ms" not in measured:
        priors["latency_ms"] = cost.roofline_ms(layers, acc, device, which)
    if "power_w" not in measured:
        priors["power_w"] = cost.simple_w(acc, device)
    if busy is None:
        busy, _ = outline(layers, acc, Port.of(device), which)
    columns, names = acc.features()
    macs, maps = layers.macs.sum(axis=1), (layers.inputs + layers.outputs).sum(axis=1)
    sizes = np.log2([macs, layers.weights.sum(axis=1), maps]).T
    depth = (layers.filters > 0).sum(axis=1)
    waste = np.log2(busy * acc.pf * acc.pc * acc.pv / macs[which])
    rest = np.column_stack([columns, sizes[which], waste, depth[which]])
    names = [*names, "log2_macs", "log2_weights", "log2_maps", "log2_waste", "layers"]
    beside = dict.fromkeys(priors, (rest, names))
    if "power_w" in measured:
        few = [i for i, name in enumerate(names) if name not in BUFFERS]
        beside["power_w"] = rest[:, few], [names[i] for i in few]
    return (
        {name: np.column_stack([priors[name], own]) for name, (own, _) in beside.items()},
        {name: ["prior", *own] for name, (_, own) in beside.items()},
    )


@dataclass
class Predictors:
    """The fitted Gaussian processes of a study. Keys of `hardware`: (quantity, device name).

    `basis` says by the same keys what they rest on, SIMULATED or RECORDED, if on more than the
    closed form; `clocks`, by device and the engine's text, which clock in MHz engines reached that
    were measured for the study.
    """

    space: SearchSpace
    devices: Mapping[str, Device]
    accuracy: Surrogate | ImageSurrogate
    hardware: dict[tuple[str, str], Surrogate] = field(default_factory=dict)
    basis: dict[tuple[str, str], str] = field(default_factory=dict)
    clocks: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and a JSON-able description from which `from_arrays` restores self."""
        fitted = {"accuracy": self.accuracy}
        fitted |= {f"{q}@{device}": model for (q, device), model in self.hardware.items()}
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {}
        for name, model in fitted.items():
            parts, about[name] = model.to_arrays()
            arrays |= {f"{name}/{part}": array for part, array in parts.items()}
        basis = {f"{q}@{device}": kind for (q, device), kind in self.basis.items()}
        about |= {"basis": basis, "clocks": self.clocks, "features": self._features()}
        return arrays, about

    @classmethod
    def from_arrays(
        cls, space: SearchSpace, devices: Mapping[str, Device],
        arrays: Mapping[str, np.ndarray], about: Mapping[str, Any],
    ) -> Predictors:  # fmt: skip
        """Return what `to_arrays` described. Raises InputError, KeyError, TypeError, ValueError or
        OverflowError if a part is absent or damaged, or was fitted to other features than now."""
        from .margins import ImageSurrogate
        from .surrogate import Surrogate

        def parts_of(name: str) -> tuple[dict[str, np.ndarray], Any]:
            start = f"{name}/"
            parts = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            return parts, about[name]

        def model(name: str) -> Surrogate:
            return Surrogate.from_arrays(*parts_of(name))

        hardware = {(q, d): model(f"{q}@{d}") for d in devices for q in QUANTITIES[1:]}
        basis = {key: str(about["basis"][at]) for key in hardware if (at := "@".join(key)) in
                 about["basis"]}  # fmt: skip
        clocks = {
            str(device): {str(engine): float(clock) for engine, clock in known.items()}
            for device, known in about["clocks"].items()
        }
        kind = ImageSurrogate if "images" in about["accuracy"] else Surrogate
        accuracy = kind.from_arrays(*parts_of("accuracy"))
        found = cls(space, devices, accuracy, hardware, basis, clocks)
        if about["features"] != found._features():
            raise ValueError("they were fitted to other features.")
        genome, engine = space.extremes()[0][None], Accelerators.of([_ENGINE])
        for device in devices:
            found.means(genome, engine, device)
        return found

    def _features(self) -> list[str]:
        """The names of what all is predicted from."""
        genome, engine = self.space.extremes()[0][None], Accelerators.of([_ENGINE])
        names = accuracy_features(self.space, genome)[1]
        for device in self.devices.values():
            layers = layers_of(self.space, genome)
            measured = {q for q in QUANTITIES[1:] if (q, device.name) in self.basis}
            for more in hardware_features(layers, engine, device, measured)[1].values():
                names = names + more
        return names

    def accuracy_inputs(self, genomes: Genomes, layers: Layers | None = None) -> np.ndarray:
        """Return what accuracies are predicted from, (n, f): see `accuracy_features` and
        `image_features`."""
        if hasattr(self.accuracy, "images_"):
            return image_features(self.space, genomes, layers)
        return accuracy_features(self.space, genomes, layers)[0]

    def inputs(
        self, layers: Layers, acc: Accelerators, device: str,
        which: np.ndarray | slice = slice(None), busy: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return what latency and power of designs are predicted from: see `hardware_features`."""
        measured = {q for q in QUANTITIES[1:] if (q, device) in self.basis}
        asked = layers, acc, self.devices[device], measured, which, busy, self.clocks.get(device)
        return hardware_features(*asked)[0]

    def runs(self, genomes: Genomes, acc: Accelerators, device: str) -> np.ndarray:
        """Whether the engine can run each of `n` designs, boolean (n,)."""
        layers, port = layers_of(self.space, genomes), Port.of(self.devices[device])
        return outline(layers, acc, port)[1]

    def means(self, genomes: Genomes, acc: Accelerators, device: str) -> np.ndarray:
        """Return accuracy (%), latency (ms) and power (W) of `n` designs, (n, 3): see `figures`."""
        return self.figures(genomes, acc, device)[0]

    def intervals(
        self, genomes: Genomes, acc: Accelerators, device: str, coverage: float = COVERAGE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends of the intervals of `means`, (n, 3) each."""
        _, low, high = self.figures(genomes, acc, device, coverage=coverage)
        return low, high

    def figures(
        self, genomes: Genomes, acc: Accelerators, device: str,
        which: np.ndarray | slice = slice(None), busy: np.ndarray | None = None,
        coverage: float | None = None, single: bool = False,
        own: bool = False, layers: Layers | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Return means of accuracy (%), latency (ms) and power (W), and the lower and upper ends of
        their intervals, (n, 3) each: those are the means too if no `coverage` is asked for.

        Accelerator i of `acc` runs genome `which[i]` of the genomes (a, genes): what belongs to the
        architecture is worked out once. `busy` as in `hardware_features`, `single` as in
        `Surrogate.estimate`; `layers` are those of the genomes, if they are known. The interval of
        latency includes how far the clock of an engine is known that was not placed and routed,
        that of power how far the coefficients of its model are, unless power was measured.
        Raises InputError if the predictors are damaged: they predict no finite figure.
        """
        chip, layers = self.devices[device], layers or layers_of(self.space, genomes)
        features = self.accuracy_inputs(genomes, layers)
        accuracy = [side[which] for side in self.accuracy.estimate(features, coverage, single)]
        inputs = self.inputs(layers, acc, device, which, busy)
        sides = [accuracy] + [
            self.hardware[quantity, device].estimate(inputs[quantity], coverage, single)
            for quantity in QUANTITIES[1:]
        ]
        means, low, high = (np.column_stack(side) for side in zip(*sides, strict=True))
        if coverage is not None and not own:
            known = ~np.isnan(routed.clocks(acc, chip, self.clocks.get(device)))
            known &= ("latency_ms", device) in self.basis
            _widen(low[:, 1], high[:, 1], np.where(known, 1.0, chip.clock_within), coverage)
            if self.basis.get(("power_w", device)) != RECORDED:
                power = cost.figures(layers[which], acc, chip).power_within
                _widen(low[:, 2], high[:, 2], power, coverage)
        for values in (means, low, high):
            values[:, 0] = np.clip(values[:, 0], 0.0, 100.0)
        if not np.isfinite(means).all():
            raise InputError("the predictors give no finite figures: run `codesign fit` again.")
        return means, low, high


def _widen(low: np.ndarray, high: np.ndarray, factor: np.ndarray | float, coverage: float) -> None:
    """Move the ends of an interval, (n,), apart by a `factor` known with 90 %, independent of what
    the Gaussian process does not know."""
    wide = NormalDist().inv_cdf((1 + coverage) / 2) / NormalDist().inv_cdf(0.95)
    half = np.log(high / low) / 2
    more = np.exp(np.hypot(half, wide * np.log(factor)) - half)
    low /= more
    high *= more


def accuracy_surrogate() -> Surrogate:
    """Return the unfitted Gaussian process for accuracy."""
    from .surrogate import Surrogate

    return Surrogate()


def fit_accuracy(
    space: SearchSpace, genomes: Genomes, accuracy: np.ndarray, codes: Codes | None
) -> Surrogate | ImageSurrogate:
    """Return the surrogate for accuracy, of two the one that is off by less in the mean of FOLDS:
    fitted to what `n` genomes have, (n,) in %, or to their margins on images, (n, images), if
    known. (Leaving out one at a time tells too little: hyperparameters have seen it.)"""
    from .margins import ImageSurrogate

    X, every = accuracy_features(space, genomes)[0], slice(None)
    if codes is None:
        return accuracy_surrogate().fit(X, accuracy)
    images, margins = image_features(space, genomes), codes

    def alone(rows: np.ndarray | slice) -> Surrogate:
        return accuracy_surrogate().fit(X[rows], accuracy[rows])

    def by_image(rows: np.ndarray | slice) -> ImageSurrogate:
        return ImageSurrogate().fit(images[rows], margins[rows])

    fold, off = np.arange(len(X)) % FOLDS, np.zeros(2)
    for test in (fold == i for i in range(FOLDS)):
        found = alone(~test).predict(X[test]), by_image(~test).predict(images[test])
        off += [np.abs(each - accuracy[test]).sum() for each in found]
    return by_image(every) if off[1] < off[0] else alone(every)


def hardware_surrogate() -> Surrogate:
    """Return the unfitted Gaussian process for latency or power: column 0 is the prior mean."""
    from .surrogate import Surrogate

    return Surrogate(prior=0, log=True)
