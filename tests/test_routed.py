"""The table of engines that were placed and routed, and what is read from it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from codesign_kernel import routed, synthesize
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.errors import InputError
from codesign_kernel.rtl.shape import MULTIPLIER, Shape

SMALL, LARGE = load_device("ecp5-25f"), load_device("ecp5-85f")


def test_the_table_is_of_the_engine_as_it_is_now() -> None:
    lines = (*synthesize.PASSES, *synthesize.OPTIONS)
    about = [line.replace(str(MULTIPLIER), MULTIPLIER.name) for line in lines]
    about.append(MULTIPLIER.read_text(encoding="utf-8"))
    about.append(synthesize.engine(Shape(Accelerator.parse("8x8x2w32f32"), 64)))
    now = hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]
    table = routed.table()
    assert set(table["engine"]) == {now}
    assert set(table["source"]) == {"measured"}
    assert not table.duplicated(["accelerator", "device", "seed"]).any()
    assert table["clock_mhz"].between(75, 160).all()


def test_engines_are_those_of_the_device_the_smallest_first() -> None:
    found = routed.engines(SMALL)
    assert Accelerator.parse("4x4x1w16f16") in found
    sizes = [acc.pf * acc.pc * acc.pv for acc in found]
    assert sizes == sorted(sizes)
    assert max(sizes) < SMALL.dsp
    assert len(set(found)) == len(found)
    assert routed.engines(load_device("arria10-gx1150")) == []
    assert routed.measurable(LARGE)
    assert not routed.measurable(load_device("arria10-gx1150"))


def test_figures_are_those_of_the_first_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    head = "accelerator,port_bits,device,seed,clock_mhz,dsp,bram,lut,ff\n"
    rows = [f"4x4x1w16f16,64,ecp5-25f,{seed},{clock},17,18,4756,3798\n"
            for seed, clock in ((3, 100), (1, 130), (2, 110))]  # fmt: skip
    path.write_text(head + "".join(rows))
    monkeypatch.setattr(routed, "PLACES", (tmp_path / "none.csv", path))
    routed.table.cache_clear()
    try:
        found = routed.figures(Accelerator.parse("4x4x1w16f16"), SMALL)
        assert found == {"clock_mhz": 130, "dsp": 17, "bram": 18, "lut": 4756, "ff": 3798}
        monkeypatch.setattr(routed, "PLACES", (tmp_path / "none.csv",))
        routed.table.cache_clear()
        with pytest.raises(InputError, match=r"none\.csv does not exist: install"):
            routed.table()
        path.write_text("a,b\n1,2\n")
        monkeypatch.setattr(routed, "PLACES", (path,))
        routed.table.cache_clear()
        with pytest.raises(InputError, match=r"table\.csv is damaged"):
            routed.table()
    finally:
        routed.table.cache_clear()


@pytest.mark.parametrize("name", ["ecp5-25f", "ecp5-45f", "ecp5-85f", "arria10-gx1150"])
def test_clocks_are_those_of_the_figures_where_an_engine_is_in_the_table(name: str) -> None:
    device = load_device(name)
    acc, there = device.grid(), routed.engines(device)
    acc = Accelerators.of([*acc[:: len(acc) // 50], *there])
    found = routed.clocks(acc, device)
    expected = [
        routed.figures(each, device)["clock_mhz"] if each in there else np.nan for each in acc
    ]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found).sum() > 10
    assert (~np.isnan(found)).sum() >= len(there)


def test_another_engine_is_placed_and_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(shape: Shape, device: object) -> None:
        asked.append((str(shape.accelerator), shape.port_bits, device))
        raise InputError("not now.")

    monkeypatch.setattr(synthesize, "implement", refuse)
    with pytest.raises(InputError, match="not now"):
        routed.figures(Accelerator.parse("4x4x1w128f4"), LARGE)
    assert asked == [("4x4x1w128f4", 64, LARGE)]
