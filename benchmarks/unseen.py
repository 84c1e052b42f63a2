"""The closed form of cycles on layers that it was not made on, beside what simulation counts.

    python benchmarks/unseen.py data/unseen_cycles.csv

Other subnets than those of data/layer_cycles.csv, on its engines and on four others; small networks
of random layers, on the engines and memory ports that the tests run them on, and such layers each
by itself; and the layers of the published networks at 224 x 224 that the engine can run, each by
itself, which are cut into tiles. The memory is ideal, or the default one. Subnets, random networks
and layers were drawn anew when the last rule of the closed form had been found. Some ten minutes,
most of it for compiling the engines. Prints a table.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from cycles import BOUNDS, ENGINES, MEMORIES, PORT_BITS, SPACES
from tqdm.auto import tqdm

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.cycles import Port, cycles, runs
from codesign_kernel.files import write_text
from codesign_kernel.integer import IntegerLayer, IntegerNetwork, of_layers
from codesign_kernel.measure import stratified
from codesign_kernel.networks import load_network, shipped
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import simulate
from codesign_kernel.space import load_space
from codesign_kernel.workload import Layers, layers_of

OTHERS = ("2x8x2w32f32", "8x2x2w32f32", "2x16x1w32f32", "8x8x1w16f16")
RANDOM = (
    ("8x8x1w16f16", 64), ("4x2x2w32f32", 32), ("4x8x4w32f64", 64), ("2x2x1w16f16", 32),
    ("4x4x1w16f16", 64), ("8x4x2w16f32", 64), ("16x4x1w32f16", 64), ("2x8x2w32f32", 128),
    ("8x2x1w32f32", 32), ("4x16x1w32f32", 64),
)  # fmt: skip
PUBLISHED = ("8x8x1w64f32", "16x8x1w64f32")
NETWORKS = 12  # of random layers on each engine
ALONE = 48  # random layers on each engine, each by itself
USED = ("ideal", "default")


def subnets() -> list[IntegerNetwork]:
    """Draw subnets of both spaces, spread over their sizes, that are not in the table."""
    found = []
    for name, count in SPACES.items():
        space, rng = load_space(name), np.random.default_rng([2, 11])
        found += [of_layers(layers_of(space, g[None])) for g in stratified(space, count, rng)]
    return found


def layer(filters: int, channels: int, kernel: int, **rest: bool | int) -> IntegerLayer:
    """A layer of zero weights: cycles depend on none."""
    zero = np.zeros(filters, np.int64)
    return IntegerLayer(
        np.zeros((filters, channels, kernel, kernel), np.int8), zero, zero, zero, **rest
    )


def chance(rng: np.random.Generator) -> IntegerNetwork:
    """Draw two to four layers of up to 26 filters on a map of 3 to 14 pixels a side, and a
    classifier."""
    count = int(rng.integers(2, 5))
    channels, height, width = (int(rng.integers(*ends)) for ends in ((1, 20), (3, 15), (3, 15)))
    layers, c = [], channels
    for _ in range(count):
        filters, kernel = int(rng.integers(1, 27)), int(rng.choice([1, 3, 5, 7]))
        if rng.random() < 0.5:
            layers.append(layer(c, c, kernel, residual=True))
        else:
            layers.append(layer(filters, c, kernel, stride=int(rng.integers(1, 3))))
            c = filters
    layers.append(layer(10, c, 1, pooled=True, relu=False))
    return IntegerNetwork(layers, (channels, height, width))


def by_themselves(rng: np.random.Generator) -> list[IntegerNetwork]:
    """Draw layers as `chance` does, but for the classifiers, each as a network of its own."""
    found = list[IntegerNetwork]()
    while len(found) < ALONE:
        network = chance(rng)
        sides = network.input[1:]
        for each in network.layers[:-1]:
            found.append(IntegerNetwork([each], (each.weight.shape[1], *sides)))
            sides = each.output(*sides)
    return found[:ALONE]


def published(text: str) -> list[IntegerNetwork]:
    """Return the layers of the shipped networks that an engine can run, each once, by itself."""
    port, found = (
        Port.of_memory(PORT_BITS, MEMORIES["ideal"]),
        dict[tuple[int, ...], IntegerNetwork](),
    )
    for name in shipped():
        layers = load_network(name).layers
        fit = runs(layers, Accelerator.parse(text), port) & (np.asarray(layers.repeat) == 1)
        for i in np.flatnonzero(fit & (layers.in_height > 1)):
            sides = [int(getattr(layers, side)[i]) for side in ("in_height", "in_width")]
            f, c, k, s = (int(getattr(layers, side)[i]) for side in BOUNDS[:4])
            key = (f, c, k, s, *sides)
            found[key] = IntegerNetwork([layer(f, c, k, stride=s)], (c, *sides))
    return list(found.values())


def rows_of(network: IntegerNetwork, about: dict[str, object]) -> list[dict[str, object]]:
    """Simulate a network; return a row for each layer, with the cycles of both."""
    shape = Shape(Accelerator.parse(str(about["accelerator"])), int(str(about["port_bits"])))
    memory = MEMORIES[str(about["memory"])]
    run = simulate(compile_network(network, shape), np.zeros(network.input, np.int8), memory)
    sides, rows = network.input[1:], []
    for i, (each, measured) in enumerate(zip(network.layers, run.layers.sum(axis=1), strict=True)):
        out, inside = each.output(*sides), (1, 1) if each.pooled else sides
        bounds = (*each.weight.shape[:3], each.stride, int(each.residual), *inside, *out)
        rows.append(
            about | {"layer": i} | dict(zip(BOUNDS, bounds, strict=True))
            | {"cycles": int(measured)}
        )  # fmt: skip
        sides = out
    columns = {name: np.array([[row[name] for row in rows]]) for name in BOUNDS}
    layers = Layers(tuple(str(row["layer"]) for row in rows), **columns)
    port = Port.of_memory(shape.port_bits, memory)
    for row, form in zip(rows, cycles(layers, shape.accelerator, port).total[0], strict=True):
        row["closed_form"] = round(float(form), 2)
    return rows


def main() -> None:
    """Simulate all, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    rng = np.random.default_rng(8)
    kinds = {
        "subnet": ([(text, PORT_BITS) for text in (*ENGINES, *OTHERS)], subnets()),
        "random": (RANDOM, [chance(rng) for _ in range(NETWORKS)]),
        "alone": (RANDOM, by_themselves(np.random.default_rng(9))),
    }
    work = [
        (one, {"kind": "published", "accelerator": text, "port_bits": PORT_BITS, "network": i})
        for text in PUBLISHED
        for i, one in enumerate(published(text))
    ]
    work += [
        (one, {"kind": kind, "accelerator": text, "port_bits": bits, "network": i})
        for kind, (engines, networks) in kinds.items()
        for text, bits in engines
        for i, one in enumerate(networks)
    ]
    rows = [
        row
        for network, about in tqdm(work, "simulate", unit="network")
        for memory in USED
        for row in rows_of(network, about | {"memory": memory})
    ]
    table = pd.DataFrame(rows)
    write_text(asked.file, table.to_csv(index=False))
    print("| memory | layers | error, median (%) | 98 of 100 are within (%) | worst | above 5 % |")
    print("|---|---|--:|--:|--:|--:|")
    for (memory, kind), part in table.groupby(["memory", "kind"], sort=False):
        error = 100 * (part["closed_form"] / part["cycles"] - 1).abs()
        cells = (f"{error.median():.2f}", f"{error.quantile(0.98):.1f}", f"{error.max():.1f}")
        print(f"| {memory} | {len(part):,} {kind} | {' | '.join(cells)} | {(error > 5).sum()} |")


if __name__ == "__main__":
    main()
