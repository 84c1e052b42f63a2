"""Layers against a network worked out by hand, and against PyTorch's own view of real networks."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import spaces
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from codesign_kernel.space import Architecture, SearchSpace, load_space, space_of
from codesign_kernel.supernet import Subnet
from codesign_kernel.workload import Layers, layers_of, totals

SEEDS = st.integers(0, 2**32 - 1)
# Layers of a search space have square kernels and no groups.
OF_OTHERS = ("names", "kernel_width", "pools", "irregular", "repeat")
FIELDS = [field.name for field in fields(Layers) if field.name not in OF_OTHERS]


def test_a_network_worked_out_by_hand() -> None:
    space = load_space("fashion")
    genome = space.encode(Architecture.parse("w16k35-w8k3-w24k131"))
    layers = layers_of(space, genome[None])
    there = layers.filters[0] > 0
    rows = {
        name: [int(getattr(layers, field)[0, i]) for field in FIELDS]
        for i, name in enumerate(layers.names)
        if there[i]
    }
    # Maps: 28 -> 14 by the stem, 14 -> 7 and 7 -> 4 by the second and third stage.
    assert rows == {
        #             F   C   in      out     K  S  residual
        "stem":       [8, 1, 28, 28, 14, 14, 3, 2, 0],
        "s1b1":       [16, 8, 14, 14, 14, 14, 3, 1, 0],
        "s1b2":       [16, 16, 14, 14, 14, 14, 5, 1, 1],
        "s2b1":       [8, 16, 14, 14, 7, 7, 3, 2, 0],
        "s3b1":       [24, 8, 7, 7, 4, 4, 1, 2, 0],
        "s3b2":       [24, 24, 4, 4, 4, 4, 3, 1, 1],
        "s3b3":       [24, 24, 4, 4, 4, 4, 1, 1, 1],
        "classifier": [10, 24, 1, 1, 1, 1, 1, 1, 0],
    }  # fmt: skip
    assert layers.macs[0, there].tolist() == [
        14_112, 225_792, 1_254_400, 56_448, 3_072, 82_944, 9_216, 240,
    ]  # fmt: skip
    assert layers.weights[0, there].tolist() == [72, 1_152, 6_400, 1_152, 192, 5_184, 576, 240]
    assert layers.inputs[0, there].tolist() == [784, 1_568, 3_136, 3_136, 392, 384, 384, 24]
    assert layers.outputs[0, there].tolist() == [1_568, 3_136, 3_136, 392, 384, 384, 384, 10]
    assert layers.parameters[0, there].tolist() == [80, 1_168, 6_416, 1_160, 216, 5_208, 600, 250]
    macs, parameters = totals(space, genome[None])
    assert (macs.tolist(), parameters.tolist()) == ([1_646_224], [15_098])


class Additions(TorchFunctionMode):
    """Counts the additions of one feature map to another."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "add" in func.__name__ and all(map(torch.is_tensor, args))
        return func(*args, **(kwargs or {}))


def traced(network: nn.Module, space: SearchSpace) -> tuple[list[dict[str, int]], int, int]:
    """The layers that a real forward pass runs, in order, its FLOPs by PyTorch, its additions."""
    rows: list[dict[str, int]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        sides = [side for x in (inputs[0], output) for side in ([*x.shape[2:]] or [1, 1])]
        rows.append(
            {
                "filters": weight.shape[0],
                "channels": weight.shape[1],
                "in_height": sides[0],
                "in_width": sides[1],
                "height": sides[2],
                "width": sides[3],
                "kernel": weight.shape[2] if weight.dim() == 4 else 1,
                "stride": module.stride[0] if isinstance(module, nn.Conv2d) else 1,
                "weights": weight.numel(),
                "inputs": inputs[0].numel(),
                "outputs": output.numel(),
            }
        )

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    height, width, channels = space.input
    with FlopCounterMode(display=False) as flops, Additions() as added, torch.no_grad():
        network.eval()(torch.zeros(1, channels, height, width))
    return rows, flops.get_total_flops(), added.count


def assert_is_the_network(space: SearchSpace, genome: np.ndarray) -> None:
    layers = layers_of(space, genome[None])
    rows, flops, additions = traced(Subnet(space, space.decode(genome)), space)
    there = layers.filters[0] > 0
    found = {key: getattr(layers, key)[0, there].tolist() for key in rows[0]}
    assert found == {key: [row[key] for row in rows] for key in rows[0]}
    assert 2 * layers.macs.sum() == flops
    assert layers.residual.sum() == additions
    # A bias a filter stands for the two numbers a filter of batch normalisation, once folded in.
    assert layers.parameters[0, there].tolist() == [row["weights"] + row["filters"] for row in rows]


@pytest.mark.parametrize("name", ["digits", "fashion", "cifar"])
def test_layers_are_those_of_the_real_network(name: str) -> None:
    space = load_space(name)
    genomes = [*space.extremes(), *space.sample(12, np.random.default_rng(0))]
    for genome in genomes:
        assert_is_the_network(space, genome)


@settings(max_examples=30)
@given(spaces(), SEEDS)
def test_layers_are_those_of_the_real_network_in_any_space(space: SearchSpace, seed: int) -> None:
    assert_is_the_network(space, space.sample(1, np.random.default_rng(seed))[0])


@given(spaces(), SEEDS)
def test_many_networks_are_as_each_alone(space: SearchSpace, seed: int) -> None:
    genomes = space.sample(5, np.random.default_rng(seed))
    together = layers_of(space, genomes)
    for i in range(5):
        alone = layers_of(space, genomes[i : i + 1])
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(together, field)[i], getattr(alone, field)[0])
    assert together.names == alone.names
    for sums, field in zip(totals(space, genomes), ("macs", "parameters"), strict=True):
        np.testing.assert_array_equal(sums, getattr(together, field).sum(axis=1))


