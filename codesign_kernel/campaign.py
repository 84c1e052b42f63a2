"""What a study keeps of its improvement: its campaigns, and what they start from.

`improve.json` holds a campaign for each set of options that was asked for: what each round chose,
what was predicted of it before, and how far the front came.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import __version__, errors, measure
from .accelerator import Accelerators
from .constraints import Constraints
from .errors import InputError
from .explore import usable
from .files import read_json, write_json
from .fits import CHOSEN
from .improve import Known
from .quantities import QUANTITIES
from .store import KEY
from .study import Study

FIGURES = ("round", "designs", "measured", "predicted")  # of a round; then, of each quantity:
COUNTS = ("off", "inside", "new")


@dataclass
class Campaign:
    """What was asked for, the box in which hypervolume is measured, the front of designs that were
    measured before, a row for each round (0 is the start), the designs that were chosen, and which
    rounds are of the proposed front: they are beside the budget."""

    asked: dict[str, Any]
    box: dict[str, list[float]] = field(default_factory=dict)
    start: list[list[float]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    designs: list[dict[str, Any]] = field(default_factory=list)
    fitted: bool = False  # whether the study's predictors know all of this
    fronts: list[int] = field(default_factory=list)

    @property
    def spent(self) -> int:
        """How much of the budget: designs, or networks if each is measured on every engine."""
        chosen = [design for design in self.designs if design["round"] not in self.fronts]
        if self.asked.get("every_engine"):
            return len({design["architecture"] for design in chosen})
        return len(chosen)

    @property
    def closed(self) -> bool:
        """Whether the last round was of the proposed front."""
        return len(self.rounds) - 1 in self.fronts

    @property
    def open(self) -> list[dict[str, Any]]:
        """The designs of a round that was chosen and is not through yet."""
        return [design for design in self.designs if design["round"] == len(self.rounds)]


def columns() -> list[str]:
    """What is kept of a chosen design: of each quantity what was predicted, with the ends of the
    interval, and the value that was measured, None until then."""
    ends = [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high", "_value")]
    return ["round", *KEY, "accuracy_new", "hardware_new", *ends]


def load(study: Study) -> list[Campaign]:
    """Return the study's campaigns, the oldest first. Raises InputError if the file is damaged."""
    path = study.root / CHOSEN
    if not path.exists():
        return []
    content = errors.table(str(path), read_json(path), ("version", "campaigns"))["campaigns"]
    try:
        found = [Campaign(**part) for part in content]
        whole = all(map(_whole, found))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged: it holds no rounds of this program.")
    return found


def _whole(campaign: Campaign) -> bool:
    """Whether all parts are there and of their kind. Raises what damaged parts raise."""
    rounds, designs, box = campaign.rounds, campaign.designs, campaign.box
    ends = [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")]
    values = [f"{name}_value" for name in QUANTITIES]  # of a round that is through
    known = [x for part in (*box.values(), *campaign.start) for x in part]
    known += [row[name] for row in rounds for name in FIGURES]
    known += [row[name] for row in rounds for name in _counts() if row[name] is not None]
    for each in designs:
        known += [each[name] for name in (ends if each["round"] >= len(rounds) else ends + values)]
    lists = rounds, designs, campaign.start, campaign.fronts
    return bool(
        isinstance(campaign.asked, dict)
        and all(isinstance(part, list) for part in lists)
        and all({*each} == {*columns()} for each in designs)
        and all(isinstance(each[name], str) for each in designs for name in KEY)
        and all(type(x) in (int, float) and math.isfinite(x) for x in known)
        and all({*row} == {*FIGURES, *_counts()} for row in rounds)
        and {*box} == ({"low", "high"} if rounds else set())
        and all(type(which) is int and 0 < which <= len(rounds) for which in campaign.fronts)
    )


def _counts() -> list[str]:
    return [f"{name}_{count}" for name in QUANTITIES for count in COUNTS]


def save(study: Study, campaigns: Sequence[Campaign]) -> None:
    """Store the study's campaigns."""
    content = [asdict(each) for each in campaigns]
    write_json(study.root / CHOSEN, {"version": __version__, "campaigns": content})


def known(
    study: Study, devices: Sequence[str], bounds: Constraints, engines: Mapping[str, Accelerators]
) -> Known:
    """Return what a study has measured, on engines that keep to the bounds on DSP and block RAM: on
    those of a device that are given, or on any. Raises InputError as `measure.rows` does."""
    rows = measure.rows(study, "accuracy")
    found = Known(dict(zip(rows["architecture"], map(float, rows["accuracy"]), strict=True)))
    for name in devices:
        grid = usable(study.device(name), bounds, engines.get(name))
        allowed = {str(acc) for acc in grid}
        latency, power = (
            measure.rows(study, quantity, name).set_index(KEY)[quantity].astype(float)
            for quantity in QUANTITIES[1:]
        )
        both = latency.to_frame().join(power, how="inner")
        for (*key, device), *pair in both.itertuples(name=None):
            if key[1] in allowed:
                found.hardware[key[0], key[1], device] = pair[0], pair[1]
    return found
