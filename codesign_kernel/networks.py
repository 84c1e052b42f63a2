"""Networks from outside: tables of layers, ONNX files, and networks that come along.

Three layouts of a table are read, told apart by the header: the program's own (`COLUMNS`), and the
two in which SCALE-Sim publishes its topologies, convolutions and matrix products.
"""

import csv
from collections.abc import Callable, Sequence
from importlib import resources
from math import isqrt
from pathlib import Path

from .errors import InputError, choice, integer, shown
from .onnx_layers import read_onnx
from .rows import MOST, Network, Row, checked, divides, gemm, layers_of_rows, plain

__all__ = ["Network", "load_network", "read_onnx", "read_topology", "shipped"]

COLUMNS = ("layer", "in_height", "in_width", "kernel_height", "kernel_width", "channels", "filters",
           "groups", "stride", "height", "width")  # fmt: skip
SCALE_SIM = ("IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels",
             "Num Filter", "Strides")  # fmt: skip


def shipped() -> tuple[str, ...]:
    """Names of the networks that come with the program."""
    files = resources.files(__package__).joinpath("topologies").iterdir()
    return tuple(sorted(file.name[:-4] for file in files if file.name.endswith(".csv")))


def load_network(which: str) -> Network:
    """Return a network by name, or read the ONNX file or table at that path. Raises InputError."""
    if which.endswith(".onnx"):
        return read_onnx(Path(which))
    if which.endswith(".csv"):
        return read_topology(Path(which))
    choice("network", which, (*shipped(), "a path that ends in .onnx or .csv"))
    with resources.as_file(resources.files(__package__) / "topologies" / f"{which}.csv") as path:
        return read_topology(path)


def read_topology(path: Path) -> Network:
    """Read a table of layers: the program's own, or a SCALE-Sim topology as it is published.

    SCALE-Sim states maps with their padding. Commas, semicolons or tabs part the cells, which may
    be quoted. Lines that start with #, empty lines, lines with nothing but a name, and columns
    beyond those known are passed over. Raises InputError.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise InputError(f"{path} is not a text in UTF-8, but must be a table of layers.") from None
    there = [
        (f"line {number} of {path}", line)
        for number, line in enumerate(lines, start=1)
        if not line.startswith("#") and line.strip(",; \t")
    ]
    if not there:
        raise InputError(f"{path} is empty, but must hold a table of layers.")
    separator = max(",;\t", key=there[0][1].count)
    table = [(where, _cells(where, line, separator)) for where, line in there]
    (_, head), *body = table
    parse, fields = _layout(path, head)
    rows: list[Row] = []
    for where, cells in body:
        if any(cells[1:]):
            numbers = [
                _whole(f"{field} in {where}", cells[i] if i < len(cells) else "")
                for i, field in enumerate(fields, start=1)
            ]
            row = checked(where, parse(where, plain(cells[0]), numbers))
            rows.append(row._replace(pools=_may_pool(row, rows)) if parse is _scale_sim else row)
    return Network(path.stem, layers_of_rows(path, rows), ("pooling", "additions", "activations"))


_Parse = Callable[[str, str, list[int]], Row]


def _cells(where: str, line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"{where} is no line of a table: {error}.") from None
    return [cell.strip() for cell in cells]


def _layout(path: Path, head: list[str]) -> tuple[_Parse, Sequence[str]]:
    """Return how to read a row of such a table, and the fields after the name."""
    words = [word.lower() for word in head]
    if tuple(words[: len(COLUMNS)]) == COLUMNS:
        return _own, COLUMNS[1:]
    if words[1:4] == ["m", "n", "k"]:
        return gemm, ("M", "N", "K")
    if [word[:6] for word in words[3:7]] == ["filter", "filter", "channe", "num fi"]:
        wide = len(words) > 8 and words[8].startswith("stride")
        return _scale_sim, (*SCALE_SIM, "second stride") if wide else SCALE_SIM
    raise InputError(
        f"header of {path} is {shown(','.join(head))}, but must be that of a SCALE-Sim topology "
        f"(Layer name, {', '.join(SCALE_SIM)}, or Layer, M, N, K), or {','.join(COLUMNS)}."
    )


def _may_pool(row: Row, before: list[Row]) -> int:
    """Whether a layer of one pixel takes the mean of the map before it, which SCALE-Sim does not
    say: not if it has as many times the channels as a square has pixels."""
    made = before[-1].filters * before[-1].repeat if before else row.channels
    times, rest = divmod(row.channels, made)
    return int(rest > 0 or times == 1 or isqrt(times) ** 2 != times)


def _own(where: str, name: str, numbers: list[int]) -> Row:
    in_height, in_width, kernel, wide, channels, filters, groups, stride, height, width = numbers
    divides(where, groups, channels, filters)
    for side, size, inside, made in (
        ("height", kernel, in_height, height), ("width", wide, in_width, width)
    ):  # fmt: skip
        # Without padding, to where each window still touches the map.
        least, most = max(0, inside - size) // stride + 1, (inside + size - 2) // stride + 1
        if not least <= made <= most:
            raise InputError(
                f"{side} in {where} is {made}, but must be from {least} to {most}: in_{side} is "
                f"{inside}, kernel_{side} {size} and stride {stride}."
            )
    sides = in_height, in_width, height, width, kernel, wide
    return Row(name, filters // groups, channels // groups, *sides, stride, groups)


def _scale_sim(where: str, name: str, numbers: list[int]) -> Row:
    in_height, in_width, kernel, wide, channels, filters, stride, *second = numbers
    integer(f"Filter Height in {where}", kernel, 1, in_height)
    integer(f"Filter Width in {where}", wide, 1, in_width)
    # Rounded up, as SCALE-Sim does.
    height = -(-(in_height - kernel) // stride) + 1
    width = -(-(in_width - wide) // (second or [stride])[0]) + 1
    # By its convention, DP in a name says that each channel has filters of its own.
    repeat = channels if "DP" in name else 1
    if kernel == 1 and wide == in_width and repeat == 1:
        # That is how it writes matrix products, such as fully connected layers.
        return gemm(where, name, [height, filters, channels * wide])
    sides = in_height, in_width, height, width, kernel, wide
    return Row(name, filters, channels // repeat, *sides, stride, repeat)


def _whole(field: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 20) or not 1 <= int(cell) <= MOST:
        raise InputError(f"{field} is {shown(cell)}, but must be a whole number from 1 to {MOST}.")
    return int(cell)
