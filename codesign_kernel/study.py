"""The study: a folder that holds one co-design problem and all that was measured for it.

    study.json              the problem: space, data set, preset, seed, devices
    supernet.safetensors    phase 1: the supernet, or its checkpoint while it trains
    answers.safetensors     phase 1: what its largest subnet answers to each training image
    measurements.sqlite     phase 2: what was measured, row by row
    predictors.safetensors  phase 2: the Gaussian processes, with fit.json, how good they are
    improve.json            phase 2 and 3, in rounds: what was chosen to be measured, and why
    designs.safetensors     phase 3: a sample of the designs considered and their predictions
    front.json              phase 3: the front that was found last, and its constraints

Files are replaced whole, never edited in place. A study can be opened from a read-only folder.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import __version__, cost, errors
from .accelerator import Accelerators, Device, device_of
from .constraints import CONFIDENCE, Constraints
from .cycles import Port, cycles, traffic
from .design import Design
from .errors import InputError
from .explore import SIGNS, Designs, Exploration, table, usable
from .files import alone, digest, read_arrays, read_json, read_json_table, write_arrays, write_json
from .pareto import front
from .predict import Predictors
from .quantities import QUANTITIES
from .simulate import CAUSES
from .space import SearchSpace, space_of, to_table
from .store import KEY, Store
from .workload import layers_of

SETTINGS = "study.json"
STUDY = "CODESIGN_STUDY"  # environment variable: the folder of the study, if none is named
MINE = "my-study"  # beside the notebooks: the one that they make, if the variable names none
PRESETS = ("quick", "standard", "full")
LEAST = 10  # rows that predicting a quantity takes
SAMPLE = 12_000  # designs kept of each device, the front among them
FIGURES = (
    *(f"{name}{end}" for name in (*QUANTITIES, "energy_mj") for end in ("", "_low", "_high")),
    *("dsp", "bram", "lut"),
)
_PARTS = ("genomes", "accelerators", "means", "low", "high")
_SETTINGS = ("version", "space", "dataset", "preset", "seed", "devices")
_ACCELERATOR = ("pf", "pc", "pv", "weight_kib", "feature_kib")


@dataclass(frozen=True)
class Study:
    """An open study. `create` and `open_study` make one."""

    root: Path
    space: SearchSpace
    dataset: str
    preset: str
    seed: int
    devices: dict[str, Device]

    @property
    def supernet_path(self) -> Path:
        """Where phase 1 keeps the supernet."""
        return self.root / "supernet.safetensors"

    @property
    def store(self) -> Store:
        """The measurements."""
        return Store(self.root / "measurements.sqlite")

    def command(self, *words: str) -> str:
        """Return the line of a shell by which the program does that with this study."""
        return shlex.join(["codesign", *words, "--study", str(self.root)])

    def _file(self, name: str, verb: str) -> Path:
        """Return the path of a file that a verb stores. Raises InputError if it is not there."""
        if not (path := self.root / name).exists():
            raise InputError(f"{path} does not exist: run `codesign {verb}` on this study first.")
        return path

    def device(self, name: str) -> Device:
        """Return a device of this study. Raises InputError."""
        if name not in self.devices:
            raise InputError(
                f"device is {name!r}, but this study knows only: {', '.join(self.devices)}."
            )
        return self.devices[name]

    def save_predictors(self, predictors: Predictors, report: list[dict[str, Any]]) -> None:
        """Store the fitted Gaussian processes and the report on how good they are."""
        path = self.root / "predictors.safetensors"
        with alone(self.root):
            write_arrays(path, *predictors.to_arrays())
            about = {"version": __version__, "predictors": digest(path), "quantities": report}
            write_json(self.root / "fit.json", about)

    def predictors(self) -> Predictors:
        """Read the Gaussian processes. Raises InputError if there are none or they are damaged."""
        path = self._file("predictors.safetensors", "fit")
        arrays, about = read_arrays(path)
        try:
            with np.errstate(all="ignore"):  # damaged ones overflow, and are found by that
                return Predictors.from_arrays(self.space, self.devices, arrays, about)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(
                f"{path} is damaged, or of another study or version: run `codesign fit` on this "
                "study again."
            ) from None

    def fit_report(self) -> pd.DataFrame:
        """Return how good the predictors are, a row for each quantity and model; NaN where a model
        has no such figure. Raises InputError if there is none or it is damaged."""
        path = self._file("fit.json", "fit")
        of, predictors = read_json(path).get("predictors"), path.with_name("predictors.safetensors")
        if of and of != digest(predictors):  # older ones do not say; killed between the two
            raise InputError(f"{path} is of other predictors: run `codesign fit` on this study.")
        return read_json_table(
            path, "quantities", ("quantity", "device", "source", "model", "method"), ("rows",)
        )

    def sources(self) -> dict[tuple[str, str], str]:
        """Return what predictions rest on, measured or modelled, by quantity and device; that of
        accuracy is "". Raises InputError as `fit_report` does."""
        report = self.fit_report()
        pairs = zip(report["quantity"], report["device"], strict=True)
        return dict(zip(pairs, report["source"], strict=True))

    def save_exploration(
        self, found: Exploration, constraints: Constraints, sample: bool, seed: int = 0
    ) -> None:
        """Store the front, and with `sample` some of the designs considered, for the page."""
        content = {
            "constraints": asdict(constraints),
            "considered": found.considered,
            "feasible": found.feasible,
            # Six digits of each prediction: more would only fill the file.
            "front": {name: _short(column) for name, column in found.front.items()},
        }
        with alone(self.root):  # lest two explorations leave one's front and the other's sample
            write_json(self.root / "front.json", content, indent=None)
            if sample:
                self._save_designs(found.designs, seed)

    def _save_designs(self, found: Sequence[Designs], seed: int) -> None:
        arrays: dict[str, np.ndarray] = {}
        predictors = self.predictors()
        for designs in tqdm(found, "sample of designs", unit="device"):
            low, high = predictors.intervals(designs.genomes, designs.accelerators, designs.device)
            bad = replace(designs, low=low, high=high).worst(CONFIDENCE)
            # First what bounds on objectives, on resources, and with a probability can bring up.
            need = cost.resources(designs.accelerators, self.devices[designs.device])
            goals = designs.means * SIGNS
            wider = [goals, np.column_stack([goals, need.dsp, need.bram])]
            wider.append(np.column_stack([wider[-1], bad * [*SIGNS, 1]]))
            best = [np.flatnonzero(front(points)) for points in wider]
            rest = np.random.default_rng(seed).permutation(len(designs))
            _, first = np.unique(np.concatenate([*best, rest]), return_index=True)
            order = np.sort(np.argsort(first)[:SAMPLE])
            some = designs[order]
            columns = [getattr(some.accelerators, name) for name in _ACCELERATOR]
            parts = [
                some.genomes.astype(np.min_scalar_type(int(self.space.radix.max()))),
                np.column_stack(columns).astype(np.uint16),
                *(values.astype(np.float32) for values in (some.means, low[order], high[order])),
            ]
            arrays |= {f"{some.device}/{k}": part for k, part in zip(_PARTS, parts, strict=True)}
        about = {designs.device: len(designs) for designs in found}
        write_arrays(self.root / "designs.safetensors", arrays, {"considered": about})

    def designs(self) -> tuple[dict[str, Designs], dict[str, int]]:
        """Return a sample of designs by device, the front among them, and how many were considered.

        Raises InputError if the study was not explored yet or the file is damaged.
        """
        path = self._file("designs.safetensors", "explore --sample")
        arrays, about = read_arrays(path)
        found, considered = {}, about.get("considered")
        if not isinstance(considered, dict):
            raise InputError(f"{path} is damaged: it does not say how many were considered.")
        for device, count in considered.items():
            errors.integer(f"designs considered in {path}", count, 0)
            parts = [
                arrays.get(f"{self.device(device).name}/{part}", np.zeros(0)) for part in _PARTS
            ]
            genomes, columns, means, low, high = parts
            widths = (len(self.space.radix), len(_ACCELERATOR), *[len(QUANTITIES)] * 3)
            shapes = [(len(genomes), width) for width in widths]
            if not (
                [part.shape for part in parts] == shapes
                and all(np.isfinite(part).all() for part in parts)
                and ((genomes >= 0) & (genomes < self.space.radix)).all()
                and (columns > 0).all()
            ):
                raise InputError(f"{path} is damaged: its designs of {device} are not whole.")
            accelerators = Accelerators(*columns.astype(np.int64).T)
            figures = (values.astype(np.float64) for values in (means, low, high))
            found[device] = Designs(device, genomes.astype(np.int64), accelerators, *figures)
        return found, considered

    def front(self) -> pd.DataFrame:
        """Return the front that was found last, as `explore.table` gives it.

        Raises InputError if there is none or it is damaged.
        """
        path = self._file("front.json", "explore")
        return read_json_table(path, "front", ("id", *KEY), FIGURES)

    def find(self, text: str) -> Design:
        """Return a design by its text form, or by its id if it is in the front that was found last,
        was measured, or is in the sample that the page shows.

        Raises InputError if it is none of these, or not of this study's space and devices.
        """
        known = (each for each in self._told() if each.id == text)
        design = Design.parse(text) if "@" in text else next(known, None)
        if design is None:
            raise InputError(
                f"design {text!r} is neither in the front that was found last nor among those "
                "measured or shown on the page; give its text form, which stands beside the id."
            )
        self.space.encode(design.architecture)
        cost.check(design.accelerator, self.device(design.device))
        return design

    def _told(self) -> Iterator[Design]:
        """Yield the designs that people have been told the ids of, those of the page last."""
        front = self.front()[KEY] if (self.root / "front.json").exists() else pd.DataFrame()
        rows = self.store.found()[KEY]
        for some in (front, rows[rows["device"] != ""].drop_duplicates()):
            for key in some.itertuples(index=False):
                yield Design.parse("@".join(key))
        sample = self.designs()[0] if (self.root / "designs.safetensors").exists() else {}
        for name, designs in sample.items():
            for genome, acc in zip(designs.genomes, designs.accelerators, strict=True):
                yield Design(self.space.decode(genome), acc, name)

    def layers(self, design: Design) -> pd.DataFrame:
        """Return the design's layers as rows: loop bounds, MACs, and modelled: bytes moved over the
        memory port, cycles by cause (CAUSES) and in all.

        Raises InputError if the device cannot hold the engine, or that cannot run the network.
        """
        layers = layers_of(self.space, self.space.encode(design.architecture)[None])
        acc, device = design.accelerator, self.device(design.device)
        cost.check(acc, device, layers, str(design.architecture))
        port = Port.of(device)
        spent, (weights, features) = cycles(layers, acc, port), traffic(layers, acc, port)
        columns = {
            "filters": layers.filters, "channels": layers.channels, "height": layers.height,
            "width": layers.width, "kernel": layers.kernel, "stride": layers.stride,
            "residual": layers.residual, "macs": layers.macs, "weight_bytes": weights,
            "feature_bytes": features,
            **{cause: getattr(spent, cause) for cause in CAUSES}, "cycles": spent.total,
        }  # fmt: skip
        frame = pd.DataFrame({name: column[0] for name, column in columns.items()})
        frame.insert(0, "layer", layers.names)
        return frame[frame["filters"] > 0].reset_index(drop=True)

    def predict(self, designs: Sequence[Design]) -> pd.DataFrame:
        """Return the predictions of one or more designs as `explore.table` gives them, in the given
        order. Raises InputError, also if one is not of this study's space and devices."""
        errors.integer("the number of designs", len(designs), 1)
        predictors = self.predictors()
        tables = []
        for design in designs:
            genome = self.space.encode(design.architecture)[None]
            acc = Accelerators.of([design.accelerator])
            means = predictors.means(genome, acc, self.device(design.device).name)
            tables.append(table(predictors, Designs(design.device, genome, acc, means)))
        return pd.concat(tables, ignore_index=True)


