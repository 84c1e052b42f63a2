"""What turns a design into figures: a meter.

`Accuracy` runs the subnet with the supernet's weights, `Specialised` after it was fine-tuned, as it
is exported. `Simulated` simulates the engine, and takes its clock and resources from place and
route. `Closed` is the closed form, whose figures are `modelled`. Measurements of real hardware
enter through the same interface.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from . import cost, files, predict, routed, tools
from .accelerator import Accelerators, Device
from .design import Design
from .errors import InputError
from .program import Program, compile_network
from .rtl.shape import Shape
from .simulate import Run, memory_of, simulate
from .space import Architecture
from .store import Key, Series
from .study import Study
from .workload import layers_of

if TYPE_CHECKING:
    from .datasets import Dataset
    from .quantize import Quantized
    from .supernet import Subnet

CLOSED_FORM = "closed form 7"
SIMULATION = "simulation, place and route 2"
SPECIALISED = "specialised 1"  # the recipe of `specialise.specialise`
MARGINS = "margins"  # the series that is kept with an accuracy
RECORDED = "recorded: "  # and who measured it, of rows from a table of one's own


def recorded(method: str) -> bool:
    """Whether rows of this method come from a table of one's own."""
    return method.startswith(RECORDED)


def basis(method: str) -> str:
    """Return what values of a method rest on, if on more than the closed form: as `Predictors`."""
    if method == CLOSED_FORM:
        return ""
    return predict.RECORDED if recorded(method) else predict.SIMULATED


class Meter(Protocol):
    """Something that measures designs: `source` is the word shown, `method` identifies it."""

    @property
    def source(self) -> str:
        """The word a person sees, measured or modelled."""

    @property
    def modelled(self) -> tuple[str, ...]:
        """Quantities that are modelled even so."""

    @property
    def method(self) -> str:
        """How it was obtained; a design is measured once by each method."""

    def measure(self, key: Key) -> Mapping[str, float | Series]:
        """Return the quantities of one design, by name; what one is a sum of may be a series."""


@dataclass(frozen=True)
class Closed:
    """Hardware figures by the closed form of `cost.py`."""

    study: Study
    source: str = "modelled"
    modelled: tuple[str, ...] = ()
    method: str = CLOSED_FORM

    def measure(self, key: Key) -> dict[str, float]:
        """Return cycles, clock_mhz, latency_ms, power_w, energy_mj, dsp, bram and lut."""
        design = Design.parse("@".join(key))
        device = self.study.device(design.device)
        layers = layers_of(self.study.space, self.study.space.encode(design.architecture)[None])
        acc = Accelerators.of([design.accelerator])
        figures, need = cost.figures(layers, acc, device), cost.resources(acc, device)
        names = ("cycles", "clock_mhz", "latency_ms", "power_w", "energy_mj")
        values = {name: float(getattr(figures, name)[0]) for name in names}
        return values | {name: float(getattr(need, name)[0]) for name in ("dsp", "bram", "lut")}


class Accuracy:
    """Accuracy of subnets with the supernet's weights, on the validation images of a study's data
    set, which is read unless it is given."""

    told = "with the supernet's weights"
    source = "measured"
    modelled = ()

    def __init__(
        self, study: Study, folder: Path | None = None, download: bool = False,
        dataset: "Dataset | None" = None,
    ) -> None:  # fmt: skip
        from . import datasets, train  # torch is loaded only where networks run

        path = study.supernet_path
        if not path.exists():  # said before minutes of reading images
            raise InputError(f"{path} does not exist: run `codesign train` on this study first.")
        self.study = study
        self.dataset = dataset or datasets.load(
            study.dataset, folder=folder, download=download, shape=study.space.input
        )
        self.supernet = train.load_supernet(path, self.dataset)
        if self.supernet.space != study.space:
            raise InputError(f"{path} is of another space than {study.space.name} of this study.")
        self.calibration = train.calibration_images(self.dataset)
        images = len(self.dataset.validation)
        self.method = f"{self.of(path)} on each of {images} validation images"

    @classmethod
    def of(cls, path: Path) -> str:
        """Return what a method with the supernet in this file begins with: other weights are
        another method."""
        return f"supernet {files.digest(path)}"

    def network(self, architecture: Architecture) -> "Subnet":
        """Return the network whose accuracy is measured."""
        from . import train

        return train.subnet(self.supernet, architecture, self.calibration)

    def measure(self, key: Key) -> dict[str, float | Series]:
        """Return the accuracy in % of the architecture, and its margins on all images."""
        from . import train
        from .margins import accuracy_of

        codes = train.margins(self.network(Architecture.parse(key[0])), self.dataset.validation)
        return {"accuracy": float(accuracy_of(codes)), MARGINS: codes}


