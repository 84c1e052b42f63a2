"""Networks designed by hand beside architectures that the method finds, all trained alone alike.

    python benchmarks/handmade.py data/handmade.csv --study data/studies/fashion

Three families at the size of Fashion-MNIST, written from the ideas of their papers: residual stages
of 3 x 3 convolutions (He et al., CVPR 2016), parallel branches joined (Szegedy et al., CVPR 2015;
with batch normalisation, Ioffe and Szegedy, ICML 2015), inverted residuals (Sandler et al., CVPR
2018). As in the space `fashion` the stem halves the image and two later stages halve the map.
The architectures found lie along the study's front on one device; the former are of the front of a
study that went by accuracy with shared weights, the wider of that of a study of the space
`fashion-wide`. All are trained by the recipe of `specialise.train_alone` for `--epochs`; with seed
0, all but the wider for twice as many, too: whether more would help. Each finished row is kept: a
run that was killed goes on where it stopped.
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from codesign_kernel import datasets, graphs, specialise, train
from codesign_kernel.files import write_text
from codesign_kernel.space import Architecture, SearchSpace, load_space
from codesign_kernel.supernet import Block, Plain, Subnet
from codesign_kernel.workload import Layers

SPACE, WIDER = "fashion", "fashion-wide"
# Filters of the first stage, and blocks a stage: MACs from below to above those of the front.
SIZES = {
    "resnet": {"small": (8, 1), "medium": (16, 1), "large": (16, 3)},
    "inception": {"small": (16, 1), "medium": (32, 1), "large": (48, 2)},
    "mobilenet": {"small": (8, 1), "medium": (16, 2), "large": (24, 3)},
}
KEY = ["network", "size", "seed", "epochs"]


class Added(nn.Module):
    """A body whose input is added to its output, as it is or through a shortcut; then ReLU, or
    not."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, active: bool) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return F.relu(y) if self.active else y


