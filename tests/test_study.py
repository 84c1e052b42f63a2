"""The study: what is stored comes back, whatever is damaged is said, and nothing is overwritten."""

import json
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import strategies
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel import __version__, cost, explore, measure, meters, pareto, study, train
from codesign_kernel.accelerator import load_device
from codesign_kernel.constraints import Constraints
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.explore import SIGNS, Exploration
from codesign_kernel.files import read_arrays, read_json, write_arrays, write_json
from codesign_kernel.predict import RECORDED, Predictors
from codesign_kernel.space import load_space
from codesign_kernel.study import Study, create, open_study

SMALL, LARGE = tiny.DEVICES
READERS: dict[str, list[Callable[[Study], object]]] = {
    "study.json": [lambda made: open_study(made.root)],
    "predictors.safetensors": [Study.predictors],
    "fit.json": [Study.fit_report],
    "designs.safetensors": [Study.designs],
    "front.json": [Study.front, lambda made: made.find("d00000000")],
    "measurements.sqlite": [
        lambda made: measure.rows(made, "accuracy"),
        lambda made: measure.rows(made, "latency_ms", LARGE),
        lambda made: made.store.keys(meters.CLOSED_FORM),
    ],
    "supernet.safetensors": [lambda made: train.load_supernet(made.supernet_path)],
}


