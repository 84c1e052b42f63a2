"""Clock and resources of many engines after place and route.

    python benchmarks/implementations.py data/implementations.csv

Every engine of ENGINES with seed 1, those of THRICE with seeds 2 and 3 as well, and those of ROOMY
on a larger device. A day of processor time: a run that was killed goes on with what the table
lacks, or was given up after fewer placements.
"""

import argparse
import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import cost
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.errors import InputError
from codesign_kernel.files import write_text
from codesign_kernel.rtl.shape import MULTIPLIER, Shape
from codesign_kernel.synthesize import OPTIONS, PASSES, ROUTES, engine, implement

# An engine is routed on the first of these that holds it.
DEVICES = ("ecp5-25f", "ecp5-45f", "ecp5-85f")
ENGINES = (
    "4x2x1w4f4", "2x4x1w8f8", "4x2x2w8f8", "2x4x2w8f16", "8x2x1w8f8", "2x8x1w8f8", "4x4x1w4f4",
    "4x4x1w8f8", "4x4x1w16f16", "4x4x1w8f32", "4x4x1w32f8", "2x8x1w16f16", "8x2x1w16f16",
    "4x2x2w16f16", "2x4x2w16f16", "4x2x4w8f16", "2x4x4w8f16", "2x8x2w8f16", "8x2x2w8f16",
    "4x4x2w8f16", "4x4x2w16f32", "4x8x1w8f8", "8x4x1w8f8", "4x8x1w16f16", "8x4x1w16f16",
    "16x8x1w32f32", "8x8x2w32f32", "16x4x2w64f32", "8x16x1w64f32", "4x8x1w32f32", "8x4x1w32f32",
    "16x2x1w16f16", "2x16x1w16f16", "4x4x2w32f32", "8x4x1w64f32", "4x8x1w32f64", "2x16x1w32f32",
    "16x2x1w32f16", "8x8x1w16f16", "8x8x1w32f32", "8x8x1w64f32", "4x16x1w32f32", "16x4x1w32f32",
    "8x4x2w32f32", "4x8x2w32f32", "4x4x4w16f32", "16x4x1w16f16", "4x16x1w16f16", "8x4x2w16f32",
    "4x8x2w16f64", "16x2x2w16f32", "2x16x2w16f32", "8x2x4w16f32", "4x4x4w32f64", "8x8x1w64f64",
    "8x8x1w32f128", "16x4x1w64f32", "8x8x1w128f64", "32x2x1w32f16", "2x8x4w16f64", "16x8x1w64f32",
    "8x8x2w64f64", "8x16x1w32f64", "16x8x1w64f64", "4x16x2w64f64", "32x4x1w64f32",
)  # fmt: skip
THRICE = (
    "2x4x1w8f8", "2x8x1w8f8", "4x4x1w8f8", "4x4x1w16f16", "8x2x1w16f16", "4x8x1w16f16",
    "8x4x1w32f32", "4x4x2w16f32", "8x8x1w32f32", "4x16x1w32f32", "8x4x2w32f32", "16x8x1w32f32",
    "16x8x1w64f32",
)  # fmt: skip
# Engines that are small for their device, to see what that does.
ROOMY = {"4x4x1w16f16": "ecp5-85f", "8x4x1w32f32": "ecp5-85f", "8x8x1w32f32": "ecp5-85f"}
PORT_BITS = 64
KEY = ("accelerator", "device", "seed")


def smallest(accelerator: Accelerator) -> str:
    """Name the smallest device whose DSP blocks and block RAM hold the engine."""
    for name in DEVICES:
        if cost.fits(Accelerators.of([accelerator]), load_device(name))[0]:
            return name
    raise InputError(f"{accelerator} fits none of {', '.join(DEVICES)}.")


def sources() -> str:
    """Return a fingerprint of the engine: rows of an earlier one are measured anew."""
    about = [line.replace(str(MULTIPLIER), MULTIPLIER.name) for line in (*PASSES, *OPTIONS)]
    about.append(MULTIPLIER.read_text(encoding="utf-8"))
    about.append(engine(Shape(Accelerator.parse("8x8x2w32f32"), PORT_BITS)))
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def main() -> None:
    """Implement what is missing, storing each row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    now = sources()
    table = {tuple(row[name] for name in KEY): row for row in rows if row["engine"] == now}
    known = {
        key for key, row in table.items()
        if row["router"] == "router1" or row["starts"] == len(ROUTES) - 1
    }  # fmt: skip
    devices = {text: smallest(Accelerator.parse(text)) for text in ENGINES}
    wanted = [(*each, 1) for each in ROOMY.items()]
    wanted += [(text, device, 1) for text, device in devices.items()]
    wanted += [(text, devices[text], seed) for seed in (2, 3) for text in THRICE]
    missing = [each for each in wanted if each not in known]
    with ThreadPoolExecutor(asked.workers) as pool:
        runs = {}
        for text, device, seed in missing:
            shape = Shape(Accelerator.parse(text), PORT_BITS)
            runs[pool.submit(implement, shape, device, seed)] = text, seed
        for run in tqdm(as_completed(runs), "implementations", len(runs), unit="engine"):
            try:
                row = asdict(run.result())
            except InputError as error:
                print("{}, seed {}: {}".format(*runs[run], error))
                continue
            row |= row.pop("used")
            del row["budget"]
            table[tuple(row[name] for name in KEY)] = row | {"engine": now}
            write_text(asked.csv, pd.DataFrame(table.values()).to_csv(index=False))
    print(pd.read_csv(asked.csv).to_string(index=False))


if __name__ == "__main__":
    main()
