"""Networks from outside against PyTorch's count, ONNX Runtime's shapes and published totals."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_file import save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from codesign_kernel import loops
from codesign_kernel.accelerator import Accelerator, load_device
from codesign_kernel.cycles import Port, cycles
from codesign_kernel.errors import InputError
from codesign_kernel.export import to_onnx
from codesign_kernel.networks import (
    COLUMNS,
    Network,
    load_network,
    read_onnx,
    read_topology,
    shipped,
)
from codesign_kernel.space import load_space
from codesign_kernel.supernet import Subnet
from codesign_kernel.workload import Layers, layers_of

ROOT = Path(__file__).parent.parent
HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,\n"
)
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def rows(layers: Layers) -> list[list[int]]:
    """A layer's filters, channels, input, output, kernel, stride and repeats."""
    fields = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel",
              "kernel_width", "stride", "repeat")  # fmt: skip
    columns = [np.asarray(getattr(layers, field)).tolist() for field in fields]
    return [list(row) for row in zip(*columns, strict=True)]


def topology(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_network(str(path))
    tiny.assert_one_sentence(str(caught.value))
    return str(caught.value)


# Networks that come along


# Multiply-accumulates as counted by the papers and by torchvision's and Caffe's tables; parameters
# of the published weights, where a filter has two of batch normalisation and no bias (Caffe's: one
# more, the bias) and the classifier a bias.
@pytest.mark.parametrize(
    ("name", "low", "high", "published", "biases"),
    [
        ("resnet101", 7.5e9, 7.8e9, 44_549_160, 1),
        ("mobilenetv2", 298e6, 302e6, 3_504_872, 1),
        ("inceptionv2", 1.95e9, 2.1e9, 11_295_240, 2),
    ],
)
def test_totals_are_the_published_ones(
    name: str, low: float, high: float, published: int, biases: int
) -> None:
    layers = load_network(name).layers
    assert low < layers.macs.sum() < high
    filters = int((layers.filters * layers.repeat)[:-1].sum())
    assert int(layers.parameters.sum()) + biases * filters == published


def test_layers_follow_one_another() -> None:
    assert shipped() == ("inceptionv2", "mobilenetv2", "resnet101")
    for name in shipped():
        network = load_network(name)
        layers = network.layers
        assert network.name == name
        assert len(set(layers.names)) == len(layers.names)
        assert rows(layers)[0][1:4] == [3, 224, 224]
        assert rows(layers)[-1][0::2] == [1000, 1, 1, 1, 1]
        np.testing.assert_array_equal(layers.height, -(-layers.in_height // layers.stride))
    layers = load_network("mobilenetv2").layers  # one chain: what a layer writes, the next reads
    for before, after in pairwise(zip(layers.outputs[:-1], layers.inputs[:-1], strict=True)):
        assert before[0] == after[1]
    assert max(np.asarray(layers.repeat)) == 960


def test_the_command_of_the_tables_makes_them_anew(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "networks.py", tmp_path]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)})
    for name in shipped():
        kept = ROOT / "codesign_kernel" / "topologies" / f"{name}.csv"
        assert (tmp_path / f"{name}.csv").read_bytes() == kept.read_bytes()
        assert "\n# Made by: python benchmarks/networks.py codesign_kernel/topologies\n" in (
            kept.read_text(encoding="utf-8")
        )


def pools(layers: Layers) -> list[int]:
    assert layers.pools is not None
    return layers.pools.tolist()


# Tables


