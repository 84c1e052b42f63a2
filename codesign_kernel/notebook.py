"""What the notebooks share: whose results they show, figures drawn offline, and small tools.

The folder that the environment variable CODESIGN_STUDY names, or else `my-study` beside the
notebooks, is yours: the first notebook starts it and the next ones add to it. Where it lacks what a
notebook needs, a copy of the shipped study of digits stands in, in a temporary folder: so each
notebook runs alone, and nothing shipped is ever written to.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython.display import display
from threadpoolctl import threadpool_limits

from . import charts, measure
from .accelerator import Accelerators
from .charts import alt
from .errors import InputError, choice
from .explore import SIGNS
from .files import read_arrays
from .meters import Accuracy
from .predict import Predictors
from .quantities import TITLES
from .space import Genomes, SearchSpace
from .study import MINE, STUDY, Study, open_study
from .workload import totals

if TYPE_CHECKING:  # scikit-learn takes a second to load
    from .surrogate import Surrogate

# A class shares one server: many kernels of many threads each are far slower than of one each.
threadpool_limits(1)

STAND_IN = "digits"
FILES = {  # what each phase needs, beside what the phases before it need
    "supernet": ("study.json", "supernet.safetensors"),
    "measurements": ("measurements.sqlite",),
    "predictors": ("predictors.safetensors", "fit.json"),
}
WHOSE = {
    "yours": "Your results, of this notebook or your study.",
    "shipped": "Shipped results, see data/README.md.",
}


def data() -> Path:
    """Return the folder `data` of the repository that the notebook, or else this file, lies in.

    Raises InputError if there is none, as where the package was installed without a clone.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[1]):
        if (folder / "data" / "studies").is_dir():
            return folder / "data"
    raise InputError("the folder data/studies was not found: open notebooks in the repository.")


def shipped(name: str) -> Study:
    """Open a study that comes with the program, to be read only. Raises InputError."""
    return open_study(data() / "studies" / name)


def mine() -> Path:
    """Return the folder of your own study, which may not be there yet."""
    return Path(os.environ.get(STUDY) or MINE)


def start() -> Path:
    """Return the folder to start your own study in. Where it can't be written, say what to do, and
    return a temporary one: the lesson goes on, and its study ends with the notebook's kernel."""
    folder = mine()
    try:
        _writable(folder)
    except InputError as error:
        print(f"{error} Until then, this study goes when the notebook's kernel ends.")
        return _temporary()
    return folder


