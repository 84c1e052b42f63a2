"""What is on a chart once it is drawn."""

from xml.etree import ElementTree

from codesign_kernel.charts import alt, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def texts(chart: alt.TopLevelMixin) -> list[str]:
    """Draw a chart and return all that is written on it."""
    root = ElementTree.fromstring(to_svg(chart))
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def marks(chart: alt.TopLevelMixin, kind: str) -> int:
    """Draw a chart and return how many marks of a kind are on it, legends not counted."""
    root = ElementTree.fromstring(to_svg(chart))
    start = f"mark-{kind} role-mark"  # not those of axes and legends
    groups = [group for group in root.iter(f"{SVG}g") if group.get("class", "").startswith(start)]
    return sum(len(group.findall(f"{SVG}{tag}")) for group in groups for tag in ("path", "line"))
