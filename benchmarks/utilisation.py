"""How busy the engine keeps its multipliers, simulated: 5 subnets of a space on 6 accelerators.

    python benchmarks/utilisation.py fashion data/utilisation.csv

Subnets are spread over the sizes of the space, the extremes among them; memory is the default
model. Cycle counts depend on no weight, so the weights are random. The physical limit is MACs over
PF x PC x PV. A run that was killed goes on where it stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.files import write_text
from codesign_kernel.measure import stratified
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import CAUSES, count_cycles
from codesign_kernel.space import load_space
from codesign_kernel.workload import layers_of

ACCELERATORS = (
    "4x4x1w16f16", "8x4x2w32f32", "8x8x1w64f32", "8x8x2w64f32", "8x16x1w64f32", "16x8x1w64f32",
)  # fmt: skip
PORT_BITS = 64


def main() -> None:
    """Simulate what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space")
    parser.add_argument("csv", type=Path)
    parser.add_argument("--subnets", type=int, default=5)
    asked = parser.parse_args()
    space = load_space(asked.space)
    genomes = stratified(space, asked.subnets, np.random.default_rng([0, 9]))
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    known = {(row["architecture"], row["accelerator"]) for row in rows}
    pairs = [(text, genome) for text in ACCELERATORS for genome in genomes]
    for text, genome in tqdm(pairs, desc="simulate", unit="design"):
        architecture, acc = str(space.decode(genome)), Accelerator.parse(text)
        if (architecture, text) in known:
            continue
        layers = layers_of(space, genome[None])
        spent = count_cycles(layers, Shape(acc, PORT_BITS))[[*CAUSES, "cycles"]].sum()
        macs = int(layers.macs.sum())
        limit = macs / (acc.pf * acc.pc * acc.pv)
        rows.append(
            {
                "architecture": architecture, "accelerator": text, "macs": macs,
                "limit": round(limit), "cycles": spent["cycles"],
                "utilisation": round(100 * limit / spent["cycles"], 1),
                **spent[list(CAUSES)].to_dict(),
            }
        )  # fmt: skip
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    print(pd.read_csv(asked.csv).to_string(index=False))


if __name__ == "__main__":
    main()