def _writable(folder: Path) -> None:
    """Make the folder if need be. Raises InputError if it is shipped, or can't be written to."""
    remedy = f"set {STUDY} to a folder of your own."
    if folder.resolve().parent == (data() / "studies").resolve():
        raise InputError(f"{folder} is shipped: {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        raise InputError(f"{folder} cannot be written: {remedy}") from None


def _temporary() -> Path:
    """Return a new folder that goes when the notebook's kernel ends."""
    folder = Path(tempfile.mkdtemp(prefix="codesign-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def study(needs: str) -> tuple[Study, str]:
    """Open a study that has all that a notebook needs, say which it is, and return it with "yours"
    or "shipped".

    `needs` is the last phase that must be complete: supernet, measurements or predictors. A copy of
    the shipped study has that and no more; it goes when the notebook's kernel ends.
    Raises InputError if neither study has it.
    """
    phases = tuple(FILES)
    wanted = phases[: phases.index(choice("needs", needs, phases)) + 1]
    folder = mine()
    try:
        if not folder.exists():
            raise InputError("01_train has not made it yet.")
        _writable(folder)
        own = open_study(folder)
        _check(own, wanted)
    except InputError as error:
        source = shipped(STAND_IN)
        _check(source, wanted)
        copy = _temporary()
        for file in (file for phase in wanted for file in FILES[phase]):
            shutil.copyfile(source.root / file, copy / file)  # writable even if the source is not
        print(f"A copy of the shipped study {STAND_IN} stands in for {folder}: {error}")
        return open_study(copy), "shipped"
    print(f"This is your own study, {folder}.")
    return own, "yours"


def _check(opened: Study, phases: tuple[str, ...]) -> None:
    """Raise InputError, with the reason, if the study lacks one of the phases."""
    about = read_arrays(opened.supernet_path)[1]
    if about.get("step") != about.get("steps"):
        raise InputError(
            f"{opened.supernet_path} is trained only to step {about.get('step')} of "
            f"{about.get('steps')}; run 01_train again to finish it."
        )
    if "measurements" in phases:
        measure.rows(opened, "accuracy")
        for device in opened.devices:
            measure.rows(opened, "latency_ms", device)
    if "predictors" in phases:
        opened.predictors()


def macs(space: SearchSpace, architectures: Iterable[str]) -> np.ndarray:
    """Return the multiply-accumulates of architectures in their text form, (n,) int64."""
    return totals(space, space.genomes(architectures))[0]


def accuracies(opened: Study, meter: Accuracy, genomes: Genomes) -> np.ndarray:
    """Return accuracies in %, (n,), of genomes (n, genes), and measure those not stored yet, as
    picked ones."""
    names = [str(opened.space.decode(genome)) for genome in genomes]
    measure.measure(opened, meter, [(text, "", "") for text in names], "accuracy", picked=True)
    stored = opened.store.rows().query("method == @meter.method").set_index("architecture")
    return stored.loc[names, "accuracy"].to_numpy()


def every_pair(
    predictors: Predictors, genomes: Genomes, accelerators: Accelerators, device: str
) -> np.ndarray:
    """Return predictions of `n` architectures on each of `m` accelerators, (n m, 3).

    Columns: accuracy, latency and power, signed so that less is better (`explore.SIGNS`).
    """
    engine = np.tile(np.arange(len(accelerators)), len(genomes))
    networks = np.repeat(genomes, len(accelerators), axis=0)
    return np.asarray(predictors.means(networks, accelerators[engine], device) * SIGNS)


def show(chart: alt.Chart | alt.LayerChart, whose: str, *notes: str) -> None:
    """Show a chart as a picture, with `notes` and whose results they are below its title.

    It is drawn here and not in the browser: JupyterLab has no Vega-Lite of the version that Altair
    writes, and Altair's own way fetches one. So it also stays in the saved notebook.
    """
    lines = [*chart.title.subtitle, *notes, WHOSE[choice("whose", whose, tuple(WHOSE))]]
    drawn = chart.properties(title=alt.TitleParams(chart.title.text, subtitle=lines))
    caption = " ".join(f"{line.rstrip('.')}." for line in (chart.title.text, *lines))
    picture = {"image/svg+xml": charts.to_svg(drawn), "text/plain": caption}
    display(picture, raw=True)  # type: ignore[no-untyped-call]


def band(model: "Surrogate", table: pd.DataFrame, fitted: np.ndarray) -> alt.LayerChart:
    """A prediction of accuracy from size alone, with its interval, and the subnets measured.

    `model` was fitted to log2(macs), (n, 1), of those rows of `table` where `fitted`, boolean, is
    true. Columns: macs, accuracy. The subtitle says how many intervals hold the other rows.
    """
    size = np.log2(table[["macs"]].to_numpy())
    grid = np.linspace(size.min(), size.max(), 100)[:, None]
    low, high = model.interval(grid)
    curve = pd.DataFrame({"mean": model.predict(grid), "low": low, "high": high})
    curve["millions"] = 2 ** grid[:, 0] / 1e6
    names = np.where(fitted, "fitted", "held out")
    points = table.assign(millions=table["macs"] / 1e6, subnets=names)
    low, high = model.interval(size[~fitted])
    held = table["accuracy"][~fitted]
    inside = int(((low <= held) & (held <= high)).sum())

    x = alt.X("millions:Q", title=charts.MILLIONS, scale=alt.Scale(type="log", nice=False))
    y = alt.Y("low:Q", title=TITLES["accuracy"], scale=alt.Scale(zero=False))
    colours = alt.Scale(domain=["fitted", "held out"], range=[charts.INK, charts.WEIGHTS])
    drawn = alt.Chart(curve).encode(x)
    dots = alt.Chart(points).mark_circle(size=36, opacity=0.8)
    chart = alt.LayerChart(
        layer=[
            drawn.mark_area(color=charts.FEATURES, opacity=0.3).encode(y, alt.Y2("high:Q")),
            drawn.mark_line(color=charts.COMPUTE).encode(alt.Y("mean:Q")),
            dots.encode(x, alt.Y("accuracy:Q"), alt.Color("subnets:N", title=None, scale=colours)),
        ]
    )
    about = [
        "Predicted (line), with the 90 % interval (band); dots are measured.",
        f"{inside} of the {len(held)} held out are inside.",
    ]
    title = alt.TitleParams("A Gaussian process", subtitle=about)
    return chart.properties(title=title, width=charts.WIDTH, height=280)
