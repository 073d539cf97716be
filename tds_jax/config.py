"""ConfigDict -> frozen dataclasses: every name, type, range and choice is checked here, once.

The values themselves live in configs/*.py; no field has a default in this file, so that a reader
of a config sees everything a run depends on. Domains own the dataclasses of `model`, `data` and
`loss`; what a field of any of them may be is said by `fields`.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any

from tds_jax.errors import UserError
from tds_jax.fields import (
    FREE,
    PLANNED,
    Settings,
    at_least,
    between,
    one_of,
    require,
    require_at_least,
    require_between,
)
from tds_jax.own import is_own
from tds_jax.sizes import parse_bytes

REMAT_POLICIES = ("none", "dots", "names", "full")
DTYPES = ("float32", "bfloat16")
PRECISIONS = ("default", "high", "highest")
AUTO = "auto"
CALLS = ("micro_batch", "update")
SHARDS = ("none", "fsdp")
REPEATS = ("card", "run", "off")
LOGGERS = ("tensorboard", "wandb", "mlflow")
SPLITS = ("train", "val", "test")
SHOWN = 200  # letters of a value in a message


@dataclasses.dataclass(frozen=True)
class OptimConfig(Settings, group="optim"):
    """The update rule. `batch_size` is the effective batch; micro-batch = batch_size/accumulate."""

    batch_size: int = field(metadata=PLANNED | at_least(1))
    accumulate: int = field(metadata=FREE | PLANNED | at_least(1))
    steps: int = field(metadata=FREE | at_least(1))
    optimizer: str = field(metadata=one_of("adam", "adamw", "sgd"))
    learning_rate: float = field(metadata=at_least(0))
    schedule: str = field(metadata=one_of("constant", "warmup_cosine"))
    warmup_steps: int = field(metadata=at_least(0))
    end_factor: float = field(metadata=between(0, 1))
    weight_decay: float = field(metadata=at_least(0))
    clip_norm: float = field(metadata=at_least(0))
    ema_decay: float = field(metadata=between(0, 0.999999))
    init_from: str = field(metadata=FREE)  # acts before the first step only
    frozen: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        k, batch = self.accumulate, self.batch_size
        below, above = batch // k * k, (batch // k + 1) * k
        require(
            batch % k == 0,
            f"optim.batch_size={batch} is not divisible by optim.accumulate={k}; "
            f"use optim.batch_size={f'{below} or ' if below else ''}{above}",
        )
        require(
            self.warmup_steps < self.steps or self.schedule == "constant",
            f"optim.warmup_steps={self.warmup_steps} leaves nothing of optim.steps={self.steps}; "
            "lower it or train longer",
        )

    @property
    def micro_batch(self) -> int:
        """Examples in one forward and backward pass."""
        return self.batch_size // self.accumulate

    def batch_norm_warning(self, remedy: str = "") -> list[str]:
        """What BatchNorm does to a run whose batch is split, in a line; none if it is not."""
        if self.accumulate == 1:
            return []
        return [
            f"optim.accumulate={self.accumulate}: BatchNorm takes its statistics over "
            f"{self.micro_batch} examples, not over optim.batch_size={self.batch_size}; "
            f"the result is not that of optim.accumulate=1{remedy}"
        ]


@dataclasses.dataclass(frozen=True)
class MemoryConfig(Settings, group="memory"):
    """What trades speed for bytes; nothing here changes the result beyond rounding.

    A domain adds settings of its own here: each a length, 0 for off.
    """

    budget: str = field(metadata=FREE | PLANNED)
    host_budget: str = field(metadata=FREE | PLANNED)
    allow_bfloat16: bool = field(metadata=FREE | PLANNED)
    call: str = field(metadata=FREE | PLANNED | one_of(AUTO, *CALLS))
    shard: str = field(metadata=FREE | PLANNED | one_of(*SHARDS))
    remat: str = field(metadata=FREE | PLANNED | {"shown": "remat"} | one_of(*REMAT_POLICIES))
    dtype: str = field(metadata=PLANNED | {"shown": "dtype"} | one_of(*DTYPES))
    matmul_precision: str = field(metadata=PLANNED | one_of(*PRECISIONS))
    preallocate: bool = field(metadata=FREE | PLANNED)
    fraction: float = field(metadata=FREE | PLANNED | between(0, 1))
    compile_cache: str = field(metadata=FREE | PLANNED)
    deterministic: str = field(metadata=FREE | PLANNED | one_of(*REPEATS))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("budget", "host_budget"):
            text = getattr(self, name)
            if text not in ("", AUTO):
                require_at_least(f"memory.{name}", parse_bytes(f"memory.{name}", text), 1)


@dataclasses.dataclass(frozen=True)
class EvalConfig(Settings, group="eval"):
    """When to look at `val`, which value decides, and when to stop early.

    A domain's own class says which of its metrics rise.
    """

    every: int = field(metadata=at_least(0))
    batch_size: int = field(metadata=FREE | PLANNED | at_least(1))
    metric: str = field(metadata={"rises": ("r2",)})
    mode: str = field(metadata=one_of("min", "max"))
    min_delta: float = field(metadata=at_least(0))
    patience: int = field(metadata=at_least(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        rises = self.metric.startswith(_metadata(type(self), "metric")["rises"])
        require(
            rises == (self.mode == "max"),
            f"eval.metric={self.metric} should {'rise' if rises else 'fall'}, but eval.mode="
            f"{self.mode}; set eval.mode={'max' if rises else 'min'}",
        )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings, group="checkpoint"):
    """How often the state is saved and how many of the latest are kept beside the best."""

    every: int = field(metadata=at_least(0))
    keep: int = field(metadata=at_least(1))


@dataclasses.dataclass(frozen=True)
class LogConfig(Settings, group="log"):
    """How often a line is written, and where besides metrics.jsonl."""

    every: int = field(metadata=FREE | at_least(1))
    to: tuple[str, ...] = field(metadata=FREE | one_of(*LOGGERS))
    plots: bool = field(metadata=FREE)
    profile: int = field(metadata=FREE | at_least(0))


@dataclasses.dataclass(frozen=True)
class LoaderConfig(Settings, group="data"):
    """How batches reach the device; every domain's data settings begin with these."""

    workers: int = field(metadata=FREE | PLANNED | between(0, 256))
    threads: int = field(metadata=FREE | between(0, 256))
    prefetch: int = field(metadata=FREE | PLANNED | between(1, 1024))
    persistent_workers: bool = field(metadata=FREE)

    @property
    def cache_bytes(self) -> int:
        """The most that caches of open files take in one reading process."""
        return 0


