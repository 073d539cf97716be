"""What a pose run can be told about its model, data and loss; values live in configs/default.py."""

import dataclasses
from dataclasses import field
from typing import Any

from tds_jax.config import EvalConfig, MemoryConfig, SourceConfig
from tds_jax.fields import (
    FREE,
    PLANNED,
    Settings,
    at_least,
    between,
    one_of,
    one_of_or_own,
    require,
    require_shares,
)
from tds_jax.pose.augment import Augmentation
from tds_jax.pose.folds import require_fold
from tds_jax.pose.labels import UNITS
from tds_jax.pose.selection import Selection
from tds_jax.pose.splits import SPLIT_BY

# Tensor cores multiply by 16 rows at least; the weights of more are read too slowly: `pose.fused`.
FUSED_HIDDEN = range(16, 256 + 1, 16)
POWERS = ("none", "rms", "covariance")
INITIAL_POSES = ("zeros", "learned", "given", "mixed")
FRONT_SETTINGS = ("highpass_hz", "lowpass_hz", "notch_hz", "powers")
STAGE_SETTINGS = ("conv_kernels", "conv_strides", "groups", "widths", "tds_kernels", "tds_blocks")


@dataclasses.dataclass(frozen=True)
class PoseModelConfig(Settings, group="model"):
    """Arguments of `pose.models.PoseModel`, in the order of the data's way through it.

    The six tuples have one entry per TDS stage. name 'package.module:Name' builds `own.OwnModel`
    around a network of one's own, which gets those of them that it asks for. 'neuropose' builds
    `pose.neuropose.NeuroPose` instead, which reads widths, conv_strides, groups, layers and dropout
    (its docstring says as what) and nothing else.
    """

    name: str = field(metadata=one_of_or_own("tds", "neuropose"))
    highpass_hz: float = field(metadata=at_least(0))
    lowpass_hz: float = field(metadata=at_least(0))
    notch_hz: tuple[float, ...]
    filter_seconds: float
    powers: str = field(metadata=one_of(*POWERS))
    power_samples: tuple[int, ...] = field(metadata=at_least(1))
    correlation_samples: tuple[int, ...] = field(metadata=at_least(1))
    power_stride: int = field(metadata=at_least(1))
    power_normalize: bool
    conv_kernels: tuple[int, ...] = field(metadata=at_least(1))
    conv_strides: tuple[int, ...] = field(metadata=at_least(1))
    groups: tuple[int, ...] = field(metadata=at_least(1))
    widths: tuple[int, ...] = field(metadata=at_least(1))
    tds_kernels: tuple[int, ...] = field(metadata=at_least(1))
    tds_blocks: tuple[int, ...] = field(metadata=at_least(0))
    encoder: str = field(metadata=one_of("tds", "conformer"))
    attention_frames: int = field(metadata=at_least(1))
    expansion: int = field(metadata=at_least(1))
    norm_order: str = field(metadata=one_of("norm_relu", "relu_norm"))
    conv_bias: bool
    log_power_frames: int = field(metadata=at_least(0))
    out_features: int = field(metadata=at_least(0))
    dropout: float = field(metadata=between(0, 0.95))
    decoder: str = field(metadata=one_of("lstm", "mlp"))
    user_embedding: int = field(metadata=at_least(0))
    hidden: int = field(metadata=at_least(1))
    layers: int = field(metadata=at_least(1))
    mlp_hidden: tuple[int, ...]
    slope: float = field(metadata=between(0, 1))
    decoder_kernel: str = field(metadata=FREE | one_of("auto", "scan", "fused"))
    rollout_freq: float
    output: str = field(metadata=one_of("position", "velocity", "hybrid"))
    output_scale: float
    initial_pose: str = field(metadata=one_of(*INITIAL_POSES))
    start_at_mean: bool = field(metadata=FREE)  # acts before the first step only
    tracking_share: float = field(metadata=between(0, 1))
    alignment: str = field(metadata=one_of("fixed", "reference"))
    reference_rate: bool
    output_filter: str = field(metadata=FREE | one_of("none", "speed_adaptive"))
    filter_cutoff: float = field(metadata=FREE)
    filter_gain: float = field(metadata=FREE | at_least(0))
    filter_speed_cutoff: float = field(metadata=FREE)

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {name: len(getattr(self, name)) for name in STAGE_SETTINGS}
        require(
            len(set(lengths.values())) == 1,
            "model has stage tuples of different lengths "
            f"({', '.join(f'{k}: {v}' for k, v in lengths.items())}); one entry per stage in each",
        )
        require(
            self.name == "tds" or self.initial_pose == "zeros",
            f"model.initial_pose={self.initial_pose!r} has no meaning with model.name="
            f"{self.name!r}, which has no state; use 'zeros'",
        )
        require(
            self.name == "tds" or self.output_filter == "none",
            f"model.output_filter={self.output_filter!r} needs decoder steps, which model.name="
            f"{self.name!r} has not; use 'none'",
        )
        require(
            self.decoder_kernel != "fused"
            or (self.decoder == "lstm" and self.hidden in FUSED_HIDDEN),
            f"model.decoder_kernel='fused' is not there for model.decoder={self.decoder!r} with "
            f"model.hidden={self.hidden}; it needs 'lstm' and a multiple of {FUSED_HIDDEN.step} up "
            f"to {FUSED_HIDDEN[-1]}, or use 'scan'",
        )
        for name in ("rollout_freq", "filter_cutoff", "filter_speed_cutoff"):
            value = getattr(self, name)
            require(value > 0, f"model.{name}={value} must be above 0 Hz")
        scale = self.output_scale
        require(scale > 0, f"model.output_scale={scale} leaves no pose; use one above 0, as 1.0")
        self._require_encoder()
        self._require_front()

    def _require_encoder(self) -> None:
        require(
            self.encoder == "tds" or not self.reference_rate,
            "model.reference_rate=True repeats a defect of a TDS encoder; use "
            f"model.encoder='tds' with it instead of {self.encoder!r}",
        )
        for name in (*FRONT_SETTINGS, "encoder", "log_power_frames", "user_embedding"):
            value = getattr(self, name)
            require(
                self.name != "neuropose" or value in (0, (), "none", "tds"),
                f"model.{name}={value!r} acts before an encoder of model.name='tds', which "
                "'neuropose' has not; leave it out",
            )

    def _require_front(self) -> None:
        require(
            bool(self.power_samples) and not any(n % self.power_stride for n in self.power_samples),
            f"model.power_samples={self.power_samples} must be multiples of model.power_stride="
            f"{self.power_stride}, one or more",
        )
        require(
            not any(n % self.power_stride for n in self.correlation_samples)
            and (self.powers == "covariance" or not self.correlation_samples),
            f"model.correlation_samples={self.correlation_samples} must be multiples of "
            f"model.power_stride={self.power_stride}, for model.powers='covariance' alone; not for "
            f"{self.powers!r}, and () = those of model.power_samples",
        )
        require(
            min(self.notch_hz, default=1) > 0,
            f"model.notch_hz={self.notch_hz} must be above 0 Hz",
        )
        require(
            not self.lowpass_hz or self.highpass_hz < self.lowpass_hz,
            f"model.lowpass_hz={self.lowpass_hz} must be above model.highpass_hz="
            f"{self.highpass_hz}; 0 = no such edge",
        )


