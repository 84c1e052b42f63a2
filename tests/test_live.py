"""The page's picture shows what limits leave, and its points hold every front they can leave."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel import cost, live
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import SIGNS, Designs, tabulate
from codesign_kernel.workload import layers_of

SVG = "{http://www.w3.org/2000/svg}"


def make(n: int, seed: int, name: str = "ecp5-85f") -> live.Cloud:
    """Return `n` designs with exact accuracy (made up), latency, power, give or take 2 to 5 %."""
    predictors = tiny.predictors(names=(name,), n=20)
    device = predictors.devices[name]
    genomes, acc = tiny.pairs(tiny.SPACE, device, n, seed)
    figures = cost.figures(layers_of(tiny.SPACE, genomes), acc, device)
    means = np.column_stack([tiny.score(tiny.SPACE, genomes), figures.latency_ms, figures.power_w])
    # Intervals of different widths, so that bounds order designs otherwise than predictions do.
    wide = 1.02 + 0.03 * np.random.default_rng(seed).random(means.shape)
    designs = Designs(name, genomes, acc, means, means / wide, means * wide)
    return live.Cloud(designs, device)


@pytest.fixture(scope="module")
def cloud() -> live.Cloud:
    """Designs of one device; the picture has room for no more points than the candidates."""
    made = make(400, 0)
    everything = np.column_stack([made.designs.means * SIGNS, made.values * [*SIGNS, 1, 1, 1]])
    candidates = np.unique(everything[~dominated(everything)], axis=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "MAX_POINTS", len(candidates))
        np.testing.assert_array_equal(np.unique(everything[made.points], axis=0), candidates)
        assert len(made.points) < len(made.designs) * 0.7
    return made


@st.composite
def limits(draw: st.DrawFn) -> list[float | None]:
    """Quantiles of the six limits, or None where nothing is asked."""
    return [draw(st.none() | st.floats(0.05, 0.95)) for _ in range(6)]


def constraints(cloud: live.Cloud, quantiles: list[float | None]) -> Constraints:
    """Limits at these quantiles of latency, power, accuracy, energy, DSP and block RAM."""
    names = ("latency_ms", "power_w", "accuracy", "energy_mj", "dsp", "bram")
    bounds = (
        None if q is None else float(cloud.values[name].quantile(q))
        for name, q in zip(names, quantiles, strict=True)
    )
    return Constraints(*bounds)


def allowed(cloud: live.Cloud, asked: Constraints) -> np.ndarray:
    """Which designs keep to the limits, read off the constraints' meaning."""
    rows = cloud.values
    inside = np.ones(len(rows), dtype=bool)
    for name, bound in (("latency_ms", asked.max_latency_ms), ("power_w", asked.max_power_w),
                        ("energy_mj", asked.max_energy_mj), ("dsp", asked.max_dsp),
                        ("bram", asked.max_bram)):  # fmt: skip
        inside &= True if bound is None else (rows[name] <= bound).to_numpy()
    least = asked.min_accuracy
    return inside & (True if least is None else (rows["accuracy"] >= least).to_numpy())


def dominated(points: np.ndarray) -> np.ndarray:
    """Which points another is at least as good as everywhere, and better somewhere: by pairs."""
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    return np.asarray((no_worse & better).any(axis=0))


@given(limits())
@settings(max_examples=40)
def test_points_hold_every_front_that_limits_can_leave(
    cloud: live.Cloud, quantiles: list[float | None]
) -> None:
    asked = constraints(cloud, quantiles)
    inside = allowed(cloud, asked)
    np.testing.assert_array_equal((cloud.broken(asked) == 0).all(axis=1), inside)
    front = cloud.front(inside)
    kept = np.flatnonzero(inside)
    best = kept[~dominated(cloud.designs.means[kept] * SIGNS)]
    means = cloud.designs.means
    # Of designs that are equal in all three objectives the front keeps one.
    assert set(map(tuple, means[front])) == set(map(tuple, means[best]))
    flags = cloud.flags(front)
    shown = [index for index, flag in zip(cloud.points, flags, strict=True) if flag == "1"]
    assert set(map(tuple, means[shown])) == set(map(tuple, means[front]))
    if len(front):
        assert cloud.knee(front) in front


