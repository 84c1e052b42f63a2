"""Clock cycles a second of the simulated engine, beside Verilator's simulation of the same.

    python benchmarks/simulation.py [8x8x1w32f32]

The largest subnet of `fashion` on one core; the least processor time of several runs, which
includes reading and writing the memory. Verilator must be installed.
"""

import argparse
import resource
import subprocess
import tempfile
from dataclasses import astuple
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from codesign_kernel import rtl
from codesign_kernel.accelerator import Accelerator
from codesign_kernel.integer import of_layers
from codesign_kernel.measure import stratified
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.engine import to_rtlil
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import MemoryModel, build
from codesign_kernel.space import load_space
from codesign_kernel.tools import yosys
from codesign_kernel.workload import layers_of

REPEATS = 5
LIMIT = 1 << 40


def verilator(shape: Shape, folder: Path) -> Path:
    """Compile the engine with Verilator; return the executable."""
    source = folder / "engine.v"
    (folder / "engine.il").write_text(to_rtlil(shape), encoding="utf-8")
    start = [f"read_rtlil {folder}/engine.il", "hierarchy -top engine", "proc"]
    yosys([*start, f"write_verilog -noattr {source}"])
    options = ["-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--Mdir", str(folder)]
    options += ["-CFLAGS", "-std=c++17 -O3 -DVERILATOR", "--top-module", "engine"]
    driver = Path(rtl.__file__).with_name("driver.cpp")
    command = ["verilator", "--cc", "--exe", "--build", *options, str(source), str(driver)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "Vengine"


def rate(path: Path, source: Path) -> float:
    """Cycles a second of processor time."""
    words = [str(path), str(source), "/dev/null", str(LIMIT), *map(str, astuple(MemoryModel()))]
    best = 0.0
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        best = max(best, int(done.stdout.split()[1]) / used)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("accelerator", nargs="?", default="8x8x1w32f32")
    shape = Shape(Accelerator.parse(parser.parse_args().accelerator), 64)
    space = load_space("fashion")
    some = stratified(space, 6, np.random.default_rng(0))
    layers = layers_of(space, some)
    largest = layers_of(space, some[[int(np.argmax(layers.macs.sum(axis=-1)))]])
    network = of_layers(largest)
    program = compile_network(network, shape)
    with tempfile.TemporaryDirectory() as name, tqdm(total=4, unit="step") as bar:
        source = Path(name, "in")
        source.write_bytes(program.with_input(np.zeros(network.input, np.int8)))
        theirs = verilator(shape, Path(name))
        bar.update()
        ours = build(shape)
        bar.update()
        rates = []
        for path in (ours, theirs):
            rates.append(rate(path, source) / 1e6)
            bar.update()
    print(f"CXXRTL    {rates[0]:.2f} M cycles/s")
    print(f"Verilator {rates[1]:.2f} M cycles/s, ratio {rates[0] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
