"""What an evaluation of forecasts says, as rows and lines: of each target on its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tds_jax.engine import metrics as states_of
from tds_jax.engine.intervals import Resampled, against
from tds_jax.engine.report import ALL, MODEL, Row
from tds_jax.forecast import baselines, metrics
from tds_jax.forecast.figures import LEAD
from tds_jax.forecast.metrics import AREA, Scores, States
from tds_jax.forecast.steps import Step

# Skill against each baseline, under names that fit a table.
SKILLS = {
    "persistence": "skill_pers",
    "climatology": "skill_clim",
    "damped_persistence": "skill_damp",
    baselines.LINEAR: "skill_lin",
}
OF = "of"  # groups 'of/NAME' are of a target beside the headline


class Target(NamedTuple):
    """One of what is forecast. unit: '1' for none. channel: of the inputs; maps: its leads among
    all maps. group: of its rows over all leads."""

    name: str
    unit: str
    channel: int
    maps: slice
    group: str

    @property
    def is_headline(self) -> bool:
        """Whether its rows are those of the whole."""
        return self.group == ALL

    @property
    def leads(self) -> str:
        """What groups of single leads begin with."""
        return LEAD if self.is_headline else f"{self.group}/{LEAD}"

    @property
    def title(self) -> str:
        """'t2m [K]'."""
        return f"{self.name} [{self.unit}]"


class Tally:
    """What forecasts of one target add up to: states by method, and scores by method and block."""

    def __init__(self, methods: Sequence[str]) -> None:
        self.states: dict[str, States] = {}
        self.blocks: dict[str, dict[int, Scores]] = {name: {} for name in methods}

    def add(
        self,
        states: Mapping[str, States],
        scores: Mapping[str, Scores],
        starts: np.ndarray,
        length: int,
    ) -> None:
        """A batch. starts (B,): of windows; length: of a block in steps."""
        for method, own in self.blocks.items():
            new, each = states_of.to_host((states[method], scores[method]))
            metrics.add_to_blocks(own, each, starts, length)
            before = self.states.get(method)
            self.states[method] = states_of.merge(before, new) if before else new

    def resampled(self) -> Resampled:
        """Draws of the blocks, in the same order for every method."""
        order = sorted(self.blocks[MODEL])
        each = {name: [{"scores": own[n]} for n in order] for name, own in self.blocks.items()}
        return Resampled.of(each, lambda states: states["scores"].values())


def rows_of(
    split: str, target: Target, tally: Tally, area: np.ndarray, step: Step, drawn: Resampled
) -> list[Row]:
    """Every number of a target with its interval, and baselines minus the model."""
    return _with_ends(_rows(split, target, tally.states, area, step), target, drawn, step)


def _with_ends(rows: list[Row], target: Target, drawn: Resampled, step: Step) -> list[Row]:
    """Rows of everything and of each lead with their intervals, and baselines minus the model.

    The latter of each lead are of groups `against('lead/n')`.
    """
    model = {(row.group, row.metric): row.value for row in rows if row.method == MODEL}
    apart = []
    for i, row in enumerate(rows):
        if not row.group.startswith(target.leads):
            continue
        ahead = int(row.group.removeprefix(target.leads))
        metric = f"{row.metric}/{ahead // step.leads(1)[0]}"
        low, high = drawn.interval(row.method, metric) or (None, None)
        rows[i] = dataclasses.replace(row, low=low, high=high)
        if row.method != MODEL and (ends := drawn.interval(row.method, metric, MODEL)):
            value = row.value - model[row.group, row.metric]
            group = against(row.group)
            apart.append(Row(row.split, group, row.method, row.metric, value, None, row.count,
                             *ends))  # fmt: skip
    return [*drawn.rows(rows, target.group), *apart]


def _rows(
    split: str, target: Target, found: Mapping[str, States], area: np.ndarray, step: Step
) -> list[Row]:
    """Every value of every method: over all leads, then of each lead, named by `Step.leads`."""
    leads = len(found[MODEL]["plain"].weight)
    rows = []
    for lead in (None, *range(leads)):
        values = {
            name: metrics.values(states, area, lead)
            | (states["ensemble"].values(lead) if "ensemble" in states else {})
            for name, states in found.items()
        }
        group = target.group if lead is None else f"{target.leads}{step.leads(leads)[lead]}"
        for name, own in values.items():
            count = found[name]["plain"].weight[slice(None) if lead is None else lead].sum()
            skills = {
                f"{name_of_skill}{suffix}": metrics.skill(own, values[other], suffix)
                for other, name_of_skill in SKILLS.items()
                for suffix in ("", AREA)
            }
            rows += [
                Row(split, group, name, metric, value, None, float(count))
                for metric, value in (own | skills).items()
            ]
    return rows


def notes_of(
    target: Target, found: Mapping[str, States], area: np.ndarray, step: Step, drawn: Resampled
) -> tuple[str, ...]:
    """RMSE of every method at every lead, a line each, and what the linear map's is above ours."""
    lines = [
        f"errors are of {target.title}; skill is 1 - MSE / MSE of the baseline; mae, bias, r2 "
        "and area-weighted values of all are in the files"
        if target.is_headline
        else f"errors of {target.group} are of {target.title}"
    ]
    by = "rmse by lead" if step.is_day else f"rmse by lead, every {step.hours} h"
    by = by if target.is_headline else f"{target.name}, {by}"
    for name, states in found.items():
        leads = len(states["plain"].weight)
        each = [f"{metrics.values(states, area, lead)['rmse']:.4g}" for lead in range(leads)]
        lines.append(f"{by}, {name}: {' '.join(each)}")
    count = len(found[MODEL]["plain"].weight)
    ends = [drawn.interval(baselines.LINEAR, f"rmse/{n + 1}", MODEL) for n in range(count)]
    spans = [f"{low:.2g}..{high:.2g}" for low, high in (pair for pair in ends if pair)]
    if spans:
        lines.append(f"{by}, {baselines.LINEAR} above the model: {' '.join(spans)}")
    return tuple(lines)
