"""The page: limits with sliders, the Pareto picture that follows them, and the design one clicks.

`show` is all that notebooks/dashboard.ipynb calls. Only what is stored is read: no network and no
Gaussian process is loaded, so that thirty of these pages fit on one server.
"""

import asyncio
import os
import sys
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np

from . import card, charts, engines, live, measure
from .constraints import CONFIDENCE, Constraints
from .design import Design
from .errors import InputError
from .explore import tabulate
from .live import Cloud
from .quantities import TOLD
from .study import MINE, STUDY, Study, open_study
from .widgets import Bound, Picture, Said, source

EXPORTS = "CODESIGN_EXPORTS"  # environment variable: the folder of exported designs
SHIPPED = Path(__file__).parent.parent / "data" / "studies" / "fashion"
PAUSE = 0.25  # s without a move of a slider before the suggested design follows
HEADING = "Network and accelerator, designed together"
KEY = (
    "Large points: the Pareto front. Ring: the design below, with its 90 % intervals. "
    "Dashed lines: limits. Click a point to see its design."
)
LIMITS = (
    f"A limit is on what a design keeps to with a probability of {100 * CONFIDENCE:g} %, each by "
    "itself. That is worse than what is predicted of it; both are told below."
)


def show() -> ipywidgets.Widget:
    """Return the page of the study that CODESIGN_STUDY names. If it names none, that is the study
    that the notebooks made, once it was explored, and else the shipped one.

    Where that study cannot be read, the page is the sentence that says so.
    """
    mine = Path(MINE)
    folder = mine if (mine / "designs.safetensors").exists() else SHIPPED
    try:
        return Dashboard(open_study(Path(os.environ.get(STUDY) or folder))).page
    except InputError as error:
        return _box("page", _html(f"{_title()}<p role='alert'>{escape(str(error))}</p>"))


def _title() -> str:
    return f"<style>{source('page.css')}</style><h1>{HEADING}</h1>"


def _html(text: str = "") -> ipywidgets.HTML:
    return ipywidgets.HTML(text).add_class("codesign-html")


def _box(kind: str, *children: ipywidgets.Widget) -> ipywidgets.Box:
    return ipywidgets.Box(children).add_class(f"codesign-{kind}")


def _bound(quantity: str, sense: str, log: bool = False) -> Bound:
    told = TOLD[quantity]
    return Bound(label=told.label, sense=sense, unit=told.unit, digits=told.digits, log=log)


