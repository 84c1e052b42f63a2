"""Networks from outside: the layers in an ONNX file or a table, and of networks that come along.

Three layouts of a table are read, told apart by the header: the program's own (`COLUMNS`), and the
two in which SCALE-Sim publishes its topologies, convolutions and matrix products.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import isqrt, prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import InputError, choice, integer, shown
from .workload import Layers

if TYPE_CHECKING:
    import onnx

COLUMNS = ("layer", "in_height", "in_width", "kernel_height", "kernel_width", "channels", "filters",
           "groups", "stride", "height", "width")  # fmt: skip
SCALE_SIM = ("IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels",
             "Num Filter", "Strides")  # fmt: skip
# Far beyond any network, and so small that products of cycles and bytes fit in 64 bits.
MOST, MOST_MACS, MOST_ELEMENTS = 1_000_000, 10**14, 10**10
# Operators that multiply by weights, and which input holds these.
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
POOLING = {"GlobalAveragePool", "AveragePool", "ReduceMean", "QLinearGlobalAveragePool"}
RESHAPING = {"Flatten", "Reshape", "Squeeze", "Identity", "Dropout", "QuantizeLinear",
             "DequantizeLinear"}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """The layers of one network, fields (layers,), and which of its operators they leave out."""

    name: str
    layers: Layers
    left_out: tuple[str, ...]


class _Row(NamedTuple):
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

    SCALE-Sim states maps with their padding. Lines that start with #, empty lines, lines with
    nothing but a name, and columns beyond those known are passed over. Raises InputError.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise InputError(f"{path} is not a text in UTF-8, but must be a table of layers.") from None
    table = [
        (f"line {number} of {path}", [cell.strip() for cell in line.split(",")])
        for number, line in enumerate(lines, start=1)
        if not line.startswith("#") and line.strip(", \t")
    ]
    if not table:
        raise InputError(f"{path} is empty, but must hold a table of layers.")
    (_, head), *body = table
    parse, fields = _layout(path, head)
    rows: list[_Row] = []
    for where, cells in body:
        if any(cells[1:]):
            numbers = [
                _whole(f"{field} in {where}", cells[i] if i < len(cells) else "")
                for i, field in enumerate(fields, start=1)
            ]
            row = _checked(where, parse(where, _name(cells[0]), numbers))
            rows.append(row._replace(pools=_may_pool(row, rows)) if parse is _scale_sim else row)
    return Network(path.stem, _layers(path, rows), ("pooling", "additions", "activations"))


_Parse = Callable[[str, str, list[int]], _Row]


def _layout(path: Path, head: list[str]) -> tuple[_Parse, Sequence[str]]:
    """Return how to read a row of such a table, and the fields after the name."""
    words = [word.lower() for word in head]
    if tuple(words[: len(COLUMNS)]) == COLUMNS:
        return _own, COLUMNS[1:]
    if words[1:4] == ["m", "n", "k"]:
        return _gemm, ("M", "N", "K")
    if [word[:6] for word in words[3:7]] == ["filter", "filter", "channe", "num fi"]:
        wide = len(words) > 8 and words[8].startswith("stride")
        return _scale_sim, (*SCALE_SIM, "second stride") if wide else SCALE_SIM
    raise InputError(
        f"header of {path} is {shown(','.join(head))}, but must be that of a SCALE-Sim topology "
        f"(Layer name, {', '.join(SCALE_SIM)}, or Layer, M, N, K), or {','.join(COLUMNS)}."
    )


def _may_pool(row: _Row, before: list[_Row]) -> int:
    """Whether a layer of one pixel takes the mean of the map before it, which SCALE-Sim does not
    say: not if it has as many times the channels as a square has pixels."""
    made = before[-1].filters * before[-1].repeat if before else row.channels
    times, rest = divmod(row.channels, made)
    return int(rest > 0 or times == 1 or isqrt(times) ** 2 != times)


def _own(where: str, name: str, numbers: list[int]) -> _Row:
    in_height, in_width, kernel, wide, channels, filters, groups, stride, height, width = numbers
    _divides(where, groups, channels, filters)
    sides = in_height, in_width, height, width, kernel, wide
    return _Row(name, filters // groups, channels // groups, *sides, stride, groups)


def _gemm(where: str, name: str, numbers: list[int]) -> _Row:
    """M rows of K numbers times a matrix (K, N): a 1 x 1 convolution of M pixels."""
    rows, filters, channels = numbers
    return _Row(name, filters, channels, rows, 1, rows, 1, 1, 1, pools=0)


def _scale_sim(where: str, name: str, numbers: list[int]) -> _Row:
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
        return _gemm(where, name, [height, filters, channels * wide])
    sides = in_height, in_width, height, width, kernel, wide
    return _Row(name, filters, channels // repeat, *sides, stride, repeat)


def read_onnx(path: Path) -> Network:
    """Read the convolutions and fully connected layers of an ONNX model, at a batch of one image.

    Matrix products without constant weights and all other operators cost nothing here: they are
    listed in `left_out`. Weights kept in other files are not needed. Raises InputError.
    """
    import onnx

    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception:  # an error of protobuf, which is no dependency of this program
        raise InputError(f"{path} is damaged or no ONNX model.") from None
    if not model.graph.node:
        raise InputError(f"{path} is damaged or no ONNX model: it holds no operators.")
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        sides = value.type.tensor_type.shape.dim
        if value.name not in weights and sides and sides[0].dim_value < 1:
            sides[0].dim_value = 1  # the batch, if it is left open
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"shapes of {path} cannot be worked out: {reason}.") from None
    shapes = {tensor.name: [*tensor.dims] for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [side.dim_value for side in value.type.tensor_type.shape.dim]
    makers = {out: node for node in graph.node for out in node.output}
    rows: list[_Row] = []
    left_out: Counter[str] = Counter()
    for node in graph.node:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        where = f"{kind} {shown(_name(node.name or _output(node)))} of {path}"
        nested = any(each.HasField("g") or each.graphs for each in node.attribute)  # such as of If
        if all(name in weights for name in node.input if name) and not nested:
            weights.update(node.output)  # such as weights that are stored as a Constant, or int8
        elif kind in CONVOLUTIONS:
            rows.append(_checked(where, _convolution(where, node, shapes)))
        elif kind in PRODUCTS and {_input(node, 0), _input(node, PRODUCTS[kind])} & weights:
            row = _checked(where, _product(where, node, shapes, weights))
            rows.append(row._replace(pools=int(_pooled(node, makers, shapes))))
        else:
            left_out[f"{kind} without weights" if kind in PRODUCTS else kind] += 1
    out = tuple(sorted(f"{_name(kind)} ×{count}" for kind, count in left_out.items()))
    return Network(path.stem, _layers(path, rows), out)


def _pooled(
    node: "onnx.NodeProto", makers: Mapping[str, "onnx.NodeProto"], shapes: dict[str, list[int]]
) -> bool:
    """Whether what an operator multiplies is the mean of a whole map, but for its shape."""
    return any(
        (each.op_type in POOLING and set(shapes.get(each.output[0], [])[2:]) <= {1})
        or (each.op_type in RESHAPING and _pooled(each, makers, shapes))
        for each in (makers[name] for name in node.input if name in makers)
    )


def _convolution(where: str, node: "onnx.NodeProto", shapes: dict[str, list[int]]) -> _Row:
    weight = _shape(where, "weights", _input(node, CONVOLUTIONS[node.op_type]), shapes)
    x = _shape(where, "input", _input(node, 0), shapes)
    y = _shape(where, "output", _output(node), shapes)
    choice(f"number of axes of the weights of {where}", len(weight), (3, 4))
    attributes = {each.name: each for each in node.attribute}
    groups = attributes["group"].i if "group" in attributes else 1
    stride = [*attributes["strides"].ints, 1][0] if "strides" in attributes else 1
    _divides(where, groups, x[1], weight[0])
    if x[1] != weight[1] * groups or not len(x) == len(y) == len(weight):
        raise InputError(
            f"input of {where} is {x}, but its weights are {weight} in {groups} groups."
        )
    integer(f"batch of {where}", x[0], 1, 1)
    integer(f"stride of {where}", stride, 1, MOST)
    spread = [*attributes["dilations"].ints] if "dilations" in attributes else []
    if any(step != 1 and side != 1 for step, side in zip(spread, weight[2:], strict=False)):
        raise InputError(f"dilations of {where} are {spread}, but must be 1: the engine has none.")
    # Along one axis only: a map of one row.
    sides = ([1] * (4 - len(weight)) + shape[2:] for shape in (x, y, weight))
    (in_height, in_width), (height, width), (kernel, wide) = sides
    name, lengths = _name(node.name or _output(node)), (in_height, in_width, height, width)
    return _Row(name, weight[0] // groups, weight[1], *lengths, kernel, wide, stride, groups)


def _product(
    where: str, node: "onnx.NodeProto", shapes: dict[str, list[int]], weights: set[str]
) -> _Row:
    """The constant matrix holds the filters, whichever side it is on; the rest are the pixels."""
    at = PRODUCTS[node.op_type]
    left, right = (_shape(where, "input", _input(node, i), shapes) for i in (0, at))
    attributes = {each.name: each.i for each in node.attribute}
    left = left[::-1] if attributes.get("transA") else left
    right = right[::-1] if attributes.get("transB") else right
    weight, maps = right, left
    if _input(node, at) not in weights:
        weight, maps = left[::-1], [*right[:-2], *right[:-3:-1]]
    choice(f"number of axes of the weights of {where}", len(weight), (2,))
    if weight[0] != maps[-1]:
        raise InputError(f"inputs of {where} are {left} and {right}, but must fit together.")
    return _gemm(where, _name(node.name or _output(node)), [prod(maps[:-1]), *weight[::-1]])


def _input(node: "onnx.NodeProto", i: int) -> str:
    return node.input[i] if i < len(node.input) else ""


def _output(node: "onnx.NodeProto") -> str:
    return node.output[0] if node.output else ""


def _shape(where: str, what: str, name: str, shapes: dict[str, list[int]]) -> list[int]:
    shape = shapes.get(name, [])
    if not shape or min(shape) < 1:
        sides = ", ".join(str(side) if side > 0 else "?" for side in shape) or "unknown"
        raise InputError(
            f"shape of the {what} of {where} is {sides}, but must be known: only the batch of the "
            "model's inputs may be left open."
        )
    return shape


def _divides(where: str, groups: int, channels: int, filters: int) -> None:
    if groups < 1 or channels % groups or filters % groups:
        raise InputError(
            f"groups of {where} are {groups}, but must divide its {channels} channels and "
            f"{filters} filters."
        )


def _whole(field: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 20) or not 1 <= int(cell) <= MOST:
        raise InputError(f"{field} is {shown(cell)}, but must be a whole number from 1 to {MOST}.")
    return int(cell)


def _name(text: str | bytes) -> str:
    """Cut a name for the terminal: printable, and the end of it where it is long."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text  # as protobuf may
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= 40 else f"…{plain[-39:]}"


def _checked(where: str, row: _Row) -> _Row:
    """Return the row if it is of a size that can be counted. Raises InputError."""
    weights = row.filters * row.channels * row.kernel * row.kernel_width * row.repeat
    pixels = row.height * row.width
    inputs = row.channels * row.in_height * row.in_width * row.repeat
    integer(f"number of weights of {where}", weights, 1, MOST_ELEMENTS)
    integer(f"input elements of {where}", inputs, 1, MOST_ELEMENTS)
    integer(f"output elements of {where}", row.filters * pixels * row.repeat, 1, MOST_ELEMENTS)
    integer(f"multiply-accumulates of {where}", weights * pixels, 1, MOST_MACS)
    return row


def _layers(path: Path, rows: list[_Row]) -> Layers:
    if not rows:
        raise InputError(f"{path} has no convolution and no fully connected layer.")
    names, *columns = zip(*rows, strict=True)
    numbers = dict(zip(_Row._fields[1:], np.array(columns, np.int64), strict=True))
    return Layers(names, residual=np.zeros(len(rows), np.int64), **numbers)
