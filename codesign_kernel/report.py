"""The report of one design: a page of HTML with its pictures inside, to be read anywhere.

And one picture as a file: a page of its own, PNG or SVG.
"""

import json
from collections.abc import Mapping
from html import escape
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import pandas as pd

from . import __version__, card, charts, engines, measure, routed
from .accelerator import Device
from .design import Design
from .errors import InputError, shown
from .files import replacing, write_text
from .meters import CLOSED_FORM, RECORDED, SIMULATION, Accuracy, recorded
from .predict import COVERAGE
from .quantities import QUANTITIES, TOLD, UNITS
from .study import Study

_STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; max-width: 60rem; }
body { margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: left; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.scroll table { font-size: 14px; }
svg { max-width: 100%; height: auto; margin: 1rem 0; }
code { background: #f3f3f3; padding: 0.1rem 0.3rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
"""
_MEASURED = {
    "cycles": ("clock cycles of one image", ""),
    "clock_mhz": ("clock", "MHz"),
    "latency_ms": ("latency of one image", UNITS["latency_ms"]),
    "power_w": ("power, mean while computing", UNITS["power_w"]),
}


class Counted(NamedTuple):
    """An accuracy in %, and the number of images that it was counted on."""

    percent: float
    images: int

    def interval(self, coverage: float = COVERAGE) -> tuple[float, float]:
        """Return the ends in % of what the accuracy on ever more such images may be, as this is of
        so many: Wilson's score interval (J. American Statistical Association 22, 1927, 209-212).
        """
        p, n, z = self.percent / 100, self.images, NormalDist().inv_cdf((1 + coverage) / 2)
        middle, half = p + z**2 / (2 * n), z * sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
        return 100 * max(low, 0.0), 100 * min(high, 1.0)


def origins(study: Study, device: str) -> dict[str, tuple[str, str]]:
    """Return of each figure that `explore.table` predicts what it rests on, and what it is of."""
    of = (measure.accuracy_of(study), "one image", "mean while computing")
    found = {
        quantity: (f"predicted from {_rests_on(study, quantity, device)}", what)
        for quantity, what in zip(QUANTITIES, of, strict=True)
    }
    found["energy_mj"] = "predicted: latency × power", "one image"
    return found | dict.fromkeys(("dsp", "bram", "lut"), ("modelled", "the engine"))


def report(
    study: Study,
    design: Design,
    predicted: "pd.Series[float]",
    measured: Mapping[str, Counted],
    hardware: Mapping[str, tuple[float, str]],
    layers: pd.DataFrame,
    steps: int | None = None,
) -> str:
    """Return the report as HTML. `predicted` is a row of `explore.table`, `layers` the table of
    `Study.layers`; `measured` holds accuracies by what was measured, and `hardware` is as of
    `engines.figures`; `steps` if it was not specialised as those that were learnt from."""
    device = study.device(design.device)
    latency, power = (_rests_on(study, quantity, device.name) for quantity in QUANTITIES[1:])
    engine = engines.known(design.accelerator, device, engines.measured(study, device.name))
    used, source = card.resources(engine, device)
    clock = engine[0]["clock_mhz"]
    pictures = [
        charts.to_svg(chart)
        for chart in (charts.architecture(layers), charts.layers(layers),
                      charts.resources(used, source))
    ]  # fmt: skip
    forecast = [
        [told.name, *(told.text(predicted[key + end]) for end in ("", "_low", "_high")), told.unit]
        for key, told in TOLD.items()
    ]
    found = [
        [f"accuracy, {name}", *(f"{x:.2f}" for x in (each.percent, *each.interval())), "%",
         f"{each.images:,}"]
        for name, each in measured.items()
    ]  # fmt: skip
    found += [[_MEASURED[name][0], _number(value), "", "", _MEASURED[name][1], ""]
              for name, (value, _) in hardware.items()]  # fmt: skip
    acc = design.accelerator
    other = (
        "Specialised for other steps than the networks that were learnt from, it is not the one "
        "that was predicted."
        if steps is not None
        else ""
    )
    # What is asked for most is seen without scrolling.
    first = ["layer", "cycles", "macs", "filters", "channels", "kernel", "stride"]
    columns = [*first, *(str(name) for name in layers if name not in first)]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Design {design.id}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>Design {design.id}</h1>
<p><code>{escape(str(design))}</code></p>
<p>A network of the space {escape(study.space.name)} on {escape(device.label)}: {acc.pf} filters ×
{acc.pc} channels × {acc.pv} pixels a cycle, {acc.weight_kib} KiB of weight buffer and
{acc.feature_kib} KiB of feature buffer. Clock: {clock:.1f} MHz, {source}.</p>
<h2>Predicted</h2>
<p>By Gaussian processes fitted to the study's designs; the interval is meant to hold 90 % of the
time. Accuracy, with its interval, is that of {escape(measure.accuracy_of(study))}.
{_latency_source(latency, source)}
{_power_source(power, study.sources()["power_w", device.name])}</p>
{_table(["Quantity", "Predicted", "90 %: from", "to", "Unit"], forecast)}
<h2>Measured</h2>
<p>Accuracy is top-1, of float32 weights where it does not say int8, as the engine has them. Nothing
was selected on the test images. Intervals of accuracy are due to the number of images alone
(Wilson's score); figures on the same images share their luck. {other}
{_how_measured(device, hardware)}</p>
{_table(["What", "Measured", "90 %: from", "to", "Unit", "Images"], found)}
<h2>Network</h2>{pictures[0]}
<h2>Where the cycles go</h2>{pictures[1]}
<h2>Resources</h2>{pictures[2]}
<h2>Layers</h2>
<p>Of one image. Bytes cross the memory port; cycles are modelled, in all and by cause.</p>
<div class="scroll">{
        _table(
            columns,
            [[_number(v) for v in row] for row in layers[columns].itertuples(index=False)],
        )
    }</div>
<h2>Origin</h2>
<p>codesign {__version__}, {CLOSED_FORM}; study of {escape(study.dataset)}, preset
{escape(study.preset)}, seed {study.seed}, {Accuracy.of(study.supernet_path)}.
{escape(device.source)}</p>
</body></html>
"""


def _how_measured(device: Device, hardware: Mapping[str, tuple[float, str]]) -> str:
    by, told = dict.fromkeys(method for _, method in hardware.values()), []
    if SIMULATION in by:
        told.append("Cycles were counted in simulation; the clock is that after place and route.")
    whose = [escape(method.removeprefix(RECORDED)) for method in by if recorded(method)]
    if whose:
        who = ", ".join(whose)
        told.append(f"Hardware figures were recorded by {who}; the last stored count.")
    if told:
        return " ".join(told)
    does = "<code>codesign verify</code> does" if routed.measurable(device) else routed.ONLY
    return f"Hardware figures of this design were not measured: {does}."


def _rests_on(study: Study, quantity: str, device: str) -> str:
    """What a quantity is predicted from, in words."""
    device = "" if quantity == "accuracy" else device
    method = measure.predicted_by(study, quantity, device)
    if recorded(method):
        return f"what {method.removeprefix(RECORDED)} measured"
    if (quantity, method) == ("latency_ms", SIMULATION):
        return "simulated cycles and clocks after place and route (no board)"
    return f"{study.sources()[quantity, device]} {'designs' if device else 'subnets'}"


def _latency_source(rests_on: str, clock: str) -> str:
    unsure = "; its interval includes what is not known of a clock before place and route"
    return f"Latency rests on {escape(rests_on)}{unsure * (clock == 'modelled')}."


def _power_source(rests_on: str, source: str) -> str:
    if source == "measured":
        return f"Power rests on {escape(rests_on)}."
    return (
        "Power rests on a model, and its interval includes the uncertainty of the published "
        "coefficients: no board was measured."
    )


def _number(value: object) -> str:
    return f"{value:,.5g}" if isinstance(value, float) else str(value)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td{_class(cell)}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _class(cell: str) -> str:
    return ' class="number"' if cell[:1].isdigit() else ""


def picture_kind(path: Path, what: str = "picture") -> str:
    """Return the ending of a picture's path: .html, .png or .svg. Raises InputError if another,
    which says `what` it is."""
    kind = path.suffix.lower()
    if kind not in (".html", ".png", ".svg"):
        raise InputError(f"{what} is {shown(str(path))}, but must end in .html, .png or .svg.")
    return kind


def save_picture(chart: charts.alt.LayerChart | charts.alt.HConcatChart, path: Path) -> None:
    """Write the chart to `path`, as its ending says: .html (whole in itself, with what is said of
    each mark under the pointer), .png or .svg. Raises InputError."""
    import vl_convert  # 80 MB, for this alone

    kind = picture_kind(path)
    if kind == ".svg":
        write_text(path, charts.to_svg(chart))
    elif kind == ".png":
        picture = vl_convert.vegalite_to_png(chart.to_dict(), scale=2, allowed_base_urls=[])
        with replacing(path) as temporary:
            temporary.write_bytes(picture)
    else:
        drawn = chart.to_dict()
        script = vl_convert.javascript_bundle(
            "vegaEmbed('#picture', JSON.parse(document.getElementById('drawn').textContent), "
            "{actions: false, renderer: 'svg'})"
        )
        data = json.dumps(drawn).replace("<", "\\u003c")  # lest a name that holds a tag end it
        page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(str(drawn["description"]))}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<div id="picture"></div><script type="application/json" id="drawn">{data}</script>
<script type="module">{script}</script></body></html>
"""
        write_text(path, page)
