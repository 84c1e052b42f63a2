"""The roofline picture of a network on an engine."""

import numpy as np
import pandas as pd
import pytest
from drawn import marks, texts

from codesign_kernel.accelerator import Accelerator, load_device
from codesign_kernel.network_cost import BOTTLENECKS, layer_costs
from codesign_kernel.networks import load_network
from codesign_kernel.roofline import roofline

ECP5 = load_device("ecp5-85f")


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return layer_costs(load_network("mobilenetv2").layers, Accelerator(8, 8, 1, 64, 32), ECP5)


def test_roofline_has_both_ceilings_and_a_point_a_layer_below_them(costs: pd.DataFrame) -> None:
    peak, port = 64 * 122e6 / 1e9, 8 * 0.709 * 122e6 / 1e9
    chart = roofline(costs, peak, port, "mobilenetv2 on 8x8x1w64f32")
    words = texts(chart)
    for expected in ("Roofline", "Operational intensity (MAC/byte)", "Performance (GMAC/s)",
                     "mobilenetv2 on 8x8x1w64f32Modelled; each layer is a point",
                     "memory port: 0.692 GB/s", "multipliers: 7.81 GMAC/s", "Bottleneck",
                     *costs["bottleneck"].unique()):  # fmt: skip
        assert expected in words
    assert marks(chart, "symbol") == len(costs)
    roof = np.minimum(peak, port * costs["macs_per_byte"])
    # Weights that came while the layer before was running lift a layer above the port's ceiling.
    assert (costs["gmac_s"] <= peak).all()
    assert (costs["gmac_s"] <= roof).mean() > 0.8
    assert (costs["gmac_s"] > 0.8 * roof).any()
    drawn = chart.to_dict()
    assert drawn["description"].startswith("Roofline of mobilenetv2 on 8x8x1w64f32, modelled")
    for axis in ("x", "y"):
        scale = drawn["layer"][0]["encoding"][axis]["scale"]
        low, high = scale["domain"]
        field = drawn["layer"][0]["encoding"][axis]["field"]
        assert scale["type"] == "log"
        assert low < costs[field].min()
        assert costs[field].max() < high


def test_roofline_knows_every_bottleneck(costs: pd.DataFrame) -> None:
    table = costs.head(len(BOTTLENECKS)).assign(bottleneck=BOTTLENECKS)
    assert set(BOTTLENECKS) <= set(texts(roofline(table, 6.24, 0.273, "any")))
