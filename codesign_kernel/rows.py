"""The layers of one network from outside, one after another, as readers of files make them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import InputError, integer
from .workload import Layers

# Far beyond any network, and so small that products of cycles and bytes fit in 64 bits.
MOST, MOST_MACS, MOST_ELEMENTS = 1_000_000, 10**14, 10**10


@dataclass(frozen=True)
class Network:
    """The layers of one network, fields (layers,), and which of its operators they leave out.

    `apart`: the first layer that does not read what the layer before it wrote, if there is one.
    `notes`: what else is to be said, in sentences.
    """

    name: str
    layers: Layers
    left_out: tuple[str, ...]
    apart: str = ""
    notes: tuple[str, ...] = ()


class Row(NamedTuple):
    """One layer; the bounds are of one group."""

    name: str
    filters: int
    channels: int
    in_height: int
    in_width: int
    height: int
    width: int
    kernel: int
    kernel_width: int
    stride: int = 1
    repeat: int = 1
    pools: int = 1  # where it is of one pixel: it may take the mean of the map before it
    irregular: int = 0  # as in Layers


def gemm(where: str, name: str, numbers: list[int]) -> Row:
    """M rows of K numbers times a matrix (K, N): a 1 x 1 convolution of M pixels."""
    rows, filters, channels = numbers
    return Row(name, filters, channels, rows, 1, rows, 1, 1, 1, pools=0)


def divides(where: str, groups: int, channels: int, filters: int) -> None:
    """Raise InputError unless channels and filters can be parted into so many groups."""
    if groups < 1 or channels % groups or filters % groups:
        raise InputError(
            f"groups of {where} are {groups}, but must divide its {channels} channels and "
            f"{filters} filters."
        )


def plain(text: str | bytes) -> str:
    """Cut a name for the terminal: printable, and the end of it where it is long."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text  # as protobuf may
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= 40 else f"…{plain[-39:]}"


def checked(where: str, row: Row) -> Row:
    """Return the row if it is of a size that can be counted. Raises InputError."""
    weights = row.filters * row.channels * row.kernel * row.kernel_width * row.repeat
    pixels = row.height * row.width
    inputs = row.channels * row.in_height * row.in_width * row.repeat
    integer(f"number of weights of {where}", weights, 1, MOST_ELEMENTS)
    integer(f"input elements of {where}", inputs, 1, MOST_ELEMENTS)
    integer(f"output elements of {where}", row.filters * pixels * row.repeat, 1, MOST_ELEMENTS)
    integer(f"multiply-accumulates of {where}", weights * pixels, 1, MOST_MACS)
    return row


def layers_of_rows(path: Path, rows: list[Row]) -> Layers:
    """Return the layers of a file, fields (layers,). Raises InputError if there are none."""
    if not rows:
        raise InputError(f"{path} has no convolution and no fully connected layer.")
    names, *columns = zip(*rows, strict=True)
    numbers = dict(zip(Row._fields[1:], np.array(columns, np.int64), strict=True))
    return Layers(names, residual=np.zeros(len(rows), np.int64), **numbers)
