"""Fitting a study: what is learnt from, and which surrogate for accuracy is taken."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
import tiny

from codesign_kernel import baselines, fits, measure, meters, predict
from codesign_kernel.errors import InputError
from codesign_kernel.margins import ImageSurrogate, accuracy_of
from codesign_kernel.predict import accuracy_features, image_features
from codesign_kernel.space import Architecture
from codesign_kernel.study import Study
from codesign_kernel.surrogate import Surrogate


def test_inputs_are_the_features_of_the_rows_in_order(made: Study) -> None:
    frame = measure.rows(made, "accuracy")
    X, names = fits.inputs(made, "accuracy", "", frame)
    assert X.shape == (tiny.ARCHITECTURES, len(names))
    for row, text in zip(X, frame["architecture"], strict=True):
        genome = made.space.encode(Architecture.parse(text))[None]
        np.testing.assert_array_equal(row, accuracy_features(made.space, genome)[0][0])


def test_margins_are_those_of_the_rows_in_order(made: Study) -> None:
    frame = measure.rows(made, "accuracy").iloc[::-1]
    codes = fits.margins(made, frame)
    assert codes is not None
    assert codes.shape == (tiny.ARCHITECTURES, 300)
    np.testing.assert_allclose(accuracy_of(codes), frame["accuracy"], rtol=1e-12)


@pytest.mark.parametrize(
    "change", ["DELETE FROM series WHERE architecture = ?",
               "UPDATE series SET value = x'01' WHERE architecture = ?"],
)  # fmt: skip
def test_where_one_has_no_margins_accuracies_alone_are_learnt_from(own: Study, change: str) -> None:
    frame = measure.rows(own, "accuracy")
    with closing(sqlite3.connect(own.store.path)) as connection, connection:
        connection.execute(change, [frame["architecture"][3]])
    assert fits.margins(own, frame) is None
    assert isinstance(fits.fitted(own)[0].accuracy, Surrogate)


@pytest.mark.parametrize("images", [True, False])
def test_the_report_is_of_the_surrogate_that_was_taken(
    own: Study, images: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = measure.rows(own, "accuracy")
    genomes = own.space.genomes(frame["architecture"])
    codes, X = fits.margins(own, frame), image_features(own.space, genomes)
    assert codes is not None
    monkeypatch.setattr(
        fits, "fit_accuracy",
        lambda space, genomes, accuracy, codes: ImageSurrogate().fit(X, codes) if images
        else Surrogate().fit(accuracy_features(space, genomes)[0], accuracy),
    )  # fmt: skip
    tiny.quick_fit(monkeypatch)
    table = fits.fit(own).set_index(["quantity", "model"])
    kind = ImageSurrogate if images else Surrogate
    assert isinstance(own.predictors().accuracy, kind)
    assert (("accuracy", baselines.ALONE) in table.index) == images
    row = table.loc[("accuracy", baselines.PROCESS)]
    left_out = own.predictors().accuracy.leave_one_out()[0]
    assert row["LOO MAE"] == pytest.approx(np.abs(left_out - frame["accuracy"]).mean())
    # By hand: two folds, as `compare` shuffles them.
    splits = baselines.KFold(2, shuffle=True, random_state=0).split(X)
    y, found = frame["accuracy"].to_numpy(), np.zeros(len(X))
    for train, test in splits:
        if images:
            found[test] = ImageSurrogate().fit(X[train], codes[train]).predict(X[test])
        else:
            plain = accuracy_features(own.space, genomes)[0]
            found[test] = Surrogate().fit(plain[train], y[train]).predict(plain[test])
    assert row["MAE"] == pytest.approx(np.abs(found - y).mean())
    assert row["width"] > 0
    assert table.loc[("accuracy", "linear regression")].isna()["coverage"]


def test_accuracies_of_ones_own_have_no_margins(own: Study) -> None:
    frame = measure.rows(own, "accuracy")
    with own.store.writing() as connection:
        for row in frame.itertuples():
            key = (row.architecture, "", "")
            method = f"{meters.RECORDED}me"
            own.store.add(connection, key, {"accuracy": 50.0}, method, "measured", 0.0)
    frame = measure.rows(own, "accuracy")
    assert set(frame["accuracy"]) == {50.0}
    assert fits.margins(own, frame) is None


@pytest.mark.parametrize("value", [1e250, 0.0])
def test_a_value_that_nothing_can_be_learnt_from_is_named_with_who_recorded_it(
    own: Study, value: float
) -> None:
    device = tiny.DEVICES[0]
    frame = measure.rows(own, "latency_ms", device)
    with own.store.writing() as connection:
        for i, row in enumerate(frame.itertuples()):
            key = (row.architecture, row.accelerator, row.device)
            values = {"latency_ms": value if i == 3 else 1.0}
            own.store.add(connection, key, values, f"{meters.RECORDED}a board", "measured", 0.0)
    with pytest.raises(InputError) as caught:
        fits.fit(own)
    design = "@".join(frame.loc[3, ["architecture", "accelerator", "device"]])
    assert str(caught.value) == (
        f"latency_ms of {design} is {value:g}, by a board, but must be positive and at most 1e+100:"
        f" remove it by `codesign record --forget 'a board' --study {own.root}`."
    )


def test_what_was_verified_is_learnt_from_and_not_counted(
    own: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.quick_fit(monkeypatch)
    front = own.front()
    ids = front.loc[front["device"] == tiny.DEVICES[0], "id"].iloc[:3]
    designs = [own.find(each) for each in ids]
    used: list[meters.Meter] = [meters.Accuracy(own), meters.Closed(own)]
    drawn = {
        (quantity, device): len(measure.rows(own, quantity, device))
        for quantity, device in (("accuracy", ""), ("latency_ms", tiny.DEVICES[0]))
    }
    there = {key for meter in used for key in own.store.keys(meter.method)}
    measure.verify(own, designs, used)
    measure.verify(own, [own.find("@".join(next(key for key in sorted(there) if key[1])))], used)
    found = fits.chosen(own)
    assert found
    assert not found & there  # what was drawn before stays a fair sample
    table = fits.fit(own).set_index(["quantity", "device", "model"])
    for (quantity, device), rows in drawn.items():
        row = table.loc[(quantity, device, baselines.PROCESS)]
        assert row["rows"] == rows
        assert row["chosen"] == len({key for key in found if (key[2] == device)})


def test_what_was_recorded_counts_though_it_was_verified_before(
    own: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.quick_fit(monkeypatch)
    device = tiny.DEVICES[0]
    front = own.front()
    designs = [own.find(each) for each in front.loc[front["device"] == device, "id"].iloc[:12]]
    measure.verify(own, designs, [meters.Accuracy(own), meters.Closed(own)])
    with own.store.writing() as connection:
        for i, design in enumerate(designs):
            key = (str(design.architecture), str(design.accelerator), device)
            values = {"latency_ms": 0.1 + i / 100, "power_w": 0.3 + i / 100}
            own.store.add(connection, key, values, "recorded: a board", "measured", 0.0)
    table = fits.fit(own).set_index(["quantity", "device", "model"])
    for quantity in ("latency_ms", "power_w"):
        row = table.loc[(quantity, device, baselines.PROCESS)]
        assert (row["rows"], row["chosen"], row["source"]) == (12, 0, "measured")
    chosen = table.loc[("accuracy", "", baselines.PROCESS), "chosen"]
    assert chosen == len({key for key in fits.chosen(own) if key[2] == ""}) > 0


def test_what_is_learnt_from_and_passed_over_is_told(own: Study) -> None:
    frame, device = measure.rows(own, "accuracy"), tiny.DEVICES[0]
    everything = fits.jobs(own)
    assert everything == [
        ("accuracy", ""), ("latency_ms", "ecp5-25f"), ("power_w", "ecp5-25f"),
        ("latency_ms", "ecp5-85f"), ("power_w", "ecp5-85f"),
    ]  # fmt: skip
    assert fits.learnt(own, everything) == []
    assert fits.learnt(own, [("accuracy", "")], every=True) == [
        "`codesign fit` learns accuracy from 20 networks (supernet)."
    ]
    special = f"{meters.Specialised.of(own.supernet_path)} on each of 300 validation images"
    rows = measure.rows(own, "latency_ms", device).iloc[:11]
    with own.store.writing() as connection:
        for name in frame["architecture"].iloc[:10]:
            key = (name, "", "")
            own.store.add(connection, key, {"accuracy": 90.0}, special, "measured", 0.0)
        for row in rows.itertuples():
            key = (row.architecture, row.accelerator, device)
            values = {"latency_ms": 1.0, "power_w": 0.5}
            own.store.add(connection, key, values, "recorded: a board", "measured", 0.0)
    assert fits.learnt(own, everything) == [
        "`codesign fit` learns accuracy from 10 networks (specialised), and passes over 20 "
        "networks (supernet).",
        "`codesign fit` learns latency_ms on ecp5-25f, power_w on ecp5-25f from 11 designs (a "
        "board), and passes over 30 designs (closed form 7).",
    ]
    own.store.path.unlink()
    assert fits.learnt(own, everything, every=True) == []


def test_predictions_are_tested_on_engines_that_were_not_learnt_from() -> None:
    rng = np.random.default_rng(0)
    engines = np.repeat([f"engine {i}" for i in range(6)], 10)
    prior, size = rng.uniform(1, 2, 60), np.repeat(rng.normal(0, 1, 6), 10)
    # What an engine adds to the prior follows from nothing that is known of it.
    y = prior * np.repeat(np.exp(rng.normal(0, 0.2, 6)), 10) * np.exp(rng.normal(0, 0.001, 60))
    X = np.column_stack([prior, size, rng.normal(0, 1, 60)])
    found = fits._on_new_engines(X, y, engines).loc[baselines.PROCESS]
    same = baselines.compare(X, y, prior=0, log=True).loc[baselines.PROCESS]
    assert found[fits.ANEW[0]] > 5 * same["MAPE"]
    assert found[fits.ANEW[1]] < same["coverage"]


def test_what_tells_more_is_taken() -> None:
    space, rng = tiny.SPACE, np.random.default_rng(0)
    genomes = space.sample(40, rng)
    X = image_features(space, genomes)
    z = (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-9)
    smooth = 20 * z @ rng.normal(size=(X.shape[1], 200)) / 3 + 60 * rng.normal(size=200)
    codes = np.clip(np.where(smooth > 0, smooth + 1, smooth - 1), -127, 127).astype(np.int8)
    lucky = predict.fit_accuracy(space, genomes, accuracy_of(codes), codes)
    assert isinstance(lucky, ImageSurrogate)
    noise = rng.integers(1, 100, codes.shape).astype(np.int8) * rng.choice([-1, 1], codes.shape)
    steady = 80 + accuracy_features(space, genomes)[0][:, -2]
    alone = predict.fit_accuracy(space, genomes, steady, noise.astype(np.int8))
    assert isinstance(alone, Surrogate)
    assert isinstance(predict.fit_accuracy(space, genomes, steady, None), Surrogate)


def test_of_many_rows_some_are_learnt_from_half_of_which_predictions_chose(
    own: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "LEARNT", 16)
    frames = fits.fitted(own)[1]
    assert {len(frame) for frame in frames.values()} == {16}
    whole = measure.rows(own, "accuracy")
    names = frames["accuracy", ""]["architecture"].tolist()
    assert names == [name for name in whole["architecture"] if name in set(names)]  # in order
    assert names != whole["architecture"].tolist()[:16]
    again = fits.fitted(own)[1]["accuracy", ""]
    assert again["architecture"].tolist() == names
    for picked, learnt in ((3, 3), (10, 8), (15, 11)):  # of 20
        mine = whole["architecture"].tolist()[:picked]
        monkeypatch.setattr(fits, "chosen", lambda study, mine=mine: {(n, "", "") for n in mine})
        few = fits.fitted(own)[1]["accuracy", ""]["architecture"].tolist()
        assert len(few) == 16
        assert len({*few} & {*mine}) == learnt
    assert fits.learnt(own, [("accuracy", "")], every=True) == [
        "`codesign fit` learns accuracy from 16 of 20 networks (supernet)."
    ]
