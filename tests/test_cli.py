"""The command line: each verb does its work, and bad input ends in one sentence."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image

from codesign_kernel import __version__, cli, explore, measure, published, study, train, verbs
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.files import read_arrays
from codesign_kernel.options import searched
from codesign_kernel.study import Study, open_study

ROOT = Path(__file__).parent.parent
VERBS = (
    "train",
    "profile",
    "fit",
    "explore",
    "improve",
    "verify",
    "specialise",
    "export",
    "run",
    "page",
    "cost",
)
SPACE = """
name = "pictures"
dataset = "images"
input = [8, 8, 3]
classes = 2
stem = { width = 8, kernel = 3, stride = 1 }
[[stages]]
widths = [8, 16]
depths = [1, 2]
kernels = [3, 5]
stride = 2
"""


class Result(NamedTuple):
    """What a command ended with."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def codesign(
    codesign: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run the command line in this process, with training and cross-validation cut short."""
    monkeypatch.setitem(train.PRESETS, "quick", train.Preset(steps=40, batch=64))
    tiny.quick_fit(monkeypatch)
    monkeypatch.delenv("CODESIGN_STUDY", raising=False)

    return lambda *arguments: Result(*codesign(*arguments))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose measurements no test changes."""
    return tiny.study(tmp_path_factory, tmp_path_factory.mktemp("cli") / "digits")


