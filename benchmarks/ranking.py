"""How shared weights, specialised ones, and Gaussian processes rank subnets trained alone, too.

    python benchmarks/ranking.py data/studies/fashion data/ranking.csv [--place cuda] [--workers 8]

Subnets spread over the sizes of the space, its extremes left out, are each trained alone with all
steps of the study's preset, once a seed, and tested; with the supernet's weights; specialised; and
predicted from 100 validation labels of other subnets, of either kind: those with the supernet's
weights are in data/accuracy.csv, those specialised in the study. `--workers` of them train side by
side: in processes of one thread each, or on CUDA, where processes would take turns, in threads of
one. Each finished row is kept, so a run that was killed goes on where it stopped. `--only alone`
trains what the table lists, and needs of the study its settings alone: the table may be begun on
one machine with `--only supernet`, and trained on another. Prints how far the rankings agree:
`--only report` does no more than that.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from tqdm.auto import tqdm

from codesign_kernel import datasets, specialise, train
from codesign_kernel.files import write_text
from codesign_kernel.space import Architecture, SearchSpace, space_of

LABELS = 100  # validation labels that the Gaussian process is fitted to
KEY = ["architecture", "seed"]
KINDS = ("supernet", "specialised")
SHARED = [f"{kind}_{what}" for kind in KINDS for what in ("validation", "test", "predicted")]
ALONE = ["alone_validation", "alone_test", "seconds", "place"]
RESAMPLES = 2000  # of the subnets, for the intervals of the rankings


class Task(NamedTuple):
    """What all subnets share: the study's space, data set and preset, where its images are, and
    torch's name of the processor."""

    space: SearchSpace
    dataset: str
    preset: train.Preset
    folder: Path | None
    place: str


@cache
def data_of(task: Task) -> datasets.Dataset:
    """Return the data set, read once a process."""
    return datasets.load(task.dataset, folder=task.folder, shape=task.space.input)


def plan(study: Path, subnets: int, seeds: int) -> pd.DataFrame:
    """Return the rows of an empty table: architectures and their MACs, once a seed.

    Any first few of them are spread over the sizes, too, if the time is up before the end.
    """
    # Imported here, as in `predicted`: the machine that trains may lack what these modules need.
    from codesign_kernel.measure import stratified
    from codesign_kernel.study import open_study
    from codesign_kernel.workload import totals

    opened = open_study(study)
    rng = np.random.default_rng([opened.seed, 7])
    genomes = stratified(opened.space, subnets + 2, rng)[2:]  # the first two are the extremes
    names = [str(opened.space.decode(genome)) for genome in genomes]
    once = pd.DataFrame({"architecture": names, "macs": totals(opened.space, genomes)[0]})
    rows = once.merge(pd.DataFrame({"seed": range(seeds)}), how="cross")
    return rows.reindex(columns=[*KEY, "macs", *SHARED, *ALONE])


def predicted(space: SearchSpace, labels: pd.DataFrame, architectures: list[str]) -> np.ndarray:
    """Return the accuracy (%) of each, predicted from LABELS of other subnets: columns
    `architecture` and `accuracy`."""
    from codesign_kernel import predict

    rows = labels[~labels["architecture"].isin(architectures)][:LABELS]
    if len(rows) < LABELS:
        raise ValueError(f"there are {len(rows)} labels of other subnets, but {LABELS} are needed.")
    X, _ = predict.accuracy_features(space, space.genomes(rows["architecture"]))
    model = predict.accuracy_surrogate().fit(X, rows["accuracy"])
    asked, _ = predict.accuracy_features(space, space.genomes(architectures))
    return np.asarray(model.predict(asked)).round(2)