@dataclasses.dataclass(frozen=True)
class PoseInputs:
    """What a pose model must know of its recordings. sample_rate: Hz."""

    num_channels: int
    num_joints: int
    sample_rate: float


@dataclasses.dataclass(frozen=True)
class PoseDataConfig(SourceConfig):
    """Where the recordings are and how windows are cut from them; lengths are in samples."""

    group: str
    cache_dir: str = field(metadata=FREE)
    window: int = field(metadata=at_least(1))
    stride: int = field(metadata=at_least(1))
    eval_window: int = field(metadata=at_least(1))
    jitter: bool
    rotation: int = field(metadata=at_least(0))
    noise: float = field(metadata=at_least(0))
    gain_spread: float = field(metadata=at_least(0))
    channel_drop: float = field(metadata=between(0, 0.95))
    calibration_seconds: float
    failures: str = field(metadata=one_of("mask", "blocks", "reference"))
    users: tuple[str, ...]
    stages: tuple[str, ...]
    sides: tuple[str, ...]
    subsample: float
    channels: tuple[int, ...]
    joint_names: tuple[str, ...]
    flip_left: tuple[str, ...]
    angle_unit: str = field(metadata=one_of(*UNITS))
    split_by: str = field(metadata=one_of(*SPLIT_BY))
    split_ratio: tuple[float, ...]
    fold: str
    normalize: bool
    max_samples_for_normalize: int = field(metadata=at_least(0))
    max_bad_sessions: int = field(metadata=at_least(0))
    chunk_cache_bytes: int = field(metadata=FREE | at_least(0))
    chunk_cache_preemption: float = field(metadata=FREE | between(0, 1))
    max_open_files: int = field(metadata=FREE | at_least(1))
    synthetic_motion: str = field(metadata=one_of("poses", "freedoms"))
    synthetic_users: int = field(metadata=at_least(1))
    synthetic_unseen: int = field(metadata=at_least(1))
    synthetic_sessions: int = field(metadata=at_least(3))
    synthetic_seconds: float = field(metadata=at_least(5))
    synthetic_seed: int

    @property
    def selection(self) -> Selection:
        """The settings that choose sessions, electrodes and signs."""
        names = [field.name for field in dataclasses.fields(Selection)]
        return Selection(**{name: getattr(self, name) for name in names})

    @property
    def augmentation(self) -> Augmentation:
        """What training windows go through."""
        return Augmentation(self.noise, self.gain_spread, self.channel_drop)

    @property
    def cache_bytes(self) -> int:
        """Chunk caches of all files that may be open at once; contiguous files use none."""
        return self.max_open_files * self.chunk_cache_bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.subsample <= 1,
            f"data.subsample={self.subsample} must be a share above 0 and at most 1",
        )
        require(
            min(self.channels, default=0) >= 0 and len(set(self.channels)) == len(self.channels),
            f"data.channels={self.channels} must name each electrode once, numbered from 0",
        )
        require(
            all(self.joint_names) and len(set(self.joint_names)) == len(self.joint_names),
            f"data.joint_names={self.joint_names} must name each joint angle once",
        )
        require(
            self.calibration_seconds >= 1,
            f"data.calibration_seconds={self.calibration_seconds} tells nothing; use 1 or more",
        )
        require_shares("data.split_ratio", self.split_ratio)
        require_fold(self.fold)


