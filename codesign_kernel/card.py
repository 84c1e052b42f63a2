"""What the page says of one design: its figures, each with its unit and source, and its engine."""

from collections.abc import Mapping
from html import escape

import pandas as pd

from .accelerator import Device
from .constraints import CONFIDENCE
from .design import Design
from .engines import Known
from .quantities import TOLD
from .space import Architecture

_NAMES = {"dsp": "DSP", "bram": "Block RAM", "lut": "LUT"}


def describe(
    row: pd.Series, worst: pd.Series, design: Design, device: Device,
    sources: Mapping[tuple[str, str], str], engine: Known, accuracy_of: str,
) -> str:  # fmt: skip
    """Return HTML: a table of predicted figures, and what the design is made of.

    `row` is one of `explore.tabulate`, `worst` one of `live.Cloud.values`, `sources` as of
    `Study.sources`, `engine` as of `engines.known`, `accuracy_of` as of `measure.accuracy_of`.
    """
    figures = "".join(
        f"<tr><th scope='row'>{told.label}</th>"
        f"<td>{told.text(row[key])} {told.unit}</td>"
        f"<td>{told.text(row[key + '_low'])} to {told.text(row[key + '_high'])} {told.unit}</td>"
        f"<td>{escape(_rests_on(sources, key, device.name))}"
        f"{escape(f'; of {accuracy_of}') if key == 'accuracy' else ''}</td></tr>"
        for key, told in TOLD.items()
    )
    head = "".join(
        f"<th scope='col'>{text}</th>"
        for text in ("Of one image", "Value", "90 % interval", "Source")
    )
    limits = (
        f"{TOLD[key].label.lower()} of at {'least' if key == 'accuracy' else 'most'} "
        f"{TOLD[key].text(worst[key])} {TOLD[key].unit}"
        for key in TOLD
    )
    kept = f"{'; '.join(limits)}: each with a probability of {100 * CONFIDENCE:g} %"
    acc, (known, source) = design.accelerator, engine
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{figures}</tbody></table>"
        f"<dl><dt>Keeps to</dt><dd>{kept}</dd>"
        f"<dt>Architecture</dt><dd>{_stages(design.architecture)}</dd>"
        f"<dt>Accelerator</dt><dd>{_count(acc.pf, 'filter')} × {_count(acc.pc, 'channel')} × "
        f"{_count(acc.pv, 'pixel')} a cycle; weight buffer {acc.weight_kib} KiB, feature buffer "
        f"{acc.feature_kib} KiB; {known['clock_mhz']:.0f} MHz, {source}</dd>"
        f"<dt>Device</dt><dd>{escape(device.label)}</dd>"
        f"<dt>As text</dt><dd><code>{escape(str(design))}</code></dd></dl>"
    )


def resources(engine: Known, device: Device) -> tuple[pd.DataFrame, str]:
    """Return what an engine takes of its device, as `charts.resources` draws it, and the source."""
    known, source = engine
    rows = [(label, int(known[key]), getattr(device, key)) for key, label in _NAMES.items()]
    return pd.DataFrame(rows, columns=["resource", "used", "budget"]), source


def _rests_on(sources: Mapping[tuple[str, str], str], quantity: str, device: str) -> str:
    if quantity == "energy_mj":
        return "predicted: latency × power"
    what, of = ("subnets", "") if quantity == "accuracy" else ("designs", device)
    source = sources.get((quantity, of), "stored")
    text = f"predicted from {source} {what}"
    unsure = quantity == "power_w" and source != "measured"
    return f"{text}; no board was measured" if unsure else text


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _stages(architecture: Architecture) -> str:
    stages = zip(architecture.widths, architecture.kernels, strict=True)
    return "; ".join(
        f"stage {i}: {width} filters, kernels {', '.join(map(str, kernels))}"
        for i, (width, kernels) in enumerate(stages, start=1)
    )
