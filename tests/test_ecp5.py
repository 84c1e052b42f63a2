from dataclasses import replace
from typing import Any

import pytest

from codesign_kernel import ecp5
from codesign_kernel.accelerator import load_device
from codesign_kernel.ecp5 import Resources
from codesign_kernel.errors import InputError

CLOCK = "$glbnet$clk$TRELLIS_IO_IN"


def hop(kind: str, delay: float, start: str, end: str) -> dict[str, Any]:
    ends = [text.rpartition("/") for text in (start, end)]
    cells = [{"cell": cell, "loc": [1, 2], "port": port} for cell, _, port in ends]
    return {"type": kind, "delay": delay, "from": cells[0], "to": cells[1]}


FROM, SUM, TO = "weights.params_0$62.0.1", "maps.sum_TRELLIS_FF_Q_4_DI_CCU2C_S1", "maps.x"
REPORT: dict[str, Any] = {
    "fmax": {CLOCK: {"achieved": 125.0, "constraint": 130}},
    "utilization": {
        "DP16KD": {"available": 56, "used": 6},
        "MULT18X18D": {"available": 28, "used": 5},
        "TRELLIS_COMB": {"available": 24288, "used": 4318},
        "TRELLIS_FF": {"available": 24288, "used": 2507},
        "TRELLIS_IO": {"available": 197, "used": 111},
    },
    "critical_paths": [
        {  # longer, but from a pin: it is no limit of the engine's clock
            "from": "<async>",
            "to": f"posedge {CLOCK}",
            "path": [hop("source", 0, "ready$tr_io/O", "ready$tr_io/O"),
                     hop("routing", 12, "ready$tr_io/O", f"{TO}_TRELLIS_FF_Q/DI")],
        },
        {
            "from": f"posedge {CLOCK}",
            "to": f"posedge {CLOCK}",
            "path": [
                hop("clk-to-q", 4.0, f"{FROM}/DOA3", f"{FROM}/DOA3"),
                hop("routing", 1.5, f"{FROM}/DOA3", f"{FROM}_DOA3_LUT4_D/D"),
                hop("logic", 0.25, f"{FROM}_DOA3_LUT4_D/D", f"{FROM}_DOA3_LUT4_D/F"),
                hop("routing", 1.0, f"{FROM}_DOA3_LUT4_D/F", f"{SUM}$CCU2_COMB1/A"),
                hop("logic", 0.5, f"{SUM}$CCU2_COMB1/A", f"{SUM}$CCU2_COMB1/FCO"),
                hop("routing", 0, f"{SUM}$CCU2_COMB1/FCO", f"{SUM}$CCU2_COMB0/FCI"),
                hop("logic", 0.5, f"{SUM}$CCU2_COMB0/FCI", f"{SUM}$CCU2_COMB0/F"),
                hop("routing", 0.25, f"{SUM}$CCU2_COMB0/F", f"{TO}_TRELLIS_FF_Q/DI"),
                hop("setup", 0, f"{TO}_TRELLIS_FF_Q/DI", f"{TO}_TRELLIS_FF_Q/DI"),
            ],
        },
    ],
}  # fmt: skip


def test_report_is_read() -> None:
    assert ecp5.clock_mhz(REPORT) == 125.0
    assert ecp5.of_report(REPORT) == Resources(dsp=5, bram=6, lut=4318, ff=2507, pins=111)
    assert ecp5.critical_path(REPORT) == (
        "from weights.params_0 to maps.x, 8.0 ns: 5.2 ns logic, 2.8 ns routing, through 1 LUT and "
        "2 carry bits"
    )
    path = [
        hop("clk-to-q", 0.5, "a_TRELLIS_FF_Q_1/Q", "a_TRELLIS_FF_Q_1/Q"),
        hop("routing", 4.0, "a_TRELLIS_FF_Q_1/Q", "p_MULT18X18D_P0/B8"),
        hop("logic", 4.0, "p_MULT18X18D_P0/B8", "p_MULT18X18D_P0/P5"),
    ]
    edge = f"posedge {CLOCK}"
    multiplied = REPORT | {"critical_paths": [{"from": edge, "to": edge, "path": path}]}
    assert ecp5.critical_path(multiplied) == (
        "from a to p, 8.5 ns: 4.5 ns logic, 4.0 ns routing, through 1 multiplier"
    )
    alone = REPORT | {"critical_paths": [{"from": edge, "to": edge, "path": path[:2]}]}
    assert ecp5.critical_path(alone).endswith(", through no cell")


def test_report_without_a_path_between_registers_is_refused() -> None:
    with pytest.raises(InputError, match=r"^nextpnr reports no path from register to register\.$"):
        ecp5.critical_path(REPORT | {"critical_paths": REPORT["critical_paths"][:1]})


@pytest.mark.parametrize("clocks", [[], ["a", "b"]])
def test_report_of_not_one_clock_is_refused(clocks: list[str]) -> None:
    with pytest.raises(InputError, match=f"^nextpnr reports {len(clocks)} clocks, but the engine"):
        ecp5.clock_mhz({"fmax": {clock: {"achieved": 1.0} for clock in clocks}})


