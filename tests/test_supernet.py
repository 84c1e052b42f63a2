"""The supernet: subnets share its weights, and are the plain networks that they stand for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codesign_kernel import datasets, train
from codesign_kernel.errors import InputError
from codesign_kernel.space import Architecture, SearchSpace, load_space, space_of
from codesign_kernel.supernet import Subnet, Supernet, Unit, extract, recalibrate
from codesign_kernel.workload import layers_of, totals

DIGITS = load_space("digits")
# Everything that digits is not: colour, odd and unequal sides, a strided stem, narrowing stages,
# a depth that starts at two, and maps that end as small as a pixel.
ODD = space_of(
    {
        "name": "odd",
        "dataset": "images:odd",
        "input": [13, 10, 3],
        "classes": 4,
        "stem": {"width": 16, "kernel": 5, "stride": 2},
        "stages": [
            {"widths": [24, 40], "depths": [2, 3], "kernels": [3, 7], "stride": 2},
            {"widths": [8, 16], "depths": [1, 2], "kernels": [1, 3], "stride": 2},
            {"widths": [8], "depths": [1], "kernels": [1, 5], "stride": 2},
        ],
    }
)
SPACES = {"digits": DIGITS, "odd": ODD}


def supernet_of(space: SearchSpace, seed: int) -> Supernet:
    """A supernet in which no two numbers are alike, not even BN's scales and shifts."""
    torch.manual_seed(seed)
    channels = space.input[2]
    net = Supernet(
        space, [0.3 + 0.1 * c for c in range(channels)], [0.2 + 0.1 * c for c in range(channels)]
    )
    for parameter in net.parameters():
        if parameter.ndim < 4:
            nn.init.normal_(parameter, 0.5, 0.3)
    return net


