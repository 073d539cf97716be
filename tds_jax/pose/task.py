"""The pose task: recordings -> windows -> PoseModel -> joint angles, and what they are worth."""

import copy
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.config import SPLITS, Config
from tds_jax.data.session_files import SessionFiles
from tds_jax.data.windows import WindowSpec
from tds_jax.engine import metrics
from tds_jax.engine.step import Batch, Objective, batch_spec
from tds_jax.errors import NoSplitError
from tds_jax.fields import require
from tds_jax.nn.resample import upsample
from tds_jax.own import is_own
from tds_jax.pose import calibration, kinematics, opened, torch_names
from tds_jax.pose.calibration import Calibrations
from tds_jax.pose.config import PoseEvalConfig, PoseInputs, PoseMemoryConfig
from tds_jax.pose.joints import TWENTY, joint_names
from tds_jax.pose.kinematics import HandModel
from tds_jax.pose.labels import FAILURE_ATOL
from tds_jax.pose.metrics import DEGREES, landmark_stride
from tds_jax.pose.models import PoseModel
from tds_jax.pose.networks import AnyModel, make_network
from tds_jax.pose.own import own_metrics, row_loss
from tds_jax.pose.own_recordings import OwnRecordings
from tds_jax.pose.statistics import Layer, fit_mean_pose, fit_normalizer, fit_powers
from tds_jax.pose.table import SessionTable
from tds_jax.pose.windows import PoseWindows
from tds_jax.tasks import DataAbout

UNIT = "rad"
# Rows per read while statistics stream over the train split: 4 MB at 16 channels.
STATISTICS_ROWS = 65_536