def test_scale_sim_topologies_are_read_as_they_are_published(tmp_path: Path) -> None:
    path = topology(
        tmp_path,
        HEADER
        + "\n"
        + "first,\n"  # a heading between networks
        + "Conv1     ,224  ,224 ,7  ,7 ,3 ,64 ,2 ,\n"
        + "\tConv2_dw, 112, 112, 3, 3, 1, 1, 1,#dw\n"
        + "Conv3,28,28,1,1,256,512,2\n"  # no last comma
        + "DP_4, 14, 14, 3, 3, 96, 1, 1,\n"
        + "FC, 1, 1, 1, 1, 1024, 1000, 1,\n"
        + ",,,,,,,,,,,,\n"
        + "MLP,1024,512,1,512,1,256,1, \n"
        + "Conv5,700,161,41,11,1,32,2,,,110,110,12100",
    )
    network = read_topology(path)
    assert network.name == "table"
    assert network.layers.names == ("Conv1", "Conv2_dw", "Conv3", "DP_4", "FC", "MLP", "Conv5")
    assert rows(network.layers) == [
        # F    C     in          out        K       S  repeats
        [64, 3, 224, 224, 110, 110, 7, 7, 2, 1],  # rounded up: (224 - 7) / 2 + 1 is 109.5
        [1, 1, 112, 112, 110, 110, 3, 3, 1, 1],
        [512, 256, 28, 28, 15, 15, 1, 1, 2, 1],
        [1, 1, 14, 14, 12, 12, 3, 3, 1, 96],
        [1000, 1024, 1, 1, 1, 1, 1, 1, 1, 1],
        [256, 512, 1024, 1, 1024, 1, 1, 1, 1, 1],  # a matrix product
        [32, 1, 700, 161, 331, 76, 41, 11, 2, 1],
    ]
    assert int(network.layers.macs[-1]) == 331 * 76 * 41 * 11 * 32


def test_strides_of_both_directions_are_read_where_the_header_has_them(tmp_path: Path) -> None:
    head = HEADER.replace("Strides", "Stride height, Stride width")
    layers = read_topology(topology(tmp_path, head + "a,9,9,3,3,4,8,1,2,\n")).layers
    assert rows(layers) == [[8, 4, 9, 9, 7, 4, 3, 3, 1, 1]]


@pytest.mark.parametrize("comma", ["", ","])
def test_matrix_products_are_read(tmp_path: Path, comma: str) -> None:
    text = f"Layer, M, N, K{comma}\r\nQKT,1024,64,512{comma}\r\n"
    layers = read_topology(topology(tmp_path, "\ufeff" + text)).layers
    assert rows(layers) == [[64, 512, 1024, 1, 1024, 1, 1, 1, 1, 1]]
    assert layers.macs.tolist() == [1024 * 64 * 512]
    assert layers.inputs.tolist() == [1024 * 512]


