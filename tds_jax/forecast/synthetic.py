"""Generated soil moisture in the files of ERA5-Land: hourly, a file a month, totals from 00 UTC.

One layer of soil per cell, filled by drifting rain, emptied by evaporation and runoff. It shows
that training works; no number on it says anything of the real land surface.
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
from tds_jax.progress import Progress

VARIABLES = {
    "swvl1": {"long_name": "Volumetric soil water layer 1", "units": "m**3 m**-3"},
    "ro": {"long_name": "Runoff", "units": "m"},
    "e": {"long_name": "Evaporation", "units": "m of water equivalent"},
    "tp": {"long_name": "Total precipitation", "units": "m"},
}
TITLE = {"title": "synthetic, in the layout of ERA5-Land"}
ACCUMULATED = ("ro", "e", "tp")
DEPTH = 0.07  # m of soil
SATURATION = 0.45  # m³ of water in a m³ of soil
SPIN_UP = 40  # days before the first file
_HOUR = np.timedelta64(1, "h")
_STORM_CELLS = 2.5  # correlation length of rain, in cells
_STORM_HOURS = 18.0  # correlation time of rain where it drifts
_DRIFT = (-0.04, 0.15)  # rows, columns per hour
_RAIN = 1.4e-3  # m per hour for each standard deviation above the threshold
_DRAINAGE = 1.5e-3  # m per hour at saturation
_EVAPORATION = 7e-4  # m per hour at noon in midsummer from wet soil
_WILTING, _WET = 0.08, 0.3  # m³ per m³ between which evaporation grows from none to full


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
    height = _smooth(rng.standard_normal((simulation.height, simulation.width)), 2.0)
    return height >= np.quantile(height, 1 - simulation.land)


def _spectrum(shape: tuple[int, ...], cells: float) -> np.ndarray:
    """Filter in the half plane of rfft2 that leaves white noise smooth, with variance 1."""
    rows, columns = np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])
    gain = np.exp(-((np.pi * cells) ** 2) * (rows**2 + columns**2))
    one = np.fft.irfft2(gain, shape[-2:])
    return gain / np.sqrt(np.square(one).sum())


def _smooth(noise: np.ndarray, cells: float) -> np.ndarray:
    return np.fft.irfft2(np.fft.rfft2(noise) * _spectrum(noise.shape, cells), noise.shape[-2:])


def _rain(
    simulation: Simulation, rng: np.random.Generator, day: np.datetime64
) -> Iterator[np.ndarray]:
    """(24, H, W) metres of rain in each hour of a day and of all days after it, in turn."""
    shape = simulation.height, simulation.width
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    turn = np.exp(-2j * np.pi * (rows * _DRIFT[0] + columns * _DRIFT[1]))
    keep = np.exp(-1 / _STORM_HOURS)
    gain = _spectrum(shape, _STORM_CELLS) * np.sqrt(1 - keep**2)
    state = np.fft.rfft2(rng.standard_normal(shape)) * gain / np.sqrt(1 - keep**2)
    while True:
        fresh = np.fft.rfft2(rng.standard_normal((24, *shape))) * gain
        weather = np.empty((24, *shape))
        for hour in range(24):
            state = keep * turn * state + fresh[hour]
            weather[hour] = np.fft.irfft2(state, shape)
        threshold = 1.1 + 0.5 * _summer(day)  # wet winters
        yield _RAIN * np.maximum(weather - threshold, 0)
        day += DAY


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
    day = first - SPIN_UP * DAY
    for rain in _rain(simulation, rng, day):
        if day == end:
            return
        fields = {name: np.empty((24, *sea.shape), np.float32) for name in VARIABLES}
        for hour in range(24):
            for name, value in {"swvl1": soil, **total}.items():
                fields[name][hour] = np.where(sea, np.nan, value)
            if hour == 0:
                total = {name: np.zeros(sea.shape) for name in ACCUMULATED}
            fluxes = _fluxes(soil, rain[hour], day, hour)
            soil = soil + (fluxes["tp"] + fluxes["e"] - fluxes["ro"]) / DEPTH
            total = {name: total[name] + fluxes[name] for name in ACCUMULATED}
        if day >= first:
            yield day, fields
        day += DAY


def _fluxes(
    soil: np.ndarray, rain: np.ndarray, day: np.datetime64, hour: int
) -> dict[str, np.ndarray]:
    """Metres of water in an hour; evaporation is negative."""
    wet = soil / SATURATION
    sun = max(0.0, np.sin(np.pi * (hour - 6) / 12)) * (1 + 0.8 * _summer(day)) / 1.8
    runoff = rain * wet**3 + _DRAINAGE * wet**6
    supply = np.clip((soil - _WILTING) / (_WET - _WILTING), 0, 1)
    return {"tp": rain, "ro": runoff, "e": -_EVAPORATION * sun * supply}
