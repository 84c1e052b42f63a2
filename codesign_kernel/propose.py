"""Measuring on hardware of one's own: the verbs `propose`, what to measure next, and `record`.

Designs are chosen as `improve` chooses them, but measured by whoever has the hardware; `record`
takes in what they find.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from . import explore, fits, measure
from . import record as own
from .campaign import known
from .constraints import CONFIDENCE, Constraints
from .design import Design
from .errors import InputError, integer
from .files import alone, check_out, write_text
from .improve import Box, choose
from .meters import recorded
from .options import (
    HERE,
    AccuracyOption,
    BramOption,
    ConfidenceOption,
    DevicesOption,
    DspOption,
    EnergyOption,
    GenerationsOption,
    LatencyOption,
    PowerOption,
    SeedOption,
    StudyOption,
    begun_anew,
    searched,
)
from .quantities import QUANTITIES
from .record import DESIGN, VALUES
from .study import SETTINGS, Study, open_study

MOST = 1_000
FORECAST = [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")]
PREDICTED = "predicted_"


def proposed(
    study: Study, devices: Sequence[str], bounds: Constraints, n: int, generations: int, seed: int
) -> pd.DataFrame:
    """Return `n` designs by which the front of measurements is expected to grow most, the first
    chosen first: `design`, predictions with their 90 % intervals, and empty columns for `record`.

    Raises InputError if the study was not fitted, or no design keeps to the bounds.
    """
    predictors = study.predictors()
    found = explore.explore(predictors, devices, bounds, generations=generations, seed=seed)
    best = found.front[[*QUANTITIES]].to_numpy(dtype=np.float64)
    there = known(study, devices, bounds, {})
    keys = choose(predictors, found.designs, there, Box.of(best, bounds), n)
    designs = [Design.parse("@".join(key)) for key in keys]
    table = study.predict(designs)[FORECAST].add_prefix(PREDICTED)
    table.insert(0, DESIGN, [str(design) for design in designs])
    return table.assign(**dict.fromkeys(VALUES, ""))


def _check_unfilled(out: Path) -> None:
    """Raise InputError if a file is there that is more than proposals not filled in."""
    from .table import read_table  # with it comes scipy's statistics: a slower start

    if not out.exists():
        return
    there = pd.DataFrame()
    with suppress(InputError):
        there = read_table(out)
    proposals = {DESIGN} <= {*there} <= {DESIGN, *(PREDICTED + name for name in FORECAST), *VALUES}
    if not proposals or (there.filter(items=[*VALUES]) != "").any(axis=None):
        what = "measurements" if proposals else "something else than proposals"
        raise InputError(f"{out} holds {what}, which this would lose: name another file.")


def propose(
    out: Annotated[Path, typer.Argument(help="CSV file to write.", metavar="FILE.csv")],
    study: StudyOption = HERE,
    designs: Annotated[int, typer.Option(help="How many to propose.")] = 10,
    device: DevicesOption = None,
    max_latency_ms: LatencyOption = None,
    max_power_w: PowerOption = None,
    min_accuracy: AccuracyOption = None,
    max_energy_mj: EnergyOption = None,
    max_dsp: DspOption = None,
    max_bram: BramOption = None,
    confidence: ConfidenceOption = CONFIDENCE,
    generations: GenerationsOption = 60,
    seed: SeedOption = 0,
) -> None:
    """Say which designs to measure next on hardware of your own: those by which the front is
    expected to grow most. Fill in what you measured, then `codesign record` the file."""
    bounds = max_latency_ms, max_power_w, min_accuracy, max_energy_mj, max_dsp, max_bram
    opened, names, asked = searched(study, device, bounds, confidence, generations, seed)
    integer("--designs", designs, 1, MOST)
    check_out("FILE.csv", out)
    _check_unfilled(out)
    with begun_anew():
        table = proposed(opened, names, asked, designs, generations, seed)
    write_text(out, table.to_csv(index=False, float_format="%.6g"))
    print(f"Wrote {out}: {len(table)} designs, with what is predicted of them.")
    print(f"Fill in {', '.join(VALUES)} (%, ms, W, MHz) as far as you measure them, then:")
    print(f"  {opened.command('record', str(out), '--by', 'NAME')}")


def record(
    table: Annotated[
        Path | None, typer.Argument(help="A CSV file: a row a design.", metavar="FILE.csv")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who or what measured, such as a board's name.")
    ] = None,
    study: StudyOption = HERE,
    forget: Annotated[
        str | None, typer.Option(help="Remove what this name recorded, and take in nothing.")
    ] = None,
) -> None:
    """Take in measurements of your own, of a board or another tool, for `fit` to learn from.

    Columns: design (as `explore` prints it), or architecture, accelerator and device; and any of
    accuracy (%), latency_ms, power_w and clock_mhz.
    """
    opened = open_study(study)
    if forget is not None and (table, by) == (None, None):
        with alone(opened.root / SETTINGS):
            print(own.forget(opened, forget))
    elif table is None or by is None or forget is not None:
        raise InputError("record needs FILE.csv and --by NAME, or --forget NAME and neither.")
    else:
        with alone(opened.root / SETTINGS):
            print(own.record(opened, table, by))
        mine = (job for job in fits.jobs(opened) if recorded(measure.method(opened, *job)))
        for sentence in fits.learnt(opened, mine):
            print(sentence)
