"""Which networks to measure next, if each is measured on every engine: those by which the front is
expected to grow most.

A network's accuracy is the same on every engine, and to measure it costs a run over the validation
images; its latency and power are predicted within a hundredth, where its accuracy is not. So a
network is weighed as a whole: at an accuracy of y, its designs add to the hypervolume

    integral from y to 1 of the area, of latency and power, that its designs dominate at z and those
    measured do not,

where the measured are those at least as accurate as z. That area only changes at accuracies that
were measured; so the expectation over a normal y is a sum over these, exact but for the columns
into which latency is cut. A front of designs grows one by one in `improve.py`.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .accelerator import Accelerators
from .improve import Box, Known, shortfall
from .kernel import Floats
from .predict import COVERAGE, Predictors
from .space import Genomes
from .store import Key

if TYPE_CHECKING:  # scikit-learn takes a second
    from .margins import ImageSurrogate
    from .surrogate import Surrogate

COLUMNS = 200  # of latency: a design's is rounded up to the next
_ROWS = 128  # networks weighed at a time, to stay in the processor's cache


def stairs(points: Floats) -> Floats:
    """Return the least power within each column of latency, (n, COLUMNS), of networks on engines:
    `points` (n, engines, 2) are latency and power in a box from 0 to 1, maybe outside of it, NaN
    where an engine cannot run a network. 1 where no design is in the box."""
    latency = np.nan_to_num(points[..., 0], nan=2.0).clip(0, 2) * COLUMNS
    column = np.ceil(latency - 1e-9).astype(np.int64)
    found = np.ones((len(points), COLUMNS + 1))
    network = np.broadcast_to(np.arange(len(points))[:, None], column.shape)
    inside = column < COLUMNS
    power = np.nan_to_num(points[..., 1], nan=1.0)
    np.minimum.at(found, (network[inside], column[inside]), power[inside])
    return np.asarray(np.minimum.accumulate(found, axis=1)[:, :COLUMNS])


def expected_growth(
    accuracy: Floats, std: Floats, steps: Floats, known: Floats, known_steps: Floats,
    limit: float = -np.inf,
) -> Floats:  # fmt: skip
    """Return how much each of n networks, (n,), is expected to add to the hypervolume of k designs.

    Accuracies are an objective of the box, to be minimised: of the networks normal, with means and
    deviations `std`, and no better than `limit` counts; of the designs known. `steps` and
    `known_steps` are the `stairs` of each.
    """
    order = np.argsort(known, kind="stable")
    order = order[known[order] < 1]
    # What is as accurate as an edge or more; nothing is below the first.
    below = np.minimum.accumulate(known_steps[order], axis=0)
    last = np.flatnonzero(np.diff(known[order], append=np.inf))
    below = np.concatenate([np.ones((1, COLUMNS)), below[last]])
    edges = np.append(known[order][last], 1.0)
    edges = np.maximum(np.insert(edges, 0, limit), limit)
    length = np.diff(shortfall(accuracy[:, None], std[:, None], edges), axis=1)
    gain = np.zeros(len(accuracy))
    for i in range(0, len(gain), _ROWS):
        part = slice(i, i + _ROWS)
        for held, share in zip(below, length[part].T, strict=True):
            gain[part] += share * np.maximum(held - steps[part], 0.0).sum(axis=1)
    return gain / COLUMNS


def expected(
    model: "Surrogate | ImageSurrogate", X: Floats, accuracy: Floats
) -> tuple[Floats, Floats]:
    """Return means and standard deviations (a,) of accuracies in %: as `model` predicts them from
    `X` (a, f), but what is known of them, `accuracy` (a,), where that is not NaN."""
    mean, low, high = model.estimate(X, COVERAGE)
    std = (high - low) / 2 / NormalDist().inv_cdf((1 + COVERAGE) / 2)
    unknown = np.isnan(accuracy)
    return np.where(unknown, mean, accuracy), np.where(unknown, std, 0.0)


def grow(
    model: "Surrogate | ImageSurrogate", X: Floats, accuracy: Floats, steps: Floats,
    measured: tuple[Floats, Floats], box: Box, n: int,
) -> list[int]:  # fmt: skip
    """Return the indices of `n` networks to measure on every engine, the first chosen first.

    `X` (a, f) is what `model` predicts accuracy from, `accuracy` (a,) in % what is known of it, NaN
    where nothing is, and `steps` the `stairs` of the networks on every engine. `measured` are the
    accuracies in % and the stairs of designs that were measured. A network that is chosen is
    believed to turn out as predicted before the next is. Raises InputError as `Surrogate` does.
    """
    goal, known_steps = -(measured[0] + box.low[0]) / box.span[0], measured[1]
    limit = -(100.0 + box.low[0]) / box.span[0]  # an accuracy of 100 %
    unknown, chosen = np.isnan(accuracy), list[int]()
    for _ in range(min(n, len(X))):
        mean, std = expected(model, X, accuracy)
        points = -(mean + box.low[0]) / box.span[0]
        gain = expected_growth(points, std / box.span[0], steps, goal, known_steps, limit)
        gain[chosen] = -1.0
        best = int(np.lexsort((std, gain))[-1])  # of equals the least certain
        chosen.append(best)
        goal = np.append(goal, points[best])
        known_steps = np.concatenate([known_steps, steps[[best]]])
        if unknown[best]:
            model = model.believing(X[[best]])
    return chosen


def choose_networks(
    predictors: Predictors, genomes: Genomes, engines: Mapping[str, Accelerators], known: Known,
    box: Box, n: int,
) -> list[Key]:  # fmt: skip
    """Return what is to be measured of `n` of the networks, all of them different, fewer if no more
    have anything to measure: each on every engine of each device that can run it.

    Follows from its arguments: nothing is drawn.
    """
    space = predictors.space
    names = [str(space.decode(genome)) for genome in genomes]
    keys: list[list[Key]] = [[] for _ in names]
    parts = []
    for device, some in engines.items():
        which, engine = (side.ravel() for side in np.indices((len(names), len(some))))
        acc = some[engine]
        figures = predictors.figures(genomes, acc, device, which)[0]
        figures[~predictors.runs(genomes[which], acc, device)] = np.nan
        texts = [str(each) for each in some]
        for row, (i, e) in enumerate(zip(which.tolist(), engine.tolist(), strict=True)):
            key = names[i], texts[e], device
            if key in known.hardware:
                figures[row, 1:] = known.hardware[key]
            if not known.whole(key) and np.isfinite(figures[row, 1]):
                keys[i].append(key)
        parts.append(box.points(figures)[:, 1:].reshape(len(names), len(some), 2))
    left = np.array([i for i, new in enumerate(keys) if new], dtype=np.int64)
    if len(left) == 0:
        return []
    rows = known.figures()
    measured = rows[:, 0], stairs(box.points(rows)[:, None, 1:])
    accuracy = np.array([known.accuracy.get(names[i], np.nan) for i in left])
    steps = stairs(np.concatenate(parts, axis=1)[left])
    X = predictors.accuracy_inputs(genomes[left])
    chosen = grow(predictors.accuracy, X, accuracy, steps, measured, box, n)
    return [key for i in chosen for key in keys[left[i]]]