@given(
    st.lists(
        st.tuples(*[st.integers(1, 40)] * 4, *[st.integers(1, 9)] * 2, st.integers(1, 3)),
        min_size=1,
        max_size=5,
    )
)
@SAME_FOLDER
def test_any_topology_counts_as_pytorch_does(
    tmp_path: Path, made: list[tuple[int, int, int, int, int, int, int]]
) -> None:
    text, expected = HEADER, []
    for i, (height, width, channels, filters, kernel, wide, stride) in enumerate(made):
        high, broad = height + kernel, width + wide
        # A map that SCALE-Sim need not round up.
        high, broad = (side - (side - k) % stride for side, k in ((high, kernel), (broad, wide)))
        text += f"l{i},{high},{broad},{kernel},{wide},{channels},{filters},{stride},\n"
        layer = nn.Conv2d(channels, filters, (kernel, wide), stride, device="meta")
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            layer(torch.zeros(1, channels, high, broad, device="meta"))
        expected.append(flops.get_total_flops() // 2)
    layers = read_topology(topology(tmp_path, text)).layers
    assert layers.macs.tolist() == expected


def test_the_own_layout_has_groups_and_says_the_output(tmp_path: Path) -> None:
    text = f"# a comment\n{','.join(COLUMNS)}\ndw,14,28,3,5,96,192,48,2,7,14\n"
    network = read_topology(topology(tmp_path, text))
    assert rows(network.layers) == [[4, 2, 14, 28, 7, 14, 3, 5, 2, 48]]
    assert network.layers.weights.tolist() == [192 * 2 * 15]
    assert network.layers.inputs.tolist() == [96 * 14 * 28]
    assert network.layers.outputs.tolist() == [192 * 7 * 14]
    assert network.left_out == ("pooling", "additions", "activations")


OWN = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_table_may_be_quoted_and_parted_otherwise(
    tmp_path: Path, separator: str, quote: str
) -> None:
    lines = [COLUMNS, ("a", 8, 8, 3, 3, 6, 8, 2, 1, 8, 6), ("b", 8, 6, 1, 1, 8, 8, 1, 2, 4, 3)]
    text = "".join(
        separator.join(f"{quote}{cell}{quote}" for cell in line) + "\n" for line in lines
    )
    layers = read_topology(topology(tmp_path, text)).layers
    assert list(layers.names) == ["a", "b"]
    assert layers.macs.tolist() == [8 * 3 * 9 * 48, 8 * 8 * 12]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty, but must hold a table of layers"),
        ("# only a comment\n,,\n", "is empty"),
        (HEADER, "has no convolution and no fully connected layer"),
        (HEADER + "heading,\n", "has no convolution and no fully connected layer"),
        ("a,b,c\n1,2,3\n", "header of"),
        (HEADER + "c,8,8,3,3,3,x,1,\n", "Num Filter in line 2 of"),
        (HEADER + "c,8,8,3,3,3,4,\n", "Strides in line 2 of"),
        (HEADER + "c,8,8,3,3,3,4\n", "Strides in line 2 of"),
        (HEADER + "c,8,8,3,3,0,4,1,\n", "is '0', but must be a whole number from 1 to 1000000"),
        (HEADER + "c,8,8,3,3,-3,4,1,\n", "is '-3', but must be a whole number"),
        (HEADER + "c,8,8,3,3,3.0,4,1,\n", "is '3.0', but must be a whole number"),
        (HEADER + "c,8,8,3,3,١,4,1,\n", "but must be a whole number"),
        (HEADER + f"c,8,8,3,3,{'9' * 5000},4,1,\n", "but must be a whole number"),
        (HEADER + "c,1,1,1,1,1 , 2, 2, ,\nd,1, 1, ,1 2, 2, 1,1\n", "Filter Height in line 3 of"),
        (HEADER + "c,8,8,9,3,3,4,1,\n", "Filter Height in line 2 of"),
        (HEADER + "c,8,8,3,9,3,4,1,\n", "is 9, but must be from 1 to 8"),
        (HEADER + "c,1,1,1,1,1000000,1000000,1,\n", "number of weights of line 2 of"),
        (HEADER + "c,1000000,1000000,1,1,1,1,1,\n", "input elements of line 2 of"),
        ("Layer,M,N,K\na,100000,100000,1\n", None),
        ("Layer,M,N,K\na,1000000,100000,1\n", "output elements of line 2 of"),
        ("Layer,M,N,K\na,100000,100000,100000\n", "multiply-accumulates of line 2 of"),
        (OWN + "c,8,8,3,3,6,8,4,1,8,8\n", "must divide its 6 channels and 8 filters"),
        (OWN + "c,8,8,3,3,6,8,2,1,8\n", "width in line 2 of"),
        (OWN + "c,8,8,3,3,6,8,2,1,800,800\n", "height in line 2 of"),
        (OWN + "c,8,8,3,3,6,8,2,1,11,8\n", "is 11, but must be from 6 to 10: in_height is 8, kern"),
        (OWN + "c,8,8,3,3,6,8,2,1,8,5\n", "is 5, but must be from 6 to 10: in_width is 8, kernel_"),
        (OWN + "c,8,8,3,3,6,8,2,1000,8,8\n", "is 8, but must be from 1 to 1: in_height is 8, ker"),
        (OWN + 'c,"8,8,3,3,6,8,2,1,8,8\n', "line 2 of"),
    ],
)  # fmt: skip
def test_malformed_tables_are_refused(tmp_path: Path, content: str, words: str | None) -> None:
    path = topology(tmp_path, content)
    if words is None:
        assert read_topology(path).layers.macs.tolist() == [10**10]
    else:
        assert words in refused(path)


@given(st.text(max_size=60) | st.text("0123456789,-.\n #", max_size=60))
@SAME_FOLDER
def test_any_text_is_read_or_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    for head in ("", HEADER, OWN, "Layer,M,N,K\n"):
        path = topology(tmp_path, "")
        path.write_bytes((head + text).encode("utf-8", errors="surrogatepass"))
        try:
            assert (read_topology(path).layers.macs > 0).all()
        except InputError as error:
            tiny.assert_one_sentence(str(error))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused(tmp_path / "folder.csv")
    assert "is not a text in UTF-8" in refused(tmp_path / "binary.csv")
    assert "No such file" in refused(tmp_path / "absent.csv")
    assert "network is 'nope', but must be one of: inceptionv2, mobilenetv2" in refused("nope")


