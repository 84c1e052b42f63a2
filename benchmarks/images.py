"""Whether intervals of accuracy hold on other images than those that they are about.

    python benchmarks/images.py

Of both shipped studies: accuracies of specialised networks, predicted by what `codesign fit` makes
of the study, of networks that it has not learnt from: those of `data/specialised.csv`, and DIGITS
random ones, specialised here. Prints how many 90 % intervals hold the accuracy on the validation
images, and on the test images, in Markdown. A minute of one core.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import fits, measure, train
from codesign_kernel.meters import Specialised
from codesign_kernel.predict import COVERAGE, Predictors, fit_accuracy
from codesign_kernel.study import Study, open_study

DATA = Path(__file__).parents[1] / "data"
PARTS = ("validation", "test")
DIGITS = 300


def measured(study: Study, genomes: np.ndarray) -> pd.DataFrame:
    """Return the accuracy (%) of networks as exported, columns `architecture` and PARTS."""
    meter, rows = Specialised(study), []
    for genome in tqdm(genomes, "specialise", unit="network"):
        architecture = study.space.decode(genome)
        network = meter.network(architecture)
        figures = {part: train.accuracy(network, getattr(meter.dataset, part)) for part in PARTS}
        rows.append({"architecture": str(architecture)} | figures)
    return pd.DataFrame(rows)


def held(study: Study, table: pd.DataFrame) -> dict[str, tuple[float, float, int]]:
    """Return for each of PARTS the share of intervals that hold (%), by how many points accuracies
    are above the predictions in the mean, and of how many networks. `table` has the columns
    `architecture` and PARTS, in %."""
    rows = measure.rows(study, "accuracy")
    space, known = study.space, rows["architecture"]
    model = fit_accuracy(
        space, space.genomes(known), rows["accuracy"].to_numpy(float), fits.margins(study, rows)
    )
    others = table[~table["architecture"].isin(known)]
    X = Predictors(space, {}, model).accuracy_inputs(space.genomes(others["architecture"]))
    mean, low, high = model.estimate(X, COVERAGE)
    found = {}
    for part in PARTS:
        truth = others[part].to_numpy(float)
        inside = (low <= truth) & (truth <= high)
        found[part] = float(100 * inside.mean()), float((truth - mean).mean()), len(others)
    return found


def main() -> None:
    """Print a row for each study and kind of images."""
    fashion, digits = (open_study(DATA / "studies" / name) for name in ("fashion", "digits"))
    shipped = pd.read_csv(DATA / "specialised.csv")
    columns = {f"specialised_{part}": part for part in PARTS}
    genomes = digits.space.sample(DIGITS, np.random.default_rng(0))
    tables = shipped.rename(columns=columns), measured(digits, genomes)
    print("| study | networks | images | 90 % intervals that hold (%) | above predicted (points) |")
    print("|---|--:|---|--:|--:|")
    for study, table in zip((fashion, digits), tables, strict=True):
        for part, (share, above, n) in held(study, table).items():
            print(f"| {study.root.name} | {n:,} | {part} | {share:.0f} | {above:+.2f} |")


if __name__ == "__main__":
    main()
