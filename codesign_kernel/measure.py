"""Phase 2: measure designs over the space, once each.

A design is measured once by each method; rows are stored as they come.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import cycles, predict, record, routed
from .accelerator import Accelerator, Device
from .constraints import Constraints
from .design import Design
from .errors import InputError, choice
from .explore import usable
from .files import read_arrays
from .meters import (
    CLOSED_FORM,
    MARGINS,
    RECORDED,
    SIMULATION,
    SPECIALISED,
    WEIGHTS,
    Accuracy,
    Closed,
    Meter,
    Simulated,
    basis,
    images_of,
    recorded,
)  # fmt: skip
from .quantities import QUANTITIES
from .rtl.shape import Shape
from .simulate import build_many
from .space import Architecture, Genomes, SearchSpace
from .store import KEY, Key
from .study import LEAST, Study
from .threads import ranks, ticking, workers
from .workload import layers_of, totals

STRATA = 10
Origin = tuple[str, str]  # source and method
# What a meter may give.
MEASURED = (*QUANTITIES, MARGINS, "energy_mj", "cycles", "flips", *routed.FIGURES)


def stratified(space: SearchSpace, n: int, rng: np.random.Generator) -> Genomes:
    """Draw `n` different genomes spread evenly over the logarithm of MACs, the extremes first.

    Plain random genomes crowd in the middle: the smallest and largest networks, where fronts end,
    would hardly be measured. Returns the whole space if it holds no more than `n`.
    """
    if space.size <= n:
        return space.enumerate()
    small = space.size <= 50 * n
    pool = rng.permutation(space.enumerate()) if small else space.sample(50 * n, rng)
    pool = np.concatenate([np.stack(space.extremes()), pool])
    pool = pool[np.sort(np.unique(pool, axis=0, return_index=True)[1])]
    size = np.log2(totals(space, pool)[0])
    edges = np.linspace(size.min(), size.max(), STRATA + 1)[1:-1]
    stratum = np.digitize(size, edges)
    # A genome's turn is its place within its stratum: all firsts, then all seconds, ...
    turn = np.empty(len(pool), dtype=np.int64)
    for value in range(STRATA):
        inside = np.flatnonzero(stratum == value)
        turn[inside] = np.arange(len(inside))
    turn[:2] = -1
    return pool[np.argsort(turn, kind="stable")[:n]]


def plan(
    study: Study, architectures: int, designs: int, engines: int = 4
) -> tuple[list[Key], list[Key]]:
    """Return what to measure: architectures for accuracy, and `designs` designs of each device.

    Those of a device on which engines were placed and routed are on `engines` of these, spread over
    their sizes; those of another are on any that it holds. All can be run.
    """
    space = study.space
    genomes = stratified(space, architectures, np.random.default_rng([study.seed, 4]))
    accuracy = [(str(space.decode(genome)), "", "") for genome in genomes]
    hardware: list[Key] = []
    for i, device in enumerate(study.devices.values()):
        rng = np.random.default_rng([study.seed, 5, i])
        genomes = stratified(space, designs, rng)
        genomes = np.resize(genomes, (designs, genomes.shape[1]))  # a tiny space repeats
        grid = _engines(device, engines)
        layers, port = layers_of(space, genomes), cycles.Port.of(device)
        runs = [cycles.runs(layers, acc, port).all(axis=1) for acc in grid]
        picked = np.where(np.array(runs).T, rng.random((designs, len(grid))), -1.0)
        for genome, draws in zip(genomes, picked, strict=True):
            if draws.max() >= 0:
                key = (str(space.decode(genome)), str(grid[int(draws.argmax())]), device.name)
                hardware.append(key)
    return accuracy, list(dict.fromkeys(hardware))


def _engines(device: Device, most: int) -> list[Accelerator]:
    there = routed.engines(device) if routed.measurable(device) else []
    if there:
        places = np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(int)
        return [there[place] for place in places]
    return list(usable(device, Constraints()))


def writable(study: Study) -> None:
    """Raise InputError unless a study can be written: to be asked before the work, not after."""
    try:
        with tempfile.TemporaryFile(dir=study.root):
            if study.store.path.exists():
                study.store.path.open("r+b").close()
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{study.root} cannot be written: {why}; nothing was begun.") from None


def measure(
    study: Study, meter: Meter, keys: Iterable[Key], label: str, picked: bool = False
) -> int:
    """Measure what the study lacks of `keys`, storing each row as it comes; return how many. They
    were `picked` if predictions chose them: `fits.fit` doesn't count their errors then."""
    done = study.store.keys(meter.method)
    pending = [key for key in keys if key not in done]
    if not pending:
        return 0
    writable(study)
    for key in pending:  # what could not be read again is not stored
        study.space.encode(Architecture.parse(key[0]))
        study.device(key[2] or next(iter(study.devices)))
    bar = tqdm(pending, desc=label, unit="design", disable=ranks()[0] > 0)
    with study.store.writing() as connection, bar, ticking(bar):
        for key in bar:
            began = time.perf_counter()
            values = meter.measure(key)
            seconds = time.perf_counter() - began
            for name in values:
                choice("quantity that a meter measures", name, MEASURED)
            modelled = {name: "modelled" for name in meter.modelled if name in values}
            sources = dict.fromkeys(values, meter.source) | modelled
            study.store.add(connection, key, values, meter.method, sources, seconds, picked)
    return len(pending)


