"""What verbs of the command line do and print, where that is more than a few lines of `cli`."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from . import cost as closed_form
from . import measure, meters, routed, simulate, synthesize
from .accelerator import Accelerator, Accelerators, Device, load_device
from .cycles import Port, cycles, runs, traffic
from .design import Design
from .errors import InputError, integer
from .networks import Network, load_network, shipped
from .rtl.shape import Shape
from .simulate import CAUSES
from .store import Key
from .study import Study
from .workload import Layers

BOTTLENECKS = ("compute", "compute, lanes idle", "input", "weights", "output", "control")
_HEADS = ("cycles", "time (ms)", "utilisation (%)", "traffic (bytes)", "bottleneck")


def cost(
    network: Annotated[
        str, typer.Argument(help=f"{', '.join(shipped())}; or path of an .onnx or a .csv.")
    ],
    accelerator: Annotated[str, typer.Option(help="Such as 8x8x1w64f32, or 8,8,1,64,32.")],
    device: Annotated[str, typer.Option(help="Name, or path of a TOML file.")] = "ecp5-85f",
    chart: Annotated[
        Path | None, typer.Option(help="Write a roofline picture: .html, .png or .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
) -> None:
    """Cycles, memory traffic and bottleneck of each layer of any network, by the closed form."""
    acc, chosen = _accelerator(accelerator), load_device(device)
    read = load_network(network)
    table = layer_costs(read.layers, acc, chosen)
    if chart is not None:
        from . import charts, report  # Altair takes a second to start

        clock = float(closed_form.clock_mhz(acc, chosen))
        peak = acc.pf * acc.pc * acc.pv * clock / 1e3
        port = closed_form.port_rate(chosen) * clock / 1e3
        where = f"{read.name} on {acc}, {chosen.label}"
        report.save_picture(charts.roofline(table, peak, port, where), chart)
    if as_json:
        print(json.dumps(_for_programs(read, table, acc, chosen), indent=2, allow_nan=False))
    else:
        _show(read, table, acc, chosen)
        if chart is not None:
            print(f"Wrote {chart}.")


def implement(
    accelerator: Annotated[str, typer.Argument(help="Such as 8x8x1w64f32, or 8,8,1,64,32.")],
    device: Annotated[str, typer.Option(help="ecp5-25f, ecp5-45f or ecp5-85f.")] = "ecp5-85f",
    port_bits: Annotated[int, typer.Option(help="Memory port: 32, 64 or 128 bits.")] = 64,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed of place and route; several for a median.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write Verilog, constraints, reports and bitstream.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Seeds at once, a core each.")] = 1,
    cpu_limit_s: Annotated[int, typer.Option(help="Most processor time of a tool, in s.")] = 3600,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
) -> None:
    """Synthesis, place and route of the engine for an ECP5: measured clock and resources.

    Minutes for a seed the first time. Killed, it goes on with the seeds that are missing."""
    shape = Shape(_accelerator(accelerator), port_bits)
    chosen, seeds = load_device(device), seed or [1]
    integer("--workers", workers, 1, 1024)
    integer("--cpu-limit-s", cpu_limit_s, 1, 10**6)
    jobs = [synthesize.Job(shape, chosen, each) for each in seeds]
    done = []
    for result in synthesize.implement_many(jobs, workers, cpu_limit_s):
        if isinstance(result, InputError):
            raise result
        done.append(result)
    middle = sorted(done, key=lambda each: each.clock_mhz)[(len(done) - 1) // 2]
    if folder is not None:
        synthesize.write_folder(shape, chosen, middle.seed, folder, cpu_limit_s)
    if as_json:
        print(json.dumps([asdict(each) for each in done], indent=2, allow_nan=False))
        return
    print(synthesize.summary(middle), end="")
    if len(done) > 1:
        clocks = ", ".join(f"{each.clock_mhz:.1f}" for each in done)
        print(f"Clocks of seeds {', '.join(map(str, seeds))}: {clocks} MHz; shown is the median.")
    if folder is not None:
        print(f"Wrote {folder}.")


def layer_costs(layers: Layers, acc: Accelerator, device: Device) -> pd.DataFrame:
    """Return a row for each of the layers, fields (layers,): `macs`, `weight_bytes` and
    `feature_bytes` moved, cycles by cause and in all, `time_ms`, `utilisation` in % of the
    multipliers, `bottleneck`, `macs_per_byte`, `gmac_s`, and whether the engine `runs` it. All but
    the MACs is modelled.

    The bottleneck is what takes most cycles: compute, waiting for input, weights or output, or
    control. Lanes are called idle where compute uses less than half of the multipliers.
    """
    port = Port.of(device)
    spent = cycles(layers, acc, port)
    weights, features = traffic(layers, acc, port)
    clock = float(closed_form.clock_mhz(acc, device))
    lanes, macs = acc.pf * acc.pc * acc.pv, layers.macs
    causes = np.stack(
        [
            spent.compute * (2 * macs >= spent.compute * lanes),
            *(getattr(spent, cause) for cause in BOTTLENECKS if cause != BOTTLENECKS[1]),
        ]
    )
    return pd.DataFrame(
        {
            "layer": layers.names, "macs": macs, "weight_bytes": weights,
            "feature_bytes": features,
            **{cause: getattr(spent, cause) for cause in CAUSES}, "cycles": spent.total,
            "time_ms": spent.total / clock / 1e3,
            "utilisation": 100 * macs / (spent.total * lanes),
            "bottleneck": np.array(BOTTLENECKS)[causes.argmax(axis=0)],
            "macs_per_byte": macs / (weights + features),
            "gmac_s": macs / spent.total * clock / 1e3,
            "runs": runs(layers, acc, port),
        }
    )  # fmt: skip


def _accelerator(text: str) -> Accelerator:
    parts = [part.strip() for part in text.split(",")]
    return Accelerator.parse("{}x{}x{}w{}f{}".format(*parts) if len(parts) == 5 else text)


def _totals(read: Network, table: pd.DataFrame, acc: Accelerator) -> dict[str, Any]:
    cycles, macs = float(table["cycles"].sum()), int(table["macs"].sum())
    return {
        "macs": macs,
        "parameters": int(read.layers.parameters.sum()),
        "cycles": cycles,
        "time_ms": float(table["time_ms"].sum()),
        "utilisation": 100 * macs / (cycles * acc.pf * acc.pc * acc.pv),
        "weight_bytes": int(table["weight_bytes"].sum()),
        "feature_bytes": int(table["feature_bytes"].sum()),
    }


def _resources(acc: Accelerator, device: Device) -> dict[str, tuple[int, int]]:
    need = closed_form.resources(acc, device)
    return {
        "DSP": (int(need.dsp), device.dsp),
        "block RAM": (int(need.bram), device.bram),
        "LUT": (int(need.lut), device.lut),
    }


def _fits(acc: Accelerator, device: Device) -> bool:
    return bool(closed_form.fits(Accelerators.of([acc]), device)[0])


def _for_programs(
    read: Network, table: pd.DataFrame, acc: Accelerator, device: Device
) -> dict[str, Any]:
    return {
        "network": read.name,
        "accelerator": str(acc),
        "device": device.name,
        "source": "modelled",
        "units": {
            "time": "ms",
            "utilisation": "%",
            "gmac_s": "GMAC/s",
            "macs_per_byte": "MAC/byte",
        },
        "clock_mhz": float(closed_form.clock_mhz(acc, device)),
        "fits": _fits(acc, device),
        "resources": {
            name: {"used": used, "budget": budget}
            for name, (used, budget) in _resources(acc, device).items()
        },
        "layers": table.to_dict("records"),
        "total": _totals(read, table, acc),
        "not_costed": list(read.left_out),
    }


def _show(read: Network, table: pd.DataFrame, acc: Accelerator, device: Device) -> None:
    total = _totals(read, table, acc)
    clock = float(closed_form.clock_mhz(acc, device))
    print(f"{read.name} on {acc}, {device.label}, {clock:g} MHz. All figures are modelled.")
    rows = [
        *table[["layer", "cycles", "time_ms", "utilisation"]]
        .assign(moved=table["weight_bytes"] + table["feature_bytes"], why=table["bottleneck"])
        .itertuples(index=False, name=None),
        ("total", total["cycles"], total["time_ms"], total["utilisation"],
         total["weight_bytes"] + total["feature_bytes"], ""),
    ]  # fmt: skip
    wide = max(len(row[0]) for row in rows)
    print(f"{'layer':<{wide}}" + "".join(f"  {head:>15}" for head in _HEADS[:-1]), "", _HEADS[-1])
    for name, sums, time_ms, used, moved, why in rows:
        line = f"{name:<{wide}}  {sums:15,.0f}  {time_ms:15,.4f}  {used:15.1f}  {moved:15,}  {why}"
        print(line.rstrip())
    share = table.groupby("bottleneck")["cycles"].sum().sort_values(ascending=False)
    parts = [f"{100 * part / total['cycles']:.1f} % {why}" for why, part in share.items()]
    print(f"Time by bottleneck: {'; '.join(parts)}.")
    print(
        f"{total['macs'] / 1e9:.3f} GMAC, {total['parameters'] / 1e6:.2f} million parameters; "
        f"{1e3 / total['time_ms']:.4g} images/s, one at a time."
    )
    need = [
        f"{used:,} of {most:,} {name}" for name, (used, most) in _resources(acc, device).items()
    ]
    verdict = "fits" if _fits(acc, device) else "DOES NOT FIT"
    print(f"The accelerator {verdict} the device: {', '.join(need)}.")
    short = table.loc[~table["runs"], "layer"]
    if len(short):
        print(
            f"Its buffers are too small for {len(short)} of {len(table)} layers "
            f"({short.iloc[0]}{', ...' * (len(short) > 1)}): costed as if they were not."
        )
    if read.left_out:
        print(f"Not costed: {', '.join(read.left_out)}.")


def profile(
    study: Study, architectures: int, designs: int, engines: int, modelled: bool,
    folder: Path | None, download: bool,
) -> None:  # fmt: skip
    """Measure what `measure.plan` says that the study lacks, and print how much that was."""
    accuracy, hardware = measure.plan(study, architectures, designs, engines)
    subnets = meters.Accuracy(study, folder, download)
    simulated = [
        key for key in hardware
        if not modelled and routed.engines(study.device(key[2]))
    ]  # fmt: skip
    shapes = {Shape(Accelerator.parse(a), study.device(d).port_bits) for _, a, d in simulated}
    if shapes:
        simulate.build_many(sorted(shapes, key=str), os.cpu_count() or 1)
    jobs: list[tuple[meters.Meter, list[Key], str]] = [
        (subnets, accuracy, "accuracy"),
        (meters.Simulated(subnets, study), simulated, "simulated"),
        (meters.Closed(study), [key for key in hardware if key not in simulated], "modelled"),
    ]
    for meter, keys, what in jobs:
        new = measure.measure(study, meter, keys, what)
        if keys:
            print(f"{what}: {len(keys)} designs {meter.source} by {meter.method}, {new} now.")


def verify(
    study: Study, designs: Sequence[Design], modelled: bool, folder: Path | None, download: bool
) -> pd.DataFrame:
    """Return `measure.verify` of designs: those on an ECP5 are simulated, placed and routed."""
    subnets = meters.Accuracy(study, folder, download)
    tables = []
    for design in designs:
        real = routed.measurable(study.device(design.device)) and not modelled
        meter = meters.Simulated(subnets, study) if real else meters.Closed(study)
        tables.append(measure.verify(study, [design], [subnets, meter]))
    return pd.concat(tables, ignore_index=True)


def is_routed(study: Study, text: str) -> bool:
    """Whether the engine of a design was placed and routed on its device before."""
    design = study.find(text)
    return design.accelerator in routed.engines(study.device(design.device))


def fit_text(table: pd.DataFrame) -> str:
    """Return the table of `measure.fit` as the verb `fit` prints it."""
    shown = table.copy()
    same = shown.duplicated(["quantity", "device"])
    shown.loc[same, ["quantity", "device", "source"]] = ""
    shown["rows"] = shown["rows"].astype(object).where(~same, "")
    text = shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    return (
        f"{text}\nErrors are of held-out rows (10-fold cross-validation); LOO MAE is the Gaussian "
        "process's leave-one-out error. Units: accuracy %, latency_ms ms, power_w W; MAPE and "
        "coverage of the 90 % interval in %; MAE and width in the quantity's unit."
    )
