"""One layer with more and more channels, simulated: where its cycles jump.

    python benchmarks/cliff.py data/cliff.csv

A 3 x 3 convolution of 32 filters on a map of 14 x 14 pixels, on the engine 8x8x1w16f16 with a
memory port of 64 bits and the default memory model. Cycles go up a step with every eighth channel,
and jump where the feature buffer holds fewer rows. Some minutes, most to compile the engine.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel.accelerator import Accelerator, load_device
from codesign_kernel.cycles import Port, cycles
from codesign_kernel.files import write_text
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import count_cycles, memory_of
from codesign_kernel.workload import Layers

ENGINE, DEVICE = "8x8x1w16f16", "ecp5-45f"
FILTERS, KERNEL, SIDE, CHANNELS = 32, 3, 14, 160


def network(channels: int) -> Layers:
    """Return the layer, and a classifier, with which each program ends; fields (1, 2)."""
    layer = (FILTERS, channels, SIDE, SIDE, SIDE, SIDE, KERNEL, 1, 0)
    classifier = (10, FILTERS, 1, 1, 1, 1, 1, 1, 0)
    numbers = (np.array([pair]) for pair in zip(layer, classifier, strict=True))
    return Layers(("layer", "classifier"), *numbers)


def main() -> None:
    """Simulate the layer with each number of channels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    asked = parser.parse_args()
    device, engine = load_device(DEVICE), Accelerator.parse(ENGINE)
    shape, rows = Shape(engine, device.port_bits), []
    for channels in tqdm(range(1, CHANNELS + 1), "simulate", unit="layer"):
        one = network(channels)
        found = count_cycles(one, shape, memory_of(device)).iloc[0]
        modelled = float(cycles(one, engine, Port.of(device)).total[0, 0])
        rows.append({
            "channels": channels, "macs": int(one.macs[0, 0]),
            "cycles": int(found["cycles"]), "modelled_cycles": round(modelled),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    write_text(asked.csv, table.to_csv(index=False))
    off = 100 * (table["modelled_cycles"] / table["cycles"] - 1).abs()
    print(f"Closed form off by {off.median():.1f} % in the median, {off.max():.1f} % at worst.")


if __name__ == "__main__":
    main()
