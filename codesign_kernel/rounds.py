"""The verb `improve`: its options, the rows it prints a round, and its picture."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer

from . import measure
from .campaign import Campaign, columns
from .constraints import CONFIDENCE
from .errors import integer
from .explore import SIGNS
from .files import alone, check_out
from .improvement import Improvement
from .meters import SIMULATION
from .options import (
    HERE,
    AccuracyOption,
    BramOption,
    ConfidenceOption,
    DevicesOption,
    DownloadOption,
    DspOption,
    EnergyOption,
    FolderOption,
    GenerationsOption,
    LatencyOption,
    PowerOption,
    SeedOption,
    StudyOption,
    searched,
)
from .pareto import front as undominated
from .quantities import QUANTITIES, TITLES
from .store import KEY
from .study import SETTINGS

if TYPE_CHECKING:  # Altair takes a second to start
    from .charts import alt

MOST = 5_000  # designs or networks
HEADS = (
    "round designs measured% predicted% | off:accuracy latency% power% | inside:accuracy latency "
    "power"
)
NOTE = """\
measured: hypervolume of the designs that are measured in whole. predicted: that of the front that
was explored on predictions. Both in % of a box around the first such front, which stays the same;
latency and power by their logarithms. off: median error of what was predicted of a round's designs
before they were measured, in points of accuracy, and in %; inside: how many of them the Gaussian
processes' own 90 % intervals hold; what was known before does not count. Clocks of engines that
were placed and routed are known beforehand."""


def line(row: dict[str, Any]) -> str:
    """Return a round's row as the verb prints it, under HEADS."""
    off = [math.nan if (x := row[f"{name}_off"]) is None else x for name in QUANTITIES]
    inside = [f"{row[f'{name}_inside']}/{row[f'{name}_new']}" for name in QUANTITIES]
    cells = [
        str(row["round"]), str(row["designs"]), f"{row['measured']:.2f}",
        f"{row['predicted']:.2f}", "|", *(f"{x:.3g}" if x == x else "-" for x in off), "|", *inside,
    ]  # fmt: skip
    return " ".join(f"{cell:>{len(head)}}" for cell, head in zip(cells, HEADS.split(), strict=True))


