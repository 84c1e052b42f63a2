"""`codesign cost` prints what the closed form says of each layer, and draws it."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx_file import save
from PIL import Image
from playwright.sync_api import Request, sync_playwright
from strategies import accelerators

from codesign_kernel import cli, cost, cycles, routed
from codesign_kernel.accelerator import Accelerator, Accelerators, Device, devices, load_device
from codesign_kernel.network_cost import BOTTLENECKS, layer_costs
from codesign_kernel.networks import load_network, read_topology, shipped
from codesign_kernel.report import save_picture
from codesign_kernel.simulate import CAUSES
from codesign_kernel.workload import Layers

ECP5 = load_device("ecp5-85f")
ACC = "8x8x1w64f32"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def codesign(codesign: Command) -> Command:
    """Run `codesign cost` in this process; return status, stdout and stderr."""
    return partial(codesign, "cost")


def one(filters: int, channels: int, side: int, kernel: int, repeat: int = 1) -> Layers:
    values = (filters, channels, side, side, side, side, kernel, 1, 0)
    columns = [np.array([value]) for value in values]
    return Layers(("layer",), *columns, repeat=np.array([repeat]))


@pytest.mark.parametrize(
    ("layer", "acc", "why"),
    [
        (one(64, 64, 14, 3), ACC, "compute"),
        (one(3, 64, 14, 7), ACC, "compute, lanes idle"),
        (one(1, 1, 14, 3, repeat=64), ACC, "compute, lanes idle"),
        (one(1000, 512, 1, 1), ACC, "weights"),
        (one(8, 128, 64, 1), "8x64x1w64f64", "input"),
        (one(64, 8, 32, 1), ACC, "output"),
        (one(1, 1, 2, 1), ACC, "control"),
    ],
)
def test_the_bottleneck_is_what_takes_longest(layer: Layers, acc: str, why: str) -> None:
    assert layer_costs(layer, Accelerator.parse(acc), ECP5)["bottleneck"].tolist() == [why]


def test_a_layer_is_what_the_closed_form_says() -> None:
    layer, acc = one(16, 8, 14, 3), Accelerator(8, 8, 1, 16, 16)
    row = layer_costs(layer, acc, ECP5).iloc[0]
    spent, port = cycles.cycles(layer, acc, cycles.Port.of(ECP5)), cycles.Port.of(ECP5)
    macs, clock = 16 * 8 * 9 * 196, float(cost.clock_mhz(acc, ECP5))
    total = float(spent.total[0])
    assert row["macs"] == macs
    # Two groups of 9 words of 64 bytes and 8 filters' parameters, one task; one map in, two out.
    assert row["weight_bytes"] == 2 * (9 * 64 + 8 * 8) + 64
    assert row["feature_bytes"] == 8 * 196 + 16 * 196
    assert row["compute"] == 2 * 196 * 9
    assert row["cycles"] == total == sum(row[cause] for cause in CAUSES)
    assert row["time_ms"] == pytest.approx(total / clock / 1e3)
    assert row["utilisation"] == pytest.approx(100 * macs / 64 / total)
    moved = row["weight_bytes"] + row["feature_bytes"]
    assert row["macs_per_byte"] == pytest.approx(macs / moved)
    assert row["gmac_s"] == pytest.approx(macs / total * clock / 1e3)
    assert row["runs"]
    assert port.bytes == 8


@given(
    st.sampled_from(shipped()), accelerators(), st.sampled_from([load_device(d) for d in devices()])
)
def test_no_layer_beats_the_multipliers(name: str, acc: Accelerator, device: Device) -> None:
    table = layer_costs(load_network(name).layers, acc, device)
    (reached,) = routed.clocks(Accelerators.of([acc]), device)
    clock = reached if np.isfinite(reached) else float(cost.clock_mhz(acc, device))
    peak = acc.pf * acc.pc * acc.pv * clock / 1e3
    assert (table["gmac_s"] <= peak).all()
    assert table["utilisation"].between(0, 100, inclusive="right").all()
    assert set(table["bottleneck"]) <= set(BOTTLENECKS)
    np.testing.assert_allclose(table["cycles"], table[list(CAUSES)].sum(axis=1))


def test_a_depthwise_layer_costs_what_its_channels_cost() -> None:
    acc = Accelerator.parse(ACC)
    whole, part = (layer_costs(one(1, 1, 14, 3, repeat=n), acc, ECP5).iloc[0] for n in (96, 1))
    for column in ("macs", "weight_bytes", "feature_bytes", "cycles", "time_ms", "compute"):
        assert whole[column] == pytest.approx(96 * part[column])
    assert whole["utilisation"] == pytest.approx(part["utilisation"])
    assert whole["utilisation"] < 100 / 64


@pytest.mark.parametrize("name", shipped())
def test_prints_each_layer_and_the_totals_with_units_and_source(
    codesign: Command, name: str
) -> None:
    status, out, err = codesign(name, "--accelerator", ACC)
    assert (status, err) == (0, "")
    first, heads, *lines = out.splitlines()
    expected = f"{name} on {ACC}, Lattice ECP5 85F, 122 MHz, modelled. Layers are modelled."
    assert first == expected
    assert re.split(r"  +", heads) == [
        "layer", "cycles", "time (ms)", "utilisation (%)", "traffic (bytes)", "bottleneck",
    ]  # fmt: skip
    layers = load_network(name).layers
    table = layer_costs(layers, Accelerator.parse(ACC), ECP5)
    short = (~table["runs"]).sum()
    assert len(lines) == len(table) + 7
    for line, row in zip(lines, table.itertuples(), strict=False):
        label, cycles, time_ms, used, moved, *why = line.replace(",", "").split()
        assert (label, " ".join(why)) == (row.layer, str(row.bottleneck).replace(",", ""))
        assert int(cycles) == round(row.cycles)
        assert float(time_ms) == pytest.approx(row.time_ms, abs=1e-4)
        assert float(used) == pytest.approx(row.utilisation, abs=0.06)
        assert int(moved) == row.weight_bytes + row.feature_bytes
    total, share, sizes, whole, fit, room, left_out = lines[len(table) :]
    why = "it has grouped or" if name == "mobilenetv2" else "the engine's buffers are too small"
    assert whole.startswith(f"No interval for the whole network: {why}")
    assert room.startswith(f"Its buffers are too small for {short} of {len(table)} layers (")
    assert total.split()[:2] == ["total", f"{table['cycles'].sum():,.0f}"]
    parts = [float(part) for part in re.findall(r"([\d.]+) %", share)]
    assert sum(parts) == pytest.approx(100, abs=0.3)
    assert f"{layers.macs.sum() / 1e9:.3f} GMAC" in sizes
    assert fit == (
        "The accelerator fits the device: 66 of 156 DSP, 52 of 208 block RAM, 6,487 of 83,640 LUT; "
        "modelled."
    )
    assert left_out == "Not costed: pooling, additions, activations."


def test_the_readme_shows_what_is_printed(codesign: Command) -> None:
    readme = (Path(cli.__file__).parents[1] / "README.md").read_text()
    start = readme.index("    mobilenetv2 on 8x8x1w64f32")
    shown = readme[start : readme.index("\n\n", start)].splitlines()
    printed = codesign("mobilenetv2", "--accelerator", ACC, "--device", "ecp5-85f")[1].splitlines()
    assert len(shown) > 10
    assert {line.strip() for line in shown} - {line.strip() for line in printed} == {"..."}


def test_both_forms_of_an_accelerator_say_the_same(codesign: Command) -> None:
    expected = codesign("mobilenetv2", "--accelerator", ACC)
    assert codesign("mobilenetv2", "--accelerator", "8,8,1,64,32") == expected
    assert codesign("mobilenetv2", "--accelerator", "8, 8, 1, 64, 32") == expected
    assert codesign("mobilenetv2", "--accelerator", ACC, "--device", "ecp5-85f") == expected


def test_programs_get_the_same_figures(codesign: Command) -> None:
    status, out, err = codesign(
        "mobilenetv2", "--accelerator", ACC, "--json", "--device", "ecp5-25f"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    table = layer_costs(load_network("mobilenetv2").layers, Accelerator.parse(ACC), ECP5)
    pd.testing.assert_frame_equal(pd.DataFrame(found["layers"]), table)
    assert (found["source"], found["device"], found["fits"]) == ("modelled", "ecp5-25f", False)
    assert found["total"]["cycles"] == pytest.approx(table["cycles"].sum())
    assert found["total"]["macs"] == table["macs"].sum()
    assert found["resources"]["DSP"] == {"used": 66, "budget": 28, "source": "modelled"}
    assert found["not_costed"] == ["pooling", "additions", "activations"]


@pytest.mark.parametrize("engine", ["8x8x1w64f32", "8x8x1w16f64"])
def test_a_whole_network_has_intervals_and_a_measured_clock_if_it_was_routed(
    codesign: Command, tmp_path: Path, engine: str
) -> None:
    table = tmp_path / "net.csv"
    head = "layer,in_height,in_width,kernel_height,kernel_width,channels,filters,groups,stride,"
    table.write_text(
        f"{head}height,width\na,32,32,3,3,16,32,1,1,32,32\nb,32,32,3,3,32,32,1,1,32,32\n"
    )
    options = (table, "--accelerator", engine, "--device", "ecp5-45f")
    status, out, _ = codesign(*options)
    assert status == 0
    found = json.loads(codesign(*options, "--json")[1])["predicted"]
    there = engine == "8x8x1w64f32"
    assert found["clock_source"] == ("measured" if there else "modelled")
    assert ("MHz, measured after place and route. Layers are modelled." in out) == there
    assert f", {found['clock_mhz']['mean']:.4g} MHz" in out
    low, high = found["latency_ms"]["low"], found["latency_ms"]["high"]
    assert 1.001 < high / low < (1.2 if there else 2)
    line = next(line for line in out.splitlines() if line.startswith("Predicted, with"))
    assert f"{found['latency_ms']['mean']:.4g} ms ({low:.4g} to {high:.4g})" in line
    total = json.loads(codesign(*options, "--json")[1])["total"]
    assert found["cycles"]["mean"] == pytest.approx(total["cycles"], rel=0.05)


def test_what_does_not_fit_is_costed_and_said(codesign: Command) -> None:
    status, out, _ = codesign("mobilenetv2", "--accelerator", "32x32x1w64f64")
    assert status == 0
    assert (
        "The accelerator DOES NOT FIT the device: it takes 1,032 of 156 DSP and 306 of 208 "
        "block RAM; there is room for 32,248 of 83,640 LUT; modelled.\n"
    ) in out
    out = codesign("mobilenetv2", "--accelerator", "32x32x4w1024f1024", "--device", "ecp5-25f")[1]
    assert out.count(" DSP") == 1  # not twice
    assert " LUT; modelled.\n" in out


def test_resources_of_an_engine_that_was_placed_and_routed_are_measured(codesign: Command) -> None:
    asked = ("mobilenetv2", "--accelerator", ACC, "--device", "ecp5-45f")
    assert (
        "The accelerator fits the device: 66 of 72 DSP, 52 of 108 block RAM, 6,642 of 43,848 LUT; "
        "measured after place and route.\n"
    ) in codesign(*asked)[1]
    found = json.loads(codesign(*asked, "--json")[1])["resources"]["LUT"]
    assert found == {"used": 6642, "budget": 43848, "source": "measured"}


def test_a_table_and_a_device_of_ones_own(codesign: Command, tmp_path: Path) -> None:
    table, device = tmp_path / "net.csv", tmp_path / "mine.toml"
    table.write_text("Layer,M,N,K\nfc,1,10,64\n")
    kept = Path(cost.__file__).parent / "devices" / "ecp5-85f.toml"
    own = kept.read_text().replace("ECP5 85F", "Mine")
    device.write_text(own.replace('name = "ecp5-85f"', 'name = "mine"'))
    status, out, _ = codesign(table, "--accelerator", ACC, "--device", device)
    assert status == 0
    assert out.startswith(f"net on {ACC}, Lattice Mine, 122 MHz, modelled. Layers are modelled.\n")
    assert read_topology(table).layers.macs.tolist() == [640]
    device.write_text(re.sub("clock_slope_mhz = .*", "clock_slope_mhz = 70", device.read_text()))
    status, out, err = codesign(table, "--accelerator", ACC, "--device", device)
    assert (status, out) == (1, "")
    assert "clock_slope_mhz of device mine gives engine" in err
    device.write_text(own)  # a clock of its own would be passed over for the engines of the other
    status, out, err = codesign(table, "--accelerator", ACC, "--device", device)
    assert (status, out) == (1, "")
    assert "'ecp5-85f', but must be another than that of a device that comes with" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nope", "--accelerator", ACC], 1, "network is 'nope', but must be one of: inceptionv2"),
        (["nope.onnx", "--accelerator", ACC], 1, "nope.onnx cannot be read: No such file"),
        (["resnet101"], 2, "Missing option '--accelerator'"),
        (["resnet101", "--accelerator", "8,8,1"], 1, "accelerator is '8,8,1', but must look like"),
        (["resnet101", "--accelerator", "8,8,1,a,b"], 1, "but must look like 8x8x1w16f32"),
        (["resnet101", "--accelerator", "0,8,1,4,4"], 1, "PF of the accelerator is 0, but must be"),
        (["resnet101", "--accelerator", ACC, "--device", "x"], 1, "device is 'x', but must be"),
        (
            ["resnet101", "--accelerator", ACC, "--chart", "x.pdf"],
            1,
            "picture is 'x.pdf', but must",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(
    codesign: Command, arguments: list[str], status: int, words: str
) -> None:
    found, out, err = codesign(*arguments)
    assert (found, out) == (status, "")
    tiny.assert_one_sentence(err.removesuffix("\n"))
    assert words in err


def test_pictures_are_written_as_their_ending_says(codesign: Command, tmp_path: Path) -> None:
    for ending in ("svg", "PNG", "html"):
        path = tmp_path / "new" / f"roofline.{ending}"
        status, out, err = codesign("mobilenetv2", "--accelerator", ACC, "--chart", path)
        assert (status, err) == (0, "")
        assert out.endswith(f"Wrote {path}.\n")
        assert path.is_file()
    root = ElementTree.parse(tmp_path / "new" / "roofline.svg").getroot()
    assert "Performance (GMAC/s)" in ["".join(node.itertext()) for node in root.iter()]
    with Image.open(tmp_path / "new" / "roofline.PNG") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    again = ("--json", "--chart", tmp_path / "again.svg")
    status, out, _ = codesign("mobilenetv2", "--accelerator", ACC, *again)
    assert json.loads(out)["network"] == "mobilenetv2"
    assert (tmp_path / "again.svg").is_file()


def test_a_picture_that_cannot_be_written_ends_in_one_sentence(
    codesign: Command, tmp_path: Path
) -> None:
    with tiny.read_only(tmp_path):
        status, out, err = codesign(
            "mobilenetv2", "--accelerator", ACC, "--chart", tmp_path / "a.svg"
        )
    assert (status, out) == (1, "")
    assert "cannot be written: Permission denied" in err


@pytest.mark.browser
def test_the_page_of_a_picture_shows_it_without_a_network(
    tmp_path: Path, browser_path: Path
) -> None:
    from codesign_kernel.roofline import roofline

    acc = Accelerator.parse(ACC)
    table = layer_costs(load_network("mobilenetv2").layers, acc, ECP5)
    evil = "</script><script>document.title = 'evil'</script>"
    table.loc[0, "layer"] = evil
    path = tmp_path / "roofline.html"
    save_picture(roofline(table, 6.24, 0.273, f"mobilenetv2 <b> {evil}"), path)
    asked: list[str] = []
    faults: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri())
        page.locator("#picture .marks").wait_for()
        assert page.title() == f"Roofline of mobilenetv2 <b> {evil}, modelled: 53 layers."
        label = page.locator("#picture[aria-label^='Roofline of mobilenetv2']")
        assert label.count() == 1
        page.locator("#picture .mark-symbol.role-mark path").first.hover(force=True)
        page.locator("#vg-tooltip-element.visible").wait_for()
        browser.close()
    assert asked == [path.as_uri()]
    assert faults == []


def test_operators_that_are_not_costed_leave_no_interval(codesign: Command, tmp_path: Path) -> None:
    weights = {"w": np.zeros((8, 8, 3, 3), np.float32), "v": np.zeros((8, 8, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    plain = save(tmp_path, nodes, {"x": ["N", 8, 16, 16]}, ["z"], weights)
    options = ("--accelerator", ACC, "--device", "ecp5-45f")
    assert "Predicted, with 90 % intervals" in codesign(plain, *options)[1]
    nodes.append(helper.make_node("ConvTranspose", ["z", "v"], ["u"]))
    heavy = save(tmp_path, nodes, {"x": ["N", 8, 16, 16]}, ["u"], weights)
    out = codesign(heavy, *options)[1]
    words = "No interval for the whole network: it has operators that are not costed (ConvTranspose"
    assert words in out
    assert "Predicted, with" not in out
    found = json.loads(codesign(heavy, *options, "--json")[1])["predicted"]
    assert "ConvTranspose ×1" in found["reason"]


def test_only_chains_have_an_interval(codesign: Command, tmp_path: Path) -> None:
    weights = {name: np.zeros((8, 8, 3, 3), np.float32) for name in "uvw"}
    nodes = [helper.make_node("Conv", [x, w], [y], name=y, pads=[1] * 4)
             for x, w, y in (("x", "u", "a"), ("a", "v", "b"), ("a", "w", "c"))]  # fmt: skip
    path = save(tmp_path, nodes, {"x": [4, 8, 16, 16]}, ["b", "c"], weights)
    out = codesign(path, "--accelerator", ACC)[1]
    assert "whole network: c does not read what the layer before it wrote, and only chains" in out
    assert out.endswith("The batch of the model is 4: costed is one image of it.\n")
    found = json.loads(codesign(path, "--accelerator", ACC, "--json")[1])
    assert found["notes"] == ["The batch of the model is 4: costed is one image of it."]
    assert "c does not read" in found["predicted"]["reason"]


def test_what_the_engine_cannot_count_is_said_so(codesign: Command, tmp_path: Path) -> None:
    weights = {"w": np.zeros((8, 8, 1, 1), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    wide = save(tmp_path, nodes, {"x": ["N", 8, 4000, 4000]}, ["y"], weights)
    out = codesign(wide, "--accelerator", ACC, "--device", "ecp5-45f")[1]
    assert "whole network: the engine's counters are too short for conv.\n" in out
    assert "buffers are too small" not in out
    assert (
        "Its counters are too short for 1 of 1 layers (conv): costed as if they were not; they "
        "count 1,023 pixels on a side of a map, 64 on that of a pooled one, 65,535 in the rows of "
        "a tile, 8,192 channels, 8,192 filters, 16,383 words of weights in a filter group.\n"
    ) in out


def test_a_small_network_has_digits(codesign: Command, tmp_path: Path) -> None:
    table = tmp_path / "net.csv"
    table.write_text("Layer,M,N,K\nfc,1,10,64\n")
    out = codesign(table, "--accelerator", ACC)[1]
    assert "6.4e-07 GMAC, 0.00065 million parameters" in out
