"""What is said of the engine's ports is what the engine has."""

import re

import pytest

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.protocol import protocol
from codesign_kernel.rtl.engine import to_rtlil
from codesign_kernel.rtl.shape import Shape


@pytest.mark.parametrize("bits", [32, 64, 128])
def test_each_port_is_told_with_its_direction_and_width(bits: int) -> None:
    shape, told = Shape(Accelerator.parse("4x4x1w8f8"), bits), {}
    lines = re.findall(r"^  (\w+(?:, \w+)*) +(in|out) +(\d+ bits)?", protocol(shape), re.MULTILINE)
    for names, way, wide in lines:
        told |= {name: (f"{way}put", int(wide.split()[0]) if wide else 1)
                 for name in names.split(", ")}  # fmt: skip
    (top,) = re.findall(r"^module \\engine$.*?^end$", to_rtlil(shape, watched=False), re.M | re.S)
    ports = re.findall(r"^  wire width (\d+) (input|output) \d+ +\\(\w+)$", top, re.MULTILINE)
    assert told == {name: (way, int(wide)) for wide, way, name in ports}
    assert f"a beat is {bits // 8} bytes" in protocol(shape)
    # What tests/test_sequencer.py holds the arbiter to.
    assert "up to\n  14 reads under way, that is 224 beats." in protocol(shape)
    assert "or hold rst until the last such beat has come." in protocol(shape)
