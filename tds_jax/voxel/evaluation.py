"""A voxel model beside its baselines, at thresholds chosen on validation."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from tds_jax.data import json_file
from tds_jax.engine import metrics
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.voxel import figures, space
from tds_jax.voxel.config import settings
from tds_jax.voxel.data.source import Statistics, VoxelPairs
from tds_jax.voxel.methods.latents import fingerprint
from tds_jax.voxel.metrics import States, ThresholdSweep, compare, dilated, split_groups
from tds_jax.voxel.task import VoxelTask

HEADLINE = (
    *("iou", "precision", "recall", "chamfer_m", "bev_iou", "count_ratio"),
    *("intensity_mae", "doppler_mae_m_s"),
)
SHOWN_GROUPS = ("range",)
THRESHOLDS = "thresholds.json"
FIXED = 0.5  # for what is 0 or 1, and for models that were never calibrated
GRID = np.linspace(0.01, 0.99, 99)
RADAR, PRIOR = "radar", "prior"

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
    """For each method and the prior, the threshold with the highest IoU over all validation.

    weights: fingerprint of the model that `run` evaluates.
    """
    sweeps: dict[str, ThresholdSweep] = {}
    for frame, volumes in frames(run, task.data.pairs("val")):
        for name, volume in (volumes | {PRIOR: task.data.statistics.prior}).items():
            truth, weight = frame["target"][..., 0], frame["weight"]
            sweep = ThresholdSweep.of(volume[..., 0], truth, weight, GRID)
            sweeps[name] = sweeps[name].merge(sweep) if name in sweeps else sweep
    return Thresholds(
        {name: sweep.best(GRID, "iou") for name, sweep in sweeps.items()},
        {name: float(sweep.scores()["iou"].max()) for name, sweep in sweeps.items()},
        weights,
    )


def evaluate(task: VoxelTask, model: nnx.Module, split: str, workdir: Path | None) -> Report:
    """Report of model and baselines on a split; thresholds and figures go to the workdir."""
    run = Evaluator(model, task.method.volumes, task.config)
    thresholds = calibrate(task, run, fingerprint(model))
    if workdir:
        thresholds.write(workdir)
    found: dict[str, States] = {}
    source = task.data.pairs(split)
    places = np.linspace(0, len(source) - 1, settings(task.config).renders)
    drawn = set(places.astype(int).tolist())
    for i, (frame, volumes) in enumerate(frames(run, source)):
        volumes |= baselines(task, frame)
        for name, volume in volumes.items():
            at = thresholds.of(name)
            states = compare(volume, frame["target"], frame["weight"], task.data.geometry, at)
            found[name] = metrics.merge(found[name], states) if name in found else states
        if workdir and i in drawn:
            seen = source.frames[i]
            title = f"{split}, frame {i}: {seen.scene} {seen.name}"
            _draw(task, workdir / "plots" / f"{split}_{i:04d}", title, frame, volumes, thresholds)
    count = len(source)
    rows = [row for name, states in found.items() for row in _rows(split, name, states, count)]
    return Report(rows, HEADLINE, SHOWN_GROUPS, notes=_notes(thresholds))


def baselines(task: VoxelTask, frame: Frame) -> Volumes:
    """What needs no network: name -> (D, H, W, 4).

    radar: the radar's own voxels; radar_dilated: and their neighbours; both with the reflectivity
    that the radar's intensity stands for and the mean values of the train split elsewhere. prior:
    how often each voxel is occupied in the train split, with its mean values. mean: the split's
    occupancy and mean values everywhere, hence nothing occupied. empty: nothing.
    """
    known, radar = task.data.statistics, frame["radar"]
    constant = np.concatenate([[np.float32(known.occupancy)], known.target_mean[1:]])
    return {
        RADAR: as_target(radar, known),
        f"{RADAR}_dilated": as_target(dilated(radar, settings(task.config).dilation), known),
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
    values[..., 1] = slope * radar[..., 1] + offset
    seen = radar[..., :1] > 0
    values[..., 1:] = np.where(seen, values[..., 1:], known.target_mean[1:])
    return values


def frames(run: Evaluator, source: VoxelPairs) -> Iterator[tuple[Frame, Volumes]]:
    """(example, {method: volume (D, H, W, 4)}) over a source, in order."""
    for batch, volumes in run.over(source):
        for i in np.flatnonzero(batch["example"] >= 0):
            yield (
                {name: leaf[i] for name, leaf in batch.items()},
                {name: volume[i] for name, volume in volumes.items()},
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
    volumes: Volumes,
    thresholds: Thresholds,
) -> None:
    shown = {method: volumes[method] for method in (RADAR, MODEL)}
    rows = {
        method: cut(volume, frame["weight"], thresholds.of(method))
        for method, volume in shown.items()
    }
    rows["truth"] = frame["target"]
    figures.draw_frames(place.with_suffix(".png"), rows, task.data.geometry, title)
    space.write_space(place.with_suffix(".html"), rows, task.data.geometry, title)


def _notes(thresholds: Thresholds) -> tuple[str, ...]:
    """What a reader of the tables must know of them."""
    pairs = ", ".join(f"{name} {value:.2f}" for name, value in thresholds.value.items())
    return (f"occupied above {pairs}, the best IoU on validation; others above {FIXED}",)
