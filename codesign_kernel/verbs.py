"""What verbs of the command line do and print, where that is more than a few lines of `cli`."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from . import engines, explore, fits, measure, meters, routed
from .constraints import CONFIDENCE, Constraints
from .design import Design
from .errors import InputError
from .explore import Exploration
from .files import alone
from .options import (
    HERE,
    AccuracyOption,
    BramOption,
    ConfidenceOption,
    DevicesOption,
    DspOption,
    EnergyOption,
    GenerationsOption,
    JsonOption,
    LatencyOption,
    PowerOption,
    SeedOption,
    StudyOption,
    begun_anew,
    searched,
)
from .predict import COVERAGE
from .quantities import QUANTITIES, TOLD, UNITS
from .space import Architecture
from .store import KEY
from .study import SETTINGS, Study
from .threads import ranks

SHOWN = 20  # designs of a front


def profile(
    study: Study, architectures: int, designs: int, engines: int, modelled: bool,
    folder: Path | None, download: bool, weights: str | None,
) -> None:  # fmt: skip
    """Measure what a study lacks of `measure.plan`, shared by torchrun's processes; print what."""
    accuracy, hardware = measure.plan(study, architectures, designs, engines)
    subnets = measure.subnets_of(study, folder, download, weights)
    simulated = [key for key in hardware if not modelled and routed.engines(study.device(key[2]))]
    closed = [key for key in hardware if key not in simulated]
    rank, world = ranks()
    if rank > 0:
        measure.measure(study, subnets, accuracy[rank::world], "accuracy")
        return
    with alone(study.root / SETTINGS):
        done = measure.measure_all(study, subnets, accuracy[::world], simulated, closed)
        for what, meter, keys, new in done:
            of = "networks" if what == "accuracy" else "designs"
            print(f"{what}: {len(keys)} {of} {meter.source} by {meter.method}, {new} now.")
        while world > 1 and not study.store.keys(subnets.method).issuperset(accuracy):
            time.sleep(0.2)  # if another fails, torchrun ends this one, too
    apart = ", ".join(d.name for d in study.devices.values() if not routed.measurable(d))
    if apart and not modelled:
        print(f"Nothing is simulated on {apart}: {routed.ONLY}.")
    print(*fits.learnt(study, [("accuracy", "")], every=True), sep="\n")


def verify(
    study: Study, designs: Sequence[Design], modelled: bool, folder: Path | None, download: bool
) -> pd.DataFrame:
    """Return `measure.verify` of designs: those on an ECP5 are simulated, placed and routed."""
    subnets = measure.subnets_of(study, folder, download)
    tables = []
    for design in designs:
        real = routed.measurable(study.device(design.device)) and not modelled
        meter = meters.Simulated(subnets, study) if real else meters.Closed(study)
        tables.append(measure.verify(study, [design], [subnets, meter]))
    return pd.concat(tables, ignore_index=True)


def verify_text(study: Study, table: pd.DataFrame) -> str:
    """Return the table of `verify` as the verb prints it."""
    shown = table.fillna({"inside": ""})
    notes = [
        "predicted, low, high: with the 90 % interval. Units: %, ms, W.",
        f"Accuracy is predicted of {measure.accuracy_of(study)}.",
    ]
    if untold := table.loc[table["inside"].isna(), "quantity"].unique().tolist():
        notes.append(
            f"inside is empty for {', '.join(untold)}: a value does not test a prediction that "
            "rests on measurements of another kind."
        )
    text = shown.to_string(index=False, float_format=lambda value: f"{value:.4g}")
    return "\n".join([text, *notes])


def network_of(study: Study, text: str) -> Architecture:
    """Return an architecture by its text form, or that of a design as `Study.find` knows it.
    Raises InputError as that does."""
    if "@" in text or not text.startswith("w"):  # an id begins with d
        return study.find(text).architecture
    architecture = Architecture.parse(text)
    study.space.encode(architecture)
    return architecture


def is_routed(study: Study, text: str) -> bool:
    """Whether the engine of a design was placed and routed on its device before."""
    design = study.find(text)
    return design.accelerator in routed.engines(study.device(design.device))


def why_modelled(study: Study, text: str) -> str:
    """Say why a design's hardware figures are no more than modelled, and what would change that."""
    if not routed.measurable(study.device(study.find(text).device)):
        return f"Its latency and power are modelled: {routed.ONLY}."
    return (
        "Its latency and power are modelled: its engine was not placed and routed yet, which "
        f"`{study.command('verify', text)}` does in some minutes."
    )


