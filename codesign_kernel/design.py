"""A design: an architecture with an accelerator on a device."""

import hashlib
from dataclasses import dataclass

from .accelerator import Accelerator
from .errors import InputError, name, shown
from .space import Architecture


@dataclass(frozen=True)
class Design:
    """One (architecture, accelerator) pair on the device of that name.

    The text form joins the three by `@`: `w16k35-w32k3@8x8x1w16f32@ecp5-85f`.
    """

    architecture: Architecture
    accelerator: Accelerator
    device: str

    def __str__(self) -> str:
        return "@".join(self.key)

    @property
    def key(self) -> tuple[str, str, str]:
        """The texts of its three parts, by which measurements are stored."""
        return str(self.architecture), str(self.accelerator), self.device

    @property
    def id(self) -> str:
        """A short name that follows from the text form alone."""
        return "d" + hashlib.sha256(str(self).encode()).hexdigest()[:8]

    @classmethod
    def parse(cls, text: str) -> "Design":
        """Read the text form. Raises InputError if `text` is not of that form."""
        parts = text.split("@")
        if len(parts) != 3:
            raise InputError(
                f"design is {shown(text)}, but must be an id of the study's front or look like "
                "w16k35-w32k3@8x8x1w16f32@ecp5-85f."
            )
        device = name("device of the design", parts[2])
        return cls(Architecture.parse(parts[0]), Accelerator.parse(parts[1]), device)
