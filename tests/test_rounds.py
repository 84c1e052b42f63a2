"""The verb `improve`: what it prints, draws and refuses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny

from codesign_kernel import campaign, charts, improvement
from codesign_kernel.campaign import Campaign
from codesign_kernel.report import save_picture
from codesign_kernel.rounds import HEADS, line, picture, sources
from codesign_kernel.study import Study

SMALL, LARGE = tiny.DEVICES
SVG = "{http://www.w3.org/2000/svg}"
Command = Callable[..., tuple[int, str, str]]
BEFORE = "It was measured before: nothing is searched anew."


@pytest.fixture
def codesign(codesign: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `codesign improve` in this process; return status, stdout and stderr."""
    tiny.quick_fit(monkeypatch)
    monkeypatch.delenv("CODESIGN_STUDY", raising=False)
    return partial(codesign, "improve")


def test_each_round_is_a_row_and_again_when_all_is_done(
    codesign: Command, made: Study, tmp_path: Path
) -> None:
    options = ("--study", made.root, "--budget", 4, "--rounds", 2, "--device", SMALL,
               "--device", LARGE, "--generations", 3)  # fmt: skip
    status, first, _ = codesign(*options)
    assert status == 0
    head, *rows = first.splitlines()[:4]
    assert head == HEADS
    assert [row.split()[:2] for row in rows] == [["0", "0"], ["1", "2"], ["2", "4"]]
    assert f"{SMALL}, {LARGE}: hardware modelled. Accuracy is that of the 300 val" in first
    (found,) = campaign.load(made)
    assert rows == [line(row) for row in found.rounds]
    before = tiny.contents(made.root)
    status, again, err = codesign(*options, "--chart", tmp_path / "moves.svg")
    assert (status, err) == (0, "")
    assert again == first + f"Wrote {tmp_path / 'moves.svg'}.\n"
    assert (tmp_path / "moves.svg").is_file()
    assert tiny.contents(made.root) == before


def test_the_proposed_front_is_told(codesign: Command, made: Study) -> None:
    options = ("--study", made.root, "--budget", 2, "--rounds", 1, "--device", SMALL,
               "--generations", 3, "--max-latency-ms", 0.06, "--front")  # fmt: skip
    status, out, err = codesign(*options)
    assert status == 0
    rows = [row.split()[:2] for row in out.splitlines()[1:4]]
    assert rows[:2] == [["0", "0"], ["1", "2"]]
    assert int(rows[2][1]) > 2
    assert "Round 2 is the front that was proposed, and beside the budget." in out.splitlines()
    assert f"front: {int(rows[2][1]) - 2} designs" in err
    status, again, err = codesign(*options)
    assert (status, err) == (0, "")
    lines = again.splitlines()
    place = lines.index(BEFORE)
    assert lines[place - 1].startswith("Round 2 is the front")
    assert [*lines[:place], *lines[place + 1 :]] == out.splitlines()


def test_a_front_of_which_all_is_known_is_told(
    codesign: Command, made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(improvement, "hoped_designs", lambda *arguments: [])
    options = (
        "--study",
        made.root,
        "--device",
        SMALL,
        "--generations",
        3,
        "--budget",
        0,
        "--front",
    )
    for _ in range(2):
        status, out, _ = codesign(*options)
        assert status == 0
        assert "What is proposed as the front is measured already." in out.splitlines()
    assert campaign.load(made)[0].fronts == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "0"], "--budget is 0, but must be from 1 to 5000"),
        (["--budget", "-1", "--front"], "--budget is -1, but must be from 0 to 5000"),
        (["--rounds", "0"], "--rounds is 0, but must be from 1 to 5000"),
        (["--seed", "-1"], "--seed is -1"),
        (["--generations", "0"], "--generations is 0"),
        (["--device", "nope"], "device is 'nope', but this study knows only"),
        (["--confidence", "0.2"], "--confidence is 0.2"),
        (["--min-accuracy", "101"], "--min-accuracy is 101"),
        (["--budget", "1", "--device", LARGE, "--chart", "x.pdf"], "must end in .html, .png"),
        (["--every-engine"], "--every-engine needs a device whose engines were placed and routed"),
        (["--study", "nope"], "nope holds no study"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    codesign: Command, made: Study, arguments: list[str], words: str
) -> None:
    before = tiny.contents(made.root)
    status, out, err = codesign("--study", made.root, *arguments)
    assert (status, out) == (1, "")
    tiny.assert_one_sentence(err.removesuffix("\n"))
    assert words in err
    assert tiny.contents(made.root) == before


