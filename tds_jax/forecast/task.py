"""The forecast task: gridded days -> windows -> Forecaster -> coming days, and their worth."""

import copy
import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Self, cast

import jax
import numpy as np
import xarray as xr
from flax import nnx

from tds_jax.config import Config
from tds_jax.data.generated import cache_root, settings, stand_in
from tds_jax.data.identity import below
from tds_jax.engine import processes
from tds_jax.engine.step import Batch, Objective, batch_spec
from tds_jax.errors import NoSplitError
from tds_jax.forecast import statics, synthetic, torch_names
from tds_jax.forecast.asked import require_fit, require_grid
from tds_jax.forecast.cautions import cautions
from tds_jax.forecast.config import MAPS, ForecastEvalConfig, ForecastInputs, ForecastMemoryConfig
from tds_jax.forecast.gridded_days import Fields, lands
from tds_jax.forecast.hours import base_of
from tds_jax.forecast.measured import measured
from tds_jax.forecast.model import Forecaster, Surroundings
from tds_jax.forecast.networks import make_network
from tds_jax.forecast.objective import ALL_TARGETS, objective
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.own_fields import own_fields
from tds_jax.forecast.recorded import grid_words, packed_each, unpacked_each, west_of
from tds_jax.forecast.windows import (
    ForecastWindows,
    WindowSpec,
    require_windows,
    split_days,
    window_starts,
)
from tds_jax.own import is_own
from tds_jax.progress import progress_bar
from tds_jax.tasks import DataAbout

LATER = {"units", "seen"}  # inputs that older runs do not name
# Sequences of an LSTM redone together, most bytes first.
PIXEL_CHUNKS = (65_536, 16_384, 4_096)


