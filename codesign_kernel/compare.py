"""Networks designed by hand beside those of the method: what Fan et al. (ASP-DAC 2022) compare, as
far as it can be had without training on ImageNet.

At 224 x 224 pixels hardware figures alone can be compared, by the closed form: `published`. On
Fashion-MNIST networks of both kinds were trained, and run on engines that were placed and routed:
the tables `handmade.csv` and `handmade_hardware.csv` of data/, see its README.
"""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from . import cost
from .accelerator import Accelerator, Accelerators, Device
from .charts import CAUSES, WIDTH, alt
from .cycles import Port, runs
from .errors import InputError
from .networks import load_network
from .quantities import TITLES
from .space import Genomes, SearchSpace
from .workload import Layers, layers_of, totals

WITHIN = 0.05  # of the MACs of networks that are alike in size
# Of the latency, by which what was found may be slower and still count as as fast: with the ideal
# memory in place of the default, the ratio of two networks' cycles moves by 4.5 %, root mean
# square, in data/network_cycles.csv.
AS_FAST = 0.05


class Published(NamedTuple):
    """A network of others: its top-1 accuracy in % on ImageNet, one crop, and where it stands."""

    label: str
    top1: float
    source: str


PUBLISHED = {
    "resnet101": Published("ResNet-101", 76.4, "He et al., CVPR 2016, authors' models"),
    "inceptionv2": Published("Inception-v2", 74.8, "Ioffe and Szegedy, ICML 2015, Figure 4"),
    "mobilenetv2": Published("MobileNetV2", 72.0, "Sandler et al., CVPR 2018, Table 4"),
}
KINDS = {  # of networks trained on Fashion-MNIST
    "resnet": ("ResNet-like", CAUSES["weights"]),
    "inception": ("Inception-like", "#CC79A7"),
    "mobilenet": ("MobileNet-like", CAUSES["output"]),
    "found": ("found", CAUSES["compute"]),
    "former": ("found by shared weights", CAUSES["input"]),
    "wider": ("found in a wider space", "#D55E00"),
}
BY = {  # of the column `kind` of handmade.csv, and what of KINDS such a network is
    "found": ["found"],
    "found by shared weights": ["former"],
    "found by both": ["found", "former"],
    "found in a wider space": ["wider"],
}
LAYERWISE = "layer by layer"  # how networks are run that are no chain of convolutions


def on_engine(
    layers: Layers, acc: Accelerator, device: Device, macs: int | None = None
) -> pd.DataFrame:
    """Return a row for each network, fields (n, layers) or of one (layers,): `gmac`, and modelled:
    `latency_ms`, `utilisation` in %, `energy_mj` of one image, and `energy_within`, the factor
    within which that is with 90 %. `macs`, if not those of the layers, are those that count."""
    bounds: dict[str, Any] = {
        name: np.atleast_2d(value)
        for name, value in vars(layers).items()
        if isinstance(value, np.ndarray)
    }
    layers = replace(layers, **bounds)
    n = len(layers.filters)
    useful = layers.macs.sum(axis=-1) if macs is None else np.full(n, macs)
    found = cost.figures(layers, Accelerators.of([acc] * n), device)
    limit = useful / (acc.pf * acc.pc * acc.pv)
    return pd.DataFrame(
        {
            "gmac": useful / 1e9,
            "latency_ms": found.latency_ms,
            "utilisation": 100 * limit / found.cycles,
            "energy_mj": found.energy_mj,
            "energy_within": found.power_within,
        }
    )


