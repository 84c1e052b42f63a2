"""Layers on the engine: how often its loops turn, and what crosses the memory port.

What is said of one tile is the mean of a layer's; sums are exact. When things happen is in
`cycles.py`. Inside both, the layers are the first axis
of each array, REAL, and what belongs to the accelerator broadcasts against the others.
"""

from dataclasses import fields
from typing import NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators, Device
from .rtl.shape import DEPTH, GROUPS, PIXELS, PLANES, SIDE, TAPS, WORDS
from .simulate import IDEAL, MemoryModel
from .workload import Layers

BURST = 16  # beats of one memory command, at most (as in rtl/shape.py)
PARAM_BYTES = 8  # a filter's bias and requantisation factor
TASK_BYTES = 64
REAL = np.float32  # of all within: counts are exact up to 2^24


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

    def transfer(self, beats: np.ndarray, commands: np.ndarray | int) -> np.ndarray:
        """Cycles of the port for so many beats in so many commands."""
        return np.asarray((beats + self.gap * commands) / self.open)

    @property
    def burst(self) -> float:
        """Cycles of a full burst."""
        return float(self.transfer(np.array(BURST), 1))


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
    most_channels: np.ndarray  # of a layer
    most_filters: np.ndarray

    @classmethod
    def of(cls, acc: Accelerator | Accelerators, port: Port) -> "Lanes":
        """Return the sizes of accelerators."""
        pf, pc, pv = (np.asarray(lanes, REAL) for lanes in (acc.pf, acc.pc, acc.pv))
        out_bytes = np.minimum(pf, port.bytes)
        at_once = np.minimum(out_bytes, np.maximum(1, np.floor(pf * pv / 4)))
        banks = np.maximum(1, np.floor(pc / port.bytes))
        planes = np.maximum(1, np.floor(pf / out_bytes))
        weights = np.asarray(acc.weight_kib, REAL) * 1024
        features = np.asarray(acc.feature_kib, REAL) * 512
        return cls(
            at_once, np.ceil(pf * pv / at_once), 6 + np.ceil(np.log2(pc)), pv * planes, planes,
            np.ceil(pf * pc / port.bytes), pf * max(1, PARAM_BYTES // port.bytes),
            np.maximum(1, np.floor(weights / (pf * pc))),
            np.maximum(1, np.floor(features / (pv * banks * port.bytes))), banks,
            np.minimum(PLANES * port.bytes, DEPTH * pc),
            np.minimum(PLANES * port.bytes, GROUPS * pf),
        )  # fmt: skip


class Work(NamedTuple):
    """A layer on the engine: how often its loops turn, (layers, ...)."""

    groups: np.ndarray  # of PF filters
    steps: np.ndarray  # of one output pixel
    words: np.ndarray  # of weights in a group
    tiles: np.ndarray  # 0 where there is no layer
    pixels: np.ndarray  # of one lane in a tile, in the mean: the last one may be shorter,
    tile: np.ndarray  # and in one that is not
    rows: np.ndarray  # of them
    planes: np.ndarray  # of the input map
    chunk: np.ndarray  # pixels of one plane that are loaded at a time
    first: np.ndarray  # pixels of the input map that the first output row must have
    whole: np.ndarray  # pixels of the input map in a tile, in the mean
    held: np.ndarray  # whether the buffers hold a filter group, and the rows under a kernel
    counted: np.ndarray  # whether the fields of a task have room for its numbers

    @property
    def fits(self) -> np.ndarray:
        """Whether the engine can run it, if it has a mode for it."""
        return np.asarray(self.held & self.counted)

    @property
    def busy(self) -> np.ndarray:
        """Cycles in which the multipliers work."""
        return np.asarray(self.groups * self.tiles * (self.pixels * self.steps))


def layers_first(layers: Layers) -> Layers:
    """Return each group's one convolution, the layers as the first axis of REAL fields."""
    sides = (getattr(layers, field.name) for field in fields(Layers)[1:-1])
    return Layers(
        layers.names,
        *(side if side is None  # type: ignore[arg-type]
          else np.ascontiguousarray(np.moveaxis(side, -1, 0), REAL) for side in sides),
    )  # fmt: skip


def lanes_first(acc: Accelerator | Accelerators) -> Accelerator | Accelerators:
    """Return accelerators that broadcast against layers of which these are the first axis."""
    if isinstance(acc, Accelerator):
        return acc
    sides = (np.asarray(getattr(acc, field.name), REAL) for field in fields(acc))
    return Accelerators(*(np.moveaxis(side, -1, 0) if side.ndim else side for side in sides))


def previous(there: np.ndarray, values: np.ndarray, fill: float) -> np.ndarray:
    """Return for each layer the value of the layer before it that is there, else `fill`."""
    found = np.empty(there.shape, REAL)
    last = np.full(there.shape[1:], fill, REAL)
    for i, row in enumerate(there):
        found[i] = last
        np.copyto(last, values[i], where=row)
    return found


def turns(one: Layers, acc: Accelerator | Accelerators, port: Port) -> Work:
    """Work out the loops, of `layers_first` and `lanes_first`. The classifier takes the map before
    it, and pools it as it goes."""
    lanes = Lanes.of(acc, port)
    there = one.filters > 0
    before = previous(there, one.height * one.width, 1)
    pooled = there & (one.in_height * one.in_width == 1) & (before > 1)
    if one.pools is not None:
        pooled &= one.pools > 0
    down, height, width = one.kernel, one.in_height, np.maximum(one.in_width, 1)
    pad, taps, wide = np.floor(one.kernel / 2), one.taps, one.taps
    if pooled.any():
        down = np.where(pooled, previous(there, one.height, 1), down)
        height = np.where(pooled, down, height)
        width = np.where(pooled, previous(there, one.width, 1), width)
        pad, taps = np.where(pooled, 0, pad), np.where(pooled, before, taps)
        wide = np.where(pooled, 1, wide)
    depth = np.ceil(one.channels / acc.pc)
    planes = np.ceil(one.channels / port.bytes)
    # As many output rows a lane as its half of the buffer has room for, in even tiles.
    room = np.floor(lanes.strip / np.maximum(np.ceil(planes / lanes.banks) * width, 1))
    most = np.floor((room - down) / one.stride) + 1
    beside = np.maximum(0, down - one.stride)
    short = np.floor((PIXELS / width - beside) / (acc.pv * one.stride))  # a task can say no more
    high = np.minimum(np.ceil(one.height / acc.pv), np.floor(SIDE / one.stride))
    strip = np.clip(np.minimum(most, short), 1, np.maximum(high, 1))
    parts = np.maximum(np.ceil(one.height / (strip * acc.pv)), 1)
    each = np.maximum(np.ceil(one.height / parts), 1)  # rows of a tile, but for the last one
    full = np.floor(one.height / each)
    rest = one.height - full * each
    tiles = np.maximum(full + (rest > 0), 1)
    high = np.ceil(each / acc.pv)
    rows = (full * high + np.ceil(rest / acc.pv)) / tiles
    step = high * one.stride
    reach = acc.pv * step - one.stride + down  # rows that a tile reads, but for the map's ends
    top = (tiles - 1) * each * one.stride - pad  # of the last tile; of that before:
    above = np.minimum(height - top + each * one.stride, reach) + np.maximum(tiles - 3, 0) * reach
    ends = np.minimum(height, reach - pad) + np.minimum(height - top, reach)
    whole = np.where(tiles > 1, ends + (tiles > 2) * above, np.minimum(height, reach - pad))
    whole = np.maximum(whole / tiles, 1) * width
    chunk = np.maximum(1, np.floor(BURST / width)) * width
    whole = whole + (whole - np.floor(whole / chunk) * chunk == 1)  # no command is of one beat
    need = np.maximum(0, down - pad + (acc.pv - 1) * step) * width
    words = depth * wide
    return Work(
        np.ceil(one.filters / acc.pf), depth * taps, words, tiles * there, rows * one.width,
        high * one.width, rows, planes, chunk,
        np.minimum(np.ceil(need / chunk) * chunk, whole), whole,
        (words <= lanes.ring) & (most >= 1),
        (words <= WORDS) & (short >= 1) & (np.maximum(height, width) <= SIDE)
        & (np.maximum(down, np.where(pooled, width, 0)) <= TAPS)
        & (one.channels <= lanes.most_channels) & (one.filters <= lanes.most_filters),
    )  # fmt: skip


def work(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> Work:
    """Work out the loops, (..., layers)."""
    loops = turns(layers_first(layers), lanes_first(acc), port)
    return Work(*(np.moveaxis(np.asarray(part), 0, -1) for part in loops))


def outline(
    layers: Layers, acc: Accelerators, port: Port, which: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    """Cycles in which the multipliers work, and whether the engine can run all layers, (n,) each.

    Of `n` designs: accelerator i of `acc` runs network `which[i]` of the layers, fields (networks,
    layers), none of them grouped.
    """
    one = layers_first(layers)
    sides = (getattr(one, field.name) for field in fields(Layers)[1:-1])
    one = Layers(one.names, *(side if side is None else side[:, which] for side in sides))  # type: ignore[arg-type]
    loops = turns(one, lanes_first(acc[:, None]), port)
    return loops.busy.sum(axis=0, dtype=np.float64), (loops.fits | (one.filters == 0)).all(axis=0)


def beats_moved(
    one: Layers, loops: Work, acc: Accelerator | Accelerators, port: Port
) -> tuple[np.ndarray, np.ndarray]:
    """Beats of weights and of maps over the memory port, given the loops, (layers, ...)."""
    lanes = Lanes.of(acc, port)
    weights = loops.groups * (loops.words * lanes.word_beats + lanes.param_beats)
    weights = loops.tiles * (weights + TASK_BYTES // port.bytes)
    written = np.ceil(one.filters / np.minimum(acc.pf, port.bytes)) * one.height * one.width
    maps = loops.tiles * loops.whole * loops.planes + written
    return weights, maps


def regular(layers: Layers) -> np.ndarray:
    """Whether each layer is one that the engine has a mode for, boolean (..., layers): a square
    kernel of 1, 3, 5 or 7, stride 1 or 2, and maps that are padded by K // 2 on each side."""
    stride = np.maximum(layers.stride, 1)
    sides = ((layers.in_height, layers.height), (layers.in_width, layers.width))
    found = (layers.kernel % 2 == 1) & (layers.kernel <= 7) & (stride <= 2)
    found &= layers.taps == layers.kernel**2
    if layers.irregular is not None:
        found &= layers.irregular == 0
    for inside, out in sides:
        found &= -(-inside // stride) == out
    return np.asarray(found | (layers.filters == 0))


def refused(
    layers: Layers, acc: Accelerator | Accelerators, port: Port
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which layers the engine cannot run, boolean (..., layers): those that it has no mode for, of
    the others those that its counters are too short for, and of the rest those that its buffers are
    too small for. Its compiler refuses the same."""
    loops, known = work(layers, acc, port), regular(layers)
    there = layers.filters > 0
    long = known & there & ~loops.counted
    return ~known, long, np.asarray(known & there & ~long & ~loops.held)


def runs(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> np.ndarray:
    """Whether the engine can run each layer, boolean (..., layers)."""
    modes, counters, buffers = refused(layers, acc, port)
    return np.asarray(~(modes | counters | buffers))


def traffic(
    layers: Layers, acc: Accelerator | Accelerators, port: Port
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of weights and of maps over the memory port, (..., layers).

    Each tile reads its task and all weights, with the filters' parameters; a residual is added from
    the buffer.
    """
    one, acc = layers_first(layers), lanes_first(acc)
    found = beats_moved(one, turns(one, acc, port), acc, port)
    weights, maps = (np.moveaxis(part, 0, -1).astype(np.int64) for part in found)
    return weights * port.bytes * layers.repeat, maps * port.bytes * layers.repeat
