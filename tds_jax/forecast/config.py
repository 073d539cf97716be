"""What a forecast run can be told about its model, data and loss; see forecast_soil_moisture.py."""

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
    require_choice,
    require_shares,
)
from tds_jax.forecast.hours import require_no_hours
from tds_jax.forecast.steps import Step, require_step
from tds_jax.sizes import MIB

PUBLISHED = ("convlstm", "cnn3d_lstm", "cnn3d_lstm_lite", "cnn3d_lstm_micro")
MAPS = ("unet", "simvp")  # of maps alone: no LSTM, nothing published
NETWORKS = (*PUBLISHED, *MAPS)
WHOLE_WINDOW = -1


@dataclasses.dataclass(frozen=True)
class ForecastModelConfig(Settings, group="model"):
    """The network, and what `forecast.model.Forecaster` puts around it.

    name: of a network here, or 'package.module:Name' of one's own, see `forecast.model.Network`; it
    gets those of these settings that it asks for.
    normalize: what the network sees is (field - centre) / scale, centre being one mean per
    variable ('scalar'), one per cell ('cell') or the harmonic climatology of each cell ('anomaly').
    prior: what its answer is added to: nothing, the last day, the last day's anomaly damped as
    train days damp it at each lead and cell, or that and a linear map fitted on train days, see
    `forecast.prior`. periodic: columns go around the globe. local_kernel, local_days: a linear map
    from the last days around a cell to each lead, added too; with prior 'linear' the fitted one.
    local_means, _wide, _place, _ridge, _folds: of the latter. noise: fields of noise that make an
    ensemble of the network's answer; 0 for one forecast. floor: what no forecast is below, a number
    for each target or for the first ones.
    """

    name: str = field(metadata=one_of_or_own(*NETWORKS))
    layout: str = field(metadata=one_of("pixels", "reference"))
    head: str = field(metadata=one_of("leads", "repeat"))
    hidden: int = field(metadata=at_least(0))
    lstm_hidden: int = field(metadata=at_least(0))
    norm: str = field(metadata=one_of("batch", "group", "none"))
    groups: int = field(metadata=at_least(1))
    dropout: float = field(metadata=between(0, 0.95))
    land_only: bool
    periodic: bool
    normalize: str = field(metadata=one_of("none", "scalar", "cell", "anomaly"))
    harmonics: int = field(metadata=at_least(1))
    day_harmonics: int = field(metadata=at_least(0))
    prior: str = field(metadata=one_of("none", "last", "damped", "linear"))
    local_kernel: int = field(metadata=at_least(0))
    local_days: float = field(metadata=at_least(0))
    local_means: tuple[int, ...]
    local_ridge: float = field(metadata=at_least(0))
    local_folds: int = field(metadata=at_least(0))
    local_wide: tuple[int, ...]
    local_place: bool
    noise: int = field(metadata=at_least(0))
    floor: tuple[float, ...]
    extra_inputs: tuple[str, ...] = field(
        metadata=one_of("land_mask", "day_of_year", "time_of_day", "coordinates")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.local_kernel % 2 == 1 or self.local_days == 0,
            f"model.local_kernel={self.local_kernel} has no middle cell; use an odd number",
        )
        odd = all(size > 0 and size % 2 for size in self.local_wide)
        require(
            len(self.local_wide) in (0, 2) and odd,
            f"model.local_wide={self.local_wide} must be rows and columns of blocks with one in "
            "the middle, such as (5, 9), or () for none",
        )
        require(
            self.local_folds != 1,
            "model.local_folds=1 leaves out all days there are; use 2 or more, or 0",
        )
        require(
            self.name not in MAPS or self.layout == "pixels",
            f"model.layout='reference' is of published networks; {self.name} has layout='pixels'",
        )
        require(
            not self.land_only or (self.name in PUBLISHED[1:] and self.layout == "pixels"),
            "model.land_only=True needs an LSTM per pixel; use a cnn3d_lstm and layout='pixels'",
        )
        require(
            self.prior not in ("damped", "linear") or self.normalize != "none",
            f"model.prior={self.prior!r} damps what differs from the usual, but model.normalize="
            "'none' knows nothing usual; use 'anomaly'",
        )
        require(
            self.noise == 0 or self.prior in ("damped", "linear"),
            f"model.noise={self.noise} spreads as the prior errs, but model.prior={self.prior!r} "
            "is none that is fitted; use 'damped' or 'linear'",
        )
        require(
            self.prior != "linear" or self.local_days > 0,
            "model.prior='linear' reads model.local_days=0 days; use 1 or more",
        )


@dataclasses.dataclass(frozen=True)
class ForecastInputs:
    """What a model must know of its fields. grid: its axes in words. land: cells, or 0.

    units: of the variables, '' where the files name none; () where a run does not know them. seen:
    cells with the target on train days, see `recorded.packed`, a text for each, or ''. land: cells
    with any.
    """

    height: int
    width: int
    variables: tuple[str, ...]
    grid: str
    land: int
    units: tuple[str, ...] = ()
    seen: str = ""


