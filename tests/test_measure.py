"""Measuring: what is picked, that nothing is measured twice, and what a fit is made from."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel import cost, datasets, export, fits, measure, meters, routed, train
from codesign_kernel.accelerator import Accelerator, Accelerators
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.files import read_arrays, write_arrays
from codesign_kernel.measure import STRATA, stratified
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.space import Architecture, SearchSpace, load_space, presets
from codesign_kernel.store import Key
from codesign_kernel.study import Study, open_study
from codesign_kernel.workload import layers_of, totals

SMALL, LARGE = tiny.DEVICES


class Unchanging:
    """A meter that knows what it measured: a latency of its own for each design."""

    source, modelled = "measured", ()

    def __init__(self, method: str) -> None:
        self.method = method
        self.keys: list[Key] = []

    def measure(self, key: Key) -> dict[str, float]:
        self.keys.append(key)
        return {"latency_ms": 1.0 + len(self.keys), "power_w": 2.0}


def stored(study: Study) -> pd.DataFrame:
    with closing(sqlite3.connect(study.store.path)) as connection:
        return pd.read_sql_query("SELECT * FROM measurement ORDER BY rowid", connection)


def strata(space: SearchSpace, genomes: np.ndarray) -> np.ndarray:
    """How many of the genomes are in each tenth of the range of log MACs."""
    ends = np.log2(totals(space, np.stack(space.extremes()))[0])
    return np.histogram(np.log2(totals(space, genomes)[0]), bins=STRATA, range=tuple(ends))[0]


@pytest.mark.parametrize("name", presets())
def test_architectures_cover_the_range_of_macs_where_random_ones_do_not(name: str) -> None:
    space = load_space(name)
    counts, plain = np.zeros(STRATA), np.zeros(STRATA)
    for seed in range(3):
        counts += strata(space, stratified(space, 100, np.random.default_rng(seed)))
        plain += strata(space, space.sample(100, np.random.default_rng(seed)))
    assert (counts > 0).all()
    assert (counts >= 15).sum() >= 9  # at least 5 of 100 in a tenth; the last may be too rare
    assert (plain >= 15).sum() <= 6
    ends = [0, 1, 2, -3, -2, -1]  # the outer thirds, where fronts end
    assert counts[ends].sum() > 2 * plain[ends].sum()


@settings(max_examples=30)
@given(n=st.integers(10, 300), seed=st.integers(0, 2**32 - 1))
def test_architectures_are_different_and_hold_the_extremes(n: int, seed: int) -> None:
    found = stratified(tiny.SPACE, n, np.random.default_rng(seed))
    texts = [str(tiny.SPACE.decode(genome)) for genome in found]
    assert len(set(texts)) == len(texts) == min(n, tiny.SPACE.size)
    for genome in tiny.SPACE.extremes():
        assert str(tiny.SPACE.decode(genome)) in texts
    again = stratified(tiny.SPACE, n, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)


def test_a_plan_is_of_designs_that_fit_and_follows_from_the_seed(made: Study) -> None:
    accuracy, hardware = measure.plan(made, 20, 30)
    assert len(set(accuracy)) == len(accuracy) == 20
    assert len(set(hardware)) == len(hardware) == 60
    for key in hardware:
        design = made.find("@".join(key))
        assert cost.fits(Accelerators.of([design.accelerator]), made.device(key[2])).all()
    assert measure.plan(open_study(made.root), 20, 30) == (accuracy, hardware)
    other = Study(**(vars(made) | {"seed": 1}))
    assert measure.plan(other, 20, 30)[1] != hardware
    # Engines differ as well, or nothing could be learnt of them; all were placed and routed.
    for name in tiny.DEVICES:
        used = {Accelerator.parse(key[1]) for key in hardware if key[2] == name}
        assert used <= set(routed.engines(made.device(name)))
        assert len(used) == min(4, len(routed.engines(made.device(name))))


def test_a_plan_without_routed_engines_is_of_any_that_fit(
    made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routed, "engines", lambda device: [])
    _, hardware = measure.plan(made, 20, 30)
    assert len({key[1] for key in hardware}) > 30


def test_nothing_is_measured_twice(own: Study) -> None:
    meter = Unchanging("a board")
    keys = measure.plan(own, 10, 12)[1]
    assert measure.measure(own, meter, keys[:10], "x") == 10
    before = stored(own)
    assert measure.measure(own, meter, keys, "x") == len(keys) - 10
    assert measure.measure(own, meter, keys, "x") == 0
    assert meter.keys == keys
    pd.testing.assert_frame_equal(stored(own).head(len(before)), before)


def test_a_meter_that_fails_loses_nothing_of_before(own: Study) -> None:
    class Failing(Unchanging):
        def measure(self, key: Key) -> dict[str, float]:
            if len(self.keys) == 4:
                raise InputError("the board is gone.")
            return super().measure(key)

    keys = measure.plan(own, 10, 12)[1]
    with pytest.raises(InputError, match=r"^the board is gone\.$"):
        measure.measure(own, Failing("a board"), keys, "x")
    meter = Unchanging("a board")
    assert measure.measure(own, meter, keys, "x") == len(keys) - 4
    assert meter.keys == keys[4:]


def test_a_killed_profile_goes_on_where_it_stopped(own: Study) -> None:
    own.store.path.unlink()
    command = [sys.executable, "-m", "codesign_kernel.cli", "profile", "--study", str(own.root)]
    environment = os.environ | {"PYTHONPATH": str(Path(measure.__file__).parent.parent)}
    process = subprocess.Popen(
        [*command, "--architectures", "60", "--designs", "10", "--weights", "supernet"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.poll() is None:
            try:
                if own.store.path.exists() and len(stored(own)) >= 3:
                    break
            except pd.errors.DatabaseError:
                pass  # the file is there a moment before its table
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = stored(own)
    accuracy, _ = measure.plan(own, 60, 10)
    assert 3 <= len(before) < 60
    assert measure.measure(own, meters.Accuracy(own), accuracy, "accuracy") == 60 - len(before)
    # What was there stays to the second it took, so that it was not measured again.
    pd.testing.assert_frame_equal(stored(own).head(len(before)), before)
    assert set(stored(own)["architecture"]) == {key[0] for key in accuracy}
    # The file is whole by itself: what a kill leaves beside it is gone.
    assert not list(own.root.glob("measurements.sqlite-*"))


def test_processes_of_torchrun_share_the_accuracies(own: Study) -> None:
    own.store.path.unlink()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    verb = ["-m", "codesign_kernel.cli", "profile", "--closed-form", "--study", str(own.root)]
    environment = os.environ | {"PYTHONPATH": str(Path(measure.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, *torchrun, *verb, "--architectures", "13", "--designs", "10"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    keys = {key[0] for key in measure.plan(own, 13, 10)[0]}
    assert set(measure.rows(own, "accuracy")["architecture"]) == keys
    meter = measure.subnets_of(own)
    assert f"accuracy: 7 networks measured by {meter.method}, 7 now." in done.stdout
    assert "`codesign fit` learns accuracy from 13 networks (specialised)." in done.stdout
    assert done.stdout.count("modelled: 20 designs") == 1
    assert len(measure.rows(own, "latency_ms", LARGE)) == 10


def test_accuracy_is_what_counting_by_hand_finds(made: Study) -> None:
    data = datasets.load("digits")
    net = train.load_supernet(made.supernet_path)
    meter = meters.Accuracy(made)
    for text in ("w8k3-w16k3", "w24k515-w24k35"):
        alone = train.subnet(net, Architecture.parse(text), train.calibration_images(data))
        part = data.validation
        images = torch.from_numpy(part.batch(np.arange(len(part)))).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            out = alone(images).numpy()
        right = out.argmax(axis=1) == part.labels
        found = meter.measure((text, "", ""))
        assert found.pop("accuracy") == 100 * right.sum() / len(part)
        (codes,) = found.values()
        np.testing.assert_array_equal(codes > 0, right)
        mine = out[np.arange(len(part)), part.labels]
        others = np.where(np.arange(10) == part.labels[:, None], -np.inf, out).max(axis=1)
        near = np.abs(mine - others) < 20  # further off, codes end
        margins = np.sinh(codes[near] / 32.0)
        np.testing.assert_allclose(margins, (mine - others)[near], rtol=0.02, atol=0.04)
    frame = measure.rows(made, "accuracy")
    first = frame.iloc[0]
    assert meter.measure((first["architecture"], "", ""))["accuracy"] == first["accuracy"]
    assert set(frame["source"]) == {"measured"}


def test_a_specialised_network_is_measured_as_it_is_exported(own: Study) -> None:
    meter = meters.Specialised(own)
    text = "w8k3-w16k3"
    _, exported = export.specialised(own, Architecture.parse(text), meter.dataset)
    found = meter.measure((text, "", ""))
    assert found["accuracy"] == exported["validation, specialised"]
    shared = meters.Accuracy(own).measure((text, "", ""))
    assert found["accuracy"] > shared["accuracy"] == exported["validation, supernet weights"]
    assert (found["margins"] > 0).mean() * 100 == pytest.approx(found["accuracy"])
    supernet = meters.Accuracy.of(own.supernet_path)
    assert meter.method == f"specialised 1 from {supernet} on each of 300 validation images"


def test_specialised_networks_go_before_shared_weights_from_ten_on(own: Study) -> None:
    assert measure.weights_of(own) == "supernet"
    assert type(measure.subnets_of(own)) is meters.Accuracy
    meter = measure.subnets_of(own, weights="specialised")
    shared = measure.rows(own, "accuracy")
    keys = [(name, "", "") for name in shared["architecture"]]
    measure.measure(own, meter, keys[:9], "accuracy")
    shared = measure.rows(own, "accuracy")
    assert set(shared["method"]) == {meters.Accuracy(own).method}
    measure.measure(own, meter, keys[:10], "accuracy")
    frame = measure.rows(own, "accuracy")
    assert set(frame["method"]) == {meter.method}
    assert measure.accuracy_of(own) == "the 300 validation images with the supernet's weights"
    fits.fit(own)  # from here on, predictions are of what is measured now
    assert measure.accuracy_of(own) == "the 300 validation images with the network specialised"
    # What is measured from here on is like it, and shared weights, asked for, stay behind.
    assert type(measure.subnets_of(own)) is meters.Specialised
    measure.measure(own, meters.Accuracy(own), keys, "accuracy")
    assert set(measure.rows(own, "accuracy")["method"]) == {meter.method}
    # Both are of the supernet that is there: of another, neither counts.
    arrays, about = read_arrays(own.supernet_path)
    write_arrays(own.supernet_path, arrays, about | {"other": 1})
    assert measure.weights_of(own) == "specialised"
    with pytest.raises(InputError, match=f"and {len(shared) + 10} are of another supernet"):
        measure.rows(own, "accuracy")


def test_a_new_study_measures_specialised_networks(own: Study) -> None:
    own.store.path.unlink()
    assert measure.weights_of(own) == "specialised"
    with pytest.raises(InputError) as raised:
        measure.subnets_of(own, weights="shared")
    assert str(raised.value) == (
        "--weights is 'shared', but must be one of: specialised, supernet."
    )
    own.supernet_path.unlink()
    assert measure.weights_of(own) == "specialised"
    with pytest.raises(InputError, match="does not exist: run `codesign train`"):
        measure.subnets_of(own)


def test_the_closed_form_is_that_of_the_cost_model(made: Study) -> None:
    frame = measure.rows(made, "latency_ms", LARGE)
    assert len(frame) == tiny.DESIGNS
    assert set(frame["source"]) == {"modelled"}
    genomes = made.space.genomes(frame["architecture"])
    designs = [
        Design.parse(f"{r.architecture}@{r.accelerator}@{LARGE}") for r in frame.itertuples()
    ]
    acc = Accelerators.of([design.accelerator for design in designs])
    device = made.device(LARGE)
    figures = cost.figures(layers_of(made.space, genomes), acc, device)
    for name in ("cycles", "clock_mhz", "latency_ms", "power_w", "energy_mj"):
        found = measure.rows(made, name, LARGE)[name]
        np.testing.assert_allclose(found, getattr(figures, name), rtol=1e-12)
    for name in ("dsp", "bram", "lut"):
        found = measure.rows(made, name, LARGE)[name]
        np.testing.assert_array_equal(found, getattr(cost.resources(acc, device), name))


def test_a_new_supernet_is_measured_anew(own: Study) -> None:
    old = meters.Accuracy(own).method
    arrays, about = read_arrays(own.supernet_path)
    write_arrays(own.supernet_path, arrays, about | {"seconds": 0.0})  # as of another run
    meter = meters.Accuracy(own)
    assert meter.method != old
    with pytest.raises(InputError, match="accuracy was measured for 0 designs"):
        fits.fit(own)
    keys = measure.plan(own, tiny.ARCHITECTURES, 10)[0]
    assert measure.measure(own, meter, keys[:12], "accuracy") == 12
    frame = measure.rows(own, "accuracy")
    assert len(frame) == 12
    assert set(frame["method"]) == {meter.method}
    # Rows of the old one are still there, should it come back.
    write_arrays(own.supernet_path, arrays, about)
    assert measure.measure(own, meters.Accuracy(own), keys, "accuracy") == 0
    assert set(measure.rows(own, "accuracy")["method"]) == {old}


def test_a_supernet_of_another_space_is_refused(own: Study, tmp_path: Path) -> None:
    space = load_space("digits")
    wide = SearchSpace(**(vars(space) | {"name": "wide"}))
    (own.root / "study.json").write_text(
        (own.root / "study.json").read_text().replace('"name": "digits"', '"name": "wide"', 1)
    )
    assert open_study(own.root).space == wide
    with pytest.raises(InputError, match="is of another space than wide"):
        meters.Accuracy(open_study(own.root))


def test_measured_rows_go_before_modelled_ones_and_the_last_method_counts(own: Study) -> None:
    keys = [key for key in measure.plan(own, 10, 30)[1] if key[2] == LARGE]
    first, second = Unchanging("board 1"), Unchanging("board 2")
    measure.measure(own, first, keys[:9], "x")
    assert set(measure.rows(own, "latency_ms", LARGE)["source"]) == {"modelled"}  # nine are few
    measure.measure(own, first, keys[:12], "x")
    frame = measure.rows(own, "latency_ms", LARGE)
    assert set(frame["method"]) == {"board 1"}
    assert len(frame) == 12
    measure.measure(own, second, keys[:10], "x")
    frame = measure.rows(own, "latency_ms", LARGE)
    assert set(frame["method"]) == {"board 2"}
    assert [*frame["latency_ms"]] == [*range(2, 12)]
    assert set(measure.rows(own, "latency_ms", SMALL)["source"]) == {"modelled"}


def test_accuracy_is_said_to_be_of_what_is_learnt_from(own: Study) -> None:
    assert measure.accuracy_of(own) == "the 300 validation images with the supernet's weights"
    keys = [(name, "", "") for name in measure.rows(own, "accuracy")["architecture"]]
    with own.store.writing() as connection:
        for key in keys:
            own.store.add(connection, key, {"accuracy": 91.0}, "recorded: me", "measured", 0.0)
    assert measure.accuracy_of(own) == "the 300 validation images with the supernet's weights"
    fits.fit(own)  # until then, predictions are of what was fitted
    assert measure.accuracy_of(own) == "the networks measured by me"
    own.store.path.unlink()
    (own.root / "fit.json").unlink()
    assert measure.accuracy_of(own) == "the validation images with the network specialised"


def test_accuracies_of_another_supernet_and_a_damaged_one_are_told_apart(own: Study) -> None:
    arrays, about = read_arrays(own.supernet_path)
    write_arrays(own.supernet_path, arrays, about | {"other": 1})
    with pytest.raises(InputError) as raised:
        measure.rows(own, "accuracy")
    assert str(raised.value) == (
        "accuracy was measured for 0 designs, but at least 10 are needed, and "
        f"{tiny.ARCHITECTURES} are of another supernet than {own.supernet_path}: run `codesign "
        "profile` on this study."
    )
    os.truncate(own.supernet_path, own.supernet_path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"supernet\.safetensors is damaged") as raised:
        measure.rows(own, "accuracy")
    tiny.assert_one_sentence(str(raised.value))


@pytest.mark.parametrize("there", [0, 9])
def test_fewer_than_ten_rows_are_refused(own: Study, there: int) -> None:
    with closing(sqlite3.connect(own.store.path)) as connection, connection:
        connection.execute(
            "DELETE FROM measurement WHERE quantity = 'power_w' AND device = ? AND rowid NOT IN "
            "(SELECT rowid FROM measurement WHERE quantity = 'power_w' AND device = ? LIMIT ?)",
            [SMALL, SMALL, there],
        )
    before = tiny.contents(own.root)
    with pytest.raises(InputError) as raised:
        fits.fit(own)  # before it fits anything, although power is the last it needs
    assert str(raised.value) == (
        f"power_w on ecp5-25f was measured for {there} designs, but at least 10 are needed: run "
        "`codesign profile` on this study."
    )
    assert tiny.contents(own.root) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("value", "x"),
        ("value", b"\xff"),
        ("value", 1e999),
        ("architecture", b"w8"),
        ("method", b"m"),
    ],
)
def test_a_damaged_row_is_refused(own: Study, column: str, value: str | bytes | float) -> None:
    with closing(sqlite3.connect(own.store.path)) as connection, connection:
        connection.execute(
            f"UPDATE measurement SET {column} = ? WHERE quantity = 'accuracy' AND rowid = 3",
            [value],
        )
    with pytest.raises(
        InputError, match=r"sqlite is damaged: a row of accuracy is no measurement\.$"
    ):
        fits.fit(own)


def test_verify_puts_predicted_beside_measured(own: Study) -> None:
    front = own.front()
    designs = [own.find(front["id"][i]) for i in (0, len(front) // 2, len(front) - 1)]
    used: list[meters.Meter] = [meters.Accuracy(own), meters.Closed(own)]
    table = measure.verify(own, designs, used)
    assert [*zip(table["id"], table["quantity"], strict=True)] == [
        (design.id, quantity) for design in designs for quantity in QUANTITIES
    ]
    labels = {"accuracy": "measured", "latency_ms": "modelled", "power_w": "modelled"}
    assert [*table["source"]] == [labels[quantity] for quantity in table["quantity"]]
    predicted = own.predict(designs)
    for _, row in table.iterrows():
        i = [design.id for design in designs].index(row["id"])
        design, name = designs[i], row["quantity"]
        texts = (str(design.architecture), str(design.accelerator), design.device)
        key = (texts[0], "", "") if name == "accuracy" else texts
        assert row["value"] == used[name != "accuracy"].measure(key)[name]
        assert row["predicted"] == predicted[name][i]
        assert (row["low"], row["high"]) == (
            predicted[f"{name}_low"][i],
            predicted[f"{name}_high"][i],
        )
        assert row["inside"] == (row["low"] <= row["value"] <= row["high"])
    # What was measured is kept, and read the second time: even where nothing can be written.
    before = tiny.contents(own.root)
    with tiny.read_only(own.root):
        pd.testing.assert_frame_equal(measure.verify(own, designs, used), table)
    assert tiny.contents(own.root) == before


def recorded(study: Study, keys: list[Key], values: dict[str, float]) -> None:
    with study.store.writing() as connection:
        for key in keys:
            study.store.add(connection, key, values, "recorded: a board", "measured", 0.0)


def inside(study: Study, design: Design, used: list[meters.Meter]) -> list[object]:
    return measure.verify(study, [design], used)["inside"].tolist()


def test_a_value_of_another_kind_than_the_prediction_rests_on_does_not_tell(
    own: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.quick_fit(monkeypatch)
    subnets, simulated = meters.Accuracy(own), Unchanging("a simulation")
    keys = [key for key in measure.plan(own, 10, 12)[1] if key[2] == SMALL]
    measure.measure(own, simulated, keys, "x")
    recorded(own, keys, {"power_w": 0.3})
    fits.fit(own)
    on = {("latency_ms", SMALL): "simulated", ("power_w", SMALL): "recorded"}
    assert own.predictors().basis == on
    design = own.find(f"w8k3-w16k3@4x4x1w16f16@{SMALL}")
    key = ("w8k3-w16k3", "4x4x1w16f16", SMALL)
    accuracy, *hardware = inside(own, design, [subnets, meters.Closed(own)])
    assert hardware == [None, None]  # a formula says nothing of a simulation, nor of a board
    assert isinstance(accuracy, bool)
    _, latency, power = inside(own, design, [subnets, simulated])
    assert (type(latency), power) == (bool, None)
    # What was recorded says something of hardware figures from anywhere, but of accuracies only if
    # these were recorded as well.
    recorded(own, [key], {"latency_ms": 1.0, "power_w": 0.3})
    recorded(own, [(key[0], "", "")], {"accuracy": 91.0})
    accuracy, latency, power = inside(own, design, [subnets, meters.Closed(own)])
    assert (accuracy, type(latency), type(power)) == (None, bool, bool)
    keys = [(name, "", "") for name in measure.rows(own, "accuracy")["architecture"]]
    recorded(own, keys, {"accuracy": 91.0})
    assert inside(own, design, [subnets, meters.Closed(own)])[0] is None  # not fitted yet
    fits.fit(own)
    assert type(inside(own, design, [subnets, meters.Closed(own)])[0]) is bool
    other = own.find(f"w24k515-w24k35@4x4x1w16f16@{SMALL}")
    assert inside(own, other, [subnets, meters.Closed(own)])[0] is None


def test_methods_of_another_version_are_past_and_others_are_not(
    made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CLOSED_FORM", "closed form 10")
    past = ["closed form 9", "closed form 1", "closed form 11", "simulation, place and route 1"]
    assert [measure._is_past(made, method) for method in past] == [True] * 4
    present = ["closed form 10", measure.SIMULATION, "a board", "recorded: closed form 9",
               "simulation, place and route by my tool", "closed forms"]  # fmt: skip
    assert [measure._is_past(made, method) for method in present] == [False] * 6
