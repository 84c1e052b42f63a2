"""Phase 2: fit the predictors to what a study has measured, and say how good they are."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import engines
from .accelerator import Accelerator, Accelerators
from .errors import InputError
from .files import read_json
from .margins import Codes, ImageSurrogate
from .measure import rows, stored
from .meters import MARGINS, WEIGHTS, basis, recorded
from .meters import RECORDED as BY
from .predict import (
    COVERAGE,
    FOLDS,
    Predictors,
    accuracy_features,
    fit_accuracy,
    hardware_features,
    hardware_surrogate,
    image_features,
)
from .quantities import QUANTITIES
from .store import KEY, Key
from .study import LEAST, Study
from .surrogate import MOST
from .workload import layers_of

if TYPE_CHECKING:
    from .baselines import Other

CHOSEN = "improve.json"  # in a study: what `rounds.py` chose
LEARNT = 1_000  # rows of a quantity at most: to learn from, and ten times over, takes a minute
ENGINES = 3  # that are needed at least, to predict some from the others
ANEW = ("MAPE, new engine", "coverage, new engine")


def inputs(
    study: Study, quantity: str, device: str, frame: pd.DataFrame,
    clocks: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Return the features of rows of `rows`, (n, f), and their names; `clocks` are as of
    `engines.clocks`, if they are known."""
    genomes = study.space.genomes(frame["architecture"])
    if quantity == "accuracy":
        return accuracy_features(study.space, genomes)
    acc = Accelerators.of([Accelerator.parse(a) for a in frame["accelerator"]])
    layers = layers_of(study.space, genomes)
    measured = [quantity] if _basis(frame) else []
    own = engines.clocks(study, device) if clocks is None else clocks
    X, names = hardware_features(layers, acc, study.devices[device], measured, clocks=own)
    return X[quantity], names[quantity]


def margins(study: Study, frame: pd.DataFrame) -> Codes | None:
    """Return the margins on single images, (n, images), of rows of accuracy of `rows`; None unless
    all of them have some, of the same images."""
    there = study.store.series(MARGINS, frame["method"].iloc[0])
    found = [there.get((name, "", "")) for name in frame["architecture"]]
    sizes = {0 if codes is None else len(codes) for codes in found}
    return np.stack(found) if len(sizes) == 1 and 0 not in sizes else None  # type: ignore[arg-type]


def _basis(frame: pd.DataFrame) -> str:
    return basis(frame["method"].iloc[0])


def jobs(study: Study) -> list[tuple[str, str]]:
    """Return what is predicted, quantities and devices: accuracy is of none."""
    return [("accuracy", ""), *((q, name) for name in study.devices for q in QUANTITIES[1:])]


def learnt(study: Study, what: Iterable[tuple[str, str]], every: bool = False) -> list[str]:
    """Say in sentences what `fit` learns such `jobs` from, and how many rows of other methods it
    passes over: of those where it does, or of `every` one."""
    told: dict[str, list[str]] = {}
    for quantity, device in what:
        _, sizes, best = stored(study, quantity, device)
        of = "designs" if device else "networks"
        said = {each: f"{n} {of} ({_said(each[1])})" for each, n in sizes.items()}
        if first := said.pop(best, None):
            first = f"{LEARNT} of {first}" if sizes[best] > LEARNT else first
            over = f", and passes over {' and '.join(said.values())}" if said else ""
            if over or every:
                name = f"{quantity} on {device}" if device else quantity
                told.setdefault(f"from {first}{over}", []).append(name)
    return [f"`codesign fit` learns {', '.join(of)} {text}." for text, of in told.items()]


def _said(method: str) -> str:
    """A method in a word or two: with whose weights, by which model, or who measured."""
    kind = method.partition(" ")[0]
    return kind if kind in WEIGHTS else method.removeprefix(BY)


