"""What `codesign implement` prints, writes and refuses."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from codesign_kernel import synthesize, tools
from codesign_kernel.accelerator import Accelerator
from codesign_kernel.ecp5 import Resources
from codesign_kernel.protocol import protocol
from codesign_kernel.rtl.shape import Shape

Command = Callable[..., tuple[int, str, str]]
DEVICES = ", but must be one of: ecp5-25f, ecp5-45f, ecp5-85f.\n"


@pytest.fixture
def codesign(codesign: Command) -> Command:
    """Run `codesign implement` in this process; return status, stdout and stderr."""
    return partial(codesign, "implement")


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
        (["8x8x1w64f32", "--device", "arria10-gx1150"], DEVICES),
        (["8x8x1w64f32", "--device", "ecp5-12f"], DEVICES),
        (["8x8x1w64f32", "--device", "my.toml"], DEVICES),
        (["8x8x1w64f32", "--unrouted"], "--unrouted has no --folder, but must have one"),
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


def test_what_needs_no_place_and_route_is_written_without(
    codesign: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(synthesize, "implement_many", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(tools, "nextpnr", lambda *_: pytest.fail("it began"))
    folder = tmp_path / "engine"
    wide = ("2x8x1w4f4", "--device", "ecp5-25f", "--port-bits", 128)  # more bits than pins
    status, out, _ = codesign(*wide, "--unrouted", "--folder", folder)
    assert (status, out) == (
        0, f"Wrote {folder}, without place and route: nothing was measured.\n"
    )  # fmt: skip
    names = ["README.txt", "engine.il", "engine.v"]
    assert sorted(path.name for path in folder.iterdir()) == names
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("Engine 2x8x1w4f4 with a memory port of 128 bits\n\nREADME.txt   ")
    assert re.findall(r"^(\w+\.\w+) ", text, re.MULTILINE) == names
    assert '  yosys -p "read_rtlil engine.il; synth_ecp5 -top engine -json engine.json"\n' in text
    assert "nextpnr" not in text
    assert protocol(Shape(Accelerator.parse("2x8x1w4f4"), 128)) in text
    (folder / "engine.bit").touch()  # of an engine that was placed and routed there
    assert codesign(*wide, "--unrouted", "--folder", folder)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == names


def test_ports_with_more_bits_than_pins_are_refused_before_synthesis(
    codesign: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesize, "engine", lambda shape: pytest.fail("it began"))
    status, out, error = codesign("8x4x1w16f16", "--device", "ecp5-45f", "--port-bits", 128)
    assert (status, out) == (1, "")
    assert " ".join(error.split()[-55:]).endswith(
        "codesign: 8x4x1w16f16 with a 128-bit port does not fit the Lattice ECP5 45F: it needs 315 "
        "pins of 245 in package CABGA554; place and route of the engine by itself takes a pin for "
        "each bit, a chip that has the memory controller inside does not: --unrouted writes the "
        "engine for one."
    )
