"""Cycles of networks and of their layers on the engine, simulated, over three memory models.

    python benchmarks/cycles.py data/network_cycles.csv data/layer_cycles.csv

Subnets of the spaces `digits` and `fashion`, spread over their sizes, on the engines of ENGINES.
Cycle counts depend on no weight, so the weights are random. A run that was killed goes on where it
stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.files import write_text
from codesign_kernel.integer import of_layers
from codesign_kernel.measure import stratified
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import CAUSES, IDEAL, MemoryModel, simulate
from codesign_kernel.space import load_space
from codesign_kernel.workload import layers_of

ENGINES = (
    "4x4x1w16f16", "8x4x1w32f32", "4x8x1w32f32", "4x4x2w32f32", "8x8x1w32f32", "8x4x2w32f32",
    "4x16x1w32f32", "16x4x1w32f32", "4x4x4w32f64", "16x8x1w64f32", "8x16x1w64f32", "8x8x2w64f64",
)  # fmt: skip
SPACES = {"digits": 4, "fashion": 6}  # subnets of each
MEMORIES = {
    "ideal": IDEAL,
    "default": MemoryModel(),
    "slow": MemoryModel(latency=100, gap=20, refresh_every=300, refresh_cycles=40),
}
PORT_BITS = 64
BOUNDS = ("filters", "channels", "kernel", "stride", "residual", "in_height", "in_width",
          "height", "width")  # fmt: skip


def main() -> None:
    """Simulate what is missing, storing the rows of each engine as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", type=Path)
    parser.add_argument("layers", type=Path)
    asked = parser.parse_args()
    there = asked.networks.exists() and asked.layers.exists()
    wholes = pd.read_csv(asked.networks).to_dict("records") if there else []
    parts = pd.read_csv(asked.layers).to_dict("records") if there else []
    known = {row["accelerator"] for row in wholes}
    for text in tqdm([text for text in ENGINES if text not in known], "simulate", unit="engine"):
        shape = Shape(Accelerator.parse(text), PORT_BITS)
        for name, count in SPACES.items():
            space = load_space(name)
            for genome in stratified(space, count, np.random.default_rng([0, 11])):
                layers = layers_of(space, genome[None])
                network = of_layers(layers)
                program = compile_network(network, shape)
                bounds = np.stack([getattr(layers, each)[0] for each in BOUNDS], axis=1)
                present = [i for i, row in enumerate(bounds) if row[0] > 0]
                for memory, model in MEMORIES.items():
                    run = simulate(program, np.zeros(network.input, np.int8), model)
                    about = {
                        "space": name, "architecture": str(space.decode(genome)),
                        "accelerator": text, "memory": memory,
                    }  # fmt: skip
                    wholes.append(
                        about
                        | {"macs": int(layers.macs.sum()), "cycles": run.cycles}
                        | run.layers[list(CAUSES)].sum().to_dict()
                        | {"read": run.read, "written": run.written}
                    )
                    for which, (_, causes) in zip(present, run.layers.iterrows(), strict=True):
                        parts.append(
                            about
                            | {"layer": layers.names[which]}
                            | dict(zip(BOUNDS, bounds[which].tolist(), strict=True))
                            | {"cycles": int(causes.sum())}
                            | causes.to_dict()
                        )
        write_text(asked.layers, pd.DataFrame(parts).to_csv(index=False))
        write_text(asked.networks, pd.DataFrame(wholes).to_csv(index=False))
    table = pd.read_csv(asked.networks)
    print(f"{len(table):,} networks on engines, {len(pd.read_csv(asked.layers)):,} layers.")


if __name__ == "__main__":
    main()
