"""Cycle-accurate simulation of the engine, compiled to C++ once for each accelerator.

External memory is a model: commands are served in order; a read's first beat comes `latency`
cycles after the command at the earliest; a burst moves a beat a cycle, and then the bus idles for
`gap` cycles; every `refresh_every` cycles it is shut for `refresh_cycles`.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from .accelerator import Device
from .errors import InputError, integer
from .integer import of_layers
from .program import Program, compile_network
from .rtl.shape import BURST, Shape
from .threads import in_threads
from .tools import cached, compiler, run, versions, yosys
from .workload import Layers

CAUSES = ("control", "compute", "input", "weights", "output")
_STATUS = {
    2: "its arguments are wrong", 3: "its input cannot be read",
    4: "the engine asked for memory that is not there", 5: "the limit of cycles is reached",
    6: "its output cannot be written", 7: "the engine has a loop without a register",
    8: "the engine waits for what never comes: please report this network and engine",
}  # fmt: skip


@dataclass(frozen=True)
class MemoryModel:
    """External memory, in cycles of the engine's clock.

    The defaults move a beat in about 70 % of the cycles, as the memory port of Fan et al. (ASP-DAC
    2022) does: 16 beats, 6 cycles between bursts, and a refresh of 20 cycles every 780 (7.8 us at
    100 MHz). The engine itself needs a latency of 3 or more, see `protocol.py`; 4 is the least
    here, as the closed form takes it. Raises InputError if a refresh is as long as what is between
    two, so that nothing could be moved.
    """

    latency: int = 30
    gap: int = 6
    refresh_every: int = 780
    refresh_cycles: int = 20

    def __post_init__(self) -> None:
        for field in fields(self):
            low = 4 if field.name == "latency" else 0
            integer(f"{field.name} of the memory model", getattr(self, field.name), low, 100_000)
        if self.refresh_every and self.refresh_cycles >= self.refresh_every:
            raise InputError(
                f"refresh_cycles of the memory model is {self.refresh_cycles}, but must be less "
                f"than the {self.refresh_every} of refresh_every, or that be 0."
            )

    @property
    def efficiency(self) -> float:
        """The fraction of cycles in which full bursts move a beat."""
        burst = BURST / (BURST + self.gap)
        if self.refresh_every == 0:
            return burst
        return burst * (1 - self.refresh_cycles / self.refresh_every)


def memory_of(device: Device) -> MemoryModel:
    """Return the default memory, with as much lost between bursts as the device's port loses."""
    default = MemoryModel()
    open_part = 1 - default.refresh_cycles / default.refresh_every
    return replace(default, gap=max(0, round(BURST * (open_part / device.port_efficiency - 1))))


IDEAL = MemoryModel(latency=4, gap=0, refresh_every=0, refresh_cycles=0)


@dataclass(frozen=True)
class Run:
    """A finished simulation: `memory` after it, all `cycles`, beats `read` and `written`, how many
    of the RTL's `flip_flops` change in a cycle on average, `flips`, and a table of the cycles of
    each layer, in columns by cause (CAUSES). Flips are counted in one of 29 cycles; unlike the
    cycles, they depend on weights and image."""

    memory: bytes
    cycles: int
    read: int
    written: int
    flips: float
    flip_flops: int
    layers: pd.DataFrame


def build(shape: Shape) -> Path:
    """Return the simulator of an engine, an executable in the user's cache; make it if need be.

    Raises InputError if Yosys or a C++ compiler is missing or fails.
    """
    from .rtl.engine import to_rtlil

    command = compiler()
    folder = Path(__file__).with_name("rtl")
    driver = folder / "driver.cpp"
    sources = [Path(__file__), driver, folder / "model.h", *sorted(folder.glob("*.py"))]
    about = [str(shape), versions("amaranth", "pyosys"), *command]
    about += [path.read_text(encoding="utf-8") for path in sources]

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="codesign-") as name:
            folder = Path(name)
            (folder / "engine.il").write_text(to_rtlil(shape), encoding="utf-8")
            yosys(
                [
                    f"read_rtlil {folder}/engine.il",
                    "hierarchy -top engine",
                    f"write_cxxrtl -O6 -g2 {folder}/engine.h",
                ]
            )
            _hasten(folder / "engine.h")
            include = [f"-I{_runtime()}", f"-I{folder}", f"-I{driver.parent}"]
            options = ["-std=c++17", "-O3", "-w", *include, "-o", str(path)]
            run([*command, *options, str(driver)], "the C++ compiler")
            path.chmod(0o755)

    return cached("engine", "\n".join(about), make)


