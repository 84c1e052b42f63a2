"""Engines that were placed and routed: those of the table that comes with the program, or anew.

An engine's figures are those of seed 1: what `codesign implement` builds if no other is asked for.
The table has more seeds of some engines, which show how much a clock owes to luck.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from . import cost, ecp5, synthesize
from .accelerator import Accelerator, Accelerators, Device
from .errors import InputError
from .rtl.shape import Shape

FIGURES = ("clock_mhz", "dsp", "bram", "lut", "ff")
ONLY = f"engines are built for {', '.join(ecp5.CHIPS)} only"
# In a clone the table is with the other data; a wheel has it inside the package.
PLACES = (
    Path(__file__).parents[1] / "data" / "implementations.csv",
    Path(__file__).with_name("implementations.csv"),
)


@cache
def table() -> pd.DataFrame:
    """Return the engines that were placed and routed, a row for each seed: see data/README.md.

    Raises InputError if the table is not there or damaged.
    """
    for path in PLACES:
        if path.exists():
            try:
                found = pd.read_csv(path)
                found[["accelerator", "device", "port_bits", "seed", *FIGURES]].isna()
            except (ValueError, KeyError, OSError):
                raise InputError(f"{path} is damaged: it is no table of this program.") from None
            return found
    raise InputError(f"{PLACES[0]} does not exist: install the program from a whole clone.")


def engines(device: Device) -> list[Accelerator]:
    """Return the engines that were placed and routed on a device, the smallest first."""
    rows = _of(device)
    found = {Accelerator.parse(text) for text in rows["accelerator"]}
    return sorted(found, key=lambda acc: (acc.pf * acc.pc * acc.pv, acc))


def clocks(acc: Accelerators, device: Device, own: Mapping[str, float] | None = None) -> np.ndarray:
    """Return the clocks in MHz, (n,), that engines reached on the device: of `own`, by the engine's
    text, or of the table, NaN where neither has it."""
    rows = _of(device)
    reached = dict(zip(rows["accelerator"], rows["clock_mhz"], strict=True)) | dict(own or {})
    found = np.full(len(acc), np.nan)
    for text, clock in reached.items():
        one = Accelerator.parse(text)
        same = [getattr(acc, side.name) == getattr(one, side.name) for side in fields(one)]
        found[np.logical_and.reduce(same)] = clock
    return found


def known(acc: Accelerator, device: Device) -> tuple[dict[str, float], str]:
    """Return `clock_mhz`, `dsp`, `bram`, `lut` and `ff` of an engine without placing and routing
    it, and their source: `measured` where the table has the engine, else `modelled`."""
    found = _stored(acc, device)
    return (found, "measured") if found else (modelled(acc, device), "modelled")


def modelled(acc: Accelerator, device: Device) -> dict[str, float]:
    """Return `clock_mhz`, `dsp`, `bram`, `lut` and `ff` of an engine by the closed form."""
    need, clock = cost.resources(acc, device), float(cost.clock_mhz(acc, device))
    return {"clock_mhz": clock} | {name: float(getattr(need, name)) for name in FIGURES[1:]}


def _stored(acc: Accelerator, device: Device) -> dict[str, float]:
    """The FIGURES of an engine in the table; empty if it is not there."""
    rows = _of(device)
    rows = rows[rows["accelerator"] == str(acc)]
    return {name: float(rows[name].iloc[0]) for name in FIGURES if len(rows)}


def _of(device: Device) -> pd.DataFrame:
    """The rows of a device, one for each engine."""
    rows = table()
    there = (rows["device"] == device.name) & (rows["port_bits"] == device.port_bits)
    return rows[there & (rows["seed"] == 1)]


def measurable(device: Device) -> bool:
    """Whether engines can be placed and routed on the device."""
    return device.name in ecp5.CHIPS


def figures(acc: Accelerator, device: Device) -> dict[str, float]:
    """Return the measured `clock_mhz`, `dsp`, `bram`, `lut` and `ff` of an engine: of the table, or
    anew, which takes minutes. Raises InputError."""
    if found := _stored(acc, device):
        return found
    done = synthesize.implement(Shape(acc, device.port_bits), device)
    return {"clock_mhz": done.clock_mhz} | {
        name: float(getattr(done.used, name)) for name in FIGURES[1:]
    }
