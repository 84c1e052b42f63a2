"""Closed form of the engine's clock cycles: where they go, layer by layer, one formula a function.

`modelled`: what the units of `rtl/` do, without stepping through it. Layer follows layer, since
what the loader of weights and the writer are behind or ahead goes over from one to the next; within
a layer all is closed. Fields of `Layers` are (..., layers) in the order in which they run; those of
the accelerator broadcast against them. How far off this is of the simulated engine: see the tests,
and data/layer_cycles.csv.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators
from .loops import (
    BURST,
    PARAM_BYTES,
    REAL,
    TASK_BYTES,
    Lanes,
    Port,
    Work,
    lanes_first,
    layers_first,
    runs,
    traffic,
    work,
)
from .simulate import IDEAL
from .units import COMMAND, GROUP, SETTLE, TASKS, Plan, ahead, plan, reach
from .workload import Layers

__all__ = ["BURST", "PARAM_BYTES", "Cycles", "Lanes", "Port", "Work", "cycles", "runs", "traffic",
           "work"]  # fmt: skip

ROUNDS = 2  # in which how far the loader is ahead, and how long layers take, come to agree
BLOCK = 1024  # designs at a time: their arrays stay in the processor's cache
QUEUE = 4  # commands that the memory takes ahead
TASK = 12  # of a task, but for its lanes, latency and drain
FREED = 3  # from a chunk written to the first step of the next that has its place
HAND_OVER = 16  # from the last write of a layer to the first pixel of the next, without the beats


@dataclass(frozen=True)
class Cycles:
    """Where the cycles of layers go, float64 (..., layers): the multipliers work (`compute`), or
    wait for `input` maps, `weights`, or for `output` to be taken, or for `control`. And `moved`:
    bytes over the memory port."""

    control: np.ndarray
    compute: np.ndarray
    input: np.ndarray
    weights: np.ndarray
    output: np.ndarray
    moved: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """All cycles, (..., layers)."""
        return np.asarray(self.control + self.compute + self.input + self.weights + self.output)


def stalls(one: Plan, wait: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Cycles that the multipliers wait in each group, and from group to group, for the output
    buffer: it holds two chunks, so that the one after next begins when a chunk is written.

    From that chunk to this one pass at least its steps, its settling, its writing and FREED, where
    the multipliers need only the steps of two chunks. `wait`: of the writer for the port, in a
    chunk. A group's last chunk may be short: then that of the group before is sooner in its way, or
    the next group's first waits for the chunk before the short one.
    """
    steps = np.minimum(BURST, one.pixels) * one.pixel
    write = one.full + wait
    hop = np.maximum(steps + write + one.settle + FREED, 2 * write)
    inner = np.floor((one.chunks - 1) / 2) * np.maximum(0, hop - 2 * steps)
    odd = one.group + one.written + one.chunks * (wait + one.settle + FREED)
    half = one.chunks / 2
    short = np.where(one.chunks > 1, one.group - one.end * one.pixel + hop - steps - GROUP, 0)
    pair = np.maximum(np.where(half == np.floor(half), half * hop, odd / 2), short)
    pair = pair - one.group - inner
    times = np.where(one.chunks == 1, 2 * np.floor((one.runs - 1) / 2), one.runs - 1)
    return one.runs * inner, times * np.maximum(0, pair)


class Tail(NamedTuple):
    """The last writes of a layer, from its last step on."""

    settle: np.ndarray  # until the last chunk is there
    before: np.ndarray  # to write the chunk before it,
    before_commands: np.ndarray
    apart: np.ndarray  # which came so much earlier
    last: np.ndarray
    commands: np.ndarray
    behind: np.ndarray  # until all is written, if the writer has long been behind

    def quiet(self, wait: np.ndarray | float) -> np.ndarray:
        """Cycles until all is written, where each command waits so long for the port."""
        rest = self.before + self.before_commands * wait - self.apart
        return np.asarray(self.settle + np.maximum(0, rest) + self.last + self.commands * wait)

    def written(self, wait: np.ndarray, most: np.ndarray) -> np.ndarray:
        """The same, but they wait for no more than there is to load."""
        quiet = self.quiet(0.0)
        delayed = quiet + np.minimum(self.quiet(wait) - quiet, most)
        return np.asarray(np.maximum(delayed, self.behind))


