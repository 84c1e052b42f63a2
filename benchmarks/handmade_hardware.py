"""Latency and energy of the networks of data/handmade.csv on engines that were placed and routed.

    python benchmarks/handmade_hardware.py data/handmade.csv data/handmade_hardware.csv

A subnet is a chain of convolutions, which the engine runs as one program. Networks designed by hand
are not: their layers are simulated one by one, each at the head of a program, and summed. What that
loses where a layer could load while another computes, subnets tell, which are also summed so. What
it leaves out costs nothing: joining, pooling, and adding a map that is not the layer's own input.
The engine has no depthwise convolutions. They are costed twice: by the closed form, a channel at a
time, and as BLOCK channels at a time, with zeros beside the diagonal, each block simulated. Clock
and flip-flops are those of the engine after place and route; power and energy are modelled on all
these. A minute of one core, and half a minute for each engine that is compiled first.
"""

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from handmade import SIZES, layers_of, network_of
from tqdm import tqdm

from codesign_kernel import cost, routed
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.compare import blocked
from codesign_kernel.cycles import Cycles, Port, cycles
from codesign_kernel.files import write_text
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import CAUSES, count_cycles, memory_of
from codesign_kernel.workload import Layers

ENGINES = (
    ("8x8x1w32f32", "ecp5-85f"),
    ("16x4x2w64f32", "ecp5-85f"),
    ("8x4x1w64f32", "ecp5-45f"),
)
BLOCK = 8  # channels of a depthwise layer at a time: those of a word of the memory port
NARROW = 8  # filters of the layer behind one that is simulated alone
BOUNDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
          "residual")  # fmt: skip


def main() -> None:
    """Simulate all networks on each engine, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", type=Path)
    parser.add_argument("csv", type=Path)
    asked = parser.parse_args()
    networks = pd.read_csv(asked.networks).drop_duplicates(["network", "size"])
    networks = networks.sort_values(["kind", "macs"])[["network", "size", "kind"]]
    pairs = [(*row, *engine) for engine in ENGINES for row in networks.itertuples(index=False)]
    rows = [
        {"network": network, "size": size, "kind": kind, "accelerator": engine, "device": device}
        | figures
        for network, size, kind, engine, device in tqdm(pairs, "simulate", unit="network")
        for figures in measured(network, size, engine, device)
    ]
    table = pd.DataFrame(rows)
    write_text(asked.csv, table.to_csv(index=False))
    print(table.drop(columns=["power_within"]).to_string(index=False))


def measured(network: str, size: str, engine: str, device_name: str) -> list[dict[str, object]]:
    """Return the figures of a network on an engine, a row for each way to run it."""
    layers = layers_of(network_of(network, size))
    own = (layers.filters == layers.channels) & (layers.stride == 1)
    layers = replace(layers, residual=layers.residual * own)  # all that the engine can add
    grouped = np.asarray(layers.repeat) > 1
    none = np.zeros_like(grouped)
    found: list[tuple[str, Layers, pd.DataFrame, np.ndarray]] = []
    if network not in SIZES:
        rows = Layers(layers.names, *(getattr(layers, name)[None] for name in BOUNDS))
        found.append(("one program", layers, program(rows, engine, device_name), none))
    blocks = blocked(layers, BLOCK)
    each = summed(blocks, engine, device_name).mul(np.asarray(blocks.repeat), axis=0)
    if grouped.any():
        found.append(("layer by layer, depthwise in blocks", blocks, each, none))
        each = closed(layers, engine, device_name).where(pd.Series(grouped), each)
    found.append(("layer by layer", layers, each, grouped))
    macs = int(layers.macs.sum())
    return [
        {"way": way, "macs": macs} | figures(macs, run, spent, engine, device_name, modelled)
        for way, run, spent, modelled in found
    ]


def summed(layers: Layers, engine: str, device_name: str) -> pd.DataFrame:
    """Return the cycles by cause of each layer, simulated alone: `measured`."""
    rows = [list(row) for row in zip(*(getattr(layers, n).tolist() for n in BOUNDS), strict=True)]
    at = [BOUNDS.index(name) for name in ("in_height", "in_width", "height", "width")]
    for i in (0, 1):  # the classifier pools what the last layer writes
        rows[-1][at[i]] = rows[-2][at[i + 2]]
    found = [alone(tuple(row), engine, device_name) for row in rows]
    return pd.DataFrame(found).reset_index(drop=True)


def program(layers: Layers, engine: str, device_name: str) -> pd.DataFrame:
    """Return the cycles by cause of each layer of a program: `measured`."""
    device = load_device(device_name)
    shape = Shape(Accelerator.parse(engine), device.port_bits)
    return count_cycles(layers, shape, memory_of(device))[[*CAUSES]]


@cache
def alone(row: tuple[int, ...], engine: str, device_name: str) -> pd.Series:
    """Return the cycles by cause of one layer of those bounds, `measured` with a narrow layer and a
    classifier behind it, unless it is a classifier itself."""
    at = dict(zip(BOUNDS, row, strict=True))
    rows = [row]
    if at["height"] > 1:
        sides = at["height"], at["width"]
        rows.append((NARROW, at["filters"], *sides, *sides, 1, 1, 0))
        rows.append((1, NARROW, 1, 1, 1, 1, 1, 1, 0))
    columns = (np.array(column)[None] for column in zip(*rows, strict=True))
    layers = Layers(("layer", "narrow", "classifier")[: len(rows)], *columns)
    return program(layers, engine, device_name).iloc[0]


def closed(layers: Layers, engine: str, device_name: str) -> pd.DataFrame:
    """Return the cycles by cause of each layer as the closed form has them: `modelled`."""
    spent = cycles(layers, Accelerator.parse(engine), Port.of(load_device(device_name)))
    return pd.DataFrame({cause: getattr(spent, cause) for cause in CAUSES})


def figures(
    macs: int, layers: Layers, spent: pd.DataFrame, engine: str, device_name: str,
    modelled: np.ndarray,
) -> dict[str, object]:  # fmt: skip
    """Return the figures of a network of so many MACs, run as `layers` that take the cycles `spent`
    by cause, which of those that are `modelled`, boolean (layers,), are not measured."""
    acc, device = Accelerator.parse(engine), load_device(device_name)
    built = routed.figures(acc, device)
    moved = cycles(layers, acc, Port.of(device)).moved
    causes = {cause: spent[cause].to_numpy(float)[None] for cause in CAUSES}
    accs = Accelerators.of([acc])
    active = cost.activity(
        accs, device, Cycles(**causes, moved=moved[None]), cost.resources(accs, device)
    )
    clock = np.array([built["clock_mhz"]])
    parts = cost.power_parts(np.array([built["ff"]]), clock, active, device)
    total = spent.sum(axis=1).to_numpy(float)
    latency, power = total.sum() / built["clock_mhz"] / 1e3, float(parts.sum())
    products = acc.pf * acc.pc * acc.pv
    return {
        "measured_cycles": round(total[~modelled].sum()),
        "modelled_cycles": round(total[modelled].sum()),
        "cycles": round(total.sum()),
        "utilisation": round(100 * macs / products / total.sum(), 1),
        "clock_mhz": round(built["clock_mhz"], 2),
        "latency_ms": round(latency, 5),
        "power_w": round(power, 4),
        "power_within": round(float(cost.power_within(parts, device)[0]), 2),
        "energy_mj": round(power * latency, 5),
    }


if __name__ == "__main__":
    main()
