"""Every figure has its axes, units and source, and holds the numbers it was given."""

import subprocess
import sys

import altair as alt
import numpy as np
import pandas as pd
import pytest
import tiny
from drawn import marks, texts

from codesign_kernel import charts, cycles
from codesign_kernel.accelerator import load_device
from codesign_kernel.explore import Designs, table
from codesign_kernel.quantities import TITLES
from codesign_kernel.simulate import CAUSES
from codesign_kernel.workload import layers_of


@pytest.fixture(scope="module")
def front() -> pd.DataFrame:
    """Rows as `explore.table` gives them, of two devices."""
    predictors = tiny.predictors()
    parts = []
    for seed, (name, device) in enumerate(predictors.devices.items()):
        genomes, acc = tiny.pairs(tiny.SPACE, device, 6, seed)
        means = predictors.means(genomes, acc, name)
        parts.append(table(predictors, Designs(name, genomes, acc, means)))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def layers() -> pd.DataFrame:
    """Layers as `Study.layers` gives them."""
    device = load_device("ecp5-85f")
    genomes, acc = tiny.pairs(tiny.SPACE, device, 1, 3)
    found = layers_of(tiny.SPACE, genomes)
    spent = cycles.cycles(found, acc[0], cycles.Port.of(device))
    columns = {name: getattr(found, name)[0] for name in ("filters", "kernel", "height", "width")}
    frame = pd.DataFrame(
        {"layer": found.names, "residual": found.residual[0], **columns,
         **{cause: getattr(spent, cause)[0] for cause in CAUSES}, "cycles": spent.total[0]}
    )  # fmt: skip
    return frame[frame["filters"] > 0].reset_index(drop=True)


def test_pareto_names_quantities_units_and_source(front: pd.DataFrame) -> None:
    words = texts(charts.pareto(front))
    assert "Predicted; power is modelled, measured on no board" in words
    for expected in ("Pareto set", *list(TITLES.values())[:3], *tiny.DEVICES):
        assert expected in words


def test_pareto_draws_each_design_and_its_intervals_if_asked(front: pd.DataFrame) -> None:
    one = front[front["device"] == "ecp5-25f"]
    assert marks(charts.pareto(one), "symbol") == len(one)
    assert marks(charts.pareto(one), "rule") == 0
    assert marks(charts.pareto(one, intervals=True), "rule") == 2 * len(one)
    assert "Device" not in texts(charts.pareto(one))


def test_of_a_large_front_some_designs_are_drawn_its_ends_among_them(front: pd.DataFrame) -> None:
    many = pd.concat([front] * 500, ignore_index=True)  # more than Altair takes
    many["accuracy"] = np.linspace(80, 90, len(many))
    chart = charts.pareto(many)
    assert marks(chart, "symbol") == charts.POINTS
    assert f"{charts.POINTS:,} of its {len(many):,} designs are drawn" in "".join(texts(chart))
    drawn = chart.data["accuracy"]
    assert (drawn.min(), drawn.max()) == (80, 90)
    assert marks(charts.pareto(many, intervals=True), "symbol") == charts.BARS


def test_layers_bars_are_the_time_of_the_layer_by_cause(layers: pd.DataFrame) -> None:
    chart = charts.layers(layers)
    drawn = chart.data.groupby("layer", sort=False)["cycles"].sum()
    np.testing.assert_allclose(drawn[layers["layer"]], layers["cycles"])
    words = texts(chart)
    for expected in ("Where the cycles go", "Cycles, modelled", *CAUSES, *layers["layer"]):
        assert expected in words
    assert "Cycles, measured" in texts(charts.layers(layers, "measured"))


def test_causes_have_the_names_of_the_simulation_and_colours_of_their_own() -> None:
    assert set(charts.CAUSES) == set(CAUSES)
    assert len(set(charts.CAUSES.values())) == len(CAUSES)


