"""A design taken home: the ONNX model computes what PyTorch does, and every file agrees."""

import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from codesign_kernel import (
    __version__,
    accelerator,
    batches,
    cost,
    engines,
    fits,
    measure,
    meters,
    record,
    report,
    routed,
    study,
    train,
)
from codesign_kernel.datasets import Dataset, load
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.export import export, specialised, to_onnx
from codesign_kernel.files import digest, read_arrays, read_json, write_arrays
from codesign_kernel.program import Map, Program
from codesign_kernel.report import Counted, origins
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import CAUSES, simulate
from codesign_kernel.space import load_space, space_of, to_table
from codesign_kernel.study import Study
from codesign_kernel.supernet import Subnet, Supernet, extract, recalibrate
from codesign_kernel.workload import layers_of, totals

SPACE = load_space("digits")
DEVICE = accelerator.load_device(accelerator.devices()[0])
FILES = {"design.json", "layers.csv", "model.onnx", "report.html", "weights.safetensors"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def fitted(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with all that a design needs to be predicted and exported, from little training."""
    opened = study.create(tmp_path_factory.mktemp("study"), SPACE, "digits", "quick", 0, [DEVICE])
    preset = train.Preset(steps=25, batch=32, random=1)
    train.train(SPACE, digits, "quick", 0, opened.supernet_path, preset=preset)
    accuracy, hardware = measure.plan(opened, 10, 10)
    measure.measure(opened, meters.Accuracy(opened), accuracy, "accuracy")
    measure.measure(opened, meters.Closed(opened), hardware, "hardware")
    fits.fit(opened)
    return opened


@pytest.fixture(scope="module")
def design(fitted: Study) -> Design:
    return Design.parse(f"w16k35-w24k313@{next(iter(DEVICE.grid()))}@{DEVICE.name}")


@pytest.fixture(scope="module")
def folder(
    fitted: Study, design: Design, digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp("out") / "deep" / design.id
    assert export(fitted, design, digits, target) == target
    return target


def run(model: bytes, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images"]
    (logits,) = session.run(["logits"], {"images": images.contiguous().numpy()})
    return np.asarray(logits)


def check(network: Subnet, model: bytes, images: torch.Tensor) -> None:
    """Assert that the model answers as the network does, in batches of one and of seven."""
    for n in (1, 7):
        with torch.no_grad():
            expected = network(images[:n]).numpy()
        logits = run(model, images[:n])
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_onnx_computes_what_the_subnet_does(fitted: Study, digits: Dataset) -> None:
    supernet = train.load_supernet(fitted.supernet_path)
    calibration = train.calibration_images(digits)
    images = batches.to_tensor(digits.test.batch(np.arange(7)))
    for genome in [*SPACE.extremes(), *SPACE.sample(4, np.random.default_rng(0))]:
        network = train.subnet(supernet, SPACE.decode(genome), calibration)
        check(network, to_onnx(network).SerializeToString(), images)


def test_onnx_of_strided_colour_networks(fitted: Study) -> None:
    table = to_table(SPACE) | {"input": [13, 10, 3], "classes": 4}
    table["stem"] = {"width": 16, "kernel": 5, "stride": 2}
    table["stages"][0]["kernels"] = [1, 3, 7]
    space = space_of(table)
    torch.manual_seed(0)
    supernet = Supernet(space, [0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    images = torch.rand(64, 3, 13, 10)
    for genome in [*space.extremes(), *space.sample(3, np.random.default_rng(0))]:
        network = recalibrate(extract(supernet, space.decode(genome)), images)
        check(network, to_onnx(network).SerializeToString(), images)


def test_folder_has_every_file_and_no_other(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert all(path.stat().st_size > 0 for path in folder.iterdir())


def test_weights_model_and_accuracies_are_of_one_network(
    folder: Path, design: Design, digits: Dataset
) -> None:
    arrays, about = read_arrays(folder / "weights.safetensors")
    assert about == {"design": str(design)}
    network = Subnet(SPACE, design.architecture)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    network.eval()
    model = (folder / "model.onnx").read_bytes()
    check(network, model, batches.to_tensor(digits.validation.batch(np.arange(7))))

    measured = json.loads((folder / "design.json").read_text())["measured_accuracy_percent"]
    for part, name in ((digits.validation, "validation"), (digits.test, "test")):
        logits = run(model, batches.to_tensor(part.batch(np.arange(len(part)))))
        right = 100 * np.mean(logits.argmax(axis=1) == part.labels)
        assert measured[f"{name}, specialised"] == pytest.approx(right, abs=1e-9)
    assert measured["validation, supernet weights"] < measured["validation, specialised"]
    assert len(measured) == 3


def test_a_subnet_may_be_specialised_for_longer(
    fitted: Study, design: Design, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, before = specialised(fitted, design.architecture, digits)
    content = json.loads(
        (export(fitted, design, digits, tmp_path / "x", 90) / "design.json").read_text()
    )
    measured = content["measured_accuracy_percent"]
    assert [*measured] == [
        "validation, supernet weights", "validation, specialised for 90 steps",
        "test, specialised for 90 steps",
    ]  # fmt: skip
    assert measured["validation, specialised for 90 steps"] > before["validation, specialised"]
    text = (tmp_path / "x" / "report.html").read_text()
    assert "specialised for 90 steps" in text
    assert "it is not the one that was predicted" in text
    (kept,) = (tmp_path / "cache" / "codesign").glob("specialised-*.safetensors")
    assert read_arrays(kept)[1] == {"step": 90}
    network, _ = specialised(fitted, design.architecture, digits, 90)  # of that file
    weights, _ = read_arrays(tmp_path / "x" / "weights.safetensors")
    assert all(np.array_equal(weights[n], value) for n, value in network.state_dict().items())


def test_test_images_are_for_the_export_alone(
    fitted: Study, design: Design, digits: Dataset
) -> None:
    hidden = replace(digits, test=unread(digits).test)
    _, measured = specialised(fitted, design.architecture, hidden)
    assert [*measured] == ["validation, supernet weights", "validation, specialised"]


def test_model_names_the_architecture_and_holds_one_weight_a_multiplication(
    folder: Path, design: Design
) -> None:
    model = onnx.load(folder / "model.onnx")
    assert model.graph.name == str(design.architecture)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    assert sizes.pop("mean") == sizes.pop("std") == 1
    genome = SPACE.encode(design.architecture)[None]
    assert sum(sizes.values()) == totals(SPACE, genome)[1][0]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_design_json_says_what_was_predicted_measured_and_modelled(
    folder: Path, fitted: Study, design: Design
) -> None:
    content = json.loads((folder / "design.json").read_text(), parse_constant=refuse)
    assert Design.parse(content["design"]) == design
    assert content["id"] == design.id == folder.name
    assert content["units"] == {
        "accuracy": "%", "latency_ms": "ms", "power_w": "W", "energy_mj": "mJ"
    }  # fmt: skip
    known, source = routed.known(design.accelerator, fitted.device(design.device))
    assert content["engine"] == known | {"source": source, "units": {"clock_mhz": "MHz"}}
    predicted, expected = content["predicted"], fitted.predict([design]).iloc[0]
    for quantity in content["units"]:
        assert predicted[quantity] == pytest.approx(expected[quantity])
        low, high = predicted[f"{quantity}_low"], predicted[f"{quantity}_high"]
        assert low <= predicted[quantity] <= high
    # Resources are told once, by the engine.
    assert not {"dsp", "bram", "lut"} & set(predicted)
    assert {"dsp", "bram", "lut"} < set(content["engine"])
    assert content["interval_coverage"] == 0.9
    assert content["study"] == {
        "space": "digits", "dataset": "digits", "preset": "quick", "seed": 0,
        "supernet": digest(fitted.supernet_path), "closed_form": meters.CLOSED_FORM,
        "version": __version__,
    }  # fmt: skip
    said = {name: (predicted[f"{name}_source"], predicted[f"{name}_of"])
            for name in content["units"]}  # fmt: skip
    images = "the 300 validation images with the supernet's weights"
    assert said == {
        "accuracy": ("predicted from measured subnets", images),
        "latency_ms": ("predicted from modelled designs", "one image"),
        "power_w": ("predicted from modelled designs", "mean while computing"),
        "energy_mj": ("predicted: latency × power", "one image"),
    }
    assert content["device"] == DEVICE.label
    assert content["input"]["shape"] == ["N", 1, 8, 8]
    assert content["classes"] == list("0123456789")
    assert content["measured_hardware"] == {}
    assert content["measured_hardware_by"] == {}
    assert content["memory"] == {}  # nothing is simulated on an Arria 10
    text = (folder / "report.html").read_text()
    assert "it is not the one that was predicted" not in text
    assert f"{known['clock_mhz']:.1f} MHz, {source}" in text
    assert (
        "Hardware figures of this design were not measured: engines are built for ecp5-25f, "
        "ecp5-45f, ecp5-85f only."
    ) in text
    assert ("its interval includes what is not known of a clock" in text) == (source == "modelled")
    assert "of float32 weights" in text
    assert f"Accuracy, with its interval, is that of {escape(images)}." in text
    assert f"supernet {digest(fitted.supernet_path)}" in text
    assert content["program"] == {}  # no engine is built for an Arria 10
    assert content["version"] == __version__


def test_each_accuracy_has_the_interval_of_its_images(folder: Path, digits: Dataset) -> None:
    content = json.loads((folder / "design.json").read_text())
    text = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert len(content["measured_accuracy_percent"]) == 3
    for name, percent in content["measured_accuracy_percent"].items():
        images = len(digits.test if name.startswith("test") else digits.validation)
        assert content["measured_accuracy_images"][name] == images
        low, high = content["measured_accuracy_interval"][name]
        assert (low, high) == Counted(percent, images).interval()
        shown = f"accuracy, {name} {percent:.2f} {low:.2f} {high:.2f} % {images:,}"
        assert shown in " ".join(text.split())


@given(right=st.integers(0, 300), more=st.integers(0, 300), coverage=st.floats(0.5, 0.99))
def test_wilson_s_interval_holds_what_its_ends_may_give(
    right: int, more: int, coverage: float
) -> None:
    found = Counted(100 * right / max(right + more, 1), right + more or 1)
    expected = binomtest(right, right + more or 1).proportion_ci(coverage, method="wilson")
    assert found.interval(coverage) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_what_figures_rest_on_says_who_measured(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    fashion = study.open_study(Path(__file__).parents[1] / "data" / "studies" / "fashion")
    found = origins(fashion, "ecp5-85f")
    assert found["accuracy"][1] == "the 10,000 validation images with the network specialised"
    assert found["latency_ms"][0] == (
        "predicted from simulated cycles and clocks after place and route (no board)"
    )
    assert found["power_w"][0] == "predicted from modelled designs"
    own = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("board") / "study")
    rows = own.store.rows()
    rows = rows[rows["device"] == "ecp5-25f"].iloc[:10]
    rows[["architecture", "accelerator", "device", "latency_ms"]].assign(
        accuracy=90.0, power_w=0.5
    ).to_csv(tmp_path / "board.csv", index=False)
    record.record(own, tmp_path / "board.csv", "my board")
    assert origins(own, "ecp5-25f")["latency_ms"][0] == "predicted from modelled designs"
    fits.fit(own)  # until then, predictions rest on what was fitted before
    found = origins(own, "ecp5-25f")
    assert {found[name][0] for name in ("accuracy", "latency_ms", "power_w")} == {
        "predicted from what my board measured"
    }
    assert found["accuracy"][1] == "the networks measured by my board"
    designs = rows[["architecture", "accelerator", "device"]].agg("@".join, axis=1)
    design = Design.parse(designs.iloc[0])
    device = own.device(design.device)
    told = report._how_measured(device, engines.figures(own, design))
    assert told == "Hardware figures were recorded by my board; the last stored count."
    key = tuple(rows.iloc[0][["architecture", "accelerator", "device"]])
    with own.store.writing() as connection:
        own.store.add(connection, key, {"cycles": 9.0}, meters.SIMULATION, "measured", 0.0)
    assert report._how_measured(device, engines.figures(own, design)) == (
        "Cycles were counted in simulation; the clock is that after place and route. " + told
    )


def test_measured_hardware_says_how_and_in_what(
    own: Study, digits: Dataset, tmp_path: Path
) -> None:
    design = Design.parse("w8k3-w16k31@4x4x1w16f16@ecp5-25f")
    values = {"cycles": 9000.0, "clock_mhz": 120.0, "latency_ms": 0.075}
    key = str(design.architecture), str(design.accelerator), design.device
    with own.store.writing() as connection:
        own.store.add(connection, key, values, meters.SIMULATION, "measured", 0.0)
    export(own, design, digits, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "design.json").read_text())
    assert content["measured_hardware"] == values
    assert content["measured_hardware_by"] == dict.fromkeys(values, "simulation, place and route 2")
    assert content["measured_hardware_units"] == {
        "cycles": "clock cycles of one image", "clock_mhz": "MHz", "latency_ms": "ms"
    }  # fmt: skip


def test_layers_add_up_to_the_whole(folder: Path, design: Design) -> None:
    table = pd.read_csv(folder / "layers.csv")
    assert table["layer"].tolist() == [
        "stem", "s1b1", "s1b2", "s2b1", "s2b2", "s2b3", "classifier"
    ]  # fmt: skip
    genome = SPACE.encode(design.architecture)[None]
    assert table["macs"].sum() == totals(SPACE, genome)[0][0]
    acc = accelerator.Accelerators.of([design.accelerator])
    figures = cost.figures(layers_of(SPACE, genome), acc, DEVICE)
    assert table["cycles"].sum() == pytest.approx(figures.cycles[0])
    content = json.loads((folder / "design.json").read_text())
    assert content["modelled_cycles"] == pytest.approx(figures.cycles[0])
    assert content["layers"]["source"] == "modelled, of one image"
    assert set(content["layers"]["units"]) <= set(pd.read_csv(folder / "layers.csv"))
    np.testing.assert_allclose(table["cycles"], table[list(CAUSES)].sum(axis=1))


def test_exporting_again_replaces_and_changes_nothing(
    folder: Path, fitted: Study, design: Design, digits: Dataset
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "model.onnx").write_bytes(b"an older model")
    for name in ("program.bin", "golden_input.bin", "golden_output.bin", "README.txt"):
        (folder / name).write_bytes(b"of a design for an ECP5")
    export(fitted, design, digits, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["README.txt", "layers.csv", "mine"])
def test_what_no_export_wrote_is_not_written_over(
    fitted: Study, design: Design, digits: Dataset, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"holds {name}, which this would lose: name a new"):
        export(fitted, design, unread(digits), tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_export_that_was_killed_is_written_again(
    fitted: Study, design: Design, digits: Dataset, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def stopped(step: str, which: Design) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[export.__module__], step, killed)
            with pytest.raises(KeyboardInterrupt):
                export(fitted, which, digits, target)

    target = tmp_path / "out"
    other = replace(design, architecture=SPACE.decode(SPACE.extremes()[0]))
    export(fitted, other, digits, target)
    before = tiny.contents(target)
    stopped("specialised", design)
    assert tiny.contents(target) == before
    for step in ("write_arrays", "report"):  # before weights, and before the last file but one
        stopped(step, design)
        there = read_json(target / "design.json")
        assert (there["design"], there["unfinished"]) == (str(design), True)
    (target / "notes.txt").write_text("mine")
    export(fitted, design, digits, target)
    assert read_json(target / "design.json") == read_json(folder / "design.json")
    assert (target / "notes.txt").read_text() == "mine"


def test_another_study_or_its_export_is_not_written_over(
    fitted: Study, design: Design, digits: Dataset, folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = replace(fitted, seed=7)
    with pytest.raises(InputError, match="holds a design of another study: give another folder"):
        export(other, design, unread(digits), folder)
    with pytest.raises(InputError, match="but that is a study"):
        export(fitted, design, unread(digits), fitted.root)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_engine_runs_the_exported_program(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, digits: Dataset
) -> None:
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("export") / "study")
    design = Design.parse("w8k3-w16k31@4x4x1w16f16@ecp5-25f")
    export(opened, design, digits, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "design.json").read_text())
    assert content["memory"] == {
        "latency": 30, "gap": 6, "refresh_every": 780, "refresh_cycles": 20,
        "unit": "cycles of the engine's clock",
        "source": "simulated: the external memory with which simulation measures cycles",
    }  # fmt: skip
    about = content["program"]
    # All that is needed is in the folder.
    maps = [
        Map(about[name]["at_byte"] // about["beat_bytes"], *about[name]["shape"])
        for name in ("input", "output")
    ]
    memory = (tmp_path / "out" / about["file"]).read_bytes()
    program = Program(Shape(design.accelerator, 64), memory, tuple(maps), (0,))
    pixels = batches.to_tensor(digits.test.batch(np.arange(12)))
    given = about["input"]
    normal = (pixels.numpy() - given["mean"][0]) / given["std"][0] / given["scale"]
    inputs = np.clip(np.rint(normal), -127, 127).astype(np.int8)
    found = [program.read_map(simulate(program, x).memory).ravel() for x in inputs]
    logits = np.stack(found) * about["output"]["scale"]
    expected = run((tmp_path / "out" / "model.onnx").read_bytes(), pixels)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).sum() >= 11
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99
    accuracies = content["measured_accuracy_percent"]
    assert abs(accuracies["test, specialised, int8"] - accuracies["test, specialised"]) < 3
    text = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert "test, specialised, int8" in text
    assert "were not measured: <code>codesign verify</code> does." in text
    assert "Latency rests on modelled designs. Power" in text  # the engine's clock is measured

    check_golden(tmp_path / "out", about)


def check_golden(folder: Path, about: dict[str, Any]) -> None:
    """Assert that the engine, known from the folder alone, answers as the folder says."""
    golden = about["golden"]
    given, expected = ((folder / golden[side]).read_bytes() for side in ("input", "output"))
    memory = bytearray((folder / about["file"]).read_bytes())
    assert len(memory) == about["memory_bytes"]
    at = about["input"]["at_byte"]
    memory[at : at + len(given)] = given
    shape = Shape(accelerator.Accelerator.parse(about["accelerator"]), about["port_bits"])
    where = Map(at // about["beat_bytes"], *about["input"]["shape"])
    program = Program(shape, bytes(memory), (where,), (0,) * about["tasks"])
    after = simulate(program, program.read_map(program.image, 0)).memory
    at = about["output"]["at_byte"]
    assert after[at : at + len(expected)] == expected
    assert any(expected)
    assert memory[at : at + len(expected)] != expected
    guide = (folder / about["protocol"]).read_text()
    for words in (
        f"{about['memory_bytes']:,} bytes of memory", about["made_by"], golden["output"],
        "30 cycles after its command, 6 cycles are lost after each command, and 20 of every 780 to",
        f"int8 at byte {about['input']['at_byte']},", f"the answer at byte {at}.",
        "The first beat of a read comes 3 cycles after the cycle of its command or later.",
    ):  # fmt: skip
        assert words in guide
    assert about["made_by"] == (
        "codesign implement 4x4x1w16f16 --device ecp5-25f --port-bits 64 --folder engine"
    )


def test_what_the_engine_cannot_run_is_said_before_the_training(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, digits: Dataset
) -> None:
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("export") / "study")
    design = Design.parse("w24k555-w32k555@8x2x1w4f4@ecp5-25f")
    with pytest.raises(InputError, match="w4f4 cannot run w24k555-w32k555: its buffers"):
        export(opened, design, unread(digits), tmp_path / "out")


def unread(digits: Dataset) -> Dataset:
    """The data set with nothing to read: whoever tries fails."""
    nothing = digits.test.part(np.arange(0))
    return replace(digits, train=nothing, validation=nothing, test=nothing)


def test_folder_that_cannot_be_written_shows_before_the_training(
    fitted: Study, design: Design, digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"out cannot be read: Not a directory\.$"):
        export(fitted, design, unread(digits), tmp_path / "file" / "out")


Change = Callable[[dict[str, np.ndarray], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("only to step 20 of 25", lambda arrays, about: about.update(step=20)),
        ("lacks classifier.bias", lambda arrays, about: arrays.pop("classifier.bias")),
        ("another space than digits", lambda arrays, about: about["space"].update(name="other")),
    ],
)
def test_supernet_that_does_not_serve_is_named(
    fitted: Study, design: Design, digits: Dataset, tmp_path: Path, said: str, change: Change
) -> None:
    arrays, about = read_arrays(fitted.supernet_path)
    change(arrays, about)
    broken = replace(fitted, root=tmp_path)
    write_arrays(broken.supernet_path, arrays, about)
    with pytest.raises(InputError, match=said):
        specialised(broken, design.architecture, unread(digits))


def test_what_a_study_lacks_is_named(
    fitted: Study, design: Design, digits: Dataset, tmp_path: Path
) -> None:
    empty = replace(fitted, root=tmp_path)
    with pytest.raises(InputError, match="run `codesign fit`"):
        export(empty, design, digits, tmp_path / "out")
    with pytest.raises(InputError, match="run `codesign train` on this study first"):
        specialised(empty, design.architecture, digits)
    assert list(tmp_path.iterdir()) == []