def fitted(study: Study) -> tuple[Predictors, dict[tuple[str, str], pd.DataFrame]]:
    """Fit all predictors to the study's rows, to LEARNT of each quantity and device at most; return
    them and these rows, with a column `drawn`: whether no prediction chose it.

    Nothing is stored. Raises InputError if there are too few rows.
    """
    picked = chosen(study)
    frames = {job: rows(study, *job) for job in jobs(study)}  # what is missing is said first
    clocks = {name: engines.clocks(study, name) for name in study.devices}
    for (quantity, _), frame in frames.items():
        _check(study, quantity, frame)
    frames = {job: _few(frame, picked) for job, frame in frames.items()}
    bar = iter(tqdm(frames.items(), desc="fit", unit="quantity"))
    _, frame = next(bar)
    y = frame["accuracy"].to_numpy(dtype=np.float64)
    model = fit_accuracy(
        study.space, study.space.genomes(frame["architecture"]), y, margins(study, frame)
    )
    predictors = Predictors(study.space, study.devices, model, clocks=clocks)
    for (quantity, device), frame in bar:
        X, _ = inputs(study, quantity, device, frame, clocks.get(device))
        y = frame[quantity].to_numpy(dtype=np.float64)
        predictors.hardware[quantity, device] = hardware_surrogate().fit(X, y)
        if rests_on := _basis(frame):
            predictors.basis[quantity, device] = rests_on
    return predictors, frames


