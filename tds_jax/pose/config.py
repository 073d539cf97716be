"""What a pose run can be told about its model and its data; values live in configs/default.py."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PoseModelConfig:
    """Arguments of `pose.models.PoseModel`, in the order of the data's way through it.

    The five stage tuples have one entry per TDS stage.
    """

    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    groups: tuple[int, ...]
    widths: tuple[int, ...]
    tds_kernels: tuple[int, ...]
    tds_blocks: tuple[int, ...]
    dropout: float
    decoder: str
    hidden: int
    layers: int
    mlp_hidden: tuple[int, ...]
    rollout_freq: float
    output: str
    output_scale: float
    initial_pose: str
    reference_rate: bool
    supervise: str


@dataclasses.dataclass(frozen=True)
class PoseDataConfig:
    """Where the recordings are, how windows are cut from them and how they reach the device."""

    path: str
    group: str
    cache_dir: str
    window: int
    stride: int
    eval_window: int
    jitter: bool
    split_ratio: tuple[float, ...]
    normalize: bool
    max_samples_for_normalize: int
    max_bad_sessions: int
    workers: int
    threads: int
    prefetch: int
    persistent_workers: bool
    chunk_cache_bytes: int
    chunk_cache_preemption: float
    max_open_files: int
    synthetic_users: int
    synthetic_sessions: int
    synthetic_seconds: float
    synthetic_seed: int


@dataclasses.dataclass(frozen=True)
class PoseLossConfig:
    """loss = mse + mae_weight * mae, both over valid rows and all joints, in rad² and rad."""

    mae_weight: float