def test_architecture_shows_each_layer_with_its_kernel(layers: pd.DataFrame) -> None:
    words = texts(charts.architecture(layers))
    kernels = [f"{kernel}×{kernel}" for kernel in layers["kernel"]]
    assert [word for word in words if "×" in word] == kernels
    for expected in ("Architecture", "Filters", "stem", "stage 1", "stage 2", "classifier"):
        assert expected in words


def test_architecture_of_many_stages_keeps_a_colour_for_each() -> None:
    names = ["stem", *(f"s{i}b1" for i in range(1, 7)), "classifier"]
    table = pd.DataFrame({"layer": names, "filters": 8, "kernel": 3, "height": 4, "width": 4,
                          "residual": 0})  # fmt: skip
    scale = charts.architecture(table).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert len(scale["domain"]) == len(scale["range"]) == len(set(scale["range"])) == 8


def test_resources_name_use_and_budget() -> None:
    table = pd.DataFrame({"resource": ["DSP", "LUT"], "used": [66, 5748], "budget": [156, 83640]})
    words = texts(charts.resources(table))
    for expected in ("DSP: 66 of 156", "LUT: 5,748 of 83,640", "Of the device's budget (%)",
                     "Modelled"):  # fmt: skip
        assert expected in words
    assert "Measured by place and route" in texts(charts.resources(table, "measured"))


@pytest.mark.parametrize("source", ["measured", "modelled"])
def test_predicted_measured_counts_the_intervals_that_hold(source: str) -> None:
    table = pd.DataFrame({"predicted": [1.0, 2.0, 3.0], "low": [0.5, 1.8, 2.9],
                          "high": [1.5, 2.2, 3.1], "value": [1.2, 2.5, 3.0]})  # fmt: skip
    chart = charts.predicted_measured(table, "latency_ms", source)
    words = texts(chart)
    assert f"2 of 3 90 % intervals hold the {source} value" in words
    assert f"Latency of one image (ms), {source}" in words
    assert "Latency of one image (ms), predicted" in words
    assert marks(chart, "symbol") == 3


def test_training_has_a_line_for_each_network() -> None:
    log = pd.DataFrame({"step": [0, 1], "loss": [2.3, 1.9]})
    assert {"Training loss", "Step", "Cross-entropy (nats)"} <= set(texts(charts.training(log)))
    both = pd.concat([log.assign(network="largest"), log.assign(network="smallest")])
    assert {"largest", "smallest"} <= set(texts(charts.training(both)))


def test_sizes_count_every_architecture() -> None:
    macs = pd.Series(np.random.default_rng(0).integers(10_000, 9_000_000, 400))
    chart = charts.sizes(macs)
    assert chart.data["architectures"].sum() == 400
    assert chart.data["low"].iloc[0] == pytest.approx(macs.min() / 1e6)
    assert chart.data["high"].iloc[-1] == pytest.approx(macs.max() / 1e6)
    words = texts(chart)
    assert "Multiply-accumulates of one image (millions)" in words
    assert "Exact, from the loop bounds" in words


def test_accuracy_macs_draws_each_row() -> None:
    chart = charts.accuracy_macs(pd.DataFrame({"macs": [1e5, 2e6], "accuracy": [80.0, 91.0]}))
    assert marks(chart, "symbol") == 2
    assert "Accuracy measured; size exact" in texts(chart)


def test_svg_is_drawn_without_fetching_anything() -> None:
    chart = alt.Chart("http://127.0.0.1:9/points.csv").mark_point().encode(x="a:Q")
    with pytest.raises(ValueError, match="allowed"):
        charts.to_svg(chart)


def test_widths_are_fixed_or_those_of_the_container(layers: pd.DataFrame) -> None:
    assert charts.layers(layers).to_dict()["width"] == charts.WIDTH
    assert charts.layers(layers, width="container").to_dict()["width"] == "container"


def test_altair_is_imported_without_the_grammar_of_web_addresses() -> None:
    code = "import sys, codesign_kernel.charts; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import codesign_kernel.charts, importlib.util; importlib.import_module('lark')"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