def _short(column: pd.Series) -> list[Any]:
    return [float(f"{x:.6g}") if isinstance(x, float) else x for x in column.tolist()]


def create(root: str | Path, space: SearchSpace, dataset: str, preset: str, seed: int,
           devices: Sequence[Device]) -> Study:  # fmt: skip
    """Start a study, or open it if it is there with the same settings. Raises InputError if it is
    there with others, or if nothing could be explored with these."""
    if space.size < LEAST:
        raise InputError(
            f"space {space.name} holds {space.size} architectures, but must hold at least {LEAST}."
        )
    study = Study(Path(root), space, dataset, preset, seed, {each.name: each for each in devices})
    for device in devices:
        usable(device, Constraints())
        if study.devices[device.name] != device:
            raise InputError(f"two devices are called {device.name}, but differ: rename one.")
    if (study.root / SETTINGS).exists():
        there = open_study(root)
        for name in ("space", "dataset", "preset", "seed", "devices"):
            if getattr(there, name) != getattr(study, name):
                other = "other devices" if name == "devices" else f"another {name}"
                raise InputError(f"{root} is a study with {other}; choose another folder.")
        return there
    tables = [asdict(device) for device in study.devices.values()]
    values = (__version__, to_table(space), dataset, preset, seed, tables)
    write_json(study.root / SETTINGS, dict(zip(_SETTINGS, values, strict=True)))
    return study


def open_study(root: str | Path) -> Study:
    """Open a study. Raises InputError if the folder holds none, or it is damaged."""
    path = Path(root) / SETTINGS
    if not path.exists():
        raise InputError(
            f"{root} holds no study: make one with `codesign run --preset quick`, or name one with "
            "--study, such as data/studies/fashion of the program's repository."
        )
    content = read_json(path)
    with errors.written_by(content.get("version"), __version__):
        devices = errors.table(str(path), content, _SETTINGS)["devices"]
        if not isinstance(devices, list) or not devices:
            raise InputError(f"devices of {path} must be a list of one or more devices.")
        found = [device_of(each, f"device of {path}") for each in devices]
        return Study(
            path.parent,
            space_of(content["space"], f"space of {path}"),
            errors.text(f"dataset of {path}", content["dataset"]),
            errors.choice(f"preset of {path}", content["preset"], PRESETS),
            errors.integer(f"seed of {path}", content["seed"], 0),
            {device.name: device for device in found},
        )
