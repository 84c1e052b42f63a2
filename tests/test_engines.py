"""What a study knows of engines: those measured for it, beside those of the shipped table."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from codesign_kernel import engines, fits, measure, routed
from codesign_kernel.accelerator import Accelerator, load_device
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.meters import RECORDED, SIMULATION
from codesign_kernel.store import Key
from codesign_kernel.study import Study, create

SMALL = tiny.DEVICES[0]
OWN, SHIPPED = "4x2x1w4f8", "4x4x1w16f16"
FIGURES = {"clock_mhz": 140.25, "dsp": 10.0, "bram": 9.0, "lut": 3000.0, "ff": 2000.0}


@pytest.fixture
def study(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Study:
    return tiny.study(tmp_path_factory, tmp_path / "study")


def add(study: Study, engine: str, values: dict[str, float], method: str) -> None:
    key: Key = ("w8k3-w16k3", engine, SMALL)
    with study.store.writing() as connection:
        study.store.add(connection, key, values, method, "measured", 0.0)


def known(study: Study, engine: str) -> engines.Known:
    own = engines.measured(study, SMALL)
    return engines.known(Accelerator.parse(engine), study.device(SMALL), own)


def test_an_engine_that_was_measured_for_the_study_is_known(study: Study) -> None:
    device, acc = study.device(SMALL), Accelerator.parse(OWN)
    assert engines.measured(study, SMALL) == {}  # the closed form measures nothing
    assert known(study, OWN) == (routed.modelled(acc, device), "modelled")
    add(study, OWN, FIGURES, SIMULATION)
    assert known(study, OWN) == (FIGURES, "measured")
    assert engines.clocks(study, SMALL) == {OWN: 140.25}
    assert engines.clocks(study, tiny.DEVICES[1]) == {}


def test_a_recorded_clock_goes_before_the_table_of_engines(study: Study) -> None:
    device, acc = study.device(SMALL), Accelerator.parse(SHIPPED)
    table = routed.figures(acc, device)
    assert known(study, SHIPPED) == (table, "measured")
    add(study, SHIPPED, {"clock_mhz": 100.0}, f"{RECORDED}a board")
    assert known(study, SHIPPED) == (table | {"clock_mhz": 100.0}, "measured")


def test_of_what_was_measured_of_an_engine_the_last_counts(study: Study) -> None:
    ours, theirs = f"{RECORDED}us", f"{RECORDED}them"
    add(study, OWN, {"latency_ms": 0.1}, ours)
    add(study, OWN, {"clock_mhz": 90.0, "latency_ms": 0.2}, theirs)
    assert engines.clocks(study, SMALL) == {OWN: 90.0}
    add(study, OWN, {"clock_mhz": 100.0}, ours)
    assert engines.clocks(study, SMALL) == {OWN: 100.0}


def test_of_what_was_measured_of_a_design_the_last_counts(study: Study) -> None:
    design = Design.parse(f"w8k3-w16k3@{OWN}@{SMALL}")
    assert engines.figures(study, design) == {}
    add(study, OWN, {"latency_ms": 0.06, "cycles": 5e3, "lut": 9.0}, SIMULATION)
    add(study, OWN, {"power_w": 0.3}, "a")
    add(study, OWN, {"latency_ms": 0.05}, "b")
    assert engines.figures(study, design)["latency_ms"] == (0.05, "b")
    add(study, OWN, {"latency_ms": 0.04}, "a")
    assert engines.figures(study, design) == {
        "cycles": (5e3, SIMULATION), "latency_ms": (0.04, "a"), "power_w": (0.3, "a")
    }  # fmt: skip
    assert engines.figures(study, Design.parse(f"w8k3-w16k3@{SHIPPED}@{SMALL}")) == {}


def test_predictions_know_the_clock_of_an_engine_that_was_measured_for_the_study(
    study: Study,
) -> None:
    acc, device = Accelerator.parse(OWN), study.device(SMALL)
    keys: list[Key] = [key for key in measure.plan(study, 10, 15)[1] if key[2] == SMALL]
    for i, key in enumerate(keys):  # on engines of the table
        values = {"latency_ms": 0.1 + i / 100, "power_w": 0.2 + i / 1000}
        clock = routed.figures(Accelerator.parse(key[1]), device)["clock_mhz"]
        with study.store.writing() as connection:
            figures = values | {"clock_mhz": clock}
            study.store.add(connection, key, figures, SIMULATION, "measured", 0.0)
    design = study.find(f"w8k3-w16k3@{OWN}@{SMALL}")

    def width() -> float:
        predictors, _ = fits.fitted(study)
        study.save_predictors(predictors, [])
        row = study.predict([design]).iloc[0]
        return float(row["latency_ms_high"] / row["latency_ms_low"])

    before = width()
    add(study, OWN, FIGURES | {"latency_ms": 0.12, "power_w": 0.25}, SIMULATION)
    predictors, _ = fits.fitted(study)
    assert predictors.clocks[SMALL][OWN] == 140.25
    assert width() < before / 1.1  # the interval leaves out what is not known of a clock
    assert study.predictors().clocks == predictors.clocks
    (reached,) = routed.clocks(tiny.engines(device)[:0].of([acc]), device, {OWN: 140.25})
    assert reached == 140.25


def test_engines_that_were_built_are_those_of_the_table_and_of_the_study(study: Study) -> None:
    device = study.device(SMALL)
    assert [*engines.built(study, SMALL)] == sorted(routed.engines(device))
    add(study, OWN, FIGURES, SIMULATION)
    expected = sorted([*routed.engines(device), Accelerator.parse(OWN)])
    assert [*engines.built(study, SMALL)] == expected


def test_a_search_of_built_engines_keeps_to_them(
    study: Study, codesign: Callable[..., tuple[int, str, str]]
) -> None:
    asked = ["explore", "--study", study.root, "--device", SMALL, "--generations", "2"]
    status, _, error = codesign(*asked, "--routed-only")
    assert status == 0, error
    there = {str(acc) for acc in engines.built(study, SMALL)}
    assert set(study.front()["accelerator"]) <= there


def test_a_device_without_built_engines_says_so(tmp_path: Path) -> None:
    arria = load_device("arria10-gx1150")
    study = create(tmp_path / "study", tiny.SPACE, "digits", "quick", 0, [arria])
    with pytest.raises(InputError, match="no engine of arria10-gx1150 was placed and routed"):
        engines.built(study, arria.name)