def shared(task: Task, study: Path, architectures: list[str]) -> dict[str, dict[str, float]]:
    """Return the figures SHARED of each architecture, all in %."""
    from codesign_kernel import measure, meters
    from codesign_kernel.study import open_study

    opened, shipped = open_study(study), Path(__file__).parents[1] / "data" / "accuracy.csv"
    known = {
        "supernet": pd.read_csv(shipped).rename(columns={"validation": "accuracy"}),
        "specialised": measure.rows(opened, "accuracy"),
    }
    data, found = data_of(task), {name: dict[str, float]() for name in architectures}
    for kind in KINDS:
        meter = meters.WEIGHTS[kind](opened, task.folder)
        guesses = predicted(task.space, known[kind], architectures)
        for name, guess in zip(tqdm(architectures, kind, unit="subnet"), guesses, strict=True):
            network = meter.network(Architecture.parse(name))
            figures = [train.accuracy(network, part) for part in (data.validation, data.test)]
            columns = SHARED[3 * KINDS.index(kind) :][:3]
            found[name] |= dict(zip(columns, [*figures, float(guess)], strict=True))
    return found


def alone(task: Task, architecture: str, seed: int) -> dict[str, Any]:
    """Train one subnet from scratch and return the figures ALONE: %, %, s of training, place."""
    data, began = data_of(task), time.perf_counter()
    network = specialise.train_alone(
        task.space, Architecture.parse(architecture), data, task.preset, seed, task.place
    )
    seconds = round(time.perf_counter() - began, 1)
    parts = (data.validation, data.test)
    figures = [train.accuracy(network, part, task.place) for part in parts]
    return dict(zip(ALONE, [*figures, seconds, task.place], strict=True))


