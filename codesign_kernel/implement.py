"""The verb `implement`: an engine placed and routed, or only written for one's own design."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from . import cost, ecp5, synthesize
from .accelerator import load_device
from .errors import InputError, choice, integer
from .files import check_out, no_others
from .network_cost import accelerator_of
from .options import JsonOption
from .rtl.shape import Shape


def implement(
    accelerator: Annotated[str, typer.Argument(help="Such as 8x8x1w64f32, or 8,8,1,64,32.")],
    device: Annotated[str, typer.Option(help="ecp5-25f, ecp5-45f or ecp5-85f.")] = "ecp5-85f",
    port_bits: Annotated[int, typer.Option(help="Memory port: 32, 64 or 128 bits.")] = 64,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed of place and route; several for a median.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Write RTLIL, Verilog, constraints, reports and bitstream; of the fastest seed."
        ),
    ] = None,
    unrouted: Annotated[
        bool, typer.Option("--unrouted", help="Write RTLIL and Verilog only, in seconds.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A router that is done sooner, at a lower clock.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Seeds at once, a core each.")] = 1,
    cpu_limit_s: Annotated[int, typer.Option(help="Most processor time of a tool, in s.")] = 3600,
    as_json: JsonOption = False,
) -> None:
    """Synthesis, place and route of the engine for an ECP5: measured clock and resources.

    Minutes for a seed the first time. Killed, it goes on with the seeds that are missing."""
    shape = Shape(accelerator_of(accelerator), port_bits)
    choice("--device", device, tuple(ecp5.CHIPS))
    chosen, seeds = load_device(device), list(dict.fromkeys(seed or [1]))
    for each in seeds:
        integer("seed of place and route", each, 1, synthesize.MOST_SEED)
    integer("--workers", workers, 1, 1024)
    integer("--cpu-limit-s", cpu_limit_s, 1, 10**6)
    need = cost.resources(shape.accelerator, replace(chosen, port_bits=port_bits))
    known = ecp5.Resources(int(need.dsp), int(need.bram), 0, 0, 0)  # exact without synthesis
    ecp5.check_fit(synthesize.who(shape), chosen, known)
    if folder is not None:  # before minutes of work
        no_others(folder, synthesize.FILES)
        check_out("--folder", folder / "README.txt")
    if unrouted:
        if folder is None:
            raise InputError("--unrouted has no --folder, but must have one to write into.")
        synthesize.write_sources(shape, folder, cpu_limit_s)
        print(f"Wrote {folder}, without place and route: nothing was measured.")
        return
    jobs = [synthesize.Job(shape, chosen, each, quick) for each in seeds]
    done = []
    for result in synthesize.implement_many(jobs, workers, cpu_limit_s):
        if isinstance(result, InputError):
            raise result
        done.append(result)
    ranked = sorted(done, key=lambda each: each.clock_mhz)
    middle, fastest = ranked[(len(done) - 1) // 2], done.index(ranked[-1])
    if folder is not None:  # which of the seeds' engines is built is free to choose
        synthesize.write_folder(jobs[fastest], folder, cpu_limit_s)
    if as_json:
        print(json.dumps([asdict(each) for each in done], indent=2, allow_nan=False))
        return
    print(synthesize.summary(middle), end="")
    if len(done) > 1:
        clocks = ", ".join(f"{each.clock_mhz:.1f}" for each in done)
        lower = f"seed {middle.seed}, the slower of the two in the middle"
        shown = "the median" if len(done) % 2 else lower
        print(f"Clocks of seeds {', '.join(map(str, seeds))}: {clocks} MHz; shown is {shown}.")
    if folder is not None:
        which = f": seed {seeds[fastest]}, the fastest" if len(done) > 1 else ""
        print(f"Wrote {folder}{which}.")
