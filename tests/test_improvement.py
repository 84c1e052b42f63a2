"""Rounds of improvement: what is measured, kept, counted, and gone on with after a kill."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from codesign_kernel import (
    baselines,
    campaign,
    fits,
    hopes,
    measure,
    meters,
    routed,
)
from codesign_kernel import improvement as improvement_
from codesign_kernel.campaign import Campaign
from codesign_kernel.constraints import Constraints
from codesign_kernel.errors import InputError
from codesign_kernel.improvement import Improvement
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.store import Key
from codesign_kernel.study import Study

SMALL, LARGE = tiny.DEVICES
BUDGET, ROUNDS = 5, 2  # rounds of three and two


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.quick_fit(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that was improved without a break."""
    study = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("campaign") / "digits")
    with pytest.MonkeyPatch.context() as patch:
        tiny.quick_fit(patch)
        improvement(study).run_all()
    return study


class Whole(Improvement):
    """An improvement that is run to its end."""

    def run_all(
        self, budget: int = BUDGET, rounds: int = ROUNDS, front: bool = False
    ) -> list[dict[str, Any]]:
        return list(self.run(budget, rounds, front))


def improvement(
    study: Study,
    bounds: Constraints = Constraints(),  # noqa: B008
    seed: int = 0,
    every_engine: bool = False,
    device: str = LARGE,
) -> Whole:
    return Whole(study, [device], bounds, seed, 3, meters.Accuracy(study), every_engine)


def fast(study: Study) -> Whole:
    """One whose proposed front is of some ten designs."""
    return improvement(study, Constraints(max_latency_ms=0.06), device=SMALL)


def kept(study: Study) -> Campaign:
    (found,) = campaign.load(study)
    return found