def records(table: pd.DataFrame) -> str:
    """Return a table as JSON for programs: its rows, and what they are in. What a row does not have
    is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    units = {name: UNITS[name] for name in QUANTITIES}
    content = {"units": units, "interval_coverage": COVERAGE, "rows": rows}
    return json.dumps(content, indent=2, allow_nan=False)


def fit_text(study: Study, table: pd.DataFrame) -> str:
    """Return the table of `fits.fit` as the verb `fit` prints it."""
    shown = table.drop(columns="method")
    same = shown.duplicated(["quantity", "device"])
    shown.loc[same, ["quantity", "device", "source"]] = ""
    shown["rows"] = shown["rows"].astype(object).where(~same, "")
    picked = int(shown.pop("chosen").max())
    shown = shown.dropna(axis=1, how="all").rename(columns={"Kendall tau": "tau"})
    new = "; 'new engine': of rows whose engine was not learnt from" * ({*shown} >= {*fits.ANEW})
    notes = [
        "Errors are of held-out rows (10-fold cross-validation); LOO MAE is the Gaussian "
        f"process's leave-one-out error{new}; tau: Kendall's. Units: accuracy %, latency_ms ms, "
        "power_w W; MAPE and coverage of the 90 % interval in %; MAE and width in the quantity's "
        "unit."
    ]
    shown["model"] = shown["model"].str.removeprefix("Gaussian process, ")
    if (shown["model"] == "accuracies alone").any():
        notes.append(
            "Of accuracy, the Gaussian process learns from single images. Plain models do not, and "
            "compare with the one of accuracies alone; folds of the same rows chose of these two."
        )
    if picked:
        notes.append(
            f"Up to {picked} more rows a quantity, chosen by predictions (`improve`, `verify`), "
            "are learnt from but not counted here: they lie near the front, and would be no fair "
            "sample."
        )
    notes += fits.learnt(study, fits.jobs(study))
    text = shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    return "\n".join([text, *notes])


def explore_command(
    study: StudyOption = HERE,
    max_latency_ms: LatencyOption = None,
    max_power_w: PowerOption = None,
    min_accuracy: AccuracyOption = None,
    max_energy_mj: EnergyOption = None,
    max_dsp: DspOption = None,
    max_bram: BramOption = None,
    confidence: ConfidenceOption = CONFIDENCE,
    device: DevicesOption = None,
    generations: GenerationsOption = 60,
    seed: SeedOption = 0,
    routed_only: Annotated[
        bool, typer.Option("--routed-only", help="Engines whose clock was measured, no others.")
    ] = False,
    sample: Annotated[bool, typer.Option("--sample", help="Keep designs for the page.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Print the whole front.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Phase 3: search for the Pareto set on predictions, under constraints."""
    bounds = max_latency_ms, max_power_w, min_accuracy, max_energy_mj, max_dsp, max_bram
    opened, names, asked = searched(study, device, bounds, confidence, generations, seed)
    predictors, basis = opened.predictors(), rests_on(opened, names)
    grids = {name: engines.built(opened, name) for name in names if routed_only}
    with begun_anew():
        found = explore.explore(
            predictors, names, asked, generations=generations, seed=seed, engines=grids
        )
        if as_json:
            print(json.dumps(front_for_programs(found, asked, basis), indent=2, allow_nan=False))
        else:
            print(front_text(found, asked, every, basis))
        try:
            opened.save_exploration(found, asked, sample)
        except InputError as error:  # a study that many share is read-only
            print(f"codesign: the front was not stored: {error}", file=sys.stderr)


def rests_on(study: Study, devices: Sequence[str]) -> str:
    """Say of what predicted accuracy is, what latency and power rest on, and what resources are."""
    sources = study.sources()
    told = {"accuracy": f"accuracy of {measure.accuracy_of(study)}"}
    for quantity in QUANTITIES[1:]:
        kinds = dict[str, list[str]]()
        for name in devices:
            kinds.setdefault(sources[quantity, name], []).append(name)
        from_ = (f"{source} designs on {', '.join(names)}" for source, names in kinds.items())
        told[quantity] = f"{TOLD[quantity].label.lower()} from {' and '.join(from_)}"
    if all(sources["power_w", name] == "modelled" for name in devices):
        told["power_w"] = "power is modelled, no board was measured"
    told["lut"] = "DSP, block RAM and LUT are modelled, without intervals"
    if any(routed.measurable(study.device(name)) for name in devices):
        told["lut"] += " (DSP and block RAM of an ECP5 are exactly those of place and route)"
    return "; ".join(told.values())


def front_for_programs(found: Exploration, asked: Constraints, basis: str) -> dict[str, object]:
    """Return a front as the verb `explore` prints it with --json."""
    return {
        "considered": found.considered,
        "feasible": found.feasible,
        "constraints": asdict(asked),
        "source": f"predicted: {basis}",
        "interval_coverage": COVERAGE,
        "units": UNITS | {"dsp": "blocks", "bram": "blocks"},
        "knee": str(found.front["id"].iloc[explore.knee(found.front[[*QUANTITIES]])]),
        "front": found.front.to_dict("records"),
    }  # fmt: skip


def front_text(found: Exploration, asked: Constraints, every: bool, basis: str) -> str:
    """Return a front as the verb `explore` prints it, thinned to `SHOWN` designs if not `every`.
    `basis`: see `rests_on`."""
    front = found.front
    pick, place = np.arange(len(front)), explore.knee(front[[*QUANTITIES]])
    if not every and len(front) > SHOWN:
        pick = np.linspace(0, len(front) - 1, SHOWN).round().astype(int)
        pick[np.abs(pick - place).argmin()] = place
    best = front.iloc[place]
    absent = [each.device for each in found.designs if each.device not in set(front["device"])]
    none = f"No design of {', '.join(absent)} is on the front.\n" if absent else ""
    rows = front.iloc[pick]
    shown = rows[["id"]].assign(design=rows[KEY].agg("@".join, axis=1))
    for name, told in TOLD.items():
        ends = zip(*(rows[name + end].map(told.text) for end in ("", "_low", "_high")), strict=True)
        head = f"{told.label.lower()} {told.unit}"
        shown[head] = [f"{value} [{low}, {high}]" for value, low, high in ends]
    shown[["dsp", "bram", "lut"]] = rows[["dsp", "bram", "lut"]]
    part = f", of which {len(rows)} are shown (--all shows all)" if len(rows) < len(front) else ""
    sure = f" with a probability of {100 * asked.confidence:g} %" if asked.uncertain else ""
    return (
        f"{shown.to_string(index=False)}\n"
        f"Considered {found.considered:,} designs; {found.feasible:,} keep to the constraints"
        f"{sure}; {len(front):,} are on the front{part}.\n"
        f"{none}Predicted, with 90 % intervals: {basis}.\n"
        f"Knee: {best['id']} ({'@'.join(best[KEY])})"
    )
