"""Dominance, hypervolume and knee of sets of points, all objectives minimised, over moocore."""

import moocore
import numpy as np


def front(points: np.ndarray) -> np.ndarray:
    """Return which of the points (n, d) no other dominates, boolean (n,); of equals the first."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(np.ascontiguousarray(points, np.float64)), dtype=bool)


def ranks(points: np.ndarray) -> np.ndarray:
    """Return each point's rank, int64 (n,): 0 if no other dominates it, 1 if only those do, ...

    Equal points share their rank (Deb et al., NSGA-II, IEEE TEC 2002, section III-A).
    """
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(np.ascontiguousarray(points, np.float64)), np.int64)


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Return the volume that the points (n, d) dominate up to the reference (d,).

    Zitzler and Thiele, PPSN 1998. Points that do not better the reference add nothing.
    """
    inside = points[(points < reference).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(np.ascontiguousarray(inside, np.float64), ref=reference))


def knee(points: np.ndarray) -> int:
    """Return the index of the front's knee: the point nearest to the ideal one.

    Each objective is first scaled to [0, 1] over the points (n, d), n >= 1; the distance is
    Euclidean. A suggestion for who has no preference among the objectives.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    return int((scaled**2).sum(axis=1).argmin())
