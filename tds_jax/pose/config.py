"""What a pose run can be told about its model, data and loss; values live in configs/default.py."""

import dataclasses

from tds_jax.config import (
    FREE,
    PLANNED,
    EvalConfig,
    LoaderConfig,
    MemoryConfig,
    require,
    require_at_least,
    require_between,
    require_choice,
    require_shares,
)
from tds_jax.pose.selection import Selection

FAILURES = ("mask", "blocks", "reference")
INITIAL_POSES = ("zeros", "learned", "given", "mixed")
STAGE_SETTINGS = ("conv_kernels", "conv_strides", "groups", "widths", "tds_kernels", "tds_blocks")


@dataclasses.dataclass(frozen=True)
class PoseModelConfig:
    """Arguments of `pose.models.PoseModel`, in the order of the data's way through it.

    The six tuples have one entry per TDS stage. name 'neuropose' builds `pose.neuropose.NeuroPose`
    instead, which reads widths, conv_strides, groups, layers and dropout (its docstring says as
    what) and nothing else.
    """

    name: str
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    groups: tuple[int, ...]
    widths: tuple[int, ...]
    tds_kernels: tuple[int, ...]
    tds_blocks: tuple[int, ...]
    norm_order: str
    conv_bias: bool
    out_features: int
    dropout: float
    decoder: str
    hidden: int
    layers: int
    mlp_hidden: tuple[int, ...]
    slope: float
    rollout_freq: float
    output: str
    output_scale: float
    initial_pose: str
    tracking_share: float
    alignment: str
    reference_rate: bool
    output_filter: str = dataclasses.field(metadata=FREE)
    filter_cutoff: float = dataclasses.field(metadata=FREE)
    filter_gain: float = dataclasses.field(metadata=FREE)
    filter_speed_cutoff: float = dataclasses.field(metadata=FREE)

    def __post_init__(self) -> None:
        require_choice("model.name", self.name, ("tds", "neuropose"))
        lengths = {name: len(getattr(self, name)) for name in STAGE_SETTINGS}
        require(
            len(set(lengths.values())) == 1,
            "model has stage tuples of different lengths "
            f"({', '.join(f'{k}: {v}' for k, v in lengths.items())}); one entry per stage in each",
        )
        for name in STAGE_SETTINGS:
            for value in getattr(self, name):
                require_at_least(f"model.{name}", value, 0 if name == "tds_blocks" else 1)
        require_between("model.dropout", self.dropout, 0, 0.95)
        require_choice("model.norm_order", self.norm_order, ("norm_relu", "relu_norm"))
        require_at_least("model.out_features", self.out_features, 0)
        require_between("model.slope", self.slope, 0, 1)
        require_choice("model.decoder", self.decoder, ("lstm", "mlp"))
        require_choice("model.output", self.output, ("position", "velocity", "hybrid"))
        require_choice("model.initial_pose", self.initial_pose, INITIAL_POSES)
        require_between("model.tracking_share", self.tracking_share, 0, 1)
        require_choice("model.alignment", self.alignment, ("fixed", "reference"))
        require(
            self.name == "tds" or self.initial_pose == "zeros",
            f"model.initial_pose={self.initial_pose!r} has no meaning with model.name="
            f"{self.name!r}, which has no state; use 'zeros'",
        )
        self._check_filter()
        for name in ("hidden", "layers"):
            require_at_least(f"model.{name}", getattr(self, name), 1)
        require(self.rollout_freq > 0, f"model.rollout_freq={self.rollout_freq} must be above 0 Hz")

    def _check_filter(self) -> None:
        require_choice("model.output_filter", self.output_filter, ("none", "speed_adaptive"))
        require(
            self.name == "tds" or self.output_filter == "none",
            f"model.output_filter={self.output_filter!r} needs decoder steps, which model.name="
            f"{self.name!r} has not; use 'none'",
        )
        for name in ("filter_cutoff", "filter_speed_cutoff"):
            value = getattr(self, name)
            require(value > 0, f"model.{name}={value} must be above 0 Hz")
        require_at_least("model.filter_gain", self.filter_gain, 0)