@pytest.mark.parametrize("verb", ["train", "fit", "explore", "page"])
def test_an_empty_study_is_not_the_current_folder(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = codesign(verb, "--study", "")
    assert_refused(result, "'--study' / '-s'", status=2)
    assert "it is empty, but must be a folder" in result.err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text("Layer, M, N, K\nConv2×2→日本, 8, 8, 8\n", encoding="utf-8")
    command = [sys.executable, "-m", "codesign_kernel.cli", "cost", path, "--accelerator"]
    done = subprocess.run(
        [*command, "8x8x1w64f32"], capture_output=True, text=True, encoding=encoding,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Conv2{'?' if encoding == 'ascii' else '×'}2???" in done.stdout


@contextmanager
def unchanged(*roots: Path) -> Iterator[None]:
    """Nothing in the folders may come, go or change."""
    before = [tiny.contents(root) for root in roots]
    yield
    assert [tiny.contents(root) for root in roots] == before


@contextmanager
def damaged(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
        assert path.read_bytes() == content
    finally:
        path.write_bytes(whole)


def said(result: Result) -> list[str]:
    """What is said on stderr beside progress bars."""
    lines = re.split(r"[\r\n]", result.err)
    return [line for line in lines if line.startswith("codesign: ")]


def assert_refused(result: Result, words: str = "", status: int = 1) -> None:
    assert result.status == status, result
    assert "Traceback" not in result.out + result.err
    (line,) = said(result)
    assert result.err.endswith(f"{line}\n")
    tiny.assert_one_sentence(line)
    assert words in line


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(codesign: Command, verb: str) -> None:
    result = codesign(verb, "--help")
    assert result.status == 0
    assert f"Usage: codesign {verb}" in result.out
    assert ("--study" in result.out) == (verb != "cost")
    assert result.err == ""


def test_without_a_verb_help_says_how_to_start(codesign: Command) -> None:
    result = codesign()
    assert (result.status, result.err) == (0, "")
    assert "codesign run --preset quick" in " ".join(result.out.split())
    assert all(f"\n  {verb} " in result.out for verb in VERBS)
    assert codesign("--version") == (0, f"codesign {__version__}\n", "")


@pytest.mark.parametrize(
    "verb", ["profile", "fit", "explore", "improve", "verify", "specialise", "export"]
)
def test_without_a_study_one_sentence_says_how_to_get_one(
    codesign: Command, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = codesign(verb, *(["x"] if verb in ("verify", "specialise", "export") else []))
    assert_refused(result, "study holds no study: make one with `codesign run --preset quick`")
    assert "--study, such as data/studies/fashion" in result.err
    assert result.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--space", "nope"], "space is 'nope', but must be one of: cifar, digits"),
        (["--space", "nope.toml"], "nope.toml cannot be read: No such file"),
        (["--dataset", "nope"], "data set is 'nope', but must be one of: digits"),
        (["--dataset", "images:nope"], "nope cannot be read: No such file"),
        (["--preset", "nope"], "--preset is 'nope', but must be one of: quick, standard, full"),
        (["--device", "nope"], "device is 'nope', but must be one of: arria10-gx1150"),
        (["--device", "nope.toml"], "nope.toml cannot be read: No such file"),
        (["--seed", "-1"], "--seed is -1, but must be from 0"),
        (["--data-folder", "nope"], "folder is 'nope', but must be a folder that exists"),
    ],
)
def test_unknown_names_are_refused(
    codesign: Command, tmp_path: Path, arguments: list[str], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert_refused(codesign("train", *arguments), words)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name = ", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
        ("", "lacks the field 'name'"),
        (SPACE.replace("[8, 16]", "[8, 17]"), "is 17, but must be a multiple of 8"),
        (SPACE.replace("[8, 16]", "[-8]"), "is -8, but must be from 8"),
        (SPACE.replace("classes = 2", "classes = nan"), "is nan, but must be a whole number"),
        (SPACE + "more = 1", "has the field 'more'"),
    ],
)
def test_a_malformed_space_is_refused(
    codesign: Command, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "my.toml").write_text(content)
    result = codesign("train", "--space", tmp_path / "my.toml", "--study", tmp_path / "s")
    assert_refused(result, words)
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


def test_a_malformed_device_is_refused(codesign: Command, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('name = "x"\ndsp = -1\n')
    assert_refused(
        codesign("train", "--device", path, "--study", tmp_path / "s"), "lacks the field"
    )
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["profile", "--architectures", "9"], 1, "--architectures is 9, but must be from 10"),
        (["profile", "--architectures", "-5"], 1, "--architectures is -5"),
        (["profile", "--designs", "1000000"], 1, "--designs is 1000000, but must be from 10"),
        (["profile", "--designs", "nan"], 2, "--designs"),
        (["profile", "--designs", "1.5"], 2, "--designs"),
        (["explore", "--generations", "0"], 1, "--generations is 0, but must be from 1"),
        (["explore", "--seed", "-1"], 1, "--seed is -1"),
        (["explore", "--device", "nope"], 1, "device is 'nope', but this study knows only: ecp5"),
        (["explore", "--max-latency-ms", "nan"], 1, "--max-latency-ms is nan, but must be a"),
        (["explore", "--max-power-w", "inf"], 1, "--max-power-w is inf, but must be a"),
        (["explore", "--max-dsp", "-inf"], 1, "--max-dsp is -inf, but must be a"),
        (["explore", "--max-bram", "-1"], 1, "--max-bram is -1.0, but must be at least 0"),
        (["explore", "--min-accuracy", "101"], 1, "--min-accuracy is 101.0, but must be from 0"),
        (["explore", "--min-accuracy", "high"], 2, "--min-accuracy"),
        (["explore", "--nope"], 2, "--nope"),
        (["explore", "more"], 2, "more"),
        (["nope"], 2, "nope"),
        (["verify"], 2, "DESIGN"),
        (["verify", "d00000000"], 1, "design 'd00000000' is neither in the front"),
        (["export", "w8k3-w16k3@8x8x1w16f32@x"], 1, "device is 'x'"),
        (["specialise", "w9k3-w16k3@8x8x1w16f32@ecp5-85f"], 1, "width of stage 1"),
        (["page", "--port", "0", "--no-browser"], 1, "--port is 0, but must be from 1 to 65535"),
        (["page", "--port", "70000", "--no-browser"], 1, "--port is 70000, but must be from 1"),
    ],
)
def test_bad_values_are_refused(
    codesign: Command, made: Study, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], status: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("CODESIGN_STUDY", str(made.root))
    with unchanged(made.root):
        result = codesign(*arguments)
    assert_refused(result, words, status)
    assert result.out == ""
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"garbage " * 20, b""], ids=["garbage", "empty"])
@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("study.json", ["explore"]),
        ("study.json", ["train", "--device", "ecp5-25f", "--device", "ecp5-85f"]),
        ("supernet.safetensors", ["train", "--device", "ecp5-25f", "--device", "ecp5-85f"]),
        ("supernet.safetensors", ["profile"]),
        ("supernet.safetensors", ["specialise", "FIRST"]),
        ("supernet.safetensors", ["export", "FIRST"]),
        ("measurements.sqlite", ["fit"]),
        ("predictors.safetensors", ["explore"]),
        ("predictors.safetensors", ["verify", "FIRST"]),
        ("front.json", ["verify", "FIRST"]),
        ("designs.safetensors", ["page", "--no-browser"]),
        ("fit.json", ["page", "--no-browser"]),
    ],
)
def test_a_damaged_file_is_named_and_stays(
    codesign: Command, made: Study, file: str, arguments: list[str], content: bytes,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    first = made.front()["id"][0]
    whole = [first if word == "FIRST" else word for word in arguments]
    with damaged(made.root / file, content), unchanged(made.root):
        assert_refused(codesign(*whole, "--study", made.root), str(made.root / file))


def test_a_damaged_database_is_told_and_not_added_to(codesign: Command, made: Study) -> None:
    with damaged(made.root / "measurements.sqlite", b"garbage " * 2000), unchanged(made.root):
        for verb in ("profile", "explore"):  # the one would add to it, the other reads sources
            assert_refused(codesign(verb, "--study", made.root), "measurements.sqlite cannot be")


def test_a_study_with_other_settings_is_refused(codesign: Command, made: Study) -> None:
    with unchanged(made.root):
        result = codesign("train", "--study", made.root, "--seed", 7, "--device", "ecp5-25f")
        assert_refused(result, "is a study with another seed; choose another folder")


def test_a_data_set_that_is_not_there_is_named(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "SHARED", tmp_path / "shared")
    for variable in ("HOME", "XDG_CACHE_HOME", "CODESIGN_DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    result = codesign("train", "--space", "fashion", "--study", tmp_path / "s")
    assert_refused(result, "--download")
    assert "dataset-fashion-mnist" in result.err
    assert [*tmp_path.iterdir()] == []


def pictures(folder: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 128, (9, 11, 3), np.uint8) + np.uint8(127 * label)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{i}.png")


@pytest.mark.parametrize(
    ("classes", "broken", "words"),
    [(1, False, "too few class folders: 1, but needs 2 or more"), (2, True, "3.png is damaged")],
)
def test_a_folder_of_images_that_will_not_do_is_refused(
    codesign: Command, tmp_path: Path, classes: int, broken: bool, words: str
) -> None:
    pictures(tmp_path / "pictures", classes)
    if broken:
        (tmp_path / "pictures" / "class0" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (tmp_path / "my.toml").write_text(SPACE)
    with unchanged(tmp_path):
        result = codesign(
            "train", "--space", tmp_path / "my.toml", "--study", tmp_path / "s",
            "--dataset", f"images:{tmp_path / 'pictures'}",
        )  # fmt: skip
        assert_refused(result, words)


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_folder_of_images_is_trained_on_and_found_from_elsewhere(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_folder: bool
) -> None:
    pictures(tmp_path / "pictures", 2)
    (tmp_path / "my.toml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train.PRESETS, "quick", train.Preset(steps=2, batch=4))
    data = ["--data-folder", "pictures"] if by_folder else ["--dataset", "images:pictures"]
    result = codesign("train", "--space", "my.toml", "--device", "ecp5-25f", *data)
    assert result.status == 0, result.err
    assert "Supernet of 12 architectures in study/supernet.safetensors." in result.out
    assert open_study(Path("study")).dataset == f"images:{tmp_path / 'pictures'}"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = codesign("profile", "--study", "../study", "--designs", 10, "--architectures", 10)
    assert result.status == 0, result.err
    assert "accuracy: 10 networks measured by specialised 1 from supernet" in result.out


EXACT = (
    "; power is modelled, no board was measured; DSP, block RAM and LUT are modelled, without "
    "intervals (DSP and block RAM of an ECP5 are exactly those of place and route)"
)
JSON_TEXTS = {"id", "architecture", "accelerator", "device"}


def test_json_is_all_there_is_on_stdout(codesign: Command, made: Study) -> None:
    result = codesign("explore", "--json", "--study", made.root, "--generations", 3)
    assert result.status == 0
    found = json.loads(result.out)
    assert set(found) == {"considered", "feasible", "constraints", "source", "interval_coverage",
                          "units", "knee", "front"}  # fmt: skip
    assert found["knee"] in {row["id"] for row in found["front"]}
    assert found["constraints"]["confidence"] == 0.9
    assert found["units"]["latency_ms"] == "ms"
    assert "latency from modelled designs on ecp5-25f, ecp5-85f" in found["source"]
    assert found["source"].endswith(EXACT)
    assert found["considered"] >= found["feasible"] >= len(found["front"]) > 10
    for row in found["front"]:
        assert set(row) == JSON_TEXTS | set(study.FIGURES)
        assert all(isinstance(row[name], str) for name in JSON_TEXTS)
        assert all(np.isfinite(row[name]) for name in study.FIGURES)
        assert row["energy_mj"] == pytest.approx(row["latency_ms"] * row["power_w"])
        assert row["latency_ms_low"] <= row["latency_ms"] <= row["latency_ms_high"]
    assert "explore ecp5-85f" in result.err  # the bars
    assert said(result) == []
    stored = made.front()
    assert [*stored["id"]] == [row["id"] for row in found["front"]]


def test_a_device_that_is_named_twice_is_searched_once(made: Study) -> None:
    names = [tiny.DEVICES[1], tiny.DEVICES[0], tiny.DEVICES[1]]
    found = searched(made.root, names, (None,) * 6, 0.9, 3, 0)
    assert found[1] == [tiny.DEVICES[1], tiny.DEVICES[0]]


def test_the_front_is_printed_with_intervals_units_and_knee(codesign: Command, made: Study) -> None:
    arguments = ["explore", "--study", made.root, "--generations", 3, "--max-latency-ms", 2]
    result = codesign(*arguments)
    assert result.status == 0
    count = len(made.front())
    assert count > 20
    rows = re.findall(r"^ *(d[0-9a-f]{8}) +(\S+@\S+@ecp5-\S+) ", result.out, re.MULTILINE)
    assert len(rows) == 20
    assert all(Design.parse(text).id == identifier for identifier, text in rows)
    assert f"{count:,} are on the front, of which 20 are shown (--all shows all)." in result.out
    for unit in ("accuracy %", "latency ms", "power W", "energy mJ"):
        assert unit in result.out.splitlines()[0]
    assert (
        "Predicted, with 90 % intervals: accuracy of the 300 validation images with the supernet's "
        "weights; latency from modelled designs on ecp5-"
    ) in result.out
    assert f"{EXACT}.\n" in result.out
    assert re.search(r"\d \[\d+\.\d+, \d+\.\d+\]", result.out)
    knee = re.search(r"^Knee: (d\w{8}) \((\S+)\)$", result.out, re.MULTILINE)
    assert knee
    assert str(made.find(knee[1])) == knee[2]
    everything = codesign(*arguments, "--all")
    assert len(re.findall(r"^ *d[0-9a-f]{8} ", everything.out, re.MULTILINE)) == count
    assert not any("it/s" in text or "generation/s" in text for text in (result.out,))


def test_a_search_that_is_stopped_says_so_once(
    codesign: Command, made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs.explore, "explore", stop)
    with unchanged(made.root):
        result = codesign("explore", "--study", made.root)
    assert (result.status, result.out) == (130, "")
    assert said(result) == ["codesign: stopped; the same command searches anew."]


def test_fit_and_verify_print_for_programs(codesign: Command, made: Study) -> None:
    result = codesign("fit", "--json", "--study", made.root)
    assert result.status == 0, result.err
    content = json.loads(result.out)
    assert content["units"] == {"accuracy": "%", "latency_ms": "ms", "power_w": "W"}
    models = {(row["quantity"], row["device"], row["model"]) for row in content["rows"]}
    assert ("accuracy", "", "linear regression") in models
    plain = next(row for row in content["rows"] if row["model"] == "linear regression")
    assert plain["coverage"] is None
    identifier = made.front()["id"].iloc[0]
    result = codesign("verify", identifier, "--closed-form", "--json", "--study", made.root)
    rows = json.loads(result.out)["rows"]
    assert [row["quantity"] for row in rows] == ["accuracy", "latency_ms", "power_w"]
    assert {row["id"] for row in rows} == {identifier}
    assert [row["source"] for row in rows] == ["measured", "modelled", "modelled"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explore", "--seed", "1e3"], "--seed is '1e3', but must be a whole number; see"),
        (["explore", "--max-latency-ms", "abc"], "--max-latency-ms is 'abc', but must be a number"),
        (["profile", "--designs", ""], "--designs is '', but must be a whole number"),
    ],
)
def test_a_text_where_a_number_belongs_is_named(
    codesign: Command, arguments: list[str], words: str
) -> None:
    assert_refused(codesign(*arguments), words, status=2)


def test_a_data_set_that_does_not_fit_leaves_no_study(codesign: Command, tmp_path: Path) -> None:
    table = tmp_path / "own.toml"
    kept = Path(cli.__file__).parent / "spaces" / "digits.toml"
    table.write_text(kept.read_text().replace("classes = 10", "classes = 9"))
    made = tmp_path / "study"
    assert_refused(codesign("train", "--space", table, "--study", made), "is for (8, 8, 1) in 9.")
    assert not made.exists()


def test_images_without_a_path_are_not_those_of_this_folder(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = codesign("train", "--dataset", "images:", "--study", tmp_path / "study")
    assert_refused(result, "must be images:PATH or have a folder")
    assert [*tmp_path.iterdir()] == []


def test_a_bound_out_of_reach_is_answered_by_one_that_works(codesign: Command, made: Study) -> None:
    arguments = ["explore", "--study", made.root, "--generations", 3]
    with unchanged(made.root):
        refused = codesign(*arguments, "--max-latency-ms", "0.0001", "--max-bram", "3")
    assert_refused(
        refused, "no design keeps to all constraints with a probability of 90 %: "
        "--max-latency-ms 0.0001 and --max-bram 3",
    )  # fmt: skip
    assert refused.out == ""
    values = re.findall(r"values are (\S+) ms and (\S+) blocks\.$", said(refused)[0])
    latency, bram = values[0]
    result = codesign(*arguments, "--max-latency-ms", latency, "--max-bram", bram)
    assert result.status == 0, result.err


def test_a_read_only_study_is_explored_and_says_what_was_not_stored(
    codesign: Command, made: Study
) -> None:
    with unchanged(made.root), tiny.read_only(made.root):
        result = codesign("explore", "--json", "--sample", "--study", made.root, "--generations", 2)
    assert result.status == 0
    assert len(json.loads(result.out)["front"]) > 10
    (line,) = said(result)
    assert line.startswith("codesign: the front was not stored: ")
    assert "cannot be written: Permission denied" in line
    tiny.assert_one_sentence(line)


@pytest.mark.parametrize("how", ["read-only", "full disk"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--device", "ecp5-25f", "--study", "NEW"],
        ["profile", "--architectures", "10", "--designs", "400"],
        ["fit"],
        ["export", "FIRST", "--out", "NEW"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_where_nothing_can_be_written_that_is_said_and_nothing_is_lost(
    codesign: Command, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path,
    arguments: list[str], how: str,
) -> None:  # fmt: skip
    own = tiny.study(tmp_path_factory, tmp_path / "own")
    rows = own.store.rows()
    (tmp_path / "folder").mkdir()
    words = {"NEW": tmp_path / "folder" / "new", "FIRST": own.front()["id"][0]}
    arguments = [str(words.get(word, word)) for word in arguments]
    if "--study" not in arguments:
        arguments += ["--study", str(own.root)]
    before = tiny.contents(own.root)
    with tiny.full_disk(10_000) if how == "full disk" else tiny.read_only(tmp_path):
        result = codesign(*arguments)
    assert_refused(result, "cannot be written")
    # Of the database it is the rows that must stay: some may have been added before it was full.
    pd.testing.assert_frame_equal(own.store.rows().head(len(rows)), rows)
    after = tiny.contents(own.root)
    for name in before.keys() - {"measurements.sqlite"}:
        assert after[name] == before[name], name


def test_nothing_is_begun_that_a_read_only_study_could_not_keep(
    codesign: Command, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = tiny.study(tmp_path_factory, tmp_path / "own")

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    monkeypatch.setattr(measure, "build_many", work)
    monkeypatch.setattr(explore, "explore", work)
    with unchanged(own.root), tiny.read_only(own.root):
        for verb in (["profile"], ["profile", "--closed-form"], ["improve", "--budget", "5"]):
            result = codesign(*verb, "--study", own.root)
            assert_refused(result, f"{own.root} cannot be written: Permission denied; nothing was")
        result = codesign("fit", "--study", own.root)
    assert result.status == 1
    assert "MAPE" in result.out  # what was worked out is told
    assert "predictors.safetensors cannot be written" in said(result)[-1]


def test_two_trainings_of_a_study_come_one_after_the_other(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new"

    def meanwhile(*_: object) -> None:
        with (root / "study.json").open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise InputError("it is held.")

    monkeypatch.setattr(train, "train", meanwhile)
    result = codesign("train", "--device", "ecp5-25f", "--study", root)
    assert_refused(result, "it is held.")


def test_output_that_cannot_be_written_is_no_traceback(
    codesign: Command, made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        result = codesign("explore", "--json", "--study", made.root, "--generations", 2)
    assert_refused(result, "No space left on device")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        result = codesign("explore", "--json", "--study", made.root, "--generations", 2)
    assert result.status == 1
    assert said(result) == []
    assert "Traceback" not in result.err


def test_specialise_takes_an_architecture_or_a_design_and_looks_at_no_test_images(
    codesign: Command, made: Study
) -> None:
    first, name = made.front().loc[0, ["id", "architecture"]]
    result = codesign("specialise", name, "--study", made.root)
    assert result.status == 0, result.err
    *accuracies, last = result.out.splitlines()
    assert [line[:40].rstrip() for line in accuracies] == [
        "validation, supernet weights", "validation, specialised",
    ]  # fmt: skip
    assert all(line.endswith(" % measured") for line in accuracies)
    assert last == "On 300 validation images; only `codesign export` looks at others."
    assert codesign("specialise", first, "--study", made.root).out == result.out
    longer = codesign("specialise", name, "--study", made.root, "--steps", 25)
    assert longer.out.splitlines()[1].startswith("validation, specialised for 25 steps ")
    bad = codesign("specialise", name, "--study", made.root, "--steps", 0)
    assert_refused(bad, "--steps is 0, but must be from 1 to 1000000")
    assert_refused(codesign("specialise", "w9k3-w16k3", "--study", made.root), "width of stage 1")
    assert_refused(codesign("specialise", "w8", "--study", made.root), "must look like w16k35-w32k")


def test_run_and_train_take_devices(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise InputError("enough.")

    monkeypatch.setattr(verbs, "profile", ended)
    root = tmp_path / "study"
    chosen = ("--device", "ecp5-45f", "--device", "ecp5-25f", "--study", root)
    result = codesign("run", *chosen)
    assert_refused(result, "enough.")
    assert [*open_study(root).devices] == ["ecp5-45f", "ecp5-25f"]
    assert "Measured accuracy in % on validation images, with the supernet's weights:" in result.out
    assert codesign("train", *chosen).status == 0
    other = codesign("train", "--device", "ecp5-25f", "--study", root)
    assert_refused(other, "is a study with other devices; choose another folder.")


def test_verify_prints_predicted_beside_measured(codesign: Command, made: Study) -> None:
    ids = [*made.front()["id"][:2]]
    result = codesign("verify", *ids, "--study", made.root, "--closed-form")
    assert result.status == 0, result.err
    for name in ids:
        rows = [line.split() for line in result.out.splitlines() if line.split()[0] == name]
        assert [row[1] for row in rows] == ["accuracy", "latency_ms", "power_w"]
        assert [row[-2] for row in rows] == ["measured", "modelled", "modelled"]
    assert "Units: %, ms, W." in result.out


def test_a_run_ends_with_a_design_measured_and_exported(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = codesign("run", "--preset", "quick", "--architectures", 12, "--designs", 20)
    assert result.status == 0, result.err
    phases = re.findall(r"^(\d)/5 (\w+)", result.out, re.MULTILINE)
    assert phases == [
        ("1", "train"),
        ("2", "profile"),
        ("3", "fit"),
        ("4", "explore"),
        ("5", "verify"),
    ]
    made = open_study(Path("study"))
    assert len(made.devices) == 4
    chosen = re.search(r"^Chosen design: (\S+)$", result.out, re.MULTILINE)
    assert chosen
    design = made.find(chosen[1])
    assert design.id in set(made.front()["id"])
    folder = tmp_path / "exports" / design.id
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.txt", "design.json", "golden_input.bin", "golden_output.bin", "layers.csv",
        "model.onnx", "program.bin", "report.html", "weights.safetensors",
    ]  # fmt: skip
    assert json.loads((folder / "design.json").read_text())["design"] == str(design)
    assert result.out.rstrip().endswith("codesign page --study study")
    assert set(made.designs()[0]) == set(made.devices)
    for bar in ("train supernet", "accuracy", "compile engines", "simulated", "modelled", "fit",
                "explore ecp5-25f", "verify"):  # fmt: skip
        assert bar in result.err
    assert not re.search(r"\r|it/s|\d%\|", result.out)
    # Once more: nothing is trained or measured again.
    with damaged(made.store.path, made.store.path.read_bytes()):
        again = codesign("profile", "--architectures", 12, "--designs", 20, "--engines", 2)
    assert re.findall(r"(\d+) now", again.out) == ["0", "0", "0"]


def trained(path: Path) -> int:
    """To which step the supernet of that path is trained."""
    return int(read_arrays(path)[1]["step"]) if path.exists() else 0


def test_ctrl_c_ends_in_one_sentence_and_the_same_command_goes_on(tmp_path: Path) -> None:
    code = (
        "from codesign_kernel import cli, train\n"
        "train.train.__kwdefaults__['save_every_s'] = 0.3\n"
        "train.PRESETS['quick'] = train.Preset(steps=100_000, batch=8)\n"
        "cli.main()\n"
    )
    path = tmp_path / "study" / "supernet.safetensors"
    steps: list[int] = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "train"], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        while process.poll() is None and trained(path) <= (steps[-1] if steps else 0):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        result = Result(process.returncode, out, err)
        assert_refused(result, "stopped; the same command goes on", status=130)
        first = re.search(r"(\d+)/100000 ", err)
        assert first
        assert int(first[1]) == (steps[-1] if steps else 0)
        steps.append(trained(path))
    assert 0 < steps[0] < steps[1]
