"""Lattice's ECP5 family: its chips, and how to read the netlists and reports of its tools."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .accelerator import Device
from .errors import InputError, choice

CHIPS = {  # nextpnr's option, the package with the most pins, and how many those are
    "ecp5-25f": ("--25k", "CABGA381", 197),
    "ecp5-45f": ("--45k", "CABGA554", 245),
    "ecp5-85f": ("--85k", "CABGA756", 365),
}
_CELLS = {  # what nextpnr calls them
    "dsp": "MULT18X18D", "bram": "DP16KD", "lut": "TRELLIS_COMB", "ff": "TRELLIS_FF",
    "pins": "TRELLIS_IO",
}  # fmt: skip
_UNITS = {"dsp": "MULT18X18D", "bram": "DP16KD", "lut": "LUT", "ff": "flip-flops", "pins": "pins"}
_COUNTED = re.compile(r"^Info:\s+(\w+):\s*(\d+)/\s*\d+ ", re.MULTILINE)
_ARCS = re.compile(r"^Info: Routing (\d+) arcs", re.MULTILINE)
_BATCH = re.compile(r"^Info: +(\d+) \| +\d+ +\d+ \| +(\d+) +\d+ \| +(\d+)\|", re.MULTILINE)
_REPEATED = re.compile(r"\$\d+(?=\.|_|$)")  # a name that is there more than once
_MAPPED = re.compile(
    r"(_(TRELLIS_\w+|LUT4|CCU2C|PFUMX|L6MUX21|DP16KD|MULT18X18D)(_.*)?|(\.\d+)*\$.*|(\.\d+)+)$"
)


@dataclass(frozen=True)
class Resources:
    """Numbers of an ECP5's resources.

    `dsp`: MULT18X18D. `bram`: DP16KD, block RAMs of 18 kbit. `lut`: LUTs of four inputs (nextpnr's
    TRELLIS_COMB), those included that serve as carry chain, as distributed RAM or as its write
    port. `ff`: flip-flops (TRELLIS_FF). `pins`: of the memory port, clock, reset, start and done.
    """

    dsp: int
    bram: int
    lut: int
    ff: int
    pins: int


def budget(device: Device) -> Resources:
    """Return what a device has, in its largest package. Raises InputError if it is no ECP5."""
    choice("device of synthesis", device.name, tuple(CHIPS))
    return Resources(device.dsp, device.bram, device.lut, device.lut, CHIPS[device.name][2])


def check_fit(who: str, device: Device, used: Resources) -> None:
    """Raise InputError that names each resource of which `used` is more than the device has."""
    there = budget(device)
    short = [
        f"{getattr(used, key):,} {unit} of {getattr(there, key):,}"
        + (f" in package {CHIPS[device.name][1]}" if key == "pins" else "")
        for key, unit in _UNITS.items()
        if getattr(used, key) > getattr(there, key)
    ]
    if short:
        pads = (
            "; place and route of the engine by itself takes a pin for each bit, a chip that has "
            "the memory controller inside does not: --unrouted writes the engine for one"
        )
        raise InputError(
            f"{who} does not fit the {device.label}: it needs {' and '.join(short)}"
            f"{pads if used.pins > there.pins else ''}."
        )


def of_netlist(module: Mapping[str, Any]) -> Resources:
    """Return what a module of Yosys's JSON netlist after `synth_ecp5` will take.

    LUTs are those that nextpnr 0.11 packs: a carry cell takes two, and each carry chain four more
    to enter and to leave it; a RAM of 16 x 4 bits takes six; the two constants take one each.
    """
    cells = module["cells"].values()
    kinds = Counter(cell["type"] for cell in cells)
    carry = [cell["connections"] for cell in cells if cell["type"] == "CCU2C"]
    continued = {bit for cell in carry for bit in cell.get("COUT", ())}
    chains = sum(not continued.intersection(cell.get("CIN", ())) for cell in carry)
    lut = kinds["LUT4"] + 2 * len(carry) + 4 * chains + 6 * kinds["TRELLIS_DPR16X4"] + 2
    pins = sum(len(port["bits"]) for port in module["ports"].values())
    return Resources(kinds["MULT18X18D"], kinds["DP16KD"], lut, kinds["TRELLIS_FF"], pins)


def of_log(log: str) -> Resources:
    """Return what nextpnr's log says that a design takes; none where it does not get so far."""
    counted = {cell: int(used) for cell, used in _COUNTED.findall(log)}
    return Resources(**{key: counted.get(cell, 0) for key, cell in _CELLS.items()})


def of_report(report: Mapping[str, Any]) -> Resources:
    """Return what nextpnr's JSON report says that a design takes."""
    used = report["utilization"]
    return Resources(**{f.name: used[_CELLS[f.name]]["used"] for f in fields(Resources)})