# ONNX


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def exported(folder: Path, layers: list[nn.Module], shape: list[Any]) -> Path:
    """Write a chain of PyTorch layers as ONNX, layer by layer."""
    nodes, weights, x = [], {}, "x"
    for i, layer in enumerate(layers):
        y = f"y{i}"
        if isinstance(layer, nn.Conv2d):
            weights[f"w{i}"] = layer.weight.detach().numpy()
            assert not isinstance(layer.padding, str)
            nodes.append(
                helper.make_node("Conv", [x, f"w{i}"], [y], name=f"conv{i}", group=layer.groups,
                                 strides=layer.stride, dilations=layer.dilation,
                                 pads=[*layer.padding] * 2)
            )  # fmt: skip
        elif isinstance(layer, nn.Linear):
            weights[f"w{i}"] = layer.weight.detach().numpy()
            nodes.append(helper.make_node("GlobalAveragePool", [x], [f"p{i}"]))
            nodes.append(helper.make_node("Flatten", [f"p{i}"], [f"f{i}"]))
            nodes.append(helper.make_node("Gemm", [f"f{i}", f"w{i}"], [y], name="fc", transB=1))
        else:
            nodes.append(helper.make_node("Relu", [x], [y]))
        x = y
    return save(folder, nodes, {"x": shape}, [x], weights)


class Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> list[nn.Conv2d]:
    channels, made = draw(st.sampled_from((1, 4, 6))), []
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([g for g in (1, 2, 3, 4, 6) if channels % g == 0]))
        filters = groups * draw(st.integers(1, 3))
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        made.append(
            nn.Conv2d(
                channels, filters, kernel, draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
                draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
                draw(st.integers(1, 2)) if kernel == (1, 1) else 1, groups, bias=False,
            )
        )  # fmt: skip
        channels = filters
    return made


@given(convolutions(), st.integers(12, 20), st.integers(12, 20), st.sampled_from(("N", 1, None)))
@SAME_FOLDER
def test_any_onnx_network_counts_as_pytorch_does(
    tmp_path: Path, made: list[nn.Conv2d], height: int, width: int, batch: Any
) -> None:
    seen: list[list[int]] = []

    def note(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        groups, weight = layer.groups, layer.weight.shape
        seen.append(
            [weight[0] // groups, weight[1], *inputs[0].shape[2:], *output.shape[2:], *weight[2:],
             layer.stride[0], groups]
        )  # fmt: skip

    for layer in made:
        layer.register_forward_hook(note)
    linear = nn.Linear(made[-1].out_channels, 7, bias=False)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        nn.Sequential(*made, nn.ReLU(), Pool(), linear)(
            torch.zeros(1, made[0].in_channels, height, width)
        )
    shape = [batch, made[0].in_channels, height, width]
    path = exported(tmp_path, [*made, nn.ReLU(), linear], shape)
    network = read_onnx(path)
    assert rows(network.layers)[:-1] == seen
    assert 2 * int(network.layers.macs.sum()) == flops.get_total_flops()
    count = sum(each.weight.numel() for each in (*made, linear))
    assert int(network.layers.weights.sum()) == count
    assert network.left_out == ("Flatten ×1", "Relu ×1")  # a layer takes what is pooled
    assert network.layers.names[-1] == "fc"
    session = onnxruntime.InferenceSession(path)  # what was read is a network that runs
    (answer,) = session.run(None, {"x": zeros(1, *shape[1:])})
    assert answer.shape == (1, 7)


def test_what_the_program_exports_is_read_back_as_its_own_layers(tmp_path: Path) -> None:
    space = load_space("fashion")
    for genome in (*space.extremes(), *space.sample(3, np.random.default_rng(0))):
        path = tmp_path / "model.onnx"
        path.write_bytes(to_onnx(Subnet(space, space.decode(genome))).SerializeToString())
        found, own = read_onnx(path), layers_of(space, genome[None])
        there = own.filters[0] > 0
        for field in ("filters", "channels", "in_height", "in_width", "height", "width", "kernel",
                      "stride", "macs", "weights", "inputs", "outputs"):  # fmt: skip
            expected = getattr(own, field)[0, there]
            np.testing.assert_array_equal(getattr(found.layers, field), expected)
        assert "Relu" in " ".join(found.left_out)


def test_matrix_products_count_wherever_the_weights_are(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="right"),
        helper.make_node("MatMul", ["v", "a"], ["b"], name="left"),
        helper.make_node("MatMul", ["b", "x"], ["c"], name="no weights"),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(zeros(16, 5))),
        helper.make_node("Transpose", ["k"], ["t"]),
        helper.make_node("MatMul", ["t", "k"], ["folded"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("Gemm", ["f", "z", ""], ["d"], transA=0),
        helper.make_node("MatMul", ["x", "t2"], ["e"], name="of a constant"),
        helper.make_node("Identity", ["k"], ["t2"]),
    ]
    nodes.insert(8, nodes.pop())
    weights = {"w": zeros(16, 12), "v": zeros(3, 10), "z": zeros(36, 8)}
    network = read_onnx(save(tmp_path, nodes, {"x": ["N", 10, 16]}, ["d", "e"], weights))
    assert network.layers.names == ("right", "left", "d", "of a constant")
    assert [row[:6] for row in rows(network.layers)] == [
        [12, 16, 10, 1, 10, 1],  # ten pixels of 16 numbers
        [3, 10, 12, 1, 12, 1],
        [8, 36, 1, 1, 1, 1],
        [5, 16, 10, 1, 10, 1],
    ]
    assert network.left_out == ("Flatten ×1", "MatMul without weights ×1")


def test_int8_networks_and_maps_of_one_row_are_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1], strides=[2]),
    ]
    weights = {"q": np.zeros((4, 3, 3), np.int8), "s": np.float32(0.1).reshape(())}
    network = read_onnx(save(tmp_path, nodes, {"x": ["N", 3, 20]}, ["y"], weights))
    assert rows(network.layers) == [[4, 3, 1, 20, 1, 10, 1, 3, 2, 1]]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("QLinearConv", ["a", "s", "z", "q", "s", "z", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["y"]),
    ]
    weights = {"q": np.zeros((4, 3, 5, 5), np.int8), "s": weights["s"], "z": np.int8(0).reshape(())}
    network = read_onnx(save(tmp_path, nodes, {"x": [None, 3, 9, 9]}, ["y"], weights))
    assert rows(network.layers) == [[4, 3, 9, 9, 5, 5, 5, 5, 1, 1]]


