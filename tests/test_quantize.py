"""Quantised subnets: against the float network, and on the simulated engine, with real images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from codesign_kernel import batches, datasets, train
from codesign_kernel.accelerator import Accelerator
from codesign_kernel.program import compile_network
from codesign_kernel.quantize import accuracy, best_scale, folded, integer_layer, quantize
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.simulate import simulate
from codesign_kernel.supernet import Subnet

DIGITS = Path(__file__).parents[1] / "data" / "studies" / "digits" / "supernet.safetensors"


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def subnets(data: datasets.Dataset) -> list[Subnet]:
    """The smallest, the largest and three random subnets of the shipped study of digits."""
    supernet = train.load_supernet(DIGITS)
    calibration = train.calibration_images(data)
    space = supernet.space
    genomes = [*space.extremes(), *space.sample(3, np.random.default_rng(5))]
    return [train.subnet(supernet, space.decode(genome), calibration) for genome in genomes]


def test_folded_block_computes_what_the_block_does(subnets: list[Subnet]) -> None:
    for block in subnets[1].layers():
        convolution = block.convolution
        x = torch.rand(2, convolution.in_channels, 6, 6)
        weight, bias = (torch.from_numpy(value).float() for value in folded(block))
        y = torch.nn.functional.conv2d(
            x, weight, bias, stride=convolution.stride, padding=convolution.padding
        )
        want = block.norm(convolution(x))
        torch.testing.assert_close(y, want, atol=1e-4, rtol=1e-4)


def test_int8_network_answers_nearly_as_the_float_one(
    subnets: list[Subnet], data: datasets.Dataset
) -> None:
    calibration = train.calibration_images(data)
    for subnet in subnets:
        small = quantize(subnet, calibration)
        exact, rounded = train.accuracy(subnet, data.test), accuracy(small, data.test)
        assert abs(exact - rounded) <= 1.5, subnet.architecture  # 1 image of 360 is 0.28 points
        images = batches.to_tensor(data.test.batch(np.arange(64)))
        with torch.no_grad():
            want = subnet(images).numpy()
        found = small.logits(images) * small.logit_scale
        assert np.abs(found - want).mean() < 0.05 * np.abs(want).max(), subnet.architecture


def test_trained_network_on_the_engine_answers_class_for_class(
    subnets: list[Subnet], data: datasets.Dataset
) -> None:
    small = quantize(subnets[1], train.calibration_images(data))
    program = compile_network(small.network, Shape(Accelerator.parse("8x8x1w16f16")))
    images = batches.to_tensor(data.test.batch(np.arange(100)))
    inputs, want = small.input(images), small.logits(images)
    for image, logits in zip(inputs, want, strict=True):
        memory = simulate(program, image, limit=1_000_000).memory
        np.testing.assert_array_equal(program.read_map(memory).ravel(), logits)
    labels = data.test.labels[:100]
    assert (want.argmax(axis=1) == labels).mean() > 0.9


def test_scale_of_a_map_weighs_clipping_against_rounding() -> None:
    even = np.linspace(0, 1, 60_000)
    assert best_scale(even) == pytest.approx(1 / 127, rel=0.05)
    assert best_scale(np.append(even, 3.0)) < 3 / 127  # one outlier is cut off
    assert best_scale(np.zeros(4)) == 1.0


def test_filters_of_nought_and_of_wide_spread_are_held() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4, 1, 1))
    weight[0], weight[1] = 0, weight[1] * 1e-9
    layer = integer_layer(weight, np.array([0.5, -0.25, 0.0]), 0.01, 0.05, relu=False)
    x = rng.integers(-127, 128, (1, 4, 1, 1)).astype(np.int8)
    want = (weight[:, :, 0, 0] @ x[0, :, 0, 0] * 0.01 + [0.5, -0.25, 0.0]) / 0.05
    assert np.abs(layer(x).ravel() - np.clip(want, -128, 127)).max() <= 0.75