def stuck(log: str) -> bool:
    """Whether nextpnr's log shows that its default router goes round in circles.

    Where it succeeds, it is done after 1.2 to 1.3 steps an arc (a connection), and of 1,000 steps
    rips up under 330 other arcs, the first ones apart. Else it goes on for hours, at 400 and more.
    """
    arcs = _ARCS.search(log)
    batches = [tuple(map(int, batch)) for batch in _BATCH.findall(log)]
    return arcs is not None and any(
        left > 0 and steps > (0.8 if ripped >= 400 else 1.5) * int(arcs[1])
        for steps, ripped, left in batches
    )


def clock_mhz(report: Mapping[str, Any]) -> float:
    """Return the highest clock in MHz of the paths from register to register.

    Raises InputError if the report does not tell that of just one clock.
    """
    clocks = report["fmax"]
    if len(clocks) != 1:
        raise InputError(f"nextpnr reports {len(clocks)} clocks, but the engine must have one.")
    return float(next(iter(clocks.values()))["achieved"])


def critical_path(report: Mapping[str, Any]) -> str:
    """Return in words the slowest path from register to register: from where to where, and why.

    Like `from weights.params_0 to datapath.biased_0, 11.0 ns: 7.7 ns logic, 3.3 ns routing, through
    1 LUT and 32 carry bits`. Logic includes the delay of the register or block RAM at the start.
    """
    ends = {f"posedge {clock}" for clock in report["fmax"]}
    for critical in report["critical_paths"]:
        if critical["from"] in ends and critical["to"] in ends:
            path = critical["path"]
            break
    else:
        raise InputError("nextpnr reports no path from register to register.")
    routing = sum(hop["delay"] for hop in path if hop["type"] == "routing")
    logic = sum(hop["delay"] for hop in path if hop["type"] != "routing")
    through = [(hop["from"]["port"], hop["to"]["port"]) for hop in path if hop["type"] == "logic"]
    kinds = Counter(
        "carry bit" if {"FCI", "FCO"} & set(ports)
        # The outputs of a multiplier are P0 to P35, those of a LUT F and OFX.
        else "multiplier" if ports[1].startswith("P") else "LUT"
        for ports in through
    )  # fmt: skip
    cells = [f"{n} {kind}{'s' * (n != 1)}" for kind, n in sorted(kinds.items())]
    return (
        f"from {unit(path[0]['from']['cell'])} to {unit(path[-1]['to']['cell'])}, "
        f"{logic + routing:.1f} ns: {logic:.1f} ns logic, {routing:.1f} ns routing, "
        f"through {' and '.join(cells) or 'no cell'}"
    )


def unit(cell: str) -> str:
    """Return the signal of the engine, with the units that hold it, that a mapped cell is of."""
    return _MAPPED.sub("", _REPEATED.sub("", cell)) or cell


def timing(log: str) -> str:
    """Return the parts of nextpnr's log on resources, and on timing after routing."""
    plain = "".join(f"{line.removeprefix('Info: ')}\n" for line in log.splitlines())
    resources = plain[plain.find("Device utilisation:") :].partition("\n\n")[0]
    return f"{resources}\n\n{plain.partition('Routing complete.')[2].strip()}\n"


def constraints(target_mhz: int, reached_mhz: float) -> str:
    """Return constraints of the engine in Lattice's LPF: its clock, and how to assign its pins."""
    return (
        f"# The clock that was reached (measured: {reached_mhz:.1f} MHz), rounded down. The aim\n"
        f"# was {target_mhz} MHz, for the tools stop trying where they reach it.\n"
        f'FREQUENCY PORT "clk" {int(reached_mhz)} MHZ;\n'
        "# Pins, to be assigned by the board's owner: for each bit of each port of engine.v a\n"
        '# LOCATE COMP "clk" SITE "P3";\n'
        '# IOBUF PORT "clk" IO_TYPE=LVCMOS33;\n'
    )


def recipe(command: Sequence[str], versions: str) -> str:
    """Return as text how to build what is in an engine's folder, by Yosys and, if `command` has the
    options that it was given, by nextpnr. `versions`: of the tools that made the folder."""
    lines = ['yosys -p "read_rtlil engine.il; synth_ecp5 -top engine -json engine.json"']
    if command:
        lines += [
            f"nextpnr-ecp5 {shlex.join(command)} --json engine.json --textcfg engine.config",
            "ecppack --compress engine.config engine.bit",
        ]
    shown = "".join(f"  {line}\n" for line in lines)
    return f"""\
To build it{" anew, to the same figures" if command else ""} ({versions}):
{shown}\
In a design of your own, read engine.il beside your sources and give -top the name of your module.
It says what Verilog cannot: which registers are those of DSP blocks, which copies of registers are
to stay, and that buffers are not read where they are written. Synthesised from engine.v, 8x4x1w16f8
took 5,968 flip-flops instead of 4,904 on an ecp5-45f, and reached 82.8 MHz instead of 120.3
(measured, by router2 with seed 1).
"""
