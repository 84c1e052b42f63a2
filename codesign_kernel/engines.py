"""What a study knows of engines beyond the shipped table: those measured for it.

Designs that were simulated, or recorded from a table of one's own, say which clock their engine
reached, and often what it takes of the device.
"""

import pandas as pd

from . import routed
from .accelerator import Accelerator, Accelerators, Device
from .errors import InputError
from .meters import SIMULATION, recorded
from .study import Study


def measured(study: Study, device: str) -> dict[str, dict[str, float]]:
    """Return what was measured of engines on a device last, of FIGURES, by the engine's text."""
    try:
        rows = study.store.rows()
    except InputError:  # nothing was measured yet
        return {}
    if "clock_mhz" not in rows:
        return {}
    by = rows["method"].map(lambda method: method == SIMULATION or recorded(method))
    rows = rows[by & (rows["device"] == device) & rows["clock_mhz"].notna()]
    found: dict[str, dict[str, float]] = {}
    for row in rows.reindex(columns=["accelerator", *routed.FIGURES]).to_dict("records"):
        engine = str(row.pop("accelerator"))
        found[engine] = {str(name): float(x) for name, x in row.items() if not pd.isna(x)}
    return found


def clocks(study: Study, device: str) -> dict[str, float]:
    """Return the clocks in MHz of `measured` engines, by the engine's text."""
    return {engine: known["clock_mhz"] for engine, known in measured(study, device).items()}


def built(study: Study, device: str) -> Accelerators:
    """Return the engines of a device whose clock is known: of the shipped table, and those measured
    for the study. Raises InputError if there is none."""
    there = set(routed.engines(study.device(device)))
    there |= {Accelerator.parse(text) for text in clocks(study, device)}
    if not there:
        raise InputError(f"no engine of {device} was placed and routed: leave out --routed-only.")
    return Accelerators.of(sorted(there))


def known(study: Study, acc: Accelerator, device: Device) -> tuple[dict[str, float], str]:
    """Return `routed.known`, of which what was measured for the study takes precedence."""
    found, source = routed.known(acc, device)
    own = measured(study, device.name).get(str(acc))
    return (found, source) if own is None else (found | own, "measured")