def images_of(space: SearchSpace, n: int, seed: int) -> Tensor:
    height, width, channels = space.input
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def by_hand(
    net: Supernet, images: Tensor, architecture: Architecture
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits with batch statistics, and each BN's mean and unbiased variance, from the parameters
    and the definition of the space alone, in double precision."""
    space = net.space
    state = {name: value.double() for name, value in net.state_dict().items()}
    x = (images.double() - state["mean"]) / state["std"]
    plan = [(0, space.stem_width, space.stem_kernel, 0, space.stem_stride, False)]
    first = 1
    for stage, width, kernels in zip(
        space.stages, architecture.widths, architecture.kernels, strict=True
    ):
        for i, kernel in enumerate(kernels):
            row = stage.kernels.index(kernel)
            plan.append((first + i, width, kernel, row, 1 if i else stage.stride, i > 0))
        first += max(stage.depths)
    statistics = []
    for unit, filters, kernel, row, stride, residual in plan:
        weight = state[f"units.{unit}.weight"][:filters, : x.shape[1]]
        edge = (weight.shape[-1] - kernel) // 2
        weight = weight[:, :, edge : edge + kernel, edge : edge + kernel]
        y = F.conv2d(F.pad(x, [kernel // 2] * 4), weight, stride=stride)
        mean, variance = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), unbiased=False)
        statistics.append((mean, y.var(dim=(0, 2, 3), unbiased=True)))
        scale, shift = (state[f"units.{unit}.{n}"][row, :filters] for n in ("scale", "shift"))
        shape = (1, -1, 1, 1)
        y = (y - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
        y = y * scale.view(shape) + shift.view(shape)
        x = (y + x if residual else y).clamp(min=0)
    pooled = x.mean(dim=(2, 3))
    weight = state["classifier.weight"][:, : pooled.shape[1]]
    return pooled @ weight.T + state["classifier.bias"], statistics


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**31 - 1))
def test_supernet_and_extracted_subnet_compute_what_the_definition_says(
    space: SearchSpace, seed: int
) -> None:
    net, images = supernet_of(space, seed % 1000), images_of(space, 6, seed)
    architecture = space.decode(space.sample(1, np.random.default_rng(seed))[0])
    with torch.no_grad():
        expected, _ = by_hand(net, images, architecture)
        assert expected.shape == (6, space.classes)
        shared = net(images, architecture)
        plain = extract(net, architecture).train()(images)
    torch.testing.assert_close(shared.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain, shared, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_small_kernel_is_the_large_one_with_its_rim_at_zero(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    unit = Unit(filters=16, channels=8, kernels=[1, 3, 5, 7], stride=stride)
    x = torch.randn(4, 5, 9, 6)
    masked = torch.zeros_like(unit.weight)
    inner = slice((7 - kernel) // 2, (7 + kernel) // 2)
    masked[:, :, inner, inner] = unit.weight.detach()[:, :, inner, inner]
    y = F.conv2d(x, masked[:11, :5], stride=stride, padding=3)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / y.std((0, 2, 3), keepdim=True, unbiased=False)
    with torch.no_grad():
        torch.testing.assert_close(unit(x, 11, kernel, False), F.relu(y), rtol=1e-3, atol=1e-3)


def test_images_are_normalised_inside() -> None:
    one, other = supernet_of(ODD, 3), supernet_of(ODD, 3)
    other.mean.zero_()
    other.std.fill_(1)
    images, largest = images_of(ODD, 4, 0), ODD.decode(ODD.extremes()[1])
    mean, std = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.4])
    normal = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(one(images, largest), other(normal, largest))
    assert extract(one, largest).mean.flatten().tolist() == one.mean.flatten().tolist()
    assert extract(one, largest).std.flatten().tolist() == one.std.flatten().tolist()


def test_a_subnet_learns_in_its_share_of_the_weights_alone() -> None:
    net = supernet_of(DIGITS, 0)
    architecture = Architecture.parse("w8k3-w24k15")
    logits = net(images_of(DIGITS, 8, 0), architecture)
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(8)))
    # Unit: filters, channels and rim of the 5 x 5 weight that it uses, and its row of BN.
    share = {0: (8, 1, 0, 0), 1: (8, 8, 1, 1), 4: (24, 8, 2, 0), 5: (24, 24, 0, 2)}
    for i, unit in enumerate(net.units):
        assert isinstance(unit, Unit)
        if i not in share:
            assert [p.grad for p in unit.parameters()] == [None] * 3, i
            continue
        filters, channels, rim, row = share[i]
        for name, used in (
            ("weight", np.s_[:filters, :channels, rim : 5 - rim, rim : 5 - rim]),
            ("scale", np.s_[row, :filters]),
            ("shift", np.s_[row, :filters]),
        ):
            gradient = getattr(unit, name).grad.clone()
            assert gradient[used].abs().max() > 0, (i, name)
            gradient[used] = 0
            assert gradient.abs().max() == 0, (i, name)
    gradient = net.classifier.weight.grad
    assert gradient is not None
    assert gradient[:, :24].abs().min() > 0
    assert gradient[:, 24:].abs().max() == 0


def test_extraction_copies() -> None:
    net = supernet_of(DIGITS, 0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    subnet = extract(net, DIGITS.decode(DIGITS.extremes()[1]))
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.zero_()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_subnets_have_the_layers_of_the_workload(space: SearchSpace) -> None:
    genomes = np.concatenate([space.extremes(), space.sample(20, np.random.default_rng(1))])
    layers, (macs, parameters) = layers_of(space, genomes), totals(space, genomes)
    for row, genome in enumerate(genomes):
        subnet = Subnet(space, space.decode(genome)).eval()
        outputs: list[Tensor] = []
        for block in subnet.layers():
            block.convolution.register_forward_hook(lambda _m, _x, y, to=outputs: to.append(y))
        with torch.no_grad():
            assert subnet(images_of(space, 2, 0)).shape == (2, space.classes)
        there = np.flatnonzero(layers.filters[row])[:-1]  # the last one is the classifier
        counted = space.classes * subnet.classifier.in_features
        for i, block, y in zip(there, subnet.layers(), outputs, strict=True):
            assert block.convolution.weight.numel() == layers.weights[row, i]
            assert tuple(y.shape[1:]) == tuple(
                int(getattr(layers, name)[row, i]) for name in ("filters", "height", "width")
            )
            assert block.residual == layers.residual[row, i]
            counted += y[0].numel() * block.convolution.weight[0].numel()
        assert counted == macs[row]
        # The workload folds BN into one bias a filter; unfolded it is a scale and a shift.
        unfolded = parameters[row] + layers.filters[row, there].sum()
        assert sum(p.numel() for p in subnet.parameters()) == unfolded


def test_supernet_is_as_large_as_its_largest_subnet_but_for_bn() -> None:
    largest = Subnet(DIGITS, DIGITS.decode(DIGITS.extremes()[1]))
    shared = [p.numel() for p in Supernet(DIGITS, [0.0], [1.0]).parameters() if p.ndim == 4]
    assert shared == [p.numel() for p in largest.parameters() if p.ndim == 4]


@pytest.mark.parametrize(
    ("n", "sizes"), [(200, [200]), (256, [256]), (257, [129, 128]), (600, [200, 200, 200])]
)
def test_recalibration_averages_the_statistics_of_even_batches(n: int, sizes: list[int]) -> None:
    net, images = supernet_of(DIGITS, 1), images_of(DIGITS, n, 1)
    # Batches that differ, so that an average weighted otherwise would show.
    images *= torch.linspace(0.2, 1, n).view(-1, 1, 1, 1)
    architecture = Architecture.parse("w16k31-w24k3")
    subnet = recalibrate(extract(net, architecture), images)
    assert not any(module.training for module in subnet.modules())
    found = [by_hand(net, part, architecture)[1] for part in torch.split(images, sizes)]
    assert len(found[0]) == len(subnet.layers())
    for i, block in enumerate(subnet.layers()):
        for got, which in ((block.norm.running_mean, 0), (block.norm.running_var, 1)):
            assert got is not None
            expected = torch.stack([batch[i][which] for batch in found]).mean(dim=0)
            torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-4)


def test_recalibration_forgets_what_was_before_and_leaves_the_weights() -> None:
    net = supernet_of(DIGITS, 1)
    subnet = recalibrate(extract(net, Architecture.parse("w8k3-w16k3")), images_of(DIGITS, 300, 1))
    expected = {name: value.clone() for name, value in subnet.state_dict().items()}
    recalibrate(subnet, images_of(DIGITS, 100, 2))
    changed = {n for n, value in subnet.state_dict().items() if not torch.equal(value, expected[n])}
    assert {name.split(".")[-1] for name in changed} == {
        "running_mean", "running_var", "num_batches_tracked"
    }  # fmt: skip
    recalibrate(subnet, images_of(DIGITS, 300, 1))
    for name, value in subnet.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_recalibration_leaves_no_image_alone_in_a_batch() -> None:
    # BN has no variance over one image whose map is one pixel.
    space = space_of(
        {
            "name": "dot", "dataset": "images:dot", "input": [2, 2, 1], "classes": 2,
            "stem": {"width": 8, "kernel": 3, "stride": 2},
            "stages": [{"widths": [8], "depths": [1], "kernels": [3], "stride": 1}],
        }
    )  # fmt: skip
    subnet = extract(supernet_of(space, 0), Architecture.parse("w8k3"))
    assert recalibrate(subnet, images_of(space, 257, 0))(images_of(space, 1, 1)).shape == (1, 2)


def test_accuracy_collapses_without_recalibration(tmp_path: Path) -> None:
    digits = datasets.load("digits")
    preset = train.Preset(steps=40, batch=32, random=1)
    net = train.train(DIGITS, digits, "quick", 0, tmp_path / "net", preset=preset)
    calibration = train.calibration_images(digits)
    with_it, without = [], []
    for genome in DIGITS.sample(8, np.random.default_rng(0)):
        subnet = extract(net, DIGITS.decode(genome)).eval()
        without.append(train.accuracy(subnet, digits.validation))
        with_it.append(train.accuracy(recalibrate(subnet, calibration), digits.validation))
    assert np.mean(with_it) > np.mean(without) + 20


@pytest.mark.parametrize(
    "text", ["w8k3", "w12k3-w16k3", "w8k7-w16k3", "w8k3333-w16k3", "w8k1-w16k3"]
)
def test_an_architecture_of_another_space_is_refused(text: str) -> None:
    architecture = Architecture.parse(text)
    with pytest.raises(InputError, match=r"w\d+k\d+.*\."):
        extract(supernet_of(DIGITS, 0), architecture)
    with pytest.raises(InputError, match=r"w\d+k\d+.*\."):
        Subnet(replace(DIGITS, name="other"), architecture)
