"""Whether bounds hold as often as they are promised to, on designs that are measured afterwards.

    python benchmarks/promise.py data/promise.csv [--engines 3]

Networks that a search of the shipped study of Fashion-MNIST considers are put on engines that were
placed and routed, but that the study has measured no design on, and whose clocks are kept from the
predictors, as if they were not. Of those that keep to bounds on
latency and accuracy with several confidences, a part of the front and as many others are measured:
cycles in simulation, clock by place and route, accuracy on the validation images. Rows are stored
case by case; a run that was killed goes on with what is missing.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import measure, meters, pareto, routed
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import SIGNS, Designs, explore
from codesign_kernel.files import write_text
from codesign_kernel.predict import SIMULATED, Predictors
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import build_many
from codesign_kernel.study import Study, open_study

STUDY = Path(__file__).parents[1] / "data" / "studies" / "fashion"
DEVICES = ("ecp5-25f", "ecp5-45f")
BOUNDS = ((0.2, 0.1), (0.4, 0.3), (0.6, 0.5), (0.8, 0.7))  # quantiles of latency and accuracy
CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
PICKS = 5  # of the front, and of others, in each case


def unmeasured(study: Study, device: str, count: int) -> Accelerators:
    """Return engines that were placed and routed, spread over sizes, without rows in the study."""
    rows = study.store.rows()
    used = set(rows.loc[rows["device"] == device, "accelerator"])
    left = [acc for acc in routed.engines(study.device(device)) if str(acc) not in used]
    index = np.linspace(0, len(left) - 1, min(count, len(left))).round().astype(int)
    return Accelerators.of([left[i] for i in index])


def as_if_unrouted(study: Study, device: str) -> Predictors:
    """Return the predictors for the device under a name that the table of engines does not have."""
    found, name = study.predictors(), f"{device}-unrouted"
    hardware = {(q, name): found.hardware[q, device] for q in QUANTITIES[1:]}
    chips = {name: replace(found.devices[device], name=name)}
    basis = dict.fromkeys(hardware, SIMULATED)
    return Predictors(found.space, chips, found.accuracy, hardware, basis)


def designs_on(study: Study, device: str, grid: Accelerators) -> Designs:
    """Return networks that a search considers, on all of the engines, with their predictions."""
    predictors = as_if_unrouted(study, device)
    (device,) = predictors.devices
    found = explore(predictors, [device], Constraints(), generations=30).designs[0]
    some = np.random.default_rng(0).permutation(np.unique(found.genomes, axis=0))[:4000]
    row, column = (index.ravel() for index in np.indices((len(some), len(grid))))
    runs = predictors.runs(some[row], grid[column], device)
    pairs = some[row[runs]], grid[column[runs]], device
    return Designs(device, *pairs[:2], predictors.means(*pairs), *predictors.intervals(*pairs))


def picked(designs: Designs, asked: Constraints) -> Designs:
    """Return PICKS of the front of those that keep to the bounds, and PICKS others."""
    worst, none = designs.worst(asked.confidence), np.zeros(len(designs))
    inside = designs[np.flatnonzero(asked.excess(worst, none, none).sum(axis=1) == 0)]
    front = np.flatnonzero(pareto.front(inside.means * SIGNS))
    rng = np.random.default_rng(1)
    chosen = [rng.permutation(each)[:PICKS] for each in (front, np.arange(len(inside)))]
    return inside[np.unique(np.concatenate(chosen))]


def main() -> None:
    """Search, measure what is missing, and print how often the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--engines", type=int, default=3)
    asked = parser.parse_args()
    study = open_study(STUDY)
    accuracy = measure.subnets_of(study)
    engine = meters.Simulated(accuracy, study)
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    known = {(row["architecture"], row["accelerator"], row["device"]): row for row in rows}
    done = {(row["device"], row["max_latency_ms"], row["confidence"]) for row in rows}
    cases = [(device, bound, c) for device in DEVICES for bound in BOUNDS for c in CONFIDENCES]
    there: dict[str, Designs] = {}
    for device, quantiles, confidence in tqdm(cases, "promise", unit="case"):
        if device not in there:
            engines = unmeasured(study, device, asked.engines)
            shapes = [Shape(acc, study.device(device).port_bits) for acc in engines]
            build_many(shapes, 1)
            there[device] = designs_on(study, device, engines)
        accuracies, latencies, _ = there[device].means.T
        latency = float(f"{np.quantile(latencies, quantiles[0]):.3g}")
        least = float(f"{np.quantile(accuracies, quantiles[1]):.3g}")
        if (device, latency, confidence) in done:
            continue
        bounds = Constraints(max_latency_ms=latency, min_accuracy=least, confidence=confidence)
        some = picked(there[device], bounds)
        worst = some.worst(confidence)
        for i in range(len(some)):
            acc = next(iter(some.accelerators[np.array([i])]))
            key = str(study.space.decode(some.genomes[i])), str(acc), device
            about = known.get(key)
            if about is None:
                about = engine.measure(key) | accuracy.measure((key[0], "", ""))
            row = dict(zip(("architecture", "accelerator", "device"), key, strict=True))
            row |= {"max_latency_ms": latency, "min_accuracy": least, "confidence": confidence}
            row |= {"predicted_ms": some.means[i, 1], "worst_ms": worst[i, 1]}
            row |= {"predicted_accuracy": some.means[i, 0], "worst_accuracy": worst[i, 0]}
            row |= {name: about[name] for name in ("latency_ms", "accuracy")}
            known[key] = row
            rows.append(row)
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    table = pd.read_csv(asked.csv)
    table = table.assign(
        designs=1,
        latency_holds=100 * (table["latency_ms"] <= table["max_latency_ms"]),
        accuracy_holds=100 * (table["accuracy"] >= table["min_accuracy"]),
        latency_under_worst=100 * (table["latency_ms"] <= table["worst_ms"]),
        accuracy_over_worst=100 * (table["accuracy"] >= table["worst_accuracy"]),
    )
    held = table.groupby("confidence").agg(
        {"designs": "sum"} | dict.fromkeys(table.columns[-4:], "mean")
    )
    print("Designs measured, and in how many % of them each bound holds:")
    print(held.round(1).to_string())


if __name__ == "__main__":
    main()