class ForecastTask:
    """A `tasks.Task` for fields on a grid, daily or of finer steps.

    recorded: grid and variables; given, or else read from the files when first needed. What
    `inputs` of an imported checkpoint leave open is read from them too; units and the beginning of
    longitudes that they name are what the files are brought to.
    """

    def __init__(self, config: Config, inputs: dict[str, Any] | None = None) -> None:
        self.config = config
        data = config.data
        self.spec = WindowSpec(data.inputs, data.leads)
        names = {field.name for field in dataclasses.fields(ForecastInputs)}
        known = {name: value for name, value in (inputs or {}).items() if name in names}
        self._run = known
        if names - set(known) - LATER:
            of_data = self._inputs_of_data()
            known = of_data | {name: known[name] for name in set(known) - {"units", "grid"}}
        lists = {name: tuple(known.get(name, ())) for name in ("variables", "units")}
        self.recorded = ForecastInputs(**known | lists)
        require_fit(config, self.recorded)

    @functools.cached_property
    def _folder(self) -> str:
        data, made = self.config.data, _simulation(self.config)
        if path := data.source or data.path:
            return path
        return stand_in(cache_root(data.cache_dir), made, "fields", processes.crew())

    @functools.cached_property
    def fields(self) -> Fields:
        """The daily fields of data.path or data.source, or generated ones."""
        fields = self.open(own_fields(self.config) if self.config.data.source else self._folder)
        require_windows(fields.days, self.spec)
        return fields

    def open(self, path: str | xr.Dataset) -> Fields:
        """The daily fields of a path or dataset, as the config wants them, in the run's units."""
        data, run = self.config.data, self._run
        with progress_bar("reading the headers") as progress:
            return open_fields(
                path,
                data.variables,
                data.target,
                accumulated=data.accumulated,
                land_mask=data.land_mask,
                downsample=data.downsample,
                select=data.select,
                step_hours=data.step_hours,
                units=dict(zip(data.variables, run.get("units", ()), strict=False)),
                west=west_of(run["grid"]) if "grid" in run and data.downsample == 1 else None,
                progress=progress,
                more_targets=data.more_targets,
                keep_bytes=data.keep_bytes,
            )

    @functools.cached_property
    def split(self) -> dict[str, range]:
        """Indices of the days of train, val and test."""
        return split_days(len(self.fields.days), self.config.data.split_ratio)

    def _inputs_of_data(self) -> dict[str, Any]:
        data, land_only = self.config.data, self.config.model.land_only
        if not data.generated or data.downsample > 1:
            lat, lon = self.fields.lat, self.fields.lon
            land = lands(self.fields)
            days = self.split["train"]
            seen = np.stack([self.fields.aimed(name).seen(days) for name in data.targets])
            described = self.fields.attributes
        else:  # known before the fields are generated
            made = _simulation(self.config)
            (lat, lon), land = synthetic.grid(made), synthetic.land(made)
            seen = land = np.stack([land] * len(data.targets))
            described = synthetic.VARIABLES
        return {
            "height": len(lat),
            "width": len(lon),
            "variables": data.variables,
            "grid": grid_words(lat, lon),
            "land": int(land.any(axis=0).sum()) if land_only else 0,
            "units": [
                str(described.get(n, described.get(base_of(n), {})).get("units", ""))
                for n in data.variables
            ],
            "seen": packed_each(seen),
        }

    @property
    def seen(self) -> np.ndarray:
        """(K, H, W) bool: cells where training had each target; all, where a run does not say."""
        shape = len(self.targets), self.recorded.height, self.recorded.width
        return unpacked_each(self.recorded.seen, shape)

    @property
    def targets(self) -> tuple[int, ...]:
        """The channels that are forecast, the headline first."""
        data = self.config.data
        return tuple(data.variables.index(name) for name in data.targets)

    @property
    def daily(self) -> int:
        """Waves of the day in a climatology."""
        return self.config.data.step.waves(self.config.model.day_harmonics)

    def under(self, config: Config) -> Self:
        """See `tasks.Task.under`."""
        other = copy.copy(self)
        other.config = config
        return other

    def inputs(self) -> dict[str, Any]:
        """Grid and variables, for a run's folder."""
        lists = {name: list(getattr(self.recorded, name)) for name in ("variables", "units")}
        return dataclasses.asdict(self.recorded) | lists

    def digest(self) -> str:
        """Changes with variables, days and grid."""
        return self.fields.digest()

    def data_files(self) -> dict[str, str]:
        """The files of the fields, every chunk of a Zarr store, and static maps."""
        data = self.config.data
        if data.source:
            return {}
        maps = [name.rpartition(":")[0] for name in (data.land_mask, *data.static) if name]
        return {f"static/{os.path.basename(path)}": path for path in maps} | below(
            self.fields.paths
        )

    def data_about(self) -> DataAbout:
        """Grid, days and variables."""
        days, data = self.fields.days, self.config.data
        splits = (f"{name} {len(part)}" for name, part in self.split.items())
        words = (
            f"{data.step.words(len(days))} {days[0]} to {days[-1]} ({', '.join(splits)}), "
            f"{self.recorded.height} x {self.recorded.width} cells, {self.recorded.grid}; "
            f"{', '.join(data.variables)} -> {', '.join(data.targets)}"
        )
        return DataAbout(self._folder, words, data.generated)

    def around(self) -> Surroundings:
        """What stands around the network."""
        model, data = self.config.model, self.config.data
        extra, fitted, step = model.extra_inputs, model.prior == "linear", data.step
        daily = self.daily if model.normalize == "anomaly" else 0
        annual = 1 + 2 * model.harmonics * (model.normalize == "anomaly")
        return Surroundings(
            grid=(self.recorded.height, self.recorded.width),
            channels=len(self.recorded.variables),
            targets=self.targets,
            leads=data.leads,
            terms=annual * (1 + 2 * daily),
            daily=daily,
            centre_per_cell=model.normalize in ("cell", "anomaly"),
            scale_per_cell=model.normalize == "cell",
            prior=model.prior,
            local=(model.local_kernel, step.count("model.local_days", model.local_days)),
            means=tuple(step.per_day * n for n in model.local_means) if fitted else (),
            wide=model.local_wide if fitted else (),
            place=model.local_place and fitted,
            noise=model.noise,
            floor=model.floor,
            static=statics.count(extra, data.static),
            season="day_of_year" in extra,
            clock="time_of_day" in extra,
            periodic=model.periodic,
        )

    def init(self, rngs: nnx.Rngs) -> Forecaster:
        """A fresh model for the fields' grid and variables."""
        model, around = self.config.model, self.around()
        network = make_network(
            model,
            cast(ForecastMemoryConfig, self.config.memory),
            num_channels=around.inputs,
            leads=around.maps,
            days=self.spec.inputs,
            cells=self.recorded.land if model.land_only else 0,
            rngs=rngs,
        )
        return Forecaster(network, around)

    def loss(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """See `objective.objective`."""
        assert isinstance(model, Forecaster)
        return objective(self.config, model, batch, train)

    @property
    def ensemble(self) -> int:
        """How many forecasts evaluation and predict make: eval.members, where any are drawn."""
        drawn = self.config.model.noise or self.dropout
        return cast(ForecastEvalConfig, self.config.eval).members if drawn else 1

    @property
    def dropout(self) -> bool:
        """Whether forecasts of an ensemble leave out channels."""
        return cast(ForecastEvalConfig, self.config.eval).dropout

    @functools.cache  # noqa: B019 - one task per run, three splits
    def source(self, split: str) -> ForecastWindows:
        """Windows of a split, one for every day that can begin it."""
        data, fields = self.config.data, self.fields
        starts = window_starts(fields.days, self.spec, self.split[split], data.gap)
        if not len(starts):
            raise NoSplitError(
                f"the {split} split has no window of {data.step.words(self.spec.length)} in a row; "
                f"give more days, or change data.split_ratio={data.split_ratio} or data.split_gap"
            )
        crop = data.crop if split == "train" else (0, 0)
        return self.windows(starts, crop)

    def windows(self, starts: np.ndarray, crop: tuple[int, ...] = (0, 0)) -> ForecastWindows:
        """Windows that begin on the days with these indices; UserError for another grid's."""
        data = self.config.data
        require_grid(self.recorded, self.fields, f"data.path={data.path or data.source}")
        return ForecastWindows(self.fields, self.spec, starts, crop, self.seen)

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch: crops in training, if there are any, else whole grids."""
        crop = self.config.data.crop
        cells = crop if train and any(crop) else (self.recorded.height, self.recorded.width)
        days, leads = self.spec.inputs, self.spec.leads
        maps = len(self.targets) * leads
        channels = len(self.recorded.variables)
        leaves: dict[str, tuple[tuple[int, ...], Any]] = {
            "fields": ((days, *cells, channels), np.float32),
            "present": ((days, *cells, channels), np.uint8),
            "target": ((maps, *cells), np.float32),
            "weight": ((maps, *cells), np.float32),
            "phase": ((days + leads, *(() if self.config.data.step.is_day else (2,))), np.float32),
            "start": ((), np.int32),
            "origin": ((2,), np.int32),
        }
        return batch_spec(examples, leaves)

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """Recomputation that pays: of days (convlstm) or pixels in chunks, and of blocks."""
        remat = {"remat": ("none", "names", "full")}
        name = self.config.model.name
        if is_own(name) or name in MAPS:  # nothing is known of the former
            return {} if is_own(name) else remat
        if name == "convlstm":
            return {"day_chunk": (0, max(1, round(self.spec.inputs**0.5)))} | remat
        return {"pixel_chunk": (0, *PIXEL_CHUNKS)} | remat

    def import_params(
        self, params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, rest) with the network of a PyTorch checkpoint; see `forecast.torch_names`."""
        network, state = params["network"], rest.get("network", {})
        network, state = torch_names.import_params(network, state, tensors)
        filled = {"network": state} if "network" in rest else {}
        return params | {"network": network}, rest | filled

    def fit_statistics(self) -> dict[str, Any]:
        """Leaves of `Forecaster` measured on the train days, and what is known of the grid."""
        days, crew = self.split["train"], processes.crew()
        return measured(self.fields, days, self.config, self.around(), crew)

    def first_params(self) -> dict[str, Any]:
        """None."""
        return {}

    def warnings(self) -> list[str]:
        """See `cautions.cautions`."""
        return cautions(self.config, self.fields, self.recorded, self.split["train"], self.seen)

    def describe(self, values: dict[str, Any]) -> str:
        """loss, rmse and mae in the data's unit, skill against persistence, of the headline; of
        several targets also their root mean square error in units of each's spread."""
        every = f"  {ALL_TARGETS} {values[ALL_TARGETS]:.4g}" if ALL_TARGETS in values else ""
        return (
            f"loss {values['loss']:.4f}  rmse {values['rmse']:.4g}  mae {values['mae']:.4g}"
            f"  skill {values['skill']:.3f}{every}"
        )


def _simulation(config: Config) -> synthetic.Simulation:
    height, width = config.data.synthetic_grid
    known = settings(synthetic.Simulation, config.data)
    return synthetic.Simulation(**known, height=height, width=width)
