"""What the page says of one design."""

import re
from pathlib import Path

import pandas as pd
import pytest

from codesign_kernel import card, cost, engines, routed
from codesign_kernel.accelerator import load_device
from codesign_kernel.design import Design
from codesign_kernel.study import open_study

ROW = pd.Series({"accuracy": 91.5, "accuracy_low": 90.5, "accuracy_high": 92.5,
                 "latency_ms": 0.25, "latency_ms_low": 0.2, "latency_ms_high": 0.3,
                 "power_w": 0.4, "power_w_low": 0.3, "power_w_high": 0.5,
                 "energy_mj": 0.1, "energy_mj_low": 0.05, "energy_mj_high": 0.2})  # fmt: skip
FASHION = open_study(Path(__file__).parents[1] / "data" / "studies" / "fashion")
WORST = pd.Series({"accuracy": 90.7, "latency_ms": 0.29, "power_w": 0.48, "energy_mj": 0.13})


@pytest.mark.parametrize(
    ("accelerator", "device", "source", "clock"),
    [("8x8x1w32f32", "ecp5-45f", "measured", "127 MHz"),
     ("8x8x1w32f48", "ecp5-45f", "modelled", "122 MHz")],
)  # fmt: skip
def test_figures_have_units_and_sources(
    accelerator: str, device: str, source: str, clock: str
) -> None:
    chip = load_device(device)
    design = Design.parse(f"w8k3-w24k53@{accelerator}@{device}")
    engine = engines.known(design.accelerator, chip, engines.measured(FASHION, device))
    text = re.sub(
        r"<[^>]+>",
        " ",
        card.describe(ROW, WORST, design, chip, FASHION.sources(), engine, "some images"),
    )
    words = " ".join(text.split())
    for expected in ("Accuracy 91.50 % 90.50 to 92.50 % predicted from measured subnets; of some "
                     "images",
                     "Latency 0.2500 ms 0.2000 to 0.3000 ms predicted from measured designs",
                     "Power 0.400 W 0.300 to 0.500 W predicted from modelled designs; no board",
                     "accuracy of at least 90.70 %; latency of at most 0.2900 ms; power of at most "
                     "0.480 W; energy of at most 0.1300 mJ: each with a probability of 90 %",
                     "8 filters × 8 channels × 1 pixel a cycle", f"{clock}, {source}",
                     "stage 1: 8 filters, kernels 3; stage 2: 24 filters, kernels 5, 3",
                     chip.label, str(design)):  # fmt: skip
        assert expected in words
    table, whence = card.resources(engine, chip)
    known = routed.known(design.accelerator, chip)[0]
    assert whence == source
    assert table["used"].tolist() == [known["dsp"], known["bram"], known["lut"]]
    assert table["budget"].tolist() == [chip.dsp, chip.bram, chip.lut]


def test_an_engine_that_was_placed_and_routed_is_known_by_its_measurements() -> None:
    chip = load_device("ecp5-45f")
    acc = routed.engines(chip)[3]
    found, source = routed.known(acc, chip)
    assert source == "measured"
    assert found == routed.figures(acc, chip)
    arria = load_device("arria10-gx1150")
    found, source = routed.known(acc, arria)
    assert source == "modelled"
    assert set(found) == set(routed.FIGURES)
    assert found["clock_mhz"] == cost.clock_mhz(acc, arria)
    assert found["dsp"] == cost.resources(acc, arria).dsp