def _few(frame: pd.DataFrame, picked: set[Key]) -> pd.DataFrame:
    """Return LEARNT rows of `rows` at most, by chance, and whether each was `drawn`: half of them
    that predictions chose, if there are as many, and as many more if fewer were drawn. Of those
    that were recorded, nobody knows: they count as drawn."""
    own = recorded(frame["method"].iloc[0])
    keys = frame[KEY].itertuples(index=False, name=None)
    drawn = np.array([own or key not in picked for key in keys])
    order = np.random.default_rng(len(frame)).permutation(len(frame))
    chosen = min((~drawn).sum(), max(LEARNT // 2, LEARNT - drawn.sum()))
    parts = order[drawn[order]][: LEARNT - chosen], order[~drawn[order]][:chosen]
    return frame.assign(drawn=drawn).iloc[np.sort(np.concatenate(parts))]


def _check(study: Study, quantity: str, frame: pd.DataFrame) -> None:
    """Raise InputError if a row of `rows` holds what no Gaussian process can learn from."""
    values = frame[quantity].astype(float)
    wrong = (values > MOST) | (values < -MOST if quantity == "accuracy" else values <= 0)
    for _, row in frame[wrong].iterrows():
        design = "@".join(filter(None, row[KEY]))
        by = row["method"].removeprefix(BY)
        own = recorded(row["method"])
        mend = f": remove it by `{study.command('record', '--forget', by)}`" if own else ""
        raise InputError(
            f"{quantity} of {design} is {row[quantity]:g}, by {by}, but must be positive and at "
            f"most {MOST:g}{mend}."
        )


def chosen(study: Study) -> set[Key]:
    """Return what was measured because predictions chose it, by `improve` or to be verified:
    designs, and architectures for their accuracy, whose accelerator and device are empty. Raises
    InputError if a file is damaged."""
    path, picked = study.root / CHOSEN, study.store.picked()
    if not path.exists():
        return picked
    try:
        designs = [design for part in read_json(path)["campaigns"] for design in part["designs"]]
        keys = [(d["architecture"], d["accelerator"], d["device"]) for d in designs]
        new = [(d["accuracy_new"], d["hardware_new"]) for d in designs]
        pairs = [*zip(keys, new, strict=True)]
        whole = picked | {key for key, (_, hardware) in pairs if hardware}
        return whole | {(key[0], "", "") for key, (accuracy, _) in pairs if accuracy}
    except (KeyError, TypeError):
        raise InputError(f"{path} is damaged: it holds no designs that were chosen.") from None


def fit(study: Study) -> pd.DataFrame:
    """Fit all predictors to the study's rows, store them, and return how good they are: `judged`'s
    table."""
    predictors, table = judged(study)
    save(study, predictors, table)
    return table


def save(study: Study, predictors: Predictors, table: pd.DataFrame) -> None:
    """Store what `judged` returned. Raises InputError if the study cannot be written."""
    study.save_predictors(predictors, _records(table))


def judged(study: Study) -> tuple[Predictors, pd.DataFrame]:
    """Fit all predictors to the study's rows, and return them and how good they are.

    The table has a row for each quantity, device and model: MAE in the quantity's unit, MAPE in %,
    R2, Kendall's tau, coverage (%) and width of the 90 % intervals on held-out rows (10-fold), and
    the leave-one-out MAE of the Gaussian process; where engines were measured, also MAPE and
    coverage on engines none of whose rows were learnt from; and the `method` of the rows. Rows that
    predictions chose, the number `chosen`, are learnt from but not counted: near the front, they
    would be no fair sample. Those that were recorded all count: others chose of which designs.
    """
    from .baselines import PROCESS, compare  # scikit-learn takes a second to load

    predictors, frames = fitted(study)
    tables = list[pd.DataFrame]()
    for (quantity, device), frame in tqdm(frames.items(), desc="test", unit="quantity"):
        X, _ = inputs(study, quantity, device, frame, predictors.clocks.get(device))
        y = frame[quantity].to_numpy(dtype=np.float64)
        drawn = frame["drawn"].to_numpy()
        if drawn.sum() < LEAST:
            raise InputError(
                f"{quantity} {f'on {device} ' if device else ''}was measured for {drawn.sum()} "
                f"designs that no prediction chose, but at least {LEAST} are needed: run "
                "`codesign profile` on this study."
            )
        model = predictors.hardware[quantity, device] if device else predictors.accuracy
        prior, other = 0 if device else None, None
        if isinstance(model, ImageSurrogate):
            other = _by_images(study, frame[drawn])
        report = compare(X[drawn], y[drawn], prior=prior, log=bool(device), other=other)
        report[[*ANEW]] = np.nan
        whose = frame["accelerator"].to_numpy()[drawn]
        if device and _basis(frame) and len(set(whose)) >= ENGINES:
            report[[*ANEW]] = _on_new_engines(X[drawn], y[drawn], whose)
        report.insert(0, "model", report.index)
        left_out = np.abs(model.leave_one_out()[0] - y)[drawn].mean()
        report["LOO MAE"] = np.where(report["model"] == PROCESS, left_out, np.nan)
        report.insert(0, "quantity", quantity)
        report.insert(1, "device", device)
        report.insert(2, "rows", int(drawn.sum()))
        report.insert(3, "chosen", int((~drawn).sum()))
        report.insert(4, "source", frame["source"].iloc[0])
        report["method"] = frame["method"].iloc[0]
        tables.append(report)
    return predictors, pd.concat(tables, ignore_index=True)


def _on_new_engines(X: np.ndarray, y: np.ndarray, engines: np.ndarray) -> pd.DataFrame:
    """Return MAPE and coverage (%) of each model on rows whose engine it has learnt nothing of."""
    from sklearn.model_selection import GroupKFold

    from .baselines import compare

    folds = GroupKFold(min(FOLDS, len(set(engines)))).split(X, groups=engines)
    table = compare(X, y, prior=0, log=True, splits=[*folds])
    return table[["MAPE", "coverage"]].set_axis([*ANEW], axis=1)


def _by_images(study: Study, frame: pd.DataFrame) -> "Other":
    """Return what predicts some of the rows from others by their margins, for `compare`."""
    codes, X = (
        margins(study, frame),
        image_features(study.space, study.space.genomes(frame["architecture"])),
    )
    assert codes is not None

    def other(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return ImageSurrogate().fit(X[train], codes[train]).estimate(X[test], COVERAGE)

    return other


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Plain records: a figure that a model does not have becomes null."""
    return [
        {str(key): (None if isinstance(value, float) and np.isnan(value) else value)
         for key, value in record.items()}
        for record in table.to_dict("records")
    ]  # fmt: skip
