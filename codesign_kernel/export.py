"""Take a design home: a folder with its settings, weights, ONNX model, layers and a report.

The subnet is specialised first. Its accuracy on the test images is measured here for the first
time: nothing was selected on them. Where the engine can be built, the network is also quantised and
compiled: the folder gets the memory that the engine runs it from.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import __version__, engines, quantize, routed
from .accelerator import Device
from .batches import to_tensor
from .datasets import Dataset
from .design import Design
from .errors import InputError, integer
from .files import (
    check_out,
    digest,
    no_others,
    read_json,
    replacing,
    write_arrays,
    write_json,
    write_text,
)
from .integer import of_layers
from .meters import CLOSED_FORM, Specialised
from .predict import COVERAGE
from .program import Program, compile_network
from .protocol import protocol
from .quantities import UNITS
from .report import Counted, origins, report
from .rtl.shape import Shape
from .simulate import CAUSES, MemoryModel, memory_of
from .space import Architecture, SearchSpace
from .study import Study
from .supernet import Subnet
from .train import accuracy, calibration_images, subnet
from .workload import layers_of

OPSET = 17
MOST_STEPS = 10**6
# What the engine runs, and an image and its answer in bytes, to see whether a board does so, too.
PROGRAM, GOLDEN_IN, GOLDEN_OUT, GUIDE = (
    "program.bin", "golden_input.bin", "golden_output.bin", "README.txt"
)  # fmt: skip
RUN = (PROGRAM, GOLDEN_IN, GOLDEN_OUT, GUIDE)
LAYER_UNITS = {
    "macs": "multiply-accumulates",
    "weight_bytes": "bytes over the memory port",
    "feature_bytes": "bytes over the memory port",
    "cycles": f"clock cycles, the sum of those by cause: {', '.join(CAUSES)}",
}
MEASURED_UNITS = UNITS | {"cycles": "clock cycles of one image", "clock_mhz": "MHz"}
ABOUT = "design.json"
FILES = (ABOUT, "layers.csv", "model.onnx", *RUN, "report.html", "weights.safetensors")


def specialised(
    study: Study, architecture: Architecture, dataset: Dataset, steps: int | None = None
) -> tuple[Subnet, dict[str, float]]:
    """Return the specialised subnet, and accuracies in % on validation images, by what is measured.
    It is fine-tuned as those that a study measures, or for `steps` steps.

    Raises InputError if the study's supernet is absent, unfinished, damaged or of another space, or
    the steps are none.
    """
    if steps is not None:
        integer("--steps", steps, 1, MOST_STEPS)
    meter = Specialised(study, dataset=dataset)
    network = meter.network(architecture, steps)
    before = subnet(meter.supernet, architecture, meter.calibration)
    return network, {
        "validation, supernet weights": accuracy(before, dataset.validation),
        f"validation, {_how(steps)}": accuracy(network, dataset.validation),
    }


def _how(steps: int | None) -> str:
    return "specialised" if steps is None else f"specialised for {steps} steps"


def export(
    study: Study, design: Design, dataset: Dataset, folder: Path, steps: int | None = None
) -> Path:
    """Write the design's folder and return its path; an export that is there is replaced, once the
    network is specialised: as those that a study measures, or for `steps` steps. Killed after that,
    design.json says `unfinished`.

    Raises InputError if the study lacks a supernet or predictors, the folder cannot be written or
    holds what is no export, or the steps are none.
    """
    predicted = study.predict([design]).iloc[0]
    layers = study.layers(design)
    _check_folder(study, folder)
    device = study.device(design.device)
    shape = None
    if routed.measurable(device):  # what the engine cannot run is said before the training
        shape = Shape(design.accelerator, device.port_bits)
        loops = layers_of(study.space, study.space.encode(design.architecture)[None])
        compile_network(of_layers(loops), shape)
    check_out("--out", folder / ABOUT)  # before the training, not after
    network, measured = specialised(study, design.architecture, dataset, steps)
    measured[f"test, {_how(steps)}"] = accuracy(network, dataset.test)
    # From here on the folder may hold parts of two designs, and says so if this is killed.
    begun = {"design": str(design), "study": _origin(study), "unfinished": True}
    write_json(folder / ABOUT, begun)
    write_text(folder / "layers.csv", layers.to_csv(index=False))
    about: dict[str, Any] = {}
    memory: dict[str, Any] = {}  # where cycles are simulated
    for name in RUN:  # of a design that was there before
        (folder / name).unlink(missing_ok=True)
    if shape is not None:
        quantised = quantize.quantize(network, calibration_images(dataset))
        measured[f"test, {_how(steps)}, int8"] = quantize.accuracy(quantised, dataset.test)
        program = compile_network(quantised.network, shape)
        about = _memory_map(program, quantised, device)
        memory = asdict(memory_of(device)) | {
            "unit": "cycles of the engine's clock",
            "source": "simulated: the external memory with which simulation measures cycles",
        }
        x = quantised.input(to_tensor(dataset.validation.batch(np.arange(1))))
        answer = program.beats(quantised.network(x)[0])
        golden = (GOLDEN_IN, program.beats(x[0])), (GOLDEN_OUT, answer)
        for name, data in ((PROGRAM, program.image), *golden):
            with replacing(folder / name) as temporary:
                temporary.write_bytes(data)
        write_text(folder / GUIDE, _guide(about, shape, memory_of(device)))
    counted = {
        name: Counted(value, len(getattr(dataset, name.partition(",")[0])))
        for name, value in measured.items()
    }
    hardware = engines.figures(study, design)
    own = engines.measured(study, device.name)
    known, source = engines.known(design.accelerator, device, own)
    # Resources are told with the engine, once.
    names = [*UNITS, *(f"{name}_{end}" for name in UNITS for end in ("low", "high"))]
    figures = {name: predicted[name] for name in names}
    for name, about_it in origins(study, device.name).items():
        if name in UNITS:
            figures |= zip((f"{name}_source", f"{name}_of"), about_it, strict=True)
    content: dict[str, Any] = {
        "design": str(design),
        "id": design.id,
        "predicted": figures,
        "interval_coverage": COVERAGE,
        "units": UNITS,
        "measured_accuracy_percent": measured,
        "measured_accuracy_images": {name: each.images for name, each in counted.items()},
        "measured_accuracy_interval": {name: each.interval() for name, each in counted.items()},
        "measured_accuracy_interval_is": f"{COVERAGE:.0%} by the number of images alone, Wilson's",
        "accuracy_is_of": "float32 weights, where it does not say int8",
        "measured_hardware": {name: value for name, (value, _) in hardware.items()},
        "measured_hardware_by": {name: method for name, (_, method) in hardware.items()},
        "measured_hardware_units": {name: MEASURED_UNITS[name] for name in hardware},
        "memory": memory,
        "modelled_cycles": float(layers["cycles"].sum()),
        "layers": {"file": "layers.csv", "source": "modelled, of one image", "units": LAYER_UNITS},
        "engine": known | {"source": source, "units": {"clock_mhz": "MHz"}},
        "study": _origin(study) | {
            "supernet": digest(study.supernet_path), "closed_form": CLOSED_FORM,
            "version": __version__,
        },
        "device": device.label,
        "program": about,
        "input": {"name": "images", "shape": ["N", *_input(study.space)], "from": 0, "to": 1},
        "classes": list(dataset.classes),
        "version": __version__,
    }  # fmt: skip
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    write_arrays(folder / "weights.safetensors", state, {"design": str(design)})
    with replacing(folder / "model.onnx") as temporary:
        temporary.write_bytes(to_onnx(network).SerializeToString())
    text = report(study, design, predicted, counted, hardware, layers, steps)
    write_text(folder / "report.html", text)
    write_json(folder / ABOUT, content)
    return folder


def _memory_map(program: Program, quantised: quantize.Quantized, device: Device) -> dict[str, Any]:
    """Return what one must know to use a program: of which engine, where in memory, in bytes,
    images go and answers come, and how."""
    shape, first, last = program.shape, program.maps[0], program.maps[-1]
    size = shape.port_bytes
    return {
        "file": PROGRAM,
        "accelerator": str(shape.accelerator),
        "port_bits": shape.port_bits,
        "made_by": f"codesign implement {shape.accelerator} --device {device.name} "
        f"--port-bits {shape.port_bits} --folder engine",
        "beat_bytes": size,
        "memory_bytes": len(program.image),
        "first_task_at_byte": 0,
        "tasks": len(program.layer_of_task),
        "input": {"at_byte": first.address * size, "shape": list(first[1:]),
                  "from_pixels": "int8: round((pixel - mean) / std / scale), from -127 to 127",
                  "mean": quantised.mean.ravel().tolist(), "std": quantised.std.ravel().tolist(),
                  "scale": quantised.scale},
        "output": {"at_byte": last.address * size, "shape": list(last[1:]), "type": "int8",
                   "scale": quantised.logit_scale},
        "golden": {"input": GOLDEN_IN, "output": GOLDEN_OUT,
                   "source": "the first validation image, by the exact integer arithmetic of "
                   "codesign_kernel/integer.py"},
        "protocol": GUIDE,
    }  # fmt: skip


def _guide(about: dict[str, Any], shape: Shape, memory: MemoryModel) -> str:
    """Return how to run the program on a board, as text."""
    given, taken = (about[side]["at_byte"] for side in ("input", "output"))
    return f"""\
