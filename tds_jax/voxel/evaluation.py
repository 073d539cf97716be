"""A voxel model beside its baselines, at thresholds chosen on validation."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx

from tds_jax.data import json_file
from tds_jax.engine import metrics
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.intervals import Resampled, few, verdict
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.voxel import figures, space
from tds_jax.voxel.config import DIRECT, settings
from tds_jax.voxel.data.source import Statistics, VoxelPairs
from tds_jax.voxel.distributions import Patterns, Reliability, of_samples
from tds_jax.voxel.methods.generation import SAMPLE, SAMPLES
from tds_jax.voxel.methods.latents import fingerprint
from tds_jax.voxel.metrics import States, ThresholdSweep, compare, dilated, split_groups
from tds_jax.voxel.spread import blocks_of
from tds_jax.voxel.task import VoxelTask

HEADLINE = (
    *("iou", "precision", "recall", "chamfer_m", "bev_iou", "count_ratio", "pattern_jsd", "ece"),
    *("intensity_mae", "doppler_mae_m_s", "sample_iou", "best_iou", "diversity"),
)
HIGHER = {"iou": True, "chamfer_m": False, "bev_iou": True, "pattern_jsd": False}  # is better
SHOWN_GROUPS = ("range",)
THRESHOLDS = "thresholds.json"
FIXED = 0.5  # for what is 0 or 1, and for models that were never calibrated
GRID = np.linspace(0.01, 0.99, 99)
RADAR, PRIOR, LINEAR = "radar", "prior", "linear"
BASELINES = (DIRECT, RADAR, f"{RADAR}_dilated", LINEAR, PRIOR, "mean", "empty")

Frame = Mapping[str, np.ndarray]
"""One example: radar, target (D, H, W, 4) and weight (D, H, W)."""
Volumes = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Occupancy above which a method's voxel is occupied, by method; of the validation split.

    iou: what each reached there. weights: fingerprint of the model that was calibrated.
    """

    value: dict[str, float]
    iou: dict[str, float]
    weights: str

    def of(self, method: str) -> float:
        """The method's own, or FIXED."""
        return self.value.get(method, FIXED)

    @classmethod
    def read(cls, workdir: Path) -> "Thresholds | None":
        """Those that an evaluation left in a workdir; None if there was none."""
        path = workdir / THRESHOLDS
        return cls(**json_file.read(path, "run evaluate anew")) if path.exists() else None

    def write(self, workdir: Path) -> None:
        """Keeps them in a workdir."""
        json_file.write(workdir / THRESHOLDS, dataclasses.asdict(self))


def calibrate(task: VoxelTask, run: Evaluator, weights: str) -> Thresholds:
    """For each method, the prior and the linear one, the threshold with the highest IoU over all
    validation.

    weights: fingerprint of the model that `run` evaluates. None of any without a val split.
    """
    if not task.data.has("val"):
        return Thresholds({}, {}, weights)
    sweeps: dict[str, ThresholdSweep] = {}
    for frame, volumes, _ in frames(run, task.data.pairs("val")):
        volumes |= {PRIOR: task.data.statistics.prior, LINEAR: task.linear(frame["radar"])}
        for name, volume in volumes.items():
            truth, weight = frame["target"][..., 0], frame["weight"]
            sweep = ThresholdSweep.of(volume[..., 0], truth, weight, GRID)
            sweeps[name] = sweeps[name].merge(sweep) if name in sweeps else sweep
    return Thresholds(
        {name: sweep.best(GRID, "iou") for name, sweep in sweeps.items()},
        {name: float(sweep.scores()["iou"].max()) for name, sweep in sweeps.items()},
        weights,
    )


def evaluate(
    task: VoxelTask, model: nnx.Module, split: str, workdir: Path | None, keep: bool = True
) -> Report:
    """Report of model and baselines on a split; see `tasks.Domain` on workdir and keep."""
    run = Evaluator(model, task.method.volumes, task.config)
    thresholds = calibrate(task, run, fingerprint(model))
    if workdir and keep:
        thresholds.write(workdir)
    source = task.data.pairs(split)
    block, drawn = blocks_of(source.frames)
    found: dict[str, dict[int, States]] = {}
    places = np.linspace(0, len(source) - 1, settings(task.config).renders)
    rendered = set(places.astype(int).tolist())
    for i, (frame, volumes, samples) in enumerate(frames(run, source)):
        names = list(volumes)
        volumes |= baselines(task, frame)
        for name, volume in volumes.items():
            states = _states(task, frame, volume, thresholds.of(name))
            if name == MODEL and samples is not None:
                states |= _of_samples(frame, samples, thresholds.of(SAMPLE))
            own = found.setdefault(name, {})
            own[block[i]] = metrics.merge(own[block[i]], states) if block[i] in own else states
        if workdir and keep and i in rendered:
            seen = source.frames[i]
            title = f"{split}, frame {i}: {seen.scene} {seen.name}"
            shown = {name: volumes[name] for name in (RADAR, LINEAR, *names)}
            _draw(task, workdir / "plots" / f"{split}_{i:04d}", title, frame, shown, thresholds)
    rows, verdicts = _spread(split, found, len(source))
    return Report(
        rows,
        HEADLINE,
        SHOWN_GROUPS,
        notes=(*few(drawn), *_notes(thresholds)),
        leading=SHOWN_GROUPS,
        verdict=verdicts,
        drawn=str(drawn),
    )


