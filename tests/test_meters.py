"""What the meters measure, against the simulation and sums by hand."""

import numpy as np
import pytest

from codesign_kernel import cost, meters, routed
from codesign_kernel.accelerator import Accelerator, Accelerators
from codesign_kernel.errors import InputError
from codesign_kernel.meters import Accuracy, Closed, Simulated
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import MemoryModel, count_cycles, memory_of
from codesign_kernel.space import Architecture
from codesign_kernel.study import Study
from codesign_kernel.workload import layers_of

KEY = ("w8k3-w16k33", "4x4x1w16f16", "ecp5-25f")


@pytest.fixture(scope="module")
def simulated(made: Study) -> Simulated:
    return Simulated(Accuracy(made), made)


def test_simulated_figures_are_those_of_simulation_and_table(
    made: Study, simulated: Simulated
) -> None:
    found = simulated.measure(KEY)
    device, acc = made.device(KEY[2]), Accelerator.parse(KEY[1])
    layers = layers_of(made.space, made.space.encode(Architecture.parse(KEY[0]))[None])
    assert (
        found["cycles"] == count_cycles(layers, Shape(acc, 64), memory_of(device))["cycles"].sum()
    )
    table = routed.figures(acc, device)
    assert {key: found[key] for key in table} == table
    assert found["latency_ms"] == pytest.approx(found["cycles"] / found["clock_mhz"] / 1e3)
    assert found["energy_mj"] == pytest.approx(found["power_w"] * found["latency_ms"])
    assert device.static_w.value < found["power_w"] < 2 * device.static_w.value
    assert 0 < found["flips"] < found["ff"] / 4
    closed = Closed(made).measure(KEY)
    assert closed["cycles"] == pytest.approx(found["cycles"], rel=0.15)
    assert closed["power_w"] == pytest.approx(found["power_w"], rel=0.1)
    for exact in ("dsp", "bram"):
        assert closed[exact] == found[exact]


def test_what_the_engine_cannot_run_is_said(simulated: Simulated) -> None:
    with pytest.raises(InputError, match="words of weights in a filter group"):
        simulated.measure(("w8k3-w32k55", "4x4x1w1f16", "ecp5-25f"))


def test_the_memory_of_the_devices_is_the_default_one(made: Study) -> None:
    for device in made.devices.values():
        assert memory_of(device) == MemoryModel()


def test_closed_figures_are_those_of_the_closed_form(made: Study) -> None:
    found = Closed(made).measure(KEY)
    device, acc = made.device(KEY[2]), Accelerators.of([Accelerator.parse(KEY[1])])
    layers = layers_of(made.space, made.space.encode(Architecture.parse(KEY[0]))[None])
    figures, need = cost.figures(layers, acc, device), cost.resources(acc, device)
    for name in ("cycles", "clock_mhz", "latency_ms", "power_w", "energy_mj"):
        assert found[name] == getattr(figures, name)[0]
    for name in ("dsp", "bram", "lut"):
        assert found[name] == getattr(need, name)[0]
    assert np.isfinite(list(found.values())).all()
    assert Closed.source == "modelled"
    assert set(meters.Simulated.modelled) == {"power_w", "energy_mj"}