@dataclasses.dataclass(frozen=True)
class PoseInputs:
    """What a pose model must know of its recordings. sample_rate: Hz."""

    num_channels: int
    num_joints: int
    sample_rate: float


@dataclasses.dataclass(frozen=True)
class PoseDataConfig(LoaderConfig):
    """Where the recordings are and how windows are cut from them; lengths are in samples."""

    path: str
    group: str
    cache_dir: str = dataclasses.field(metadata=FREE)
    window: int
    stride: int
    eval_window: int
    jitter: bool
    rotation: int
    failures: str
    users: tuple[str, ...]
    stages: tuple[str, ...]
    sides: tuple[str, ...]
    subsample: float
    channels: tuple[int, ...]
    flip_left: tuple[str, ...]
    split_ratio: tuple[float, ...]
    normalize: bool
    max_samples_for_normalize: int
    max_bad_sessions: int
    chunk_cache_bytes: int = dataclasses.field(metadata=FREE)
    chunk_cache_preemption: float = dataclasses.field(metadata=FREE)
    max_open_files: int = dataclasses.field(metadata=FREE)
    synthetic_users: int
    synthetic_sessions: int
    synthetic_seconds: float
    synthetic_seed: int

    @property
    def selection(self) -> Selection:
        """The settings that choose sessions, electrodes and signs."""
        names = [field.name for field in dataclasses.fields(Selection)]
        return Selection(**{name: getattr(self, name) for name in names})

    @property
    def cache_bytes(self) -> int:
        """Chunk caches of all files that may be open at once; contiguous files use none."""
        return self.max_open_files * self.chunk_cache_bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "stride", "eval_window", "max_open_files"):
            require_at_least(f"data.{name}", getattr(self, name), 1)
        for name in (
            "rotation",
            "max_samples_for_normalize",
            "max_bad_sessions",
            "chunk_cache_bytes",
        ):
            require_at_least(f"data.{name}", getattr(self, name), 0)
        require_choice("data.failures", self.failures, FAILURES)
        require(
            0 < self.subsample <= 1,
            f"data.subsample={self.subsample} must be a share above 0 and at most 1",
        )
        require(
            min(self.channels, default=0) >= 0 and len(set(self.channels)) == len(self.channels),
            f"data.channels={self.channels} must name each electrode once, numbered from 0",
        )
        require_between("data.chunk_cache_preemption", self.chunk_cache_preemption, 0, 1)
        require_shares("data.split_ratio", self.split_ratio)
        require_at_least("data.synthetic_users", self.synthetic_users, 1)
        require_at_least("data.synthetic_sessions", self.synthetic_sessions, 3)
        require_at_least("data.synthetic_seconds", self.synthetic_seconds, 5)


@dataclasses.dataclass(frozen=True)
class PoseLossConfig:
    """loss = mse_weight * mse + mae_weight * mae over valid rows and all joints (rad², rad).

    fingertip_weight: per mm of the mean distance of the fingertips, averaged per example.
    """

    mse_weight: float
    mae_weight: float
    fingertip_weight: float
    every_sample: bool

    def __post_init__(self) -> None:
        require_at_least("loss.mse_weight", self.mse_weight, 0)
        require_at_least("loss.mae_weight", self.mae_weight, 0)
        require_at_least("loss.fingertip_weight", self.fingertip_weight, 0)
        require(
            self.mse_weight + self.mae_weight + self.fingertip_weight > 0,
            "loss.mse_weight=0 and loss.mae_weight=0 leave nothing to learn; raise one",
        )


@dataclasses.dataclass(frozen=True)
class PoseMemoryConfig(MemoryConfig):
    """The engine's settings. decoder_chunk: steps of the decoder redone together going backward."""

    decoder_chunk: int = dataclasses.field(metadata=FREE | PLANNED | {"shown": "chunk"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("memory.decoder_chunk", self.decoder_chunk, 0)


@dataclasses.dataclass(frozen=True)
class PoseEvalConfig(EvalConfig):
    """The engine's settings, and the hand that turns angles into landmarks."""

    hand_model: str