def _hasten(header: Path) -> None:
    """Have registers take over their next value whether it differs or not.

    CXXRTL compares first, to tell whether anything changed: here nobody asks, and what cannot be
    foretold of some hundred comparisons a cycle costs a third of the speed.
    """
    text = header.read_text(encoding="utf-8")
    wires = set(re.findall(r"^\twire<\d+> (\w+)", text, re.MULTILINE))

    def taken(found: re.Match[str]) -> str:
        return f"{found[1]}.curr = {found[1]}.next;" if found[1] in wires else found[0]

    text = re.sub(r"if \((\w+)\.commit\(observer\)\) changed = true;", taken, text)
    text = text.replace("posedge_p_clk = this->posedge_p_clk();", "posedge_p_clk = true;")
    header.write_text(text, encoding="utf-8")


def build_many(shapes: Sequence[Shape], workers: int = 1) -> None:
    """Make the simulators of engines, `workers` at once. Raises InputError as `build` does."""
    in_threads([partial(build, shape) for shape in shapes], workers, "compile engines", "engine")


def _runtime() -> Path:
    """Return the folder of CXXRTL's headers, a part of pyosys."""
    import pyosys

    return Path(pyosys.__file__).parent / "share" / "include" / "backends" / "cxxrtl" / "runtime"


def simulate(
    program: Program, image: np.ndarray, memory: MemoryModel | None = None, limit: int = 1 << 40
) -> Run:
    """Run a program on an int8 image (C, H, W). Raises InputError if the simulator fails."""
    memory = memory or MemoryModel()
    path = build(program.shape)
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:
        source, target = Path(name, "in"), Path(name, "out")
        source.write_bytes(program.with_input(image))
        settings = [limit, *(getattr(memory, field.name) for field in fields(memory))]
        done = subprocess.run(
            [str(path), str(source), str(target), *map(str, settings)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            why = _STATUS.get(done.returncode, f"status {done.returncode}")
            raise InputError(f"the simulation of {program.shape.accelerator} failed: {why}.")
        after = target.read_bytes()
    return _parse(done.stdout.splitlines(), after, program.layer_of_task)


def count_cycles(layers: Layers, shape: Shape, memory: MemoryModel | None = None) -> pd.DataFrame:
    """Return the measured clock cycles of the layers of one network, fields (1, layers).

    A row for each layer that is there: `layer`, its name, the cycles by cause (CAUSES), and
    `cycles` in all. They depend on no weight and no image, so those are random and zero.
    Raises InputError if the engine cannot run the network, or the simulator fails.
    """
    network = of_layers(layers)
    run = simulate(compile_network(network, shape), np.zeros(network.input, np.int8), memory)
    names = [n for n, there in zip(layers.names, layers.filters[0] > 0, strict=True) if there]
    table = run.layers.reset_index(drop=True)
    table.insert(0, "layer", names)
    return table.assign(cycles=table[list(CAUSES)].sum(axis=1))


def _parse(lines: Sequence[str], memory: bytes, layer_of_task: Sequence[int]) -> Run:
    _, cycles, _, read, written, _, flips, _, bits, _, samples = lines[0].split()
    rows = [[int(word) for word in line.split()] for line in lines[1:]]
    table = pd.DataFrame(rows, columns=["task", *CAUSES])
    # After the last task the engine waits for its writes: that counts as the last layer's output.
    beyond = table["task"] >= len(layer_of_task)
    table.loc[beyond, "output"] += table.loc[beyond, "control"]
    table.loc[beyond, "control"] = 0
    last = len(layer_of_task) - 1
    table["layer"] = [layer_of_task[min(task, last)] for task in table["task"]]
    layers = table.groupby("layer")[list(CAUSES)].sum()
    numbers = int(cycles), int(read), int(written), int(flips) / int(samples), int(bits)
    return Run(memory, *numbers, layers)