def test_weights_in_another_file_are_not_needed(tmp_path: Path) -> None:
    path = exported(tmp_path, [nn.Conv2d(3, 64, 3)], ["N", 3, 8, 8])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    assert read_onnx(path).layers.weights.tolist() == [64 * 27]


X = {"x": ["N", 3, 8, 8]}


def conv(*inputs: str, **attributes: Any) -> list[Any]:
    return [helper.make_node("Conv", inputs, ["y"], **attributes)]


@pytest.mark.parametrize(
    ("nodes", "inputs", "weights", "words"),
    [
        ([], X, {}, "it holds no operators"),
        ([helper.make_node("Relu", ["x"], ["y"])], X, {}, "has no convolution and no fully"),
        (conv("x", "w"), {"x": ["N", 3, "H", 8]}, {"w": zeros(4, 3, 3, 3)},
         "is 1, 3, ?, 8, but must be known: only the batch"),
        ([helper.make_node("Reshape", ["x", "s"], ["z"]), *conv("z", "w")], {"x": ["N", 6, 8, 8]},
         {"s": np.array([2, 3, 8, 8]), "w": zeros(4, 3, 3, 3)}, "batch of Conv 'y' of"),
        (conv("x", "w"), {"x": ["N", 3, 8, 8, 8]}, {"w": zeros(4, 3, 3, 3, 3)},
         "number of axes of the weights of Conv 'y' of"),
        (conv("x", "w"), {"x": ["N", 5, 8, 8]}, {"w": zeros(4, 3, 3, 3)}, "Conv 'y' of"),
        (conv("x", "w", group=0), X, {"w": zeros(4, 3, 3, 3)}, "groups of Conv 'y' of"),
        (conv("x", "w", group=-3), X, {"w": zeros(4, 3, 3, 3)}, "groups of Conv 'y' of"),
        (conv("x", "w", group=3), X, {"w": zeros(4, 1, 3, 3)}, "must divide its 3 channels"),
        (conv("x", "w", strides=[0, 0]), X, {"w": zeros(4, 3, 3, 3)}, "Conv 'y' of"),
        (conv("x", "w"), X, {"w": zeros(4, 3, 0, 3)}, "Conv 'y' of"),
        (conv("x", "w"), X, {}, "shape of the weights of Conv 'y' of"),
        (conv("x"), X, {}, "shape of the weights of Conv 'y' of"),
        ([helper.make_node("Conv", ["x", "w"], [])], X, {"w": zeros(4, 3, 3, 3)},
         "shapes of"),
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], X, {"w": zeros(2, 8, 4)},
         "number of axes of the weights of MatMul 'y' of"),
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], X, {"w": zeros(9, 4)},
         "must fit together"),
        ([helper.make_node("Gemm", ["w"], [])], X, {"w": zeros(9, 4)}, "cannot be worked out"),
        ([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], {"x": [1, 7]}, {"w": zeros(4, 9)},
         "must fit together"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_counted_are_refused(
    tmp_path: Path, nodes: list[Any], inputs: dict[str, list[Any]],
    weights: dict[str, np.ndarray], words: str,
) -> None:  # fmt: skip
    assert words in refused(save(tmp_path, nodes, inputs, ["y"], weights))


@given(st.binary(max_size=400) | st.tuples(st.integers(0, 10**6), st.binary(max_size=9)))
@SAME_FOLDER
def test_damaged_models_are_read_or_refused_in_one_sentence(
    tmp_path: Path, damage: bytes | tuple[int, bytes]
) -> None:
    path = exported(tmp_path, [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)], ["N", 3, 8, 8])
    whole = path.read_bytes()
    if isinstance(damage, tuple):
        at = damage[0] % len(whole)
        damage = whole[:at] + damage[1] + whole[at + len(damage[1]) :]
    path.write_bytes(damage)
    try:
        read_onnx(path)
    except InputError as error:
        tiny.assert_one_sentence(str(error))


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text(HEADER)
    assert "cannot be read: Is a directory" in refused(tmp_path / "folder.onnx")
    assert "is damaged or no ONNX model" in refused(tmp_path / "empty.onnx")
    assert "is damaged or no ONNX model" in refused(tmp_path / "text.onnx")
    assert "cannot be read: No such file" in refused(tmp_path / "absent.onnx")


