"""The truth of a small space: every architecture on every engine of a device, measured.

Cycles and activity are those of the simulated engine, its clock and resources those after place and
route, accuracies those of subnets with the supernet's weights; power is modelled on these. The true
front is known, and how near to it a search comes. benchmarks/truth.py measures it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import cost, pareto, routed
from .accelerator import Accelerator, Device, load_device
from .errors import InputError
from .explore import SIGNS
from .files import read_arrays
from .meters import activity_of
from .rtl.shape import Shape
from .space import Genomes, SearchSpace

# Of each architecture on an engine: clock cycles, those in which the multipliers work, beats over
# the memory port, and the fraction of flip-flops that change in a mean cycle.
FIELDS = {"cycles": np.int32, "busy": np.int32, "beats": np.int32, "flips": np.float32}
UNFIT = -1  # cycles where the engine cannot run the architecture


@dataclass(frozen=True)
class Truth:
    """`genomes` (n, genes) of all architectures, their accuracies in % on `validation` and `test`
    images (n,), and `latency_ms` and `power_w` on each of the `engines`, (engines, n), NaN where
    the engine cannot run the architecture."""

    space: SearchSpace
    device: Device
    genomes: Genomes
    engines: tuple[Accelerator, ...]
    validation: np.ndarray
    test: np.ndarray
    latency_ms: np.ndarray
    power_w: np.ndarray

    def figures(self, engine: np.ndarray, architecture: np.ndarray) -> np.ndarray:
        """Return validation accuracy, latency and power, (m, 3), of designs by indices (m,)."""
        chosen = engine, architecture
        columns = self.validation[architecture], self.latency_ms[chosen], self.power_w[chosen]
        return np.column_stack(columns)

    @property
    def points(self) -> np.ndarray:
        """The figures of all designs that can run, to be minimised, (m, 3)."""
        engine, architecture = np.nonzero(np.isfinite(self.latency_ms))
        return np.asarray(self.figures(engine, architecture) * SIGNS)

    def front(self) -> np.ndarray:
        """Return the points of the true front, (m, 3)."""
        points = self.points
        return np.asarray(points[pareto.front(points)])


def load(folder: Path, space: SearchSpace) -> Truth:
    """Read what benchmarks/truth.py measured, engines that are through. Raises InputError."""
    accuracy, about = read_arrays(folder / "accuracy.safetensors")
    if about.get("space") != space.name or space.size != len(accuracy["validation"]):
        raise InputError(f"{folder} is of another space than {space.name}.")
    engines, latencies, powers = [], [], []
    for path in sorted(folder.glob("*x*.safetensors")):
        found, about = read_arrays(path)
        if (found["cycles"] == 0).any():
            continue
        device, engine = load_device(about["device"]), Accelerator.parse(about["engine"])
        latency, power = hardware(found, engine, device)
        engines.append(engine)
        latencies.append(latency)
        powers.append(power)
    if not engines:
        raise InputError(f"{folder} has no engine: run benchmarks/truth.py.")
    return Truth(space, device, space.enumerate(), tuple(engines), accuracy["validation"],
                 accuracy["test"], np.stack(latencies), np.stack(powers))  # fmt: skip


def hardware(
    found: dict[str, np.ndarray], engine: Accelerator, device: Device
) -> tuple[np.ndarray, np.ndarray]:
    """Return latency in ms and power in W of the architectures, (n,) each, NaN where none runs."""
    shape, place = Shape(engine, device.port_bits), routed.figures(engine, device)
    runs = found["cycles"] != UNFIT
    cycles = np.where(runs, found["cycles"], np.nan)
    busy, beats = found["busy"] / cycles, found["beats"] / cycles
    active = activity_of(shape, busy, beats, found["flips"] * place["ff"])
    flip_flops, clock = np.full(len(cycles), place["ff"]), np.full(len(cycles), place["clock_mhz"])
    power = cost.power_parts(flip_flops, clock, active, device).sum(axis=-1)
    return cycles / place["clock_mhz"] / 1e3, power