@dataclasses.dataclass(frozen=True)
class ForecastDataConfig(SourceConfig):
    """Where the fields are and how windows are cut from them; see `forecast.fields`, `.windows`."""

    variables: tuple[str, ...]
    target: str
    more_targets: tuple[str, ...]
    accumulated: tuple[str, ...]
    land_mask: str
    select: tuple[str, ...]
    static: tuple[str, ...]
    downsample: int = field(metadata=at_least(1))
    step_hours: int
    input_days: float = field(metadata=at_least(0))
    lead_days: float = field(metadata=at_least(0))
    crop: tuple[int, ...]
    split_ratio: tuple[float, ...]
    split_gap: int = field(metadata=at_least(WHOLE_WINDOW))
    cache_dir: str = field(metadata=FREE)
    keep_bytes: int = field(metadata=FREE | at_least(0))
    synthetic_months: int
    synthetic_missing_month: str
    synthetic_grid: tuple[int, ...]
    synthetic_land: float
    synthetic_seed: int

    @property
    def step(self) -> Step:
        """What is forecast one after the other: days, or finer."""
        return Step(self.step_hours)

    @property
    def cache_bytes(self) -> int:
        """The most that days kept in memory take in one reading process."""
        return self.keep_bytes

    @property
    def inputs(self) -> int:
        """Steps of input_days."""
        return self.step.count("data.input_days", self.input_days)

    @property
    def leads(self) -> int:
        """Steps of lead_days."""
        return self.step.count("data.lead_days", self.lead_days)

    @property
    def gap(self) -> int:
        """Steps between the last of a split and the first target of the next, less one."""
        window = self.inputs + self.leads
        return window if self.split_gap == WHOLE_WINDOW else self.split_gap * self.step.per_day

    @property
    def targets(self) -> tuple[str, ...]:
        """All that is forecast, the headline first."""
        return (self.target, *self.more_targets)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares("data.split_ratio", self.split_ratio)
        for name in ("crop", "synthetic_grid"):
            value = getattr(self, name)
            require(len(value) == 2, f"data.{name}={value} must be rows and columns of cells")
        require(
            len(set(self.variables)) == len(self.variables) > 0,
            f"data.variables={self.variables} must name each variable once",
        )
        require_choice("data.target", self.target, self.variables)
        for name in self.more_targets:
            require_choice("data.more_targets", name, self.variables)
            require(
                self.targets.count(name) == 1,
                f"data.more_targets={self.more_targets} name {name!r} again beside "
                f"data.target={self.target!r}; name each target once",
            )
        require_step(self.step_hours)
        require_no_hours(self.variables, self.step)
        for name in ("input_days", "lead_days"):
            days = getattr(self, name)
            require(days > 0, f"data.{name}={days:g} is too small; use a step or more, as 1 day")
        _ = self.inputs, self.leads  # whole numbers


@dataclasses.dataclass(frozen=True)
class ForecastLossConfig(Settings, group="loss"):
    """loss = mse_weight * error² + mae_weight * |error| + crps_weight * CRPS, in normalised units.

    Errors are of the mean of `members` forecasts where model.noise makes several; CRPS is the fair
    one of these, see `forecast.ensemble`. area: cells count by their area instead of alike. own:
    'package.module:function' of (prediction, target), both (B, L, H, W) in those units, that gives
    as many: what each costs besides; of K targets (B, K L, H, W), target after target.
    target_weights: what a cell of each target counts, () for alike.
    """

    mse_weight: float = field(metadata=at_least(0))
    mae_weight: float = field(metadata=at_least(0))
    crps_weight: float = field(metadata=at_least(0))
    members: int = field(metadata=at_least(2))
    area: bool
    target_weights: tuple[float, ...]
    own: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mse_weight + self.mae_weight + self.crps_weight > 0 or bool(self.own),
            "loss.mse_weight=0, loss.mae_weight=0 and loss.crps_weight=0 leave nothing to learn; "
            "raise one",
        )
        require(
            all(weight > 0 for weight in self.target_weights),
            f"loss.target_weights={self.target_weights} must be above 0; leave a target that shall "
            "not be learnt out of data.more_targets",
        )


@dataclasses.dataclass(frozen=True)
class ForecastMemoryConfig(MemoryConfig):
    """The engine's settings, and what is redone together going backward instead of kept.

    day_chunk: days of 'convlstm'. pixel_chunk: sequences, pixels of all examples, of the others'
    LSTM.
    """

    day_chunk: int = field(metadata=FREE | PLANNED | {"shown": "days"} | at_least(0))
    pixel_chunk: int = field(metadata=FREE | PLANNED | {"shown": "pixels"} | at_least(0))


@dataclasses.dataclass(frozen=True)
class ForecastEvalConfig(EvalConfig):
    """The engine's settings, how many forecasts an ensemble has, and whether dropout makes one."""

    metric: str = field(metadata={"rises": ("r2", "skill")})
    members: int = field(metadata=at_least(2))
    dropout: bool


def today(values: dict[str, Any]) -> dict[str, Any]:
    """An older run's settings under the names of now: decoder_chunk was of days or of pixels.

    What had no setting then is as it was.
    """
    memory = dict(values["memory"])
    if "decoder_chunk" in memory:
        chunk, days = memory.pop("decoder_chunk"), values["model"]["name"] == "convlstm"
        memory |= {"day_chunk": chunk * days, "pixel_chunk": chunk * (not days)}
    later: dict[str, dict[str, Any]] = {
        "model": {
            "periodic": False,
            "local_means": (),
            "local_ridge": 0.0,
            "local_folds": 0,
            "local_wide": (),
            "local_place": False,
            "day_harmonics": 2,
            "noise": 0,
            "floor": (),
        },
        "data": {
            "select": (),
            "source": "",
            "step_hours": 24,
            "more_targets": (),
            "keep_bytes": 64 * MIB,
        },
        "loss": {"own": "", "crps_weight": 0.0, "members": 2, "target_weights": ()},
        "eval": {"members": 2, "dropout": False},
    }
    return values | {"memory": memory} | {name: later[name] | values[name] for name in later}
