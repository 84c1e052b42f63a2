"""The accelerator's parameters and the device that must hold it.

The engine multiplies, in one cycle, PF filters by PC channels by PV output pixels (filter, channel
and vector parallelism of Fan et al., ASP-DAC 2022, section 2). Weights and feature maps pass
through two on-chip buffers, each of two halves: one is computed on while the other is filled.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, choice, integer, name, number, shown, table, text
from .files import read_toml

_TEXT = re.compile("{0}x{0}x{0}w{0}f{0}".format("(0|[1-9][0-9]{0,4})"))
PARALLEL = (1, 2, 4, 8, 16, 32, 64, 128)
BUFFERS_KIB = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_RANGES = {  # of a device's numbers; any other is from 0 to 1e9
    "bram_kbit": (1, 1e6),
    "port_efficiency": (0.01, 1),
    "clock_mhz": (1, 1e4),
    "static_w": (1e-6, 1e4),  # no device draws nothing, and power is predicted as a logarithm
}


@dataclass(frozen=True, order=True)
class Accelerator:
    """One engine: parallelism `pf`, `pc`, `pv`, weight and feature buffer in KiB (both halves).

    The text form is `8x8x1w16f32`: PF x PC x PV, weight buffer, feature buffer.
    """

    pf: int
    pc: int
    pv: int
    weight_kib: int
    feature_kib: int

    def __post_init__(self) -> None:
        for lanes in ("pf", "pc", "pv"):
            integer(f"{lanes.upper()} of the accelerator", getattr(self, lanes), 1, 1024)
        for buffer in ("weight_kib", "feature_kib"):
            integer(f"{buffer} of the accelerator", getattr(self, buffer), 1, 1 << 16)

    def __str__(self) -> str:
        return f"{self.pf}x{self.pc}x{self.pv}w{self.weight_kib}f{self.feature_kib}"

    @classmethod
    def parse(cls, text: str) -> "Accelerator":
        """Read the text form. Raises InputError if `text` is not of that form."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InputError(
                f"accelerator is {shown(text)}, but must look like 8x8x1w16f32: PF x PC x PV, then "
                "the weight and the feature buffer in KiB."
            )
        return cls(*(int(part) for part in match.groups()))


@dataclass(frozen=True)
class Accelerators:
    """Many accelerators: fields of `Accelerator` as int64 arrays of one shape."""

    pf: np.ndarray
    pc: np.ndarray
    pv: np.ndarray
    weight_kib: np.ndarray
    feature_kib: np.ndarray

    @classmethod
    def of(cls, accelerators: Sequence[Accelerator]) -> "Accelerators":
        """Collect accelerators into arrays (n,)."""
        return cls(
            *(np.array([getattr(a, f.name) for a in accelerators], np.int64) for f in fields(cls))
        )

    def __len__(self) -> int:
        return len(self.pf)

    def __getitem__(self, index: Any) -> "Accelerators":
        return Accelerators(*(getattr(self, field.name)[index] for field in fields(self)))

    def __iter__(self) -> Iterator[Accelerator]:
        for row in zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True):
            yield Accelerator(*row)

    def features(self) -> tuple[np.ndarray, list[str]]:
        """Base-2 logarithms of the five parameters, (n, 5) float64, and their names."""
        names = [field.name for field in fields(self)]
        return np.log2(np.stack([getattr(self, key) for key in names], axis=1)), names


@dataclass(frozen=True)
class Device:
    """An FPGA: its budget, its memory port, and the coefficients of the modelled figures.

    `products_per_dsp`: int8 products in one DSP. `bram_kbit`, `bram_bits_wide`: one block RAM.
    The port moves `port_bits` a cycle for the fraction `port_efficiency` of cycles. The clock is
    `clock_mhz` up to 16 products a cycle and falls by `clock_slope_mhz` for each doubling. Energies
    are pJ: `mac_pj` an int8 multiply-accumulate, `sram_pj_byte` a buffer access, `memory_pj_bit`
    external memory, `lut_pj_cycle` and `bram_pj_cycle` a clocked LUT or block RAM a cycle.
    `source` says where the coefficients come from.
    """

    name: str
    label: str
    dsp: int
    bram: int
    lut: int
    products_per_dsp: int
    bram_kbit: float
    bram_bits_wide: int
    lut_base: float
    lut_per_product: float
    lut_per_lane: float
    port_bits: int
    port_efficiency: float
    clock_mhz: float
    clock_slope_mhz: float
    static_w: float
    mac_pj: float
    sram_pj_byte: float
    memory_pj_bit: float
    lut_pj_cycle: float
    bram_pj_cycle: float
    source: str

    def grid(self) -> Accelerators:
        """Return accelerators of powers of two within the device's products and buffer bits, (n,).

        Whether control logic and block RAM shapes fit as well is for `cost.resources` to say.
        """
        products = (self.dsp - 2) * self.products_per_dsp
        kib = self.bram * self.bram_kbit / 8
        rows = [
            Accelerator(pf, pc, pv, weight, feature)
            for pf, pc, pv in product(PARALLEL[1:], PARALLEL[1:], PARALLEL[:3])
            if products / 16 <= pf * pc * pv <= products
            for weight, feature in product(BUFFERS_KIB, BUFFERS_KIB)
            if kib / 32 <= weight + feature <= kib
        ]
        return Accelerators.of(rows)


def devices() -> tuple[str, ...]:
    """Names of the devices that come with the program."""
    files = resources.files(__package__).joinpath("devices").iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


def load_device(which: str) -> Device:
    """Return a device by name, or read the TOML file at that path. Raises InputError."""
    if which.endswith(".toml"):
        return device_of(read_toml(Path(which)), which)
    choice("device", which, (*devices(), "a path that ends in .toml"))
    file = resources.files(__package__).joinpath("devices", f"{which}.toml")
    with resources.as_file(file) as path:
        return device_of(read_toml(path), which)


def device_of(data: object, where: str = "device") -> Device:
    """Build a device from plain data, the content of its TOML file. Raises InputError."""
    kinds = {field.name: field.type for field in fields(Device)}
    data = table(where, data, tuple(kinds))
    values: dict[str, Any] = {}
    for key, kind in kinds.items():
        field = f"{key} of {where}"
        if kind is str:
            values[key] = name(field, data[key]) if key == "name" else text(field, data[key])
        elif kind is int:
            values[key] = integer(field, data[key], 1, 100_000_000)
        else:
            low, high = _RANGES.get(key, (0.0, 1e9))
            values[key] = number(field, data[key], low, high)
    bits = int(values["bram_kbit"] * 1024)
    integer(f"bram_bits_wide of {where}", values["bram_bits_wide"], 1, bits)
    return Device(**values)
