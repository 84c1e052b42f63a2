"""This method's ways to look for the front of a space whose truth is known; see method.py.

A way is given the truth, which it may look up where it measures, and draws. It says of which
architectures it measured the accuracy within its budget, and which it proposes on predictions.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from codesign_kernel import pareto
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.explore import SIGNS, Designs
from codesign_kernel.growth import expected, grow, stairs
from codesign_kernel.hopes import hoped
from codesign_kernel.improve import Box, Known, choose
from codesign_kernel.margins import Codes, ImageSurrogate, accuracy_of
from codesign_kernel.measure import stratified
from codesign_kernel.meters import MARGINS, Accuracy
from codesign_kernel.predict import (
    SIMULATED,
    Predictors,
    fit_accuracy,
    hardware_features,
    hardware_surrogate,
)
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.store import Key
from codesign_kernel.study import open_study
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.truth import Truth
from codesign_kernel.workload import layers_of

STUDIES = Path(__file__).parent.parent / "data" / "studies"
BUDGET = 100  # accuracies
START = 40  # of them, where the rest is chosen in rounds or one by one
DESIGNS = 100  # designs from which hardware is predicted
BATCH = 10  # designs that are chosen at a time
Pair = np.ndarray  # (n, 2): an engine and an architecture of the truth


@dataclass(frozen=True)
class Found:
    """Architectures `measured` within the budget, (n,), and the front that is `proposed` on
    predictions, (m, 2), whose networks are measured afterwards. If the search has not measured on
    all engines, on how many; and its `designs`, if each was measured in whole."""

    measured: np.ndarray
    proposed: Pair = field(default_factory=lambda: np.empty((0, 2), np.int64))
    engines: int | None = None
    designs: Pair | None = None


def random_pairs(truth: Truth, n: int, rng: np.random.Generator) -> Pair:
    """Return designs that can run, an architecture not twice."""
    some = rng.permutation(len(truth.genomes))[: 2 * n + 50]
    engines = rng.integers(0, len(truth.engines), len(some))
    runs = np.isfinite(truth.latency_ms[engines, some])
    return np.column_stack([engines, some])[runs][:n]


def places_of(truth: Truth, genomes: np.ndarray) -> np.ndarray:
    """Return where genomes are among those of the truth, (n,)."""
    number = np.cumprod([1, *truth.space.radix[::-1]])[-2::-1]
    keys = truth.genomes @ number
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], genomes @ number)]


@cache
def meter(space: str) -> Accuracy:
    """Return what measures accuracies of the space's study."""
    return Accuracy(open_study(STUDIES / space))


@cache
def codes_of(space: str, architecture: str, accuracy: float) -> Codes:
    """Return the margins on validation images by which the truth has that accuracy."""
    codes = np.asarray(meter(space).measure((architecture, "", ""))[MARGINS], np.int8)
    assert abs(accuracy_of(codes) - accuracy) < 1e-3, "the truth is of another supernet"
    return codes


def accuracy_model(
    truth: Truth, some: np.ndarray, images: bool = True
) -> Surrogate | ImageSurrogate:
    """Fit the surrogate for accuracy to architectures; to how they do on each of the `images` where
    that predicts better, or to accuracies alone."""
    genomes, accuracy = truth.genomes[some], truth.validation[some].astype(float)
    if not images:
        return fit_accuracy(truth.space, genomes, accuracy, None)
    names = [str(truth.space.decode(genome)) for genome in genomes]
    codes = [codes_of(truth.space.name, *each) for each in zip(names, accuracy, strict=True)]
    return fit_accuracy(truth.space, genomes, accuracy, np.stack(codes))


def fitted(truth: Truth, architectures: np.ndarray, pairs: Pair, images: bool = True) -> Predictors:
    """Fit the predictors to accuracies of architectures, and latency and power of designs."""
    space, device, engines = truth.space, truth.device, Accelerators.of(truth.engines)
    model = accuracy_model(truth, architectures, images)
    basis = {(quantity, device.name): SIMULATED for quantity in QUANTITIES[1:]}
    found = Predictors(space, {device.name: device}, model, basis=basis)
    layers = layers_of(space, truth.genomes[pairs[:, 1]])
    inputs, _ = hardware_features(layers, engines[pairs[:, 0]], device, QUANTITIES)
    values = dict(zip(QUANTITIES, truth.figures(*pairs.T).T, strict=True))
    for quantity, X in inputs.items():
        model = hardware_surrogate().fit(X, values[quantity])
        found.hardware[quantity, device.name] = model
    return found


def key_of(truth: Truth, pair: np.ndarray) -> Key:
    """Return a design as the store names it."""
    architecture = truth.space.decode(truth.genomes[pair[1]])
    return str(architecture), str(truth.engines[pair[0]]), truth.device.name


def pairs_of(truth: Truth, keys: list[Key]) -> Pair:
    """Return designs of the store as those of the truth, (n, 2)."""
    names = [str(engine) for engine in truth.engines]
    genomes = truth.space.genomes(key[0] for key in keys)
    return np.column_stack([[names.index(key[1]) for key in keys], places_of(truth, genomes)])


