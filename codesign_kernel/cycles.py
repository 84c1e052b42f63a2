"""Closed form of the engine's clock cycles: where they go, layer by layer, one formula a function.

`modelled`: what the units of `rtl/` do, without stepping through it. Layer follows layer, since
what the loader of weights and the writer are behind or ahead goes over from one to the next; within
a layer all is closed (`waits.py`). Fields of `Layers` are (..., layers) in the order in which they
run; those of the accelerator broadcast against them. How far off this is of the simulated engine:
see the tests, and data/layer_cycles.csv.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators
from .loops import (
    BURST,
    PARAM_BYTES,
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
from .units import COMMAND, GROUP, SETTLE, Ahead, Plan, ahead, plan, reach
from .waits import QUEUE, Loads, Tail, first_rows, main_part, stalls, task_beats
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


class Loader(NamedTuple):
    """What the loader of weights may come to, in cycles of loading from a layer's first weight on,
    (layers, ...)."""

    own: np.ndarray  # all of the layer
    one: np.ndarray  # its first group,
    two: np.ndarray  # and a group beyond: until then it is in haste
    following: np.ndarray  # the next layer's first group
    far: np.ndarray  # where it has to wait before the layer runs,
    end: np.ndarray  # and in the layer's last group
    least: np.ndarray  # there before the last group begins, in any case
    burst: float  # a full command
    pace: float  # the part of the port that it takes without haste
    calm: np.ndarray  # cycles that a write waits for it without haste,
    hasty: np.ndarray  # and with


def loader(need: Plan, sums: Ahead, port: Port) -> Loader:
    """Work out where the loader of weights is in haste, and where it has to wait.

    It is in haste until there is a group beyond the one in use, and again in a layer's last group
    until the next layer's first is there; else it gives way to maps, and asks for two commands when
    none is under way.
    """
    twice = 2 * port.burst
    pause = max(0, IDEAL.latency + port.extra_latency + BURST + 3 - twice)
    pace, own = twice / (twice + pause), need.runs * need.load
    end, after = reach(need, sums)
    far = np.concatenate([sums.load[:1], (after - own)[:-1]])
    following = np.concatenate([need.load[1:], 0 * need.load[:1]])
    two = need.load + np.where(need.runs > 1, need.load, following)
    return Loader(
        own, np.minimum(need.load, sums.load), np.minimum(two, sums.load), following,
        np.minimum(far, sums.load), end,
        np.minimum(own + (need.runs > 1) * pace * np.maximum(0, need.group - need.moved), end),
        port.burst, pace,
        np.maximum(0, sums.turn + pause - COMMAND), (QUEUE + 1) * sums.burst - COMMAND,
    )  # fmt: skip


def leads(able: Loader, gain: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the loader of weights is ahead, (layers, ...) cycles of loading from a layer's first
    weight on: when the layer before has taken its last step, and, `gain` later, when the layer
    takes its first one; `more` is loaded from then to its last step."""
    lead, running = np.empty_like(able.own), np.empty_like(able.own)
    now = 0 * able.own[0]
    for i in range(len(lead)):
        lead[i] = now
        then = np.maximum(np.minimum(now + gain[i], able.far[i]), able.one[i])
        running[i] = then
        then = np.minimum(then + more[i], np.maximum(able.end[i], then))
        now = np.maximum(np.maximum(then, able.least[i]) - able.own[i], 0)
    return lead, running


def meanwhile(need: Plan, able: Loader, burst: np.ndarray, rest: np.ndarray, running: np.ndarray,
              more: np.ndarray) -> Loads:  # fmt: skip
    """Work out what is loaded while a layer runs, from `rest` of its map and from how far the
    loader of weights is when it begins."""
    can = np.maximum(0, able.end - running)
    # While it is in haste, groups are used up, so that it stays so for longer.
    share = np.maximum(0.1, 1 - need.load / np.maximum(need.group, need.written))
    eager = np.minimum(np.maximum(0, able.two - running) / share, can)
    # What is still to come for the next layer's first group when the last one begins.
    late = able.own + able.following - running - more * (1 - 1 / np.maximum(need.runs, 1))
    late = np.where(need.runs > 1, np.clip(late, 0, can - eager), 0)
    own = np.maximum(0, able.own - running)
    tiles = (need.tiles - 1) * need.whole
    return Loads(rest, tiles, eager, late, can - eager, own, burst, able.calm)


