"""Stored numbers that can only mean "missing", where no attribute says so, and what they become."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from tds_jax.data.sentinels import MARKS


class Packing(NamedTuple):
    """value = stored * scale + offset; suspects: stored numbers that mostly stand for no value.

    near: values so near to that of a suspect are it.
    """

    suspects: tuple[float, ...]
    scale: float
    offset: float
    near: float

    def stored(self, values: np.ndarray) -> np.ndarray:
        """f64 like f32 values: the suspect that was stored, else 0, which is none."""
        found = np.zeros(values.shape)
        for suspect in self.suspects:
            value = suspect * self.scale + self.offset
            near = max(self.near, float(np.spacing(np.float32(value))))
            found[np.abs(values - value) <= near] = suspect
        return found


def packing_of(array: xr.DataArray) -> Packing:
    """Of a decoded field of a file.

    Suspects are the least numbers of signed integers, the largest of unsigned ones, and MARKS of
    scaled floats; the largest of signed ones is where packing ends, too. None where the file names
    a fill value, or where they are among MARKS as values.
    """
    said = array.encoding
    scale, offset = (
        float(said.get(n, usual)) for n, usual in (("scale_factor", 1), ("add_offset", 0))
    )
    kind = np.dtype(said.get("dtype", array.dtype))
    is_plain = scale == 1 and offset == 0
    if _names_a_mark(array) or (kind.kind == "f" and is_plain) or kind.kind not in "iuf":
        return Packing((), scale, offset, 0.0)
    if kind.kind == "f":
        return Packing(tuple(MARKS.tolist()), scale, offset, 0.0)
    bits = 8 * kind.itemsize
    is_unsigned = kind.kind == "u" or str(said.get("_Unsigned", "")).lower() == "true"
    ends = (2**bits - 1,) if is_unsigned else (-(2 ** (bits - 1)), 1 - 2 ** (bits - 1))
    suspects = tuple(float(n) for n in ends if not (is_plain and np.float32(n) in MARKS))
    return Packing(suspects, scale, offset, abs(scale) / 4)  # a quarter of the way to the next


def _names_a_mark(array: xr.DataArray) -> bool:
    """Whether a fill value is said, other than the NaN that writers add to floats."""
    said = {**array.attrs, **array.encoding}
    marks = [said[name] for name in ("_FillValue", "missing_value") if name in said]
    return any(not np.isnan(np.asarray(mark, np.float64)).all() for mark in marks)
