"""Whether intervals of accuracy hold on other images than those that they are about.

    python benchmarks/images.py

Of both shipped studies: accuracies with the supernet's weights, predicted by what `codesign fit`
makes of the study, of networks that it has not learnt from: the 300 subnets of `data/accuracy.csv`,
and all others of `data/truth/digits`. Prints how many 90 % intervals hold the accuracy on the
validation images, and on the test images, in Markdown. Seconds of one core.
"""

from pathlib import Path

import pandas as pd

from codesign_kernel import fits, measure
from codesign_kernel.files import read_arrays
from codesign_kernel.predict import COVERAGE, Predictors, fit_accuracy
from codesign_kernel.study import Study, open_study

DATA = Path(__file__).parents[1] / "data"
PARTS = ("validation", "test")


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
    arrays, _ = read_arrays(DATA / "truth" / "digits" / "accuracy.safetensors")
    names = [str(digits.space.decode(genome)) for genome in digits.space.enumerate()]
    whole = pd.DataFrame({"architecture": names, **{part: arrays[part] for part in PARTS}})
    print("| study | networks | images | 90 % intervals that hold (%) | above predicted (points) |")
    print("|---|--:|---|--:|--:|")
    for study, table in ((fashion, pd.read_csv(DATA / "accuracy.csv")), (digits, whole)):
        for part, (share, above, n) in held(study, table).items():
            print(f"| {study.root.name} | {n:,} | {part} | {share:.0f} | {above:+.2f} |")


if __name__ == "__main__":
    main()
