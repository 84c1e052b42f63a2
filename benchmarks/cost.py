"""How many (layer, accelerator) pairs a second the closed form takes, beside a plain Python loop.

    python benchmarks/cost.py > benchmarks/cost.md

Prints Markdown. The loop works out the same figures one layer after another, in Python's own
numbers; that both agree is checked. About half a minute on one core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded: the figures are of a core

import math
import platform
import time
from collections.abc import Callable

import numpy as np
from tqdm.auto import tqdm

from codesign_kernel import cost
from codesign_kernel.accelerator import Accelerator, Accelerators, Device, load_device
from codesign_kernel.space import load_space
from codesign_kernel.workload import Layers, layers_of

DEVICE = load_device("ecp5-85f")
FIELDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "residual")
LOOP_DESIGNS = 2000


def looped(rows: list[list[int]], acc: Accelerator, device: Device) -> tuple[float, float]:
    """Latency in ms and power in W of one design; a row of `rows` is a layer's FIELDS."""
    rate = device.port_bits / 8 * device.port_efficiency
    cycles = picojoules = 0.0
    for f, c, in_height, in_width, height, width, k, residual in rows:
        if f == 0:
            continue
        pixels, maps, outputs = height * width, c * in_height * in_width, f * height * width
        issued = math.ceil(f / acc.pf) * math.ceil(c / acc.pc) * math.ceil(pixels / acc.pv) * k * k
        weights = f * c * k * k + 8 * f
        weights_stay = weights + maps * math.ceil(weights / (acc.weight_kib * 512))
        inputs_stay = weights * math.ceil(maps / (acc.feature_kib * 512)) + maps
        moved = min(weights_stay, inputs_stay) + outputs * (1 + residual)
        first = min(f, acc.pf) * c * k * k + c * in_width * min(k, in_height)
        cycles += max(issued, moved / rate) + first / rate + cost.PIPELINE_CYCLES
        picojoules += f * c * k * k * pixels * device.mac_pj + 8 * moved * device.memory_pj_bit
        picojoules += issued * acc.pc * (acc.pf + acc.pv) * device.sram_pj_byte
    need = cost.resources(acc, device)
    clock = float(cost.clock_mhz(acc, device))
    clocked = float(need.lut * device.lut_pj_cycle + need.bram * device.bram_pj_cycle)
    power = device.static_w + (picojoules / cycles + clocked) * clock * 1e-6
    return cycles / clock / 1e3, power


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
    """The figures of all designs, one after another."""
    networks = np.stack([getattr(layers, name) for name in FIELDS], axis=2).tolist()
    return [looped(rows, one, DEVICE) for rows, one in zip(networks, acc, strict=True)]


def main() -> None:
    print("# Closed form\n")
    print(
        "(layer, accelerator) pairs a second of `cost.figures` (cycles, latency, clock, power) on\n"
        f"one {platform.machine()} core, beside a plain Python loop over layers in the same run.\n"
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