class Specialised(Accuracy):
    """Accuracy of subnets after each was fine-tuned for itself, as `export` builds it."""

    told = "with the network specialised"

    @classmethod
    def of(cls, path: Path) -> str:
        """Return what a method that specialises from the supernet in this file begins with."""
        return f"{SPECIALISED} from {super().of(path)}"

    @cached_property
    def answers(self) -> Any:  # of torch, which is loaded only where networks run
        """`specialise.kept_answers`, from which networks learn: made once one is trained."""
        from .specialise import kept_answers

        return kept_answers(self.study.root, self.supernet, self.dataset)

    def network(self, architecture: Architecture, steps: int | None = None) -> "Subnet":
        """Return the network whose accuracy is measured: seconds to minutes. Or one that was
        fine-tuned for `steps` steps: kept in the user's cache as it comes, to go on from there."""
        from .specialise import specialise
        from .train import PRESETS

        preset, seed, kept = PRESETS[self.study.preset], self.study.seed, None
        if steps is not None:
            about = f"{self.of(self.study.supernet_path)} {architecture} {seed} {steps}"
            kept = tools.cache() / f"specialised-{files.fingerprint(about)}.safetensors"
        return specialise(
            self.supernet, architecture, self.dataset, preset, seed, self.answers, steps, kept
        )


WEIGHTS: dict[str, type[Accuracy]] = {"specialised": Specialised, "supernet": Accuracy}


def images_of(method: str) -> int:
    """Return on how many images a method of `Accuracy` measures, or 0 if it is another's."""
    found = re.search(r"^(?:specialised \d+ from )?supernet .* (\d+) validation images$", method)
    return int(found[1]) if found else 0


class Simulated:
    """Hardware figures of a Lattice ECP5: cycles and activity of the engine, simulated with the
    subnet's part of the supernet's weights (cycles depend on none) on an image; clock and resources
    after place and route. Power is modelled on these."""

    source = "measured"
    modelled = ("power_w", "energy_mj")  # no board was measured
    method = SIMULATION

    def __init__(self, accuracy: Accuracy, study: Study) -> None:
        self.subnets, self.study = accuracy, study
        self._quantised: dict[str, Quantized] = {}

    def measure(self, key: Key) -> dict[str, float]:
        """Return cycles, clock_mhz, latency_ms, power_w, energy_mj, dsp, bram, lut, ff and flips.

        An engine that is not in the shipped table is placed and routed: minutes. Raises InputError
        if the engine cannot run the network.
        """
        design = Design.parse("@".join(key))
        device = self.study.device(design.device)
        program, image = self._program(design, device)
        run = simulate(program, image, memory_of(device))
        found = routed.figures(design.accelerator, device)
        clock, flip_flops = np.array(found["clock_mhz"]), np.array(found["ff"])
        active = activity(run, program, found["ff"])
        power = float(cost.power_parts(flip_flops, clock, active, device).sum())
        latency = run.cycles / found["clock_mhz"] / 1e3
        values = {"cycles": float(run.cycles), "latency_ms": latency, "power_w": power}
        return values | {"energy_mj": power * latency, "flips": float(active.flips)} | found

    def _program(self, design: Design, device: Device) -> tuple[Program, np.ndarray]:
        from . import batches, quantize, train

        name = str(design.architecture)
        if name not in self._quantised:
            network = train.subnet(
                self.subnets.supernet, design.architecture, self.subnets.calibration
            )
            self._quantised[name] = quantize.quantize(network, self.subnets.calibration)
        quantised = self._quantised[name]
        shape = Shape(design.accelerator, device.port_bits)
        image = batches.to_tensor(self.subnets.dataset.validation.batch(np.zeros(1, np.int64)))
        return compile_network(quantised.network, shape), quantised.input(image)[0]


def activity(run: Run, program: Program, flip_flops: float) -> cost.Activity:
    """Return what happens in a mean cycle of a simulation, fields (): see `cost.Activity`.

    Flips are those of the flip-flops that place and route leaves, `flip_flops`, in proportion.
    """
    busy, beats = run.layers["compute"].sum() / run.cycles, (run.read + run.written) / run.cycles
    return activity_of(program.shape, busy, beats, run.flips / run.flip_flops * flip_flops)


def activity_of(
    shape: Shape, busy: np.ndarray | float, beats: np.ndarray | float, flips: np.ndarray | float
) -> cost.Activity:
    """Return what happens in a mean cycle, (n,), in which so many multipliers' cycles, beats over
    the port and changes of flip-flops do."""
    blocks = -(-shape.port_bits // 36)  # side by side, for the width of the port
    accesses = blocks * (busy * (shape.word_beats + shape.pv * shape.banks) + beats)
    products = busy * shape.pf * shape.pc * shape.pv
    parts = (flips, products, accesses, beats * shape.port_bits)
    return cost.Activity(*(np.asarray(part) for part in parts))
