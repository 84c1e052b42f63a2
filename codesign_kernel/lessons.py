"""What the lessons try out: what a clock depends on, when a prior mean helps, which intervals hold,
where a process fails, and why two steps miss a front. Small experiments on measured rows, and their
figures.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.linalg import cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.preprocessing import StandardScaler

from . import charts, pareto, routed
from .accelerator import Accelerators, Device
from .baselines import errors, zero_mean_process
from .charts import alt
from .constraints import Constraints
from .errors import integer
from .explore import SIGNS
from .improve import Box
from .quantities import TITLES, UNITS
from .surrogate import Surrogate
from .truth import Truth

NINETY = 1.645  # standard deviations on either side of a 90 % interval of a normal distribution
MARKS = ("fitted", "held out")
PRIORS = ("without a formula", "with the closed form")
STEPS = ("kept by the first step", "dropped by it")
RESOURCES = ("dsp", "bram", "lut", "clock_mhz")


def placed(devices: Sequence[Device]) -> pd.DataFrame:
    """Return the engines that were placed and routed on devices: `engine`, `device`, `multipliers`,
    `full` (LUTs in % of the device's), and of RESOURCES what was measured and `_modelled`."""
    rows = []
    for device in devices:
        for engine in routed.engines(device):
            found, modelled = routed.figures(engine, device), routed.modelled(engine, device)
            rows.append(
                {"engine": str(engine), "device": device.name}
                | {"multipliers": engine.pf * engine.pc * engine.pv}
                | {"full": 100 * found["lut"] / device.lut}
                | {name: found[name] for name in RESOURCES}
                | {f"{name}_modelled": modelled[name] for name in RESOURCES}
            )
    return pd.DataFrame(rows)


def clocks(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many engines of `placed` there are, and the lowest, median and highest clock in
    MHz, by multipliers and by how full the device is, in quarters of the engines."""
    quarters = pd.qcut(table["full"], 4).map(lambda ends: f"{ends.left:.1f} to {ends.right:.1f}")
    by = {"multipliers": table["multipliers"], "LUTs used (%)": quarters}
    parts = {
        name: table.groupby(key, observed=True)["clock_mhz"].agg(["count", "min", "median", "max"])
        for name, key in by.items()
    }
    return pd.concat(parts, names=["by", ""])


def off(found: pd.Series, modelled: pd.Series) -> str:
    """Say how far a closed form is off what was found, in the median and at most."""
    error = 100 * (modelled / found - 1).abs()
    return f"{error.median():.1f} % in the median, {error.max():.1f} % at most"


def held_out(rows: int, sizes: Sequence[int], draws: int) -> list[tuple[int, int, np.ndarray]]:
    """Return (n, draw, order): fit to the first `n` of the order, (rows,), and test on the rest.

    Raises InputError unless each n is from 2 to rows - 2.
    """
    for n in sizes:
        integer("n", n, 2, rows - 2)
    orders = [np.random.default_rng([draw, 21]).permutation(rows) for draw in range(draws)]
    return [(n, draw, order) for n in sizes for draw, order in enumerate(orders)]


def quality(y: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    """Return the mean error of predictions in % and in the unit of y (n,), the % of intervals that
    hold, and their mean width."""
    found = errors(y, mean)
    inside = (low <= y) & (y <= high)
    held = 100 * float(inside.mean())
    return {"error": found["MAPE"], "MAE": found["MAE"], "coverage": held,
            "width": float(np.mean(high - low))}  # fmt: skip


def prior_means(
    X: np.ndarray, y: np.ndarray, sizes: Sequence[int] = (20, 50, 100), draws: int = 5
) -> pd.DataFrame:
    """Fit the same process with and without its analytic estimate, column 0 of X (n, d).

    One row for each size, draw and `mean`: see `quality`. Positive y (n,), by logarithm.
    """
    rows = []
    for n, draw, order in held_out(len(y), sizes, draws):
        train, test = order[:n], order[n:]
        for name, inputs, prior in (("formula", X, 0), ("constant", X[:, 1:], None)):
            model = Surrogate(prior, log=True).fit(inputs[train], y[train])
            found = quality(y[test], *model.estimate(inputs[test], 0.9))
            rows.append({"n": n, "draw": draw, "mean": name} | found)
    return pd.DataFrame(rows)


def misses(
    quantity: str, source: str, y: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> alt.LayerChart:
    """Draw how far predictions of y (n,) are off, in %, with their 90 % intervals: these are too
    narrow to be seen beside the figures themselves. `quantity` is a key of `TOLD`;
    `source` says what y is: measured or modelled."""
    bounds = {"predicted": mean, "low": low, "high": high}
    table = pd.DataFrame({"y": y} | {name: 100 * (value / y - 1) for name, value in bounds.items()})
    title = f"{TITLES[quantity]}, {source}"
    base = alt.Chart(table).encode(alt.X("y:Q", title=title, scale=alt.Scale(zero=False)))
    zero = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(color=charts.START, strokeDash=[4, 4])
    chart = alt.LayerChart(layer=[
        zero.encode(alt.Y("at:Q", title=f"Predicted less {source} (%)")),
        base.mark_rule(color=charts.FEATURES).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
        base.mark_circle(color=charts.COMPUTE, size=30, opacity=1).encode(alt.Y("predicted:Q")),
    ])  # fmt: skip
    inside = int(((low <= y) & (y <= high)).sum())
    unit = UNITS[quantity]
    about = (f"{inside} of {len(y)} 90 % intervals hold the {source} value",
             f"Their mean width is {np.mean(high - low):.4f} {unit}")  # fmt: skip
    return charts.framed(chart, charts.WIDTH, 280, f"Predicted and {source}", *about)


def left_out(model: GaussianProcessRegressor) -> float:
    """Return the factor by which the standard deviations of a fitted process must grow for 90 % of
    its leave-one-out errors to lie within (Rasmussen and Williams 2006, equations 5.10-5.12; the
    rank is that of conformal prediction)."""
    inverse = cho_solve((model.L_, True), np.eye(len(model.alpha_)))
    errors = np.sort(np.abs(model.alpha_.ravel()) / np.sqrt(inverse.diagonal()))
    return float(errors[min(len(errors), int(np.ceil(0.9 * (len(errors) + 1)))) - 1])


def intervals(
    X: np.ndarray, y: np.ndarray, sizes: Sequence[int] = (20, 50, 100), draws: int = 3
) -> pd.DataFrame:
    """Compare 90 % intervals of two processes, as they are and corrected by leave-one-out errors:
    one fitted by maximum likelihood, and one with priors on its hyperparameters.

    One row for each size, draw, `fit` and `corrected`: see `quality`. X (n, d), y (n,).
    """
    rows = []
    for n, draw, order in held_out(len(y), sizes, draws):
        train, test = order[:n], order[n:]
        inputs = StandardScaler().fit(X[train])
        model = Surrogate().fit(X[train], y[train])
        plain = zero_mean_process(X.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of what it is to show
            plain.fit(inputs.transform(X[train]), y[train])
        sides = {}
        mean, std = plain.predict(inputs.transform(X[test]), return_std=True)
        for corrected, half in (("no", NINETY * std), ("yes", left_out(plain) * std)):
            sides["maximum likelihood", corrected] = mean, mean - half, mean + half
        mean, std = model.predict(X[test], return_std=True)
        sides["with priors", "no"] = mean, mean - NINETY * std, mean + NINETY * std
        sides["with priors", "yes"] = model.estimate(X[test], 0.9)
        rows += [{"n": n, "draw": draw, "fit": fit, "corrected": corrected} | quality(y[test], *one)
                 for (fit, corrected), one in sides.items()]  # fmt: skip
    return pd.DataFrame(rows)


def cliff(table: pd.DataFrame, last: int = 104, every: int = 8) -> pd.DataFrame:
    """Predict the cycles of a layer from its channels, of rows of data/cliff.csv, with and without
    the closed form as the prior mean; fitted to one row in `every` of those up to `last` channels.

    Returns the rows twice, with `prior`, `fitted`, `predicted`, `low`, `high` and `inside`.
    """
    integer("every", every, 2, len(table) // 8)
    integer("last", last, 4 * every, len(table))
    fitted = (np.arange(len(table)) % every == every // 2) & (table["channels"] <= last).to_numpy()
    y = table["cycles"].to_numpy(dtype=np.float64)
    parts = []
    for name, prior, columns in zip(PRIORS, (None, 0), (["channels"], ["modelled_cycles"]),
                                    strict=True):  # fmt: skip
        X = table[columns].to_numpy(dtype=np.float64)
        mean, low, high = Surrogate(prior, log=True).fit(X[fitted], y[fitted]).estimate(X, 0.9)
        inside = (low <= y) & (y <= high)
        parts.append(table.assign(prior=name, fitted=fitted, predicted=mean, low=low, high=high,
                                  inside=inside))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def cliff_chart(found: pd.DataFrame) -> alt.LayerChart:
    """Draw what `cliff` found, and say how many intervals hold."""
    thousands = found.assign(
        **{k: found[k] / 1e3 for k in ("cycles", "predicted", "low", "high")},
        mark=np.where(found["fitted"], *MARKS),
    )
    names = alt.Scale(
        domain=[*PRIORS, *MARKS],
        range=[charts.FEATURES, charts.CAUSES["output"], charts.INK, charts.WEIGHTS],
    )
    held = found[~found["fitted"]].groupby("prior", sort=False)["inside"].agg(["sum", "size"])
    counts = [f"{row['sum']} {name}" for name, row in held.iterrows()]
    x = alt.X("channels:Q", title="Channels of the layer", scale=alt.Scale(nice=False))
    titled = "Cycles of the layer (thousands)"
    legend = alt.Legend(orient="top", columns=4, labelLimit=0, symbolOpacity=1)
    colour, line = (alt.Color(f"{key}:N", title=None, scale=names, legend=legend)
                    for key in ("mark", "prior"))  # fmt: skip
    base = alt.Chart(thousands).encode(x)
    once = alt.Chart(thousands[thousands["prior"] == PRIORS[0]]).encode(x)
    chart = alt.LayerChart(layer=[
        base.mark_area(opacity=0.25).encode(alt.Y("low:Q", title=titled), alt.Y2("high:Q"), line),
        once.mark_circle(size=22, opacity=1).encode(alt.Y("cycles:Q"), colour),
        base.mark_line(strokeWidth=2).encode(alt.Y("predicted:Q"), line),
    ])  # fmt: skip
    about = [
        "Predicted (lines), with 90 % intervals (bands); dots are measured in simulation.",
        f"Of the {held['size'].iloc[0]} held out are inside: {', '.join(counts)}.",
    ]
    title = alt.TitleParams("Steps and cliffs", subtitle=about)
    return chart.properties(title=title, width=charts.WIDTH, height=280)


def true_steps(truth: Truth) -> pd.DataFrame:
    """Go two steps on the truth, both exhaustive: the best networks for one engine, by accuracy and
    latency or by power too; then all engines for those.

    A row for each engine and number of `goals` of the first step: `networks` that it keeps, the
    `hypervolume` of the second in % of the true front's, in the `Box` around that, and how much of
    the true front, in %, is of networks that were `dropped`.
    """
    engine, network = np.nonzero(np.isfinite(truth.latency_ms))
    figures = truth.figures(engine, network)
    points, rows = figures * SIGNS, []
    best = pareto.front(points)
    box = Box.of(figures[best])
    whole = box.hypervolume(figures[best])
    for i, accelerator in enumerate(truth.engines):
        here = np.flatnonzero(engine == i)
        for goals in (2, 3):
            kept = np.unique(network[here[pareto.front(points[here, :goals])]])
            mine = np.isin(network, kept)
            rows.append({
                "engine": str(accelerator), "goals": goals, "networks": len(kept),
                "hypervolume": 100 * box.hypervolume(figures[mine]) / whole,
                "dropped": 100 * float(np.mean(~mine[best])),
            })  # fmt: skip
    return pd.DataFrame(rows)


def steps_chart(joint: pd.DataFrame, kept: Collection[str]) -> alt.Chart:
    """Draw a joint front's latency and power, and which of its architectures are among those
    `kept` by the first of two steps. Rows as from `explore.table`."""
    there = joint["architecture"].isin(list(kept))
    points = joint[["latency_ms", "power_w"]].assign(mark=np.where(there, *STEPS))
    names = alt.Scale(domain=list(STEPS), range=[charts.FEATURES, charts.WEIGHTS])
    legend = alt.Legend(orient="top", labelLimit=0)
    scale = alt.Scale(type="log", nice=False)
    chart: alt.Chart = (
        alt.Chart(points.sort_values("mark", ascending=False))
        .mark_circle(size=22, opacity=0.8)
        .encode(
            alt.X("latency_ms:Q", title=TITLES["latency_ms"], scale=scale),
            alt.Y("power_w:Q", title=TITLES["power_w"], scale=alt.Scale(zero=False)),
            alt.Color("mark:N", title="Network of the design", scale=names, legend=legend),
        )
    )
    share = f"{100 * np.mean(~there):.0f} % of the joint front are of networks that it dropped"
    title = alt.TitleParams("What the first step drops", subtitle=[f"Predicted; {share}"])
    return chart.properties(title=title, width=charts.WIDTH, height=280)


def promises(table: pd.DataFrame) -> pd.DataFrame:
    """Return how often bounds held, in %, by confidence, of rows of data/promise.csv: both bounds,
    and the latency and the accuracy that each design was itself said to keep to."""
    held = pd.DataFrame(
        {
            "confidence": 100 * table["confidence"],
            "both bounds": (table["latency_ms"] <= table["max_latency_ms"])
            & (table["accuracy"] >= table["min_accuracy"]),
            "its own latency": table["latency_ms"] <= table["worst_ms"],
            "its own accuracy": table["accuracy"] >= table["worst_accuracy"],
        }
    )
    return 100 * held.groupby("confidence").mean().astype(float)


def broken(kept: pd.DataFrame) -> str:
    """Say of what `promises` found how many of ten designs did not keep to it, a line for each
    confidence."""
    lines = []
    for confidence, held in zip(kept.index, kept.to_numpy(), strict=True):
        limits, slower, worse = (f"{(100 - share) / 10:.1f}" for share in held)
        lines.append(
            f"With {confidence:.0f} %: of ten designs {limits} missed a limit; {slower} were "
            f"slower, and {worse} less accurate, than each was said to be."
        )
    return "\n".join(lines)


def margins(front: pd.DataFrame, limits: Constraints, known: Mapping[str, Accelerators]) -> str:
    """Say how far a front, rows as from `explore.table`, stays below its limits on latency and
    power: in a line for designs on engines of a device whose clock is `known`, and for others."""
    there = {f"{acc}@{device}" for device, engines in known.items() for acc in engines}
    placed = (front["accelerator"] + "@" + front["device"]).isin(there)
    lines = []
    for where, rows in (("engines that were placed and routed", front[placed]),
                        ("others", front[~placed])):  # fmt: skip
        if rows.empty:
            continue
        parts = [f"  {len(rows):,} on {where}"]
        for name, most, unit in (("latency_ms", limits.max_latency_ms, "ms"),
                                 ("power_w", limits.max_power_w, "W")):  # fmt: skip
            if most is not None:
                worst = float(rows[name].max())
                below = 100 * (1 - worst / most)
                parts.append(f"to {worst:.3f} {unit}, {below:.0f} % below its limit")
        lines.append("; ".join(parts))
    return "\n".join(lines)
