"""How many flip-flops change in a mean cycle: subnets of a study on engines, simulated.

    python benchmarks/activity.py data/studies/fashion data/activity.csv

The subnets have the supernet's weights, quantised, and run a validation image. Prints the constants
`FLIPS` of `cost.py` that fit best. A run that was killed goes on where it stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import batches, cost, datasets, quantize, train
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.files import write_text
from codesign_kernel.measure import stratified
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import simulate

ENGINES = (
    "2x4x1w8f16", "4x4x1w16f16", "8x4x1w32f32", "4x8x1w32f32", "4x4x2w32f32", "8x8x1w32f32",
    "8x4x2w32f32", "4x16x1w32f32", "16x4x1w32f32", "4x4x4w32f64", "16x8x1w64f32", "8x8x2w64f64",
)  # fmt: skip
SUBNETS, PORT_BITS = 10, 64


def main() -> None:
    """Simulate what is missing, storing the rows of each engine as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    asked = parser.parse_args()
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    supernet = train.load_supernet(asked.study / "supernet.safetensors")
    space = supernet.space
    data = datasets.load(space.dataset, shape=space.input)
    calibration = train.calibration_images(data)
    image = batches.to_tensor(data.validation.batch(np.zeros(1, np.int64)))
    genomes = stratified(space, SUBNETS, np.random.default_rng([0, 13]))
    names = [space.decode(genome) for genome in genomes]
    made = [quantize.quantize(train.subnet(supernet, n, calibration), calibration) for n in names]
    known = {row["accelerator"] for row in rows}
    for text in tqdm([text for text in ENGINES if text not in known], "simulate", unit="engine"):
        shape = Shape(Accelerator.parse(text), PORT_BITS)
        for name, quantised in zip(names, made, strict=True):
            program = compile_network(quantised.network, shape)
            run = simulate(program, quantised.input(image)[0])
            rows.append(
                {
                    "space": space.name, "architecture": str(name), "accelerator": text,
                    "cycles": run.cycles, "compute": int(run.layers["compute"].sum()),
                    "beats": run.read + run.written, "flip_flops": run.flip_flops,
                    "flips": round(run.flips, 2),
                }
            )  # fmt: skip
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    table = pd.read_csv(asked.csv)
    acc = Accelerators.of([Accelerator.parse(text) for text in table["accelerator"]])
    flip_flops = cost.resources(acc, load_device("ecp5-85f")).ff
    flips = table["flips"] / table["flip_flops"] * flip_flops
    products = table["compute"] / table["cycles"] * acc.pf * acc.pc * acc.pv
    inputs = np.column_stack([flip_flops, products, table["beats"] / table["cycles"]])
    inputs = inputs / flips.to_numpy()[:, None]  # the relative error is what counts
    best, *_ = np.linalg.lstsq(inputs, np.ones(len(table)), rcond=None)
    error = np.abs(inputs @ best - 1)
    print(f"{len(table)} runs: FLIPS = {best.round(4).tolist()}")
    print(f"Error {np.median(error):.1%} in the median, {error.max():.0%} at most.")


if __name__ == "__main__":
    main()