@pytest.mark.parametrize(
    ("cell", "signal"),
    [
        ("compute.acc_0_1_TRELLIS_FF_Q_12", "compute.acc_0_1"),
        ("weights.params_0$62.0.0", "weights.params_0"),
        ("maps.fifo$3.level_TRELLIS_FF_Q", "maps.fifo.level"),
        ("weights.address$50_TRELLIS_FF_Q_CE_LUT4_Z", "weights.address"),
        ("datapath.out$129.0.6$DPRAM_COMB2", "datapath.out"),
        ("datapath.product$88_MULT18X18D_P0", "datapath.product"),
        ("ready$tr_io", "ready"),
        ("$123", "$123"),  # nothing is left to call it by
    ],
)
def test_unit_is_named_by_its_signal(cell: str, signal: str) -> None:
    assert ecp5.unit(cell) == signal


def test_log_is_read() -> None:
    log = (
        "Info: Logic utilisation before packing:\nInfo:     Total LUT4s:   3948/24288    16%\n"
        "Info: Device utilisation:\nInfo: \t          TRELLIS_IO:     111/    197    56%\n"
        "Info: \t          MULT18X18D:      35/     28   125%\n"
        "Info: \t        TRELLIS_COMB:    4318/  24288    17%\n\nERROR: no BELs remaining\n"
    )
    assert ecp5.of_log(log) == Resources(dsp=35, bram=0, lut=4318, ff=0, pins=111)
    assert ecp5.of_log("ERROR: something else") == Resources(0, 0, 0, 0, 0)


def test_router_that_goes_round_in_circles_is_seen() -> None:
    def log(*batches: tuple[int, int, int]) -> str:
        lines = [
            f"Info: {steps:10} |     {ripped}        892 |  {ripped}   {1000 - ripped} | {left:9}|"
            "       1.01       1.01|\n"
            for steps, ripped, left in batches
        ]
        return "Info: Routing..\nInfo: Routing 4000 arcs.\n" + "".join(lines)

    assert not ecp5.stuck("")
    assert not ecp5.stuck(log())
    assert not ecp5.stuck(log((1000, 326, 3100), (2000, 100, 2000), (5000, 80, 100)))
    assert not ecp5.stuck(log((5000, 80, 100), (5500, 410, 0)))  # it has come to its end
    assert not ecp5.stuck(log((1000, 700, 3000), (2000, 400, 2500)))  # the first arcs are the worst
    assert ecp5.stuck(log((2000, 100, 2500), (3201, 400, 2000)))
    assert ecp5.stuck(log((5000, 80, 100), (6001, 90, 50)))
    assert not ecp5.stuck(log((5000, 80, 100), (6001, 90, 50))[:-40])  # a line that is half there


def test_log_is_cut_to_resources_and_timing() -> None:
    log = (
        "Info: Packing..\nInfo: Device utilisation:\nInfo:  A:  1/ 2  50%\n\n"
        "Info: Max frequency for clock 'clk': 80.00 MHz\nInfo: Routing complete.\n"
        "Info: Router1 time 1s\n\nWarning: Max frequency for clock 'clk': 90.00 MHz\n"
    )
    assert ecp5.timing(log) == (
        "Device utilisation:\n A:  1/ 2  50%\n\nRouter1 time 1s\n\n"
        "Warning: Max frequency for clock 'clk': 90.00 MHz\n"
    )


def test_netlist_is_counted() -> None:
    def cell(kind: str, **connections: list[Any]) -> dict[str, Any]:
        return {"type": kind, "connections": connections}

    cells = [
        cell("LUT4"), cell("LUT4"), cell("TRELLIS_FF"), cell("TRELLIS_DPR16X4"),
        cell("MULT18X18D"), cell("DP16KD"), cell("PFUMX"), cell("$scopeinfo"),
        cell("CCU2C", CIN=["0"], COUT=[7]), cell("CCU2C", CIN=[7], COUT=[8]),  # one chain
        cell("CCU2C", CIN=["0"], COUT=[9]),  # another
    ]  # fmt: skip
    ports = {"clk": {"bits": [2]}, "data": {"bits": [3, 4, 5]}}
    module = {"cells": dict(enumerate(cells)), "ports": ports}
    lut = 2 + 3 * 2 + 2 * 4 + 6 + 2
    assert ecp5.of_netlist(module) == Resources(dsp=1, bram=1, lut=lut, ff=1, pins=4)


def test_what_is_short_is_named() -> None:
    device = load_device("ecp5-45f")
    fits = Resources(dsp=72, bram=108, lut=43_848, ff=43_848, pins=245)
    assert ecp5.budget(device) == fits
    ecp5.check_fit("it", device, fits)
    for used, sentence in [
        (replace(fits, dsp=260), "it needs 260 MULT18X18D of 72."),
        (replace(fits, bram=109), "it needs 109 DP16KD of 108."),
        (replace(fits, lut=50_000), "it needs 50,000 LUT of 43,848."),
        (replace(fits, ff=50_000), "it needs 50,000 flip-flops of 43,848."),
        (
            replace(fits, pins=315),
            "it needs 315 pins of 245 in package CABGA554; place and route of the engine by itself "
            "takes a pin for each bit, a chip that has the memory controller inside does not: "
            "--unrouted writes the engine for one.",
        ),
        (
            replace(fits, dsp=73, lut=43_849),
            "it needs 73 MULT18X18D of 72 and 43,849 LUT of 43,848.",
        ),
    ]:
        with pytest.raises(InputError) as caught:
            ecp5.check_fit("16x16x1w64f32", device, used)
        assert str(caught.value) == f"16x16x1w64f32 does not fit the Lattice ECP5 45F: {sentence}"


def test_device_of_another_family_is_refused() -> None:
    with pytest.raises(InputError, match=r"^device of synthesis is 'arria10-gx1150', but must be "):
        ecp5.budget(load_device("arria10-gx1150"))