def _spread(
    split: str, found: Mapping[str, Mapping[int, States]], count: int
) -> tuple[list[Row], tuple[str, ...]]:
    """Rows with intervals of the states by method and block, and how the model stands."""
    rows = []
    for name, blocks in found.items():
        rows += _rows(split, name, functools.reduce(metrics.merge, blocks.values()), count)
    whole = {
        name: [split_groups(blocks[number])[0] for number in sorted(blocks)]
        for name, blocks in found.items()
    }
    rows = Resampled.of(whole).rows(rows)
    judged = [row for row in rows if row.method in (MODEL, *BASELINES)]
    return rows, verdict(judged, HIGHER)


def _states(task: VoxelTask, frame: Frame, volume: np.ndarray, threshold: float) -> States:
    """Of one answer to a frame."""
    target, weight = frame["target"], frame["weight"]
    inside = weight > 0
    predicted, true = (volume[..., 0] > threshold) & inside, (target[..., 0] > 0) & inside
    return compare(volume, target, weight, task.data.geometry, threshold) | {
        "pattern": Patterns.of(predicted, true),
        "reliability": Reliability.of(volume[inside, 0], true[inside]),
    }


def _of_samples(frame: Frame, samples: np.ndarray, threshold: float) -> States:
    """Of the occupancies (S, D, H, W) of several samples."""
    inside = frame["weight"] > 0
    return of_samples(list((samples > threshold) & inside), (frame["target"][..., 0] > 0) & inside)


def baselines(task: VoxelTask, frame: Frame) -> Volumes:
    """What needs no network: name -> (D, H, W, 4).

    radar: the radar's own voxels; radar_dilated: and their neighbours; both with the reflectivity
    that the radar's intensity stands for and the mean values of the train split elsewhere. prior:
    how often each voxel is occupied in the train split, with its mean values. mean: the split's
    occupancy and mean values everywhere, hence nothing occupied. empty: nothing. linear: see
    `linear`.
    """
    known, radar = task.data.statistics, frame["radar"]
    constant = np.concatenate([[np.float32(known.occupancy)], known.target_mean[1:]])
    return {
        RADAR: as_target(radar, known),
        f"{RADAR}_dilated": as_target(dilated(radar, settings(task.config).dilation), known),
        LINEAR: task.linear(radar),
        PRIOR: known.prior,
        "mean": np.broadcast_to(constant, radar.shape),
        "empty": np.zeros_like(radar),
    }


def as_target(radar: np.ndarray, known: Statistics) -> np.ndarray:
    """(D, H, W, 4) of a radar with values in the target's units, and those of the mean elsewhere.

    Its intensity (dB, say) goes through the line that fits reflectivity best on the train split:
    as it stands, its error would be one of units.
    """
    slope, offset = known.reflectivity
    values = radar.copy()
    values[..., 0] = radar[..., 0] > 0  # an earlier sweep's voxels, too, are what was seen
    values[..., 1] = slope * radar[..., 1] + offset
    seen = radar[..., :1] > 0
    values[..., 1:] = np.where(seen, values[..., 1:], known.target_mean[1:])
    return values


class Answered(NamedTuple):
    """An example, {method: volume (D, H, W, 4)}, and the occupancies (S, D, H, W) of samples, or
    None of a method that has one answer."""

    frame: Frame
    volumes: Volumes
    samples: np.ndarray | None


def frames(run: Evaluator, source: VoxelPairs) -> Iterator[Answered]:
    """Every example of a source, in order."""
    for batch, volumes in run.over(source):
        samples = volumes.pop(SAMPLES, None)
        for i in np.flatnonzero(batch["example"] >= 0):
            yield Answered(
                {name: leaf[i] for name, leaf in batch.items()},
                {name: volume[i] for name, volume in volumes.items()},
                None if samples is None else samples[i],
            )


def cut(volume: np.ndarray, weight: np.ndarray, threshold: float) -> np.ndarray:
    """(D, H, W, 4) with channel 0 made 0 or 1 and the others 0 where it is 0 or weight is."""
    full = (volume[..., :1] > threshold) & (weight[..., None] > 0)
    return np.where(full, np.concatenate([full, volume[..., 1:]], axis=-1), 0).astype(np.float32)


def _rows(split: str, method: str, states: States, count: int) -> list[Row]:
    whole, groups = split_groups(states)
    return [
        Row(split, group, method, name, value, None, float(count))
        for group, part in ({ALL: whole} | groups).items()
        for name, value in metrics.compute(part).items()
    ]


def _draw(
    task: VoxelTask,
    place: Path,
    title: str,
    frame: Frame,
    shown: Volumes,
    thresholds: Thresholds,
) -> None:
    rows = {
        method: cut(volume, frame["weight"], thresholds.of(method))
        for method, volume in shown.items()
    }
    rows["truth"] = frame["target"]
    figures.draw_frames(place.with_suffix(".png"), rows, task.data.geometry, title)
    space.write_space(place.with_suffix(".html"), rows, task.data.geometry, title)


def _notes(thresholds: Thresholds) -> tuple[str, ...]:
    """What a reader of the tables must know of them."""
    if not thresholds.value:
        return (f"occupied above {FIXED}: there is no val split to choose by",)
    pairs = ", ".join(f"{name} {value:.2f}" for name, value in thresholds.value.items())
    return (f"occupied above {pairs}, the best IoU on validation; others above {FIXED}",)
