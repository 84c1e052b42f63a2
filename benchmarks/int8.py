"""Test accuracy of int8 subnets beside the same subnets in float32, on a study's data set.

    python benchmarks/int8.py data/studies/fashion data/int8.csv

Scales are chosen on the training images that BN statistics are taken on. Subnets are spread over
the sizes of the space, the extremes among them. A run that was killed goes on where it stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from codesign_kernel import datasets, quantize, train
from codesign_kernel.files import write_text
from codesign_kernel.measure import stratified
from codesign_kernel.study import open_study


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--subnets", type=int, default=12)
    asked = parser.parse_args()
    study = open_study(asked.study)
    data = datasets.load(study.dataset, shape=study.space.input)
    supernet = train.load_supernet(study.supernet_path)
    calibration = train.calibration_images(data)
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    known = {row["architecture"] for row in rows}
    genomes = stratified(study.space, asked.subnets, np.random.default_rng([study.seed, 8]))
    for architecture in map(study.space.decode, genomes):
        if str(architecture) in known:
            continue
        network = train.subnet(supernet, architecture, calibration)
        small = quantize.quantize(network, calibration)
        exact, rounded = train.accuracy(network, data.test), quantize.accuracy(small, data.test)
        rows.append({"architecture": str(architecture), "float32": exact, "int8": rounded})
        table = pd.DataFrame(rows).round(2)
        table["points"] = (table["int8"] - table["float32"]).round(2)
        write_text(asked.csv, table.to_csv(index=False))
    print(pd.read_csv(asked.csv).to_string(index=False))


if __name__ == "__main__":
    main()