def blocked(layers: Layers, block: int) -> Layers:
    """Return the layers with depthwise ones run `block` channels at a time, as convolutions whose
    weights are zero beside the diagonal: the best that an engine without depthwise ones can do."""
    repeat = np.asarray(layers.repeat)
    depthwise = (repeat > 1) & (layers.filters == 1) & (layers.channels == 1)
    side = np.minimum(block, repeat)
    return replace(
        layers,
        filters=np.where(depthwise, side, layers.filters),
        channels=np.where(depthwise, side, layers.channels),
        repeat=np.where(depthwise, -(-repeat // side), repeat),
    )


def alike(space: SearchSpace, macs: int, draws: int = 20_000, seed: int = 0) -> Genomes:
    """Return those of `draws` random genomes whose MACs are WITHIN those given, (n, genes)."""
    genomes = space.sample(draws, np.random.default_rng(seed))
    return genomes[np.abs(totals(space, genomes)[0] / macs - 1) <= WITHIN]


def published(space: SearchSpace, acc: Accelerator, device: Device) -> pd.DataFrame:
    """Return the networks of PUBLISHED on an engine, as `on_engine` does, one that has depthwise
    layers also `blocked`; and behind each those of the space that take as many MACs and that the
    engine can run: how many were drawn, and the median of each figure; or its smallest network, if
    none is as small.

    Their accuracy is not known: nothing here was trained on ImageNet. Raises InputError if the
    device cannot hold the engine, or that cannot run one of the networks.
    """
    rows = []
    for name, network in PUBLISHED.items():
        layers = load_network(name).layers
        cost.check(acc, device, layers, network.label)
        macs = int(layers.macs.sum())
        one = on_engine(layers, acc, device)
        rows.append({"network": network.label, "top1": network.top1, **one.iloc[0]})
        if np.any(np.asarray(layers.repeat) > 1):
            one = on_engine(blocked(layers, min(acc.pf, acc.pc)), acc, device, macs)
            label = f"{network.label}, depthwise in blocks"
            rows.append({"network": label, "top1": network.top1, **one.iloc[0]})
        genomes = alike(space, macs)
        genomes = genomes[runs(layers_of(space, genomes), acc, Port.of(device)).all(axis=1)]
        label = f"{space.name}, {len(genomes)} of its size"
        if not len(genomes):
            genomes, label = space.extremes()[0][None], f"{space.name}, the smallest"
            cost.check(acc, device, layers_of(space, genomes), f"the smallest of {space.name}")
        middle = on_engine(layers_of(space, genomes), acc, device).median()
        rows.append({"network": label, "top1": np.nan, **middle})
    return pd.DataFrame(rows)


def read(path: Path) -> pd.DataFrame:
    """Read a table of data/. Raises InputError if it is not there or damaged."""
    try:
        table: pd.DataFrame = pd.read_csv(path)
        return table
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read, but must be a table of data/.") from None


def convergence(trained: pd.DataFrame) -> pd.DataFrame:
    """Return what twice the epochs bring each network, in points of validation accuracy, of rows of
    `handmade.csv`: the columns `network`, `size`, `epochs`, `validation` and `gain`."""
    base = trained["epochs"].min()
    once, twice = (
        trained[(trained["seed"] == 0) & (trained["epochs"] == epochs)]
        for epochs in (base, 2 * base)
    )
    key = ["network", "size"]
    both = once.merge(twice, on=key, suffixes=("", "_twice"))
    columns = [*key, "epochs", "validation"]
    gain = both["validation_twice"] - both["validation"]
    found: pd.DataFrame = both[columns].assign(gain=gain)
    return found


def designs(
    trained: pd.DataFrame, hardware: pd.DataFrame, accelerator: str, device: str
) -> pd.DataFrame:
    """Return each network of `handmade.csv` on one engine of `handmade_hardware.csv`: its `kind` of
    KINDS (a row for each, if it is of two), test `accuracy` in %, the mean over seeds, with
    `lowest` and `highest`, that on `validation` images, and its figures.

    All are run layer by layer, also what the engine runs as one program, so that none is favoured;
    depthwise layers in whichever way takes less. Raises InputError if the table lacks the engine.
    """
    base = trained[trained["epochs"] == trained["epochs"].min()]
    groups = base.groupby(["network", "size"], sort=False)
    accuracy = groups["test"].agg(accuracy="mean", lowest="min", highest="max")
    accuracy["validation"], accuracy["by"] = groups["validation"].mean(), groups["kind"].first()
    on = (hardware["accelerator"] == accelerator) & (hardware["device"] == device)
    if not on.any():
        there = ", ".join((hardware["accelerator"] + " on " + hardware["device"]).unique())
        raise InputError(f"engine is {accelerator} on {device}, but the table has only: {there}.")
    rows = hardware[on & hardware["way"].str.startswith(LAYERWISE)]
    rows = rows.sort_values("latency_ms").drop_duplicates(["network", "size"])
    found = rows.merge(accuracy.reset_index(), on=["network", "size"])
    pairs = zip(found["by"], found["network"], strict=True)
    found["kind"] = [BY.get(by, [network]) for by, network in pairs]
    return found.explode("kind").sort_values(["kind", "latency_ms"], ignore_index=True)


def ratios(compared: pd.DataFrame, longer: float = AS_FAST, kind: str = "found") -> pd.DataFrame:
    """Return what the method gains over each network designed by hand, of rows of `designs`, by
    networks found of one `kind`.

    `points`: of accuracy, by the most accurate network found that takes at most this fraction
    `longer`, and `spread`: how far the seeds of a network lie apart, of the two the wider; `speed`
    and `energy`: times as fast and as frugal, by the fastest found that is no less accurate.
    Missing where there is none such. Which network found that is, validation images say; points
    are of test images.
    """
    found = compared[compared["kind"] == kind]
    rows = []
    by_hand = ~compared["kind"].isin([each for kinds in BY.values() for each in kinds])
    for hand in compared[by_hand].to_dict("records"):
        as_fast = found["latency_ms"] <= (1 + longer) * hand["latency_ms"]
        quick = found[as_fast].nlargest(1, "validation")
        good = found[found["validation"] >= hand["validation"]].nsmallest(1, "latency_ms")
        rows.append(
            {
                "network": KINDS[hand["kind"]][0],
                **{name: hand[name] for name in ("size", "accuracy", "latency_ms", "energy_mj")},
                "points": quick["accuracy"].max() - hand["accuracy"],
                "spread": np.fmax(
                    hand["highest"] - hand["lowest"], (quick["highest"] - quick["lowest"]).max()
                ),
                "speed": hand["latency_ms"] / good["latency_ms"].min(),
                "energy": hand["energy_mj"] / good["energy_mj"].min(),
            }
        )
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> str:
    """Say of rows of `ratios` which networks by hand are beaten by what was found, which beat it,
    and of which that can't be told, as the seeds differ by more."""
    names = table["network"] + " " + table["size"]
    ahead, behind = table["points"] > table["spread"], table["points"] < -table["spread"]
    groups = {
        "Less accurate than what was found": ahead,
        "More accurate": behind,
        "No difference, or none found is as fast": ~(ahead | behind),
    }
    return "\n".join(
        textwrap.fill(f"{name}, {mask.sum()} of {len(table)}: {', '.join(names[mask]) or 'none'}.",
                      width=96, subsequent_indent="  ", break_on_hyphens=False)
        for name, mask in groups.items()
    )  # fmt: skip


def dashed(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Return a table as text, with a dash where there is no number: those of a column with as many
    digits each as one of them needs, up to one or more `digits`."""

    def texts(cells: pd.Series) -> pd.Series:
        found = [x for x in cells if not isinstance(x, str) and not np.isnan(x)]
        ends = [f"{x:.{digits}f}".rstrip("0").partition(".")[2] for x in found]
        places = max(map(len, ends), default=0)
        return cells.map(
            lambda x: x if isinstance(x, str) else "–" if np.isnan(x) else f"{x:.{places}f}"
        )

    return table.apply(texts)


def chart(compared: pd.DataFrame, where: str) -> alt.LayerChart:
    """Accuracy against latency of rows of `designs`, a line for each kind, with the lowest and the
    highest accuracy of its seeds; `where` names the engine."""
    names = compared["kind"].map({kind: name for kind, (name, _) in KINDS.items()})
    order, colours = zip(*KINDS.values(), strict=True)
    shown, shapes = alt.Scale(domain=order, range=colours), alt.Scale(domain=order)
    base = alt.Chart(compared.assign(by=names)).encode(
        alt.X("latency_ms:Q", title=TITLES["latency_ms"], scale=alt.Scale(type="log", nice=False)),
        color=alt.Color("by:N", title=None, scale=shown),
    )
    y = alt.Y("accuracy:Q", title=TITLES["accuracy"], scale=alt.Scale(zero=False))
    layers = [
        base.mark_line(strokeWidth=1, opacity=0.6).encode(y),
        base.mark_rule().encode(alt.Y("lowest:Q"), alt.Y2("highest:Q")),
        base.mark_point(filled=True, size=50).encode(
            y, alt.Shape("by:N", title=None, scale=shapes)
        ),
    ]
    about = ["Accuracy measured on test images: mean, lowest and highest of the seeds.",
             "Latency: cycles measured in simulation, clock after place and route."]  # fmt: skip
    title = alt.TitleParams(f"By hand and found, {where}", subtitle=about)
    return alt.LayerChart(layer=layers).properties(title=title, width=WIDTH, height=320)
