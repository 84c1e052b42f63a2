from pathlib import Path

from codesign_kernel.quantities import QUANTITIES, TITLES, TOLD, UNITS
from codesign_kernel.study import open_study

STUDIES = Path(__file__).parents[1] / "data" / "studies"


def test_names_are_those_of_stored_fronts() -> None:
    front = open_study(STUDIES / "digits").front()
    ends = ("", "_low", "_high")
    assert {f"{name}{end}" for name in TOLD for end in ends} <= set(front)
    assert [*TOLD][:3] == [*QUANTITIES]


def test_each_is_told_with_its_unit() -> None:
    assert TITLES["latency_ms"] == "Latency of one image (ms)"
    assert TITLES["accuracy"] == "Accuracy (%)"
    assert UNITS == {"accuracy": "%", "latency_ms": "ms", "power_w": "W", "energy_mj": "mJ"}
    assert TOLD["latency_ms"].text(0.12345) == "0.1235"
    assert TOLD["accuracy"].text(90) == "90.00"
