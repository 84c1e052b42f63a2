"""Networks by hand beside the method's: figures on an engine, ratios, and the chart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import assert_one_sentence

from codesign_kernel import charts, compare, cost
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.cycles import Port, runs
from codesign_kernel.errors import InputError
from codesign_kernel.network_cost import layer_costs
from codesign_kernel.networks import load_network
from codesign_kernel.space import load_space
from codesign_kernel.workload import layers_of, totals

DATA = Path(__file__).parents[1] / "data"
ENGINE, DEVICE = Accelerator.parse("64x64x1w1024f1024"), load_device("arria10-gx1150")
IMAGENET = load_space("imagenet")


def test_networks_on_an_engine_are_those_of_cost_layer_by_layer() -> None:
    layers = load_network("resnet101").layers
    (row,) = compare.on_engine(layers, ENGINE, DEVICE).to_dict("records")
    table = layer_costs(layers, ENGINE, DEVICE)
    assert row["gmac"] == pytest.approx(7.57, abs=0.01)
    assert row["latency_ms"] == pytest.approx(table["time_ms"].sum())
    peak = 64 * 64 * 200e3  # products a ms
    assert row["utilisation"] == pytest.approx(1e11 * row["gmac"] / peak / row["latency_ms"])


def test_networks_of_a_space_are_those_of_the_closed_form() -> None:
    genomes = IMAGENET.sample(4, np.random.default_rng(1))
    found = compare.on_engine(layers_of(IMAGENET, genomes), ENGINE, DEVICE)
    figures = cost.figures(layers_of(IMAGENET, genomes), Accelerators.of([ENGINE] * 4), DEVICE)
    assert found["latency_ms"].tolist() == figures.latency_ms.tolist()
    assert found["energy_mj"].tolist() == figures.energy_mj.tolist()
    assert (found["gmac"] * 1e9).tolist() == pytest.approx(totals(IMAGENET, genomes)[0])


def test_depthwise_layers_are_run_in_blocks_that_cover_all_channels() -> None:
    layers = load_network("mobilenetv2").layers
    blocks = compare.blocked(layers, 64)
    depthwise = np.asarray(layers.repeat) > 1
    channels = (blocks.channels * blocks.repeat)[depthwise]
    assert (channels >= np.asarray(layers.repeat)[depthwise]).all()
    assert blocks.filters[depthwise].max() == 64
    for name in ("filters", "channels", "kernel", "height"):
        assert (getattr(blocks, name) == getattr(layers, name))[~depthwise].all()
    regular = load_network("resnet101").layers
    assert (compare.blocked(regular, 64).macs == regular.macs).all()


def test_alike_are_alike_in_size() -> None:
    macs = totals(IMAGENET, compare.alike(IMAGENET, 2_000_000_000, draws=500))[0]
    assert len(macs)
    assert (np.abs(macs / 2e9 - 1) <= 0.05).all()


def test_published_networks_stand_above_those_of_their_size() -> None:
    table = compare.published(IMAGENET, ENGINE, DEVICE)
    labels = table["network"].tolist()
    for name, network in compare.PUBLISHED.items():
        assert network.label in labels
        assert table.loc[labels.index(network.label), "gmac"] == pytest.approx(
            load_network(name).layers.macs.sum() / 1e9
        )
    assert labels[-1] == "imagenet, the smallest"  # MobileNetV2 is smaller than all of the space
    assert table["top1"].isna().tolist() == [text.startswith("imagenet") for text in labels]


def test_published_networks_are_told_of_engines_that_can_be_built_and_run_them() -> None:
    for text, words in (
        ("128x128x1w1024f1024", "does not fit Intel Arria 10 GX 1150: it takes 4,104 of 1,518 DSP"),
        ("4x4x1w16f16", "cannot run ResNet-101: its buffers are too small for layer conv"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            compare.published(IMAGENET, Accelerator.parse(text), DEVICE)
        assert_one_sentence(str(raised.value))


def test_networks_of_a_space_that_the_engine_cannot_run_are_left_out() -> None:
    macs = int(load_network("resnet101").layers.macs.sum())
    layers = layers_of(IMAGENET, compare.alike(IMAGENET, macs))
    able = runs(layers, ENGINE, Port.of(DEVICE)).all(axis=1)
    assert 0 < able.sum() < len(able)
    labels = compare.published(IMAGENET, ENGINE, DEVICE)["network"].tolist()
    assert labels[1] == f"imagenet, {able.sum()} of its size"


@pytest.fixture
def compared() -> pd.DataFrame:
    """One network by hand of each of two kinds, and three found."""
    rows = [("resnet", 90.0, 2.0, 1.0), ("inception", 92.0, 1.0, 1.0), ("found", 89.0, 0.5, 0.2),
            ("found", 91.0, 1.0, 0.4), ("found", 91.5, 3.0, 2.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["kind", "accuracy", "latency_ms", "energy_mj"])
    ends = {"lowest": table["accuracy"] - 0.1, "highest": table["accuracy"] + 0.1}
    return table.assign(size="-", validation=table["accuracy"] + 1, **ends)


def test_ratios_by_hand(compared: pd.DataFrame) -> None:
    resnet, inception = compare.ratios(compared).to_dict("records")
    assert (resnet["points"], resnet["speed"], resnet["energy"]) == (1.0, 2.0, 2.5)
    assert inception["points"] == -1.0
    assert np.isnan([inception["speed"], inception["energy"]]).all()  # none is as accurate
    assert resnet["spread"] == pytest.approx(0.2)


def test_what_was_found_before_is_compared_apart(compared: pd.DataFrame) -> None:
    former = compared.assign(kind=["resnet", "inception", "former", "former", "found"])
    wider = compared.assign(kind=["resnet", "inception", "wider", "wider", "found"])
    assert compare.ratios(wider, kind="wider").equals(compare.ratios(former, kind="former"))
    resnet, inception = compare.ratios(former, kind="former").to_dict("records")
    assert (resnet["points"], inception["points"]) == (1.0, -1.0)
    resnet, inception = compare.ratios(former).to_dict("records")
    assert np.isnan(inception["points"])
    assert np.isnan(resnet["points"])  # of 3 ms
    assert len(compare.ratios(former)) == 2


def test_networks_are_picked_on_validation_images(compared: pd.DataFrame) -> None:
    luckiest = compared.assign(validation=[91, 93, 92.5, 92, 90])
    resnet, inception = compare.ratios(luckiest).to_dict("records")
    assert resnet["points"] == -1.0  # the network of 0.5 ms, though another has 91 % on test images
    assert (resnet["speed"], resnet["energy"]) == (4.0, 5.0)
    assert inception["points"] == -3.0


def test_a_latency_that_another_memory_would_move_as_far_is_no_difference(
    compared: pd.DataFrame,
) -> None:
    for slower, points in ((1.001, 1.0), (1.049, 1.0), (1.06, -1.0)):  # beyond, only 89 % is left
        late = compared.assign(latency_ms=[1.0, 9.0, 0.5, slower, 3.0])
        assert compare.ratios(late)["points"][0] == points
        assert compare.ratios(late, 0.0)["points"][0] == -1.0
    table = pd.read_csv(DATA / "network_cycles.csv")
    cycles = table[table["space"] == "fashion"].pivot_table(
        index=["accelerator", "architecture"], columns="memory", values="cycles"
    )
    moved = np.log(cycles["ideal"] / cycles["default"]).unstack("architecture").to_numpy()
    apart = (moved[:, :, None] - moved[:, None])[:, *np.triu_indices(moved.shape[1], 1)]
    assert np.sqrt(np.mean(apart**2)) == pytest.approx(compare.AS_FAST, abs=0.006)


def test_what_seeds_hide_is_no_verdict() -> None:
    table = pd.DataFrame(
        {"network": ["A", "B", "C", "D"], "size": "small", "points": [0.5, -0.5, 0.2, np.nan],
         "spread": 0.3}
    )  # fmt: skip
    ahead, behind, neither = compare.verdict(table).splitlines()
    assert ahead.endswith("1 of 4: A small.")
    assert behind.endswith("1 of 4: B small.")
    assert neither.endswith("2 of 4: C small, D small.")
    assert "0 of 1: none." in compare.verdict(table.head(1))
    many = compare.verdict(pd.concat([table.head(1)] * 40).assign(network="Inception-like"))
    assert max(map(len, many.splitlines())) <= 96
    assert " ".join(many.split()).count("Inception-like small") == 40


def test_what_is_not_there_is_a_dash() -> None:
    table = pd.DataFrame({"a": [1.0, np.nan, 2.346], "b": ["x", "y", "z"], "c": [100, 20, 3],
                          "d": [76.4, 72.0, 74.801], "e": [5.0, 2.0, np.nan]})  # fmt: skip
    found = compare.dashed(table, 2)
    assert found.to_dict("list") == {
        "a": ["1.00", "–", "2.35"], "b": ["x", "y", "z"], "c": ["100", "20", "3"],
        "d": ["76.4", "72.0", "74.8"], "e": ["5", "2", "–"],
    }  # fmt: skip


def test_an_engine_with_a_quarter_of_the_multipliers_is_a_third_slower() -> None:
    """As the third solution of 05_compare says of ResNet-101."""
    layers = load_network("resnet101").layers
    smaller = Accelerator.parse("32x32x1w1024f1024")
    times = [compare.on_engine(layers, acc, DEVICE)["latency_ms"][0] for acc in (ENGINE, smaller)]
    assert times[1] / times[0] == pytest.approx(1.32, abs=0.01)


def test_chart_names_kinds_units_and_sources(compared: pd.DataFrame) -> None:
    words = charts.to_svg(compare.chart(compared, "8x8x1w32f32"))
    for text in ("ResNet-like", "found", "Accuracy (%)", "(ms)", "measured", "8x8x1w32f32"):
        assert text in words


def test_designs_take_the_faster_way_of_the_engine_asked_for() -> None:
    trained = pd.DataFrame(
        [("mobilenet", "small", seed, epochs, value) for seed, epochs, value in
         [(0, 20, 90.0), (1, 20, 91.0), (0, 40, 99.0)]]
        + [("w8k3", "fashion", 0, 20, 88.0), ("w8k5", "fashion", 0, 20, 88.5),
           ("w8k3", "fashion-wide", 0, 20, 89.0)],
        columns=["network", "size", "seed", "epochs", "test"],
    )  # fmt: skip
    trained["validation"] = trained["test"] + 1
    by = {"w8k3": "found by both", "w8k5": "found"}
    trained["kind"] = trained["network"].map(by).fillna("hand-designed")
    trained.loc[trained["size"] == "fashion-wide", "kind"] = "found in a wider space"
    ways = [
        ("mobilenet", "small", "layer by layer", 9.0, "a"),
        ("mobilenet", "small", "layer by layer, depthwise in blocks", 2.0, "a"),
        ("mobilenet", "small", "layer by layer", 1.0, "b"),
        ("w8k3", "fashion", "one program", 0.1, "a"),
        ("w8k3", "fashion", "layer by layer", 0.2, "a"),
        ("w8k5", "fashion", "layer by layer", 0.3, "a"),
        ("w8k3", "fashion-wide", "layer by layer", 0.4, "a"),
    ]
    names = ["network", "size", "way", "latency_ms", "accelerator"]
    hardware = pd.DataFrame(ways, columns=names).assign(device="d")
    found = compare.designs(trained, hardware, "a", "d").set_index("kind")
    assert [*found["latency_ms"].items()] == [
        ("former", 0.2), ("found", 0.2), ("found", 0.3), ("mobilenet", 2.0), ("wider", 0.4)
    ]  # fmt: skip
    accuracies = found.loc["mobilenet", ["accuracy", "lowest", "highest", "validation"]]
    assert accuracies.tolist() == [90.5, 90.0, 91.0, 91.5]
    assert found.loc["wider", "accuracy"] == 89.0  # of its own space, whatever it is called
    with pytest.raises(InputError, match=r"a on e, but the table has only: a on d, b on d\.$"):
        compare.designs(trained, hardware, "a", "e")
    twice = compare.convergence(trained)
    assert twice["gain"].tolist() == [9.0]


def test_tables_are_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("a,b\n1,2\n")
    assert compare.read(tmp_path / "some.csv")["b"].tolist() == [2]
    with pytest.raises(InputError, match=r"other\.csv cannot be read"):
        compare.read(tmp_path / "other.csv")
