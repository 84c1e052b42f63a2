"""Write the tables of layers that come with the program, from the tables of their papers.

    python benchmarks/networks.py codesign_kernel/topologies

All for images of 224 x 224 x 3 and 1000 classes. Additions, pooling and activations are left out.
"""

import sys
from pathlib import Path

from codesign_kernel.files import write_text
from codesign_kernel.networks import COLUMNS

COMMAND = "python benchmarks/networks.py codesign_kernel/topologies"
RESNET101 = """ResNet-101: He, Zhang, Ren, Sun, CVPR 2016, Table 1. A stage's first 1 x 1
convolution has its stride, as in the paper. 7.6 GMAC, 44.5 million parameters."""
INCEPTIONV2 = """Inception-v2 (BN-Inception): Ioffe, Szegedy, ICML 2015, Figure 5, with the channel
counts of the published Caffe weights: a plain first convolution, and pool projections of 128 in
4c and 4d. 2.0 GMAC, 11.3 million parameters."""
MOBILENETV2 = """MobileNetV2 1.0: Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, Table 2.
0.3 GMAC, 3.5 million parameters."""


class Table:
    """Rows of one network, layer by layer; maps are padded by half the kernel."""

    def __init__(self) -> None:
        self.rows: list[tuple[str | int, ...]] = []

    def add(self, name: str, side: int, kernel: int, channels: int, filters: int, stride: int = 1,
            groups: int = 1) -> int:  # fmt: skip
        """Add a layer on a square map, and return the side of its output."""
        out = -(-side // stride)
        self.rows.append(
            (name, side, side, kernel, kernel, channels, filters, groups, stride, out, out)
        )
        return out

    def write(self, path: Path, about: str) -> None:
        comments = "".join(f"# {line}\n" for line in [*about.splitlines(), f"Made by: {COMMAND}"])
        lines = [",".join(map(str, row)) + "\n" for row in [COLUMNS, *self.rows]]
        write_text(path, comments + "".join(lines))


def resnet101() -> Table:
    table = Table()
    table.add("conv1", 224, 7, 3, 64, 2)
    side, channels = 56, 64  # after the max pool
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (23, 256), (3, 512)], start=2):
        for block in range(1, blocks + 1):
            name, stride = f"conv{stage}_{block}", 2 if stage > 2 and block == 1 else 1
            if block == 1:
                table.add(f"{name}_shortcut", side, 1, channels, 4 * width, stride)
            side = table.add(f"{name}_1x1a", side, 1, channels, width, stride)
            table.add(f"{name}_3x3", side, 3, width, width)
            table.add(f"{name}_1x1b", side, 1, width, 4 * width)
            channels = 4 * width
    table.add("fc", 1, 1, channels, 1000)
    return table


def inceptionv2() -> Table:
    # A block's filters: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection.
    # Those without the first and the last halve the map, and pass the pooled input on.
    blocks = {
        "3a": (64, 64, 64, 64, 96, 32),
        "3b": (64, 64, 96, 64, 96, 64),
        "3c": (0, 128, 160, 64, 96, 0),
        "4a": (224, 64, 96, 96, 128, 128),
        "4b": (192, 96, 128, 96, 128, 128),
        "4c": (160, 128, 160, 128, 160, 128),
        "4d": (96, 128, 192, 160, 192, 128),
        "4e": (0, 128, 192, 192, 256, 0),
        "5a": (352, 192, 320, 160, 224, 128),
        "5b": (352, 192, 320, 192, 224, 128),
    }
    table = Table()
    table.add("conv1_7x7", 224, 7, 3, 64, 2)
    table.add("conv2_reduce", 56, 1, 64, 64)
    table.add("conv2_3x3", 56, 3, 64, 192)
    side, channels = 28, 192
    for name, (one, reduce, three, double_reduce, double, projection) in blocks.items():
        stride = 1 if one else 2
        if one:
            table.add(f"{name}_1x1", side, 1, channels, one)
        table.add(f"{name}_3x3_reduce", side, 1, channels, reduce)
        table.add(f"{name}_3x3", side, 3, reduce, three, stride)
        table.add(f"{name}_double_reduce", side, 1, channels, double_reduce)
        table.add(f"{name}_double_3x3a", side, 3, double_reduce, double)
        out = table.add(f"{name}_double_3x3b", side, 3, double, double, stride)
        if projection:
            table.add(f"{name}_pool_proj", side, 1, channels, projection)
        side, channels = out, one + three + double + (projection or channels)
    table.add("fc", 1, 1, channels, 1000)
    return table


def mobilenetv2() -> Table:
    table = Table()
    side, channels = table.add("conv1", 224, 3, 3, 32, 2), 32
    # Expansion, output channels, repeats, stride of the first.
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
    for stage, (expansion, filters, repeats, first) in enumerate(stages, start=1):
        for block in range(1, repeats + 1):
            name, wide = f"block{stage}_{block}", expansion * channels
            if expansion > 1:
                table.add(f"{name}_expand", side, 1, channels, wide)
            side = table.add(f"{name}_depthwise", side, 3, wide, wide, first if block == 1 else 1,
                             wide)  # fmt: skip
            table.add(f"{name}_project", side, 1, wide, filters)
            channels = filters
    table.add("conv9", side, 1, channels, 1280)
    table.add("fc", 1, 1, 1280, 1000)
    return table


def main() -> None:
    folder = Path(sys.argv[1])
    resnet101().write(folder / "resnet101.csv", RESNET101)
    inceptionv2().write(folder / "inceptionv2.csv", INCEPTIONV2)
    mobilenetv2().write(folder / "mobilenetv2.csv", MOBILENETV2)


if __name__ == "__main__":
    main()
