"""What a forecast must beat: the last day, the usual value, mixtures of them, and linear maps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.data import identity
from tds_jax.data.numpy_files import archive
from tds_jax.data.whole_file import whole_file
from tds_jax.engine.step import Batch
from tds_jax.forecast import linear
from tds_jax.forecast.climatology import fit_climatology, fit_damping, lacks_season
from tds_jax.forecast.cycles import cycles
from tds_jax.forecast.day_of_year import at_phase, fit_day_of_year, fit_season
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.linear import (
    KERNEL,
    RIDGE,
    PerCell,
    Sample,
    Shared,
    applied,
    cell_map,
    flat,
    leads_first,
    reach,
    shared_map,
)
from tds_jax.forecast.steps import Step

LINEAR, LINEAR_INPUTS = "linear", "linear_inputs"
NAMES = (
    "persistence",
    "climatology",
    "day_of_year",
    "damped_persistence",
    "linear_cell",
    LINEAR,
    LINEAR_INPUTS,
)


class Fitted(NamedTuple):
    """What baselines have learnt, f32.

    digest: of the fields and days. days: the first and the last of them, ISO. coefficients
    (P, H, W, C) and scale (C,): climatology of all variables. damping (L, H, W). day_of_year
    (bins, H, W). linear (k, k, n, L) of n last days, see `linear.reach`, linear_inputs
    (k, k, n C, L), or nothing of one variable, linear_cell (H, W, k² n, L): weights of maps of
    anomalies. season (bins, H, W): how far days are from the climatology, root mean square;
    spread_damped, spread_linear (L, H, W): what these two leave, of the same days.
    """

    digest: str
    days: tuple[str, str]
    coefficients: np.ndarray
    scale: np.ndarray
    damping: np.ndarray
    day_of_year: np.ndarray
    linear: np.ndarray
    linear_inputs: np.ndarray
    linear_cell: np.ndarray
    season: np.ndarray
    spread_damped: np.ndarray
    spread_linear: np.ndarray

    def write(self, path: Path) -> None:
        """As .npz, which appears whole."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> "Fitted | None":
        """From .npz; None if there is no such file, or one of a version that knew fewer."""
        if not path.exists():
            return None
        with archive(path) as file:
            if set(file) != set(cls._fields):
                return None
            found: dict[str, Any] = {name: file[name] for name in cls._fields}
        first, last = found["days"].tolist()
        return cls(**found | {"digest": str(found["digest"]), "days": (first, last)})

    @property
    def names(self) -> tuple[str, ...]:
        """The baselines there are: of one variable, all inputs are the target."""
        return NAMES if self.linear_inputs.size else NAMES[:-1]


def fit(
    fields: Fields, days: range, leads: int, harmonics: int, periodic: bool, daily: int = 0
) -> Fitted:
    """All baselines of the target, in six passes over `days` (indices).

    periodic: whether the linear maps go around the globe. harmonics, daily: waves of the year and
    of the day of the climatology.
    """
    usual = fit_climatology(fields, days, "anomaly", harmonics, daily=daily)
    target = fields.variables.index(fields.target)
    damping = fit_damping(fields, days, usual.of([target]), leads)
    cells, count = damping.shape[1:], len(fields.variables)
    read = reach(Step.of(fields.days))
    shared = Shared(KERNEL, read, 0, leads, periodic)
    several = Shared(KERNEL, read * count, 0, leads, periodic) if count > 1 else None
    of_cell = PerCell(cells, leads, periodic, read)
    for sample in linear.samples(fields, days, usual, damping, read):
        own = sample.last(read, slice(target, target + 1))
        shared.add(sample, own)
        of_cell.add(sample, own)
        if several:
            several.add(sample, sample.last(read, slice(None)))
    first, last = (str(fields.days[i]) for i in (days.start, days.stop - 1))
    alone = usual.of([target])
    scale = float(alone.scale.reshape(()))
    weights = shared.solve(RIDGE)
    again = linear.samples(fields, days, usual, damping, read)
    spreads = _spreads(again, weights, target, periodic)
    return Fitted(
        digest(fields, days, periodic),
        (first, last),
        usual.coefficients.astype(np.float32),
        usual.scale.reshape(-1).astype(np.float32),
        damping.astype(np.float32),
        fit_day_of_year(fields, days),
        weights,
        several.solve(RIDGE) if several else np.zeros((0,), np.float32),
        of_cell.solve(),
        fit_season(fields, days, alone),
        *((scale * spread).astype(np.float32) for spread in spreads),
    )


