"""How many designs a second the exploration considers, beside a loop that takes them one by one.

    python benchmarks/explore.py > benchmarks/explore.md

Prints Markdown. Predictors are fitted to as many rows as `codesign profile` measures by default, so
that they cost what a study's cost; the accuracies are made up, since their values do not matter
here. About a minute on one core.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: numpy reads this when it is first imported

import time

import numpy as np

from codesign_kernel import cost
from codesign_kernel.accelerator import load_device
from codesign_kernel.explore import Constraints, explore, usable
from codesign_kernel.predict import (
    Predictors,
    accuracy_features,
    accuracy_surrogate,
    hardware_features,
    hardware_surrogate,
)
from codesign_kernel.space import SearchSpace, load_space
from codesign_kernel.workload import layers_of

ARCHITECTURES, DESIGNS = 100, 200  # rows of accuracy, and of latency and power
ONE_BY_ONE, GENERATIONS, REPEATS = 500, 60, 3
CASES = (("fashion", "ecp5-85f"), ("imagenet", "arria10-gx1150"))


def predictors_of(space: SearchSpace, name: str) -> Predictors:
    """Fit predictors to the closed form and to accuracies that grow with MACs."""
    rng = np.random.default_rng(0)
    device = load_device(name)
    X, names = accuracy_features(space, space.sample(ARCHITECTURES, rng))
    macs = X[:, names.index("log2_macs")]
    accuracy = accuracy_surrogate().fit(
        X, 90 - np.exp2(macs.min() - macs) + rng.normal(size=len(X))
    )
    found = Predictors(space, {name: device}, accuracy)
    grid = usable(device, Constraints())
    layers = layers_of(space, space.sample(DESIGNS, rng))
    acc = grid[rng.integers(0, len(grid), DESIGNS)]
    figures = cost.figures(layers, acc, device)
    for quantity in ("latency_ms", "power_w"):
        X, _ = hardware_features(quantity, layers, acc, device)
        model = hardware_surrogate().fit(X, getattr(figures, quantity))
        found.hardware[quantity, name] = model
    return found


def search_rate(predictors: Predictors, name: str) -> tuple[int, int, float]:
    """Designs considered, designs on the front, and considered a second of one core, the best."""
    rates = []
    for _ in range(REPEATS):
        start = time.process_time()
        found = explore(predictors, [name], Constraints(), generations=GENERATIONS)
        rates.append(found.considered / (time.process_time() - start))
    return found.considered, len(found.front), max(rates)


def loop_rate(predictors: Predictors, name: str) -> float:
    """Designs a second of one core when each is predicted by itself, the best of some repeats."""
    rng = np.random.default_rng(1)
    grid = usable(predictors.devices[name], Constraints())
    genomes = predictors.space.sample(ONE_BY_ONE, rng)
    acc = grid[rng.integers(0, len(grid), ONE_BY_ONE)]
    rates = []
    for _ in range(REPEATS):
        start = time.process_time()
        for i in range(ONE_BY_ONE):
            predictors.means(genomes[i : i + 1], acc[i : i + 1], name)
        rates.append(ONE_BY_ONE / (time.process_time() - start))
    return max(rates)


def main() -> None:
    print("# Exploration\n")
    print(
        "Different designs considered a second of one core, with all predictions and intervals\n"
        f"of the front, in {GENERATIONS} generations; beside a plain loop that predicts a design\n"
        f"at a time with the same predictors, of {ARCHITECTURES} and {DESIGNS} rows. The best of "
        f"{REPEATS} runs each.\n"
    )
    print("| space | device | considered | on the front | designs/s | one by one | ratio |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for space, device in CASES:
        predictors = predictors_of(load_space(space), device)
        considered, front, rate = search_rate(predictors, device)
        plain = loop_rate(predictors, device)
        print(
            f"| {space} | {device} | {considered:,} | {front:,} | {rate:,.0f} | {plain:,.0f} | "
            f"{rate / plain:.0f} |"
        )


if __name__ == "__main__":
    main()
