"""Rounds of exploring, choosing, measuring and fitting anew, as `campaign.py` keeps them.

A round's designs are stored before they are measured, and each measurement as it comes: killed, the
same command goes on from there.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from . import explore, fits, measure, meters, routed
from .accelerator import Accelerators
from .campaign import COUNTS, FIGURES, Campaign, columns, known, load, save
from .constraints import Constraints
from .design import Design
from .errors import InputError
from .explore import Designs, Exploration, usable
from .growth import choose_networks
from .hopes import hoped_designs
from .improve import Box, Known, choose, keys_of, promising
from .meters import CLOSED_FORM, RECORDED, SIMULATION, recorded
from .pareto import front
from .predict import COVERAGE, Predictors
from .quantities import QUANTITIES
from .store import Key
from .study import Study


class Improvement:
    """A study that is improved under constraints, on some of its devices.

    Its ECP5 are simulated if its measurements of them are, on engines that were placed and routed
    for the shipped table, whose clock and flip-flops predictions make use of; else they are
    modelled on any engine. With `every_engine` networks are chosen, and measured on all of these.
    Raises InputError if a device's measurements are of another kind, or too few to begin with.
    """

    def __init__(
        self, study: Study, devices: Sequence[str], bounds: Constraints, seed: int,
        generations: int, subnets: meters.Accuracy, every_engine: bool = False,
    ) -> None:  # fmt: skip
        self.study, self.bounds, self.seed, self.generations = study, bounds, seed, generations
        self.subnets, self.names = subnets, [name for name in study.devices if name in devices]
        by = {
            job: str(measure.rows(study, *job)["method"].iloc[0])
            for job in fits.jobs(study) if job[1] in ("", *self.names)
        }  # fmt: skip
        self.methods = {name: method for (q, name), method in by.items() if q != "power_w"}
        self.engines: dict[str, Accelerators] = {}
        for name, method in self.methods.items():
            if method == SIMULATION:
                self.engines[name] = Accelerators.of(routed.engines(study.device(name)))
        for (quantity, name), method in by.items():
            what = f"{quantity} on {name}" if name else quantity
            allowed = (SIMULATION, CLOSED_FORM) if name else (subnets.method,)
            if recorded(method):
                who = method.removeprefix(RECORDED)
                raise InputError(
                    f"{what} of this study rests on what {who!r} recorded, of which `codesign "
                    f"improve` can measure no more: take it back by "
                    f"`{study.command('record', '--forget', who)}`, or ask `codesign propose` what "
                    "to measure next."
                )
            if method not in allowed:
                raise InputError(
                    f"{what} of this study is by {method!r}, but to improve it must be by "
                    f"{' or '.join(map(repr, allowed))}: run `codesign profile` on this study, or "
                    "`codesign propose` for hardware of your own."
                )
            if every_engine and name and name not in self.engines:
                raise InputError(
                    f"--every-engine needs a device whose engines were placed and routed, but "
                    f"{name} of this study is modelled."
                )
        self.campaigns = load(study)
        asked = {"devices": self.names, **asdict(bounds), "seed": seed, "methods": self.methods}
        asked |= {"every_engine": True} if every_engine else {}
        found = [each for each in self.campaigns if each.asked == asked]
        self.campaign = found[0] if found else Campaign(asked)
        if not found:
            self.campaigns.append(self.campaign)

    def run(self, budget: int, rounds: int, front: bool = False) -> Iterator[dict[str, Any]]:
        """Choose and measure until the campaign has spent its `budget` in all, an equal part of it
        a round, and with `front` what is then proposed as the front, in a last round. Yield the row
        of each round as it is through. Then fit and store the predictors. Raises InputError if no
        design keeps to the constraints."""
        campaign, size = self.campaign, -(-budget // rounds)
        while (
            not campaign.rounds or campaign.open or campaign.spent < budget
            or (front and not campaign.closed)
        ):  # fmt: skip
            measure.writable(self.study)  # before the search, whose result is to be stored
            self._measure([_key(design) for design in campaign.open])
            predictors, _ = fits.fitted(self.study)
            found = explore.explore(
                predictors, self.names, self.bounds, generations=self.generations, seed=self.seed,
                engines=self.engines,
            )  # fmt: skip
            known = self.known()
            if not campaign.rounds or campaign.open:
                yield self._close(found, known)
            n = min(size, budget - campaign.spent)
            keys = self._choose(predictors, found, known, n) if n > 0 else []
            if front and not keys and not campaign.closed:
                keys = self._propose(predictors, found, known)
                if keys:
                    campaign.fronts.append(len(campaign.rounds))
                    networks = len({key[0] for key in keys})
                    told = f"front: {len(keys)} designs are to be measured, networks: {networks}."
                    print(told, file=sys.stderr)
            if not keys:
                break
            campaign.designs += self._forecast(predictors, keys, known)
            campaign.fitted = False
            save(self.study, self.campaigns)
        if campaign.designs and not campaign.fitted:
            fits.fit(self.study)
            campaign.fitted = True
            save(self.study, self.campaigns)

    @property
    def box(self) -> Box:
        """The box in which hypervolume is measured, once the first round has begun."""
        low, high = (tuple(self.campaign.box[end]) for end in ("low", "high"))
        return Box(low, high, self.bounds.max_energy_mj)

    def known(self) -> Known:
        """Return what was measured, on engines that keep to the bounds on DSP and block RAM."""
        return known(self.study, self.names, self.bounds, self.engines)

    def _choose(
        self, predictors: Predictors, found: Exploration, known: Known, n: int
    ) -> list[Key]:
        if not self.campaign.asked.get("every_engine"):
            return choose(predictors, found.designs, known, self.box, n)
        best = [promising(designs, self.box) for designs in found.designs]
        return self._everywhere(predictors, best, known, n)

    def _propose(self, predictors: Predictors, found: Exploration, known: Known) -> list[Key]:
        """Return what is not known of the front that is proposed."""
        best = hoped_designs(predictors, found.designs, known, self.box)
        if best and self.campaign.asked.get("every_engine"):
            return self._everywhere(predictors, best, known)
        keys = (key for designs in best for key in keys_of(predictors, designs))
        return [key for key in keys if not known.whole(key)]

    def _everywhere(
        self, predictors: Predictors, designs: Sequence[Designs], known: Known, n: int | None = None
    ) -> list[Key]:
        """Return `n`, or all, of the networks of designs on every engine."""
        genomes = np.unique(np.concatenate([each.genomes for each in designs]), axis=0)
        engines = {
            name: usable(self.study.device(name), self.bounds, self.engines[name])
            for name in self.names
        }
        most = len(genomes) if n is None else n
        return choose_networks(predictors, genomes, engines, known, self.box, most)

    def _measure(self, keys: list[Key]) -> None:
        simulated = [key for key in keys if key[2] in self.engines]
        closed = [key for key in keys if key[2] not in self.engines]
        accuracy = list(dict.fromkeys((key[0], "", "") for key in keys))
        for _ in measure.measure_all(self.study, self.subnets, accuracy, simulated, closed):
            pass  # bars say how far it is

    def _close(self, found: Exploration, known: Known) -> dict[str, Any]:
        """Store and return the row of a round whose designs are measured."""
        campaign, best = self.campaign, found.front[[*QUANTITIES]].to_numpy(dtype=np.float64)
        if not campaign.rounds:
            box, start = Box.of(best, self.bounds), known.figures()
            campaign.box = {"low": [*box.low], "high": [*box.high]}
            start = start[(box.points(start) < 1).all(axis=1)]
            campaign.start = start[front(box.points(start))].tolist()
        opened = campaign.open
        for design in opened:
            key = _key(design)
            values = (known.accuracy[key[0]], *known.hardware[key])
            design |= {f"{q}_value": value for q, value in zip(QUANTITIES, values, strict=True)}
        row: dict[str, Any] = dict(zip(FIGURES, (
            len(campaign.rounds), len(campaign.designs),
            self.box.hypervolume(known.figures()), self.box.hypervolume(best),
        ), strict=True))  # fmt: skip
        for name in QUANTITIES:
            new = "accuracy_new" if name == "accuracy" else "hardware_new"
            parts = [design for design in opened if design[new]]
            off = [abs(d[f"{name}_value"] - d[name]) for d in parts]
            if name != "accuracy":
                off = [100 * x / d[f"{name}_value"] for x, d in zip(off, parts, strict=True)]
            held = [d[f"{name}_low"] <= d[f"{name}_value"] <= d[f"{name}_high"] for d in parts]
            counts = (float(np.median(off)) if off else None, sum(held), len(held))
            row |= dict(zip([f"{name}_{count}" for count in COUNTS], counts, strict=True))
        campaign.rounds.append(row)
        save(self.study, self.campaigns)
        return row

    def _forecast(
        self, predictors: Predictors, keys: list[Key], known: Known
    ) -> list[dict[str, Any]]:
        """Return chosen designs as they are kept: what is predicted of each, and what is new."""
        figures = np.empty((len(keys), len(QUANTITIES), 3))
        for name in {key[2] for key in keys}:
            some = np.flatnonzero([key[2] == name for key in keys])
            designs = [Design.parse("@".join(keys[i])) for i in some]
            genomes = np.stack([self.study.space.encode(each.architecture) for each in designs])
            acc = Accelerators.of([each.accelerator for each in designs])
            ends = predictors.figures(genomes, acc, name, coverage=COVERAGE, own=True)
            figures[some] = np.stack(ends, axis=-1)
        rows, seen = [], {*known.accuracy}
        for key, sides in zip(keys, figures.tolist(), strict=True):
            new = (key[0] not in seen, key not in known.hardware)
            seen.add(key[0])
            told = [x for side in sides for x in (*side, None)]
            values = (len(self.campaign.rounds), *key, *new, *told)
            rows.append(dict(zip(columns(), values, strict=True)))
        return rows


def _key(design: dict[str, Any]) -> Key:
    return design["architecture"], design["accelerator"], design["device"]