def _spreads(
    each: Iterable[Sample], weights: np.ndarray, target: int, periodic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(L, H, W) root mean squares of what is left by damped persistence, and by the linear map."""
    damped = rest = count = np.zeros(())
    for sample in each:
        own = sample.last(weights.shape[2], slice(target, target + 1))
        left = np.where(sample.known, sample.coming - applied(weights, own, periodic), 0)
        damped, rest = damped + sample.coming**2, rest + left**2
        count = count + sample.known
    return _root(damped, count), _root(rest, count)


def _root(squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Root of the mean; 1 where nothing was counted."""
    return np.sqrt(np.where(count > 0, squares / np.maximum(count, 1), 1))


def digest(fields: Fields, days: range, periodic: bool) -> str:
    """What `Fitted` depends on."""
    contents = identity.fingerprint(identity.below(fields.paths))
    kind = "means " if lacks_season(fields.days[days.start : days.stop]) else ""
    around = "around " if periodic else ""
    return f"{fields.digest()} {contents} {kind}{around}{days.start}..{days.stop}"


def forecasts(
    fitted: Fitted, batch: Batch, target: int, periodic: bool, daily: int = 0
) -> dict[str, jax.Array]:
    """Forecasts (B, L, H, W) of every baseline, in the data's unit, for whole-grid examples.

    persistence repeats the last day. climatology: mean and harmonics of each cell; day_of_year: the
    smoothed mean of each time of the year. damped: the climatology plus the last day's anomaly
    times the damping of lead and cell. The linear ones add to it a map of the anomalies of the last
    days around a cell, the same for all cells, of the target or of all inputs, or each cell's own.
    A cell that the last day lacks gets the climatology from the first four. daily: as of `fit`.
    """
    days = batch["fields"].shape[1]
    coming = batch["phase"][:, days:]
    last = batch["fields"][:, -1:, ..., target]
    known = batch["present"][:, -1:, ..., target] > 0
    coefficients, scale = fitted.coefficients[..., target], fitted.scale[target]
    usual = _usual(coefficients, coming, daily)
    recent = _anomalies(fitted, batch, daily)
    own = recent[..., target : target + 1]
    damped = usual + jnp.asarray(fitted.damping)[None] * own[:, -1:, ..., 0] * scale
    found = {
        "persistence": jnp.where(known, last, usual),
        "climatology": usual,
        "day_of_year": at_phase(jnp.asarray(fitted.day_of_year), coming),
        "damped_persistence": damped,
    }
    maps = {
        "linear_cell": cell_map(flat(own), jnp.asarray(fitted.linear_cell), periodic),
        LINEAR: leads_first(shared_map(flat(own), jnp.asarray(fitted.linear), periodic)),
    }
    if LINEAR_INPUTS in fitted.names:
        every = shared_map(flat(recent), jnp.asarray(fitted.linear_inputs), periodic)
        maps[LINEAR_INPUTS] = leads_first(every)
    return found | {name: damped + scale * correction for name, correction in maps.items()}


def spreads(fitted: Fitted, batch: Batch) -> dict[str, jax.Array]:
    """(B, L, H, W) standard deviations of three baselines as ensembles, normal about them.

    Of the climatology how far days at this time of the year are from it; of the others what they
    leave at this lead, more in seasons in which days are further from the climatology.
    """
    coming = batch["phase"][:, batch["fields"].shape[1] :]
    season = at_phase(jnp.asarray(fitted.season), coming)
    usual = jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(fitted.season)), axis=0))
    share = season / jnp.where(usual > 0, usual, 1)[None, None]
    return {
        "climatology": season,
        "damped_persistence": share * jnp.asarray(fitted.spread_damped)[None],
        LINEAR: share * jnp.asarray(fitted.spread_linear)[None],
    }


def _anomalies(fitted: Fitted, batch: Batch, daily: int) -> jax.Array:
    """(B, n, H, W, C) of the last days, in units of each variable's scale, 0 where missing."""
    days, read = batch["fields"].shape[1], fitted.linear.shape[2]
    last = slice(max(days - read, 0), days)
    phase = batch["phase"][:, last]
    centre = [_usual(c, phase, daily) for c in np.moveaxis(fitted.coefficients, -1, 0)]
    away = (batch["fields"][:, last] - jnp.stack(centre, axis=-1)) / fitted.scale.reshape(
        1, 1, 1, 1, -1
    )
    known = jnp.where(batch["present"][:, last] > 0, away, 0)
    # Of a model that sees fewer days, those before are as usual.
    return jnp.pad(known, ((0, 0), (read - known.shape[1], 0), (0, 0), (0, 0), (0, 0)))


def _usual(coefficients: np.ndarray, phase: jax.Array, daily: int) -> jax.Array:
    """(B, N, H, W) climatology at phases of N days."""
    ones = jnp.ones(phase.shape[:2])
    basis = jnp.stack([ones, *cycles(phase, len(coefficients), daily)], axis=-1)
    return jnp.einsum("bnk,khw->bnhw", basis, coefficients, precision="highest")