def between(need: Plan, able: Loader, tail: Tail, lead: np.ndarray,
            latency: float) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Cycles that a layer waits for weights, and for rows, before its first step: the last maps of
    the layer before, `tail`, are to be written, and its first rows to be read."""
    left = np.maximum(0, able.far - lead)
    eager = np.minimum(np.maximum(0, able.two - lead), left)
    hasty = eager > 0
    loads = np.maximum(0, np.where(hasty, eager, left) - tail.settle)
    done = tail.written(np.where(hasty, able.hasty, able.calm), loads, able.calm)
    # Commands are under way when the loader learns that it need not hurry.
    still = np.minimum(eager + QUEUE * able.burst, left) - done
    still = np.where(hasty, np.maximum(0, still), 0)
    slower = np.minimum((QUEUE + need.first_commands) * able.burst, still) - need.first_idle
    slower = np.where(still > 0, np.maximum(0, slower),
                      np.minimum(able.burst, np.maximum(0, left - done)))  # fmt: skip
    rows = done + HAND_OVER + need.lanes + latency + need.first + slower
    lack = np.maximum(0, need.load - lead)
    lack = lack + (lack > 0) * (2 + np.minimum(tail.commands * BURST, lack))
    for_weights = np.maximum(0, lack - need.begin)
    return for_weights, np.maximum(0, rows - need.begin - 1 - for_weights)


def present(need: Plan, port: Port) -> np.ndarray:
    """Cycles by cause, and bytes moved, (6, layers, ...), of layers without gaps between them.

    Before a layer runs, the engine waits for the last maps to be written and the first rows to be
    read, and for weights that were not loaded while the layers before were running. How far their
    loader is ahead depends on how long the layers take, and they on that: so first they run as if
    it delayed no one.
    """
    sums, there = ahead(need, port), need.there
    able = loader(need, sums, port)
    waits = [stalls(need, need.commands / need.chunks * wait) for wait in (0.0, able.calm)]
    tasks = (there * need.tiles).sum(axis=0)
    # With no other task to be read, two commands more are under way when it learns of two groups.
    eager = able.two[0] + np.where(tasks > 1, 0, 2 * sums.burst[0])
    eager = np.minimum(eager, sums.load[0])
    start = first_rows(Plan(*(part[0] for part in need)), eager, tasks, sums.burst[0], port)
    rest = np.maximum(0, need.whole - need.first)
    written = need.runs * need.moved * (1 - 1 / np.maximum(need.runs * need.chunks, 1))
    # What the loader of weights has before the first step, but for the map's rows, and after it.
    before = need.begin + need.settle
    free = np.maximum(need.runs * need.group + waits[1][0], need.runs * need.written) - rest
    written_first = need.last_commands * BURST
    tasks = 0 * start.tasks
    for _ in range(ROUNDS):
        gain = able.pace * (before - written_first) - TASK_BYTES / port.bytes
        gain[0] = np.minimum(able.two[0] + 2 * sums.burst[0], start.busy - need.first[0])
        free[0] = free[0] - start.tasks + tasks
        more = np.maximum(0, able.pace * (free - written))
        lead, running = leads(able, np.maximum(0, gain), more)
        rest[0] = need.whole[0] - np.maximum(need.first[0], start.busy - running[0])
        rest[0] = np.maximum(0, rest[0])
        eager = np.clip(able.two[0] - running[0], 0, rest[0])
        tasks = np.floor((rest[0] + eager) / (90 + port.extra_latency)) * task_beats(port)
        tasks = np.minimum(start.tasks, tasks)  # they are read beside the map
        rest[0] = rest[0] + tasks
        part = main_part(need, meanwhile(need, able, sums.burst, rest, running, more), waits)
        tail = Tail(*(np.concatenate([np.zeros_like(side[:1]), side[:-1]]) for side in part.tail))
        for_weights, for_rows = between(need, able, tail, lead, port.extra_latency)
        before = need.begin + 1 + for_rows - need.first + need.first_idle
        free = part.total - part.weights - rest
        written_first = tail.commands * BURST
    for_weights[0], for_rows[0] = start.weights, start.rows
    control = need.tiles * (need.begin + TASK - SETTLE - 5) + GROUP * need.runs
    control[0] += 12 + TASK_BYTES / port.bytes + port.extra_latency
    compute = need.runs * need.compute
    output = part.total - part.input - part.weights - compute - GROUP * (need.runs - 1)
    ends = np.maximum(part.tail.quiet(0.0, 0.0), part.tail.behind) - need.settle
    output = np.maximum(0, output) + (sums.load <= able.own) * ends
    found = np.stack([control, compute, for_rows + part.input, for_weights + part.weights, output,
                      need.bytes])  # fmt: skip
    return np.where(there, found, 0)


def _rows(many: Any, at: slice) -> Any:
    """Return some designs of many."""
    sides = ((field.name, getattr(many, field.name)) for field in fields(many))
    cut = {name: side[at] for name, side in sides if np.ndim(side) == 2 and len(side) > 1}
    return replace(many, **cut)