def measure_all(
    study: Study, subnets: Accuracy, accuracy: list[Key], simulated: list[Key], closed: list[Key]
) -> Iterator[tuple[str, Meter, list[Key], int]]:
    """Measure what the study lacks of these designs, each by its meter; yield for each meter what
    it did in a word, its designs, and how many of them it measured now."""
    there = study.store.keys(SIMULATION)
    pending = [key for key in simulated if key not in there]
    if pending:
        writable(study)
    ports = {(a, study.device(d).port_bits) for _, a, d in pending}
    if shapes := sorted((Shape(Accelerator.parse(a), bits) for a, bits in ports), key=str):
        build_many(shapes, workers())
    jobs: list[tuple[str, Meter, list[Key]]] = [
        ("accuracy", subnets, accuracy),
        ("simulated", Simulated(subnets, study), simulated),
        ("modelled", Closed(study), closed),
    ]
    for what, meter, keys in jobs:
        if keys:
            yield what, meter, keys, measure(study, meter, keys, what)


def rows(study: Study, quantity: str, device: str = "") -> pd.DataFrame:
    """Return the study's rows of a quantity on a device. Raises InputError if under ten.

    They are all of one method: a recorded one goes before a simulated one, that before a modelled
    one; accuracy of specialised networks before that with the supernet's weights; then the one
    stored last. Rows of another supernet or closed form than the present one do not count.
    """
    frame, sizes, (source, method) = stored(study, quantity, device)
    if not method:
        study.store.rows()  # says so if nothing at all was measured
        there, past = max(sizes.values(), default=0), len(frame) - sum(sizes.values())
        raise InputError(
            f"{quantity} {f'on {device} ' if device else ''}was measured for {there} designs, but "
            f"at least {LEAST} are needed{_why_past(study, past, device)}: run `codesign profile` "
            "on this study."
        )
    chosen: pd.DataFrame = frame[(frame["source"] == source) & (frame["method"] == method)]
    return chosen.reset_index(drop=True)


def stored(
    study: Study, quantity: str, device: str
) -> tuple[pd.DataFrame, dict[Origin, int], Origin]:
    """Return all rows of a quantity on a device, how many there are of each source and method that
    count, and which of these `rows` returns: empty texts if all are too few. Raises InputError if a
    row is damaged."""
    frame = study.store.values()
    frame = frame[(frame["quantity"] == quantity) & (frame["device"] == device)]
    frame = frame.drop(columns="quantity").rename(columns={"value": quantity})
    texts = frame[["architecture", "accelerator", "method"]].map(lambda text: isinstance(text, str))
    values = pd.to_numeric(frame[quantity], errors="coerce")
    if not (texts.all(axis=None) and np.isfinite(values).all()):
        raise InputError(f"{study.store.path} is damaged: a row of {quantity} is no measurement.")
    origins = zip(frame["source"].iloc[::-1], frame["method"].iloc[::-1], strict=True)
    counts = Counter(origins)  # that of the row stored last comes first
    sizes = {each: n for each, n in counts.items() if not _is_past(study, each[1])}
    best = max(
        (each for each, size in sizes.items() if size >= LEAST),
        key=lambda each: (
            recorded(each[1]), each[1] != CLOSED_FORM, each[1].startswith(SPECIALISED),
        ),
        default=("", ""),
    )  # fmt: skip
    return frame, sizes, best


def method(study: Study, quantity: str, device: str = "") -> str:
    """Return the method of `rows`; empty where the study has too few to learn from."""
    return stored(study, quantity, device)[2][1]