@given(spaces(), SEEDS)
def test_absent_layers_count_nothing(space: SearchSpace, seed: int) -> None:
    genomes = space.sample(8, np.random.default_rng(seed))
    layers = layers_of(space, genomes)
    absent = layers.filters == 0
    for field in ("macs", "weights", "inputs", "outputs", "parameters", "channels", "residual"):
        assert not getattr(layers, field)[absent].any()
    depths = [sum(map(len, space.decode(genome).kernels)) for genome in genomes]
    assert (~absent).sum(axis=1).tolist() == [2 + depth for depth in depths]


@given(spaces(), SEEDS)
def test_every_block_but_the_first_of_its_stage_is_residual(space: SearchSpace, seed: int) -> None:
    layers = layers_of(space, space.sample(8, np.random.default_rng(seed)))
    first = np.array([name[-2:] == "b1" or name in ("stem", "classifier") for name in layers.names])
    np.testing.assert_array_equal(layers.residual, (layers.filters > 0) & ~first)
    added = layers.residual > 0
    np.testing.assert_array_equal(layers.inputs[added], layers.outputs[added])


def test_no_networks_have_no_layers() -> None:
    space = load_space("digits")
    layers = layers_of(space, np.zeros((0, len(space.radix)), np.int64))
    assert layers.macs.shape == (0, len(layers.names))


def test_the_largest_network_that_a_space_may_hold_is_counted_without_overflow() -> None:
    stage: dict[str, Any] = {"widths": [4096], "depths": [16], "kernels": [7], "stride": 1}
    space = space_of(
        {
            "name": "huge",
            "dataset": "none",
            "input": [4096, 4096, 4096],
            "classes": 65_536,
            "stem": {"width": 4096, "kernel": 7, "stride": 1},
            "stages": [stage] * 16,
        }
    )
    macs, parameters = totals(space, space.extremes()[1][None])
    # Python's whole numbers have no largest one: the stem and 256 blocks, then the classifier.
    assert int(macs[0]) == 257 * 4096**4 * 49 + 65_536 * 4096
    assert int(parameters[0]) == 257 * (4096**2 * 49 + 4096) + 65_536 * 4097


@given(
    st.lists(st.tuples(*[st.integers(1, 6)] * 4, *[st.integers(1, 5)] * 2), min_size=1, max_size=4)
)
def test_groups_and_kernels_of_any_shape_count_as_in_pytorch(
    rows: list[tuple[int, int, int, int, int, int]],
) -> None:
    filters, channels, kernel, wide, groups, more = np.array(rows).T
    height, width = kernel + more, wide + more
    layers = Layers(
        tuple(map(str, range(len(rows)))), filters, channels, height, width, more + 1, more + 1,
        kernel, np.ones_like(kernel), np.zeros_like(kernel), wide, repeat=groups,
    )  # fmt: skip
    for i in range(len(rows)):
        whole = groups[i] * channels[i], groups[i] * filters[i], (kernel[i], wide[i])
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            layer = nn.Conv2d(*whole, groups=groups[i])
            image = torch.zeros(1, groups[i] * channels[i], height[i], width[i])
            answer = layer(image)
        assert 2 * layers.macs[i] == flops.get_total_flops()
        assert layers.weights[i] == layer.weight.numel()
        assert layers.parameters[i] == sum(each.numel() for each in layer.parameters())
        assert (layers.inputs[i], layers.outputs[i]) == (image.numel(), answer.numel())


def test_once_is_one_of_the_groups() -> None:
    one = layers_of(load_space("digits"), load_space("digits").extremes()[0][None])
    many = replace(one, repeat=np.full(one.filters.shape, 7))
    for figure in ("macs", "weights", "inputs", "outputs", "parameters"):
        np.testing.assert_array_equal(getattr(many, figure), 7 * getattr(one, figure))
        np.testing.assert_array_equal(getattr(many.once, figure), getattr(one, figure))