# A campaign of one round, on a device that is simulated and one that is not.
FIGURES = {"accuracy": 91.0, "latency_ms": 0.5, "power_w": 0.3}
MADE = Campaign(
    {"devices": [SMALL, "arria10-gx1150"],
     "methods": {SMALL: "simulation, place and route 2", "arria10-gx1150": "closed form 5"}},
    {"low": [-92, -2, -2], "high": [-80, 0, 0]},
    [[90.0, 1.0, 0.5], [88.0, 0.5, 0.5]],
    [
        {"round": 0, "designs": 0, "measured": 12.345, "predicted": 90.0,
         **{f"{name}_{count}": value for name in FIGURES
            for count, value in (("off", None), ("inside", 0), ("new", 0))}},
        {"round": 1, "designs": 1, "measured": 45.6, "predicted": 88.0,
         **{f"{name}_{count}": value for name in FIGURES
            for count, value in (("off", 1.2345), ("inside", 2), ("new", 3))}},
    ],
    [{"round": 1, "architecture": "w8k3", "accelerator": "8x8x1w16f16", "device": SMALL,
      "accuracy_new": True, "hardware_new": True,
      **{f"{name}{end}": value for name, value in FIGURES.items()
         for end in ("", "_low", "_high", "_value")}}],
)  # fmt: skip


def test_a_row_stands_under_its_heads() -> None:
    first, second = (line(row) for row in MADE.rounds)
    assert first.split() == ["0", "0", "12.35", "90.00", "|", *"---", "|", *["0/0"] * 3]
    assert second.split() == ["1", "1", "45.60", "88.00", "|", *["1.23"] * 3, "|", *["2/3"] * 3]
    assert len(first) == len(second) == len(HEADS)


def test_the_picture_has_a_line_a_round_and_a_point_a_design() -> None:
    root = ElementTree.fromstring(charts.to_svg(picture(MADE)))
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    for text in ("The front moves", "Latency of one image (ms)", "Accuracy (%)", "Hypervolume",
                 "Hypervolume (% of the box)", "Designs chosen and measured"):  # fmt: skip
        assert text in texts
    told = f"{SMALL}: measured, power modelled; arria10-gx1150: hardware modelled"
    assert any(told in text for text in texts)
    assert sources(MADE) == told
    drawn = picture(MADE).to_dict()
    data = [rows for rows in drawn["datasets"].values() if "latency_ms" in rows[0]]
    steps = next(rows for rows in data if "architecture" not in rows[0])
    corners = [(row["round"], row["latency_ms"], row["accuracy"]) for row in steps]
    # The start is better with time; then a design is as fast as its fastest and beats all.
    start = [(0, 0.5, 88.0), (0, 1.0, 90.0), (0, 1.0, 90.0)]
    assert corners == [*start, (1, 0.5, 91.0), (1, 1.0, 91.0)]
    points = next(rows for rows in data if "architecture" in rows[0])
    assert [row["accuracy"] for row in points] == [91.0]


def test_of_networks_on_every_engine_the_picture_has_the_front_of_each_round() -> None:
    (design,) = MADE.designs
    slower = design | {"accelerator": "4x4x1w16f16", "latency_ms_value": 0.7}
    frugal = slower | {"accelerator": "2x2x1w16f16", "power_w_value": 0.1}
    every = Campaign(MADE.asked | {"every_engine": True}, MADE.box, MADE.start, MADE.rounds,
                     [design, slower, frugal])  # fmt: skip
    drawn = [rows for rows in picture(every).to_dict()["datasets"].values()
             if "architecture" in rows[0]]  # fmt: skip
    assert {row["accelerator"] for row in drawn[0]} == {"8x8x1w16f16", "2x2x1w16f16"}


def test_the_picture_of_the_start_alone_is_drawn(tmp_path: Path) -> None:
    alone = Campaign(MADE.asked, MADE.box, MADE.start, MADE.rounds[:1])
    save_picture(picture(alone), tmp_path / "start.html")
    assert "in 0 rounds" in (tmp_path / "start.html").read_text()
    empty = Campaign(MADE.asked, MADE.box, [], MADE.rounds[:1])
    charts.to_svg(picture(empty))
