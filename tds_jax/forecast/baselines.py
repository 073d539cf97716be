"""What a forecast must beat: the last day, the usual value, and the damped mixture of the two."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.data import identity
from tds_jax.data.whole_file import whole_file
from tds_jax.engine.step import Batch
from tds_jax.forecast.climatology import fit_climatology, fit_damping, lacks_season
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.model import waves

NAMES = ("persistence", "climatology", "damped_persistence")


class Fitted(NamedTuple):
    """digest: of the fields and days. coefficients (1 + 2K, H, W), damping (L, H, W), both f32."""

    digest: str
    coefficients: np.ndarray
    damping: np.ndarray

    def write(self, path: Path) -> None:
        """As .npz, which appears whole."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> "Fitted | None":
        """From .npz; None if there is no such file."""
        if not path.exists():
            return None
        with np.load(path) as file:
            return cls(str(file["digest"]), file["coefficients"], file["damping"])


def fit(fields: Fields, days: range, leads: int, harmonics: int) -> Fitted:
    """Harmonic climatology and damping of the target, in two passes over `days` (indices)."""
    usual = fit_climatology(fields, days, "anomaly", harmonics)
    usual = usual.of([fields.variables.index(fields.target)])
    damping = fit_damping(fields, days, usual, leads)
    coefficients = usual.coefficients[..., 0].astype(np.float32)
    return Fitted(digest(fields, days), coefficients, damping.astype(np.float32))


def digest(fields: Fields, days: range) -> str:
    """What `Fitted` depends on."""
    contents = identity.fingerprint(identity.below(fields.paths))
    kind = "means " if lacks_season(fields.days[days.start : days.stop]) else ""
    return f"{fields.digest()} {contents} {kind}{days.start}..{days.stop}"


def forecasts(fitted: Fitted, batch: Batch, target: int) -> dict[str, jax.Array]:
    """Forecasts (B, L, H, W) of every baseline, in the data's unit, for whole-grid examples.

    persistence repeats the last day. climatology: mean and harmonics of each cell. damped: the
    climatology plus the last day's anomaly times the damping of lead and cell. A cell that the last
    day lacks gets the climatology from all three.
    """
    days = batch["fields"].shape[1]
    last = batch["fields"][:, -1:, ..., target]
    known = batch["present"][:, -1:, ..., target] > 0
    usual = _usual(fitted.coefficients, batch["phase"][:, days:])
    anomaly = last - _usual(fitted.coefficients, batch["phase"][:, days - 1 : days])
    damping = jnp.asarray(fitted.damping)[None]
    return {
        "persistence": jnp.where(known, last, usual),
        "climatology": usual,
        "damped_persistence": usual + jnp.where(known, damping * anomaly, 0),
    }


def _usual(coefficients: np.ndarray, phase: jax.Array) -> jax.Array:
    """(B, N, H, W) climatology at phases (B, N) of the year."""
    ones = jnp.ones_like(phase)
    basis = jnp.stack([ones, *waves(phase, len(coefficients))], axis=-1)
    return jnp.einsum("bnk,khw->bnhw", basis, coefficients, precision="highest")