class PoseTask:
    """A `tasks.Task` for surface EMG.

    recorded: channels, joints and rate; given, or else read from the index of the sessions, which
    is opened when first needed. The model's grid (left context, samples per step) fixes which rows
    of a window are supervised.
    """

    def __init__(self, config: Config, inputs: dict[str, Any] | None = None) -> None:
        self.config = config
        data = config.data
        cache = data.max_open_files, data.chunk_cache_bytes, data.chunk_cache_preemption
        offered = dataclasses.asdict(data) | {"seed": config.seed}
        self.files = (
            OwnRecordings(data.source, offered, *cache) if data.source else SessionFiles(*cache)
        )
        self.recorded = PoseInputs(**inputs) if inputs else self._inputs_of_data()
        grid = nnx.eval_shape(lambda: self.init(nnx.Rngs(0)))
        self.left_context, self.step = grid.left_context, grid.step
        self._rollout = _rollout_steps(grid, data.window)
        self._normalized_front = _normalized_front(grid)
        self._read_out = grid.decoder.core.read_out if isinstance(grid, PoseModel) else ""
        for name, window in (("window", data.window), ("eval_window", data.eval_window)):
            require(
                grid.num_steps(window) > 0,
                f"data.{name}={window} samples are shorter than the model's receptive field of "
                f"{grid.receptive_field}; use a longer window or smaller model.tds_kernels",
            )
        require(
            not config.loss.fingertip_weight or self.joint_names == TWENTY,
            f"loss.fingertip_weight={config.loss.fingertip_weight} needs the 20 joint angles of "
            f"emg2pose, but these recordings have {self.recorded.num_joints}, of other names if "
            "they are 20 (data.joint_names); use 0",
        )
        self._label_step = 1 if config.loss.every_sample else self.step

    @functools.cached_property
    def _opened(self) -> tuple[SessionTable, list[str]]:
        return opened.open_recordings(self.config, self.files)

    @property
    def table(self) -> SessionTable:
        """Every usable session."""
        return self._opened[0]

    def _inputs_of_data(self) -> PoseInputs:
        if self.config.data.generated:  # known before the recordings are generated
            made = opened.simulation(self.config)
            channels = len(self.config.data.channels) or made.num_channels
            return PoseInputs(channels, len(TWENTY), made.sample_rate)
        table = self.table
        # Rates taken from time stamps carry their rounding.
        return PoseInputs(table.channels, table.joints, float(f"{table.rate_hz:.4g}"))

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Of the angles, in their order."""
        return joint_names(self.recorded.num_joints, self.config.data.joint_names)

    def under(self, config: Config) -> Self:
        """See `tasks.Task.under`."""
        other = copy.copy(self)
        other.config = config
        return other

    def inputs(self) -> dict[str, Any]:
        """Channels, joints and rate, for a run's folder."""
        return dataclasses.asdict(self.recorded)

    @property
    def hand_file(self) -> str:
        """The user's hand model, '' for our own."""
        return cast(PoseEvalConfig, self.config.eval).hand_model

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """Metrics of one's own, as the settings name them."""
        return cast(PoseEvalConfig, self.config.eval).own

    @functools.cached_property
    def hand(self) -> HandModel | None:
        """What turns angles into landmarks; None unless they are emg2pose's 20, in its order, as
        20 without names are taken to be."""
        if self.joint_names != TWENTY:
            return None
        file = self.hand_file
        return kinematics.read_hand_model(file) if file else kinematics.default_hand()

    def digest(self) -> str:
        """Changes with any session's name, length or split."""
        return opened.digest(self.table)

    def data_files(self) -> dict[str, str]:
        """The recordings in use; metadata.csv shows in `digest`."""
        if self.config.data.source:
            return {}
        names = [os.fsdecode(name) for name in self.table.names.tolist()]
        return {name: os.path.join(self.table.root, name) for name in names}

    def data_about(self) -> DataAbout:
        """Sessions, users, hours, rate and channels."""
        return opened.about(self.table, self.config.data.generated)

    def init(self, rngs: nnx.Rngs) -> AnyModel:
        """A fresh model for the recordings' channels, joints and rate."""
        memory = cast(PoseMemoryConfig, self.config.memory)
        return make_network(self.config.model, memory, self.recorded, rngs)

    def poses(
        self, model: nnx.Module, batch: Batch, train: bool, tracking: bool = False
    ) -> jax.Array:
        """(B, N, J) predictions for the supervised rows of a batch.

        tracking: begin at the true pose where the model can do both ('mixed').
        """
        kind = self.config.model.initial_pose
        told = kind == "given" or (kind == "mixed" and (train or tracking))
        initial = batch["joint_angles"][:, 0] if told else None
        emg = batch["emg"]
        if train:
            emg = self.config.data.augmentation(emg, cast(AnyModel, model).normalizer, batch["key"])
        given = {"calibration": batch["calibration"]} if self._calibrated else {}
        poses = model(emg, initial, batch["key"] if train else None, **given)
        rows = batch["joint_angles"].shape[1]
        # Models that answer at every sample (reference_rate) have step 1: nothing to spread.
        return upsample(poses, self.step, rows) if self._label_step < self.step else poses

    def weights(self, batch: Batch) -> jax.Array:
        """(B, N) which rows count; a window whose given initial pose failed counts nowhere.

        'mixed' leaves such windows out whichever pose it begins at, to compare over the same rows.
        """
        if self.config.model.initial_pose not in ("given", "mixed"):
            return batch["weight"]
        # Not its weight: a window that repeats rows of the one before begins with weight 0.
        known = jnp.any(jnp.abs(batch["joint_angles"][:, 0]) > FAILURE_ATOL, axis=-1)
        return batch["weight"] * known[:, None].astype(jnp.float32)

    def loss(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """Σ over valid rows of mse_weight·error² + mae_weight·|error|, joints averaged.

        With fingertip_weight, each example adds its mean fingertip distance times its weight: the
        distance is taken at fewer rows, yet examples remain additive.
        """
        target, weight = batch["joint_angles"], self.weights(batch)
        poses = self.poses(model, batch, train)
        error = poses - target
        loss = self.config.loss
        cost = loss.mse_weight * error**2 + loss.mae_weight * jnp.abs(error)
        row = jnp.mean(cost, axis=-1, dtype=jnp.float32) + row_loss(loss.own, poses, target)
        total = jnp.sum(weight * row, dtype=jnp.float32)
        states: dict[str, Any] = {UNIT: metrics.Regression.of(poses, target, weight).pool()}
        for name, one in own_metrics(self.own_metrics, poses, target, weight).items():
            states[name] = jax.tree.map(jnp.sum, one)
        if loss.fingertip_weight:
            states["fingertip_mm"] = distance = self.fingertip_distance(poses, target, weight)
            total += loss.fingertip_weight * distance.sum
        return Objective(total, jnp.sum(weight, dtype=jnp.float32)), states

    def fingertip_distance(
        self, poses: jax.Array, target: jax.Array, weight: jax.Array
    ) -> metrics.Mean:
        """mm: Σ over examples of weight (B, N) summed · mean distance over the rows compared.

        Rows are compared every 20 ms; an example whose compared rows all failed adds 0.
        """
        assert self.hand is not None, "fingertip_weight is 0 without a hand"
        k = landmark_stride(self.recorded.sample_rate / self._label_step)
        apart = kinematics.fingertip_distance(self.hand, poses[:, ::k], target[:, ::k])
        rows, compared = weight.sum(axis=1), weight[:, ::k].sum(axis=1)
        mean = (weight[:, ::k] * apart).sum(axis=1) / jnp.maximum(compared, 1)
        return metrics.Mean(jnp.sum(rows * mean, dtype=jnp.float32), jnp.sum(rows))

    @functools.cache  # noqa: B019 - one task per run, three splits
    def source(self, split: str) -> PoseWindows:
        """Windows of a split: overlapping, jittered and rotated for train, tiling otherwise."""
        data, table = self.config.data, self.table.select(split)
        if not len(table):
            raise NoSplitError(
                f"{self.table.root}: the {split} split has no session; "
                "add sessions, or change data.split_ratio or metadata.csv"
            )
        train = split == "train"
        window = data.window if train else min(data.eval_window, int(table.samples.min()))
        spec = WindowSpec(
            window, data.stride if train else None, self.left_context, self._label_step
        )
        rotation = data.rotation if train else 0
        failures = data.failures if train else "mask"
        how = (train and data.jitter, rotation, failures)
        return PoseWindows(table, self.files, spec, *how, self._calibrations(split))

    @property
    def _calibrated(self) -> bool:
        return self.config.model.user_embedding > 0

    @functools.cache  # noqa: B019 - as `source`
    def _calibrations(self, split: str) -> Calibrations | None:
        if not self._calibrated:
            return None
        seconds = self.config.data.calibration_seconds
        return calibration.read(self.table.select(split), self.files, seconds)

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch of training windows, or of evaluation's longer ones."""
        data = self.config.data
        window = data.window if train else data.eval_window
        spec = WindowSpec(window, data.stride, self.left_context, self._label_step)
        leaves = {
            "emg": ((window, self.recorded.num_channels), jnp.float32),
            "joint_angles": ((spec.positions, self.recorded.num_joints), jnp.float32),
            "weight": ((spec.positions,), jnp.float32),
            "session": ((), jnp.int32),
        }
        if self._calibrated:
            leaves["calibration"] = ((calibration.size(self.recorded.num_channels),), jnp.float32)
        return batch_spec(examples, leaves)

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """Recomputation that pays here: of the rollout in √N chunks, and of encoder blocks.

        Of a network of one's own nothing is known.
        """
        if is_own(self.config.model.name):
            return {}
        remat = {"remat": ("none", "names", "full")}
        if self._rollout is None:
            return remat
        return {"decoder_chunk": (0, max(1, round(self._rollout**0.5)))} | remat

    def import_params(
        self, params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, rest) from a PyTorch checkpoint; see `pose.torch_names`."""
        require(
            self.config.model.encoder == "tds",
            f"model.encoder={self.config.model.encoder!r} has no counterpart in PyTorch; import "
            "into a config with model.encoder='tds'",
        )
        return torch_names.import_params(params, rest, tensors)

    def fit_statistics(self) -> dict[str, Any]:
        """Mean and scale per EMG channel, of its powers and of calibrations, of the train split."""
        data, train = self.config.data, self.table.select("train")
        found: dict[str, Any] = {}
        if data.normalize:
            rows = data.max_samples_for_normalize
            found["normalizer"] = fit_normalizer(train, self.files, rows, STATISTICS_ROWS)
        if self._normalized_front:
            of = data.window, found.get("normalizer", {}), self._normalized_front
            found["encoder"] = {"normalizer": fit_powers(train, self.files, *of)}
        if stretches := self._calibrations("train"):
            found["film"] = {"normalizer": calibration.statistics(stretches)}
        return found

    def first_params(self) -> dict[str, Any]:
        """The bias of a read-out of positions: the mean pose of the train split."""
        model = self.config.model
        if not (model.start_at_mean and self._read_out and model.output == "position"):
            return {}
        mean = fit_mean_pose(self.table.select("train"), self.files)
        return {"decoder": {"core": {self._read_out: {"bias": mean / model.output_scale}}}}

    def warnings(self) -> list[str]:
        """What was skipped while reading the index."""
        _ = self.hand  # a wrong file is better known before training than after it
        table = self.table
        short = next(opened.shrunk(table, self.config.data.eval_window), None)
        norms = self.config.model.name == "neuropose"
        empty = [
            f"{split}: {line}"
            for i, split in enumerate(SPLITS)
            if i in table.split
            for line in self.source(split).empty()
        ]
        said = self._opened[1] + ([short] if short else []) + empty
        return said + norms * self.config.optim.batch_norm_warning()

    def describe(self, values: dict[str, Any]) -> str:
        """loss, mae in both units, r2."""
        mae = values["mae_rad"]
        return (
            f"loss {values['loss']:.4f}  mae {mae:.4f} rad ({mae * DEGREES:.2f}°)"
            f"  r2 {values['r2']:.3f}"
        )


def _rollout_steps(grid: nnx.Module, window: int) -> int | None:
    """Decoder steps of a training window; None for a model that has no rollout."""
    if not isinstance(grid, PoseModel):
        return None
    return grid.decoder_steps(window, grid.encoder.num_frames(window))


def _normalized_front(grid: nnx.Module) -> Sequence[Layer]:
    """What comes between normalised EMG and the encoder's normalizer; () where there is none."""
    if not isinstance(grid, PoseModel) or grid.encoder.normalizer is None:
        return ()
    return grid.encoder.front
