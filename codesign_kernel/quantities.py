"""What is told of a design: each quantity's label, its unit, and the digits that are shown."""

from typing import NamedTuple

QUANTITIES = ("accuracy", "latency_ms", "power_w")  # that a Gaussian process predicts


class Quantity(NamedTuple):
    label: str
    unit: str
    digits: int
    of: str = ""

    @property
    def name(self) -> str:
        """What it is, and of what."""
        return self.label + self.of

    @property
    def title(self) -> str:
        """The name with its unit, as on an axis."""
        return f"{self.name} ({self.unit})"

    def text(self, value: float) -> str:
        """Return a value without its unit."""
        return f"{value:.{self.digits}f}"


TOLD = {
    "accuracy": Quantity("Accuracy", "%", 2),
    "latency_ms": Quantity("Latency", "ms", 4, " of one image"),
    "power_w": Quantity("Power", "W", 3),
    "energy_mj": Quantity("Energy", "mJ", 4, " of one image"),
}
TITLES = {name: each.title for name, each in TOLD.items()}
UNITS = {name: each.unit for name, each in TOLD.items()}
