"""Within one layer on the engine: how its units wait for each other, in cycles.

What each unit has to do is in `units.py`; how layers follow each other is in `cycles.py`. The
arrays are laid out as in `loops.py`.
"""

from typing import NamedTuple

import numpy as np

from .loops import BURST, TASK_BYTES, Port
from .units import COMMAND, GROUP, TASKS, Plan

QUEUE = 4  # commands that the memory takes ahead
BETWEEN = 2  # states of the writer between chunks


def stalls(one: Plan, wait: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Cycles that the multipliers wait in each group, and from group to group, for the output
    buffer: it holds two chunks, so that the one after next begins when a chunk is written.

    From that chunk to this one pass at least its steps, its settling and its writing, where the
    multipliers need only the steps of two chunks. `wait`: of the writer for the port, in a chunk;
    that hides what it does between chunks if it never rests. A group's last chunk may be short:
    then that of the group before is sooner in its way, or the next group's first waits for the
    chunk before the short one.
    """
    steps = np.minimum(BURST, one.pixels) * one.pixel
    write = one.full + wait
    hop = np.maximum(steps + write + one.settle, 2 * (write - np.minimum(BETWEEN, wait)))
    inner = np.floor((one.chunks - 1) / 2) * np.maximum(0, hop - 2 * steps)
    odd = one.group - GROUP + one.written - 1 + one.chunks * (wait + one.settle)
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

    def quiet(self, wait: np.ndarray | float, calm: np.ndarray | float) -> np.ndarray:
        """Cycles until all is written, where each command waits so long for the port: before the
        last chunk no more than `calm`."""
        before = np.maximum(0, self.before_commands * np.minimum(wait, calm) - BETWEEN)
        last = np.maximum(0, self.commands * wait - BETWEEN)
        rest = np.maximum(0, self.before + before - self.apart)
        return np.asarray(self.settle + rest + self.last + last)

    def written(self, wait: np.ndarray, most: np.ndarray, calm: np.ndarray) -> np.ndarray:
        """The same, but they wait for no more than there is to load."""
        quiet = self.quiet(0.0, 0.0)
        delayed = quiet + np.minimum(self.quiet(wait, calm) - quiet, most)
        return np.asarray(np.maximum(delayed, self.behind))


def first_rows(one: Plan, two: np.ndarray, tasks: np.ndarray, burst: np.ndarray,
               port: Port) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Cycles of the first layer until its weights are there, from then until its rows are, and of
    reading tasks after that.

    Both come from the start, in turns, burst by burst: the weights' first two before the map's, and
    two more while that is asked for, if the group has as many. In between, one task after another
    is read. When two filter groups are there, the map goes first.
    """
    task = TASK_BYTES / port.bytes + port.gap
    turns = np.ceil(one.load / port.burst)
    weights = (
        9 + one.load + np.minimum(one.whole, np.maximum(0, turns - 2) * (one.burst + port.gap))
    )
    weights = weights + task * np.minimum(np.floor(weights / (100 + port.extra_latency)), TASKS - 1)
    count = one.first_commands
    others = np.minimum(two, (count + np.clip(turns - 2, 0, 2)) * burst)
    rows = 4 + port.extra_latency + one.first + others
    rows = rows + 6 * np.minimum(count, 4) * (count >= 2)
    tasks = tasks - 1
    read = np.minimum(np.minimum(np.floor(rows / (90 + port.extra_latency)), TASKS - 1), tasks)
    rows = np.maximum(0, rows + task * read - weights - port.extra_latency)
    return weights + port.extra_latency, rows, task * (np.minimum(TASKS - 1, tasks) - read)


class Loads(NamedTuple):
    """What the port brings while a layer runs, in cycles of the port, (layers, ...)."""

    rest: np.ndarray  # of the map of the layer's first tile,
    tiles: np.ndarray  # and of the others
    eager: np.ndarray  # of weights in haste, from the first step on,
    late: np.ndarray  # and once more in the last group
    lazy: np.ndarray  # of weights without haste
    own: np.ndarray  # of this layer's own weights
    burst: np.ndarray  # in a command of weights, in the mean
    calm: np.ndarray  # that a write waits for while weights are loaded without haste

    def map(self, one: Plan) -> np.ndarray:
        """Cycles until the rest of the map is there: writes and weights in haste take turns with
        it."""
        moved = np.minimum(self.rest / QUEUE, one.moved * (1 - 1 / one.chunks))
        return np.asarray(self.rest + moved + np.minimum(self.eager, self.rest))


class Delays(NamedTuple):
    """Which part of a layer's writes waits for loads in haste, which for others, and how long."""

    hurried: np.ndarray
    idly: np.ndarray
    hasty: np.ndarray
    calm: np.ndarray

    def of(self, commands: np.ndarray, most: np.ndarray | float = 1.0) -> np.ndarray:
        """Cycles of so many commands, where those in haste come first and `most` of all wait."""
        first = np.minimum(self.hurried, most)
        idly = np.minimum(self.idly, most - first)
        return np.asarray(commands * (first * self.hasty + idly * self.calm))


def delays(one: Plan, loads: Loads, lag: np.ndarray, commands: np.ndarray) -> Delays:
    """Work out how the writes of a layer wait for its loads.

    While the map's rest and weights in haste are loaded, the memory has QUEUE commands to go on
    with, and a write waits behind those and the one at the port: maps and weights in the mean. What
    is loaded before the first chunk is there, in `lag` cycles, delays no write. The states of the
    writer between chunks hide a part of the delay.
    """
    maps = loads.rest + loads.tiles
    queued = np.maximum(0, maps + loads.eager - lag)
    lazy = np.maximum(0, loads.lazy - np.maximum(0, lag - loads.eager - loads.rest))
    haste = loads.eager + loads.late
    burst = maps * one.burst + haste * loads.burst
    burst = burst / np.maximum(maps + haste, 1e-9)
    passed = (QUEUE + 1) * np.maximum(1, burst)
    hidden = BETWEEN * one.chunks * one.runs / commands
    hasty, calm = np.maximum(0, passed - COMMAND - hidden), loads.calm - hidden
    again = np.minimum(loads.late / (passed * commands), 1 / np.maximum(one.runs, 1))
    hurried = np.minimum(1, queued / (passed * commands) + again)
    idly = np.minimum(1 - hurried, lazy / ((calm + COMMAND) * commands))
    return Delays(hurried, idly, hasty, calm)


def weights_wait(one: Plan, loads: Loads, total: np.ndarray) -> np.ndarray:
    """Cycles of waiting for weights in a layer of `total` cycles without: the last group's may come
    late, and where only one has room, all others' do."""
    there = loads.own + np.maximum(0, one.runs - 2) * one.moved + loads.rest + one.group - GROUP
    alone = one.runs * one.group + (one.runs - 1) * (one.load + COMMAND)
    there = np.where(2 * one.words <= one.ring, there, alone)
    return np.where(one.runs > 1, np.maximum(0, there - total), 0)


def rows_wait(one: Plan, loads: Loads, total: np.ndarray, waited: np.ndarray) -> np.ndarray:
    """Cycles of waiting for rows, beside those `waited` for the map: while some are to come, the
    multipliers look for the next one at each row's end; and the next tile's may not be there in
    time."""
    row = np.maximum(np.maximum(one.group / one.rows, 1), one.whole / one.rows)
    ends = np.ceil(loads.rest * (1 + 1 / QUEUE) / row)
    more = np.maximum(0, np.minimum(one.rows - 1, ends) - waited)
    return np.asarray(more + (one.tiles - 1) * np.maximum(0, one.whole - total / one.tiles))


class Main(NamedTuple):
    """A layer from its first step to its last: cycles in all, and those of waiting."""

    total: np.ndarray
    input: np.ndarray
    weights: np.ndarray
    tail: Tail


def main_part(one: Plan, loads: Loads, held: list[tuple[np.ndarray, np.ndarray]]) -> Main:
    """Cycles from the first step of a layer to its last: what the slowest unit takes.

    The multipliers are held up by the output buffer, as `held` (`stalls`) without delays, with calm
    ones and with hasty ones. The writer, if it is slower, starts with the first chunk and is two
    chunks behind the multipliers at the end; the first writes are those that wait. The map's rest
    may come so late that the multipliers have only a row of the first group left when it is there.
    """
    runs, count = one.runs, np.maximum(one.runs * one.chunks, 1)
    commands = np.maximum(runs * one.commands, 1e-9)
    maps, short = loads.map(one), one.end * one.pixel
    lag = np.maximum(np.minimum(BURST, one.pixels) * one.pixel,
                     np.minimum(1, BURST / one.pixels) * maps) + one.settle  # fmt: skip
    wait = delays(one, loads, lag, commands)
    quiet, slow, slower = held
    inner, pairs = ((1 - wait.hurried - wait.idly) * a + wait.idly * b + wait.hurried * c
                    for a, b, c in zip(quiet, slow, slower, strict=True))  # fmt: skip
    own = runs * one.group - GROUP + inner + pairs
    writer = lag + runs * one.written - one.before - one.last + short
    writer = np.where(count >= 3, writer + wait.of(commands, 1 - 2 / count), 0)
    row = one.group / one.rows
    later = [(1 - wait.idly) * a + wait.idly * b for a, b in zip(quiet, slow, strict=True)]
    mapped = maps + row - GROUP + (runs - 1) * one.group
    mapped = mapped + later[0] * (1 - 1 / np.maximum(runs, 1)) + later[1]
    total = np.maximum(own, np.maximum(writer, mapped))
    limited = (writer >= total) & (count > 2)
    input_ = np.minimum(total - own, np.maximum(0, maps + row - one.group))
    weights, more = weights_wait(one, loads, total), rows_wait(one, loads, total, input_)
    # Of tiles, each loads all weights anew, and then the port may never rest.
    all_maps = loads.rest + loads.tiles
    port = loads.own + runs * one.moved + all_maps
    busy = (one.tiles > 1) * np.maximum(0, port - total - weights - more)
    weights, more = weights + busy * (loads.own > all_maps), more + busy * (loads.own <= all_maps)
    total = total + weights + more
    behind = np.maximum(0, one.settle - total + writer) * (count > 2)
    apart = np.where(one.chunks > 1, short, one.group) + behind
    paired = (one.chunks == 1) & (count / 2 > np.floor(count / 2)) & (pairs > 0) & ~limited
    tail = Tail(
        one.settle, np.where(count > 1, one.before, 0), one.before_commands,
        np.where(paired, np.inf, apart), one.last + 1, one.last_commands,
        lag + runs * one.written + wait.of(commands) - total,
    )  # fmt: skip
    return Main(total, input_ + more, weights, tail)