def test_the_budget_is_the_number_of_designs_measured(
    made: Study, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    before = tiny.study(tmp_path_factory, tmp_path / "before").store.rows()
    found, after = kept(made), made.store.rows()
    keys = [(d["architecture"], d["accelerator"], d["device"]) for d in found.designs]
    assert len({*keys}) == len(keys) == BUDGET
    assert [design["round"] for design in found.designs] == [1, 1, 1, 2, 2]
    assert [row["designs"] for row in found.rounds] == [0, 3, 5]
    # What came to the store is those designs and no more.
    new = after.iloc[len(before) :]
    pd.testing.assert_frame_equal(after.iloc[: len(before)], before, check_dtype=False)
    hardware = new[new["accelerator"] != ""]
    texts = hardware[["architecture", "accelerator", "device"]]
    assert {*texts.itertuples(index=False, name=None)} == {*keys}
    accuracy = new[new["accelerator"] == ""]["architecture"]
    assert {*accuracy} == {d["architecture"] for d in found.designs if d["accuracy_new"]}
    assert len(accuracy) == sum(d["accuracy_new"] for d in found.designs)
    assert all(d["hardware_new"] for d in found.designs)


def test_figures_are_those_of_the_store_and_counted_before_they_were_learnt(made: Study) -> None:
    found, rows = kept(made), made.store.rows()
    accuracy = rows[rows["accelerator"] == ""].set_index("architecture")["accuracy"]
    hardware = rows.set_index(["architecture", "accelerator", "device"])
    for design in found.designs:
        key = (design["architecture"], design["accelerator"], design["device"])
        assert design["accuracy_value"] == accuracy[key[0]]
        assert design["latency_ms_value"] == hardware.loc[[key], "latency_ms"].iloc[0]
        for name in QUANTITIES:
            assert design[f"{name}_low"] <= design[name] <= design[f"{name}_high"]
    for row in found.rounds[1:]:
        part = [d for d in found.designs if d["round"] == row["round"]]
        for name in QUANTITIES:
            new = "accuracy_new" if name == "accuracy" else "hardware_new"
            seen = pd.DataFrame([d for d in part if d[new]])
            if seen.empty:  # all architectures of a round may be known
                assert (row[f"{name}_off"], row[f"{name}_new"]) == (None, 0)
                continue
            off = (seen[name] - seen[f"{name}_value"]).abs()
            if name != "accuracy":
                off = 100 * off / seen[f"{name}_value"]
            held = seen[f"{name}_value"].between(seen[f"{name}_low"], seen[f"{name}_high"])
            counts = [row[f"{name}_{count}"] for count in ("off", "inside", "new")]
            assert counts == [pytest.approx(off.median()), held.sum(), len(seen)]
    volumes = [row["measured"] for row in found.rounds]
    assert volumes == sorted(volumes)  # what is measured stays measured
    assert volumes[-1] > volumes[0]


def test_once_spent_the_same_command_changes_nothing(made: Study) -> None:
    before = tiny.contents(made.root)
    assert improvement(made).run_all() == []
    assert tiny.contents(made.root) == before


def test_a_larger_budget_goes_on(own: Study) -> None:
    assert [row["designs"] for row in improvement(own).run_all(2, 1)] == [0, 2]
    first = kept(own)
    assert [row["designs"] for row in improvement(own).run_all(4, 2)] == [4]
    found = kept(own)
    assert found.box == first.box
    assert found.rounds[:2] == first.rounds
    assert found.designs[:2] == first.designs


def test_the_proposed_front_is_measured_last_and_beside_the_budget(own: Study) -> None:
    assert [row["round"] for row in fast(own).run_all(2, 1, front=True)] == [0, 1, 2]
    found = kept(own)
    assert (found.spent, found.fronts) == (2, [2])
    assert 2 < len(found.designs) == found.rounds[2]["designs"]
    assert found.rounds[2]["measured"] >= found.rounds[1]["measured"]
    before = tiny.contents(own.root)
    assert fast(own).run_all(2, 1, front=True) == []  # once is enough
    assert fast(own).run_all(2, 1) == []
    assert tiny.contents(own.root) == before
    # With a larger budget it goes on, and to what is proposed then.
    rows = fast(own).run_all(3, 1, front=True)
    assert kept(own).spent == 3
    assert [row["round"] for row in rows] in ([3], [3, 4])  # if it proposes anything new
    assert kept(own).fronts == [2, 4][: len(rows)]


def test_the_proposed_front_alone_is_of_what_is_not_known(own: Study) -> None:
    rows = fast(own).run_all(0, 1, front=True)
    found = kept(own)
    assert [row["designs"] for row in rows] == [0, len(found.designs)]
    assert (found.spent, found.fronts) == (0, [1])
    assert all(design["hardware_new"] for design in found.designs)
    values = np.array([[d[f"{name}_value"] for name in QUANTITIES] for d in found.designs])
    assert (values[:, 1] < 0.1).all()  # within what was predicted to be the bound, or near it
    known = own.store.keys(meters.CLOSED_FORM)
    assert {(d["architecture"], d["accelerator"], d["device"]) for d in found.designs} <= known


def test_other_options_start_anew_and_measure_nothing_twice(own: Study) -> None:
    improvement(own).run_all(2, 1)
    bounds = Constraints(max_latency_ms=1.0, max_dsp=30)
    improvement(own, bounds).run_all(2, 1)
    first, second = campaign.load(own)
    keys = [(d["architecture"], d["accelerator"]) for c in (first, second) for d in c.designs]
    assert len({*keys}) == 4
    assert second.asked["max_latency_ms"] == 1.0
    assert second.box["high"][1] <= 0  # the logarithm of the bound
    rows = own.store.rows()
    rows = rows[rows["architecture"].isin([d["architecture"] for d in second.designs])]
    used = {d["accelerator"] for d in second.designs}
    assert (rows[rows["accelerator"].isin(used)]["dsp"] <= 30).all()


def breaking(function: Callable[..., Any], turn: int, after: bool) -> Callable[..., Any]:
    """A function that is killed at its `turn`-th call, before or after its work."""
    calls: list[int] = []

    def call(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == turn and not after:
            raise KeyboardInterrupt
        result = function(*arguments)
        if len(calls) == turn:
            raise KeyboardInterrupt
        return result

    return call


@pytest.mark.parametrize(
    ("module", "name", "turn", "after"),
    [
        (improvement_, "save", 1, True),  # the start
        (improvement_, "save", 2, False),  # what the first round chose
        (improvement_, "save", 2, True),
        (meters.Closed, "measure", 2, True),  # amid a round
        (improvement_, "save", 3, False),  # the first round is through
        (fits, "fitted", 3, True),
        (fits, "fit", 1, True),
    ],
)
def test_killed_at_any_moment_it_ends_as_without(
    made: Study, own: Study, module: Any, name: str, turn: int, after: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, breaking(getattr(module, name), turn, after))
        with pytest.raises(KeyboardInterrupt):
            improvement(own).run_all()
    improvement(own).run_all()
    assert kept(own) == kept(made)
    rows = [study.store.rows() for study in (own, made)]
    pd.testing.assert_frame_equal(*rows)
    for file in ("predictors.safetensors", "fit.json"):
        assert (own.root / file).read_bytes() == (made.root / file).read_bytes()


@pytest.mark.parametrize(
    ("module", "name", "turn", "after"),
    [
        (improvement_, "save", 4, False),  # the proposed front
        (improvement_, "save", 4, True),
        (meters.Closed, "measure", 4, True),  # amid it
        (improvement_, "save", 5, False),  # it is through
    ],
)
def test_killed_in_the_proposed_front_it_ends_as_without(
    tmp_path_factory: pytest.TempPathFactory, own: Study, module: Any, name: str, turn: int,
    after: bool,
) -> None:  # fmt: skip
    other = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("other") / "digits")
    fast(other).run_all(2, 1, front=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, breaking(getattr(module, name), turn, after))
        with pytest.raises(KeyboardInterrupt):
            fast(own).run_all(2, 1, front=True)
    assert len(kept(own).rounds) == 2
    fast(own).run_all(2, 1, front=True)
    assert kept(own) == kept(other)
    pd.testing.assert_frame_equal(own.store.rows(), other.store.rows())


def test_the_report_counts_only_what_was_drawn(made: Study, own: Study) -> None:
    before, after = fits.fit(own), made.fit_report()
    assert (before.pop("chosen") == 0).all()
    chosen = after.pop("chosen")
    designs = kept(made).designs
    sizes = {"": sum(d["accuracy_new"] for d in designs), LARGE: BUDGET, SMALL: 0}
    assert chosen.tolist() == [sizes[device] for device in after["device"]]
    # Left-out errors are of processes that have learnt more, and for accuracy there may be one of
    # another kind now; all others are as they were.
    loo = [table.loc[table["quantity"] != "accuracy", "LOO MAE"] for table in (before, after)]
    plain = [
        table[(table["quantity"] != "accuracy") | table["model"].isin(baselines._PLAIN)]
        .drop(columns="LOO MAE").reset_index(drop=True)
        for table in (before, after)
    ]  # fmt: skip
    pd.testing.assert_frame_equal(*plain, check_dtype=False)
    assert not np.allclose(*(column.dropna() for column in loo))
    learnt = made.predictors()
    assert len(learnt.accuracy.to_arrays()[0]["X"]) == tiny.ARCHITECTURES + sizes[""]
    assert len(learnt.hardware["power_w", LARGE].to_arrays()[0]["y"]) == tiny.DESIGNS + BUDGET


def test_a_report_of_too_few_that_were_drawn_is_refused(own: Study) -> None:
    improvement(own).run_all(2, 1)
    content = json.loads((own.root / campaign.CHOSEN).read_text())
    rows = measure.rows(own, "accuracy")["architecture"]
    designs = content["campaigns"][0]["designs"]
    designs += [designs[0] | {"architecture": text, "accuracy_new": True} for text in rows[:15]]
    (own.root / campaign.CHOSEN).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"accuracy was measured for \d designs that no predic"):
        fits.fit(own)