def first_rows(one: Plan, two: np.ndarray, tasks: np.ndarray, burst: np.ndarray,
               port: Port) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Cycles of the first layer until its weights are there, and from then until its rows are.

    Both come from the start, in turns, burst by burst: the weights' first two before the map's. In
    between, one task after another is read. When two filter groups are there, the map goes first.
    """
    task = TASK_BYTES / port.bytes + port.gap
    turns = np.ceil(one.load / port.burst)
    weights = (
        9 + one.load + np.minimum(one.whole, np.maximum(0, turns - 2) * (one.burst + port.gap))
    )
    weights = weights + task * np.minimum(np.floor(weights / (100 + port.extra_latency)), TASKS - 1)
    count = one.first_commands
    rows = 4 + port.extra_latency + one.first + np.minimum(two, (count + 1) * burst)
    rows = rows + 6 * np.minimum(count, 4) * (count >= 2)
    read = np.minimum(np.floor(rows / (90 + port.extra_latency)), TASKS - 1)
    rows = rows + task * np.minimum(read, tasks - 1)
    return weights + port.extra_latency, np.maximum(0, rows - weights - port.extra_latency)


class Main(NamedTuple):
    """A layer from its first step to its last: cycles in all, and those of waiting."""

    total: np.ndarray
    input: np.ndarray
    weights: np.ndarray
    tail: Tail


def main_part(one: Plan, rest: np.ndarray, eager: np.ndarray, lazy: np.ndarray, load: np.ndarray,
              burst: np.ndarray, held: list[tuple[np.ndarray, np.ndarray]],
              waits: tuple[np.ndarray, float]) -> Main:  # fmt: skip
    """Cycles from the first step of a layer to its last: what the slowest unit takes.

    The multipliers are held up by the output buffer (`stalls`). The writer, if it is slower, starts
    with the first chunk and is two chunks behind the multipliers at the end. The map's `rest` may
    come so late that they have only a row of the first group left when it is there. `load` is what
    is left to load of this layer's own weights.

    While the map's rest and `eager` cycles of weights are loaded, the memory has QUEUE commands to
    go on with, and a write waits behind those and the one at the port; while weights are loaded
    without haste, `lazy` cycles, it waits behind two, in the mean. What is loaded before the first
    chunk is there delays no write.
    """
    hasty, calm = waits
    runs, count = one.runs, np.maximum(one.runs * one.chunks, 1)
    moved = np.minimum(rest / QUEUE, one.moved * (1 - 1 / one.chunks))
    maps = rest + moved + np.minimum(eager, rest)
    short = one.end * one.pixel
    lag = np.maximum(np.minimum(BURST, one.pixels) * one.pixel,
                     np.minimum(1, BURST / one.pixels) * maps) + one.settle  # fmt: skip
    queued = np.maximum(0, rest + eager - lag)
    lazy = np.maximum(0, lazy - np.maximum(0, lag - eager - rest))
    commands = np.maximum(runs * one.commands, 1e-9)
    hurried = np.minimum(1, queued / ((QUEUE + 1) * burst * commands))
    idly = np.minimum(1 - hurried, lazy / ((calm + COMMAND) * commands))
    delay = commands * (hurried * hasty + idly * calm)
    quiet, slow, slower = held
    inner, pairs = ((1 - hurried - idly) * a + idly * b + hurried * c
                    for a, b, c in zip(quiet, slow, slower, strict=True))  # fmt: skip
    base = runs * one.group - GROUP
    own = base + inner + pairs
    writer = lag + FREED + runs * one.written - one.before - one.last + short
    writer = np.where(count >= 3, writer + delay * (1 - 2 / count), 0)
    row = one.group / one.rows
    later = [(1 - idly) * a + idly * b for a, b in zip(quiet, slow, strict=True)]
    mapped = maps + row - GROUP + (runs - 1) * one.group
    mapped = mapped + later[0] * (1 - 1 / np.maximum(runs, 1)) + later[1]
    total = np.maximum(own, np.maximum(writer, mapped))
    limited = (writer >= total) & (count > 2)
    input_ = np.minimum(total - own, np.maximum(0, maps + row - one.group))
    # Weights: the last group's may come late, and where only one has room, all others' do.
    late = load + np.maximum(0, runs - 2) * one.moved + rest + one.group - GROUP
    late = np.where(2 * one.words <= one.ring, late,
                    runs * one.group + (runs - 1) * (one.load + COMMAND))  # fmt: skip
    weights = np.where(runs > 1, np.maximum(0, late - total), 0)
    # Rows: while some are to come, the multipliers look for the next one at each row's end; and
    # the next tile's may not be there in time.
    ends = np.ceil(rest * (1 + 1 / QUEUE) / np.maximum(np.maximum(row, 1), one.whole / one.rows))
    more = np.where(input_ > 0, 0, np.minimum(one.rows - 1, ends))
    more = more + (one.tiles - 1) * np.maximum(0, one.whole - one.groups * one.group)
    total = total + weights + more
    apart = np.where(one.chunks > 1, short, one.group) + limited * (one.settle + FREED)
    paired = (one.chunks == 1) & (count / 2 > np.floor(count / 2)) & (pairs > 0) & ~limited
    tail = Tail(
        one.settle, np.where(count > 1, one.before, 0), one.before_commands,
        np.where(paired, np.inf, apart), one.last + 1, one.last_commands,
        lag + runs * one.written + delay - total,
    )  # fmt: skip
    return Main(total, input_ + more, weights, tail)


def cycles(layers: Layers, acc: Accelerator | Accelerators, port: Port) -> Cycles:
    """Cycles of each layer by cause; absent layers cost none."""
    shape = np.broadcast_shapes(np.shape(layers.filters), np.shape(acc.pf))
    if len(shape) == 2 and shape[0] > BLOCK:
        blocks = [slice(at, at + BLOCK) for at in range(0, shape[0], BLOCK)]
        parts = [cycles(_rows(layers, at), _rows(acc, at), port) for at in blocks]
        return Cycles(*(np.concatenate([getattr(part, field.name) for part in parts])
                        for field in fields(Cycles)))  # fmt: skip
    one = layers_first(layers)
    there = one.filters > 0
    count = np.cumsum(there, axis=0)
    place = np.where(there, count - 1, count[-1] + np.cumsum(~there, axis=0) - 1)
    order = np.empty_like(place)
    numbers = np.arange(len(place)).reshape(-1, *[1] * (place.ndim - 1))
    np.put_along_axis(order, place, np.broadcast_to(numbers, place.shape), axis=0)
    index = _flat(order, order.shape[1:])
    sides = [getattr(one, field.name) for field in fields(Layers)[1:-1]]
    taken = (side if side is None else np.take(side, index) for side in sides)
    one = Layers(one.names, *taken)  # type: ignore[arg-type]
    found = present(plan(one, lanes_first(acc), port), port)
    index = _flat(place, found.shape[2:])
    found = np.take(found.reshape(len(found), -1), index, axis=1)
    return Cycles(*(np.moveaxis(part, 0, -1) * layers.repeat for part in found.astype(np.float64)))


def _flat(order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return indices of flattened arrays (layers, *shape) that put the layers into an order."""
    size = int(np.prod(shape))
    return np.asarray(order * size + np.arange(size).reshape(shape))


