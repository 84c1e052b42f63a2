"""Closed form of the engine's clock cycles: where they go, layer by layer, one formula a function.

`modelled`: what the units of `rtl/` do, without stepping through it. Layer follows layer, since
what the loader of weights and the writer are behind or ahead goes over from one to the next; within
a layer all is closed (`waits.py`). Fields of `Layers` are (..., layers) in the order in which they
run; those of the accelerator broadcast against them. How far off this is of the simulated engine:
see the tests, and data/layer_cycles.csv.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

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
from .units import COMMAND, GROUP, SETTLE, Plan, ahead, plan, reach
from .waits import QUEUE, Tail, first_rows, main_part, stalls
from .workload import Layers

__all__ = ["BURST", "PARAM_BYTES", "Cycles", "Lanes", "Port", "Work", "cycles", "runs", "traffic",
           "work"]  # fmt: skip

ROUNDS = 2  # in which how far the loader is ahead, and how long layers take, come to agree
BLOCK = 1024  # designs at a time: their arrays stay in the processor's cache
TASK = 12  # of a task, but for its lanes, latency and drain
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
    weights is in haste until there is a group beyond the one in use, and again in a layer's last
    group until the next layer's first is there; else it gives way to maps, and asks for two
    commands when none is under way.

    How far it is ahead depends on how long the layers take, and they on that: so first they run as
    if it delayed no one.
    """
    sums, whole, there = ahead(need, port), port.burst, need.there
    pause = max(0, IDEAL.latency + port.extra_latency + BURST + 3 - 2 * whole)
    calm, pace = np.maximum(0, sums.turn + pause - COMMAND), 2 * whole / (2 * whole + pause)
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
        gain = np.minimum(before * pace, before - written_first) - TASK_BYTES / port.bytes
        gain[0] = np.minimum(two[0] + 2 * sums.burst[0], begin_first - need.first[0])
        gain = np.maximum(0, gain)
        free[0] = free[0] - start[2]
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
        late = cost + following - running - more * (1 - 1 / np.maximum(need.runs, 1))
        late = np.where(need.runs > 1, np.clip(late, 0, can - eager), 0)
        part = main_part(need, rest, eager, late, can - eager, np.maximum(0, cost - running),
                         sums.burst, waits, calm)  # fmt: skip
        # Before the first step.
        tail = Tail(*(np.concatenate([np.zeros_like(side[:1]), side[:-1]]) for side in part.tail))
        left = np.maximum(0, most - lead)
        eager = np.minimum(np.maximum(0, two - lead), left)
        wait = np.where(eager > 0, hasty, calm)
        loads = np.maximum(0, np.where(eager > 0, eager, left) - tail.settle)
        done = tail.written(wait, loads, calm)
        # Commands are under way when the loader learns that it need not hurry.
        still = np.minimum(eager + QUEUE * whole, left) - done
        still = np.where(eager > 0, np.maximum(0, still), 0)
        slower = np.where(still > 0, np.minimum((QUEUE + need.first_commands) * whole, still),
                          np.minimum(whole, np.maximum(0, left - done)))  # fmt: skip
        rows = done + HAND_OVER + need.lanes + port.extra_latency + need.first + slower
        written_first = tail.commands * BURST
        lack = np.maximum(0, need.load - lead)
        lack = lack + (lack > 0) * (2 + np.minimum(written_first, lack))
        for_weights = np.maximum(0, lack - need.begin)
        for_rows = np.maximum(0, rows - need.begin - 1 - for_weights)
        before, free = need.begin + 1 + for_rows - need.first, part.total - part.weights - rest
    for_weights[0], for_rows[0] = start[:2]
    control = need.tiles * (need.begin + TASK - SETTLE - 5) + GROUP * need.runs
    control[0] += 12 + TASK_BYTES / port.bytes + port.extra_latency
    compute = need.runs * need.compute
    output = part.total - part.input - part.weights - compute - GROUP * (need.runs - 1)
    ends = np.maximum(part.tail.quiet(0.0, 0.0), part.tail.behind) - need.settle
    output = np.maximum(0, output) + (sums.load <= cost) * ends
    found = np.stack([control, compute, for_rows + part.input, for_weights + part.weights, output,
                      need.bytes])  # fmt: skip
    return np.where(there, found, 0)


def _rows(many: Any, at: slice) -> Any:
    """Return some designs of many."""
    sides = ((field.name, getattr(many, field.name)) for field in fields(many))
    cut = {name: side[at] for name, side in sides if np.ndim(side) == 2 and len(side) > 1}
    return replace(many, **cut)
