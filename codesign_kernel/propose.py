"""Which designs to measure next on hardware of one's own: the verb `propose`.

They are chosen as `improve` chooses them, but measured by whoever has the hardware; `record` takes
in what they find.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from . import explore
from .campaign import known
from .constraints import CONFIDENCE, Constraints
from .design import Design
from .errors import integer
from .files import check_out, write_text
from .improve import Box, choose
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
from .study import Study

MOST = 1_000


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
    columns = [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")]
    table = study.predict(designs)[columns].add_prefix("predicted_")
    table.insert(0, DESIGN, [str(design) for design in designs])
    return table.assign(**dict.fromkeys(VALUES, ""))


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
    with begun_anew():
        table = proposed(opened, names, asked, designs, generations, seed)
    write_text(out, table.to_csv(index=False, float_format="%.6g"))
    print(f"Wrote {out}: {len(table)} designs, with what is predicted of them.")
    print(f"Fill in {', '.join(VALUES)} (%, ms, W, MHz) as far as you measure them, then:")
    print(f"  codesign record {out} --by NAME --study {study}")