def sentence(read: Callable[[], object]) -> str | None:
    """What is said of bad input, or None where it can be read; nothing else may be raised."""
    try:
        read()
    except InputError as error:
        tiny.assert_one_sentence(str(error))
        return str(error)
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that no test changes for good."""
    return tiny.study(tmp_path_factory, tmp_path_factory.mktemp("study") / "digits")


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


@pytest.fixture(scope="module")
def found(predictors: Predictors) -> Exploration:
    return explore.explore(predictors, tiny.DEVICES, Constraints(), generations=4)


@pytest.fixture
def empty(tmp_path: Path) -> Study:
    """A study of the tiny space that holds nothing yet."""
    devices = [load_device(name) for name in tiny.DEVICES]
    return create(tmp_path / "tiny", tiny.SPACE, "digits", "quick", 3, devices)


def test_settings_come_back(empty: Study) -> None:
    assert open_study(empty.root) == open_study(str(empty.root)) == empty
    assert [path.name for path in empty.root.iterdir()] == ["study.json"]


def test_a_command_on_a_study_is_quoted_as_a_shell_takes_it(empty: Study) -> None:
    ours = replace(empty, root=Path("my study"))
    assert ours.command("verify", "d896eb6a3") == "codesign verify d896eb6a3 --study 'my study'"
    words = ["record", "--forget", "Ann's $board"]
    assert shlex.split(ours.command(*words)) == ["codesign", *words, "--study", "my study"]


def test_predictors_come_back(empty: Study, predictors: Predictors) -> None:
    empty.save_predictors(predictors, [])
    again = open_study(empty.root).predictors()
    for name, device in empty.devices.items():
        genomes, acc = tiny.pairs(tiny.SPACE, device, 100, seed=1)
        assert (again.means(genomes, acc, name) == predictors.means(genomes, acc, name)).all()
        for one, other in zip(
            again.intervals(genomes, acc, name),
            predictors.intervals(genomes, acc, name),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_front_comes_back(empty: Study, predictors: Predictors, found: Exploration) -> None:
    empty.save_exploration(found, Constraints(max_latency_ms=9.0), sample=False)
    front = open_study(empty.root).front()
    pd.testing.assert_frame_equal(front, found.front, rtol=1e-5, check_dtype=False)
    content = json.loads((empty.root / "front.json").read_text())
    assert content["considered"] == found.considered
    assert content["constraints"] == asdict(Constraints(max_latency_ms=9.0))


def test_designs_come_back(
    empty: Study, predictors: Predictors, found: Exploration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SAMPLE", 2000)
    empty.save_predictors(predictors, [])
    empty.save_exploration(found, Constraints(), sample=True)
    designs, considered = open_study(empty.root).designs()
    assert considered == {each.device: len(each) for each in found.designs}
    kept = set()
    for each in found.designs:
        sample = designs[each.device]
        assert len(sample) == 2000 < len(each)
        known = {design_of(each, i): i for i in range(len(each))}
        rows = [known[design_of(sample, i)] for i in range(len(sample))]
        assert len(set(rows)) == len(rows)
        kept |= {(each.device, *text) for text in map(known_text(sample), range(len(sample)))}
        np.testing.assert_allclose(sample.means, each.means[rows], rtol=1e-6)
        ends = predictors.intervals(sample.genomes, sample.accelerators, each.device)
        for stored, end in zip((sample.low, sample.high), ends, strict=True):
            assert stored is not None
            np.testing.assert_allclose(stored, end, rtol=1e-4)
    front = found.front[["device", "architecture", "accelerator"]]
    assert set(front.itertuples(index=False, name=None)) <= kept


def design_of(designs: explore.Designs, i: int) -> tuple[str, str]:
    row = [values[i] for values in vars(designs.accelerators).values()]
    return str(designs.genomes[i].tolist()), str(row)


def known_text(designs: explore.Designs) -> Callable[[int], tuple[str, str]]:
    accelerators = list(designs.accelerators)
    return lambda i: (str(tiny.SPACE.decode(designs.genomes[i])), str(accelerators[i]))


@pytest.mark.parametrize(
    "bound", [{"max_dsp": 18}, {"max_dsp": 34, "max_bram": 24}, {"max_bram": 24}]
)
def test_the_sample_holds_the_best_under_any_bound_on_resources(
    empty: Study,
    predictors: Predictors,
    found: Exploration,
    monkeypatch: pytest.MonkeyPatch,
    bound: dict[str, float],
) -> None:
    monkeypatch.setattr(study, "SAMPLE", 6000)
    empty.save_predictors(predictors, [])
    empty.save_exploration(found, Constraints(), sample=True)
    for each in found.designs:
        need = cost.resources(each.accelerators, empty.device(each.device))
        inside = each[
            (need.dsp <= bound.get("max_dsp", 999)) & (need.bram <= bound.get("max_bram", 999))
        ]
        best = inside[pareto.front(inside.means * SIGNS)]
        sample = empty.designs()[0][each.device]
        kept = {design_of(sample, i) for i in range(len(sample))}
        assert len(sample) == 6000 < len(each)
        assert len(best) > 3
        assert {design_of(best, i) for i in range(len(best))} <= kept


def test_fit_report_has_a_row_for_each_quantity_device_and_model(made: Study) -> None:
    report = made.fit_report()
    wanted = {("accuracy", ""), *((q, d) for q in ("latency_ms", "power_w") for d in tiny.DEVICES)}
    assert set(zip(report["quantity"], report["device"], strict=True)) == wanted
    process = report[report["model"] == "Gaussian process"]
    assert len(process) == len(wanted)
    assert process[["MAE", "R2", "coverage", "width", "LOO MAE"]].notna().all(axis=None)
    assert set(report["source"]) == {"measured", "modelled"}


def test_a_design_is_found_by_id_and_by_text(made: Study) -> None:
    front = made.front()
    row = front.iloc[len(front) // 2]
    design = made.find(row["id"])
    assert design.id == row["id"]
    assert made.find(str(design)) == design
    table = made.predict([design, made.find(front.iloc[0]["id"])])
    assert [*table["id"]] == [row["id"], front.iloc[0]["id"]]
    for name in study.FIGURES:
        assert table[name][0] == pytest.approx(row[name], rel=1e-4), name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("d0", "'d0' is neither in the front"),
        ("", "'' is neither in the front"),
        ("a@b", "must be an id of the study's front or look like"),
        ("w8k3-w16k3@8x8x1w16f32@nowhere", "'nowhere', but this study knows only: ecp5-25f"),
        ("w9k3-w16k3@8x8x1w16f32@ecp5-85f", "width of stage 1 of w9k3-w16k3 is 9"),
        (
            "w8k3-w16k3@64x64x4w16f32@ecp5-85f",
            "does not fit Lattice ECP5 85F: the buffers of",
        ),
        ("w8k3-w16k3@16x16x1w64f64@ecp5-25f", "it takes 2"),
        ("w8k3-w16k3@7x8x1w64f64@ecp5-85f", "pf of 7x8x1w64f64 is 7, but must be a power of two"),
        ("w8k3-w16k3@8x8x1@ecp5-85f", "accelerator is '8x8x1', but must look like"),
        ("w8k3-w16k3@0x8x1w4f4@ecp5-85f", "PF of the accelerator is 0"),
    ],
)
def test_what_is_no_design_of_the_study_is_named(made: Study, text: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        made.find(text)
    assert words in str(raised.value)
    tiny.assert_one_sentence(str(raised.value))


def test_a_design_that_the_page_shows_is_found_by_its_id(made: Study) -> None:
    front = set(made.front()["id"])
    for name, designs in made.designs()[0].items():
        pairs = zip(designs.genomes, designs.accelerators, strict=True)
        shown = (Design(made.space.decode(genome), acc, name) for genome, acc in pairs)
        other = next(design for design in shown if design.id not in front)
        assert made.find(other.id) == other


def test_figures_are_of_engines_that_can_be_built_and_run_the_network(made: Study) -> None:
    for text, words in (
        (
            "w8k3-w16k3@64x16x1w64f64@ecp5-85f",
            "does not fit Lattice ECP5 85F: it takes 1,032 of 156 DSP",
        ),
        ("w24k555-w32k555@8x2x1w4f4@ecp5-25f", "too small for layer s1b2, or it has no mode"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            made.layers(Design.parse(text))
        tiny.assert_one_sentence(str(raised.value))


def test_predictions_are_of_designs_of_the_study(made: Study) -> None:
    with pytest.raises(InputError, match=r"^the number of designs is 0, but must be at least 1\.$"):
        made.predict([])
    with pytest.raises(InputError, match=r"^device is 'ecp5-45f', but this study knows only: "):
        made.predict([Design.parse("w8k3-w16k3@4x4x1w16f16@ecp5-45f")])


def test_a_design_that_was_measured_is_found_by_its_id(empty: Study) -> None:
    design = Design.parse("w8k3-w16k3@4x4x1w16f16@ecp5-25f")
    key = (str(design.architecture), str(design.accelerator), design.device)
    values = {"cycles": 5000.0, "clock_mhz": 125.0, "latency_ms": 0.04, "power_w": 0.3}
    with empty.store.writing() as connection:
        sources = dict.fromkeys(values, "measured") | {"power_w": "modelled"}
        empty.store.add(connection, key, values, "simulation", sources, 1.0)
    assert empty.find(design.id) == design


def test_predictors_and_their_report_are_of_one_fit(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    own = replace(made, root=tmp_path / "own")
    shutil.copytree(made.root, own.root)
    before = own.sources()
    predictors, report = own.predictors(), read_json(own.root / "fit.json")["quantities"]
    basis = {("latency_ms", SMALL): RECORDED}
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            own.save_predictors(replace(predictors, basis=basis), report)
    with pytest.raises(InputError, match=r"fit\.json is of other predictors: run `codesign fit`"):
        own.sources()
    own.save_predictors(predictors, report)
    assert own.sources() == before
    older = read_json(own.root / "fit.json")
    del older["predictors"]
    write_json(own.root / "fit.json", older)
    (own.root / "predictors.safetensors").unlink()
    assert own.sources() == before  # as the page reads it, which needs no predictors


def test_of_two_explorations_at_once_one_is_kept_whole(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    own = replace(made, root=tmp_path / "own")
    shutil.copytree(made.root, own.root)
    found = [
        explore.explore(own.predictors(), [name], Constraints(), generations=2)
        for name in tiny.DEVICES
    ]
    second = threading.Thread(
        target=lambda: own.save_exploration(found[1], Constraints(), sample=True)
    )

    def slowly(path: Path, *arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(study, "write_json", write_json)
        write_json(path, *arguments, **options)
        second.start()  # and in a second it would be done
        second.join(timeout=1)

    monkeypatch.setattr(study, "write_json", slowly)
    own.save_exploration(found[0], Constraints(), sample=True)
    second.join()
    assert set(own.front()["device"]) == set(own.designs()[0]) == {LARGE}
    assert "waiting for another command" in capsys.readouterr().err


def test_the_same_study_is_opened_again(empty: Study) -> None:
    before = tiny.contents(empty.root)
    again = create(empty.root, tiny.SPACE, "digits", "quick", 3, [*empty.devices.values()])
    assert again == empty
    assert tiny.contents(empty.root) == before


@pytest.mark.parametrize("setting", ["space", "dataset", "preset", "seed", "devices"])
def test_a_study_with_another_setting_is_refused(empty: Study, setting: str) -> None:
    settings = {
        "space": empty.space, "dataset": "digits", "preset": "quick", "seed": 3,
        "devices": [*empty.devices.values()],
    }  # fmt: skip
    others = {
        "space": load_space("digits"), "dataset": "images:x", "preset": "full", "seed": 4,
        "devices": [empty.devices[SMALL]],
    }  # fmt: skip
    before = tiny.contents(empty.root)
    values: Any = settings | {setting: others[setting]}
    other = "other devices" if setting == "devices" else f"another {setting}"
    with pytest.raises(InputError, match=f"is a study with {other}; choose another folder"):
        create(empty.root, **values)
    assert tiny.contents(empty.root) == before


def test_what_could_never_be_explored_is_refused_at_once(tmp_path: Path) -> None:
    device = load_device(SMALL)
    few = replace(tiny.SPACE, stages=(replace(tiny.SPACE.stages[0], widths=(8,)),))
    assert few.size < 10
    with pytest.raises(InputError, match="holds 6 architectures, but must hold at least 10"):
        create(tmp_path, few, "digits", "quick", 0, [device])
    with pytest.raises(InputError, match="device ecp5-25f is too small"):
        create(tmp_path, tiny.SPACE, "digits", "quick", 0, [replace(device, dsp=3)])
    twins = [device, replace(device, dsp=20)]
    with pytest.raises(InputError, match="two devices are called ecp5-25f"):
        create(tmp_path, tiny.SPACE, "digits", "quick", 0, twins)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_without_a_study_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        open_study(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "codesign run --preset quick" in str(raised.value)
    assert "data/studies/fashion" in str(raised.value)
    tiny.assert_one_sentence(str(raised.value))


def test_a_study_of_another_version_that_cannot_be_read_says_so(empty: Study) -> None:
    path = empty.root / "study.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": "9.0.0"}))
    assert open_study(empty.root) == empty  # what can be read is
    for change in ({"shape": 3}, {"devices": []}, {"space": {}}):
        path.write_text(json.dumps(content | {"version": "9.0.0"} | change))
        with pytest.raises(InputError) as raised:
            open_study(empty.root)
        told = f"; it was written by version '9.0.0' of this program, this is {__version__}."
        assert str(raised.value).endswith(told)
        tiny.assert_one_sentence(str(raised.value))
        path.write_text(json.dumps(content | change))
        assert told not in (sentence(lambda: open_study(empty.root)) or "")


@pytest.mark.parametrize(
    ("read", "verb"),
    [
        (Study.predictors, "fit"),
        (Study.fit_report, "fit"),
        (Study.designs, "explore --sample"),
        (Study.front, "explore"),
        (lambda empty: measure.rows(empty, "accuracy"), "profile"),
        (meters.Accuracy, "train"),
    ],
)
def test_a_phase_that_was_not_run_is_named(
    empty: Study, read: Callable[[Study], object], verb: str
) -> None:
    with pytest.raises(InputError, match=f"`codesign {verb}`"):
        read(empty)
    assert [path.name for path in empty.root.iterdir()] == ["study.json"]


@pytest.mark.parametrize("name", READERS)
def test_a_file_cut_short_is_bad_input_to_all_who_read_it(made: Study, name: str) -> None:
    path = made.root / name
    content = path.read_bytes()
    page = 4096 if name == "measurements.sqlite" else 0  # SQLite does not miss less of its end
    try:
        for size in {0, 1, 7, *np.linspace(8, len(content) - page - 2, 15).astype(int)}:
            path.write_bytes(content[:size])
            readers = READERS[name]
            if size == 0 and name == "measurements.sqlite":  # as a writer leaves it, killed early
                assert made.store.keys(meters.CLOSED_FORM) == set()
                readers = readers[:-1]
            for read in readers:
                with pytest.raises(InputError) as raised:
                    read(made)
                tiny.assert_one_sentence(str(raised.value))
            assert path.read_bytes() == content[:size]
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_read_or_bad_input(
    made: Study, name: str, data: st.DataObject
) -> None:
    path = made.root / name
    content = path.read_bytes()
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # The start of a file, where its kind and shapes are written, is hit as often as the rest.
        most = data.draw(st.sampled_from([100, 2000, len(content) - 1]))
        at = data.draw(st.integers(0, most))
        new = data.draw(st.binary(min_size=1, max_size=8))
        damaged[at : at + len(new)] = new
    path.write_bytes(damaged)
    try:
        for read in READERS[name]:
            sentence(partial(read, made))
        assert path.read_bytes() == damaged
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("field", ["version", "space", "dataset", "preset", "seed", "devices"])
@settings(max_examples=40)
@given(value=strategies.ANYTHING)
def test_any_value_in_a_setting_is_valid_or_bad_input(made: Study, field: str, value: Any) -> None:
    path = made.root / "study.json"
    content = path.read_text()
    path.write_text(json.dumps(json.loads(content) | {field: value}, default=str))
    try:
        said = sentence(lambda: open_study(made.root))
        assert said is None or str(path) in said
        assert said or open_study(made.root).space == made.space
    finally:
        path.write_text(content)


@pytest.mark.parametrize(("file", "key"), [("front.json", "front"), ("fit.json", "quantities")])
@settings(max_examples=60)
@given(value=strategies.ANYTHING, data=st.data())
def test_any_value_in_a_table_is_valid_or_bad_input(
    made: Study, file: str, key: str, value: Any, data: st.DataObject
) -> None:
    path = made.root / file
    content = path.read_text()
    whole = json.loads(content)
    table = whole[key]
    where = data.draw(st.sampled_from(["table", "part", "cell"]))
    part = data.draw(st.sampled_from([*table] if isinstance(table, dict) else range(len(table))))
    if where == "table":
        whole[key] = value
    elif where == "part":
        table[part] = value
    else:
        places = [*table[part]] if isinstance(table[part], dict) else range(len(table[part]))
        table[part][data.draw(st.sampled_from(places))] = value
    path.write_text(json.dumps(whole, default=str))
    read = made.front if key == "front" else made.fit_report
    try:
        said = sentence(read)
        assert said is None or str(path) in said
        assert where != "table" or said
    finally:
        path.write_text(content)


DAMAGES: dict[str, Callable[[dict[str, np.ndarray], dict[str, Any]], object]] = {
    "no genomes": lambda arrays, about: arrays.pop(f"{SMALL}/genomes"),
    "one row less": lambda arrays, about: arrays.update(
        {f"{SMALL}/low": arrays[f"{SMALL}/low"][1:]}
    ),
    "one column less": lambda arrays, about: arrays.update(
        {f"{SMALL}/means": arrays[f"{SMALL}/means"][:, 1:]}
    ),
    "no such choice": lambda arrays, about: arrays[f"{SMALL}/genomes"].fill(200),
    "no such engine": lambda arrays, about: arrays[f"{SMALL}/accelerators"].fill(0),
    "no number": lambda arrays, about: arrays[f"{SMALL}/means"].fill(np.nan),
    "not considered": lambda arrays, about: about.pop("considered"),
    "negative count": lambda arrays, about: about.update(considered={SMALL: -1}),
    "other device": lambda arrays, about: about.update(considered={"x": 1}),
    "a list": lambda arrays, about: about.update(considered=[SMALL]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_designs_that_do_not_fit_together_are_refused(made: Study, damage: str) -> None:
    path = made.root / "designs.safetensors"
    content = path.read_bytes()
    arrays, about = read_arrays(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    DAMAGES[damage](arrays, about)
    write_arrays(path, arrays, about)
    try:
        with pytest.raises(InputError) as raised:
            made.designs()
        tiny.assert_one_sentence(str(raised.value))
    finally:
        path.write_bytes(content)


def test_predictors_of_another_space_are_refused(
    empty: Study, made: Study, predictors: Predictors
) -> None:
    (empty.root / "predictors.safetensors").write_bytes(
        (made.root / "predictors.safetensors").read_bytes()
    )
    with pytest.raises(
        InputError, match="damaged, or of another study or version: run `codesign fit`"
    ):
        empty.predictors()


def test_a_read_only_study_can_be_read(made: Study) -> None:
    before = tiny.contents(made.root)
    with tiny.read_only(made.root):
        opened = open_study(made.root)
        assert len(opened.front()) > 10
        assert set(opened.designs()[0]) == set(tiny.DEVICES)
        assert len(measure.rows(opened, "accuracy")) == tiny.ARCHITECTURES
        assert len(opened.fit_report()) > 10
        best = opened.find(opened.front()["id"][0])
        assert len(opened.predict([best])) == 1
        assert meters.Accuracy(opened).method.startswith("supernet ")
    assert tiny.contents(made.root) == before


@pytest.mark.parametrize("how", ["read-only", "full disk"])
def test_what_cannot_be_written_is_said_and_leaves_all_as_it_was(
    made: Study, found: Exploration, how: str
) -> None:
    before = tiny.contents(made.root)
    explored = explore.explore(made.predictors(), [SMALL], Constraints(), generations=2)
    writers: list[Callable[[], object]] = [
        lambda: made.save_predictors(made.predictors(), []),
        lambda: made.save_exploration(explored, Constraints(), sample=True),
        lambda: measure.measure(made, meters.Closed(made), measure.plan(made, 10, 99)[1], "x"),
    ]
    for write in writers:
        held = tiny.read_only(made.root) if how == "read-only" else tiny.full_disk(4096)
        with held, pytest.raises(InputError, match="cannot be written") as raised:
            write()
        tiny.assert_one_sentence(str(raised.value))
    after = tiny.contents(made.root)
    assert {name: after[name] for name in before} == before
    assert len(made.front()) > 10


def test_of_all_designs_the_study_finds_ids_are_those_of_their_text(made: Study) -> None:
    for row in made.front().head(30).itertuples():
        assert Design.parse(f"{row.architecture}@{row.accelerator}@{row.device}").id == row.id


def test_presets_are_those_of_the_training() -> None:
    assert tuple(train.PRESETS) == study.PRESETS
