"""Windows of days, or finer steps: some to look at, the following ones to forecast, and how splits
share them."""

import dataclasses

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.grid_record import Region
from tds_jax.errors import UserError
from tds_jax.forecast.days import phases, runs
from tds_jax.forecast.gridded_days import Fields, lands
from tds_jax.forecast.steps import Step

Example = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """inputs: T, seen. leads: L, forecast: the days right after. Both count steps of a record."""

    inputs: int
    leads: int

    @property
    def length(self) -> int:
        """Days in a window."""
        return self.inputs + self.leads


def split_days(count: int, ratio: tuple[float, ...]) -> dict[str, range]:
    """The days of train, val and test, one after the other; ratio: their shares, of any sum."""
    edges = np.round(np.cumsum((0.0, *ratio)) / sum(ratio) * count).astype(int)
    return {name: range(*edges[i : i + 2]) for i, name in enumerate(SPLITS)}


def window_starts(days: np.ndarray, spec: WindowSpec, split: range, gap: int) -> np.ndarray:
    """Indices of the first days of the windows of a split, int64.

    All target days of a window lie in the split, so no two splits share one, and the window does
    not cross a gap in `days`. The first target is more than `gap` days after the last day before
    the split: with gap 0 inputs may reach back into the split before, with gap = spec.inputs
    they never do, with gap = spec.length a forecast's length lies between as well. Without any
    earlier day, `gap` has no effect.
    """
    starts = np.arange(max(split.start - spec.inputs, 0), split.stop - spec.length + 1)
    if not len(starts):
        return starts
    step = Step.of(days).delta
    unbroken = days[starts + spec.length - 1] - days[starts] == (spec.length - 1) * step
    first_target = days[starts + spec.inputs]
    apart = split.start == 0 or first_target - days[split.start - 1] > gap * step
    return starts[unbroken & apart]


def require_windows(days: np.ndarray, spec: WindowSpec) -> None:
    """UserError unless a window fits between two gaps of the record."""
    step = Step.of(days)
    longest = max(stop - start for start, stop in runs(days))
    if spec.length > longest:
        raise UserError(
            f"data.input_days={spec.inputs / step.per_day:g} and data.lead_days="
            f"{spec.leads / step.per_day:g} need {step.words(spec.length)} in a row, the longest "
            f"stretch has {longest}; use fewer"
        )


class ForecastWindows:
    """Random access to the windows of one split, a `data.pipeline.Source`.

    Example: `fields` (T, h, w, C) f32 in the units of the files and `present` (T, h, w, C) uint8;
    `target` (L, h, w) f32 and `weight` (L, h, w) f32, 1 where the target is known and on its land;
    of K targets (K L, h, w), target after target. What is missing is 0 in fields and target.
    `phase` (T + L,) or (T + L, 2) f32: `days.phases`. `start` () int32: index of the first day.
    `origin` (2,) int32: row and column of the crop.

    seen: (K, H, W) bool, where else than on its land a target does not count: where training saw
    it, for nothing is usual where it did not. None for everywhere.

    crop: (h, w) cut out at a random place where an rng is given; (0, 0) = the whole grid, which is
    also what examples without an rng are. A crop without any land is drawn again, up to 20 times.
    """

    def __init__(
        self,
        fields: Fields,
        spec: WindowSpec,
        starts: np.ndarray,
        crop: tuple[int, ...] = (0, 0),
        seen: np.ndarray | None = None,
    ) -> None:
        for size, axis in zip(crop, (fields.lat, fields.lon), strict=True):
            if size < 0 or size > len(axis) or bool(crop[0]) != bool(crop[1]):
                raise UserError(
                    f"data.crop={tuple(crop)} does not fit the grid of {len(fields.lat)} x "
                    f"{len(fields.lon)} cells; use (0, 0) for all of it"
                )
        self.fields, self.spec, self.starts = fields, spec, starts
        self.crop = crop
        land = lands(fields)  # looked up once, before workers get a copy
        self._lands = land if seen is None else land & seen

    def __repr__(self) -> str:
        return f"ForecastWindows({self.spec.inputs} + {self.spec.leads} days)"

    def __len__(self) -> int:
        return len(self.starts)

    def example(self, index: int, rng: np.random.Generator | None) -> Example:
        """Window `index`; rng places the crop."""
        start = int(self.starts[index])
        middle, stop = start + self.spec.inputs, start + self.spec.length
        row, column = self._origin(rng) if rng and self.crop[0] else (0, 0)
        height, width = self.crop if rng and self.crop[0] else self._lands.shape[1:]
        region = slice(row, row + height), slice(column, column + width)
        inputs = self.fields.read(start, middle, region=region)
        target, counts = self._coming(middle, stop, region)
        known = np.isfinite(inputs)
        return {
            "fields": np.where(known, inputs, np.float32(0)),
            "present": known.astype(np.uint8),
            "target": np.where(counts, target, np.float32(0)),
            "weight": counts.astype(np.float32),
            "phase": phases(self.fields.days[start:stop]).astype(np.float32),
            "start": np.asarray(start, np.int32),
            "origin": np.asarray((row, column), np.int32),
        }

    def _coming(self, start: int, stop: int, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """(K L, h, w) the targets on days[start:stop], and where they count."""
        maps = np.moveaxis(self.fields.read(start, stop, self.fields.targets, region), -1, 0)
        counts = np.isfinite(maps) & self._lands[:, None, *region]
        shape = (-1, *maps.shape[2:])
        return maps.reshape(shape), counts.reshape(shape)

    def _origin(self, rng: np.random.Generator) -> tuple[int, int]:
        height, width = self.crop
        land = np.asarray(self._lands.any(axis=0))
        rows, columns = land.shape
        for _ in range(20):
            row, column = (
                int(rng.integers(rows - height + 1)),
                int(rng.integers(columns - width + 1)),
            )
            if land[row : row + height, column : column + width].any():
                break
        return row, column
