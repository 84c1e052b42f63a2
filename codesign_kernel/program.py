"""Compile an int8 network for an engine: tasks, the weights' order, and the memory map.

A layer whose maps do not fit the feature buffer is cut into tiles of whole rows; each tile is a
task. Memory holds the tasks, then each layer's weights, then all maps, in beats of the port.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import InputError
from .integer import IntegerLayer, IntegerNetwork
from .rtl.shape import (
    ADDRESS_BITS,
    BEATS,
    BURST,
    MULTIPLIER_BITS,
    PARAM_BYTES,
    PIXELS,
    SIDE,
    TAPS,
    TASK_BITS,
    WORDS,
    Shape,
    pack,
)


class Map(NamedTuple):
    """A feature map in memory: its first beat, and its size."""

    address: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Program:
    """What the engine runs: the `image` of memory, where maps are, and each task's layer."""

    shape: Shape
    image: bytes
    maps: tuple[Map, ...]
    layer_of_task: tuple[int, ...]

    def with_input(self, x: np.ndarray) -> bytes:
        """Return the memory with an int8 image (C, H, W) in place of the first map."""
        assert x.shape == self.maps[0][1:]
        beats, start = self.beats(x), self.maps[0].address * self.shape.port_bytes
        return self.image[:start] + beats + self.image[start + len(beats) :]

    def beats(self, x: np.ndarray) -> bytes:
        """Return an int8 map (C, H, W) as it is in memory."""
        size, (channels, height, width) = self.shape.port_bytes, x.shape
        planes = -(-channels // size)
        full = np.zeros((planes * size, height, width), np.int8)
        full[:channels] = x
        return full.reshape(planes, size, -1).transpose(0, 2, 1).tobytes()

    def read_map(self, memory: bytes, which: int = -1) -> np.ndarray:
        """Return a map, (C, H, W) int8, from the memory after a run: the output if not said."""
        place, size = self.maps[which], self.shape.port_bytes
        planes, pixels = -(-place.channels // size), place.height * place.width
        start = place.address * size
        raw = np.frombuffer(memory[start : start + planes * pixels * size], np.int8)
        full = raw.reshape(planes, pixels, size).transpose(0, 2, 1).reshape(planes * size, pixels)
        return full[: place.channels].reshape(place[1:])


def compile_network(network: IntegerNetwork, shape: Shape) -> Program:
    """Return the program of a network. Raises InputError if the engine cannot run a layer."""
    size = shape.port_bytes
    channels, height, width = network.input
    tiles = []
    sides = (height, width)
    for i, layer in enumerate(network.layers):
        tiles.append(_tiles(f"layer {i}", layer, *sides, shape))
        sides = layer.output(*sides)
    tasks = sum(len(part) for part in tiles)
    address = tasks * TASK_BITS // 8 // size
    weights, where = [], []
    for layer in network.layers:
        weights.append(_weights(layer, shape))
        where.append(address)
        address += len(weights[-1]) // size
    maps = [Map(address, channels, height, width)]
    for layer in network.layers:
        last = maps[-1]
        address += -(-last.channels // size) * last.height * last.width
        maps.append(Map(address, layer.weight.shape[0], *layer.output(*last[2:])))
    last = maps[-1]
    address += -(-last.channels // size) * last.height * last.width
    if address >= 1 << ADDRESS_BITS:
        raise InputError(f"the network takes {address * size:,} bytes, more than the engine sees.")
    packed, layer_of_task = [], []
    for i, (layer, rows) in enumerate(zip(network.layers, tiles, strict=True)):
        for first, tile in enumerate(rows):
            ends = i == len(network.layers) - 1 and first == len(rows) - 1
            values = _task(layer, maps[i], maps[i + 1], where[i], tile, shape)
            values |= {"last": int(ends), "wait": int(i > 0 and first == 0)}
            packed.append(pack(values, size))
            layer_of_task.append(i)
    image = b"".join([*packed, *weights])
    return Program(
        shape, image + bytes(address * size - len(image)), tuple(maps), tuple(layer_of_task)
    )


class Tile(NamedTuple):
    """Output rows of one task: the first, how many, and how many of them each lane has."""

    first: int
    rows: int
    strip: int


def _taps(layer: IntegerLayer, height: int, width: int) -> tuple[int, int, int]:
    """Return the taps down and across, and the padding."""
    if layer.pooled:
        return height, width, 0
    kernel = layer.weight.shape[-1]
    return kernel, kernel, kernel // 2


def strip_rows(tile_strip: int, stride: int, taps: int) -> int:
    """Return how many input rows a lane needs for that many output rows."""
    return (tile_strip - 1) * stride + taps


def _tiles(name: str, layer: IntegerLayer, height: int, width: int, shape: Shape) -> list[Tile]:
    filters, channels, kernel, _ = layer.weight.shape
    down, across, _ = _taps(layer, height, width)
    groups, stride = -(-channels // shape.pc), layer.stride
    words = groups * (1 if layer.pooled else kernel * kernel)
    beside = max(0, down - stride)  # rows that a tile reads beside those of its strides
    for what, value, most in (
        ("pixels on a side of its map", max(height, width), SIDE),
        ("taps on a side", max(down, across), TAPS),
        ("words of weights in a filter group", words, WORDS),
        ("beats of weights in a filter group", shape.group_beats(words), BEATS),
        ("channels", channels, shape.most_channels),
        ("filters", filters, shape.most_filters),
        ("pixels in the least rows of a tile", (shape.pv * stride + beside) * width, PIXELS),
    ):
        if value > most:
            raise InputError(f"{name} has {value:,} {what}, but the engine counts to {most:,}.")
    if words > shape.weight_words:
        raise InputError(
            f"{name} has {words} words of weights in a filter group, but the weight buffer of "
            f"{shape.accelerator} holds only {shape.weight_words}."
        )
    out_rows, _ = layer.output(height, width)
    planes = -(-channels // (shape.port_bytes * shape.banks))
    counted = min(SIDE // stride, (PIXELS // width - beside) // (shape.pv * stride))
    for strip in range(min(counted, -(-out_rows // shape.pv)), 0, -1):
        if planes * strip_rows(strip, stride, down) * width <= shape.strip:
            break
    else:
        raise InputError(
            f"{name} needs {planes * down * width} pixels of one lane in half the feature buffer, "
            f"but {shape.accelerator} holds only {shape.strip}."
        )
    tiles = -(-out_rows // (strip * shape.pv))
    rows = -(-out_rows // tiles)  # even tiles
    return [
        Tile(first, min(rows, out_rows - first), -(-min(rows, out_rows - first) // shape.pv))
        for first in range(0, out_rows, rows)
    ]


def _task(layer: IntegerLayer, source: Map, target: Map, weights: int, tile: Tile,
          shape: Shape) -> dict[str, int]:  # fmt: skip
    filters, channels, _, _ = layer.weight.shape
    down, across, pad = _taps(layer, source.height, source.width)
    size, stride = shape.port_bytes, layer.stride
    width, height = source.width, source.height
    deep = strip_rows(tile.strip, stride, down)
    top = tile.first * stride - pad
    first_row = max(0, top)
    last_row = min(height, top + (shape.pv - 1) * tile.strip * stride + deep)
    groups = -(-channels // shape.pc)
    count = (last_row - first_row) * width
    chunk = max(1, BURST // width) * width  # whole rows, and no bursts much shorter than allowed
    # Commands of one beat can end faster than the loader of maps counts planes: one beat more is
    # read then, of a pixel that no lane takes or that is outside the image.
    rest = max(2, (count - 1) % chunk + 1)
    step = tile.strip * stride * width
    return {
        "residual": int(layer.residual), "shared": int(layer.pooled), "relu": int(layer.relu),
        "halve": layer.halve, "w_addr": weights,
        "w_words": groups * (1 if layer.pooled else down * across),
        "fgs": -(-filters // shape.pf) - 1,
        "i_addr": source.address + first_row * width, "i_pitch": height * width,
        "i_planes": -(-channels // size) - 1, "i_chunk": chunk,
        "i_chunks": -(-count // chunk) - 1, "i_rest": rest,
        "i_first": (first_row - top) * width, "i_step": step, "i_len": deep * width,
        "i_need": down * width + (shape.pv - 1) * step,
        "groups": groups - 1, "kernel_w": across - 1, "kernel_h": down - 1,
        "out_w": target.width - 1, "rows": tile.strip - 1, "double": stride - 1,
        "in_w": width, "in_h": height, "pad": pad, "y0": top,
        "lane_rows": tile.strip * stride,
        "o_addr": target.address + tile.first * target.width,
        "o_pitch": target.height * target.width, "o_planes": -(-filters // size) - 1,
        "o_strip": tile.strip * target.width, "o_valid": tile.rows * target.width,
    }  # fmt: skip


def _weights(layer: IntegerLayer, shape: Shape) -> bytes:
    """Return the filter groups one after another: PF parameters, then words of PF x PC bytes, for
    each tap the channel groups."""
    filters, channels, kernel, _ = layer.weight.shape
    pf, pc = shape.pf, shape.pc
    fgs, cgs = -(-filters // pf), -(-channels // pc)
    weight = np.zeros((fgs * pf, cgs * pc, kernel, kernel), np.int8)
    weight[:filters, :channels] = layer.weight
    words = weight.reshape(fgs, pf, cgs, pc, kernel * kernel).transpose(0, 4, 2, 1, 3)
    packed = (
        (layer.bias.astype(np.int64) & 0xFFFFFFFF)
        | layer.multiplier.astype(np.int64) << 32
        | layer.shift.astype(np.int64) << 32 + MULTIPLIER_BITS
    )
    slot = max(PARAM_BYTES, shape.port_bytes)
    params = np.zeros((fgs * pf, slot), np.uint8)
    params[:filters, :PARAM_BYTES] = packed.astype("<i8")[:, None].view(np.uint8)
    return b"".join(
        part.tobytes() + word.tobytes()
        for part, word in zip(params.reshape(fgs, pf * slot), words, strict=True)
    )