@dataclasses.dataclass(frozen=True)
class SourceConfig(LoaderConfig):
    """Where data are. path: '' = generated ones. source: 'package.module:Name' of what gives them
    instead, see docs/own_parts.md; '' = the files of data.path."""

    path: str
    source: str

    @property
    def generated(self) -> bool:
        """Whether this project makes the data."""
        return not (self.path or self.source)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.source or is_own(self.source),
            f"data.source={self.source!r} must be 'package.module:Name', or '' for data.path",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `model`, `data` and `loss` are the task's own dataclasses."""

    task: str
    seed: int
    model: Any
    data: Any
    loss: Any
    optim: OptimConfig
    memory: MemoryConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    log: LogConfig

    def __post_init__(self) -> None:
        require_between("seed", self.seed, 0, 2**32 - 1)

    @property
    def micro_batches_per_call(self) -> int:
        """Micro-batches that one call of the compiled training step takes."""
        return self.optim.accumulate if self.memory.call == "update" else 1

    @property
    def examples_per_call(self) -> int:
        """Examples that one call of the compiled training step takes."""
        return self.optim.micro_batch * self.micro_batches_per_call

    @property
    def calls_per_update(self) -> int:
        """Calls of the compiled training step that make an update."""
        return self.optim.accumulate // self.micro_batches_per_call

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of plain values, tuples as lists, as config.json stores it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def replace(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with settings changed: {'optim.accumulate': 8, …}."""
    groups: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        group, name = path.split(".")
        groups.setdefault(group, {})[name] = value
    changed = {g: dataclasses.replace(getattr(config, g), **v) for g, v in groups.items()}
    return dataclasses.replace(config, **changed)


def value(config: Config, setting: str) -> Any:
    """What a config says for 'group.name'."""
    group, name = setting.split(".")
    return getattr(getattr(config, group), name)


def resolve(values: Mapping[str, Any], groups: Mapping[str, type]) -> Config:
    """The frozen Config for nested values (a ConfigDict's to_dict(), or a parsed config.json).

    groups: the task's dataclass for each of `model`, `data` and `loss`, and for `eval` if it has
    settings of its own there.
    Raises UserError for a missing or unknown field, a wrong type, a value out of range.
    """
    classes = {f.name: f.type for f in dataclasses.fields(Config)} | dict(groups)
    _check_names("", values, set(classes))
    built = {
        name: _build(kind, name, values[name])
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
        else _convert(name, values[name], kind)
        for name, kind in classes.items()
    }
    return Config(**built)


def _check_names(prefix: str, values: Mapping[str, Any], expected: set[str]) -> None:
    for name in sorted(expected - set(values)):
        raise UserError(f"{prefix}{name} is missing from the config; see configs/default.py")
    for name in sorted(set(values) - expected):
        known = ", ".join(sorted(expected))
        raise UserError(f"{prefix}{name} is not a setting; known here: {known}")


def _build(cls: type, group: str, values: Any) -> Any:
    require(isinstance(values, Mapping), f"{group}={values!r} must be a group of settings")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    _check_names(f"{group}.", values, set(names))
    return cls(**{name: _convert(f"{group}.{name}", values[name], hints[name]) for name in names})


def _convert(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind`: ints widen to float, lists to tuples; anything else must match."""
    if isinstance(kind, types.GenericAlias):
        require(isinstance(value, list | tuple), f"{name}={value!r} must be a tuple")
        return tuple(_convert(name, item, typing.get_args(kind)[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    matches = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(matches, f"{name}={value!r} has type {type(value).__name__}; use {kind.__name__}")
    require(kind is not float or math.isfinite(value), f"{name}={value} must be a finite number")
    return value


def _metadata(cls: type, name: str) -> Mapping[str, Any]:
    return next(f.metadata for f in dataclasses.fields(cls) if f.name == name)


def marked(config: Config, mark: str) -> dict[str, dataclasses.Field]:
    """'group.name' -> field of every setting whose metadata say `mark`: free, planned, shown."""
    return {
        f"{group.name}.{field.name}": field
        for group in dataclasses.fields(config)
        if dataclasses.is_dataclass(values := getattr(config, group.name))
        for field in dataclasses.fields(values)
        if field.metadata.get(mark)
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Collection[str] = (), prefix: str = ""
) -> list[str]:
    """`name: old -> new` for every value that differs, but those that are free to."""
    found = []
    for name in sorted(set(old) | set(new)):
        path = f"{prefix}{name}"
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, free, f"{path}.")
        elif before != after and path not in free:
            found.append(f"{path}: {_short(before)} -> {_short(after)}")
    return found