Engine of {PROGRAM}: {about["accelerator"]}, with a memory port of {about["port_bits"]} bits
It is made by: {about["made_by"]}
(in seconds with --unrouted, which leaves out place and route)

1. Have {about["memory_bytes"]:,} bytes of memory at the port, and write {PROGRAM} from byte 0 on.
2. Write an image as int8 at byte {given}, as `input` in design.json says; {GOLDEN_IN} holds one.
3. Raise `start` for a cycle, and wait for `done`.
4. Read the answer at byte {taken}. For {GOLDEN_IN} it must be {GOLDEN_OUT}, byte for byte.

Cycles that were measured in simulation are with a simulated memory: the first beat of a read comes
{memory.latency} cycles after its command, {memory.gap} cycles are lost after each command, and \
{memory.refresh_cycles} of every {memory.refresh_every} to
refresh. Cycles of the closed form lose the same fraction. Your own memory gives others.

{protocol(shape)}"""


def _input(space: SearchSpace) -> tuple[int, int, int]:
    """Channels, height and width of an image, as ONNX has them."""
    height, width, channels = space.input
    return channels, height, width


def _check_folder(study: Study, folder: Path) -> None:
    """Raise InputError if the folder is a study, or holds the export of another one or what no
    export wrote."""
    if (folder / "study.json").exists():
        raise InputError(f"--out is {folder}, but that is a study: give another folder.")
    path = folder / ABOUT
    if not path.exists():
        no_others(folder, ())
        return
    there = read_json(path).get("study")
    if not isinstance(there, dict) or not _origin(study).items() <= there.items():
        raise InputError(f"{folder} holds a design of another study: give another folder by --out.")


def _origin(study: Study) -> dict[str, Any]:
    return {"space": study.space.name, "dataset": study.dataset, "preset": study.preset,
            "seed": study.seed}  # fmt: skip


def to_onnx(network: Subnet) -> onnx.ModelProto:
    """Return the network as ONNX: input `images` (N, C, H, W) float32 in [0, 1], output `logits`
    (N, classes). BN is folded into the convolutions, as on the accelerator."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    x = node("Sub", ["images", constant("mean", network.mean.numpy())], "centred")
    x = node("Div", [x, constant("std", network.std.numpy())], "normalised")
    for i, block in enumerate(network.layers()):
        norm, convolution = block.norm, block.convolution
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        kernel = (convolution.weight.detach() * factor[:, None, None, None]).numpy()
        bias = (norm.bias.detach() - norm.running_mean * factor).numpy()
        name = f"block{i}"
        side, pad, stride = kernel.shape[-1], kernel.shape[-1] // 2, convolution.stride[0]
        inputs = [x, constant(f"{name}/weight", kernel), constant(f"{name}/bias", bias)]
        y = node("Conv", inputs, f"{name}/conv", kernel_shape=[side] * 2, pads=[pad] * 4,
                 strides=[stride] * 2)  # fmt: skip
        y = node("Add", [y, x], f"{name}/add") if block.residual else y
        x = node("Relu", [y], f"{name}/out")
    x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "flat", axis=1)
    classifier = network.classifier
    inputs = [
        x,
        constant("classifier/weight", classifier.weight.detach().numpy()),
        constant("classifier/bias", classifier.bias.detach().numpy()),
    ]
    node("Gemm", inputs, "logits", transB=1)
    shape: list[str | int | None] = ["N", *_input(network.space)]
    graph = helper.make_graph(
        nodes, str(network.architecture),
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", network.space.classes])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.doc_string = f"{network.architecture}; pixels of images from 0 to 1"
    onnx.checker.check_model(model, full_check=True)
    return model