class Routed(meters.Closed):
    """The closed form, in place of simulations that take minutes to compile."""

    def __init__(self, _: meters.Accuracy, study: Study) -> None:
        super().__init__(study, "measured", ("power_w", "energy_mj"), meters.SIMULATION)


@pytest.fixture
def simulated(own: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose larger device is simulated, as it seems."""
    monkeypatch.setattr(measure, "Simulated", Routed)
    monkeypatch.setattr(measure, "build_many", lambda shapes, workers: None)
    keys = [key for key in measure.plan(own, 10, 15)[1] if key[2] == LARGE]
    measure.measure(own, Routed(meters.Accuracy(own), own), keys, "x")
    return own


def test_simulated_devices_are_improved_on_engines_that_were_routed(simulated: Study) -> None:
    own, work = simulated, improvement(simulated)
    engines = {str(engine) for engine in routed.engines(own.device(LARGE))}
    assert {str(engine) for engine in work.engines[LARGE]} == engines
    work.run_all(3, 1)
    used: set[Key] = {(d["architecture"], d["accelerator"], LARGE) for d in kept(own).designs}
    assert {key[1] for key in used} <= engines
    assert used <= own.store.keys(meters.SIMULATION)
    assert kept(own).asked["methods"][LARGE] == meters.SIMULATION


def test_networks_are_measured_on_every_engine(simulated: Study) -> None:
    def work() -> Whole:
        return improvement(simulated, every_engine=True)

    engines = {str(engine) for engine in routed.engines(simulated.device(LARGE))}
    assert [row["round"] for row in work().run_all(3, 2)] == [0, 1, 2]
    found = kept(simulated)
    assert found.spent == 3
    keys = {(d["architecture"], d["accelerator"], LARGE) for d in found.designs}
    networks = {key[0] for key in keys}
    assert len(networks) == 3
    there = simulated.store.keys(meters.SIMULATION)
    assert keys <= there
    # But for those that no buffer of the engine can hold, which are not asked for.
    assert all({key[1] for key in there if key[0] == name} == engines for name in networks)
    assert work().run_all(3, 2) == []  # it is spent
    work().run_all(4, 2)
    assert kept(simulated).spent == 4


def test_networks_of_the_proposed_front_are_measured_on_every_engine(
    simulated: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "LEARNT", 60)
    monkeypatch.setattr(hopes, "HOPES", (0.0,))  # they are fewer
    bounds = Constraints(max_latency_ms=0.05)
    engines = {str(engine) for engine in routed.engines(simulated.device(LARGE))}
    improvement(simulated, bounds, every_engine=True).run_all(1, 1, front=True)
    found = kept(simulated)
    assert (found.spent, found.fronts) == (1, [2])
    front = {d["architecture"] for d in found.designs if d["round"] == 2}
    there = simulated.store.keys(meters.SIMULATION)
    assert len(front) >= 1
    assert all({key[1] for key in there if key[0] == name} == engines for name in front)


def test_on_every_engine_a_front_of_nothing_is_no_round(
    simulated: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(improvement_, "hoped_designs", lambda *arguments: [])
    rows = improvement(simulated, every_engine=True).run_all(0, 1, front=True)
    assert [row["round"] for row in rows] == [0]
    assert kept(simulated).fronts == []


def test_every_engine_is_of_simulated_devices(own: Study) -> None:
    with pytest.raises(InputError, match=r"--every-engine needs a device .* ecp5-85f .* modelled"):
        improvement(own, every_engine=True)


def test_measurements_that_it_cannot_make_are_refused(own: Study) -> None:
    class Board(meters.Closed):
        pass

    keys = [key for key in measure.plan(own, 10, 15)[1] if key[2] == LARGE]
    measure.measure(own, Board(own, "measured", (), "a board"), keys, "x")
    with pytest.raises(InputError, match="latency_ms on ecp5-85f of this study is by 'a board'"):
        improvement(own)


@pytest.mark.parametrize("quantity", ["accuracy", "latency_ms", "power_w"])
def test_what_was_recorded_is_not_gone_on_with(own: Study, quantity: str) -> None:
    device = "" if quantity == "accuracy" else LARGE
    rows = measure.rows(own, quantity, device).iloc[:10]
    with own.store.writing() as connection:
        for key in rows[["architecture", "accelerator", "device"]].itertuples(index=False):
            values = {quantity: 50.0}
            own.store.add(connection, tuple(key), values, "recorded: a board", "measured", 0.0)
    with pytest.raises(InputError) as raised:
        improvement(own)
    of = f"{quantity} on {LARGE}" if device else quantity
    assert str(raised.value) == (
        f"{of} of this study rests on what 'a board' recorded, of which `codesign improve` can "
        "measure no more: take it back by `codesign record --forget 'a board' --study "
        f"{own.root}`, or ask `codesign propose` what to measure next."
    )


def test_no_design_within_the_bounds_is_said_in_one_sentence(own: Study) -> None:
    with pytest.raises(InputError, match="no design keeps to all constraints") as raised:
        improvement(own, Constraints(min_accuracy=99.9)).run_all(2, 1)
    tiny.assert_one_sentence(str(raised.value))
    assert not (own.root / campaign.CHOSEN).exists()
