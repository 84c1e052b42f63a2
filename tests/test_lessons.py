"""The lessons' experiments: on cases whose answer is known, and their figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from codesign_kernel import charts, lessons, truth
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.baselines import zero_mean_process
from codesign_kernel.constraints import Constraints
from codesign_kernel.errors import InputError
from codesign_kernel.quantities import TITLES
from codesign_kernel.space import load_space

DATA = Path(__file__).parents[1] / "data"


def test_engines_that_were_placed_are_counted_by_what_they_hold() -> None:
    table = lessons.placed([load_device("ecp5-25f"), load_device("ecp5-85f")])
    assert set(table["device"]) == {"ecp5-25f", "ecp5-85f"}
    assert (table["dsp"] == table["dsp_modelled"]).all()  # the closed form counts these exactly
    assert table["full"].between(0, 100).all()
    row = table.iloc[0]
    one, device = Accelerator.parse(row["engine"]), load_device(row["device"])
    assert row["multipliers"] == one.pf * one.pc * one.pv
    assert row["full"] == pytest.approx(100 * row["lut"] / device.lut)
    found = lessons.clocks(table)
    for by in ("multipliers", "LUTs used (%)"):
        assert found.loc[by, "count"].sum() == len(table)
    few = table[table["multipliers"] == row["multipliers"]]["clock_mhz"]
    assert found.loc[("multipliers", row["multipliers"]), "median"] == few.median()
    assert lessons.off(pd.Series([100.0, 50]), pd.Series([103.0, 49])) == (
        "2.5 % in the median, 3.0 % at most"
    )


def test_misses_are_drawn_in_per_cent_and_counted() -> None:
    y, mean = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.2, 3.0])
    chart = lessons.misses("latency_ms", "measured", y, mean, mean - 0.5, mean + 0.5)
    svg = charts.to_svg(chart)
    for words in ("2 of 3 90 % intervals hold the measured value", "mean width is 1.0000 ms"):
        assert words in svg
    off = chart.layer[2].data["predicted"].tolist()
    assert off == pytest.approx([0, 10, -25])


def test_what_is_tested_on_was_not_fitted_to() -> None:
    found = lessons.held_out(12, (4, 8), 2)
    assert [(n, draw) for n, draw, _ in found] == [(4, 0), (4, 1), (8, 0), (8, 1)]
    for _, _, order in found:
        assert sorted(order) == list(range(12))
    assert (found[0][2] == found[2][2]).all()  # more rows are added to those before
    assert (found[0][2] != found[1][2]).any()
    with pytest.raises(InputError, match="n is 11, but must be"):
        lessons.held_out(12, (11,), 1)


def test_quality_is_counted() -> None:
    y = np.array([1.0, 2.0, 4.0])
    found = lessons.quality(y, np.array([1.0, 1.0, 6.0]), y - 1, np.array([1.5, 1.5, 4.0]))
    assert found == pytest.approx({"error": 100 / 3, "MAE": 1, "coverage": 200 / 3, "width": 1})


def test_a_true_formula_helps_most_where_rows_are_few() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(1, 10, (80, 3))
    X[:, 0] = np.exp(np.sin(3 * X[:, 1])) * X[:, 2]
    y = 3 * X[:, 0] * np.exp(0.01 * rng.normal(size=80))
    found = lessons.prior_means(X, y, (10, 40), draws=2)
    assert len(found) == 8
    error = found.groupby(["mean", "n"])["error"].mean()
    assert error["formula"].max() < 3
    assert error["constant", 10] > 3 * error["formula", 10]


def test_left_out_errors_are_those_of_fits_without_the_row() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(15, 2))
    y = X[:, 0] + 0.3 * rng.normal(size=15)
    model = zero_mean_process(2).fit(X, y)
    errors = []
    for i in range(15):
        one = clone(model).set_params(kernel=model.kernel_, optimizer=None, normalize_y=False)
        scaled = (y - y.mean()) / y.std()
        one.fit(np.delete(X, i, axis=0), np.delete(scaled, i))
        mean, std = one.predict(X[[i]], return_std=True)
        errors.append(abs(scaled[i] - mean[0]) / std[0])
    assert lessons.left_out(model) == pytest.approx(sorted(errors)[14], rel=1e-6)  # 0.9 * 16 > 14


def test_priors_keep_promises_that_maximum_likelihood_breaks() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(80, 8))
    y = X @ rng.normal(size=8) + rng.normal(size=80)
    found = lessons.intervals(X, y, (20,), draws=3)
    assert len(found) == 12
    coverage = found.groupby(["fit", "corrected"])["coverage"].mean()
    assert coverage["with priors", "yes"] > 80
    assert coverage["maximum likelihood", "no"] < coverage["with priors", "no"] - 10
    # A correction moves the ends of the intervals, and nothing else.
    assert (found.groupby(["draw", "fit"])["MAE"].nunique() == 1).all()


@pytest.fixture(scope="module")
def layer() -> pd.DataFrame:
    return pd.read_csv(DATA / "cliff.csv")


def test_cycles_jump_where_the_table_says(layer: pd.DataFrame) -> None:
    assert layer["channels"].tolist() == list(range(1, 161))
    steps = layer["cycles"].diff().to_numpy()[1:]
    assert set(np.flatnonzero(steps) + 1) == set(range(8, 160, 8))  # eight channels a step
    assert layer["macs"].tolist() == [32 * 9 * 14 * 14 * c for c in layer["channels"]]


def test_no_process_sees_a_cliff_beyond_its_rows(layer: pd.DataFrame) -> None:
    found = lessons.cliff(layer, last=104)
    assert found[found["fitted"]]["channels"].max() == 101
    beyond = found[found["channels"] > 112].assign(
        off=lambda rows: (rows["predicted"] / rows["cycles"] - 1).abs()
    )
    off = beyond.groupby("prior")["off"].mean()
    assert off[lessons.PRIORS[0]] > 2 * off[lessons.PRIORS[1]]
    inside = (found["low"] <= found["cycles"]) & (found["cycles"] <= found["high"])
    assert (inside == found["inside"]).all()
    svg = charts.to_svg(lessons.cliff_chart(found))
    for name in lessons.PRIORS:
        count = int(found[(found["prior"] == name) & ~found["fitted"]]["inside"].sum())
        assert f"{count} {name}" in svg
    for word in ("Of the 147 held out", "Cycles of the layer (thousands)", *lessons.MARKS):
        assert word in svg
    with pytest.raises(InputError, match="last is 8, but must be"):
        lessons.cliff(layer, last=8)


def small_truth(latency: list[list[float]], power: list[list[float]]) -> truth.Truth:
    """Three architectures on some engines."""
    space, accuracy = load_space("digits"), np.array([90.0, 95.0, 99.0])
    engines = tuple(Accelerator.parse(f"{4 << i}x4x1w16f16") for i in range(len(latency)))
    return truth.Truth(space, load_device("ecp5-45f"), space.enumerate()[:3], engines, accuracy,
                       accuracy, np.array(latency), np.array(power))  # fmt: skip


def test_two_steps_lose_what_another_engine_would_like() -> None:
    # On the first engine the middle network is slower than the best one; on the second the fastest.
    found = lessons.true_steps(
        small_truth([[1.0, 3.0, 2.0], [4.0, 0.5, 8.0]], [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    ).set_index(["engine", "goals"])
    first, second = found.index.get_level_values("engine").unique()
    assert found.loc[first, "networks"].tolist() == [2, 2]
    # Of the true front (2 on the first, 1 and 2 on the second), one is dropped.
    assert found.loc[first, "dropped"].tolist() == pytest.approx([100 / 3, 100 / 3])
    assert (found.loc[first, "hypervolume"] < 99).all()
    assert found.loc[second, "networks"].tolist() == [2, 2]


def test_two_steps_lose_nothing_on_one_engine_if_they_see_all_goals() -> None:
    found = lessons.true_steps(small_truth([[1.0, 2.0, 2.0]], [[0.4, 0.3, 0.5]]))
    found = found.set_index("goals")
    assert found.loc[3, ["hypervolume", "dropped"]].tolist() == pytest.approx([100, 0])
    assert found["networks"].tolist() == [2, 3]  # the second network takes the least power
    assert found.loc[2, "dropped"] == pytest.approx(100 / 3)
    assert found.loc[2, "hypervolume"] < 99


def test_the_shipped_truth_is_read() -> None:
    found = lessons.true_steps(truth.load(DATA / "truth" / "digits", load_space("digits")))
    assert len(found) >= 4
    assert found["hypervolume"].between(0, 100 + 1e-9).all()
    volume = found.pivot_table(index="engine", columns="goals", values="hypervolume")
    assert (volume[3] >= volume[2]).all()  # who keeps more networks loses no less


def test_what_was_dropped_is_drawn_and_counted() -> None:
    joint = pd.DataFrame({"architecture": ["a", "b", "a", "c"], "latency_ms": [1.0, 2, 3, 4]})
    joint["power_w"] = [4.0, 3, 2, 1]
    svg = charts.to_svg(lessons.steps_chart(joint, ["a", "b"]))
    for word in ("Predicted; 25 % of the joint front", *lessons.STEPS, TITLES["power_w"]):
        assert word in svg


def test_promises_are_counted() -> None:
    table = pd.DataFrame(
        {
            "confidence": [0.5, 0.5, 0.9],
            "max_latency_ms": 1.0, "min_accuracy": 90.0,
            "latency_ms": [0.9, 1.1, 1.0], "worst_ms": [1.0, 1.0, 0.9],
            "accuracy": [91.0, 91.0, 90.0], "worst_accuracy": [92.0, 90.5, 90.0],
        }
    )  # fmt: skip
    found = lessons.promises(table)
    assert found.loc[50].tolist() == [50, 50, 50]
    assert found.loc[90].tolist() == [100, 0, 100]
    first, last = lessons.broken(found).splitlines()
    assert first.startswith("With 50 %: of ten designs 5.0 missed a limit; 5.0 were slower")
    assert last.endswith("0.0 missed a limit; 10.0 were slower, and 0.0 less accurate, than each "
                         "was said to be.")  # fmt: skip


def test_margins_are_told_apart_for_engines_whose_clock_is_known() -> None:
    front = pd.DataFrame({
        "accelerator": ["4x4x1w16f16", "8x8x1w32f32", "4x4x1w16f16"],
        "device": ["ecp5-85f", "ecp5-85f", "ecp5-25f"],
        "latency_ms": [1.9, 1.0, 1.5], "power_w": 0.4,
    })  # fmt: skip
    known = {"ecp5-85f": Accelerators.of([Accelerator.parse("4x4x1w16f16")])}
    both = Constraints(max_latency_ms=2.0, max_power_w=0.5)
    assert lessons.margins(front, both, known).splitlines() == [
        "  1 on engines that were placed and routed; to 1.900 ms, 5 % below its limit; to 0.400 W, "
        "20 % below its limit",
        "  2 on others; to 1.500 ms, 25 % below its limit; to 0.400 W, 20 % below its limit",
    ]
    latency = lessons.margins(front[:1], Constraints(max_latency_ms=2.0), known)
    assert " W" not in latency
    assert len(latency.splitlines()) == 1  # others are none