def report(table: pd.DataFrame) -> str:
    """Return how far rankings agree, in Markdown, on the subnets that all seeds have trained.

    Kendall's tau of each with test accuracy trained alone: its mean over the seeds, between which
    values 90 % of RESAMPLES of the subnets lie, and with each seed by itself; and with the test
    accuracy of the subnets specialised. The last row is that of the seeds with each other. Then
    what is left of accuracies without what size explains, by a line over the logarithm of MACs.
    """
    tests = table.pivot(index="architecture", columns="seed", values="alone_test").dropna()
    if len(tests) < 2 or table[SHARED].isna().any(axis=None):
        return "Too few subnets are trained and tested to be ranked."
    first = table.drop_duplicates("architecture").set_index("architecture").loc[tests.index]

    def tau(one: Any, two: Any) -> float:
        return float(kendalltau(one, two).statistic)

    mean = tests.mean(axis=1).round(6)  # what is equal ties
    tuned = first["specialised_test"]
    drawn = np.random.default_rng(0).integers(0, len(mean), (RESAMPLES, len(mean)))

    def ends(values: pd.Series) -> str:
        one, two = values.to_numpy(), mean.to_numpy()
        low, high = np.nanpercentile([tau(one[some], two[some]) for some in drawn], [5, 95])
        return f"{low:.2f} to {high:.2f}"

    rows = {
        "MACs": first["macs"],
        "supernet's weights, test images": first["supernet_test"],
        "supernet's weights, validation images": first["supernet_validation"],
        f"Gaussian process, {LABELS} such labels": first["supernet_predicted"],
        "specialised, test images": first["specialised_test"],
        "specialised, validation images": first["specialised_validation"],
        f"Gaussian process, {LABELS} labels of specialised": first["specialised_predicted"],
    }
    lines = [
        f"Kendall's tau with the test accuracy of {len(tests)} subnets trained alone:\n",
        f"| ranked by | mean of the seeds | 90 % of {RESAMPLES:,} resamples | each seed alone "
        "| specialised |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, values in rows.items():
        single = ", ".join(f"{tau(values, tests[seed]):.2f}" for seed in tests)
        own = "" if name == "specialised, test images" else f"{tau(values, tuned):.2f}"
        lines.append(f"| {name} | {tau(values, mean):.2f} | {ends(values)} | {single} | {own} |")
    pairs = [tau(tests[one], tests[two]) for one, two in combinations(tests, 2)]
    if pairs:
        floor = ", ".join(f"{value:.2f}" for value in pairs)
        lines.append(f"| another seed trained alone (mean {np.mean(pairs):.2f}) | | | {floor} | |")
        noise = np.sqrt(tests.var(axis=1).mean())
        lines.append(f"\nSeeds of one subnet differ by a standard deviation of {noise:.2f} points,")
        lines.append(f"subnets by one of {mean.std():.2f}.")
    size, ways = np.log(first["macs"].to_numpy(float)), (first["supernet_test"], tuned)

    def rest(values: pd.Series) -> pd.Series:
        return values - np.polyval(np.polyfit(size, values, 1), size)

    alone = rest(mean)
    lines.append("Without what log MACs explain, they do so by one of ")
    lines[-1] += f"{alone.std():.2f}. On the test images they are,"
    for name, values in zip(("with the supernet's weights", "specialised"), ways, strict=True):
        gap, left = mean - values, rest(values)
        agree = kendalltau(left, alone)
        lines.append(f"- {name}, {gap.mean():.2f} points worse ({gap.min():.2f} to ")
        lines[-1] += f"{gap.max():.2f}); without size they differ by {left.std():.2f},"
        lines.append(f"  which agrees with tau {agree.statistic:.2f} (p = {agree.pvalue:.2f}).")
    return "\n".join(lines)


def task_of(study: Path, steps: int | None, folder: Path | None, place: str) -> Task:
    """Return the task that a study's settings describe, with other `steps` if given."""
    settings: Mapping[str, Any] = json.loads((study / "study.json").read_text(encoding="utf-8"))
    preset = train.PRESETS[settings["preset"]]
    preset = replace(preset, steps=steps) if steps else preset
    return Task(space_of(settings["space"]), settings["dataset"], preset, folder, place)


def main() -> None:
    """Measure what is missing, then print how far the rankings agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--subnets", type=int, default=24, help="of a new table")
    parser.add_argument("--seeds", type=int, default=3, help="of a new table")
    parser.add_argument("--only", choices=("supernet", "alone", "report"))
    parser.add_argument("--place", default="cpu", help="torch's name of what trains")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="of the data set")
    parser.add_argument("--steps", type=int, help="fewer than the preset's, to try this out")
    asked = parser.parse_args()
    if asked.only == "report":
        print(report(pd.read_csv(asked.csv)))
        return
    task = task_of(asked.study, asked.steps, asked.folder, asked.place)
    if not asked.csv.exists():
        write_text(asked.csv, plan(asked.study, asked.subnets, asked.seeds).to_csv(index=False))
    table = pd.read_csv(asked.csv)
    rows = table.reindex(columns=[*KEY, "macs", *SHARED, *ALONE]).to_dict("records")

    def keep() -> pd.DataFrame:
        table = pd.DataFrame(rows)
        write_text(asked.csv, table.to_csv(index=False, float_format="%.8g"))
        return table

    lacking = dict.fromkeys(row["architecture"] for row in rows if np.isnan(row[SHARED[-1]]))
    if asked.only != "alone" and lacking:
        found = shared(task, asked.study, [*lacking])
        for row in rows:
            row |= found.get(row["architecture"], {})
        keep()
    pending = [row for row in rows if np.isnan(row["alone_test"])]
    if asked.only != "supernet" and pending:
        data_of(task)  # what is wrong with the data set is said once, before the work
        os.environ["TQDM_DISABLE"] = "1"  # in the workers: their bars would write over each other
        pool: Executor
        if asked.place.startswith("cuda"):
            pool = ThreadPoolExecutor(asked.workers)
        else:
            pool = ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn"))
        try:
            jobs = {pool.submit(alone, task, *(row[key] for key in KEY)): row for row in pending}
            for job in tqdm(as_completed(jobs), "train alone", len(jobs), unit="subnet"):
                jobs[job] |= job.result()
                keep()
        finally:  # what fails in one ends the others, too
            pool.shutdown(cancel_futures=True)
    print(report(keep()))


if __name__ == "__main__":
    main()
