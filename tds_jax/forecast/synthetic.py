"""Generated soil moisture in the files of ERA5-Land: hourly, a file a month, totals from 00 UTC.

Moist air drifts with a wind that turns, rain falls where it is moist enough, and one layer of soil
per cell keeps it: what is above its capacity for a day, the rest for weeks. What comes is mostly
upwind, so that a map which is the same in every wind cannot tell it (`forecast.weather`). It shows
that training works, and which model does; no number on it says anything of the real land surface.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tds_jax.data.crew import Crew
from tds_jax.data.generated import synthesize
from tds_jax.data.gridded_write import AXES, grid_file, time_axis
from tds_jax.errors import UserError
from tds_jax.fields import option, require, require_at_least
from tds_jax.forecast.days import DAY, year_fraction
from tds_jax.forecast.weather import Weather, smooth, weather
from tds_jax.progress import Progress

VARIABLES = {
    "swvl1": {"long_name": "Volumetric soil water layer 1", "units": "m**3 m**-3"},
    "ro": {"long_name": "Runoff", "units": "m"},
    "e": {"long_name": "Evaporation", "units": "m of water equivalent"},
    "tp": {"long_name": "Total precipitation", "units": "m"},
    "u10": {"long_name": "10 metre U wind component", "units": "m s**-1"},
    "v10": {"long_name": "10 metre V wind component", "units": "m s**-1"},
    "d2m": {"long_name": "2 metre dewpoint temperature", "units": "K"},
}
TITLE = {"title": "synthetic, in the layout of ERA5-Land"}
ACCUMULATED = ("ro", "e", "tp")
DEPTH = 0.07  # m of soil
SATURATION = 0.45  # m³ of water in a m³ of soil
SPIN_UP = 40  # days before the first file
_HOUR = np.timedelta64(1, "h")
RAIN = 1.0e-3  # m per hour for each standard deviation of moisture above the threshold
_CAPACITY = 0.30  # m³ per m³ that soil holds against its weight
_DRAINED = 1 / 30  # share of what is above that runs off in an hour
_EVAPORATION = 8e-4  # m per hour at noon in midsummer from wet soil
_WILTING, _WET = 0.08, 0.3  # m³ per m³ between which evaporation grows from none to full
_CELL = 111_000 / 3600  # m/s of a wind of one cell, a degree, per hour


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Everything the generated data depend on."""

    kind: ClassVar[str] = "synthetic_forecast"

    start: str = option("2019-01", "First month.")
    months: int = option(24, "Files, a month each.")
    missing_month: str = option("", "A month to leave out, such as 2019-09; '' = none.")
    height: int = option(16, "Rows, from north to south, 1 degree each.")
    width: int = option(24, "Columns.")
    land: float = option(0.6, "Share of cells that are land; the sea is NaN.")
    seed: int = option(0, "The same gives the same bytes.")

    def __post_init__(self) -> None:
        for name, least in (("months", 1), ("height", 2), ("width", 2), ("seed", 0)):
            require_at_least(f"synthetic {name}", getattr(self, name), least)
        require(0 < self.land <= 1, f"synthetic land={self.land} must be above 0, at most 1")
        require(self.height <= 140, f"synthetic height={self.height} reaches over the pole")
        months = self.calendar()
        require(
            not self.missing_month or _month(self.missing_month) in months,
            f"synthetic missing_month={self.missing_month} is not between {months[0]} and "
            f"{months[-1]}",
        )

    def calendar(self) -> np.ndarray:
        """(months,) datetime64[M], the missing one among them."""
        return _month(self.start) + np.arange(self.months)

    def run(self, target: Path, progress: Progress) -> Path:
        """`synthesize` from the command line."""
        return synthesize(target, self, progress)

    def build(self, folder: Path, progress: Progress, crew: Crew) -> None:
        """A file per month and land.nc (variable lsm).

        The soil remembers, so each of a crew steps through all days; three fifths of the time are
        those of writing.
        """
        if crew.first:
            self._write_land(folder)
        missing = _month(self.missing_month).tolist() if self.missing_month else None
        described = {
            name: {**said, "GRIB_stepType": "accum" if name in ACCUMULATED else "instant"}
            for name, said in VARIABLES.items()
        }
        own = set(crew.share([month for month in self.calendar().tolist() if month != missing]))
        days = simulate(self)
        for done, month in enumerate(self.calendar(), start=1):
            count = int(((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")) / DAY)
            times = month.astype("datetime64[h]") + np.arange(24 * count) * _HOUR
            fields = [next(days)[1] for _ in range(count)]
            if month.tolist() in own:
                sizes = (24, self.height, self.width)
                axes = {"valid_time": time_axis(times), **self._axes()}
                path = folder / f"{month}.nc"
                with grid_file(path, axes, described, sizes, TITLE, "gzip") as file:
                    for name in VARIABLES:
                        file[name][...] = np.concatenate([day[name] for day in fields])
            progress(done, self.months)

    def _axes(self) -> dict[str, tuple[np.ndarray, Any]]:
        lat, lon = grid(self)
        return {"latitude": (lat, AXES["latitude"]), "longitude": (lon, AXES["longitude"])}

    def _write_land(self, folder: Path) -> None:
        mask = {"lsm": {"long_name": "Land-sea mask", "units": "(0 - 1)"}}
        shape = (self.height, self.width)
        with grid_file(folder / "land.nc", self._axes(), mask, shape, TITLE) as file:
            file["lsm"][...] = land(self).astype(np.float32)


def _month(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "M")
    except ValueError as error:
        raise UserError(f"synthetic month {text!r} must look like 2019-09") from error


def grid(simulation: Simulation) -> tuple[np.ndarray, np.ndarray]:
    """(H,) latitudes from north to south and (W,) longitudes, degrees."""
    return 70.0 - np.arange(simulation.height), -10.0 + np.arange(simulation.width)


def land(simulation: Simulation) -> np.ndarray:
    """(H, W) bool of land with a smooth coast."""
    rng = np.random.default_rng((simulation.seed, 0))
    height = smooth(rng.standard_normal((simulation.height, simulation.width)), 2.0)
    return height >= np.quantile(height, 1 - simulation.land)


def _summer(day: np.datetime64) -> float:
    """1 in mid July, -1 in mid January."""
    return float(-np.cos(2 * np.pi * (year_fraction(np.array([day]))[0] - 0.04)))


def simulate(simulation: Simulation) -> Iterator[tuple[np.datetime64, dict[str, np.ndarray]]]:
    """Each day in turn: (24, H, W) f32 of every variable at 00, 01 … 23 UTC; NaN at sea.

    Totals run from 00 UTC: at hour h they hold the hours before it, at 00 the whole day before.
    """
    rng = np.random.default_rng((simulation.seed, 1))
    calendar = simulation.calendar()
    first, end = (m.astype("datetime64[D]") for m in (calendar[0], calendar[-1] + 1))
    sea = ~land(simulation)
    soil = np.full(sea.shape, 0.25)
    total = {name: np.zeros(sea.shape) for name in ACCUMULATED}
    air = weather(sea.shape, rng)
    for day in np.arange(first - SPIN_UP * DAY, end):
        fields = {name: np.empty((24, *sea.shape), np.float32) for name in VARIABLES}
        for hour in range(24):
            now = next(air)
            for name, value in {"swvl1": soil, **total, **_observed(now, day)}.items():
                fields[name][hour] = np.where(sea, np.nan, value)
            if hour == 0:
                total = {name: np.zeros(sea.shape) for name in ACCUMULATED}
            fluxes = fluxes_of(soil, rain(now.moisture, day), day, hour)
            soil = after(soil, fluxes)
            total = {name: total[name] + fluxes[name] for name in ACCUMULATED}
        if day >= first:
            yield day, fields


def _observed(air: Weather, day: np.datetime64) -> dict[str, np.ndarray]:
    """Wind to the east and to the north, and the dewpoint."""
    wind, ones = air.wind * _CELL, np.ones(air.shape)
    warm = 281 + 6 * _summer(day)
    return {"u10": wind.real * ones, "v10": -wind.imag * ones, "d2m": warm + 4 * air.moisture}


def rain(moisture: np.ndarray, day: np.datetime64) -> np.ndarray:
    """Metres in an hour: none up to a threshold, which is lower in winter."""
    return RAIN * np.maximum(moisture - threshold(day), 0)


def threshold(day: np.datetime64) -> float:
    """Moisture, in standard deviations, above which it rains."""
    return 1.0 + 0.3 * _summer(day)


def fluxes_of(
    soil: np.ndarray, rain: np.ndarray, day: np.datetime64, hour: int
) -> dict[str, np.ndarray]:
    """Metres of water in an hour; evaporation is negative."""
    sun = max(0.0, np.sin(np.pi * (hour - 6) / 12)) * (1 + 0.8 * _summer(day)) / 1.8
    drained = _DRAINED * np.maximum(soil - _CAPACITY, 0) * DEPTH
    spilt = np.maximum(soil + rain / DEPTH - SATURATION, 0) * DEPTH
    supply = np.clip((soil - _WILTING) / (_WET - _WILTING), 0, 1)
    return {"tp": rain, "ro": drained + spilt, "e": -_EVAPORATION * sun * supply}


def after(soil: np.ndarray, fluxes: dict[str, np.ndarray]) -> np.ndarray:
    """Soil an hour later."""
    return soil + (fluxes["tp"] + fluxes["e"] - fluxes["ro"]) / DEPTH
