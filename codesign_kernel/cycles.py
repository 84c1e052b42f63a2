"""Closed form of the engine's clock cycles: where they go, layer by layer, one formula a function.

`modelled`: what the units of `rtl/` do, without stepping through it. Fields of `Layers` are
(..., layers) in the order in which they run; those of the accelerator broadcast against them.
How far off this is of the simulated engine: see the tests, and data/layer_cycles.csv.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators, Device
from .simulate import IDEAL, MemoryModel
from .workload import Layers

BURST = 16  # beats of one memory command, at most (as in rtl/shape.py)
PARAM_BYTES = 8  # a filter's bias and requantisation factor
TASK_BYTES = 64
TASK = 12  # control states of a task, but for its lanes, groups, latency and drain
GROUP = 4  # control states of a filter group
FIRST = 20  # until the first task has been read, besides twice the memory's latency
HAND_OVER = 18  # from the last write of a layer to the first pixel of the next, without the beats
COMMAND = 8  # states of the writer for one command, besides its beats
SKIPPED = 3  # for a command that has nothing to write


class Port(NamedTuple):
    """The memory port: bytes of a beat; cycles to the first beat beyond the shortest, 4; cycles
    lost after each burst; and the fraction of cycles that is left beside refresh."""

    bytes: int
    extra_latency: float
    gap: float
    open: float = 1.0

    @classmethod
    def of(cls, device: Device) -> "Port":
        """Return the port of a device: what is lost there is lost between full bursts."""
        gap = BURST / device.port_efficiency - BURST
        extra = MemoryModel().latency - IDEAL.latency
        return cls(max(1, device.port_bits // 8), extra, gap)

    @classmethod
    def of_memory(cls, port_bits: int, memory: MemoryModel) -> "Port":
        """Return the port of an engine on a memory as it is simulated."""
        shut = memory.refresh_cycles / memory.refresh_every if memory.refresh_every else 0.0
        return cls(port_bits // 8, memory.latency - IDEAL.latency, memory.gap, 1 - shut)

    def transfer(self, beats: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """Cycles of the port for so many beats in so many commands."""
        return np.asarray((beats + self.gap * commands) / self.open)


@dataclass(frozen=True)
class Cycles:
    """Where the cycles of layers go, float64 (..., layers): the multipliers work (`compute`), or
    wait for `input` maps, `weights`, or for `output` to be taken, or for `control`."""

    control: np.ndarray
    compute: np.ndarray
    input: np.ndarray
    weights: np.ndarray
    output: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """All cycles, (..., layers)."""
        return np.asarray(self.control + self.compute + self.input + self.weights + self.output)


class Lanes(NamedTuple):
    """Sizes of the engine that follow from its accelerator and port, as in rtl/shape.py."""

    at_once: np.ndarray  # results requantised in a cycle
    drain: np.ndarray  # cycles to requantise the results of one step
    latency: np.ndarray  # from a step to its sum
    streams: np.ndarray  # planes and lanes written side by side
    planes: np.ndarray  # of one lane in a filter group
    word_beats: np.ndarray
    param_beats: np.ndarray
    ring: np.ndarray  # words that the weight buffer holds
    strip: np.ndarray  # pixels x planes of a lane in half of the feature buffer
    banks: np.ndarray  # planes read at once

    @classmethod
    def of(cls, acc: Accelerator | Accelerators, port: Port) -> "Lanes":
        """Return the sizes of accelerators."""
        pf, pc, pv = (np.asarray(lanes) for lanes in (acc.pf, acc.pc, acc.pv))
        out_bytes = np.minimum(pf, port.bytes)
        at_once = np.minimum(out_bytes, np.maximum(1, pf * pv // 4))
        banks = np.maximum(1, pc // port.bytes)
        planes = np.maximum(1, pf // out_bytes)
        return cls(
            at_once, _ceil(pf * pv, at_once), 6 + np.ceil(np.log2(pc)), pv * planes, planes,
            _ceil(pf * pc, port.bytes), pf * max(1, PARAM_BYTES // port.bytes),
            np.maximum(1, np.asarray(acc.weight_kib) * 1024 // (pf * pc)),
            np.maximum(1, np.asarray(acc.feature_kib) * 512 // (pv * banks * port.bytes)), banks,
        )  # fmt: skip


class Work(NamedTuple):
    """A layer on the engine: how often its loops turn, (..., layers)."""

    groups: np.ndarray  # of PF filters
    steps: np.ndarray  # of one output pixel
    words: np.ndarray  # of weights in a group
    tiles: np.ndarray
    pixels: np.ndarray  # of one lane in a tile
    rows: np.ndarray  # of them
    first_beats: np.ndarray  # of the input map, that the first output row must have
    all_beats: np.ndarray  # of the input map, in a tile
    burst: np.ndarray  # beats in a command of these
    fits: np.ndarray  # whether the buffers hold a filter group, and the rows under a kernel


def work(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> Work:
    """Work out the loops. The classifier takes the map before it, and pools it as it goes."""
    one, lanes = layers.once, Lanes.of(acc, port)
    there = one.filters > 0
    before = previous(there, one.height * one.width, 1)
    pooled = there & (one.in_height * one.in_width == 1) & (before > 1)
    down = np.where(pooled, previous(there, one.height, 1), one.kernel)
    height = np.where(pooled, down, one.in_height)
    width = np.where(pooled, previous(there, one.width, 1), one.in_width)
    width = np.maximum(width, 1)
    depth = _ceil(one.channels, acc.pc)
    planes = _ceil(one.channels, port.bytes)
    # As many output rows a lane as its half of the buffer has room for, in even tiles.
    most = (
        lanes.strip // np.maximum(_ceil(planes, lanes.banks) * width, 1) - down
    ) // one.stride + 1
    strip = np.clip(most, 1, np.maximum(_ceil(one.height, acc.pv), 1))
    tiles = np.maximum(_ceil(one.height, strip * acc.pv), 1)
    rows = _ceil(_ceil(one.height, tiles), acc.pv)
    pad = np.where(pooled, 0, one.kernel // 2)
    step = rows * one.stride * width
    last = np.minimum(
        height, (acc.pv - 1) * rows * one.stride + (rows - 1) * one.stride + down - pad
    )
    count = np.maximum(last, 1) * width
    chunk = np.maximum(1, BURST // width) * width
    need = np.maximum(0, (down - pad) * width + (acc.pv - 1) * step)
    first = np.minimum(_ceil(need, chunk) * chunk, count)
    return Work(
        _ceil(one.filters, acc.pf), depth * np.where(pooled, before, one.taps),
        depth * np.where(pooled, 1, one.taps), tiles * there, rows * one.width, rows,
        first * planes, count * planes, np.minimum(chunk, BURST),
        (depth * np.where(pooled, 1, one.taps) <= lanes.ring) & (most >= 1)
        & (np.maximum(down, np.where(pooled, width, 0)) <= 64) & (np.maximum(height, width) < 1024),
    )  # fmt: skip


def runs(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> np.ndarray:
    """Whether the engine can run each layer, boolean (..., layers): its compiler refuses others."""
    return np.asarray(work(layers, acc, port).fits | (layers.filters == 0))


def traffic(
    layers: Layers, acc: Accelerator | Accelerators, port: Port
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of weights and of maps over the memory port, (..., layers).

    Each tile reads its task and all weights, with the filters' parameters; a residual is added from
    the buffer.
    """
    lanes, loops = Lanes.of(acc, port), work(layers, acc, port)
    weights = loops.groups * loops.tiles * (loops.words * lanes.word_beats + lanes.param_beats)
    weights = weights + loops.tiles * (TASK_BYTES // port.bytes)
    written = _ceil(layers.filters, np.minimum(acc.pf, port.bytes)) * layers.height * layers.width
    maps = loops.tiles * loops.all_beats + written
    return tuple(  # type: ignore[return-value]
        np.where(layers.filters > 0, beats * port.bytes * layers.repeat, 0)
        for beats in (weights, maps)
    )


def write_cycles(layers: Layers, acc: Accelerator | Accelerators, port: Port, loops: Work,
                 busy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Cycles that the writer takes for a filter group, and for the last of its chunks.

    A chunk is 16 pixels of each stream, a command each. `busy` is the fraction of the time in
    which weights are loaded; then a command waits for a burst of those.
    """
    lanes = Lanes.of(acc, port)
    chunks = _ceil(loops.pixels, BURST)
    end = loops.pixels - BURST * (chunks - 1)
    planes = _ceil(layers.filters, np.minimum(acc.pf, port.bytes))
    full = np.minimum(1, planes / np.maximum(loops.groups * lanes.planes, 1))
    lit = np.minimum(1, _ceil(layers.height, np.maximum(loops.rows * loops.tiles, 1)) / acc.pv)
    used = np.maximum(1, lanes.streams * full * lit)
    skipped = SKIPPED * (lanes.streams - used) + 2
    command = COMMAND + busy * BURST
    tail = port.transfer(end * used, used) + used * COMMAND + skipped
    chunk = port.transfer(BURST * used, used) + used * command + skipped
    return (chunks - 1) * chunk + tail + used * (command - COMMAND), tail - COMMAND


def cycles(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> Cycles:
    """Cycles of each layer by cause; absent layers cost none.

    Within a layer a filter group takes what the slowest takes: the multipliers, the requantisation
    or the writer, or the loading of the next group where the buffer has room for two. Before it,
    the engine waits for the last maps to be written and the first rows to be read, and for what
    the loader could not bring while the layer before was running.
    """
    lanes, loops = Lanes.of(acc, port), work(layers, acc, port)
    there = layers.filters > 0
    is_first = there & (np.cumsum(there, axis=-1) == 1)
    runs = loops.groups * loops.tiles
    compute = loops.pixels * loops.steps
    drained = loops.pixels * np.maximum(loops.steps, lanes.drain)
    beats = loops.words * lanes.word_beats + lanes.param_beats
    load = port.transfer(beats, _ceil(beats, BURST)) + 2
    # What the loader brings while this layer runs: as much as its groups give back, or at the
    # start as much as the buffer holds, of what is still to come.
    whole = np.where(there, runs * load, 0.0)
    ahead = np.cumsum(whole[..., ::-1], axis=-1)[..., ::-1] - whole
    bring = np.where(is_first, np.minimum(lanes.ring * lanes.word_beats, ahead + whole),
                     np.minimum(whole, ahead))  # fmt: skip
    quiet, _ = write_cycles(layers, acc, port, loops, np.zeros(()))
    busy = np.minimum(1, bring / np.maximum(1, runs * np.maximum(drained, quiet)))
    write, tail = write_cycles(layers, acc, port, loops, busy)
    group = np.maximum(drained, write)
    # Waiting for weights.
    rest = lanes.latency + lanes.drain + 9
    two = 2 * loops.words <= lanes.ring
    both = loops.words + previous(there, loops.words, 0) <= lanes.ring
    spare = rest + np.where(both, _lead(there, runs * (group - load) + rest, lanes, loops), 0)
    held = np.maximum(1, lanes.ring // np.maximum(loops.words, 1)) * load
    first_rows = port.transfer(loops.first_beats, _ceil(loops.first_beats, loops.burst))
    spare = np.where(is_first, -np.minimum(load, first_rows), np.minimum(spare, held))
    alone = np.maximum(0, load - spare)  # the first group
    streamed = np.maximum(0, runs * load + group - spare - runs * group)
    weights = np.where(two, np.maximum(alone, streamed), alone + (runs - 1) * load)
    # Waiting for maps: the first rows, and where loading is slower than the first group, the rest.
    all_rows = port.transfer(loops.all_beats, _ceil(loops.all_beats, loops.burst))
    start = previous(there, tail, 0.0) + HAND_OVER + 2 * port.extra_latency + first_rows
    start = np.where(is_first, FIRST - 15 + first_rows, np.maximum(0, start - alone))
    later = np.maximum(0, all_rows - first_rows - group * (1 - 1 / np.maximum(loops.rows, 1)))
    next_tiles = (loops.tiles - 1) * np.maximum(0, all_rows - loops.groups * group)
    control = loops.tiles * (acc.pv + lanes.latency + lanes.drain + TASK) + GROUP * runs
    control = control + is_first * (15 + 2 * port.extra_latency)
    is_last = there & (np.cumsum(there[..., ::-1], axis=-1)[..., ::-1] == 1)
    output = runs * (group - compute) + is_last * (tail + COMMAND + 3)
    count = there * layers.repeat
    parts = (control, runs * compute, start + later + next_tiles, weights, output)
    return Cycles(*(np.where(there, part, 0.0) * count for part in parts))


def _lead(there: np.ndarray, slack: np.ndarray, lanes: Lanes, loops: Work) -> np.ndarray:
    """Cycles by which the loader of weights is ahead when a layer begins: what the layers before
    left it, `slack`, and no more than the weight buffer holds beside the group in use."""
    gained = np.cumsum(np.where(there, slack, 0.0), axis=-1)
    gained = np.concatenate([np.zeros_like(gained[..., :1]), gained[..., :-1]], axis=-1)
    most = (lanes.ring - np.minimum(lanes.ring, previous(there, loops.words, 0))) * lanes.word_beats
    lost = np.minimum.accumulate(np.where(there, np.minimum(most - gained, 0), 0.0), axis=-1)
    return np.asarray(np.maximum(0.0, gained + lost))


def previous(there: np.ndarray, values: np.ndarray, fill: float) -> np.ndarray:
    """Return for each layer the value of the layer before it that is there, else `fill`."""
    values = np.broadcast_to(values, np.broadcast_shapes(np.shape(values), there.shape))
    there = np.broadcast_to(there, values.shape)
    index = np.where(there, np.arange(there.shape[-1]), -1)
    index = np.maximum.accumulate(index, axis=-1)
    before = np.concatenate([np.full_like(index[..., :1], -1), index[..., :-1]], axis=-1)
    found = np.take_along_axis(values, np.maximum(before, 0), axis=-1)
    return np.asarray(np.where(before < 0, fill, found))


def _ceil(value: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    return np.asarray(-(-value // by))
