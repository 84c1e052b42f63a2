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


def in_a_row(n: np.ndarray, loop: np.ndarray, busy: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Cycles that `n` chunks of `steps` wait in all, of which each waits until the one before the
    last is written: `loop` after its first step, or `busy` after the last one, if that is later.

    The first waits for one that came alone. After it, two chunks take a loop, or the writer's time
    for two.
    """
    first, each = np.maximum(0, loop - 2 * steps), np.maximum(0, busy - steps)
    pair, pairs = np.maximum(first, 2 * each), np.floor((n - 1) / 2)
    return np.where(n < 1, 0, first + pairs * pair + (n - 1 - 2 * pairs) * each)


def stalls(one: Plan, wait: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Cycles that the multipliers wait within filter groups, and from group to group, for the
    output buffer: it holds two chunks, so that the one after next begins when a chunk is written.

    From that chunk to this one pass at least its steps, its settling and its writing, where the
    multipliers need only the steps of two chunks. `wait`: of the writer for the port, in a chunk;
    that hides what it does between chunks if it never rests. A group's last chunk may be short:
    then that of the group before is sooner in its way, or the next group's first waits for the
    chunk before the short one. Groups of one chunk wait as chunks of a group do.
    """
    single, hidden = one.chunks == 1, np.minimum(BETWEEN, wait)
    steps = np.where(single, one.group, BURST * one.pixel)
    write = np.where(single, one.written - 1, one.full) + wait
    loop = steps - GROUP * single + write + one.settle
    within = in_a_row(np.where(single, one.runs, one.chunks) - 2, loop, write - hidden, steps)
    # Of a group, the whole time: its chunks in turn, or those of two groups if they are odd, or
    # the chunk before the short one, or the writer, which never rests.
    hop = np.maximum(0, np.maximum(loop, 2 * (write - hidden)) - 2 * steps)
    inner, half = np.floor((one.chunks - 1) / 2) * hop, one.chunks / 2
    odd = one.group - GROUP + one.written - 1 + one.chunks * (wait + one.settle)
    whole = np.where(half == np.floor(half), half * loop, odd / 2)
    whole = np.maximum(whole, one.group - one.end * one.pixel + loop - steps - GROUP)
    whole = np.maximum(whole, one.written - 1 + one.chunks * (wait - hidden))
    others = one.runs - 1
    between = others * np.maximum(0, whole - one.group - inner)
    return np.where(single, 0, within + others * inner), np.where(single, within, between)


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


class Start(NamedTuple):
    """The first layer until its first step, in cycles: until its weights are there, from then until
    its rows are, of the port for both, and of reading the tasks that are then still to be read."""

    weights: np.ndarray
    rows: np.ndarray
    busy: np.ndarray
    tasks: np.ndarray


def task_beats(port: Port) -> float:
    """Cycles of reading a task."""
    return TASK_BYTES / port.bytes + port.gap


def first_rows(
    one: Plan, two: np.ndarray, tasks: np.ndarray, burst: np.ndarray, port: Port
) -> Start:
    """Work out how the first layer begins, with so many `tasks` to come.

    Both come from the start, in turns, burst by burst: the weights' first two before the map's, and
    two more while that is asked for, if the group has as many. Where the second task is short, the
    memory takes one of them more before its queue is full, unless a chunk of the map has two, too.
    In between, one task after another is read. When two filter groups are there, the map goes
    first. If there is but one task, none is read in between, and the loader of weights is a little
    further ahead.
    """
    task, latency, alone = task_beats(port), port.extra_latency, tasks < 2
    turns = one.load_commands
    maps = turns - 2 - ((one.chunk <= BURST) & (turns > 3) & (task + latency < 12))
    weights = port.open * (one.load + np.minimum(one.whole, np.maximum(0, maps) * one.burst))
    weights = 11 - one.lanes + ~alone * max(0, task - 4) + weights - port.gap
    early = ~alone * np.minimum(np.floor(weights / (100 + latency)), TASKS - 1)
    weights = weights + task * early
    count = one.first_commands
    others = np.minimum(two, (count + np.clip(turns - 2 + alone, 0, 2)) * burst)
    between = 4 + 6 * np.minimum(count, 4) * (count >= 2)
    rows = np.where(alone, 10 - one.lanes, between) + latency + one.first + others
    tasks = np.minimum(TASKS - 1, tasks - 1)
    read = np.minimum(np.floor(rows / (90 + latency)), tasks)
    rows = np.maximum(0, rows + task * read - weights - latency)
    busy = weights + rows - np.where(alone, 6, 9) - task * np.maximum(early, read)
    return Start(weights + latency, rows, busy, task * (tasks - read))


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

    def hurry(self, one: Plan) -> np.ndarray:
        """Cycles of waiting for rows until no weights are loaded in haste: one of their commands to
        one of the map's, which brings rows for so many steps."""
        ratio = np.maximum(self.burst, 1) / np.maximum(one.burst, 1)
        beside = np.minimum(self.rest, self.eager / ratio)
        paced = 1 - one.group / np.maximum(one.whole, 1)
        return np.asarray(np.maximum(0, beside * (ratio + paced)))


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

    The multipliers are held up by the output buffer, as `held` (`stalls`) without delays and with
    calm ones, or hasty ones. The writer, if it is slower, starts with the first chunk and is two
    chunks behind the multipliers at the end; the first writes are those that wait. The map's rest
    may come so late that the multipliers have only a row of the first group left when it is there.
    """
    runs, count = one.runs, np.maximum(one.runs * one.chunks, 1)
    commands = np.maximum(runs * one.commands, 1e-9)
    maps, short = loads.map(one), one.end * one.pixel
    lag = np.maximum(np.minimum(BURST, one.pixels) * one.pixel,
                     np.minimum(1, BURST / one.pixels) * maps) + one.settle  # fmt: skip
    wait = delays(one, loads, lag, commands)
    quiet, slow = held
    slower = stalls(one, one.commands / one.chunks * wait.hasty)
    # The last two chunks hold up nobody: of the others, a greater part is written with delay.
    part = count / np.maximum(count - 2, 1)
    hurried = np.minimum(1, wait.hurried * part)
    idly = np.minimum(1 - hurried, wait.idly * part)
    inner, pairs = ((1 - hurried - idly) * a + idly * b + hurried * c
                    for a, b, c in zip(quiet, slow, slower, strict=True))  # fmt: skip
    own = runs * one.group - GROUP + inner + pairs
    writer = lag + runs * one.written - one.before - one.last + short
    writer = np.where(count >= 3, writer + wait.of(commands, 1 - 2 / count), 0)
    row = one.group / one.rows
    later = [(1 - idly) * a + idly * b for a, b in zip(quiet, slow, strict=True)]
    mapped = maps + row - GROUP + (runs - 1) * one.group
    mapped = mapped + later[0] * (1 - 1 / np.maximum(runs, 1)) + later[1]
    hurry = loads.hurry(one)
    total = np.maximum(own + hurry, np.maximum(writer, mapped))
    limited = (writer >= total) & (count > 2)
    input_ = np.minimum(total - own, np.maximum(hurry, maps + row - one.group))
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