def test_names_that_are_not_in_utf_8_are_shown_all_the_same(tmp_path: Path) -> None:
    path = save(tmp_path, conv("x", "w", name="layer-1"), X, ["y"], {"w": zeros(4, 3, 3, 3)})
    path.write_bytes(path.read_bytes().replace(b"layer-1", b"layer\xff1"))
    assert read_onnx(path).layers.names == ("layer\ufffd1",)


def test_names_are_cut_and_safe_for_a_terminal(tmp_path: Path) -> None:
    nodes = conv("x", "w", name="\x1b[31m" + "a" * 50 + "the end")
    (name,) = read_onnx(save(tmp_path, nodes, X, ["y"], {"w": zeros(4, 3, 3, 3)})).layers.names
    assert len(name) == 40
    assert name.isprintable()
    assert name.endswith("athe end")


# What a layer of one pixel takes


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # the ends of AlexNet and of GoogLeNet as SCALE-Sim has them, and matrix products
        ("C5,15,15,3,3,384,256,1,\nFC6,1,1,1,1,9216,4096,1,\nFC7,1,1,1,1,4096,40,1,\n", [0, 1]),
        ("pool_proj,7,7,1,1,832,128,1,\nfc,1,1,1,1,1024,1000,1,\n", [1]),
        ("conv,9,9,3,3,64,512,1,\nfc,1,1,1,1,512,1000,1,\n", [1]),
    ],
)
def test_a_table_s_layer_takes_all_pixels_or_their_mean(
    tmp_path: Path, text: str, expected: list[int]
) -> None:
    layers = read_topology(topology(tmp_path, HEADER + text)).layers
    assert pools(layers)[1:] == expected


def test_no_matrix_product_takes_a_mean(tmp_path: Path) -> None:
    acc, port = Accelerator(8, 8, 1, 64, 32), Port.of(load_device("ecp5-85f"))
    costs = []
    for text in ("qkv,128,64,64\nhead,1,64,64\n", "head,1,64,64\nqkv,128,64,64\n"):
        layers = read_topology(topology(tmp_path, f"Layer,M,N,K\n{text}")).layers
        assert pools(layers) == [0, 0]
        total = cycles(layers, acc, port).total
        costs.append(total[list(layers.names).index("head")])
    assert max(costs) < 1500  # 9,759 if it took the mean of 128 rows


