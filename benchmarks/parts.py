"""From measured layers to whole networks: how well that holds, and what comes with the program.

    python benchmarks/parts.py data/parts.safetensors > benchmarks/parts.md

Subnets (data/layer_cycles.csv) and random chains of layers (data/chain_cycles.csv): of each, how
far off the closed form is, and whether an interval made of the others holds: of all others; of
those on other engines; of those of other kinds. A subnet's architecture is never among the others.
Stores what comes of all networks. Then: the clock and the LUTs of engines from others that were
placed and routed. A minute on one core.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import cost, routed
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.cycles import Port, cycles
from codesign_kernel.files import write_arrays
from codesign_kernel.parts import COVERAGE, NEAR, Parts, place
from codesign_kernel.simulate import IDEAL, MemoryModel
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.workload import Layers

DATA = Path(__file__).parents[1] / "data"
MEMORIES = {  # as benchmarks/cycles.py has them
    "ideal": IDEAL,
    "default": MemoryModel(),
    "slow": MemoryModel(latency=100, gap=20, refresh_every=300, refresh_cycles=40),
}
PORT_BITS = 64
BOUNDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
          "residual")  # fmt: skip
ROUTED = 40  # engines, at most, from which the clock is learnt


def measured() -> pd.DataFrame:
    """Return the measured networks, a row each: `kind`, `group` of those of equal layers,
    `accelerator`, `memory`, cycles of a `burst`, its `place`, and `off`, the logarithm of measured
    over modelled cycles."""
    subnets = pd.read_csv(DATA / "layer_cycles.csv").assign(kind="subnet", pools=1)
    subnets["group"] = subnets["architecture"]
    chains = pd.read_csv(DATA / "chain_cycles.csv")
    chains["group"] = chains[["kind", "accelerator", "network"]].astype(str).agg(" ".join, axis=1)
    keys, rows = ["kind", "group", "accelerator", "memory"], []
    for key, part in pd.concat([subnets, chains]).groupby(keys, sort=False):
        bounds = (part[name].to_numpy() for name in BOUNDS)
        layers = Layers(tuple(part["layer"].astype(str)), *bounds, pools=part["pools"].to_numpy())
        port = Port.of_memory(PORT_BITS, MEMORIES[key[3]])
        acc = Accelerator.parse(key[2])
        spent = cycles(layers, acc, port)
        off = float(np.log(part["cycles"].sum() / spent.total.sum()))
        rows.append((*key, port.burst, place(spent, acc, port), off))
    return pd.DataFrame(rows, columns=[*keys, "burst", "place", "off"])


def parts_of(networks: pd.DataFrame) -> Parts:
    """Return what networks say, as many on each memory."""
    sides = [(burst, [*part["place"]], part["off"]) for burst, part in networks.groupby("burst")]
    bursts, places, off = (np.array(side, np.float64) for side in zip(*sides, strict=True))
    return Parts(bursts, places, off)


def tested(networks: pd.DataFrame, unseen: str) -> pd.DataFrame:
    """Return the networks with the half-width of their intervals, `half`, by what others say: those
    that have neither the group nor what is `unseen` in common."""
    half = np.empty(len(networks))
    for memory, part in networks.groupby("memory"):
        for i, row in tqdm(part.iterrows(), f"left out, {memory}", total=len(part), leave=False):
            # All subnets are of one kind, which the search spaces hold: those that are not its own.
            away = part["group"] != row["group"]
            if unseen and not (unseen == "kind" and row["kind"] == "subnet"):
                away &= part[unseen] != row[unseen]
            half[i] = parts_of(part[away]).half(row["place"], row["burst"])
    return networks.assign(half=half)


def figures(rows: pd.DataFrame) -> str:
    """Return the cells of a table for tests of networks."""
    errors = 100 * rows["off"].abs()
    inside = 100 * (rows["off"].abs() <= rows["half"]).mean()
    return (f"{len(rows)} | {errors.median():.2f} | {errors.max():.1f} | {inside:.0f} | "
            f"{100 * rows['half'].median():.1f} |")  # fmt: skip


CELLS = "networks | off, median (%) | worst | 90 % interval holds (%) | half-width, median (%) |"


def print_wholes(networks: pd.DataFrame) -> None:
    """Print how far off the closed form is, and how often intervals hold."""
    print(f"| interval from | tested | memory | {CELLS}\n|---|---|---|--:|--:|--:|--:|--:|")
    kept = {}
    for label, unseen in (("all others", ""), ("other engines", "accelerator"),
                          ("other kinds", "kind")):  # fmt: skip
        kept[label] = rows = tested(networks, unseen)
        rows = rows.assign(of=np.where(rows["kind"] == "subnet", "subnets", "chains"))
        for key, part in rows.groupby(["of", "memory"], sort=False):
            print(f"| {label} | {' | '.join(key)} | {figures(part)}")
    print(f"\nWith the default memory, by kind of network and by engine.\n\n| interval from | "
          f"tested | {CELLS}\n|---|---|--:|--:|--:|--:|--:|")  # fmt: skip
    for label, by in (("other kinds", "kind"), ("other engines", "accelerator")):
        for key, part in kept[label].query("memory == 'default'").groupby(by, sort=False):
            print(f"| {label} | {key} | {figures(part)}")


def print_engines() -> None:
    """Print how well clock and LUTs of an engine are predicted from ROUTED others."""
    rows = routed.table()
    rows = rows[rows["seed"] == 1].reset_index(drop=True)
    devices = [load_device(name) for name in rows["device"]]
    engines = [Accelerator.parse(text) for text in rows["accelerator"]]
    pairs = list(zip(engines, devices, strict=True))
    form = pd.DataFrame({
        "clock_mhz": [float(cost.clock_mhz(*pair)) for pair in pairs],
        "lut": [float(cost.resources(*pair).lut) for pair in pairs],
    })  # fmt: skip
    sizes = Accelerators.of(engines).features()[0]
    second = (rows["router"] == "router2").to_numpy(np.float64)
    routers = np.column_stack([sizes, second])
    ways = {  # and what of the engine that is left out is known
        "Gaussian process": (sizes, sizes),
        "the same, told the others' routers": (routers, np.column_stack([sizes, 0 * second])),
        "the same, told its router too": (routers, routers),
    }
    print("| figure | way | error, median (%) | mean | worst | 90 % interval holds (%) |")
    print("|---|---|--:|--:|--:|--:|")
    for figure, label in (("clock_mhz", "clock"), ("lut", "LUT")):
        y, prior = rows[figure].to_numpy(np.float64), form[figure].to_numpy()
        errors = 100 * np.abs(prior / y - 1)
        print(f"| {label} | closed form, fitted to all | {np.median(errors):.1f} | "
              f"{errors.mean():.1f} | {errors.max():.1f} | |")  # fmt: skip
        for way, columns in ways.items():
            if figure == "lut" and columns[0] is not sizes:
                continue
            X, known = (np.column_stack([prior, side]) for side in columns)
            errors, inside = [], []
            for i in range(len(y)):
                others = np.random.default_rng(i).permutation(np.delete(np.arange(len(y)), i))
                model = Surrogate(prior=0, log=True).fit(X[others[:ROUTED]], y[others[:ROUTED]])
                mean, low, high = (float(side[0]) for side in model.estimate(known[[i]], COVERAGE))
                errors.append(100 * abs(mean / y[i] - 1))
                inside.append(100 * (low <= y[i] <= high))
            print(f"| {label} | {way} | {np.median(errors):.1f} | {np.mean(errors):.1f} | "
                  f"{max(errors):.1f} | {np.mean(inside):.0f} |")  # fmt: skip


def main() -> None:
    """Fit, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    networks = measured()
    write_arrays(asked.file, *parts_of(networks).to_arrays())
    print("# From parts to wholes\n")
    subnets = networks["kind"] == "subnet"
    print(
        f"The closed form's cycles of {subnets.sum():,} subnets and {(~subnets).sum():,} random "
        f"chains on {networks['accelerator'].nunique()}\nengines and memories, beside those "
        f"measured. An interval is made of the {NEAR} nearest\nnetworks on that memory; what is "
        "near was chosen by how often the intervals of these networks hold.\n"
    )
    print_wholes(networks)
    print(f"\nClock and LUTs of an engine from at most {ROUTED} others, by leaving out each of "
          f"{len(routed.table().query('seed == 1'))}.\nWhich router an engine takes is not known "
          "beforehand: the second, where the first does not converge. Told that of the\n"
          "others, the first is assumed.\n")  # fmt: skip
    print_engines()


if __name__ == "__main__":
    main()
