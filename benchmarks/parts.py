"""From measured layers to whole networks: how well that holds, and what comes with the program.

    python benchmarks/parts.py data/parts.safetensors > benchmarks/parts.md

Each of the measured architectures is left out in turn: layers of the others are trained on, their
whole networks calibrate the interval, each predicted from layers of all but its own, and those of
the one left out are predicted. Then once more with a quarter of the engines left out of all but the
test. Stores what comes of all architectures. Then: the clock and the LUTs of engines from others
that were placed and routed. Some minutes on one core.
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
from codesign_kernel.cycles import Port
from codesign_kernel.files import write_arrays
from codesign_kernel.parts import COVERAGE, Parts, calibrated, layer_features, summed
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
TRAINED = 600  # layers
ROUTED = 40  # engines, at most, from which the clock is learnt


class Table:
    """The measured networks: features and cycles of their layers, (layers, f) and (layers,) each;
    the closed form's sum; architecture, accelerator and memory."""

    def __init__(self) -> None:
        rows = pd.read_csv(DATA / "layer_cycles.csv")
        keys = ["architecture", "accelerator", "memory"]
        self.about, self.inputs, self.layers = [], [], []
        for key, part in rows.groupby(keys, sort=False):
            names = tuple(part["layer"])
            layers = Layers(names, *(part[name].to_numpy() for name in BOUNDS))
            port = Port.of_memory(PORT_BITS, MEMORIES[key[2]])
            self.inputs.append(layer_features(layers, Accelerator.parse(key[1]), port)[0])
            self.layers.append(part["cycles"].to_numpy(np.float64))
            self.about.append(dict(zip(keys, key, strict=True)))
        self.about = pd.DataFrame(self.about)
        self.totals = np.array([each.sum() for each in self.layers])
        self.closed = np.array([each[:, 0].sum() for each in self.inputs])

    def model(self, trained: np.ndarray) -> Surrogate:
        """Train on some layers of networks, boolean (n,)."""
        X = np.concatenate([self.inputs[i] for i in np.flatnonzero(trained)])
        y = np.concatenate([self.layers[i] for i in np.flatnonzero(trained)])
        pick = np.random.default_rng(1).permutation(len(y))[:TRAINED]
        return Surrogate(prior=0, log=True).fit(X[pick], y[pick])

    def fit(self, trained: np.ndarray) -> Parts:
        """Train on networks, boolean (n,), and calibrate at each from layers of the others."""
        which = self.about["architecture"].to_numpy()
        found = np.zeros((len(which), 2))
        for each in np.unique(which[trained]):
            own = trained & (which == each)
            model = self.model(trained & ~own)
            found[own] = [summed(model, self.inputs[i]) for i in np.flatnonzero(own)]
        bursts = np.array([inputs[0, -1] for inputs in self.inputs])
        kept = (side[trained] for side in (bursts, self.totals, found))
        return calibrated(self.model(trained), *kept)

    def test(self, parts: Parts, tested: np.ndarray) -> pd.DataFrame:
        """Predict whole networks, boolean (n,): errors in %, and whether the intervals hold."""
        rows = []
        for i in np.flatnonzero(tested):
            mean, low, high = parts.total(self.inputs[i])
            logs, covariance = parts.layers.joint(self.inputs[i])
            share = np.exp(logs) / np.exp(logs).sum()
            apart = float(np.sqrt(share**2 @ np.diag(covariance)))
            spread = summed(parts.layers, self.inputs[i])[1]
            off = abs(np.log(self.totals[i] / mean))
            rows.append({
                "memory": self.about["memory"][i],
                "error": 100 * abs(mean / self.totals[i] - 1),
                "closed": 100 * abs(self.closed[i] / self.totals[i] - 1),
                "inside": 100 * (low <= self.totals[i] <= high), "half": 100 * (high / mean - 1),
                "joint": 100 * (off <= 1.645 * spread), "apart": 100 * (off <= 1.645 * apart),
            })  # fmt: skip
        return pd.DataFrame(rows)


def left_out(table: Table, unseen_engines: bool) -> pd.DataFrame:
    """Return the tests of each architecture by what is learnt of the others."""
    architectures, engines = (table.about[k].unique() for k in ("architecture", "accelerator"))
    found = []
    for i, each in enumerate(tqdm(architectures, "architecture left out")):
        hidden = np.random.default_rng(i).permutation(engines)[: len(engines) // 4]
        new = table.about["accelerator"].isin(hidden if unseen_engines else []).to_numpy()
        tested = (table.about["architecture"] == each).to_numpy()
        parts = table.fit(~tested & ~new)
        tested = tested & (new if unseen_engines else ~new)
        found.append(table.test(parts, tested).assign(architecture=each))
    return pd.concat(found)


def print_wholes(table: Table) -> None:
    """Print how well whole networks are predicted."""
    print("| tested on | memory | closed form: error, median (%) | predicted: median | worst |"
          " 90 % interval holds (%) | half-width (%) | not calibrated: joint (%) | as if layers "
          "were independent (%) |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for label, unseen in (("other networks", False), ("other networks, other engines", True)):
        rows = left_out(table, unseen)
        for memory, part in [*rows.groupby("memory", sort=False), ("all", rows)]:
            spread = part.groupby("architecture")["inside"].mean()
            print(
                f"| {label} | {memory} | {part['closed'].median():.2f} | "
                f"{part['error'].median():.2f} | {part['error'].max():.1f} | "
                f"{part['inside'].mean():.0f} "
                f"(of each: {spread.min():.0f} to {spread.max():.0f}) | "
                f"{part['half'].median():.1f} | {part['joint'].mean():.0f} | "
                f"{part['apart'].mean():.0f} |"
            )


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
    table = Table()
    parts = table.fit(np.ones(len(table.totals), bool))
    write_arrays(asked.file, *parts.to_arrays())
    print("# From parts to wholes\n")
    architectures, engines = (
        table.about[name].nunique() for name in ("architecture", "accelerator")
    )
    print(
        f"{len(table.totals)} measured networks on engines, {sum(map(len, table.layers)):,} "
        f"layers, of which {TRAINED} are trained on.\nEach of {architectures} architectures is "
        "predicted from layers of the others; of `other engines`, a\nquarter of "
        f"{engines} engines are in the test only. Errors are those of a whole network's cycles. "
        "The\nlast two columns: 1.645 standard deviations, with the covariance of layers and "
        "without.\n"
    )
    print_wholes(table)
    print(f"\nClock and LUTs of an engine from at most {ROUTED} others, by leaving out each of "
          f"{len(routed.table().query('seed == 1'))}.\nWhich router an engine takes is not known "
          "beforehand: the second, where the first does not converge. Told that of the\n"
          "others, the first is assumed.\n")  # fmt: skip
    print_engines()


if __name__ == "__main__":
    main()