def known_of(truth: Truth, pairs: Pair) -> Known:
    """Return what is known of designs that were measured."""
    known = Known()
    for pair, (accuracy, latency, power) in zip(pairs, truth.figures(*pairs.T), strict=True):
        key = key_of(truth, pair)
        known.accuracy[key[0]], known.hardware[key] = float(accuracy), (latency, power)
    return known


def predicted(truth: Truth, predictors: Predictors) -> tuple[Pair, Designs]:
    """Return all designs that can run, with their predictions."""
    engine, architecture = np.nonzero(np.isfinite(truth.latency_ms))
    acc, parts = Accelerators.of(truth.engines)[engine], []
    for part in np.array_split(np.arange(len(engine)), -(-len(engine) // 20_000)):
        which, inverse = np.unique(architecture[part], return_inverse=True)
        asked = truth.genomes[which], acc[part], truth.device.name, inverse
        parts.append(predictors.figures(*asked))
    means, low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
    pairs = np.column_stack([engine, architecture])
    return pairs, Designs(truth.device.name, truth.genomes[architecture], acc, means, low, high)


def ours(truth: Truth, rng: np.random.Generator) -> Found:
    """Measure spread architectures, and designs of them; propose the front as it is predicted and
    as it may be."""
    architectures = places_of(truth, stratified(truth.space, BUDGET, rng))
    pairs = random_pairs(truth, DESIGNS, rng)
    predictors = fitted(truth, architectures, pairs)
    all_pairs, designs = predicted(truth, predictors)
    box = Box.of(designs.means[pareto.front(designs.means * SIGNS)])
    front = hopeful(truth, predictors, architectures, all_pairs, designs, box)
    return Found(architectures, front, len(np.unique(pairs[:, 0])))


def hopeful(
    truth: Truth, predictors: Predictors, known: np.ndarray, pairs: Pair, designs: Designs, box: Box
) -> Pair:
    """Return the front as it is predicted and as it may be, where the accuracies of the
    architectures `known` are; `pairs` are the designs."""
    accuracy = np.full(len(truth.genomes), np.nan)
    accuracy[known] = truth.validation[known]
    X = predictors.accuracy_inputs(truth.genomes)
    mean, std = expected(predictors.accuracy, X, accuracy)
    return pairs[hoped(mean, std, pairs[:, 1], designs.means[:, 1:], box)]


def everywhere(truth: Truth, architectures: np.ndarray) -> Pair:
    """Return all designs of architectures that can run."""
    engine, which = np.nonzero(np.isfinite(truth.latency_ms[:, architectures]))
    return np.column_stack([engine, architectures[which]])


def by_network(
    truth: Truth, rng: np.random.Generator, start: int = START, images: bool = True
) -> Found:
    """Measure spread architectures on every engine, then one after another that by which the front
    is expected to grow most; propose the front as it is predicted and as it may be. Accuracy is
    learnt as `accuracy_model` does."""
    chosen = places_of(truth, stratified(truth.space, start, rng))
    pairs = everywhere(truth, chosen)
    some = rng.choice(len(pairs), DESIGNS, replace=False)
    predictors = fitted(truth, chosen, pairs[some], images)
    all_pairs, designs = predicted(truth, predictors)
    box = Box.of(designs.means[pareto.front(designs.means * SIGNS)])
    places = np.full((len(truth.genomes), len(truth.engines), 2), np.nan)
    places[all_pairs[:, 1], all_pairs[:, 0]] = box.points(designs.means)[:, 1:]
    steps = stairs(places)
    while True:
        model = accuracy_model(truth, chosen, images)
        predictors = replace(predictors, accuracy=model)
        if len(chosen) >= BUDGET:
            break
        X = predictors.accuracy_inputs(truth.genomes)
        accuracy = np.full(len(X), np.nan)
        accuracy[chosen] = truth.validation[chosen]
        figures = truth.figures(*everywhere(truth, chosen).T)
        measured = figures[:, 0], stairs(box.points(figures)[:, None, 1:])
        new = np.flatnonzero(np.isnan(accuracy))
        best = grow(model, X[new], accuracy[new], steps[new], measured, box, 1)
        chosen = np.append(chosen, new[best])
    front = hopeful(truth, predictors, chosen, all_pairs, designs, box)
    return Found(chosen, front)


def ours_in_rounds(truth: Truth, rng: np.random.Generator) -> Found:
    """Measure START spread designs, then BATCH at a time those that `codesign improve` chooses;
    propose the front as it is predicted and as it may be."""
    architectures = places_of(truth, stratified(truth.space, START, rng))
    engines = rng.integers(0, len(truth.engines), START)
    pairs = np.column_stack([engines, architectures])
    pairs = pairs[np.isfinite(truth.latency_ms[engines, architectures])]
    box = None
    while True:
        known = np.unique(pairs[:, 1])
        predictors = fitted(truth, known, pairs)
        all_pairs, designs = predicted(truth, predictors)
        if len(pairs) >= BUDGET:
            break
        best = pareto.front(designs.means * SIGNS)
        box = box or Box.of(designs.means[best])
        some = min(BATCH, BUDGET - len(pairs))
        keys = choose(predictors, [designs], known_of(truth, pairs), box, some)
        pairs = np.concatenate([pairs, pairs_of(truth, keys)])
    front = hopeful(truth, predictors, known, all_pairs, designs, box)
    return Found(known, front, len(np.unique(pairs[:, 0])), pairs)
