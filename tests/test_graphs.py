"""Training by steps that can be captured as a CUDA graph, here run as they are on the CPU.

The oracle is the ordinary training loop: the same images in the same order, and the same weights.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign_kernel.batches import batch, indices, to_tensor
from codesign_kernel.datasets import ArraySplit, Dataset, load
from codesign_kernel.errors import InputError
from codesign_kernel.graphs import Batches, Loss, Step, fit
from codesign_kernel.space import Architecture, load_space
from codesign_kernel.supernet import Subnet
from codesign_kernel.train import (
    Preset,
    channels_last,
    optimiser_of,
    rate_at,
)

CPU = torch.device("cpu")
PRESET = Preset(steps=40, batch=48, rate=0.1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def network_of(dataset: Dataset) -> Subnet:
    torch.manual_seed(1)
    network = Subnet(load_space("digits"), Architecture.parse("w8k3-w16k31"))
    network.mean.fill_(float(dataset.mean[0]))
    network.std.fill_(float(dataset.std[0]))
    return channels_last(network.train())


def plain(network: nn.Module) -> Loss:
    return lambda images, labels, order: F.cross_entropy(network(images), labels)


def step_of(network: nn.Module, dataset: Dataset, preset: Preset, peak: float = 0.1) -> Step:
    rates = [rate_at(preset, step, preset.steps, peak) for step in range(preset.steps)]
    batches = Batches(dataset, preset, preset.steps, 5, CPU)
    return Step(network, optimiser_of(network, preset, True), plain(network), batches, rates)


def trained(dataset: Dataset, preset: Preset) -> Subnet:
    """The ordinary loop."""
    network = network_of(dataset)
    optimiser = optimiser_of(network, preset)
    for step in range(preset.steps):
        images, labels = batch(dataset, preset.batch, 5, step, preset.augment)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(preset, step, preset.steps, 0.1)
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        optimiser.step()
    return network


def assert_same_weights(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    for name, weights in one.named_parameters():
        expected = other.get_parameter(name)
        torch.testing.assert_close(weights, expected, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", ["cifar10", "digits"])  # the latter are not mirrored
@pytest.mark.parametrize("augment", [False, True])
def test_batches_are_those_of_training(digits: Dataset, name: str, augment: bool) -> None:
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.integers(0, 256, (70, 50, 36, 3), np.uint8), rng.integers(0, 10, 70))
    dataset = replace(digits, name=name, train=split, shape=(50, 36, 3))
    preset = replace(PRESET, augment=augment)
    batches = Batches(dataset, preset, 12, 5, CPU)
    for step in range(12):
        images, labels, order = batches(torch.tensor([step]))
        expected_images, expected_labels = batch(dataset, 48, 5, step, augment)
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)
        assert images.stride() == expected_images.stride()
        assert order.tolist() == indices(70, 48, 5, step).tolist()
        if not augment:
            assert torch.equal(images, to_tensor(split.images[order.numpy()]))


def test_steps_are_those_of_the_ordinary_loop(digits: Dataset) -> None:
    preset = replace(PRESET, steps=6, decay=0.01)
    network = network_of(digits)
    step = step_of(network, digits, preset)
    for _ in range(6):
        step()
    assert_same_weights(network, trained(digits, preset), 1e-6)


def test_a_step_that_was_rewound_leaves_no_trace(digits: Dataset) -> None:
    one, other = network_of(digits), network_of(digits)
    step, fresh = step_of(one, digits, PRESET), step_of(other, digits, PRESET)
    for _ in range(3):
        step()
        step.rewind()
    assert_same_weights(one, other, 0)
    for _ in range(3):
        step()
        fresh()
    assert_same_weights(one, other, 1e-7)


def test_a_fit_trains_as_the_ordinary_loop_and_leaves_the_norms_alone(digits: Dataset) -> None:
    network = network_of(digits)
    seen: list[float | None] = []
    network.layers()[0].norm.register_forward_pre_hook(lambda norm, _: seen.append(norm.momentum))
    fit(step_of(network, digits, PRESET), "test")
    assert seen == [0.1] * PRESET.steps  # None cannot be captured
    assert {block.norm.momentum for block in network.layers()} == {None}
    assert_same_weights(network, trained(digits, PRESET), 1e-4)


def test_divergence_is_named(digits: Dataset) -> None:
    with pytest.raises(InputError, match=r"training diverged: .* not finite at step 39"):
        fit(step_of(network_of(digits), digits, PRESET, peak=1e30), "test")


def test_any_network_can_be_fitted(digits: Dataset) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(*body, nn.Linear(288, 10))
    step = step_of(network, digits, PRESET)
    fit(step, "test")
    assert isinstance(step.loss, Tensor)
    assert float(step.loss) < 0.5
