"""The measured tables of `data/` as the surrogate sees them: columns, target, analytic prior."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from cycles import MEMORIES, PORT_BITS

from codesign_kernel import cost, fits, measure
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.cycles import Port, cycles
from codesign_kernel.space import Architecture, load_space
from codesign_kernel.study import open_study
from codesign_kernel.workload import Layers, layers_of

DATA = Path(__file__).parent.parent / "data"
LAYER = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
         "residual")  # fmt: skip


class Table(NamedTuple):
    """Columns of a table, its target, the columns of its analytic estimate, groups of its rows.

    One column of an estimate is the prior, in the target's unit or proportional to it; of several
    a regression linear in their logarithms is the analytic model.
    """

    frame: pd.DataFrame
    target: str
    analytic: tuple[str, ...]
    groups: Mapping[str, pd.Series] = MappingProxyType({})


def tables() -> dict[str, Table]:
    """Return all tables by name: those in `data/`, and accuracy and latency of its study."""
    layers, layer_groups = _layers()
    networks, network_groups = _networks()
    made = {}
    for name, frame, groups in (
        ("layer_cycles", layers, layer_groups),
        ("network_cycles", networks, network_groups),
    ):
        for prior, other in (("roofline", "closed_form"), ("closed_form", "roofline")):
            table = Table(frame.drop(columns=other), "cycles", (prior,), groups)
            made[f"{name}, {prior.replace('_', ' ')}"] = table
    flips, flip_groups = _flips()
    made["activity, flips"] = Table(flips, "flips", ("closed_form",), flip_groups)
    engines = _engines()
    for target, estimate in (("clock_mhz", "clock_form"), ("lut", "lut_form")):
        left_out = {"clock_mhz", "lut", "clock_form", "lut_form"} - {target, estimate}
        frame = engines.drop(columns=[*left_out])
        made[f"implementations, {target}"] = Table(frame, target, (estimate,))
    analytic = ("log2_macs", "log2_parameters")
    made["fashion, accuracy"] = Table(_study("accuracy"), "accuracy", analytic)
    latency = _study("latency_ms", "ecp5-85f")
    made["fashion, latency_ms"] = Table(latency, "latency_ms", ("prior",))
    return made


def accuracies(path: Path, target: str) -> Table:
    """NAS-Bench-Macro: block choices, parameters, FLOPs; accuracy in %."""
    table = pd.read_csv(path)
    columns = [*(f"b{i}" for i in range(8)), "params", "flops", target]
    return Table(table[columns], target, ("params", "flops"))


def _accelerators(texts: pd.Series) -> tuple[Accelerators, pd.DataFrame]:
    acc = Accelerators.of([Accelerator.parse(text) for text in texts])
    return acc, pd.DataFrame({each.name: getattr(acc, each.name) for each in fields(acc)})


def _layers() -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    table = pd.read_csv(DATA / "layer_cycles.csv")
    acc, columns = _accelerators(table["accelerator"])
    closed = np.zeros(len(table))
    for memory, model in MEMORIES.items():
        at = np.flatnonzero(table["memory"] == memory)
        bounds = {key: table[key].to_numpy()[at, None] for key in LAYER}
        port = Port.of_memory(PORT_BITS, model)
        closed[at] = cycles(Layers(("layer",), **bounds), acc[at][:, None], port).total[:, 0]
    macs = table[["filters", "channels", "kernel", "kernel", "height", "width"]].prod(axis=1)
    frame = table[["memory", *LAYER]].join(columns)
    frame["roofline"] = macs / (columns["pf"] * columns["pc"] * columns["pv"])
    frame["closed_form"] = closed
    frame["cycles"] = table["cycles"]
    return frame, {"network": table["architecture"], "engine": table["accelerator"]}


def _networks() -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    table = pd.read_csv(DATA / "network_cycles.csv")
    acc, columns = _accelerators(table["accelerator"])
    frame = table[["memory", "macs"]].join(columns)
    for (name, text, memory), rows in table.groupby(["space", "architecture", "memory"]):
        at, space = rows.index.to_numpy(), load_space(name)
        layers = layers_of(space, space.encode(Architecture.parse(text))[None])
        port = Port.of_memory(PORT_BITS, MEMORIES[memory])
        frame.loc[at, "weights"] = layers.weights.sum()
        frame.loc[at, "maps"] = (layers.inputs + layers.outputs).sum()
        frame.loc[at, "layers"] = (layers.filters > 0).sum()
        frame.loc[at, "closed_form"] = cycles(layers, acc[at][:, None], port).total.sum(axis=1)
    frame["roofline"] = table["macs"] / (columns["pf"] * columns["pc"] * columns["pv"])
    frame["cycles"] = table["cycles"]
    return frame, {"network": table["architecture"], "engine": table["accelerator"]}


def _flips() -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    table = pd.read_csv(DATA / "activity.csv")
    acc, frame = _accelerators(table["accelerator"])
    space, device = load_space("fashion"), load_device("ecp5-85f")
    layers = layers_of(space, space.genomes(table["architecture"]))
    spent, need = cycles(layers, acc[:, None], Port.of(device)), cost.resources(acc, device)
    frame["macs"] = layers.macs.sum(axis=1)
    frame["weights"] = layers.weights.sum(axis=1)
    frame["maps"] = (layers.inputs + layers.outputs).sum(axis=1)
    frame["flip_flops"] = table["flip_flops"]
    frame["closed_form"] = cost.activity(acc, device, spent, need).flips
    frame["flips"] = table["flips"]
    return frame, {"network": table["architecture"], "engine": table["accelerator"]}


def _engines() -> pd.DataFrame:
    table = pd.read_csv(DATA / "implementations.csv").query("seed == 1").reset_index(drop=True)
    _, columns = _accelerators(table["accelerator"])
    pairs = [
        (Accelerator.parse(text), load_device(name))
        for text, name in zip(table["accelerator"], table["device"], strict=True)
    ]
    frame = table[["device", "router"]].join(columns)
    frame["clock_form"] = [float(cost.clock_mhz(*pair)) for pair in pairs]
    frame["lut_form"] = [int(cost.resources(*pair).lut) for pair in pairs]
    return frame.join(table[["clock_mhz", "lut"]])


def _study(quantity: str, device: str = "") -> pd.DataFrame:
    study = open_study(DATA / "studies" / "fashion")
    rows = measure.rows(study, quantity, device)
    X, names = fits.inputs(study, quantity, device, rows)
    return pd.DataFrame(X, columns=names).assign(**{quantity: rows[quantity].to_numpy(float)})
