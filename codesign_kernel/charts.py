"""The figures: plain tables in, Altair charts out, for the page, the notebooks and the report.

Every axis has its unit and every title says where the figures come from: measured, predicted or
modelled. Colours are viridis for quantities and those of Okabe and Ito (Color Universal Design,
2008) for names: people who see colours differently can tell them apart.
"""

import re
import sys
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from .quantities import QUANTITIES, TITLES

# jsonschema, which altair imports, would build a grammar of web addresses if it found this module:
# a second and 14 MB at each start of a notebook, for a check that no chart makes.
_absent = sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
import altair as alt  # noqa: E402

if _absent is None:
    del sys.modules["rfc3987_syntax"]

__all__ = [
    "accuracy_macs", "alt", "architecture", "framed", "layers", "pareto",
    "power_scale", "predicted_measured", "resources", "sizes", "tip", "to_svg",
    "training",
]  # fmt: skip
Width = int | Literal["container"]
Drawn = TypeVar("Drawn", alt.Chart, alt.LayerChart)
WIDTH = 520
POINTS, BARS = 2000, 100  # designs drawn of a front, and with intervals: more hide each other
COMPUTE, WEIGHTS, FEATURES, START = "#0072B2", "#E69F00", "#56B4E9", "#8C8C8C"
CAUSES = {  # of a cycle, as `simulate` names them
    "compute": COMPUTE, "input": FEATURES, "weights": WEIGHTS, "output": "#009E73",
    "control": START,
}  # fmt: skip
STAGES = ["#8C8C8C", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"]
INK = "#333333"
MILLIONS = "Multiply-accumulates of one image (millions)"
# Browsers draw text in fonts of their own, up to so many times as wide as it is measured here.
ROOM = 1.2


@alt.theme.register("codesign", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    text = {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    text |= {"labelColor": INK, "titleColor": INK}
    title = {"anchor": "start", "fontSize": 14, "offset": 10}
    title |= {"subtitleFontSize": 12, "subtitleColor": "#595959", "subtitlePadding": 4}
    lines = {"gridColor": "#E8E8E8", "domainColor": START, "tickColor": START}
    config: Any = {
        "font": "Helvetica Neue, Arial, Liberation Sans, sans-serif",
        "title": title,
        "axis": {**text, **lines, "labelSeparation": 4},
        "legend": text,
        "view": {"stroke": None},
        "padding": {"left": 0, "right": 8, "top": 5, "bottom": 5},
    }
    return {"config": config}


def to_svg(chart: alt.TopLevelMixin) -> str:
    """Return the chart as an SVG document. It is drawn in this process; nothing is fetched.

    Text is laid out ROOM times as large as it is drawn: so it is not cut off, and does not run into
    other text, in a browser whose font is wider than the one it was measured with.
    """
    import vl_convert  # 80 MB, for this alone

    text = vl_convert.vegalite_to_svg(_enlarged(chart.to_dict()), allowed_base_urls=[])
    return re.sub(
        r'font-size="([\d.]+)px"', lambda size: f'font-size="{float(size[1]) / ROOM:g}px"', text
    )


def _enlarged(part: Any) -> Any:
    """A chart's specification with all its sizes of fonts times ROOM."""
    if isinstance(part, list):
        return [_enlarged(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: value * ROOM
        if key.lower().endswith("fontsize") and isinstance(value, int | float)
        else _enlarged(value)
        for key, value in part.items()
    }


def framed(chart: Drawn, width: Width, height: int, title: str, *source: str) -> Drawn:
    """Give a chart its size, its title, and lines below that say where its figures come from."""
    heading = alt.TitleParams(title, subtitle=list(source))
    return chart.properties(title=heading, width=width, height=height)


def tip(quantity: str) -> alt.Tooltip:
    """What is said of a quantity where the pointer rests on a mark."""
    return alt.Tooltip(f"{quantity}:Q", title=TITLES[quantity], format=".4~g")


def power_scale(ends: list[float] | None = None) -> alt.Scale:
    """Viridis without its palest end, from the least to the greatest power in W, or those given."""
    scheme = alt.SchemeParams(name="viridis", extent=[0.0, 0.9])
    return alt.Scale(type="log", scheme=scheme, domain=alt.Undefined if ends is None else ends)


def _plain_scale() -> alt.Scale:
    return alt.Scale(zero=False)


def pareto(
    designs: pd.DataFrame, *, intervals: bool = False, width: Width = WIDTH
) -> alt.LayerChart:
    """Accuracy against latency, power as colour, of rows as `explore.table` gives them.

    With `intervals` the 90 % intervals are drawn; with several devices, a shape for each. Of many
    designs POINTS are drawn, with intervals BARS, evenly by their order in accuracy.
    """
    found, most = len(designs), BARS if intervals else POINTS
    if found > most:
        order = designs.sort_values(["accuracy", "latency_ms"])
        designs = order.iloc[np.linspace(0, found - 1, most).round().astype(int)]
    x = alt.X("latency_ms:Q", title=TITLES["latency_ms"], scale=alt.Scale(type="log", nice=False))
    y = alt.Y("accuracy:Q", title=TITLES["accuracy"], scale=_plain_scale())
    base = alt.Chart(designs)
    points = base.mark_point(filled=True, size=50, opacity=0.9).encode(
        x,
        y,
        alt.Color(
            "power_w:Q",
            title=TITLES["power_w"],
            scale=power_scale(),
            legend=alt.Legend(format=".2~r"),
        ),
        tooltip=["id:N", "architecture:N", "accelerator:N", "device:N", *map(tip, QUANTITIES)],
    )
    if designs["device"].nunique() > 1:
        points = points.encode(alt.Shape("device:N", title="Device"))
    rule = base.mark_rule(color=START, strokeWidth=1)
    bars = (
        rule.encode(x, alt.Y("accuracy_low:Q"), alt.Y2("accuracy_high:Q")),
        rule.encode(alt.X("latency_ms_low:Q"), y, alt.X2("latency_ms_high:Q")),
    )
    chart = alt.LayerChart(layer=[*(bars if intervals else ()), points])
    source = "Predicted, with 90 % intervals" if intervals else "Predicted"
    about = [f"{source}; power is modelled, measured on no board"]
    if found > most:
        about.append(f"{most:,} of its {found:,} designs are drawn")
    return framed(chart, width, 320, "Pareto set", *about)


def layers(table: pd.DataFrame, source: str = "modelled", *, width: Width = WIDTH) -> alt.Chart:
    """Where the cycles of each layer go, of rows as `Study.layers` gives them, or, with `source`
    measured, `simulate.count_cycles`."""
    frames = [
        table[["layer"]].assign(cause=cause, cycles=table[cause], turn=turn)
        for turn, cause in enumerate(CAUSES)
    ]
    causes = alt.Scale(domain=[*CAUSES], range=[*CAUSES.values()])
    axis = alt.Axis(tickCount=5, format="~s", labelExpr="datum.value ? datum.label : '0'")
    chart: alt.Chart = (
        alt.Chart(pd.concat(frames))
        .mark_bar()
        .encode(
            alt.X("cycles:Q", title=f"Cycles, {source}", axis=axis),
            alt.Y("layer:N", sort=None, title=None),
            alt.Color("cause:N", title=None, scale=causes, legend=_legend()),
            order="turn:Q",
            tooltip=["layer:N", "cause:N", alt.Tooltip("cycles:Q", format=",.0f")],
        )
    )
    return framed(
        chart,
        width,
        22 * len(table),
        "Where the cycles go",
        f"{source.capitalize()}. The multipliers compute, or wait for input",
        "maps, weights, output to be taken, or control.",
    )


def _legend() -> alt.Legend:
    narrow = alt.ExprRef("width < 420 ? 3 : 5")  # a phone
    return alt.Legend(orient="top", columns=narrow, symbolType="square")


def architecture(table: pd.DataFrame, *, width: Width = WIDTH) -> alt.LayerChart:
    """The network as blocks, left to right, of rows as `Study.layers` gives them."""
    name, kernel = table["layer"].astype(str), table["kernel"].astype(str)
    stage = "stage " + name.str.extract(r"^s(\d+)b\d+$")[0]
    frame = pd.DataFrame(
        {
            "layer": name,
            "stage": stage.fillna(name),
            "filters": table["filters"],
            "kernel": kernel + "×" + kernel,
            "output": table["height"].astype(str) + "×" + table["width"].astype(str),
            "adds its input": np.where(table["residual"] > 0, "yes", "no"),
        }
    )
    order = list(dict.fromkeys(frame["stage"]))
    colours = alt.Scale(domain=order, range=[*STAGES[: len(order) - 1], "#595959"])
    room = alt.Scale(domain=[0, 1.15 * float(frame["filters"].max())])
    base = alt.Chart(frame).encode(
        alt.X("layer:N", sort=None, title=None),
        alt.Y("filters:Q", title="Filters", axis=alt.Axis(tickCount=4), scale=room),
    )
    blocks = base.mark_bar(stroke="white").encode(
        alt.Color("stage:N", title=None, scale=colours, legend=_legend()),
        tooltip=[f"{column}:N" for column in frame.columns],
    )
    kernels = base.mark_text(dy=-7, fontSize=10, color=INK).encode(text="kernel:N")
    chart = alt.LayerChart(layer=[blocks, kernels])
    return framed(chart, width, 150, "Architecture", "Convolutions with their kernels; exact")


def resources(
    table: pd.DataFrame, source: str = "modelled", *, width: Width = WIDTH
) -> alt.LayerChart:
    """What a design uses of its device. Columns: resource, used, budget. `source`: measured, as by
    place and route, or modelled."""
    used, budget = (table[column].map("{:,}".format) for column in ("used", "budget"))
    frame = table.assign(
        label=table["resource"] + ": " + used + " of " + budget,
        percent=100 * table["used"] / table["budget"],
        whole=100,
    )
    base = alt.Chart(frame).encode(
        alt.Y(
            "label:N",
            sort=None,
            title=None,
            axis=alt.Axis(labelLimit=0, labelPadding=6, ticks=False),
        )
    )
    about = "Measured by place and route" if source == "measured" else source.capitalize()
    percent = alt.X("percent:Q", title="Of the device's budget (%)", axis=alt.Axis(tickCount=5))
    chart = alt.LayerChart(
        layer=[
            base.mark_bar(color="#EDEDED", height=16).encode(alt.X("whole:Q")),
            base.mark_bar(color=COMPUTE, height=16).encode(
                percent, tooltip=["label:N", alt.Tooltip("percent:Q", format=".1f")]
            ),
        ]
    )
    return framed(chart, width, 26 * len(table), "Resources", about)


def predicted_measured(
    table: pd.DataFrame, quantity: str, source: str = "measured", *, width: Width = 360
) -> alt.LayerChart:
    """What was predicted against what was found. Columns: predicted, low, high, value.

    `quantity` is a key of TITLES; `source` says what `value` is: measured or modelled.
    """
    ends = [float(table[["value", "low"]].min().min()), float(table[["value", "high"]].max().max())]
    scale = alt.Scale(domain=ends, nice=True, zero=False)
    x = alt.X("value:Q", title=f"{TITLES[quantity]}, {source}", scale=scale)
    y = alt.Y("predicted:Q", title=f"{TITLES[quantity]}, predicted", scale=scale)
    base = alt.Chart(table).encode(x)
    line = alt.Chart(pd.DataFrame({"end": ends})).mark_line(color=START, strokeDash=[4, 4])
    points = base.mark_circle(color=COMPUTE, size=40, opacity=1)
    chart = alt.LayerChart(
        layer=[
            line.encode(alt.X("end:Q"), alt.Y("end:Q")),
            base.mark_rule(color=FEATURES).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
            points.encode(y, tooltip=["predicted:Q", "low:Q", "high:Q", "value:Q"]),
        ]
    )
    inside = int(((table["low"] <= table["value"]) & (table["value"] <= table["high"])).sum())
    hold = f"{inside} of {len(table)} 90 % intervals hold the {source} value"
    return framed(chart, width, 320, f"Predicted and {source}", hold)


def training(log: pd.DataFrame, *, width: Width = WIDTH) -> alt.Chart:
    """The loss while the supernet trains. Columns: step, loss, and network if there are several."""
    chart: alt.Chart = (
        alt.Chart(log)
        .mark_line(color=COMPUTE, strokeWidth=1.5)
        .encode(
            alt.X("step:Q", title="Step"),
            alt.Y("loss:Q", title="Cross-entropy (nats)", scale=_plain_scale()),
        )
    )
    if "network" in log:
        colours = alt.Scale(range=STAGES[1:])
        chart = chart.encode(alt.Color("network:N", title="Network", sort=None, scale=colours))
    return framed(chart, width, 240, "Training loss", "Measured on the training images")


def sizes(macs: pd.Series, *, width: Width = WIDTH) -> alt.Chart:
    """How large architectures are: `macs` are the multiply-accumulates of one image of each."""
    count, edges = np.histogram(np.log2(macs / 1e6), bins=30)
    low, high = 2.0 ** edges[:-1], 2.0 ** edges[1:]
    chart: alt.Chart = (
        alt.Chart(pd.DataFrame({"low": low, "high": high, "architectures": count, "none": 0}))
        .mark_bar(color=COMPUTE, stroke="white")
        .encode(
            alt.X("low:Q", title=MILLIONS, scale=alt.Scale(type="log", nice=False)),
            alt.X2("high:Q"),
            alt.Y("architectures:Q", title="Architectures"),
            alt.Y2("none:Q"),
            tooltip=["low:Q", "high:Q", "architectures:Q"],
        )
    )
    return framed(chart, width, 240, "Sizes of the architectures", "Exact, from the loop bounds")


def accuracy_macs(
    table: pd.DataFrame, source: str = "measured", *, width: Width = WIDTH
) -> alt.Chart:
    """Accuracy against size. Columns: macs (multiply-accumulates of one image) and accuracy (%)."""
    chart: alt.Chart = (
        alt.Chart(table.assign(millions=table["macs"] / 1e6))
        .mark_circle(color=COMPUTE, size=36, opacity=0.7)
        .encode(
            alt.X("millions:Q", title=MILLIONS, scale=alt.Scale(type="log", nice=False)),
            alt.Y("accuracy:Q", title=f"{TITLES['accuracy']}, {source}", scale=_plain_scale()),
            tooltip=["millions:Q", tip("accuracy")],
        )
    )
    return framed(chart, width, 280, "Accuracy and size", f"Accuracy {source}; size exact")