@given(limits())
@settings(max_examples=40)
def test_what_the_nearest_design_needs_lets_a_design_in(
    cloud: live.Cloud, quantiles: list[float | None]
) -> None:
    asked = constraints(cloud, [None if q is None else q * 0.05 for q in quantiles])
    if allowed(cloud, asked).any():
        return
    best, text = cloud.nearest(asked)
    assert cloud.broken(asked)[best].sum() == cloud.broken(asked).sum(axis=1).min() > 0
    tiny.assert_one_sentence(text.replace("limits. The", "limits: the"))
    relaxed = asked
    for pattern, name in (
        (r"a latency of (\S+) ms", "max_latency_ms"),
        (r"a power of (\S+) W", "max_power_w"),
        (r"an accuracy of (\S+) %", "min_accuracy"),
        (r"an energy of (\S+) mJ", "max_energy_mj"),
        (r"(\S+) DSP blocks", "max_dsp"),
        (r"(\S+) block RAMs", "max_bram"),
    ):
        if match := re.search(pattern, text):
            assert getattr(asked, name) is not None
            relaxed = replace(relaxed, **{name: float(match[1].rstrip("."))})
    assert relaxed != asked
    assert allowed(cloud, relaxed).any()


@pytest.mark.parametrize(
    "asked",
    [Constraints(), Constraints(max_dsp=34), Constraints(0.2, 0.42, 80.0, 0.05, 66, 60)],
    ids=["free", "dsp", "all"],
)
def test_browser_draws_what_python_counts(asked: Constraints) -> None:
    cloud = make(300, 5)
    inside = allowed(cloud, asked)
    front = cloud.front(inside)
    row = tabulate(tiny.SPACE, cloud.device, cloud.designs[cloud.points[:1]]).iloc[0]
    values = {**live.params(asked), "front": cloud.flags(front), "chosen": live.mark(row)}
    spec = live.chart(cloud, "modelled").to_dict() | {"width": 500}
    for param in spec["params"]:
        param["value"] = values.pop(param["name"])
    assert values == {}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    groups = {group.get("class", "?").split()[-1]: group for group in root.iter(f"{SVG}g")}
    drawn = groups["layer_0_marks"].findall(f"{SVG}path")
    assert len(drawn) == inside[cloud.points].sum() > 0
    large = [path for path in drawn if path.get("stroke") == "#222222"]
    assert len(large) == len(front) > 0
    assert len(groups["layer_5_marks"].findall(f"{SVG}path")) == 1  # the ring


def test_chart_names_quantities_units_and_source(cloud: live.Cloud) -> None:
    text = str(live.chart(cloud, "modelled").to_dict())
    for title in ("Latency of one image (ms), predicted", "Accuracy (%), predicted",
                  "Power (W), predicted from modelled power"):  # fmt: skip
        assert title in text


def test_mark_is_the_designs_place_and_intervals(cloud: live.Cloud) -> None:
    row = tabulate(tiny.SPACE, cloud.device, cloud.designs[np.array([7])]).iloc[0]
    accuracy, latency, _ = cloud.designs.means[7]
    assert cloud.designs.low is not None
    assert cloud.designs.high is not None
    low, high = cloud.designs.low[7], cloud.designs.high[7]
    assert live.mark(row) == pytest.approx(
        {
            "accuracy": accuracy, "accuracy_low": low[0], "accuracy_high": high[0],
            "latency_ms": latency, "latency_ms_low": low[1], "latency_ms_high": high[1],
        }
    )  # fmt: skip


def test_a_picture_of_one_design_has_a_range() -> None:
    one = live.chart(make(1, 2), "modelled").to_dict()["layer"][0]["encoding"]
    for axis in ("x", "y"):
        low, high = one[axis]["scale"]["domain"]
        assert low < high
