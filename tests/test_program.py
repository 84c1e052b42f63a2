"""The compiler: what it puts where in memory, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.errors import InputError
from codesign_kernel.integer import IntegerLayer, IntegerNetwork
from codesign_kernel.program import compile_network
from codesign_kernel.rtl.shape import FIELDS, TASK_BITS, Shape, pack


def layer(filters: int, channels: int, kernel: int, stride: int = 1) -> IntegerLayer:
    rng = np.random.default_rng(0)
    return IntegerLayer(
        rng.integers(-127, 128, (filters, channels, kernel, kernel)).astype(np.int8),
        np.arange(filters) - 2, np.arange(filters) + 7, np.arange(filters) % 16, stride,
    )  # fmt: skip


def tasks(image: bytes, count: int) -> list[dict[str, int]]:
    """Read task descriptors back, 64 bytes each."""
    found = []
    for i in range(count):
        word, values = int.from_bytes(image[64 * i : 64 * i + 64], "little"), {}
        for name, bits in FIELDS.items():
            values[name] = word & ((1 << bits) - 1)
            word >>= bits
        found.append(values)
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["8x8x1w16f4", "4x4x2w8f8", "8x4x4w32f16"]), st.integers(1, 40),
    st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3, 5, 7]), st.integers(1, 2),
)  # fmt: skip
def test_tiles_cover_each_output_row_once(
    accelerator: str, channels: int, height: int, width: int, kernel: int, stride: int
) -> None:
    network = IntegerNetwork([layer(8, channels, kernel, stride)], (channels, height, width))
    shape = Shape(Accelerator.parse(accelerator))
    try:
        program = compile_network(network, shape)
    except InputError as error:
        assert "half the feature buffer" in str(error)  # noqa: PT017
        return
    target, row = program.maps[1], 0
    found = tasks(program.image, len(program.layer_of_task))
    for task in found:
        assert task["o_addr"] == target.address + row * target.width
        assert task["o_valid"] % target.width == 0
        row += task["o_valid"] // target.width
        assert (task["i_planes"] + 1) * task["i_len"] <= shape.strip * shape.banks
    assert row == target.height
    assert [task["last"] for task in found] == [0] * (len(found) - 1) + [1]


def test_maps_go_in_and_come_out_in_planes_of_the_port() -> None:
    network = IntegerNetwork([layer(3, 11, 1)], (11, 4, 5))
    program = compile_network(network, Shape(Accelerator.parse("8x8x1w16f16")))
    x = np.random.default_rng(1).integers(-128, 128, (11, 4, 5)).astype(np.int8)
    memory = program.with_input(x)
    np.testing.assert_array_equal(program.read_map(memory, 0), x)
    start = program.maps[0].address * 8
    assert np.frombuffer(memory[start : start + 8], np.int8).tolist() == x[:8, 0, 0].tolist()
    second = start + 4 * 5 * 8  # the plane of the last three channels
    last = np.frombuffer(memory[second : second + 8], np.int8).tolist()
    assert last == [*x[8:, 0, 0].tolist(), 0, 0, 0, 0, 0]


def test_parameters_come_before_the_words_of_each_filter_group() -> None:
    made = layer(8, 8, 1)
    program = compile_network(
        IntegerNetwork([made], (8, 2, 2)), Shape(Accelerator.parse("4x8x1w8f8"))
    )
    start = tasks(program.image, 1)[0]["w_addr"] * 8
    first = int.from_bytes(program.image[start : start + 8], "little")
    assert (first & 0xFFFFFFFF, first >> 32 & 0x1FFFF, first >> 49) == ((1 << 32) - 2, 7, 0)
    words = np.frombuffer(program.image[start + 32 : start + 64], np.int8).reshape(4, 8)
    np.testing.assert_array_equal(words, made.weight[:4, :, 0, 0])
    assert tasks(program.image, 1)[0]["fgs"] == 1


def test_a_number_without_room_in_the_task_is_told() -> None:
    values = dict.fromkeys(FIELDS, 0) | {"groups": 1024}
    with pytest.raises(
        InputError, match="groups of a task is 1024, but the engine holds only 0 to"
    ):
        pack(values, 8)


def test_beats_of_weights_that_the_loader_cannot_count_are_told() -> None:
    made, shape = layer(32, 4000, 7), Shape(Accelerator.parse("32x16x1w8192f256"), 32)
    with pytest.raises(InputError) as caught:
        compile_network(IntegerNetwork([made], (4000, 7, 7)), shape)
    assert str(caught.value) == (
        "layer 0 has 1,568,064 beats of weights in a filter group, but the engine counts to "
        "1,048,575."
    )


@pytest.mark.parametrize(
    ("text", "port", "words"),
    [
        ("6x8x1w16f16", 64, "pf of 6x8x1w16f16 is 6, but must be a power of two"),
        ("2x2x1w16f16", 64, "PF x PC of 2x2x1w16f16 is 4, but must be at least the 8 bytes"),
        ("8x8x1w16f16", 48, "memory port of the engine in bits is 48"),
        ("64x64x1w16f16", 64, "the buffers of 64x64x1w16f16 are too small"),
    ],
)
def test_shapes_that_cannot_be_built_are_told(text: str, port: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Shape(Accelerator.parse(text), port)


def test_free_bits_of_a_task_are_as_many_as_is_said() -> None:
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"of which {TASK_BITS - sum(FIELDS.values())} are free" in text
