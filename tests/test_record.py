"""Measurements of one's own: from a table into a study, and what is predicted from them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from codesign_kernel import cost, explore, measure, meters, record
from codesign_kernel.errors import InputError
from codesign_kernel.predict import RECORDED
from codesign_kernel.study import Study
from codesign_kernel.workload import layers_of

SMALL = tiny.DEVICES[0]
Codesign = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Study:
    return tiny.study(tmp_path_factory, tmp_path / "study")


def board(study: Study, n: int = 24) -> pd.DataFrame:
    """Designs as a board might run them: at 100 MHz, a tenth slower and with more power than the
    closed form says."""
    device, rng = study.device(SMALL), np.random.default_rng(3)
    genomes, acc = tiny.pairs(study.space, device, n, 5)
    figures = cost.figures(layers_of(study.space, genomes), acc, device, clock=np.full(n, 100.0))
    luck = np.exp(rng.normal(0, 0.01, (2, n)))
    return pd.DataFrame({
        "architecture": [str(study.space.decode(genome)) for genome in genomes],
        "accelerator": [str(each) for each in acc], "device": SMALL,
        "latency_ms": 1.1 * figures.latency_ms * luck[0],
        "power_w": 1.5 * figures.power_w * luck[1], "clock_mhz": 100.0,
    }).drop_duplicates(["architecture", "accelerator"])  # fmt: skip


def test_what_a_board_measured_is_learnt_shown_and_no_longer_widened(
    study: Study, codesign: Codesign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.quick_fit(monkeypatch)
    table, path = board(study), tmp_path / "board.csv"
    table.assign(note="x").to_csv(path, index=False)
    before = study.predict([study.find("@".join(table.iloc[0, :3]))]).iloc[0]
    asked = ("record", path, "--by", "a board", "--study", study.root)
    status, out, err = codesign(*asked)
    assert (status, err) == (0, "")
    n = len(table)
    assert out.splitlines() == [
        *(f"{name} on {SMALL}: {n} designs measured, {n} in all."
          for name in ("latency_ms", "power_w", "clock_mhz")),
        "Passed over: 'note'.",
        learnt := f"`codesign fit` learns latency_ms on {SMALL}, power_w on {SMALL} from {n} "
        f"designs (a board), and passes over {tiny.DESIGNS} designs (closed form 7).",
    ]  # fmt: skip
    assert codesign(*asked)[1] == out  # nothing twice
    status, out, _ = codesign("fit", "--study", study.root)
    assert (status, out.splitlines()[-1]) == (0, learnt)
    predictors = study.predictors()
    assert predictors.basis[("latency_ms", SMALL)] == predictors.basis["power_w", SMALL] == RECORDED
    assert ("latency_ms", tiny.DEVICES[1]) not in predictors.basis
    assert set(predictors.clocks[SMALL].values()) == {100.0}
    assert study.sources()["power_w", SMALL] == "measured"
    design = study.find("@".join(table.iloc[0, :3]))
    after = study.predict([design]).iloc[0]
    for name in ("latency_ms", "power_w"):
        assert after[name] == pytest.approx(table[name].iloc[0], rel=0.1)
        width = [np.log(row[f"{name}_high"] / row[f"{name}_low"]) for row in (before, after)]
        assert width[1] < width[0] / 2
    status, out, _ = codesign("explore", "--study", study.root, "--device", SMALL,
                              "--generations", 3)  # fmt: skip
    assert f"latency from measured designs on {SMALL}; power from measured designs on" in out
    status, out, _ = codesign("verify", design, "--study", study.root, "--closed-form")
    rows = {line.split()[1]: line.split() for line in out.splitlines()[1:4]}
    assert rows["latency_ms"][-2] == rows["power_w"][-2] == "measured"
    assert float(rows["latency_ms"][-3]) == pytest.approx(table["latency_ms"].iloc[0], rel=1e-3)
    assert "inside is empty" not in out
    # Of another design there is a formula's value, which says nothing of a board.
    asked = ("verify", f"w8k3-w16k3@4x2x1w4f8@{SMALL}", "--study", study.root, "--closed-form")
    lines = codesign(*asked)[1].splitlines()
    assert [line.split()[-1] for line in lines[2:4]] == ["modelled", "modelled"]
    assert lines[1].split()[-1] in ("True", "False")
    assert lines[-1] == (
        "inside is empty for latency_ms, power_w: a value does not test a prediction that rests on "
        "measurements of another kind."
    )
    told = [row["inside"] for row in json.loads(codesign(*asked, "--json")[1])["rows"]]
    assert told[1:] == [None, None]


def test_accuracy_of_architectures_alone_and_designs_in_one_column(
    study: Study, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"design,accuracy,latency_ms\nw8k3-w16k3,90.5,\n\nw8k3-w16k3,90.5,\n"
                    f"w8k5-w16k5@4x4x1w16f16@{SMALL},91,0.25\n")  # fmt: skip
    told = record.record(study, path, "training alone")
    assert told.splitlines() == [
        "accuracy: 2 networks measured, 2 in all; `codesign fit` learns from these once there are "
        "10.",
        f"latency_ms on {SMALL}: 1 designs measured, 1 in all; `codesign fit` learns from these "
        "once there are 10.",
    ]
    design = study.find(f"w8k5-w16k5@4x4x1w16f16@{SMALL}")
    assert record.values(study, design) == {"accuracy": 91.0, "latency_ms": 0.25}
    assert record.values(study, study.find(f"w8k3-w16k3@4x4x1w16f16@{SMALL}")) == {"accuracy": 90.5}
    assert measure.rows(study, "latency_ms", SMALL)["method"].iloc[0] == "closed form 7"


def test_of_what_was_recorded_of_a_design_the_last_counts(study: Study, tmp_path: Path) -> None:
    name = f"w8k3-w16k3@4x4x1w16f16@{SMALL}"
    for by, cells in (("a", ",0.5"), ("b", "0.050,"), ("a", "0.0333,")):
        (tmp_path / "own.csv").write_text(f"design,latency_ms,power_w\n{name},{cells}\n")
        record.record(study, tmp_path / "own.csv", by)
    design = study.find(name)
    assert record.values(study, design) == {"latency_ms": 0.0333, "power_w": 0.5}
    told = measure.verify(study, [design], [meters.Accuracy(study), meters.Closed(study)])
    assert told.set_index("quantity")["value"]["latency_ms"] == 0.0333


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("design,latency\nd,1\n", "columns of .* are 'design', 'latency', but must be design, or"),
        ("accelerator,latency_ms\n8x8x1w16f16,1\n", "must be design, or architecture"),
        ("design,latency_ms\nw8k3-w16k3@4x4x1w16f16@zynq,1\n", "row 1 of .*device is 'zynq'"),
        ("design,latency_ms\nw9k3-w16k3@4x4x1w16f16@DEV,1\n", "row 1 of "),
        ("design,latency_ms\nw8k3-w16k3@4x4x1w16f16@DEV,fast\n",
         "latency_ms in row 1 of .* is 'fast', but must be a number"),
        ("design,latency_ms\nw8k3-w16k3@4x4x1w16f16@DEV,0\n", "is 0.0, but must be from 1e-06 to"),
        *(
            (f"design,{name}\nw8k3-w16k3@4x4x1w16f16@DEV,{cell}\n", f"{name} in row 1 of .*{what}")
            for name, cell, what in [
                ("latency_ms", "1_000", "must be a number"),
                ("latency_ms", "\uff11", "must be a number"),
                ("latency_ms", "1e300", "must be from 1e-06 to 1e[+]07"),
                ("power_w", "20000", "must be from 1e-06 to 10000"),
                ("clock_mhz", "1e8", "must be from 0.01 to 10000"),
                ("accuracy", "0.95", "must be in %, as 95 for a part of 0.95"),
            ]
        ),
        ("design,architecture,latency_ms\nw8k3-w16k3@4x4x1w16f16@DEV,w8k5-w16k3,1\n",
         "row 1 of .*architecture is 'w8k5-w16k3', but design says w8k3-w16k3"),
        ("design,device,accuracy\nw8k3-w16k3@4x4x1w16f16@DEV,ecp5-85f,90\n",
         "row 1 of .*device is 'ecp5-85f', but design says DEV"),
        ("\n\ndesign,accuracy\nw8k3-w16k3,90\nw8k3-w16k3,101\n", "accuracy in row 2 of "),
        ('design,note,accuracy\nw8k3-w16k3,"one\n\ntwo",90\nw8k3-w16k3,x,101\n',
         "accuracy in row 2 of "),
        ("design,accuracy\nw8k3-w16k3,101\n", "accuracy in row 1 of .* must be from 0 to 100"),
        ("design,latency_ms\nw8k3-w16k3,1\n", "row 1 of .*design is 'w8k3-w16k3'"),
        ("design,latency_ms\nw8k3-w16k3@4x4x1w16f16@DEV,\n", "holds no measurement"),
        ("design,latency_ms\nw8k3-w16k3@4x4x1w16f16@DEV,1\nw8k3-w16k3@4x4x1w16f16@DEV,2\n",
         "in row 2 of .* is 2, but w8k3-w16k3@4x4x1w16f16@.* has 1 by me already"),
    ],
)  # fmt: skip
def test_a_table_with_a_fault_is_refused_whole(
    study: Study, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text.replace("DEV", SMALL))
    before = tiny.contents(study.root)
    with pytest.raises(InputError, match=words.replace("DEV", SMALL)) as caught:
        record.record(study, path, "me")
    tiny.assert_one_sentence(str(caught.value))
    assert tiny.contents(study.root) == before


def test_what_is_far_from_predicted_is_doubted_and_can_be_forgotten(
    study: Study, codesign: Codesign, tmp_path: Path
) -> None:
    path, before = tmp_path / "own.csv", study.store.rows()
    design = f"w8k3-w16k3@4x4x1w16f16@{SMALL}"
    told = study.predict([study.find(design)]).iloc[0]
    rows = f"{design},{told['accuracy']},{1000 * told['latency_ms']},{told['power_w']}\n"
    path.write_text(f"design,accuracy,latency_ms,power_w\n{rows}")
    status, out, err = codesign("record", path, "--by", "a board", "--study", study.root)
    assert status == 0
    assert f"latency_ms on {SMALL}: 1 designs measured" in out
    assert err == (
        f"codesign: latency_ms in row 1 of {path} is {1000 * told['latency_ms']:g} ms, but "
        f"{told['latency_ms']:.3g} ms is predicted: 1 of 1 values are off by more than a factor of "
        "100, so look at their unit; `codesign record --forget 'a board' --study "
        f"{study.root}` removes it.\n"
    )
    path.write_text("design,accuracy\nw8k3-w16k3,5\n")
    assert "is predicted: 1 of 1 values are off by more than 20 points" in codesign(
        "record", path, "--by", "other", "--study", study.root)[2]  # fmt: skip
    status, _, err = codesign("record", "--forget", "boar", "--study", study.root)
    assert (status, err) == (
        1, "codesign: --forget is 'boar', but this study has records by 'a board' and 'other'.\n"
    )  # fmt: skip
    for words in (["--by", "x"], [path], [path, "--by", "x", "--forget", "x"], []):
        status, _, err = codesign("record", *words, "--study", study.root)
        assert (status, err.count("\n")) == (1, 1)
    for by, n in (("a board", 3), ("other", 1)):
        status, out, _ = codesign("record", "--forget", by, "--study", study.root)
        assert (status, out) == (
            0, f"{n} values by {by} removed; `codesign fit` learns without them.\n"
        )  # fmt: skip
    pd.testing.assert_frame_equal(study.store.rows(), before)


def test_who_measured_is_a_name(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("design,accuracy\nw8k3-w16k3,90\n")
    with pytest.raises(InputError, match=r"--by is ' ', but must be a name of up to 60 letters\."):
        record.record(study, path, " ")


def test_a_meter_of_ones_own_is_held_to_names_that_are_known(study: Study) -> None:
    class Board:
        source, modelled, method = "measured", (), "a board"

        def measure(self, key: tuple[str, str, str]) -> dict[str, float]:
            return {"latency": 1.0}

    key = ("w8k3-w16k3", "4x4x1w16f16", SMALL)
    with pytest.raises(InputError, match="quantity that a meter measures is 'latency'"):
        measure.measure(study, Board(), [key], "x")
    with pytest.raises(InputError, match="device is 'zynq'"):
        measure.measure(study, Board(), [(*key[:2], "zynq")], "x")


def test_a_meter_may_measure_one_quantity_in_numbers_of_numpy(study: Study) -> None:
    class Board:
        source, modelled, method = "measured", (), "a board"

        def measure(self, key: tuple[str, str, str]) -> dict[str, float]:
            return {"latency_ms": np.float32(0.5), "cycles": np.int64(7)}  # type: ignore[dict-item]

    design = study.find(f"w8k3-w16k3@4x4x1w16f16@{SMALL}")
    told = measure.verify(study, [design], [Board()])
    assert told[["quantity", "value", "source"]].to_numpy().tolist() == [
        ["latency_ms", 0.5, "measured"]
    ]


def test_what_to_measure_next_is_written_filled_in_and_recorded(
    study: Study, codesign: Codesign, tmp_path: Path
) -> None:
    path = tmp_path / "next.csv"
    asked = ("propose", path, "--study", study.root, "--device", SMALL, "--generations", 3)
    status, out, _ = codesign(*asked, "--designs", 4, "--min-accuracy", 70)
    assert status == 0
    assert out.splitlines()[0] == f"Wrote {path}: 4 designs, with what is predicted of them."
    assert out.splitlines()[2] == f"  codesign record {path} --by NAME --study {study.root}"
    table = pd.read_csv(path)
    designs = [study.find(text) for text in table["design"]]
    assert len({str(design) for design in designs}) == 4
    predicted = study.predict(designs)
    for name in ("accuracy", "latency_ms", "power_w_high"):
        np.testing.assert_allclose(table[f"predicted_{name}"], predicted[name], rtol=1e-4)
    assert (predicted["accuracy"] >= 70).all()
    stored = set(
        study.store.rows()[["architecture", "accelerator", "device"]].agg("@".join, axis=1)
    )
    assert not stored & set(table["design"])
    assert codesign("record", path, "--by", "me", "--study", study.root)[0] == 1  # all are empty
    table.assign(latency_ms=predicted["latency_ms"], power_w=0.3).to_csv(path, index=False)
    status, out, _ = codesign("record", path, "--by", "me", "--study", study.root)
    assert (status, out.splitlines()[0][:40]) == (
        0,
        f"latency_ms on {SMALL}: 4 designs measured, 4"[:40],
    )
    status, _, err = codesign(*asked, "--designs", 0)
    assert (status, err) == (1, "codesign: --designs is 0, but must be from 1 to 1000.\n")


def test_a_table_that_was_filled_in_is_not_written_over(
    study: Study, codesign: Codesign, tmp_path: Path
) -> None:
    path = tmp_path / "next.csv"
    asked = ("propose", path, "--study", study.root, "--device", SMALL, "--generations", 2)
    assert codesign(*asked, "--designs", 3)[0] == 0
    assert codesign(*asked, "--designs", 2)[0] == 0  # nothing was filled in
    table = pd.read_csv(path)
    assert len(table) == 2
    others = {
        "measurements": [table.assign(**{name: [0.5, ""]}).to_csv(index=False)
                         for name in ("accuracy", "latency_ms", "power_w", "clock_mhz")],
        "something else than proposals": [
            table.assign(notes="mine").to_csv(index=False), "a,b\n1,2\n", "my notes\n", "",
        ],
    }  # fmt: skip
    for what, texts in others.items():
        for text in texts:
            path.write_text(text)
            status, out, err = codesign(*asked)
            said = f"codesign: {path} holds {what}, which this would lose: name another file.\n"
            assert (status, out, err) == (1, "", said)
            assert path.read_text() == text


@pytest.mark.parametrize("out", ["/", "", ".", "file/out.csv"])
def test_where_no_table_can_be_is_said_before_the_search(
    study: Study, codesign: Codesign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(explore, "explore", None)  # which would fail
    status, printed, err = codesign("propose", out, "--study", study.root)
    assert (status, printed) == (1, "")
    said = "must be a file|cannot be written: Not a directory"
    assert re.search(rf"^codesign: FILE\.csv .*({said})\.$", err)


def test_proposing_that_is_stopped_begins_anew(
    study: Study, codesign: Codesign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explore, "explore", stopped)
    path = tmp_path / "next.csv"
    status, out, err = codesign("propose", path, "--study", study.root)
    assert (status, out) == (130, "")
    assert err == "codesign: stopped; the same command searches anew.\n"
    assert not path.exists()