def weights_of(study: Study) -> str:
    """Return with which weights a study measures accuracy, a key of WEIGHTS: the supernet's, if
    with these enough was measured to learn from, and not with others."""
    if not study.supernet_path.exists():
        return "specialised"
    by = study.store.found()["method"]
    path = study.supernet_path
    count = {key: by.str.startswith(kind.of(path)).sum() for key, kind in WEIGHTS.items()}
    return "supernet" if count["supernet"] >= LEAST > count["specialised"] else "specialised"


def subnets_of(
    study: Study, folder: Path | None = None, download: bool = False, weights: str | None = None
) -> Accuracy:
    """Return what measures accuracy for a study: with the `weights` of its other accuracies, if
    none are asked for. Raises InputError as `Accuracy` does."""
    if weights is not None:
        choice("--weights", weights, (*WEIGHTS,))
    return WEIGHTS[weights or weights_of(study)](study, folder, download)


def accuracy_of(study: Study) -> str:
    """Say of which images and weights the accuracy is that a study predicts, or would if it were
    fitted now: of these alone its interval tells."""
    by = predicted_by(study, "accuracy")
    images = images_of(by)
    if by and not images:
        return f"the networks measured by {by.removeprefix(RECORDED)}"
    count = f"{images:,} " if images else ""
    return f"the {count}validation images {WEIGHTS[by.partition(' ')[0] or weights_of(study)].told}"


def predicted_by(study: Study, quantity: str, device: str = "") -> str:
    """Return the method of the rows that predictions rest on, or would if they were fitted now."""
    by = method(study, quantity, device)
    with suppress(InputError, IndexError):  # nothing was fitted yet
        report = study.fit_report().query("quantity == @quantity and device == @device")
        by = str(report["method"].iloc[0])
    return by


def _is_past(study: Study, method: str) -> bool:
    """Whether the method is of a supernet, engine or closed form that is not there any more."""
    path = study.supernet_path
    for key, kind in WEIGHTS.items():
        if method.startswith(f"{key} ") and path.exists():
            return not method.startswith(kind.of(path))
    of, version = method.rpartition(" ")[::2]
    there = [each.rpartition(" ")[0] for each in (CLOSED_FORM, SIMULATION)]
    return of in there and version.isdecimal() and method not in (CLOSED_FORM, SIMULATION)


def _why_past(study: Study, past: int, device: str) -> str:
    """Say why so many rows do not count. Raises InputError if the supernet is damaged."""
    if not past:
        return ""
    if device:
        return f", and {past} are of another version of this program"
    read_arrays(study.supernet_path)
    return f", and {past} are of another supernet than {study.supernet_path}"


def verify(study: Study, designs: Sequence[Design], meters: Sequence[Meter]) -> pd.DataFrame:
    """Measure designs and return predicted beside measured, a row for each design and quantity of
    which a value is found.

    Columns: id, quantity, predicted, low, high, value, source, inside (whether the interval holds,
    None where such a value does not tell: see `_tells`).
    """
    predicted, result = study.predict(designs), []
    for i, design in enumerate(designs):
        found: dict[str, tuple[float, str, str]] = {}
        for meter in meters:
            key = (design.key[0], "", "") if isinstance(meter, Accuracy) else design.key
            measure(study, meter, [key], f"verify {design.id}", picked=True)
            known, kind = study.store.rows().set_index([*KEY, "method"]), basis(meter.method)
            for _, row in known.loc[[(*key, meter.method)]].iterrows():
                there = (q for q in QUANTITIES if not pd.isna(row.get(q)))
                found |= {q: (row[q], row["source"], kind) for q in there}
        for quantity, value in record.values(study, design).items():
            found[quantity] = value, "measured", predict.RECORDED
        for quantity in (each for each in QUANTITIES if each in found):
            row = predicted.iloc[i]
            value, source, kind = found[quantity]
            low, high = row[f"{quantity}_low"], row[f"{quantity}_high"]
            whose = "" if quantity == "accuracy" else design.device
            on = basis(predicted_by(study, quantity, whose))
            result.append(
                {
                    "id": design.id, "quantity": quantity, "predicted": row[quantity],
                    "low": low, "high": high, "value": value, "source": source,
                    "inside": bool(low <= value <= high) if _tells(quantity, kind, on) else None,
                }
            )  # fmt: skip
    return pd.DataFrame(result)


def _tells(quantity: str, kind: str, on: str) -> bool:
    """Whether a value of a `basis` tells if the interval holds of a prediction that rests `on` one.
    Hardware figures must be as near to real hardware as what was learnt from; accuracies that were
    recorded are of other networks or images than those measured here."""
    if quantity == "accuracy":
        return kind == on
    kinds = ("", predict.SIMULATED, predict.RECORDED)
    return kinds.index(kind) >= kinds.index(on)
