"""How many (layer, accelerator) pairs a second the closed form takes, beside one design at a time.

    python benchmarks/cost.py > benchmarks/cost.md

Prints Markdown. The loop asks for one design after another; that both agree is checked. About half
a minute on one core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded: the figures are of a core

import platform
import time
from collections.abc import Callable

import numpy as np
from tqdm.auto import tqdm

from codesign_kernel import cost
from codesign_kernel.accelerator import Accelerators, load_device
from codesign_kernel.space import load_space
from codesign_kernel.workload import Layers, layers_of

DEVICE = load_device("ecp5-85f")
FIELDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
          "residual")  # fmt: skip
LOOP_DESIGNS = 500


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """The least CPU time that `work` takes of as many runs as two seconds hold."""
    times: list[float] = []
    while sum(times) < 2:
        start = time.process_time()
        work(*arguments)
        times.append(time.process_time() - start)
    return min(times)


def draw(name: str, n: int) -> tuple[Layers, Accelerators]:
    """Return `n` random designs of a space on DEVICE."""
    rng = np.random.default_rng(0)
    space, grid = load_space(name), DEVICE.grid()
    return layers_of(space, space.sample(n, rng)), grid[rng.integers(0, len(grid), n)]


def loop(layers: Layers, acc: Accelerators) -> list[tuple[float, float]]:
    """The latency in ms and power in W of all designs, one after another."""
    found = []
    for i in range(len(acc)):
        one = Layers(layers.names, *(getattr(layers, name)[i : i + 1] for name in FIELDS))
        figures = cost.figures(one, acc[i : i + 1], DEVICE)
        found.append((figures.latency_ms.item(), figures.power_w.item()))
    return found


def main() -> None:
    print("# Closed form\n")
    print(
        "(layer, accelerator) pairs a second of `cost.figures` (cycles, latency, clock, power) on\n"
        f"one {platform.machine()} core, beside one design at a time in the same run.\n"
        f"The least CPU time of two seconds of runs. Random designs on {DEVICE.label}.\n"
    )
    print("| space | layers | designs at once | pairs (1e6/s) | loop (1e6/s) | ratio |")
    print("|---|--:|--:|--:|--:|--:|")
    cases = [(name, n) for name in ("digits", "fashion", "imagenet") for n in (100, 10_000)]
    for name, n in tqdm(cases, "benchmark", unit="row"):
        few, engines = draw(name, LOOP_DESIGNS)
        count = few.filters.shape[1]  # absent layers too: both pass over them
        expected = np.array(loop(few, engines))
        found = cost.figures(few, engines, DEVICE)
        np.testing.assert_allclose(np.column_stack([found.latency_ms, found.power_w]), expected)
        theirs = LOOP_DESIGNS * count / seconds(loop, few, engines)
        layers, acc = draw(name, n)
        ours = n * count / seconds(cost.figures, layers, acc, DEVICE)
        print(f"| {name} | {count} | {n:,} | {ours / 1e6:.1f} | {theirs / 1e6:.2f} ", end="")
        print(f"| {ours / theirs:.0f} |")


if __name__ == "__main__":
    main()
