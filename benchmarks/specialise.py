"""Specialised subnets beside the same architectures trained alone, on a study's data set.

    python benchmarks/specialise.py data/studies/fashion data/specialise.csv
    python benchmarks/specialise.py data/studies/fashion data/specialised.csv \\
        --subnets 100 --seeds 1 --ways supernet,specialised

Training alone takes all steps of the study's preset, specialising a seventh of them, with half the
batch; `longer` is specialising with all of them. Subnets are
spread over the sizes of the space, its extremes left out. Each finished figure is kept, so a run
that was killed goes on where it stopped. Prints the table and the mean gap.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from codesign_kernel import datasets, specialise, train
from codesign_kernel.files import write_text
from codesign_kernel.measure import stratified
from codesign_kernel.space import Architecture
from codesign_kernel.study import open_study
from codesign_kernel.workload import totals


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--subnets", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default="alone,supernet,specialised,longer")
    asked = parser.parse_args()
    study = open_study(asked.study)
    data = datasets.load(study.dataset, shape=study.space.input)
    preset = train.PRESETS[study.preset]
    # Of two more, the first two are the extremes.
    genomes = stratified(study.space, asked.subnets + 2, np.random.default_rng([study.seed, 6]))[2:]
    keys = [(str(study.space.decode(g)), seed) for seed in range(asked.seeds) for g in genomes]
    sizes = totals(study.space, genomes)[0]
    macs = {key: int(sizes[i % len(genomes)]) for i, key in enumerate(keys)}
    table = pd.DataFrame({"macs": macs}).rename_axis(["architecture", "seed"])
    if asked.csv.exists():
        table = pd.read_csv(asked.csv, index_col=["architecture", "seed"]).combine_first(table)
    for way in asked.ways.split(","):
        if way != "alone":
            supernet = train.load_supernet(study.supernet_path)
        if way in ("specialised", "longer"):  # once for all subnets, and not counted in their time
            answers = specialise.kept_answers(study.root, supernet, data)
        for key in keys:
            if f"{way}_test" in table and np.isfinite(table.loc[key, f"{way}_test"]):
                continue
            architecture = Architecture.parse(key[0])
            began = time.process_time()
            if way == "alone":
                network = specialise.train_alone(study.space, architecture, data, preset, key[1])
            elif way == "supernet":
                network = train.subnet(supernet, architecture, train.calibration_images(data))
            else:
                steps = preset.steps if way == "longer" else None
                network = specialise.specialise(
                    supernet, architecture, data, preset, key[1], answers, steps
                )
            table.loc[key, f"{way}_cpu_s"] = round(time.process_time() - began, 1)
            table.loc[key, f"{way}_validation"] = round(train.accuracy(network, data.validation), 2)
            table.loc[key, f"{way}_test"] = round(train.accuracy(network, data.test), 2)
            write_text(asked.csv, table.loc[keys].to_csv())
    if "alone" not in asked.ways.split(","):
        gap = (table["specialised_test"] - table["supernet_test"]).mean()
        print(f"Specialised, {len(table)} subnets are {gap:.2f} points better on test images.")
        return
    shown = table.groupby(level="architecture").agg(["mean", "std"])
    columns = ["supernet_test", "specialised_test", "longer_test", "alone_test"]
    print(shown[columns].to_string(float_format=lambda value: f"{value:.2f}"))
    for way in ("specialised", "longer"):
        cost = table[f"{way}_cpu_s"].sum() / table["alone_cpu_s"].sum()
        gap = (table[f"{way}_test"] - table["alone_test"]).mean()
        print(f"{way}: {gap:+.2f} points of test accuracy beside alone, in {cost:.2f} of its time.")


if __name__ == "__main__":
    main()
