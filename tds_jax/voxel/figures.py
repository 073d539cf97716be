"""Pictures of volumes side by side: from above, from the side, along the road, and in space."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.drawing import new_figure, save
from tds_jax.voxel.data.resize import Geometry

MAX_CELLS = 200  # across a picture: finer ones would fall between its pixels
MAX_POINTS = 6000  # of a scatter: more only blacken it
VIEWS = (
    "from above: highest voxel",
    "slice at z = {level:.2g} m",
    "from the left: voxels in line",
    "in space, z up [m]",
    "from above: mean Doppler",
)
COUNTS = (1, 2, 5, 10, 20, 50, 100)  # that a colour bar names
_SKY = "#f4f4f1"


def draw_frames(
    path: Path, volumes: Mapping[str, np.ndarray], geometry: Geometry, title: str
) -> None:
    """One row per volume (its name at the left), in five views; written as a PNG.

    volumes: (D, H, W, 4), channel 0 above 0 where occupied (apply the threshold before). Views:
    from above, by height; the horizontal slice in which the last volume (the truth) has most
    voxels, by intensity; from the left, by how many voxels lie behind each other; in space, by
    height; Doppler from above (0 counts as not known), blue coming and red leaving. Colours mean
    the same in all rows.
    """
    rows = len(volumes)
    _, x, y = (n * size for n, size in zip(geometry.shape, geometry.size, strict=True))
    height = 3.3 * min(max(x / y, 1.0), 2.0)
    figure = new_figure(19, height * rows + 0.7)
    grid = figure.add_gridspec(rows, len(VIEWS), width_ratios=(1, 1, 1.2, 1.25, 1))
    fastest, brightest = (_largest(volumes, channel) for channel in (2, 1))
    darkest = min(float(v[v[..., 0] > 0][:, 1].min(initial=0.0)) for v in volumes.values())
    deepest = max(1, *(int((v[..., 0] > 0).sum(axis=2).max()) for v in volumes.values()))
    layer = int((list(volumes.values())[-1][..., 0] > 0).sum(axis=(1, 2)).argmax())
    level = geometry.lower[0] + (layer + 0.5) * geometry.size[0]
    for i, (name, volume) in enumerate(volumes.items()):
        occupied = volume[..., 0] > 0
        axes = [figure.add_subplot(grid[i, k]) for k in (0, 1, 2)]
        axes.append(figure.add_subplot(grid[i, 3], projection="3d", computed_zorder=False))
        axes.append(figure.add_subplot(grid[i, 4]))
        span = darkest, brightest
        images = {
            "height [m]": (axes[0], _draw_above(axes[0], occupied, geometry)),
            "intensity": (
                axes[1],
                _draw_slice(axes[1], volume, layer, geometry, span),
            ),
            "Doppler [m/s]": (axes[4], _draw_doppler(axes[4], volume, geometry, fastest)),
        }
        side = _draw_side(axes[2], occupied, geometry, deepest)
        bar = figure.colorbar(side, ax=axes[2], label="voxels in line", shrink=0.8)
        counts = [n for n in COUNTS if n <= deepest]
        bar.set_ticks(np.log1p(counts), labels=[str(n) for n in counts])
        _draw_space(axes[3], occupied, geometry)
        for label, (axis, image) in images.items():
            figure.colorbar(image, ax=axis, label=label, shrink=0.8)
        axes[0].set_ylabel(f"{name}\n{int(occupied.sum()):,} voxels\n\nx forward [m]")
        for axis, text in zip(axes, VIEWS if i == 0 else (), strict=False):
            axis.set_title(text.format(level=level))
    figure.suptitle(title, fontsize="x-large")
    save(figure, path, dpi=100)


def _upper(geometry: Geometry) -> list[float]:
    parts = zip(geometry.lower, geometry.size, geometry.shape, strict=True)
    return [low + size * count for low, size, count in parts]


def _draw_above(axis: Any, occupied: np.ndarray, geometry: Geometry) -> Any:
    """x upwards, y to the left as seen by the driver, colour by the highest occupied voxel."""
    depth = occupied.shape[0]
    top = depth - 1 - occupied[::-1].argmax(axis=0)
    height = geometry.lower[0] + (top + 0.5) * geometry.size[0]
    seen = np.where(occupied.any(axis=0), height, np.nan)
    low, high = geometry.lower[0], _upper(geometry)[0]
    return _map(axis, seen, geometry, vmin=low, vmax=high, cmap="viridis")


def _draw_slice(
    axis: Any, volume: np.ndarray, layer: int, geometry: Geometry, span: tuple[float, float]
) -> Any:
    values = np.where(volume[layer, ..., 0] > 0, volume[layer, ..., 1], np.nan)
    return _map(axis, values, geometry, vmin=span[0], vmax=span[1], cmap="plasma_r")


def _draw_doppler(axis: Any, volume: np.ndarray, geometry: Geometry, fastest: float) -> Any:
    known = (volume[..., 0] > 0) & (volume[..., 2] != 0)
    mean = (volume[..., 2] * known).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    seen = np.where((volume[..., 0] > 0).any(axis=0), mean, np.nan)
    return _map(axis, seen, geometry, by=np.abs, vmin=-fastest, vmax=fastest, cmap="coolwarm")


def _map(
    axis: Any,
    values: np.ndarray,
    geometry: Geometry,
    by: Callable[[np.ndarray], np.ndarray] = np.positive,
    **colours: Any,
) -> Any:
    """(H, W) values from above; y runs to the left, as the driver sees the road."""
    coarse, factor = _coarse(values, by)
    top = geometry.lower[1] + geometry.size[1] * factor * coarse.shape[0]
    left = geometry.lower[2] + geometry.size[2] * factor * coarse.shape[1]
    image = axis.imshow(
        coarse[:, ::-1], origin="lower", extent=(left, geometry.lower[2], geometry.lower[1], top),
        aspect="equal", interpolation="nearest", **colours,
    )  # fmt: skip
    axis.set_facecolor(_SKY)
    axis.set_xlabel("y left [m]")
    return image


def _draw_side(axis: Any, occupied: np.ndarray, geometry: Geometry, deepest: int) -> Any:
    counts = occupied.sum(axis=2).astype(np.float64)
    coarse, factor = _coarse(np.where(counts > 0, np.log1p(counts), np.nan), np.positive)
    top = geometry.lower[0] + geometry.size[0] * factor * coarse.shape[0]
    right = geometry.lower[1] + geometry.size[1] * factor * coarse.shape[1]
    image = axis.imshow(
        coarse, origin="lower", extent=(geometry.lower[1], right, geometry.lower[0], top),
        aspect="auto", interpolation="nearest", cmap="magma_r",
        vmin=0, vmax=np.log1p(deepest),
    )  # fmt: skip
    axis.set_facecolor(_SKY)
    axis.set_xlabel("x forward [m]")
    axis.set_ylabel("z up [m]")
    return image


def _coarse(values: np.ndarray, by: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
    """Squares of cells as the one among them that is largest `by`, and the cells along a square.

    So many that no side has more than MAX_CELLS squares. NaN where all cells are NaN.
    """
    factor = -(-max(values.shape) // MAX_CELLS)
    ends = [(0, -n % factor) for n in values.shape]
    h, w = ((n + end) // factor for n, (_, end) in zip(values.shape, ends, strict=True))
    padded = np.pad(values, ends, constant_values=np.nan)
    blocks = padded.reshape(h, factor, w, factor).swapaxes(1, 2).reshape(h, w, -1)
    rank = np.where(np.isnan(blocks), -np.inf, by(blocks)).argmax(axis=-1)
    return np.take_along_axis(blocks, rank[..., None], axis=-1)[..., 0], factor


def _draw_space(axis: Any, occupied: np.ndarray, geometry: Geometry) -> None:
    points = geometry.points(occupied)
    points = points[:: -(-len(points) // MAX_POINTS) or 1]
    low, high = geometry.lower, _upper(geometry)
    axis.scatter(
        points[:, 0], points[:, 1], points[:, 2], c=points[:, 2], s=5, marker="s",
        cmap="viridis", vmin=low[0], vmax=high[0], linewidths=0, depthshade=False,
    )  # fmt: skip
    axis.set(xlim=(low[1], high[1]), ylim=(low[2], high[2]), zlim=(low[0], high[0]))
    # Heights drawn twice as tall: a street is flat.
    axis.set_box_aspect((high[1] - low[1], high[2] - low[2], 2 * (high[0] - low[0])))
    axis.view_init(elev=32, azim=-155)
    axis.set_xlabel("x forward [m]")
    axis.set_ylabel("y left [m]")


def _largest(volumes: Mapping[str, np.ndarray], channel: int) -> float:
    """Largest absolute value in occupied voxels of any volume, 1 at least."""
    found = [np.abs(v[..., channel][v[..., 0] > 0]).max(initial=1.0) for v in volumes.values()]
    return float(max(found))