class Joined(nn.Module):
    """Branches on the same input, their outputs joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def convolution(
    channels: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    active: bool = True,
) -> nn.Sequential:  # fmt: skip
    """A convolution and BN, begun as those of subnets are, and ReLU if `active`."""
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(filters, momentum=None)  # None: the plain average of batches
    return nn.Sequential(conv, norm, *[nn.ReLU()] * active)


def basic(channels: int, filters: int, stride: int) -> nn.Module:
    """Two 3 x 3 convolutions and a shortcut, 1 x 1 where the shape changes (He et al., Fig. 2)."""
    changes = stride > 1 or channels != filters
    shortcut = convolution(channels, filters, 1, stride, active=False) if changes else None
    first = convolution(channels, filters, 3, stride)
    return Added(nn.Sequential(first, convolution(filters, filters, 3, active=False)), shortcut,
                 active=True)  # fmt: skip


def inception(channels: int, filters: int, stride: int) -> nn.Module:
    """Branches of 1 x 1, 3 x 3, 5 x 5 and a pool, with the shares of the first module of GoogLeNet
    (Szegedy et al., Fig. 2b and Table 1, 3a); a map is halved by pooling before it."""
    eighth = filters // 8
    module = Joined(
        convolution(channels, 2 * eighth),
        nn.Sequential(convolution(channels, 3 * eighth), convolution(3 * eighth, 4 * eighth, 3)),
        nn.Sequential(convolution(channels, eighth // 2), convolution(eighth // 2, eighth, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(channels, eighth)),
    )
    return nn.Sequential(nn.MaxPool2d(3, 2, 1), module) if stride > 1 else module


def inverted(channels: int, filters: int, stride: int, expansion: int = 6) -> nn.Module:
    """A 1 x 1 expansion, a depthwise 3 x 3 and a 1 x 1 projection without ReLU, around which the
    input is added where the shape stays (Sandler et al., Table 1 and Fig. 4d)."""
    wide = expansion * channels
    body = nn.Sequential(
        *[convolution(channels, wide)] * (expansion > 1),
        convolution(wide, wide, 3, stride, groups=wide),
        convolution(wide, filters, active=False),
    )
    return body if stride > 1 or channels != filters else Added(body, None, active=False)


def handmade(space: SearchSpace, network: str, size: str) -> Plain:
    """Return a network designed by hand, one of SIZES, for the space's images and classes."""
    width, depth = SIZES[network][size]
    make = {"resnet": basic, "inception": inception, "mobilenet": inverted}[network]
    blocks: list[nn.Module] = [convolution(space.input[2], width, 3, 2)]
    channels = width
    if network == "mobilenet":  # its first block expands nothing, and it is narrow
        blocks.append(inverted(width, width // 2, 1, expansion=1))
        channels = width // 2
    for stage in range(3):
        filters = width << stage if network != "mobilenet" else width * (stage + 2) // 2
        for block in range(depth):
            blocks.append(make(channels, filters, 2 if stage and not block else 1))
            channels = filters
    if network == "mobilenet":  # and it ends in a broad 1 x 1
        blocks.append(convolution(channels, 4 * channels))
        channels *= 4
    return Plain(space, blocks, channels)


@torch.no_grad()
def layers_of(network: Plain) -> Layers:
    """Return the convolutions and the classifier of a network, fields (layers,).

    `residual` marks those whose output another map of the same shape is added to.
    """
    added = {part.convolution for part in network.modules()
             if isinstance(part, Block) and part.residual}  # fmt: skip
    for part in network.modules():
        if isinstance(part, Added):
            added.add([each for each in part.body.modules() if isinstance(each, nn.Conv2d)][-1])
    names = {part: name for name, part in network.named_modules()}
    rows: list[tuple[object, ...]] = []

    def seen(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sides = [*inputs[0].shape[2:], *output.shape[2:]] or [1, 1, 1, 1]
        if isinstance(part, nn.Conv2d):
            bounds = part.out_channels // part.groups, part.in_channels // part.groups
            kernel, stride, groups = part.kernel_size[0], part.stride[0], part.groups
        else:
            bounds, kernel, stride, groups = output.shape[1:] + inputs[0].shape[1:], 1, 1, 1
        rows.append((names[part], *bounds, *sides, kernel, stride, int(part in added), groups))

    parts = [part for part in names if isinstance(part, nn.Conv2d | nn.Linear)]
    hooks = [part.register_forward_hook(seen) for part in parts]
    height, width, channels = network.space.input
    network.eval()(torch.zeros(1, channels, height, width))
    for hook in hooks:
        hook.remove()
    labels, *columns = zip(*rows, strict=True)
    *bounds, groups = (np.array(column, np.int64) for column in columns)
    return Layers(labels, *bounds, repeat=groups)


def network_of(network: str, size: str) -> Plain:
    """Return one of SIZES, or the subnet of an architecture in its text form, whose size is the
    name of its space."""
    if network in SIZES:
        return handmade(load_space(SPACE), network, size)
    return Subnet(load_space(size), Architecture.parse(network))


def along_front(folder: Path, device: str, count: int = 6) -> list[str]:
    """Return `count` architectures of the study's front on a device: of those that no faster one
    beats in predicted accuracy, the nearest to latencies in equal ratios."""
    from codesign_kernel.study import open_study  # not needed where architectures are given

    front = open_study(folder).front().query("device == @device")
    front = front.sort_values(["latency_ms", "accuracy"], ascending=[True, False])
    best = front[front["accuracy"] > front["accuracy"].cummax().shift(fill_value=0)]
    latency = best["latency_ms"].to_numpy()
    wanted = np.geomspace(latency[0], latency[-1], count)
    nearest = [int(np.abs(np.log(latency / each)).argmin()) for each in wanted]
    return best["architecture"].iloc[nearest].drop_duplicates().tolist()


def start(folder: Path | None) -> None:
    """Load the data set once in each process."""
    global data
    data = datasets.load("fashion-mnist", folder=folder)


def kind_of(network: str, size: str, found: Sequence[str], former: Sequence[str]) -> str:
    """Return the `kind` of a network in the table."""
    if network in SIZES:
        return "hand-designed"
    if size == WIDER:
        return "found in a wider space"
    if network in found:
        return "found by both" if network in former else "found"
    return "found by shared weights"


def measured(network: str, size: str, seed: int, epochs: int, place: str, steps: int) -> dict:
    """Train one network and return its row of the table; `steps` of 0 are those of all epochs."""
    with graphs.LOCK:
        torch.manual_seed(seed)
        plain = network_of(network, size)
    layers = layers_of(plain)
    steps = steps or epochs * len(data.train) // train.PRESETS["standard"].batch
    preset = replace(train.PRESETS["standard"], steps=steps)
    began = time.monotonic()
    specialise.fit_alone(plain, data, preset, seed, place)
    seconds = time.monotonic() - began
    on = torch.cuda.get_device_name() if place.startswith("cuda") else place
    return {
        "network": network, "size": size, "kind": "", "seed": seed, "epochs": epochs,
        "macs": int(layers.macs.sum()), "parameters": int(layers.parameters.sum()),
        "validation": round(train.accuracy(plain, data.validation, place), 2),
        "test": round(train.accuracy(plain, data.test, place), 2),
        "seconds": round(seconds, 1), "place": on,
    }  # fmt: skip


def tasks(found: Sequence[str], wider: Sequence[str], seeds: int, epochs: int) -> pd.DataFrame:
    """Return what is to be trained, a row each, the longest first, but the doubled last."""
    networks = [(network, size) for network, sizes in SIZES.items() for size in sizes]
    networks += [(architecture, SPACE) for architecture in found]
    networks += [(architecture, WIDER) for architecture in wider]
    rows = [(*each, seed, epochs) for seed in range(seeds) for each in networks]
    rows += [(*each, 0, 2 * epochs) for each in networks if each[1] != WIDER]
    order = {"inception": 0, "mobilenet": 1, "resnet": 2}
    rows.sort(key=lambda row: (row[3], order.get(row[0], 3), row[1] != "large"))
    return pd.DataFrame(rows, columns=KEY)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--study", type=Path, help="of whose front the architectures are")
    parser.add_argument("--device", default="ecp5-85f", help="of that front")
    parser.add_argument("--found", help="architectures in its place, joined by commas")
    parser.add_argument("--former", default="", help="likewise, found by shared weights")
    parser.add_argument("--wider", default="", help=f"likewise, found in {WIDER}")
    parser.add_argument("--folder", type=Path, help="of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0, help="of each training, for a trial")
    parser.add_argument("--place", default="cpu", help="torch's name of the processor")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    found = asked.found.split(",") if asked.found else along_front(asked.study, asked.device)
    former, wider = (
        [name for name in names.split(",") if name] for names in (asked.former, asked.wider)
    )
    wanted = tasks(list(dict.fromkeys([*found, *former])), wider, asked.seeds, asked.epochs)
    table = pd.read_csv(asked.csv) if asked.csv.exists() else pd.DataFrame(columns=KEY)
    there = set(table[KEY].itertuples(index=False, name=None))
    missing = [row for row in wanted.itertuples(index=False, name=None) if row not in there]
    # Of the processes: one bar is enough, and one thread each.
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    order = {row: i for i, row in enumerate(wanted.itertuples(index=False, name=None))}
    pool: Executor
    if asked.place.startswith("cuda"):
        start(asked.folder)
        pool = ThreadPoolExecutor(asked.workers)
    else:
        pool = ProcessPoolExecutor(
            asked.workers, get_context("spawn"), initializer=start, initargs=(asked.folder,)
        )

    def kept(rows: list[dict]) -> pd.DataFrame:
        table = pd.DataFrame(rows)
        at = table[KEY].apply(lambda row: order.get(tuple(row), len(order)), axis=1)
        table = table.iloc[np.argsort(at, kind="stable")]
        pairs = zip(table["network"], table["size"], strict=True)
        table["kind"] = [kind_of(*pair, found, former) for pair in pairs]
        write_text(asked.csv, table.to_csv(index=False))
        return table

    with pool:
        waiting = [pool.submit(measured, *row, asked.place, asked.steps) for row in missing]
        for done in tqdm(as_completed(waiting), "train", len(waiting), unit="network"):
            table = kept([*table.to_dict("records"), done.result()])
    shown = kept(table.to_dict("records")).groupby(
        ["kind", "network", "size", "epochs"], sort=False
    )
    means = shown[["macs", "parameters", "validation", "test"]].mean()
    print(means.assign(spread=shown["test"].std()).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
