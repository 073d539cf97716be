"""Maps that stand beside the fields of every day: land, coordinates, and those of files."""

from collections.abc import Sequence

import numpy as np

from tds_jax.forecast.gridded_days import Fields, lands

# Maps of an extra input: land, of several targets where all are, and sin latitude, sin and cos
# longitude.
COUNTS = {"land_mask": 1, "coordinates": 3}


def count(extra: Sequence[str], files: Sequence[str]) -> int:
    """How many maps some of model.extra_inputs and data.static are."""
    return sum(COUNTS.get(name, 0) for name in extra) + len(files)


def maps(fields: Fields, extra: Sequence[str], files: Sequence[str]) -> np.ndarray:
    """(H, W, S) of these maps, files' ones with mean 0 and spread 1."""
    found = []
    if "land_mask" in extra:
        found.append(lands(fields).all(axis=0).astype(np.float32))
    if "coordinates" in extra:
        axes = np.radians(fields.lat), np.radians(fields.lon)
        lat, lon = np.meshgrid(*axes, indexing="ij")
        found += [np.sin(lat), np.sin(lon), np.cos(lon)]
    found += [_standard(fields.static(name)) for name in files]
    return np.stack(found, axis=-1)


def _standard(values: np.ndarray) -> np.ndarray:
    """(H, W) with mean 0 and spread 1, 0 where missing."""
    spread = np.nanstd(values)
    return np.nan_to_num((values - np.nanmean(values)) / (spread if spread > 0 else 1))