def improve(
    study: StudyOption = HERE,
    budget: Annotated[int, typer.Option(help="Designs to measure in all rounds.")] = 40,
    rounds: Annotated[int, typer.Option(help="To spend the budget in.")] = 4,
    every_engine: Annotated[
        bool,
        typer.Option("--every-engine", help="Choose networks, and measure each on every engine."),
    ] = False,
    front: Annotated[
        bool, typer.Option("--front", help="Then measure the front that is proposed, too.")
    ] = False,
    device: DevicesOption = None,
    max_latency_ms: LatencyOption = None,
    max_power_w: PowerOption = None,
    min_accuracy: AccuracyOption = None,
    max_energy_mj: EnergyOption = None,
    max_dsp: DspOption = None,
    max_bram: BramOption = None,
    confidence: ConfidenceOption = CONFIDENCE,
    generations: GenerationsOption = 60,
    seed: SeedOption = 0,
    chart: Annotated[
        Path | None, typer.Option(help="Picture of the front moving: .html, .png or .svg.")
    ] = None,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """Measure the designs by which the front is expected to grow most, and fit anew, in rounds.

    The budget counts designs that were chosen with these options: for each, the accuracy of its
    architecture and its hardware figures, if they are not known. With --every-engine it counts
    networks. With --front, what is proposed as the front is measured last, beside the budget: that
    of predictions, and of accuracies one and two standard deviations higher; with a budget of 0,
    nothing else. Killed, the same command goes on; with a larger budget it measures as many more.
    """
    bounds = max_latency_ms, max_power_w, min_accuracy, max_energy_mj, max_dsp, max_bram
    opened, names, asked = searched(study, device, bounds, confidence, generations, seed)
    integer("--budget", budget, 0 if front else 1, MOST)
    integer("--rounds", rounds, 1, MOST)
    if chart is not None:
        from . import report

        report.picture_kind(chart, "--chart")  # before hours of measuring
        check_out("--chart", chart)
    if rounds > budget > 0:
        print(f"note: --rounds is cut to {budget}, the budget.", file=sys.stderr)
    subnets = measure.subnets_of(opened, data_folder, download)
    with alone(opened.root / SETTINGS):
        work = Improvement(opened, names, asked, seed, generations, subnets, every_engine)
        print(HEADS)
        for row in work.campaign.rounds:
            print(line(row))
        before = len(work.campaign.rounds)
        for row in work.run(budget, rounds, front):
            print(line(row), flush=True)
    print(NOTE)
    if front and not work.campaign.closed:
        print("What is proposed as the front is measured already.")
    for which in work.campaign.fronts:
        print(f"Round {which} is the front that was proposed, and beside the budget.")
    if front and work.campaign.closed and len(work.campaign.rounds) == before:
        print("It was measured before: nothing is searched anew.")
    print(f"{sources(work.campaign)}. Accuracy is that of {measure.accuracy_of(opened)}.")
    if (spent := work.campaign.spent) < budget:
        what = "network" if every_engine else "design"
        print(f"No {what} is left to choose after {spent}.")
    if chart is not None:
        report.save_picture(picture(work.campaign), chart)
        print(f"Wrote {chart}.")


def picture(campaign: Campaign) -> "alt.HConcatChart":
    """The front of measured designs after each round, and how its hypervolume grew.

    Lines are the best accuracy at a latency, at any power; points are the designs of a round, where
    networks were measured on every engine its front. At least round 0 must be through.
    """
    from . import charts
    from .charts import alt

    designs = pd.DataFrame(campaign.designs, columns=columns())
    designs = designs[designs["round"] < len(campaign.rounds)]
    points = designs[["round", *KEY]].assign(
        **{name: designs[f"{name}_value"].astype(float) for name in QUANTITIES}
    )
    if campaign.asked.get("every_engine"):  # of a network on every engine most are no gain
        rounds = [part[undominated(part[[*QUANTITIES]].to_numpy() * SIGNS)]
                  for _, part in points.groupby("round")]  # fmt: skip
        points = pd.concat([points[:0], *rounds])
    start = pd.DataFrame(campaign.start, columns=[*QUANTITIES]).assign(round=0)
    slowest = max(points["latency_ms"].max(), start["latency_ms"].max())
    steps = []
    for i in range(len(campaign.rounds)):
        there = pd.concat([start, points[points["round"] <= i]])
        there = there.sort_values(["latency_ms", "accuracy"], ascending=[True, False])
        best = there[there["accuracy"] > there["accuracy"].cummax().shift(fill_value=-1.0)]
        end = pd.DataFrame({"latency_ms": [slowest], "accuracy": [best["accuracy"].max()]})
        steps.append(pd.concat([best[["latency_ms", "accuracy"]], end]).assign(round=i))
    colour = alt.Color("round:O", title="Round", scale=alt.Scale(scheme="viridis", reverse=True))
    x = alt.X("latency_ms:Q", title=TITLES["latency_ms"], scale=alt.Scale(type="log", nice=False))
    y = alt.Y("accuracy:Q", title=TITLES["accuracy"], scale=alt.Scale(zero=False))
    lines = alt.Chart(pd.concat(steps)).mark_line(interpolate="step-after", strokeWidth=1.5)
    marks = alt.Chart(points).mark_circle(size=45, opacity=0.9)
    tips = [f"{name}:N" for name in KEY] + [charts.tip(name) for name in QUANTITIES]
    moving = alt.LayerChart(layer=[lines.encode(x, y, colour),
                                   marks.encode(x, y, colour, tooltip=tips)])  # fmt: skip
    rows = pd.DataFrame(campaign.rounds).melt("designs", ["measured", "predicted"], "front", "box")
    kinds = alt.Scale(domain=["measured", "predicted"], range=[charts.COMPUTE, charts.WEIGHTS])
    grown: alt.Chart = (
        alt.Chart(rows)
        .mark_line(point=True)
        .encode(
            alt.X("designs:Q", title="Designs chosen and measured"),
            alt.Y("box:Q", title="Hypervolume (% of the box)", scale=alt.Scale(zero=False)),
            alt.Color("front:N", title="Front", scale=kinds),
        )
    )
    titles = (
        alt.TitleParams("The front moves", subtitle=[sources(campaign), "Lines: at any power"]),
        alt.TitleParams("Hypervolume", subtitle=["Measured designs,", "and the predicted front"]),
    )
    wide = (charts.WIDTH, charts.WIDTH // 2)
    parts = [
        chart.properties(title=title, width=width, height=300)
        for chart, title, width in zip((moving, grown), titles, wide, strict=True)
    ]
    both: alt.HConcatChart = alt.hconcat(*parts).resolve_scale(color="independent")
    told = f"The front of measured designs in {len(campaign.rounds) - 1} rounds."
    return both.properties(description=told)


def sources(campaign: Campaign) -> str:
    """Say where the figures of a campaign's devices come from."""
    kinds: dict[str, list[str]] = {"measured, power modelled": [], "hardware modelled": []}
    for name in campaign.asked["devices"]:
        simulated = campaign.asked["methods"][name] == SIMULATION
        kinds[[*kinds][not simulated]].append(name)
    return "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items() if names)
