"""What the units of the engine have to do for each layer, in cycles, each alone on the memory port.

How they wait for each other is in `waits.py`; the arrays are laid out as in `loops.py`.
"""

from typing import NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators
from .loops import BURST, REAL, Lanes, Port, beats_moved, turns
from .workload import Layers

TASKS = 7  # tasks that are read ahead of the last one written
HELD = 30  # filter groups whose parameters are kept
COMMAND = 6  # states of the writer for a command, besides its beats; they hide the memory's gap
SKIPPED = 3  # for a command that has nothing to write
PLANE = 7  # states of the loader of maps for a plane
GROUP = 4  # control states of a filter group, in which requantisation goes on
SETTLE = 11  # from the end of a drain until the writer has its chunk


class Plan(NamedTuple):
    """What a layer asks of each unit, in cycles with nobody else on the port, (layers, ...)."""

    there: np.ndarray
    runs: np.ndarray  # filter groups in all tiles
    groups: np.ndarray
    tiles: np.ndarray
    rows: np.ndarray
    pixels: np.ndarray  # of a lane in a tile
    pixel: np.ndarray  # steps, or cycles of requantisation
    compute: np.ndarray  # steps of a group
    group: np.ndarray  # a group, with its control
    settle: np.ndarray  # from the last step of a chunk until the writer has it
    begin: np.ndarray  # from the last step of a layer until the next wants weights
    words: np.ndarray
    ring: np.ndarray
    load: np.ndarray  # to load a group
    load_commands: np.ndarray
    first: np.ndarray  # to load the rows that the first output row must have
    first_idle: np.ndarray  # of the port, in between
    first_commands: np.ndarray
    whole: np.ndarray  # to load all rows of a tile
    chunk: np.ndarray  # pixels of a plane that are loaded at a time
    burst: np.ndarray  # cycles of the port in a command for maps
    lanes: np.ndarray
    chunks: np.ndarray  # of a group: 16 pixels of each stream
    end: np.ndarray  # pixels in the last one
    commands: np.ndarray  # to write a group
    moved: np.ndarray  # of the port, to write it
    written: np.ndarray  # to write it
    full: np.ndarray  # to write a full chunk,
    before: np.ndarray  # the last but one of a layer,
    before_commands: np.ndarray
    last: np.ndarray  # and the last one
    last_commands: np.ndarray
    bytes: np.ndarray  # over the port


def plan(one: Layers, acc: Accelerator | Accelerators, port: Port) -> Plan:
    """Work out what each unit has to do.

    A pixel takes its steps or, if that is more, its requantisation; after a group the control
    states hide a part of that. The writer takes six states for a command beside its beats, while
    the memory idles after the command before. The loader of maps takes seven for each plane of each
    chunk of rows, and reads ahead while the memory has room for commands.
    """
    lanes, loops = Lanes.of(acc, port), turns(one, acc, port)
    there = loops.tiles > 0
    tiles, pixels = np.maximum(loops.tiles, 1), np.maximum(loops.pixels, 1)
    groups = np.maximum(loops.groups, 1)
    slow = np.maximum(0, lanes.drain - loops.steps)
    group = pixels * (loops.steps + slow) - np.minimum(slow, GROUP) + GROUP
    beats = loops.words * lanes.word_beats + lanes.param_beats
    bursts = np.ceil(beats / BURST)
    # The writer: commands of the lanes that have pixels, and of the planes that there are.
    tile = np.maximum(loops.tile, 1)
    chunks = np.ceil(tile / BURST)
    end = tile - BURST * (chunks - 1)
    planes = np.ceil(one.filters / np.minimum(acc.pf, port.bytes))
    broad = lanes.planes > 1
    mean = np.where(broad, planes / groups, 1)
    most = np.where(broad, np.minimum(planes, lanes.planes), 1)
    least = np.where(broad, planes - (groups - 1) * lanes.planes, 1)
    valid = one.height * one.width / tiles
    filled = np.floor(valid / pixels)
    rest = valid - filled * pixels
    lit = filled + (rest > 0)
    commands = mean * (filled * chunks + np.ceil(rest / BURST))
    state = max(COMMAND, port.gap)
    written = mean * valid / port.open + state * commands
    written = written + SKIPPED * (lanes.streams * chunks - commands) + 2 * chunks + 1
    many = chunks > 1
    # A lane with fewer pixels than the others has none in the last chunks.
    late, later = (filled + (rest > BURST * (chunks - n)) for n in (2, 1))
    full, before = (
        some * (BURST / port.open + state - SKIPPED) + SKIPPED * lanes.streams + 2
        for some in (most * lit, least * late)
    )
    ends = filled * end + np.maximum(0, rest - BURST * (chunks - 1))
    last = least * np.where(many, ends, valid) / port.open
    last = last + least * later * (state - SKIPPED) + SKIPPED * lanes.streams + 2
    # Maps, plane after plane in chunks of whole rows.
    parts = np.ceil(loops.chunk / BURST)
    reads = []
    for pixels_read in (loops.first, loops.whole):
        rows = np.floor(pixels_read / loops.chunk)
        odd = np.ceil((pixels_read - rows * loops.chunk) / BURST)
        count = np.maximum(1, loops.planes * (rows * parts + odd))
        size = pixels_read * loops.planes
        alone = PLANE * (count - 1) + size / count
        busy = port.transfer(size, count - 1)
        reads.append((np.maximum(busy, alone), count, port.transfer(size / count, 1),
                      np.maximum(0, alone - busy)))  # fmt: skip
    (first, first_commands, _, first_idle), (whole, _, burst, _) = reads
    settle = lanes.latency + lanes.drain + SETTLE
    found = Plan(
        there, groups * loops.tiles, groups, tiles, np.maximum(loops.rows, 1), pixels,
        np.maximum(loops.steps, lanes.drain), pixels * loops.steps, group, settle,
        settle + acc.pv + 5, np.maximum(loops.words, 1), lanes.ring,
        port.transfer(beats, bursts) * there, bursts * there, first, first_idle, first_commands,
        whole, loops.chunk, burst,
        np.asarray(acc.pv, REAL), chunks, end, commands,
        port.transfer(mean * valid, commands), written,
        np.where(many, full, written - 1), np.where(many, before, written - 1),
        np.where(many, least * late, commands), last, least * later,
        port.bytes * np.add(*beats_moved(one, loops, acc, port)),
    )  # fmt: skip
    shape = np.broadcast_shapes(*(part.shape for part in found))
    return Plan(*(np.broadcast_to(part, shape) for part in found))


