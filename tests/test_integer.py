"""The int8 reference, against PyTorch's convolution in double precision and exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel.errors import InputError
from codesign_kernel.integer import IntegerLayer, IntegerNetwork, of_layers, requantise
from codesign_kernel.networks import load_network
from codesign_kernel.space import load_space
from codesign_kernel.workload import layers_of


def layer(seed: int, filters: int, channels: int, kernel: int, **rest: object) -> IntegerLayer:
    rng = np.random.default_rng(seed)
    return IntegerLayer(
        rng.integers(-127, 128, (filters, channels, kernel, kernel)).astype(np.int8),
        rng.integers(-(1 << 20), 1 << 20, filters),
        rng.integers(0, 1 << 17, filters),
        rng.integers(0, 16, filters),
        **rest,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 2), st.integers(1, 11), st.integers(1, 11),
)  # fmt: skip
def test_sums_are_those_of_pytorch(
    seed: int, filters: int, channels: int, kernel: int, stride: int, height: int, width: int
) -> None:
    made = layer(seed, filters, channels, kernel, stride=stride)
    x = np.random.default_rng(seed).integers(-128, 128, (2, channels, height, width))
    want = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(made.weight).double(),
        stride=stride, padding=kernel // 2,
    )  # fmt: skip
    found = made.sums(x.astype(np.int8))
    np.testing.assert_array_equal(found, want.numpy().astype(np.int64))
    assert found.shape[2:] == made.output(height, width)


def test_pooled_layer_sums_the_whole_map() -> None:
    made = layer(1, 3, 2, 1, pooled=True, relu=False)
    x = np.random.default_rng(0).integers(-128, 128, (4, 2, 5, 3)).astype(np.int8)
    want = (
        torch.from_numpy(x).double().sum((2, 3))
        @ torch.from_numpy(made.weight[:, :, 0, 0]).double().T
    )
    np.testing.assert_array_equal(made.sums(x)[:, :, 0, 0], want.numpy().astype(np.int64))


@given(
    st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, (1 << 17) - 1), st.integers(0, 15),
    st.integers(-(1 << 29), (1 << 29) - 1),
)  # fmt: skip
def test_requantise_rounds_the_exact_fraction(
    total: int, multiplier: int, shift: int, extra: int
) -> None:
    short = max(-(1 << 17), min((1 << 17) - 1, floor(Fraction(total, 1 << shift))))
    exact = Fraction(short * multiplier + extra, 1 << 22)
    want = max(-128, min(127, floor(exact + Fraction(1, 2))))
    found = requantise(np.array(total), np.array(multiplier), np.array(shift), extra)
    assert int(found) == want


def test_residual_is_halved_and_relu_cuts_at_nought() -> None:
    zero = np.zeros((1, 1, 1, 1), np.int8)
    nought = np.zeros(1, np.int64)
    x = np.array([-100, -3, 0, 5, 100], np.int8).reshape(1, 1, 1, 5)
    plain = IntegerLayer(zero, nought, nought, nought, residual=True, halve=1, relu=False)
    assert plain(x).ravel().tolist() == [-50, -1, 0, 3, 50]
    cut = IntegerLayer(zero, nought, nought, nought, residual=True, halve=1)
    assert cut(x).ravel().tolist() == [0, 0, 0, 3, 50]


@pytest.mark.parametrize(
    ("filters", "channels", "kernel", "rest", "words"),
    [
        (2, 2, 4, {}, "must be 1 x 1, 3 x 3"),
        (2, 3, 1, {"residual": True}, "must have stride 1 and as many of both"),
        (2, 2, 3, {"pooled": True}, "kernel of a pooled layer is 3, but must be 1"),
    ],
)
def test_layers_that_make_no_sense_are_refused(
    filters: int, channels: int, kernel: int, rest: dict[str, bool], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        layer(0, filters, channels, kernel, **rest)


def test_numbers_without_room_and_layers_that_do_not_meet_are_refused() -> None:
    with pytest.raises(InputError, match="multiplier of a layer must be from 0 to 131071"):
        IntegerLayer(np.zeros((1, 1, 1, 1), np.int8), *(np.array([n]) for n in (0, 1 << 17, 0)))
    with pytest.raises(InputError, match="layer 1 reads 4 channels, but there are 2"):
        IntegerNetwork([layer(0, 2, 1, 1), layer(0, 2, 4, 1)], (1, 4, 4))


def test_network_of_layers_has_their_bounds() -> None:
    space = load_space("digits")
    for genome in space.sample(5, np.random.default_rng(0)):
        layers = layers_of(space, genome[None])
        made = of_layers(layers)
        found = [layer.weight.size for layer in made.layers]
        assert found == [n for n in layers.weights[0].tolist() if n]
        assert sum(layer.residual for layer in made.layers) == layers.residual.sum()
        height, width, channels = space.input
        assert made.input == (channels, height, width)
        assert made.layers[-1].pooled
        assert made(np.zeros((1, *made.input), np.int8)).shape == (1, space.classes, 1, 1)


def test_grouped_layers_make_no_network() -> None:
    with pytest.raises(InputError, match="square, ungrouped convolutions only"):
        of_layers(load_network("mobilenetv2").layers)