@pytest.mark.parametrize("pooled", [True, False])
def test_an_onnx_layer_takes_a_mean_behind_global_pooling_only(
    tmp_path: Path, pooled: bool
) -> None:
    weights = {"w": zeros(16, 3, 3, 3), "v": zeros(16 if pooled else 16 * 36, 10)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
             helper.make_node("GlobalAveragePool" if pooled else "Relu", ["y"], ["p"]),
             helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("Gemm", ["f", "v"], ["z"], name="fc")]  # fmt: skip
    path = save(tmp_path, nodes, {"x": [1, 3, 8, 8]}, ["z"], weights)
    assert pools(read_onnx(path).layers) == [0, int(pooled)]


def test_what_a_branch_of_a_model_holds_is_said_to_be_left_out(tmp_path: Path) -> None:
    inner = helper.make_node("Conv", ["x", "w"], ["inner"])
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 3, 6, 6])
    graph = helper.make_graph([inner], "branch", [], [out])
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=graph, else_branch=graph),
             helper.make_node("Conv", ["y", "w"], ["z"], name="conv")]  # fmt: skip
    weights = {"w": zeros(3, 3, 3, 3), "flag": np.array(True)}
    network = read_onnx(save(tmp_path, nodes, {"x": [1, 3, 8, 8]}, ["z"], weights))
    assert network.layers.names == ("conv",)
    assert network.left_out == ("If ×1",)


NODE = helper.make_node
SIXTEEN = {"x": [1, 3, 16, 16]}
BLOCK = {"w": zeros(8, 3, 3, 3), "v": zeros(8, 8, 3, 3), "p": zeros(5, 8, 1, 1),
         "f": zeros(5, 8), "two": np.float32(2).reshape(())}  # fmt: skip


def read(folder: Path, nodes: list[Any], inputs: dict[str, list[Any]] = SIXTEEN) -> Network:
    """Read a model whose output is that of the last node."""
    return read_onnx(save(folder, nodes, inputs, [nodes[-1].output[0]], BLOCK))


def first(x: str = "x", y: str = "a", **attributes: Any) -> Any:
    return NODE("Conv", [x, "w"], [y], name=y, **({"pads": [1] * 4} | attributes))


def second(x: str, y: str) -> Any:
    return NODE("Conv", [x, "v"], [y], name=y, pads=[1] * 4)


def head(x: str) -> list[Any]:
    return [NODE("Flatten", [x], ["flat"]), NODE("Gemm", ["flat", "f"], ["out"], transB=1)]


@pytest.mark.parametrize(
    ("between", "expected", "left_out"),
    [
        ([NODE("GlobalAveragePool", ["a"], ["b"])], 1, ""),
        ([NODE("GlobalAveragePool", ["a"], ["m"]), NODE("Relu", ["m"], ["b"])], 1, "Relu"),
        ([NODE("GlobalAveragePool", ["a"], ["m"]), NODE("Sigmoid", ["m"], ["b"])], 1, "Sigmoid"),
        ([NODE("GlobalAveragePool", ["a"], ["m"]), NODE("Mul", ["two", "m"], ["b"])], 1, "Mul"),
        ([NODE("GlobalAveragePool", ["a"], ["m"]), NODE("Cast", ["m"], ["b"], to=1)], 1, "Cast"),
        ([NODE("ReduceMean", ["a"], ["b"], axes=[2, 3])], 1, ""),
        ([NODE("GlobalMaxPool", ["a"], ["b"])], 0, "GlobalMaxPool"),
        ([NODE("MaxPool", ["a"], ["b"], kernel_shape=[16, 16])], 0, "MaxPool"),
    ],
)
@pytest.mark.parametrize("kind", ["Gemm", "Conv"])
def test_a_layer_takes_the_mean_of_a_map_and_no_other_pooling(
    tmp_path: Path, between: list[Any], expected: int, left_out: str, kind: str
) -> None:
    end = head("b") if kind == "Gemm" else [NODE("Conv", ["b", "p"], ["out"], name="out")]
    found = read(tmp_path, [first(), *between, *end])
    assert pools(found.layers) == [0, expected]
    expected_left = {f"{left_out} ×1" if left_out else "", "Flatten ×1" if kind == "Gemm" else ""}
    assert set(found.left_out) == expected_left - {""}


