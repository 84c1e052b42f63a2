"""The accelerator's parameters and the device that must hold it.

The engine multiplies, in one cycle, PF filters by PC channels by PV output pixels (filter, channel
and vector parallelism of Fan et al., ASP-DAC 2022, section 2). Weights and feature maps pass
through two on-chip buffers, filled while they are computed on: that of weights is a ring, that of
features has two halves.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
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
    "clock_within": (1, 100),
    "static_w": (1e-6, 1e4),  # no device draws nothing, and power is predicted as a logarithm
}
PORTS = (8, 16, 32, 64, 128, 256, 512)  # bits of a beat
PARTS = 5  # of what an engine takes in LUTs or flip-flops


@dataclass(frozen=True, order=True)
class Accelerator:
    """One engine: parallelism `pf`, `pc`, `pv`, weight and feature buffer in KiB, the latter of
    both halves.

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
        made = cache(Accelerator)  # many designs share an engine
        for row in zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True):
            yield made(*row)

    def features(self) -> tuple[np.ndarray, list[str]]:
        """Base-2 logarithms of the five parameters, (n, 5) float64, and their names."""
        names = [field.name for field in fields(self)]
        return np.log2(np.stack([getattr(self, key) for key in names], axis=1)), names


@dataclass(frozen=True)
class Coefficient:
    """A power or an energy: its `value`, the factor `within` which the truth lies in 90 % of the
    cases, as far as its `source` tells."""

    value: float
    within: float
    source: str


@dataclass(frozen=True)
class Device:
    """An FPGA: its budget, its memory port, and the coefficients of the modelled figures.

    `products_per_dsp`: int8 products in one DSP. `bram_kbit`, `bram_bits_wide`: one block RAM.
    `lut_parts`: LUTs of an engine, and of each product, each accumulator (PF x PV), each pixel (PV)
    and each result that is requantised at once. `ff_parts`: flip-flops, but PC x PV for the pixels.
    The port moves `port_bits` a cycle for the fraction `port_efficiency` of cycles. The clock is
    `clock_mhz` up to 16 products a cycle and falls by `clock_slope_mhz` for each doubling; in 90 %
    of the cases the true one lies within the factor `clock_within`. Energies
    are pJ: `clock_pj` of the clock of one flip-flop for a cycle, `flip_pj` of a flip-flop that
    changes with the logic and wires behind it, `mac_pj` of an int8 product, `bram_pj` of an access
    of a block RAM, `memory_pj_bit` of external memory. `source` says where the rest comes from.
    """

    name: str
    label: str
    dsp: int
    bram: int
    lut: int
    products_per_dsp: int
    bram_kbit: float
    bram_bits_wide: int
    lut_parts: tuple[float, ...]
    ff_parts: tuple[float, ...]
    port_bits: int
    port_efficiency: float
    clock_mhz: float
    clock_slope_mhz: float
    clock_within: float
    static_w: Coefficient
    clock_pj: Coefficient
    flip_pj: Coefficient
    mac_pj: Coefficient
    bram_pj: Coefficient
    memory_pj_bit: Coefficient
    source: str

    def grid(self) -> Accelerators:
        """Return accelerators of powers of two within the device's products and buffer bits, (n,).

        Whether an engine can be built so, and fits, is for `cost.fits` to say.
        """
        products = self.dsp * self.products_per_dsp
        kib = self.bram * self.bram_kbit / 8
        sides = PARALLEL[1:], PARALLEL[1:], PARALLEL[:3], BUFFERS_KIB, BUFFERS_KIB
        grid = Accelerators(*(side.ravel() for side in np.meshgrid(*sides, indexing="ij")))
        lanes, buffers = grid.pf * grid.pc * grid.pv, grid.weight_kib + grid.feature_kib
        return grid[(products / 16 <= lanes) & (lanes <= products)
                    & (kib / 32 <= buffers) & (buffers <= kib)]  # fmt: skip


def devices() -> tuple[str, ...]:
    """Names of the devices that come with the program."""
    files = resources.files(__package__).joinpath("devices").iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


def load_device(which: str) -> Device:
    """Return a device by name, or read the TOML file at that path. Raises InputError."""
    if which.endswith(".toml"):
        own = device_of(read_toml(Path(which)), which)
        if own.name in devices() and own != load_device(own.name):
            raise InputError(
                f"name of {which} is {shown(own.name)}, but must be another than that of a device "
                "that comes with the program and differs from this."
            )
        return own
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
        elif kind is Coefficient:
            values[key] = _coefficient(field, data[key], *_RANGES.get(key, (0.0, 1e9)))
        elif key in ("lut_parts", "ff_parts"):
            values[key] = _parts(field, data[key])
        else:
            low, high = _RANGES.get(key, (0.0, 1e9))
            values[key] = number(field, data[key], low, high)
    choice(f"port_bits of {where}", values["port_bits"], PORTS)
    bits = int(values["bram_kbit"] * 1024)
    integer(f"bram_bits_wide of {where}", values["bram_bits_wide"], 1, bits)
    # The grid's engines use a fair part of the device, see `Device.grid`.
    lanes, kib = PARALLEL[-1] ** 2 * PARALLEL[2], 2 * BUFFERS_KIB[-1]
    products = values["dsp"] * values["products_per_dsp"]
    if products > 16 * lanes:
        raise InputError(
            f"dsp times products_per_dsp of {where} is {products:,}, too large for any engine of "
            f"the grid: it must be at most {16 * lanes:,}."
        )
    if (memory := values["bram"] * values["bram_kbit"] / 8) > 32 * kib:
        raise InputError(
            f"bram of {where} is {values['bram']:,}, {memory:,.0f} KiB in all, too large for any "
            f"engine of the grid: it must be at most {32 * kib:,} KiB."
        )
    return Device(**values)


def _coefficient(field: str, data: object, low: float, high: float) -> Coefficient:
    data = table(field, data, [each.name for each in fields(Coefficient)])
    return Coefficient(
        number(f"value of {field}", data["value"], low, high),
        number(f"within of {field}", data["within"], 1, 100),
        text(f"source of {field}", data["source"]),
    )


def _parts(field: str, data: object) -> tuple[float, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) != PARTS:
        raise InputError(f"{field} is {shown(data)}, but must be a list of {PARTS} numbers.")
    return tuple(number(f"{field}, number {i}", part, -1e6, 1e6) for i, part in enumerate(data, 1))
