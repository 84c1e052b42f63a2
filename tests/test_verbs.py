"""What verbs print: `codesign implement`. Others are tested through the command line."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from codesign_kernel import cli, fits, measure, synthesize, verbs
from codesign_kernel.ecp5 import Resources
from codesign_kernel.study import open_study

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def codesign(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `codesign implement` in this process; return status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["codesign", "implement", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def implemented(jobs: Sequence[synthesize.Job], *_: int) -> list[synthesize.Implementation]:
    """Figures as place and route would give them, the clock by the seed."""
    used, budget = Resources(66, 36, 6580, 5885, 179), Resources(156, 208, 83640, 83640, 365)
    return [
        synthesize.Implementation(
            str(job.shape.accelerator), job.shape.port_bits, "ecp5-85f", "CABGA756", job.seed,
            1, "router1", 100.0 + job.seed, used, budget, "from a to b", 20.0, 200.0,
        )
        for job in jobs
    ]  # fmt: skip


def test_implement_prints_the_median_of_its_seeds_and_writes_the_fastest(
    codesign: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(synthesize, "implement_many", implemented)
    monkeypatch.setattr(
        synthesize, "write_folder", lambda job, folder, limit: written.append(job.seed)
    )
    seeds = ("--seed", 3, "--seed", 1, "--seed", 7)
    status, out, _ = codesign("8,8,1,32,32", *seeds)
    assert status == 0
    assert "All figures are measured, by place and route; none is of a board." in out
    assert "clock          103.0 MHz" in out
    assert "66 of     156 MULT18X18D" in out
    assert "Clocks of seeds 3, 1, 7: 103.0, 101.0, 107.0 MHz; shown is the median." in out
    assert "Wrote" not in out
    status, out, _ = codesign("8,8,1,32,32", *seeds, "--folder", "engine")
    assert written == [7]
    assert "clock          103.0 MHz" in out
    assert "Wrote engine: seed 7, the fastest.\n" in out
    assert codesign("8,8,1,32,32", "--folder", "engine")[1].endswith("Wrote engine.\n")
    status, out, _ = codesign("8x8x1w32f32", *seeds, "--json")
    assert [row["clock_mhz"] for row in json.loads(out)] == [103, 101, 107]
    out = codesign("8x8x1w32f32", *seeds, "--seed", 5, "--seed", 3)[1]
    assert "clock          103.0 MHz" in out
    assert "Clocks of seeds 3, 1, 7, 5: 103.0, 101.0, 107.0, 105.0 MHz; " in out
    assert out.endswith("shown is seed 3, the slower of the two in the middle.\n")


def test_what_cannot_fit_or_be_is_refused_before_anything_is_made(
    codesign: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(synthesize, "implement_many", lambda *_: pytest.fail("it began"))
    for engine, need in (("8x8x1w1024f1024", "1,028"), ("8x8x1w65536f32", "32,788")):
        status, _, error = codesign(engine)
        assert status == 1
        assert f"{engine} with a 64-bit port does not fit the Lattice ECP5 85F: it needs " in error
        assert f"{need} DP16KD of 208.\n" in error
    (tmp_path / "mine.txt").touch()
    for folder, said in ((tmp_path, "holds mine.txt,"), (tmp_path / "mine.txt", "Not a dir")):
        status, _, error = codesign("8x8x1w32f32", "--folder", folder)
        assert (status, said in error) == (1, True)
    status, _, error = codesign("8x8x1w32f32", "--seed", 1, "--seed", -1)
    assert (status, "seed of place and route is -1" in error) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["8x8x1w64f32", "--port-bits", "48"], "memory port of the engine in bits is 48"),
        (["6x8x1w64f32"], "pf of 6x8x1w64f32 is 6, but must be a power of two"),
        (["8x8"], "accelerator is '8x8', but must look like"),
        (["8x8x1w64f32", "--seed", "0"], "seed of place and route is 0"),
        (["8x8x1w64f32", "--workers", "0"], "--workers is 0"),
        (["8x8x1w64f32", "--device", "arria10-gx1150"], "must be one of: ecp5-25f"),
        (["16x16x1w64f32", "--device", "ecp5-45f"], "it needs 260 MULT18X18D of 72"),
    ],
)
def test_implement_says_in_a_sentence_what_cannot_be(
    codesign: Command, arguments: list[str], words: str
) -> None:
    status, out, error = codesign(*arguments)
    assert (status, out) == (1, "")
    assert words in error
    assert "Traceback" not in error


def test_what_was_not_measured_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("verbs") / "digits")
    told = verbs.why_modelled(opened, "w8k3-w16k3@8x2x1w16f32@ecp5-25f")
    assert "was not placed and routed yet" in told
    assert f"verify w8k3-w16k3@8x2x1w16f32@ecp5-25f --study {opened.root}`" in told
    mine = replace(opened.device("ecp5-25f"), name="my-ecp5")
    opened = replace(opened, devices={"my-ecp5": mine})
    assert verbs.why_modelled(opened, "w8k3-w16k3@8x2x1w16f32@my-ecp5") == (
        "Its latency and power are modelled: engines are built for ecp5-25f, ecp5-45f, ecp5-85f "
        "only."
    )


def test_the_table_of_fit_has_no_empty_column_and_fits_a_terminal() -> None:
    shipped = open_study(Path(__file__).parents[1] / "data" / "studies" / "digits")
    report = shipped.fit_report()
    text = verbs.fit_text(shipped, report)
    assert "MAPE, new engine" in text.splitlines()[0]
    assert "'new engine': of rows" in text
    narrow = verbs.fit_text(shipped, report.assign(**dict.fromkeys(fits.ANEW, np.nan)))
    assert "new engine" not in narrow
    table = narrow.splitlines()[: 1 + len(report)]
    assert max(map(len, table)) <= 120
    assert "accuracies alone" in table[2]


def test_profile_says_what_it_cannot_simulate_and_what_is_learnt_from(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("verbs") / "digits")
    small = opened.device("ecp5-25f")
    mine = {name: replace(small, name=name) for name in ("my-ecp5", "ecp5-25f", "other")}
    opened = replace(opened, devices=mine)
    monkeypatch.setattr(measure, "measure_all", lambda *_: iter(()))
    learnt = "`codesign fit` learns accuracy from 20 networks (supernet)."
    for modelled in (False, True):
        verbs.profile(opened, 10, 10, 4, modelled, None, False, None)
        assert capsys.readouterr().out.splitlines() == [
            "Nothing is simulated on my-ecp5, other: engines are built for ecp5-25f, ecp5-45f, "
            "ecp5-85f only.",
            learnt,
        ][modelled:]  # fmt: skip


def test_resources_of_a_device_without_engines_are_only_modelled() -> None:
    opened = open_study(Path(__file__).parents[1] / "data" / "studies" / "fashion")
    told = verbs.rests_on(opened, ["arria10-gx1150"])
    assert told.endswith("; DSP, block RAM and LUT are modelled, without intervals")
    told = verbs.rests_on(opened, ["arria10-gx1150", "ecp5-25f"])
    assert told.endswith(" (DSP and block RAM of an ECP5 are exactly those of place and route)")
