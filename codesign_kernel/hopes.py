"""The front that is proposed: what to measure last, once a budget is spent.

The front of predictions falls short of the true one where a network's accuracy is predicted too
low: latency and power are predicted within a hundredth, accuracy is not. So the front that is
proposed is of what may be: also of accuracies one and two standard deviations higher than
predicted (those of one network are as much higher on every engine). What is known is not hoped.
"""

from collections.abc import Sequence

import numpy as np

from . import pareto
from .explore import SIGNS, Designs
from .growth import expected
from .improve import Box, Known, part
from .kernel import Floats
from .predict import Predictors

HOPES = 0.0, 1.0, 2.0  # standard deviations


def hoped(accuracy: Floats, std: Floats, which: np.ndarray, hardware: Floats,
          box: Box) -> np.ndarray:  # fmt: skip
    """Return the indices of designs, in rising order, that are on the front as it is predicted or
    as it may be: at accuracies any of HOPES standard deviations higher.

    Of networks (a,) accuracies in % and deviations; of designs (d,) `which` network each has, and
    its latency in ms and power in W, (d, 2). What is outside of the box is left out.
    """
    found = [np.empty(0, np.int64)]
    for hope in HOPES:
        likely = np.minimum(accuracy + hope * std, 100.0)
        figures = np.column_stack([likely[which], hardware])
        inside = np.flatnonzero((box.points(figures) < 1).all(axis=1))
        found.append(inside[pareto.front(figures[inside] * SIGNS)])
    return np.unique(np.concatenate(found))


def hoped_designs(
    predictors: Predictors, candidates: Sequence[Designs], known: Known, box: Box
) -> list[Designs]:
    """Return of predicted designs, those of a device together, the ones on the front of them all
    as it is predicted or as it may be (see `hoped`). Accuracies that are known are taken as such.
    """
    genomes = np.concatenate([designs.genomes for designs in candidates])
    distinct, which = np.unique(genomes, axis=0, return_inverse=True)
    names = (str(predictors.space.decode(genome)) for genome in distinct)
    accuracy = np.array([known.accuracy.get(name, np.nan) for name in names])
    mean, std = expected(predictors.accuracy, predictors.accuracy_inputs(distinct), accuracy)
    hardware = np.concatenate([designs.means[:, 1:] for designs in candidates])
    best = hoped(mean, std, which.ravel(), hardware, box)
    return part(candidates, best)