class Dashboard:
    """The widgets of one page, `page`, and what they do. Raises InputError if the study was not
    explored yet."""

    def __init__(self, study: Study) -> None:
        self.study = study
        stored, self.considered = study.designs()
        self.clouds = {
            name: Cloud(designs, study.device(name)) for name, designs in stored.items() if designs
        }
        if not self.clouds:
            raise InputError(f"{study.root} holds no designs: run `codesign explore --sample`.")
        self.sources, self.accuracy_of = study.sources(), measure.accuracy_of(study)
        self.device = ipywidgets.Dropdown(
            options=[(cloud.device.label, name) for name, cloud in self.clouds.items()],
            # One that was measured, if there is one, and not only modelled.
            value=max(
                self.clouds, key=lambda name: self.sources.get(("latency_ms", name)) == "measured"
            ),
            description="Device",
        )
        self.bounds = {
            "latency_ms": _bound("latency_ms", "at most", log=True),
            "power_w": _bound("power_w", "at most"),
            "accuracy": _bound("accuracy", "at least"),
            "energy_mj": _bound("energy_mj", "at most", log=True),
            "dsp": Bound(label="DSP", sense="at most", unit="blocks"),
            "bram": Bound(label="Block RAM", sense="at most", unit="blocks"),
        }
        self.clear = ipywidgets.Button(description="Clear the limits")
        self.suggest = ipywidgets.Button(description="Suggest a design")
        self.faster = ipywidgets.Button(description="Next faster on the front")
        self.slower = ipywidgets.Button(description="Next slower on the front")
        self.export = ipywidgets.Button(description="Export this design", button_style="primary")
        self.counts, (self.about, self.note, self.outcome) = Said(), (_html() for _ in range(3))
        self.holder = _box("holder")
        self.pictures: list[Picture] = []
        self.following = True  # the design shown is the one suggested, until another is clicked
        self.held = False  # whether the limits are about to change once more
        self.timer: asyncio.TimerHandle | None = None
        self.exporting: asyncio.Task[None] | None = None
        self._open(self.device.value)
        self.pictures = [Picture(chart) for chart in self._charts()]
        self.device.observe(lambda change: self._open(change.new), "value")
        for bound in self.bounds.values():
            bound.observe(lambda _: self._update(), "value")
        self.clear.on_click(lambda _: self._clear())
        self.suggest.on_click(lambda _: self._follow())
        self.faster.on_click(lambda _: self._step(-1))
        self.slower.on_click(lambda _: self._step(1))
        self.export.on_click(lambda _: self._export())
        self.page = self._layout()

    def _layout(self) -> ipywidgets.Box:
        space = self.study.space
        title = (
            f"{_title()}<p>Study {escape(self.study.root.resolve().name)}: {space.size:,} "
            f"architectures for {escape(self.study.dataset)}, on accelerators of "
            f"{len(self.clouds)} device{'s' * (len(self.clouds) > 1)}.</p>"
        )
        about = f"<p>{LIMITS} Accuracy is that of {escape(self.accuracy_of)}.</p>"
        limits = _box("controls", self.device, *self.bounds.values(), self.clear, self.counts,
                      _html(about))  # fmt: skip
        buttons = _box("buttons", self.export, self.suggest, self.faster, self.slower)
        return _box(
            "page",
            _html(title),
            _box("columns", limits, _box("wide", self.holder, _html(f"<p>{KEY}</p>"))),
            _box(
                "columns",
                _box("half", self.note, self.about, buttons, self.outcome, self.pictures[0]),
                _box("half", *self.pictures[1:]),
            ),
        )

    @property
    def cloud(self) -> Cloud:
        """The stored designs of the device that is shown."""
        return self.clouds[self.device.value]

    @property
    def constraints(self) -> Constraints:
        """What the limits ask for."""
        latency, power, accuracy, energy, dsp, bram = (b.asked for b in self.bounds.values())
        return Constraints(latency, power, accuracy, energy, dsp, bram)

    @property
    def design(self) -> Design:
        """The design that is shown."""
        return Design.parse(f"{self.row.architecture}@{self.row.accelerator}@{self.row.device}")

    @property
    def engine(self) -> engines.Known:
        """What is known of its engine."""
        return engines.known(self.design.accelerator, self.cloud.device, self.built)

    def _open(self, name: str) -> None:
        """Show a device: its designs, the ranges of its limits, and the design suggested."""
        cloud = self.clouds[name]
        power = self.sources.get(("power_w", name), "stored")
        self.built = engines.measured(self.study, name)
        self.picture = Picture(live.chart(cloud, power))
        self.picture.on_msg(lambda _, point, __: self._click(int(point["n"])))
        old, self.holder.children = self.holder.children, (self.picture,)
        for widget in old:
            widget.close()
        self.held, self.following = True, True
        ranges = cloud.values.agg(["min", "max"])
        dropped = [bound.label for column, bound in self.bounds.items()
                   if not bound.span(*ranges[column])]  # fmt: skip
        self.held = False
        self._filter(
            f"Outside this device's range, and cleared: limit on {', '.join(dropped)}."
            if dropped
            else ""
        )
        self._choose(self.best)

    def _clear(self) -> None:
        self.held = True
        for bound in self.bounds.values():
            bound.value = bound.loosest
        self.held = False
        self._update()

    def _update(self) -> None:
        """Follow the limits: the picture and the counts at once, the suggested design at rest."""
        if self.held:
            return
        self._filter()
        self._say_why()
        self._wait()
        if self.following and self.best != self.index:
            self.timer = asyncio.get_running_loop().call_later(PAUSE, self._choose, self.best)

    def _wait(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _filter(self, told: str = "") -> None:
        cloud, constraints = self.cloud, self.constraints
        self.broken = cloud.broken(constraints).sum(axis=1)
        allowed = self.broken == 0
        front = cloud.front(allowed)
        order = np.argsort(cloud.designs.means[front, 1], kind="stable")
        self.front = front[order]  # the fastest first
        self.best, why = (cloud.knee(front), "") if len(front) else cloud.nearest(constraints)
        self.picture.set(**live.params(constraints), front=cloud.flags(front))
        kept, stored = int(allowed.sum()), len(allowed)
        keep = "keeps" if kept == 1 else "keep"
        self.counts.value = (
            f"<p><b>{kept:,}</b> of {stored:,} stored designs {keep} to the limits; "
            f"<b>{len(front):,}</b> on the front. The search considered "
            f"{self.considered[cloud.designs.device]:,}.</p>"
            + "".join(f"<p>{escape(text)}</p>" for text in (why, told) if text)
        )
        self.faster.disabled = self.slower.disabled = len(front) == 0

    def _click(self, point: int) -> None:
        self.following = False
        self._choose(int(self.cloud.points[point]))

    def _step(self, by: int) -> None:
        """Show the next design of the front, by latency."""
        means = self.cloud.designs.means[:, 1]
        now = np.flatnonzero(self.front == self.index)
        if len(now):
            place = int(now[0]) + by
        else:
            place = int(np.searchsorted(means[self.front], means[self.index])) + min(by, 0)
        self.following = False
        self._choose(int(self.front[np.clip(place, 0, len(self.front) - 1)]))

    def _follow(self) -> None:
        self.following = True
        self._choose(self.best)

    def _choose(self, index: int) -> None:
        """Show a design of the device."""
        self._wait()
        self.index = index
        some = self.cloud.designs[np.array([index])]
        self.row = tabulate(self.study.space, self.cloud.device, some).iloc[0]
        self.picture.set(chosen=live.mark(self.row))
        worst = self.cloud.values.iloc[index]
        self.about.value = card.describe(
            self.row, worst, self.design, self.cloud.device, self.sources, self.engine,
            self.accuracy_of,
        )  # fmt: skip
        self._say_why()
        if self.exporting is None:
            self.outcome.value = ""
        if self.pictures:
            for picture, chart in zip(self.pictures, self._charts(), strict=True):
                picture.chart = chart

    def _say_why(self) -> None:
        why = "Suggested: the knee of the front." if self.following else "The design you chose."
        if self.broken[self.index] > 0:
            why = "This design does not keep to the limits."
            why += " It is the nearest." if self.following else ""
        self.note.value = f"<h2>Design {self.row['id']}</h2><p>{why}</p>"

    def _charts(self) -> list[charts.alt.Chart | charts.alt.LayerChart]:
        table = self.study.layers(self.design)
        return [
            charts.resources(*card.resources(self.engine, self.cloud.device), width="container"),
            charts.architecture(table, width="container"),
            charts.layers(table, width="container"),
        ]

    def _export(self) -> None:
        self.export.disabled = True
        self.exporting = asyncio.get_running_loop().create_task(self._run_export(self.design))

    async def _run_export(self, design: Design) -> None:
        """Run the command line's export in a process of its own, and show how it ends."""
        folder = Path(os.environ.get(EXPORTS, "exports"), design.id)
        self.outcome.value = f"<p role='status'>Exporting {design.id} …</p>"
        command = ["export", str(design), "--study", str(self.study.root), "--out", str(folder)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "codesign_kernel.cli", *command,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, complaint = await process.communicate()
        text = (complaint if process.returncode else printed).decode(errors="replace").strip()
        last = text.splitlines()[-1].strip() if text else f"Status {process.returncode}."
        role = "alert" if process.returncode else "status"
        self.outcome.value = f"<p role='{role}'>{escape(last.removeprefix('codesign: '))}</p>"
        self.export.disabled, self.exporting = False, None
