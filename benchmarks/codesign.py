"""What it costs to answer one constraint set, four, and sixteen: this method, and one-loop ways.

    python benchmarks/codesign.py data/studies/fashion data/codesign.csv benchmarks/codesign.svg

A constraint set is a bound on latency and one on power, on the ECP5 45F; asked for is the most
accurate design within them. Counts are of what each way really asks for, see benchmarks/oneloop.py;
seconds of a core are means of what was measured, times these counts: those that shipped data hold,
and some that are measured here, in data/codesign_seconds.csv. What the models of hardware rest on,
data/implementations.csv and data/activity.csv, was made once and is not counted. Rows are kept as
they come: a run that was killed goes on. Some 20 minutes.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import oneloop
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import charts, fits, measure, routed
from codesign_kernel.charts import alt
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import explore
from codesign_kernel.files import read_arrays, write_text
from codesign_kernel.meters import SIMULATION
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.study import Study, open_study

DEVICE = "ecp5-45f"
LATENCIES_MS, POWERS_W = (0.4, 1.6, 0.2, 0.8), (0.4, 0.32, 0.45, 0.36)
# The first, the first four and all are a grid of 1, of 2 x 2 and of 4 x 4.
SETS = [
    Constraints(max_latency_ms=LATENCIES_MS[i], max_power_w=POWERS_W[j])
    for i, j in sorted(np.ndindex(4, 4), key=lambda ij: (max(ij), ij))
]
COUNTS = (1, 4, 16)
SEEDS = 3
COMPILED = 3  # engines compiled to learn how long that takes
OURS = "ours"
TRUSTED = "ours, predictions trusted"
PARTS = ("train_h", "route_h", "simulate_h", "search_h")


def spent() -> float:
    """Seconds of processor time of this process and those it started."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def recorded(study: Study, data: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Return seconds that shipped data hold, by step, and where they stand."""
    alone = pd.read_csv(data / "specialise.csv")
    engines = pd.read_csv(data / "implementations.csv").query("device == @DEVICE")
    engines["cpu_s"] = engines["synthesis_cpu_s"] + engines["route_cpu_s"]
    used = {str(acc) for acc in profiled(study)}
    with closing(sqlite3.connect(f"file:{study.store.path}?mode=ro", uri=True)) as connection:
        rows = pd.read_sql_query("SELECT * FROM measurement", connection)
    accuracy = rows[rows["quantity"] == "accuracy"]
    here = (rows["device"] == DEVICE) & (rows["quantity"] == "cycles")
    simulated = rows[here & (rows["method"] == SIMULATION)]
    about = read_arrays(study.supernet_path)[1]
    name = f"studies/{study.root.name}"
    return {
        "train the supernet": (np.array([float(about["seconds"])]), f"{name}, wall clock"),
        "accuracy of a subnet": (accuracy["seconds"].to_numpy(), f"{name}, wall clock"),
        "simulate a design": (simulated["seconds"].to_numpy(), f"{name}, wall clock"),
        "train a network alone": (alone["alone_cpu_s"].to_numpy(), "specialise.csv"),
        "specialise a subnet": (alone["specialised_cpu_s"].to_numpy(), "specialise.csv"),
        "place and route, profiled engines": (
            engines[engines["accelerator"].isin(used) & (engines["seed"] == 1)]["cpu_s"].to_numpy(),
            "implementations.csv"),
        "place and route an engine": (engines["cpu_s"].to_numpy(), "implementations.csv"),
    }  # fmt: skip


def profiled(study: Study) -> list[str]:
    """The engines of the designs that were measured."""
    return sorted(set(measure.rows(study, "latency_ms", DEVICE)["accelerator"]))


def answers(study: Study) -> list[float]:
    """Measure the largest subnet's answers to the training images, from which subnets learn."""
    from codesign_kernel import datasets, specialise, train

    data = datasets.load(study.dataset, shape=study.space.input)
    supernet, began = train.load_supernet(study.supernet_path), spent()
    specialise.answers_of(supernet, data)
    return [spent() - began]


