"""The layers of an ONNX model: convolutions and fully connected layers, and how they are joined.

Operators are taken in their order, and of each tensor is known where it comes from: so it shows
which layers take the mean of a map, and whether each reads what the one before it wrote.
"""

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import InputError, choice, integer, shown
from .rows import MOST, Network, Row, checked, divides, gemm, layers_of_rows, plain

if TYPE_CHECKING:
    import onnx

# Operators that multiply by weights, and which input holds these.
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
POOLING = {"GlobalAveragePool", "AveragePool", "ReduceMean", "QLinearGlobalAveragePool"}
# What an engine does with a map on its way or not at all: that leaves the numbers as they are,
SAME = {"Cast", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"}
ARITHMETIC = {"Add", "Div", "Mul", "Sub"}  # that does so if one of two operands is constant,
CARRIED = SAME | ARITHMETIC | {"BatchNormalization", "Clip", "Flatten", "Relu", "Reshape",
                               "Squeeze", "Unsqueeze"}  # fmt: skip
_Attributes = dict[str, "onnx.AttributeProto"]


class _From(NamedTuple):
    """Where a tensor comes from: the number of the layer that wrote it but for CARRIED operators,
    -1 for the model's input, None if there is no such one; the operator that took its mean over the
    map, by its output; and the tensor that has the same numbers."""

    layer: int | None = None
    mean: str = ""
    numbers: str = ""


def read_onnx(path: Path) -> Network:
    """Read the convolutions and fully connected layers of an ONNX model, of one image.

    Matrix products without constant weights and all other operators cost nothing here: they are
    listed in `left_out`, but for means that a layer takes. Weights kept in other files are not
    needed. Raises InputError.
    """
    graph, shapes = _loaded(path)
    weights = {tensor.name for tensor in graph.initializer}
    seen = {each.name: _From(-1, "", each.name) for each in graph.input if each.name not in weights}
    # The images of a batch that is fixed: the first side of an input that is more than a matrix.
    batch = max((shapes[name][0] for name in seen if len(shapes.get(name, ())) > 2), default=1)
    rows: list[Row] = []
    read: list[str] = []  # by each layer, as `_From.numbers`
    means: dict[str, str] = {}  # operators that took means which no layer has taken yet
    apart, left_out = "", Counter[str]()
    for node in graph.node:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        where = f"{kind} {shown(plain(node.name or _output(node)))} of {path}"
        nested = any(each.HasField("g") or each.graphs for each in node.attribute)  # such as of If
        varying = [name for name in node.input if name and name not in weights]
        if not varying and not nested:
            weights.update(node.output)  # such as weights that are stored as a Constant, or int8
            continue
        sources = [seen.get(name, _From()) for name in varying]
        layer = None
        if kind in CONVOLUTIONS:
            layer = _convolution(where, node, shapes, batch)
        elif kind in PRODUCTS and {_input(node, 0), _input(node, PRODUCTS[kind])} & weights:
            layer = _product(where, node, shapes, weights, batch)
        if layer is not None:
            source = sources[0] if sources else _From()
            if source.layer != len(rows) - 1:
                apart = apart or layer.name
            means.pop(source.mean, None)
            seen[_output(node)] = _From(len(rows), "", _output(node))
            rows.append(checked(where, layer._replace(pools=int(source.mean != ""))))
            read.append(source.numbers)
            continue
        found = _after(kind, node, sources, shapes, read)
        if _output(node):
            seen[_output(node)] = found
        if found.mean and found.mean == _output(node):
            means[found.mean] = kind
        elif kind in PRODUCTS:
            left_out[f"{kind} without weights"] += 1
        elif kind in ARITHMETIC and len(varying) > 1 and found.layer is None:
            left_out[f"{kind} of two maps"] += 1
        else:
            left_out[kind] += 1
    left_out.update(means.values())
    out = tuple(sorted(f"{plain(kind)} ×{count}" for kind, count in left_out.items()))
    notes = (f"The batch of the model is {batch}: costed is one image of it.",) if batch > 1 else ()
    return Network(path.stem, layers_of_rows(path, rows), out, apart, notes)


def _loaded(path: Path) -> tuple["onnx.GraphProto", dict[str, list[int]]]:
    """Return a model's graph, and the sides of its tensors, 0 where they are not known."""
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
    return graph, shapes


def _after(
    kind: str, node: "onnx.NodeProto", sources: list[_From], shapes: dict[str, list[int]],
    read: list[str],
) -> _From:  # fmt: skip
    """Return where the output of an operator that is no layer comes from."""
    out = _output(node)
    if kind in ARITHMETIC and len(sources) == 2:
        for one, other in (sources, sources[::-1]):
            own = one.layer is not None and one.layer >= 0 and other.numbers == read[one.layer]
            if kind == "Add" and own and not one.mean and other.numbers:
                return one._replace(numbers=out)  # a layer's own input is added to what it wrote
        return _From()
    source = sources[0] if sources else _From()
    if kind in POOLING and not source.mean and set(shapes.get(out, [])[2:]) <= {1}:
        return source._replace(mean=out, numbers=out)
    if kind in SAME:
        return source
    if kind in CARRIED:
        return source._replace(numbers=out)
    # A mean stays one, whatever is done with each of its numbers.
    sizes = {prod(shapes.get(name, [])) for name in (_input(node, 0), out)}
    return _From(None, source.mean if len(sizes) == 1 else "", out)


def _convolution(
    where: str, node: "onnx.NodeProto", shapes: dict[str, list[int]], batch: int
) -> Row:
    weight = _shape(where, "weights", _input(node, CONVOLUTIONS[node.op_type]), shapes)
    x = _shape(where, "input", _input(node, 0), shapes)
    y = _shape(where, "output", _output(node), shapes)
    choice(f"number of axes of the weights of {where}", len(weight), (3, 4))
    attributes = {each.name: each for each in node.attribute}
    groups = attributes["group"].i if "group" in attributes else 1
    steps = [*attributes["strides"].ints, 1] if "strides" in attributes else [1]
    divides(where, groups, x[1], weight[0])
    if x[1] != weight[1] * groups or not len(x) == len(y) == len(weight):
        raise InputError(
            f"input of {where} is {x}, but its weights are {weight} in {groups} groups."
        )
    choice(f"batch of {where}", x[0], (1, batch) if batch > 1 else (1,))
    integer(f"stride of {where}", steps[0], 1, MOST)
    # Along one axis only: a map of one row.
    sides = ([1] * (4 - len(weight)) + shape[2:] for shape in (x, y, weight))
    (in_height, in_width), (height, width), (kernel, wide) = sides
    name, lengths = plain(node.name or _output(node)), (in_height, in_width, height, width)
    return Row(name, weight[0] // groups, weight[1], *lengths, kernel, wide, steps[0], groups,
               irregular=int(_irregular(attributes, x[2:], y[2:], weight[2:], steps)))  # fmt: skip


def _irregular(
    attributes: _Attributes, x: list[int], y: list[int], kernel: list[int], steps: list[int]
) -> bool:
    """Whether taps lie apart, or a map is not padded by K // 2 before its first row and column.
    What comes behind the last ones shows in the sizes."""
    spread = [*attributes["dilations"].ints] if "dilations" in attributes else [1] * len(kernel)
    if any(step != 1 and side != 1 for step, side in zip(spread, kernel, strict=False)):
        return True
    auto = attributes["auto_pad"].s if "auto_pad" in attributes else b"NOTSET"
    pads = [*attributes["pads"].ints] if "pads" in attributes and auto == b"NOTSET" else []
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        lack = [max(0, (b - 1) * steps[min(i, len(steps) - 1)] + k - a)
                for i, (a, b, k) in enumerate(zip(x, y, kernel, strict=True))]  # fmt: skip
        pads = [(each + (auto == b"SAME_LOWER")) // 2 for each in lack]
    begins = (pads + [0] * len(kernel))[: len(kernel)]
    return any(begin != side // 2 for begin, side in zip(begins, kernel, strict=True))


def _product(
    where: str, node: "onnx.NodeProto", shapes: dict[str, list[int]], weights: set[str], batch: int
) -> Row:
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
    pixels = prod(maps[:-1]) // (batch if maps[0] == batch and len(maps) > 1 else 1)
    return gemm(where, plain(node.name or _output(node)), [pixels, *weight[::-1]])


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