def test_means_that_no_layer_takes_are_said_to_be_left_out(tmp_path: Path) -> None:
    nodes = [first(), NODE("GlobalAveragePool", ["a"], ["b"])]
    assert read(tmp_path, nodes).left_out == ("GlobalAveragePool ×1",)
    nodes = [first(), NODE("ReduceMean", ["a"], ["b"], axes=[2]), second("b", "c")]
    found = read(tmp_path, nodes)
    assert (found.left_out, pools(found.layers), found.apart) == (("ReduceMean ×1",), [0, 0], "c")


@pytest.mark.parametrize(
    ("attributes", "regular"),
    [
        ({}, True),
        ({"strides": [2, 2]}, True),
        ({"strides": [2, 2], "pads": [1, 1, 0, 0]}, True),  # what is behind the map is not read
        ({"strides": [2, 2], "pads": [0, 0, 1, 1]}, False),
        ({"pads": [0, 2, 2, 0]}, False),
        ({"pads": [2] * 4, "dilations": [2, 2]}, False),
        ({"auto_pad": "SAME_UPPER"}, True),
        ({"strides": [2, 2], "auto_pad": "SAME_LOWER"}, True),
        ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, False),  # 16 rows: one is padded, below
        ({"strides": [3, 3], "auto_pad": "VALID"}, False),
    ],
)
def test_padding_and_dilation_are_those_of_the_engine_or_irregular(
    tmp_path: Path, attributes: dict[str, Any], regular: bool
) -> None:
    if "auto_pad" in attributes:
        node = NODE("Conv", ["x", "w"], ["a"], name="a", **attributes)
    else:
        node = first(**attributes)
    layers = read(tmp_path, [node]).layers
    assert loops.regular(layers).tolist() == [regular]
    assert layers.macs.tolist() == [int(layers.height[0] * layers.width[0]) * 8 * 3 * 9]


@pytest.mark.parametrize(
    ("nodes", "apart", "left_out"),
    [
        ([NODE("Sub", ["x", "two"], ["z"]), first("z"), NODE("Relu", ["a"], ["r"]),
          second("r", "b"), NODE("Add", ["r", "b"], ["c"]), NODE("Clip", ["c"], ["d"]),
          second("d", "e")], "", ("Add ×1", "Clip ×1", "Relu ×1", "Sub ×1")),
        ([first(), NODE("Identity", ["a"], ["i"]), second("i", "b"),
          NODE("Add", ["b", "a"], ["c"])], "", ("Add ×1", "Identity ×1")),
        ([first(), NODE("Softmax", ["a"], ["z"])], "", ("Softmax ×1",)),
        ([first(), first("x", "b"), NODE("Add", ["a", "b"], ["c"]), second("c", "d")], "b",
         ("Add of two maps ×1",)),
        ([first(), NODE("Sigmoid", ["a"], ["s"]), NODE("Mul", ["a", "s"], ["c"])], "",
         ("Mul of two maps ×1", "Sigmoid ×1")),
        ([first(), NODE("Softmax", ["a"], ["b"]), second("b", "c")], "c", ("Softmax ×1",)),
        ([first(), second("a", "b"), second("b", "c"), NODE("Add", ["a", "c"], ["d"])], "",
         ("Add of two maps ×1",)),
        ([first(), second("a", "b"), second("a", "c")], "c", ()),
    ],
)  # fmt: skip
def test_chains_are_told_from_other_graphs(
    tmp_path: Path, nodes: list[Any], apart: str, left_out: tuple[str, ...]
) -> None:
    found = read(tmp_path, nodes)
    assert (found.apart, found.left_out) == (apart, left_out)


def test_of_a_batch_one_image_is_costed(tmp_path: Path) -> None:
    nodes = [first(), NODE("GlobalAveragePool", ["a"], ["b"]), *head("b")]
    one, many = (read(tmp_path, nodes, {"x": [n, 3, 16, 16]}) for n in (1, 8))
    assert rows(many.layers) == rows(one.layers)
    assert one.notes == ()
    assert many.notes == ("The batch of the model is 8: costed is one image of it.",)