def fit(study: Study) -> list[float]:
    """Measure `codesign fit`, on all devices and with its report of held-out rows."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(study.root, Path(folder, "study"))
        began = spent()
        fits.fit(open_study(copy))
        return [spent() - began]


def compiling(study: Study) -> list[float]:
    """Measure how long it takes to compile some of the engines that were placed and routed."""
    from codesign_kernel.simulate import build

    device, kept, taken = study.device(DEVICE), os.environ.get("XDG_CACHE_HOME"), []
    engines = routed.engines(device)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            for place in np.linspace(0, len(engines) - 1, COMPILED).astype(int):
                began = spent()
                build(Shape(engines[place], device.port_bits))
                taken.append(spent() - began)
        finally:
            if kept is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = kept
    return taken


def seconds(study: Study, data: Path, path: Path) -> pd.DataFrame:
    """Return seconds of a core by step, of which those that lack are measured and stored."""
    old = pd.read_csv(path, index_col="step") if path.exists() else pd.DataFrame()
    own = {"the teacher's answers": answers, "fit": fit, "compile an engine": compiling}
    rows = {}
    for step, (values, source) in recorded(study, data).items():
        rows[step] = summary(values, f"measured: {source}")
    for step, how in own.items():
        if step in old.index:
            rows[step] = old.loc[step].to_dict()
        else:
            rows[step] = summary(np.array(how(study)), "measured: codesign.py")
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")
        write_text(path, table.to_csv())
    return table


def summary(values: np.ndarray, source: str) -> dict[str, float | str]:
    """Describe measured seconds (n,)."""
    kept = {"mean_s": values.mean(), "least_s": values.min(), "most_s": values.max()}
    return {"n": len(values), **{k: round(float(v), 2) for k, v in kept.items()}, "source": source}


def ours(study: Study, seed: int) -> list[dict[str, object]]:
    """Explore for each constraint set, and choose the most accurate of the front."""
    predictors, known = study.predictors(), set(profiled(study))
    rows, search = [], 0.0
    chosen: set[tuple[str, str]] = set()
    for i, bounds in enumerate(SETS, start=1):
        began = time.process_time()
        front = explore(predictors, [DEVICE], bounds, seed=seed).front
        search += time.process_time() - began
        chosen.add(tuple(front.loc[front["accuracy"].idxmax(), ["architecture", "accelerator"]]))
        if i in COUNTS:
            networks, engines = ({design[k] for design in chosen} for k in (0, 1))
            for way, true in ((OURS, True), (TRUSTED, False)):
                rows.append({
                    "way": way, "kept": "all", "seed": seed, "sets": i, "answered": i,
                    "trainings": 1, "specialised": len(networks),
                    "routed": len(known) + true * len(engines - known),
                    "simulated": len(measure.rows(study, "latency_ms", DEVICE))
                    + true * len(chosen),
                    "search_s": round(search, 1),
                })  # fmt: skip
    return rows


def theirs(study: Study, way: str, seed: int) -> list[dict[str, object]]:
    """Run a one-loop way for each constraint set; with all thrown away after each, and kept."""
    predictors, run = study.predictors(), oneloop.WAYS[way]
    once = run is oneloop.one_front
    labs: list[oneloop.Lab] = []
    answered, search, rows = 0, 0.0, []
    for i, bounds in enumerate(SETS, start=1):
        if i == 1 or not once:
            labs.append(oneloop.Lab(predictors, DEVICE))
            began = time.process_time()
            found = run(labs[-1], bounds, np.random.default_rng([seed, 12]))
            search += time.process_time() - began
        inside = (oneloop.excess(found[:, 1:], bounds) == 0) & np.isfinite(found[:, 0])
        answered += int(inside.any())
        if i in COUNTS:
            sides = [[getattr(lab, name) for lab in labs] for name in
                     ("trained", "routed", "simulated")]  # fmt: skip
            for kept in ("all",) if once else ("nothing", "all"):
                counts = [sum(map(len, side)) if kept == "nothing" else len(set().union(*side))
                          for side in sides]  # fmt: skip
                rows.append({
                    "way": way, "kept": kept, "seed": seed, "sets": i, "answered": answered,
                    "trainings": counts[0], "specialised": 0, "routed": counts[1],
                    "simulated": counts[2], "search_s": round(search, 1),
                })  # fmt: skip
    return rows


def hours(table: pd.DataFrame, steps: pd.DataFrame, engines: int, rows: int) -> pd.DataFrame:
    """Return the table with hours of a core by PARTS; of them `measured_h` were really spent, the
    others are a measured mean times a count. `engines` and accuracies of `rows` were profiled."""
    s, own = steps["mean_s"], table["way"].isin((OURS, TRUSTED))
    once = s["train the supernet"] + s["the teacher's answers"] + rows * s["accuracy of a subnet"]
    placed = engines * s["place and route, profiled engines"]
    tuned = table["specialised"] * s["specialise a subnet"]
    alone = table["trainings"] * s["train a network alone"]
    search = table["search_s"] + own * s["fit"]
    parts = {
        "train_h": np.where(own, once + tuned, alone),
        "route_h": own * placed
        + (table["routed"] - own * engines) * s["place and route an engine"],
        "simulate_h": table["simulated"] * s["simulate a design"]
        + table["routed"] * s["compile an engine"],
        "search_h": search,
    }  # fmt: skip
    full = table.assign(**{name: value / 3600 for name, value in parts.items()})
    full["measured_h"] = (own * (once + placed) + search) / 3600
    full["cpu_h"] = full[list(PARTS)].sum(axis=1)
    return full.round(dict.fromkeys((*PARTS, "measured_h", "cpu_h"), 3))


def picture(table: pd.DataFrame) -> alt.HConcatChart:
    """Draw trainings, engines routed and hours of a core against constraint sets, by way."""
    means = table.groupby(["way", "kept", "sets"], sort=False).mean(numeric_only=True).reset_index()
    ways = list(dict.fromkeys(means["way"]))
    colours = alt.Scale(domain=ways, range=[charts.STAGES[i] for i in (1, 5, 3, 4, 2, 6)])
    x = alt.X("sets:Q", title="Constraint sets", axis=alt.Axis(values=list(COUNTS), grid=False),
              scale=alt.Scale(type="log", base=2, domain=[0.9, 17.8], nice=False))  # fmt: skip
    panels = []
    for column, title in (("trainings", "Networks trained from scratch"),
                          ("routed", "Engines placed and routed"),
                          ("cpu_h", "Hours of a core, for the most part modelled")):  # fmt: skip
        y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(type="log", nice=False),
                  axis=alt.Axis(values=[1, 3, 10, 30, 100, 300, 1000], format=","))  # fmt: skip
        dashes = alt.Scale(domain=["all", "nothing"], range=[[1, 0], [4, 3]])
        dash = alt.StrokeDash("kept:N", title="Kept from one set to the next", scale=dashes)
        base = alt.Chart(means).encode(
            x, y, alt.Color("way:N", title=None, scale=colours), alt.Detail("kept:N")
        )
        panels.append(alt.layer(
            base.mark_line(strokeWidth=2).encode(dash), base.mark_point(filled=True, size=35)
        ).properties(width=190, height=240))  # fmt: skip
    about = [
        "Asked for: the most accurate design within bounds on latency and power. Fashion-MNIST "
        "on an ECP5 45F.",
        "Counted by running the ways; hours are measured means times counts, besides the tables of "
        "implementations",
        "and activity that come with the program.",
    ]
    title = alt.TitleParams("What more constraint sets cost", subtitle=about)
    legend = {"orient": "bottom", "labelLimit": 0, "titleLimit": 0, "columns": 3}
    return alt.hconcat(*panels, title=title, background="white").configure_legend(**legend)


def main() -> None:
    """Measure and count what is missing, then draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("svg", type=Path)
    asked = parser.parse_args()
    study, data = open_study(asked.study), asked.csv.parent
    steps = seconds(study, data, asked.csv.with_name(f"{asked.csv.stem}_seconds.csv"))
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    there = {(row["way"], row["seed"]) for row in rows}
    todo = [(way, seed) for way in (OURS, *oneloop.WAYS) for seed in range(SEEDS)
            if (way, seed) not in there]  # fmt: skip
    profile = len(profiled(study)), len(measure.rows(study, "accuracy"))
    for way, seed in tqdm(todo, "ways", unit="run"):
        rows += ours(study, seed) if way == OURS else theirs(study, way, seed)
        write_text(asked.csv, hours(pd.DataFrame(rows), steps, *profile).to_csv(index=False))
    table = hours(pd.DataFrame(rows), steps, *profile)
    write_text(asked.csv, table.to_csv(index=False))
    write_text(asked.svg, charts.to_svg(picture(table)))
    numbers = ["answered", "trainings", "specialised", "routed", "simulated", "cpu_h"]
    means = table.groupby(["way", "kept", "sets"], sort=False)[numbers]
    print(means.mean().round(1).to_string())
    spread = (means.max() - means.min())["cpu_h"].max()
    print(f"Means of {SEEDS} seeds, which differ by at most {spread:.1f} h.")


if __name__ == "__main__":
    main()
