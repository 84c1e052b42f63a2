"""Every architecture of a small space on every engine of a device, really measured.

    python benchmarks/truth.py data/studies/digits ecp5-45f data/truth/digits --workers 2

The accuracy of each architecture with the supernet's weights, on all validation and on all test
images; and the engine simulated with each architecture's own weights, quantised, on a validation
image: for each engine that data/implementations.csv has for the device, a file of its own. Hours of
processor time: a run that was killed goes on where it stopped, and one that finds new engines
measures those.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from codesign_kernel import batches, quantize, routed, train
from codesign_kernel.accelerator import Accelerator
from codesign_kernel.errors import InputError
from codesign_kernel.files import digest, read_arrays, write_arrays
from codesign_kernel.meters import SIMULATION, Accuracy
from codesign_kernel.program import compile_network
from codesign_kernel.quantize import Quantized
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import build_many, memory_of, simulate
from codesign_kernel.study import Study, open_study
from codesign_kernel.truth import FIELDS, UNFIT

SAVE_EVERY_S = 60.0
NORMALISED_ON, SCALED_ON = 256, 32  # training images, where only activity depends on them


def kept(path: Path, about: dict[str, str], shapes: dict[str, type], n: int) -> dict:
    """Return the arrays of a file, those of another origin as not measured yet: zeros."""
    empty = {name: np.zeros(n, kind) for name, kind in shapes.items()}
    if not path.exists():
        return empty
    arrays, origin = read_arrays(path)
    return arrays if origin == about else empty


def measure_accuracy(study: Study, meter: Accuracy, genomes: np.ndarray, path: Path) -> None:
    """Measure what the file lacks of the accuracies, in %."""
    about = {"space": study.space.name, "supernet": digest(study.supernet_path)}
    found = kept(path, about, {"validation": np.float32, "test": np.float32}, len(genomes))
    saved = time.monotonic()
    for i in tqdm(np.flatnonzero(found["test"] == 0), "accuracy", unit="architecture"):
        network = train.subnet(meter.supernet, study.space.decode(genomes[i]), meter.calibration)
        for name in found:
            found[name][i] = train.accuracy(network, getattr(meter.dataset, name))
        if time.monotonic() - saved > SAVE_EVERY_S:
            saved = time.monotonic()
            write_arrays(path, found, about)
    write_arrays(path, found, about)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("device")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    study = open_study(asked.study)
    device, genomes = study.device(asked.device), study.space.enumerate()
    asked.folder.mkdir(parents=True, exist_ok=True)
    meter = Accuracy(study)
    measure_accuracy(study, meter, genomes, asked.folder / "accuracy.safetensors")
    memory, first = memory_of(device), meter.dataset.validation.batch(np.zeros(1, np.int64))

    @cache
    def network_of(i: int) -> Quantized:
        some = meter.calibration[:NORMALISED_ON]
        subnet = train.subnet(meter.supernet, study.space.decode(genomes[i]), some)
        return quantize.quantize(subnet, some[:SCALED_ON])

    def run(i: int, engine: Accelerator) -> tuple[int, ...] | None:
        one = network_of(i)
        try:
            program = compile_network(one.network, Shape(engine, device.port_bits))
        except InputError:
            return None  # the engine cannot run it
        done = simulate(program, one.input(batches.to_tensor(first))[0], memory)
        busy = int(done.layers["compute"].sum())
        return done.cycles, busy, done.read + done.written, done.flips / done.flip_flops

    # The largest first, and of those with as many lanes each way one before the others.
    engines = routed.engines(device)[::-1]
    lanes = [(engine.pf, engine.pc, engine.pv) for engine in engines]
    places = [lanes[:i].count(each) for i, each in enumerate(lanes)]
    engines = [engines[i] for i in np.argsort(places, kind="stable")]
    build_many([Shape(engine, device.port_bits) for engine in engines], asked.workers)
    for engine in engines:
        path = asked.folder / f"{engine}.safetensors"
        about = {
            "space": study.space.name, "device": device.name, "engine": str(engine),
            "supernet": digest(study.supernet_path), "method": SIMULATION,
            "images": f"{NORMALISED_ON}, {SCALED_ON}",
        }  # fmt: skip
        found = kept(path, about, FIELDS, len(genomes))
        missing, saved = np.flatnonzero(found["cycles"] == 0), time.monotonic()
        with ThreadPoolExecutor(asked.workers) as pool:
            results = pool.map(run, missing.tolist(), [engine] * len(missing))
            bar = tqdm(results, str(engine), len(missing), unit="design")
            for i, values in zip(missing, bar, strict=True):
                for name, value in zip(found, values or (UNFIT, 0, 0, 0), strict=True):
                    found[name][i] = value
                if time.monotonic() - saved > SAVE_EVERY_S:
                    saved = time.monotonic()
                    write_arrays(path, found, about)
        write_arrays(path, found, about)


if __name__ == "__main__":
    main()