class Ahead(NamedTuple):
    """What comes before each layer, (layers, ...): words, groups and tasks; and from it on: cycles
    of loading, and their mean in a command and, over the tasks read ahead, in a turn without haste:
    between two writes."""

    words: np.ndarray
    groups: np.ndarray
    tasks: np.ndarray
    load: np.ndarray
    burst: np.ndarray
    turn: np.ndarray


def ahead(need: Plan, port: Port) -> Ahead:
    """Sum up what the loader of weights goes through.

    Without haste it asks for commands in pairs. The last one of a group has no second, as asking
    for the next group takes a few states; then the next pair is in the same turn.
    """
    words, groups, tasks = (
        np.cumsum(part, axis=0, dtype=REAL) - part
        for part in (need.runs * need.words, need.runs, need.tiles * need.there)
    )
    commands = need.load_commands
    turns = np.where(commands > 1, np.floor(commands / 2), commands / 2)
    load, commands, turns = (
        np.cumsum((need.runs * part)[::-1], axis=0)[::-1] for part in (need.load, commands, turns)
    )
    burst = np.where(commands > 0, load / np.maximum(commands, 1), BURST)
    near, few = load.copy(), turns.copy()
    near[:-TASKS] -= load[TASKS:]
    few[:-TASKS] -= turns[TASKS:]
    turn = np.where(few > 0, near / np.maximum(few, 0.5), 2 * burst)
    return Ahead(words, groups, tasks, load, burst, turn)


def reach(need: Plan, sums: Ahead) -> tuple[np.ndarray, np.ndarray]:
    """Cycles of loading from each layer on until the loader of weights has to wait: for its last
    group to be freed, and then for the next layer to go on.

    A group is asked for when the ring has room for all of it, its parameters have a slot, and its
    task has been read: no more than TASKS tasks ahead of the last one written.
    """
    after = need.ring + sums.words + need.runs * need.words
    slots, tasks = HELD + sums.groups + need.runs, TASKS - 1 + sums.tasks + need.tiles
    found = np.zeros((2, *need.there.shape), REAL)
    for on in range(min(TASKS + 1, len(after))):
        here, there = slice(None, len(after) - on), slice(on, None)
        most = (tasks[here] - sums.tasks[there]) * need.groups[there]
        most = np.minimum(np.maximum(most, 0), need.runs[there])
        left, words = slots[here] - sums.groups[there], after[here] - sums.words[there]
        for which, freed in enumerate((need.words[here], 0)):
            count = np.minimum(np.floor((words - freed) / need.words[there]), left - 1 + which)
            count = np.maximum(np.minimum(count, most), 0)
            found[which, here] += count * need.load[there]
    return np.minimum(found[0], sums.load), np.minimum(found[1], sums.load)
