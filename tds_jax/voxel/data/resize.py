"""From the grid of the files to the grid of the model: as it is, padded, or resized."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from tds_jax.errors import UserError
from tds_jax.voxel.data.volumes import CHANNELS, Volume

MODES = ("native", "pad", "resize")
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where an array's voxels are. shape: (D, H, W); lower: metres of the first corner and size:
    metres of a voxel, both in array order (z, x, y)."""

    shape: Shape
    lower: tuple[float, float, float]
    size: tuple[float, float, float]

    def points(self, occupied: np.ndarray) -> np.ndarray:
        """(N, 3) f64 metres (x, y, z): centres of the True voxels of (D, H, W), in array order."""
        centres = (np.argwhere(occupied) + 0.5) * self.size + self.lower
        return centres[:, [1, 2, 0]]

    @property
    def farthest_m(self) -> float:
        """Metres between the centres of two opposite corners: no two voxels are further apart."""
        steps = zip(self.shape, self.size, strict=True)
        return math.hypot(*((count - 1) * size for count, size in steps))

    @classmethod
    def of(cls, ranges: tuple[float, ...], shape: tuple[int, ...]) -> "Geometry":
        """ranges: (x0, x1, y0, y1, z0, z1) metres; shape: (X, Y, Z) voxels, as files say them."""
        order = (2, 0, 1)
        lower = tuple(float(ranges[2 * i]) for i in order)
        size = tuple((ranges[2 * i + 1] - ranges[2 * i]) / shape[i] for i in order)
        return cls(tuple(shape[i] for i in order), lower, size)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Grid:
    """The model's grid. mode: 'native' keeps the files' grid, 'pad' adds zeros at the ends up to
    multiples, 'resize' brings any grid to `shape` (D, H, W). multiple: of each axis, by which the
    model's grid must be divisible (its total stride, or 32 to pad as the reference does).
    """

    mode: str
    shape: Shape
    multiple: Shape

    def result(self, volume_shape: Shape) -> Shape:
        """(D, H, W) for files of (X, Y, Z) voxels; UserError when it is not divisible."""
        x, y, z = volume_shape
        shape = {"native": (z, x, y), "pad": self._padded((z, x, y)), "resize": self.shape}
        found = shape[self.mode]
        if any(n % m for n, m in zip(found, self.multiple, strict=True)):
            raise UserError(
                f"data.grid={self.mode!r} gives (Z, X, Y) = {found}, which is not divisible by "
                f"{self.multiple}; use 'pad', or 'resize' with multiples of it"
            )
        return found

    def geometry(self, native: Geometry) -> Geometry:
        """The model grid's geometry: padding keeps the voxel, resizing keeps the volume."""
        d, h, w = native.shape
        shape = self.result((h, w, d))
        if self.mode != "resize":
            return Geometry(shape, native.lower, native.size)
        size = tuple(s * n / m for s, n, m in zip(native.size, native.shape, shape, strict=True))
        return Geometry(shape, native.lower, size)  # type: ignore[arg-type]

    def arrange(self, volume: Volume, pooled: tuple[int, ...]) -> np.ndarray:
        """(D, H, W, 4) f32. pooled: channels beside 0 that 'resize' pools as flags, not values."""
        shape = self.result(volume.shape)
        return resized(volume, shape, pooled) if self.mode == "resize" else volume.dense(shape)

    def weight(self, volume_shape: Shape) -> np.ndarray:
        """(D, H, W) f32: 1 inside the files' grid, 0 in the padding."""
        x, y, z = volume_shape
        weight = np.zeros(self.result(volume_shape), np.float32)
        if self.mode == "resize":
            weight[...] = 1
        weight[:z, :x, :y] = 1
        return weight

    def _padded(self, shape: Shape) -> Shape:
        d, h, w = (math.ceil(n / m) * m for n, m in zip(shape, self.multiple, strict=True))
        return d, h, w


def resized(volume: Volume, shape: Shape, pooled: tuple[int, ...]) -> np.ndarray:
    """(D, H, W, 4) f32 by the reference's rule.

    Channel 0 (an occupancy; of several sweeps how long ago, see `sweeps.merged`) and those `pooled`
    are the largest of the source voxels of a bin, flags true where any is; values are
    trilinear (half-pixel centres, no smoothing when shrinking) among occupied voxels alone:
    interp(value · occupied) / max(interp(occupied), 1e-6), hence 0 far from all of them. One
    channel is dense at a time.
    """
    occupied = _channel(volume, np.ones(len(volume.coords), np.float32))
    share = np.maximum(_each_axis(_interpolate, occupied, shape), 1e-6)
    result = np.empty((*shape, CHANNELS), np.float32)
    for c in range(CHANNELS):
        channel = _channel(volume, volume.features[:, c])
        if c == 0 or c in pooled:
            result[..., c] = _each_axis(_pool, channel, shape)
        else:
            result[..., c] = _each_axis(_interpolate, channel, shape) / share
    return result


def _channel(volume: Volume, values: np.ndarray) -> np.ndarray:
    (x, y, z), (at_x, at_y, at_z) = volume.shape, volume.coords.T
    array = np.zeros((z, x, y), np.float32)
    array[at_z, at_x, at_y] = values
    return array


def _each_axis(
    along: Callable[[np.ndarray, int, int], np.ndarray], array: np.ndarray, shape: Shape
) -> np.ndarray:
    for axis, size in enumerate(shape):
        array = along(array, axis, size)
    return array


def _interpolate(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Linear along one axis with half-pixel centres; beyond the ends, the end value."""
    count = array.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    lower = at.astype(np.int64)
    share = (at - lower).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    upper = np.minimum(lower + 1, count - 1)
    return array.take(lower, axis) * (1 - share) + array.take(upper, axis) * share


def _pool(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Largest value of bins [floor(i n / size), ceil((i + 1) n / size)) along one axis."""
    count, bins = array.shape[axis], np.arange(size)
    start, stop = bins * count // size, -(-(bins + 1) * count // size)
    result = array.take(start, axis)
    for k in range(1, int((stop - start).max())):
        np.maximum(result, array.take(np.minimum(start + k, stop - 1), axis), out=result)
    return result
