"""Cycles of random chains of layers on the engine, simulated: what the search spaces do not hold.

    python benchmarks/chains.py data/chain_cycles.csv

Bottlenecks, chains of 1 x 1 convolutions, matrix products of many rows and of one, small maps, maps
of one row, and convolutions at random, drawn anew for each engine of benchmarks/cycles.py and of
OTHERS, on its memory models. Cycle counts depend on no weight, so weights are zero. A quarter of an
hour on a busy machine, most of it for compiling engines. A run that was killed goes on where it
stopped.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from cycles import BOUNDS, ENGINES, MEMORIES, PORT_BITS
from tqdm.auto import tqdm
from unseen import layer

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.errors import InputError
from codesign_kernel.files import write_text
from codesign_kernel.integer import IntegerNetwork
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import simulate

OTHERS = ("2x8x2w32f32", "16x4x2w32f32", "8x8x1w16f64")
EACH = 4  # chains of a kind on an engine
Draw = np.random.Generator
Chain = tuple[tuple[int, int], list[tuple[int, int, int]], bool]  # sides; F, K, stride; classifier


def some(rng: Draw, *values: int) -> int:
    """Draw one of the values."""
    return int(rng.choice(values))


def bottleneck(rng: Draw) -> Chain:
    """Blocks that narrow, convolve and widen, as those of a ResNet."""
    wide, side = some(rng, 32, 48, 64, 96), int(rng.integers(5, 29))
    narrow = wide // some(rng, 2, 4)
    block = [(narrow, 1, 1), (narrow, 3, 1), (wide, 1, 1)]
    return (side, side), [(wide, 1, 1)] + block * int(rng.integers(1, 4)), True


def pointwise(rng: Draw) -> Chain:
    """1 x 1 convolutions only."""
    side = int(rng.integers(4, 29))
    count = int(rng.integers(2, 7))
    return (side, side), [(some(rng, 8, 16, 24, 32, 64, 96), 1, 1) for _ in range(count)], False


def nested(rng: Draw) -> Chain:
    """A convolution and two of 1 x 1, some times over (network in network)."""
    side, layers = int(rng.integers(7, 29)), list[tuple[int, int, int]]()
    for _ in range(int(rng.integers(1, 4))):
        filters = some(rng, 16, 24, 32, 48)
        layers += [(filters, some(rng, 3, 5), some(rng, 1, 1, 2)), (filters, 1, 1), (filters, 1, 1)]
    return (side, side), layers, True


def products(rng: Draw) -> Chain:
    """Matrix products of many rows."""
    count = int(rng.integers(1, 5))
    return (int(rng.integers(5, 250)), 1), [(int(rng.integers(8, 257)), 1, 1)
                                            for _ in range(count)], False  # fmt: skip


def dense(rng: Draw) -> Chain:
    """Matrix products of one row: fully connected layers."""
    count = int(rng.integers(2, 6))
    return (1, 1), [(int(rng.integers(10, 500)), 1, 1) for _ in range(count)], False


def row(rng: Draw) -> Chain:
    """1 x 1 convolutions of maps of one row."""
    count = int(rng.integers(1, 5))
    return (1, int(rng.integers(16, 300))), [(some(rng, 16, 32, 64, 96), 1, 1)
                                             for _ in range(count)], False  # fmt: skip


def late(rng: Draw) -> Chain:
    """Wide layers on small maps."""
    side, count = int(rng.integers(2, 8)), int(rng.integers(2, 6))
    layers = [(some(rng, 48, 64, 96, 128), some(rng, 1, 3), 1) for _ in range(count)]
    return (side, side), layers, bool(rng.integers(2))


def plain(rng: Draw) -> Chain:
    """Convolutions of any kernel and stride, and a classifier."""
    side, count = int(rng.integers(12, 41)), int(rng.integers(3, 8))
    layers = [(some(rng, 8, 16, 24, 32, 48, 64), some(rng, 1, 3, 5), some(rng, 1, 1, 2))
              for _ in range(count)]  # fmt: skip
    return (side, side), layers, True


KINDS: tuple[Callable[[Draw], Chain], ...] = (
    bottleneck, pointwise, nested, products, dense, row, late, plain,
)  # fmt: skip


def drawn(kind: Callable[[Draw], Chain], rng: Draw) -> IntegerNetwork:
    """Draw a chain."""
    sides, layers, classifier = kind(rng)
    channels = start = some(rng, 1, 3, 8, 16, 32, 64) if sides != (1, 1) else some(rng, 64, 500)
    made = []
    for filters, kernel, stride in layers:
        made.append(layer(filters, channels, kernel, stride=stride))
        channels = filters
    if classifier:
        made.append(layer(some(rng, 10, 100), channels, 1, pooled=True, relu=False))
    return IntegerNetwork(made, (start, *sides))


def rows_of(network: IntegerNetwork, shape: Shape, about: dict[str, object]) -> list[dict]:
    """Simulate a network on each memory; return a row for each layer."""
    program, rows = compile_network(network, shape), []
    for memory, model in MEMORIES.items():
        run = simulate(program, np.zeros(network.input, np.int8), model)
        sides = network.input[1:]
        for i, (each, cycles) in enumerate(
            zip(network.layers, run.layers.sum(axis=1), strict=True)
        ):
            filters, channels, kernel, _ = each.weight.shape
            inside, out = (1, 1) if each.pooled else sides, each.output(*sides)
            bounds = filters, channels, kernel, each.stride, 0, *inside, *out
            rows.append(
                about | {"memory": memory, "layer": i} | dict(zip(BOUNDS, bounds, strict=True))
                | {"pools": int(each.pooled), "cycles": int(cycles)}
            )  # fmt: skip
            sides = out
    return rows


def main() -> None:
    """Simulate what is missing, storing the rows of each engine as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    rows = pd.read_csv(asked.file).to_dict("records") if asked.file.exists() else []
    known = {row["accelerator"] for row in rows}
    for which, text in enumerate(tqdm((*ENGINES, *OTHERS), "simulate", unit="engine")):
        if text in known:
            continue
        shape, rng = Shape(Accelerator.parse(text), PORT_BITS), np.random.default_rng([which, 14])
        for kind in KINDS:
            count = 0
            while count < EACH:
                about = {"kind": kind.__name__, "accelerator": text, "network": count}
                try:
                    rows += rows_of(drawn(kind, rng), shape, about)
                except InputError:
                    continue  # its buffers are too small for this one
                count += 1
        write_text(asked.file, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    keys = ["kind", "accelerator", "network"]
    print(f"{len(table.drop_duplicates(keys)):,} chains, {len(table):,} layers and memories.")


if __name__ == "__main__":
    main()