def present(need: Plan, port: Port) -> np.ndarray:
    """Cycles by cause, and bytes moved, (6, layers, ...), of layers without gaps between them.

    Before a layer runs, the engine waits for the last maps to be written and the first rows to be
    read, and for weights that were not loaded while the layers before were running. The loader of
    weights is in haste until there is a group beyond the one in use; then it gives way to maps, and
    asks for two commands when none is under way.

    How far it is ahead depends on how long the layers take, and they on that: so first they run as
    if it delayed no one.
    """
    sums, whole, there = ahead(need, port), port.burst, need.there
    pause = max(0, IDEAL.latency + port.extra_latency + BURST + 3 - 2 * whole)
    calm, pace = 2 * whole + pause - COMMAND, 2 * whole / (2 * whole + pause)
    hasty = (QUEUE + 1) * sums.burst - COMMAND
    cost = need.runs * need.load
    end, after = reach(need, sums)
    far = np.concatenate([sums.load[:1], (after - cost)[:-1]])
    following = np.concatenate([need.load[1:], 0 * need.load[:1]])
    two = np.minimum(need.load + np.where(need.runs > 1, need.load, following), sums.load)
    share = np.maximum(0.1, 1 - need.load / np.maximum(need.group, need.written))
    written = need.runs * need.moved * (1 - 1 / np.maximum(need.runs * need.chunks, 1))
    # All of a layer is there before its last group begins.
    least = np.minimum(cost + np.maximum(0, pace * need.group - need.moved), end)
    most, one_group = np.minimum(far, sums.load), np.minimum(need.load, sums.load)
    waits = [stalls(need, need.commands / need.chunks * wait) for wait in (0.0, calm, hasty)]
    start = first_rows(Plan(*(part[0] for part in need)), two[0], (there * need.tiles).sum(axis=0),
                       sums.burst[0], port)  # fmt: skip
    begin_first = start[0] + start[1]
    rest = np.maximum(0, need.whole - need.first)
    # What the loader has before the first step, but for the map's rows, and after it.
    before = need.begin + need.settle
    free = np.maximum(need.runs * need.group + waits[1][0], need.runs * need.written) - rest
    written_first = need.last_commands * BURST
    for _ in range(ROUNDS):
        # How far the loader of weights is ahead when a layer begins, and when it runs.
        gain = np.minimum(before * pace, before - written_first)
        gain[0] = np.minimum(two[0] + 2 * sums.burst[0], begin_first - need.first[0])
        gain = np.maximum(0, gain)
        more = np.maximum(0, np.minimum(pace * free, free - written))
        lead, running = np.empty(there.shape, REAL), np.empty(there.shape, REAL)
        now = 0 * begin_first
        for i in range(len(there)):
            lead[i] = now
            then = np.maximum(np.minimum(now + gain[i], most[i]), one_group[i])
            running[i] = then
            then = np.maximum(np.minimum(then + more[i], np.maximum(end[i], then)), least[i])
            now = np.maximum(then - cost[i], 0)
        rest[0] = need.whole[0] - np.maximum(need.first[0], begin_first - running[0] - 24)
        rest[0] = np.maximum(0, rest[0])
        # From the first step to the last.
        can = np.maximum(0, end - running)
        eager = np.minimum(np.maximum(0, two - running) / share, can)
        part = main_part(need, rest, eager, can - eager, np.maximum(0, cost - running), sums.burst,
                         waits, (hasty, calm))  # fmt: skip
        # Before the first step.
        tail = Tail(*(np.concatenate([np.zeros_like(side[:1]), side[:-1]]) for side in part.tail))
        left = np.maximum(0, most - lead)
        eager = np.minimum(np.maximum(0, two - lead), left)
        wait = np.where(eager > 0, hasty, calm)
        done = tail.written(wait, np.where(eager > 0, eager, left))
        still = np.maximum(0, eager - done)
        slower = np.where(still > 0, np.minimum((QUEUE + need.first_commands) * whole, still),
                          np.minimum(whole, np.maximum(0, left - done)))  # fmt: skip
        rows = done + HAND_OVER + need.lanes + port.extra_latency + need.first + slower
        written_first = tail.commands * BURST
        lack = np.maximum(0, need.load - lead)
        lack = lack + (lack > 0) * (2 + np.minimum(written_first, lack))
        for_weights = np.maximum(0, lack - need.begin)
        for_rows = np.maximum(0, rows - need.begin - 1 - for_weights)
        before, free = need.begin + 1 + for_rows - need.first, part.total - part.weights - rest
    for_weights[0], for_rows[0] = start
    control = need.tiles * (need.begin + TASK - SETTLE - 5) + GROUP * need.runs
    control[0] += 12 + TASK_BYTES / port.bytes + port.extra_latency
    compute = need.runs * need.compute
    output = part.total - part.input - part.weights - compute - GROUP * (need.runs - 1)
    ends = np.maximum(part.tail.quiet(0.0), part.tail.behind) - need.settle
    output = np.maximum(0, output) + (sums.load <= cost) * ends
    found = np.stack([control, compute, for_rows + part.input, for_weights + part.weights, output,
                      need.bytes])  # fmt: skip
    return np.where(there, found, 0)


def _rows(many: Any, at: slice) -> Any:
    """Return some designs of many."""
    sides = ((field.name, getattr(many, field.name)) for field in fields(many))
    cut = {name: side[at] for name, side in sides if np.ndim(side) == 2 and len(side) > 1}
    return replace(many, **cut)
