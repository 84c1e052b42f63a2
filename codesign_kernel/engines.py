"""What a study knows of engines beyond the shipped table: those measured for it.

Designs that were simulated, or recorded from a table of one's own, say which clock their engine
reached, and often what it takes of the device.
"""

from collections.abc import Mapping

from . import routed
from .accelerator import Accelerator, Accelerators, Device
from .design import Design
from .errors import InputError
from .meters import SIMULATION, recorded
from .study import Study

DESIGN = ("cycles", "clock_mhz", "latency_ms", "power_w")  # of a design on an engine
Known = tuple[dict[str, float], str]  # of an engine: its FIGURES, and their source


def measured(study: Study, device: str) -> dict[str, dict[str, float]]:
    """Return what was measured of engines on a device last, of FIGURES, by the engine's text."""
    rows = study.store.values()
    rows = rows[(rows["device"] == device) & rows["quantity"].isin(routed.FIGURES)]
    by = [method == SIMULATION or recorded(method) for method in rows["method"]]
    found: dict[str, dict[str, float]] = {}
    for engine, name, value in rows.loc[by, ["accelerator", "quantity", "value"]].to_numpy():
        found.setdefault(str(engine), {})[str(name)] = float(value)
    return {engine: known for engine, known in found.items() if "clock_mhz" in known}


def figures(study: Study, design: Design) -> dict[str, tuple[float, str]]:
    """Return what was measured of a design last, of DESIGN, each with its method."""
    rows = study.store.values([design.key])
    rows = rows[rows["source"] == "measured"]
    pairs = zip(rows["value"].astype(float), rows["method"], strict=True)
    last = dict(zip(rows["quantity"], pairs, strict=True))
    return {name: last[name] for name in DESIGN if name in last}


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


def known(acc: Accelerator, device: Device, own: Mapping[str, Mapping[str, float]]) -> Known:
    """Return `routed.known`, of which what was `measured` for a study, `own`, takes precedence."""
    found, source = routed.known(acc, device)
    mine = own.get(str(acc))
    return (found, source) if mine is None else (found | dict(mine), "measured")
