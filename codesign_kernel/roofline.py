"""The roofline picture: each layer of a network under the two ceilings of its engine."""

import pandas as pd

from .charts import CAUSES, INK, WIDTH, Width, alt, framed


def roofline(
    table: pd.DataFrame, peak: float, port: float, where: str, *, width: Width = WIDTH
) -> alt.LayerChart:
    """Each layer under the two ceilings of its engine (Williams et al., CACM 2009, Figure 1), of
    rows as `network_cost.layer_costs` gives them. `peak` is of the multipliers in GMAC/s, `port`
    of the memory port in GB/s; `where` names network, accelerator and device."""
    ridge = peak / port
    low = min(float(table["macs_per_byte"].min()) / 1.5, ridge / 8)
    high = max(float(table["macs_per_byte"].max()) * 1.5, ridge * 4)
    slow = min(float(table["gmac_s"].min()) / 1.5, port * low)
    spans = [alt.Scale(type="log", nice=False, domain=ends) for ends in
             ([low, high], [slow, 3 * peak])]  # fmt: skip
    x = alt.X("macs_per_byte:Q", title="Operational intensity (MAC/byte)", scale=spans[0])
    y = alt.Y("gmac_s:Q", title="Performance (GMAC/s)", scale=spans[1])
    middle = (low * ridge) ** 0.5
    named = {"": port * low, f"memory port: {port:.3g} GB/s": port * middle, " ": peak,
             f"multipliers: {peak:.3g} GMAC/s": peak}  # fmt: skip
    roof = alt.Chart(pd.DataFrame({"macs_per_byte": [low, middle, ridge, high],
                                   "gmac_s": named.values(), "label": named.keys()}))  # fmt: skip
    roof = roof.encode(x, y)
    looks = ("circle", "diamond", "square", "triangle-down", "cross")
    kinds = {kind: (CAUSES[kind], look) for kind, look in zip(CAUSES, looks, strict=True)}
    kinds["compute, lanes idle"] = ("#CC79A7", "triangle-up")
    kinds = {kind: look for kind, look in kinds.items() if kind in set(table["bottleneck"])}
    colours, shapes = (alt.Scale(domain=[*kinds], range=[look[i] for look in kinds.values()])
                       for i in (0, 1))  # fmt: skip
    numbers = {"macs_per_byte": "MAC/byte", "gmac_s": "GMAC/s", "utilisation": "utilisation (%)",
               "time_ms": "time (ms)"}  # fmt: skip
    tips = (alt.Tooltip(f"{key}:Q", title=unit, format=",.4~g") for key, unit in numbers.items())
    points = alt.Chart(table).mark_point(filled=True, size=50, opacity=0.8)
    points = points.encode(
        x,
        y,
        alt.Color("bottleneck:N", title="Bottleneck", scale=colours),
        alt.Shape("bottleneck:N", title="Bottleneck", scale=shapes),
        tooltip=["layer:N", *tips],
    )
    names = roof.mark_text(align="right", dx=-8, dy=-9, color=INK).encode(text="label:N")
    chart = alt.LayerChart(layer=[roof.mark_line(color=INK, strokeWidth=1.5), names, points])
    drawn = framed(chart, width, 320, "Roofline", where, "Modelled; each layer is a point")
    return drawn.properties(description=f"Roofline of {where}, modelled: {len(table)} layers.")
