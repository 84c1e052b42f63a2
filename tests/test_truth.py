"""The truth of a small space: read as it was measured, and refused where it is not all there."""

from pathlib import Path

import numpy as np
import pytest

from codesign_kernel import cost, routed
from codesign_kernel.accelerator import load_device
from codesign_kernel.errors import InputError
from codesign_kernel.files import write_arrays
from codesign_kernel.meters import activity_of
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.space import SearchSpace, Stage
from codesign_kernel.truth import FIELDS, UNFIT, load

DEVICE = load_device("ecp5-45f")
SMALL, LARGE = (routed.engines(DEVICE)[i] for i in (0, -1))
# Four architectures: two widths by two kernels.
SPACE = SearchSpace("few", "digits", (8, 8, 1), 10, 8, 3, 1, (Stage((8, 16), (1,), (3, 5), 1),))
CYCLES = {SMALL: [4000, 6000, 8000, 12000], LARGE: [1000, 1500, 2000, UNFIT]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    accuracy = {"validation": np.array([90.0, 91, 92, 93]), "test": np.array([89.0, 90, 91, 92])}
    write_arrays(tmp_path / "accuracy.safetensors", accuracy, {"space": "few"})
    for engine, cycles in CYCLES.items():
        found = {"cycles": cycles, "busy": [500] * 4, "beats": [100] * 4, "flips": [0.05] * 4}
        arrays = {name: np.array(found[name], kind) for name, kind in FIELDS.items()}
        about = {"device": DEVICE.name, "engine": str(engine)}
        write_arrays(tmp_path / f"{engine}.safetensors", arrays, about)
    return tmp_path


def test_latency_is_cycles_over_the_clock_that_was_routed(folder: Path) -> None:
    truth = load(folder, SPACE)
    assert set(truth.engines) == {SMALL, LARGE}
    for engine, latency, power in zip(truth.engines, truth.latency_ms, truth.power_w, strict=True):
        place = routed.figures(engine, DEVICE)
        runs = np.array(CYCLES[engine]) != UNFIT
        expected = np.array(CYCLES[engine]) / place["clock_mhz"] / 1e3
        np.testing.assert_allclose(latency[runs], expected[runs])
        assert np.isnan(latency[~runs]).all()
        assert np.isnan(power[~runs]).all()
        active = activity_of(Shape(engine, 64), 500 / 4000, 100 / 4000, 0.05 * place["ff"])
        clock, flip_flops = np.array(place["clock_mhz"]), np.array(place["ff"])
        if engine == SMALL:
            parts = cost.power_parts(flip_flops, clock, active, DEVICE)
            assert power[0] == pytest.approx(parts.sum())


def test_the_front_is_of_designs_that_run(folder: Path) -> None:
    truth = load(folder, SPACE)
    assert truth.points.shape == (7, 3)
    accuracies = -truth.front()[:, 0]
    assert 93 in accuracies  # on the small engine, for the large one cannot run it
    large = truth.engines.index(LARGE)
    fastest = truth.figures(np.array([large]), np.array([0]))[0]
    assert (truth.front() == fastest * [-1, 1, 1]).all(axis=1).any()


def test_engines_that_are_not_through_do_not_count(folder: Path) -> None:
    path = folder / f"{LARGE}.safetensors"
    arrays = {name: np.zeros(4, kind) for name, kind in FIELDS.items()}
    write_arrays(path, arrays, {"device": DEVICE.name, "engine": str(LARGE)})
    assert load(folder, SPACE).engines == (SMALL,)
    (folder / f"{SMALL}.safetensors").unlink()
    with pytest.raises(InputError, match="has no engine"):
        load(folder, SPACE)


def test_a_truth_of_another_space_is_refused(folder: Path) -> None:
    other = SearchSpace("other", "digits", (8, 8, 1), 10, 8, 3, 1, SPACE.stages)
    with pytest.raises(InputError, match="is of another space than other"):
        load(folder, other)