@dataclasses.dataclass(frozen=True)
class PoseLossConfig(Settings, group="loss"):
    """loss = mse_weight * mse + mae_weight * mae over valid rows and all joints (rad², rad).

    fingertip_weight: per mm of the mean distance of the fingertips, averaged per example. own:
    'package.module:function' of (poses, target), both (B, N, J), that gives (B, N): what each row
    costs besides; '' for none.
    """

    mse_weight: float = field(metadata=at_least(0))
    mae_weight: float = field(metadata=at_least(0))
    fingertip_weight: float = field(metadata=at_least(0))
    every_sample: bool
    own: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mse_weight + self.mae_weight + self.fingertip_weight > 0 or bool(self.own),
            "loss.mse_weight=0 and loss.mae_weight=0 leave nothing to learn; raise one",
        )


@dataclasses.dataclass(frozen=True)
class PoseMemoryConfig(MemoryConfig):
    """The engine's settings. decoder_chunk: steps of the decoder redone together going backward."""

    decoder_chunk: int = field(metadata=FREE | PLANNED | {"shown": "chunk"} | at_least(0))


@dataclasses.dataclass(frozen=True)
class PoseEvalConfig(EvalConfig):
    """The engine's settings, and the hand that turns angles into landmarks.

    own: metrics, each a 'package.module:function' as `PoseLossConfig.own`; means go by its name.
    """

    hand_model: str
    own: tuple[str, ...]


def today(values: dict[str, Any]) -> dict[str, Any]:
    """An older run's settings: its labels were taken as they are, its splits were of sessions."""
    later: dict[str, dict[str, Any]] = {
        "model": {
            "decoder_kernel": "auto",
            "highpass_hz": 0.0,
            "lowpass_hz": 0.0,
            "notch_hz": (),
            "filter_seconds": 0.2,
            "user_embedding": 0,
            "log_power_frames": 0,
            "encoder": "tds",
            "attention_frames": 25,
            "expansion": 2,
            "powers": "none",
            "power_samples": (50,),
            "power_stride": 10,
            "power_normalize": False,
            "correlation_samples": (),
            "start_at_mean": False,
        },
        "data": {
            "synthetic_motion": "poses",
            "synthetic_unseen": 1,
            "calibration_seconds": 30.0,
            "noise": 0.0,
            "gain_spread": 0.0,
            "channel_drop": 0.0,
            "angle_unit": "rad",
            "split_by": "session",
            "source": "",
            "fold": "",
            "joint_names": (),
        },
        "loss": {"own": ""},
        "eval": {"own": ()},
    }
    return values | {group: added | dict(values[group]) for group, added in later.items()}
