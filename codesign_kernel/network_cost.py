"""What a network costs on an accelerator, layer by layer: the verb `cost`."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from . import cost as closed_form
from . import parts, routed
from .accelerator import Accelerator, Accelerators, Device, load_device
from .cycles import Port, cycles, runs, traffic
from .errors import InputError
from .loops import Lanes, refused
from .networks import Network, load_network, shipped
from .onnx_layers import CARRIED
from .rtl.shape import PIXELS, SIDE, TAPS, WORDS, Shape
from .simulate import CAUSES
from .workload import Layers

BOTTLENECKS = ("compute", "compute, lanes idle", "input", "weights", "output", "control")
# What an engine does between its layers or not at all, at no cost; and what a table leaves out.
FREE = CARRIED | {"Constant", "Shape", "Softmax", "activations", "additions", "pooling"}
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
    """Cycles, memory traffic and bottleneck of each layer of any network, by the closed form; on an
    ECP5 also the whole network's cycles, latency and energy, predicted with intervals."""
    acc, chosen = accelerator_of(accelerator), load_device(device)
    closed_form.fits(chosen.grid(), chosen)  # says so if its coefficients are impossible
    read = load_network(network)
    table = layer_costs(read.layers, acc, chosen)
    if chart is not None:
        from . import report, roofline  # Altair takes a second to start

        clock = routed.known(acc, chosen)[0]["clock_mhz"]
        peak = acc.pf * acc.pc * acc.pv * clock / 1e3
        port = closed_form.port_rate(chosen) * clock / 1e3
        where = f"{read.name} on {acc}, {chosen.label}"
        report.save_picture(roofline.roofline(table, peak, port, where), chart)
    if as_json:
        print(json.dumps(_for_programs(read, table, acc, chosen), indent=2, allow_nan=False))
    else:
        _show(read, table, acc, chosen)
        if chart is not None:
            print(f"Wrote {chart}.")


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
    clock = routed.known(acc, device)[0]["clock_mhz"]
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


def predicted(read: Network, acc: Accelerator, device: Device) -> parts.Whole | str:
    """Return the whole network's figures with their intervals, or why there are none."""
    if not routed.measurable(device):
        return "no engine on this device was simulated, placed and routed."
    heavy = [kind for kind in read.left_out if kind.split(" ×")[0] not in FREE]
    if heavy:
        return f"it has operators that are not costed ({', '.join(heavy)})."
    if read.apart:
        return (
            f"{read.apart} does not read what the layer before it wrote, and only chains were "
            "measured, of layers to which no more than their own input is added."
        )
    try:
        Shape(acc, device.port_bits)
        return parts.whole(parts.load(), read.layers, acc, device)
    except InputError as error:
        return str(error)


def accelerator_of(text: str) -> Accelerator:
    """Read `8x8x1w64f32` or `8,8,1,64,32`. Raises InputError."""
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


def _fits(acc: Accelerator, device: Device) -> bool:
    return bool(closed_form.fits(Accelerators.of([acc]), device)[0])


def _for_programs(
    read: Network, table: pd.DataFrame, acc: Accelerator, device: Device
) -> dict[str, Any]:
    known, source = routed.known(acc, device)
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
        "clock_mhz": known["clock_mhz"],
        "predicted": _intervals(read, acc, device),
        "fits": _fits(acc, device),
        "resources": {
            name: {"used": used, "budget": budget, "source": source}
            for name, (used, budget) in closed_form.shares(known, device).items()
        },
        "layers": table.to_dict("records"),
        "total": _totals(read, table, acc),
        "not_costed": list(read.left_out),
        "notes": list(read.notes),
    }


def _intervals(read: Network, acc: Accelerator, device: Device) -> dict[str, Any]:
    found = predicted(read, acc, device)
    if isinstance(found, str):
        return {"reason": found}
    content: dict[str, Any] = {"coverage": parts.COVERAGE}
    for name in ("cycles", "clock_mhz", "latency_ms", "energy_mj"):
        content[name] = getattr(found, name)._asdict()
    return content | {"clock_source": "measured" if found.routed else "modelled"}


def _show(read: Network, table: pd.DataFrame, acc: Accelerator, device: Device) -> None:
    total, (known, source) = _totals(read, table, acc), routed.known(acc, device)
    how = f"{source} after place and route" if source == "measured" else source
    clock = f"{known['clock_mhz']:.4g} MHz"
    print(f"{read.name} on {acc}, {device.label}, {clock}, {how}. Layers are modelled.")
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
        f"{_plain(total['macs'] / 1e9, 3)} GMAC, {_plain(total['parameters'] / 1e6, 2)} million "
        "parameters; "
        f"{1e3 / total['time_ms']:.4g} images/s, one at a time."
    )
    print(_sentence(predicted(read, acc, device)))
    told: list[str] = []
    room: list[str] = []
    for name, (used, most) in closed_form.shares(known, device).items():
        told.append(f"{used:,} of {most:,} {name}")
        room += told[-1:] if used <= most else []
    if _fits(acc, device):
        print(f"The accelerator fits the device: {', '.join(told)}; {how}.")
    else:
        rest = f"; there is room for {', '.join(room)}" if room else ""
        why = closed_form.short_of(acc, device)
        print(f"The accelerator DOES NOT FIT the device: {why}{rest}; {how}.")
    for off, (why, if_not) in zip(
        refused(read.layers, acc, Port.of(device)), _refusals(acc, device), strict=True
    ):
        short = table.loc[off, "layer"]
        if len(short):
            print(
                f"{why} {len(short)} of {len(table)} layers "
                f"({short.iloc[0]}{', ...' * (len(short) > 1)}): costed as if {if_not}."
            )
    if read.left_out:
        print(f"Not costed: {', '.join(read.left_out)}.")
    for note in read.notes:
        print(note)


def _refusals(acc: Accelerator, device: Device) -> tuple[tuple[str, str], ...]:
    """What is said of layers that the engine cannot run, as `loops.refused` tells them apart."""
    lanes = Lanes.of(acc, Port.of(device))
    counted = (
        f"they were not; they count {SIDE:,} pixels on a side of a map, {TAPS} on that of a pooled "
        f"one, {PIXELS:,} in the rows of a tile, {lanes.most_channels:,.0f} channels, "
        f"{lanes.most_filters:,.0f} filters, {WORDS:,} words of weights in a filter group"
    )
    return (
        ("It has no mode for", "it had"),
        ("Its counters are too short for", counted),
        ("Its buffers are too small for", "they were not"),
    )


def _plain(value: float, digits: int) -> str:
    """A number with so many decimals, or, where it is small, three digits of it."""
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.3g}"


def _sentence(found: parts.Whole | str) -> str:
    if isinstance(found, str):
        return f"No interval for the whole network: {found}"
    named = (
        ("cycles", ",.0f", " cycles"),
        ("latency_ms", ".4g", " ms"),
        ("energy_mj", ".4g", " mJ"),
    )
    texts = []
    for name, form, unit in named:
        mean, low, high = (format(each, form) for each in getattr(found, name))
        texts.append(f"{mean}{unit} ({low} to {high})")
    return f"Predicted, with 90 % intervals from measured networks: {', '.join(texts)}."
