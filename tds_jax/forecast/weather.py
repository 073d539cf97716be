"""Generated weather: moist air that a turning wind carries over a region and beyond its edges."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

CELLS = 2.5  # correlation length of moisture
HOURS = 240.0  # correlation time of moisture where it goes
WIND = complex(0.04, -0.01)  # mean, cells per hour: east + i south
GUSTS = 0.08  # cells per hour, standard deviation of either component about it
WIND_HOURS = 480.0  # correlation time of the wind
BEYOND = 2  # times the region's size, after which the air is the same again


@dataclasses.dataclass(frozen=True)
class Weather:
    """The air of an hour over a region of `shape` rows and columns.

    spectrum: of moisture, by rfft2, of a torus that is BEYOND times as high and wide. wind: cells
    per hour, east + i south, the same everywhere.
    """

    shape: tuple[int, int]
    spectrum: np.ndarray
    wind: complex

    @functools.cached_property
    def moisture(self) -> np.ndarray:
        """(H, W) with mean 0 and variance 1."""
        torus = _torus(self.shape)
        return np.fft.irfft2(self.spectrum, torus)[: self.shape[0], : self.shape[1]]

    def expected(self) -> "Weather":
        """What follows in an hour, on average: carried on, and nearer to the usual."""
        rows, columns = _waves(_torus(self.shape))
        turn = np.exp(-2j * np.pi * (rows * self.wind.imag + columns * self.wind.real))
        wind = WIND + _kept(WIND_HOURS) * (self.wind - WIND)
        return Weather(self.shape, _kept(HOURS) * turn * self.spectrum, wind)


def weather(shape: tuple[int, int], rng: np.random.Generator) -> Iterator[Weather]:
    """Hour after hour, without end."""
    torus = _torus(shape)
    gain = spectrum(torus, CELLS)
    fresh, gust = (np.sqrt(1 - _kept(hours) ** 2) for hours in (HOURS, WIND_HOURS))
    start = WIND + GUSTS * complex(*rng.standard_normal(2))
    now = Weather(shape, np.fft.rfft2(rng.standard_normal(torus)) * gain, start)
    while True:
        yield now
        after = now.expected()
        noise = np.fft.rfft2(rng.standard_normal(torus)) * gain * fresh
        wind = after.wind + GUSTS * gust * complex(*rng.standard_normal(2))
        now = Weather(shape, after.spectrum + noise, wind)


def spectrum(shape: tuple[int, ...], cells: float) -> np.ndarray:
    """Filter in the half plane of rfft2 that leaves white noise smooth, with variance 1."""
    rows, columns = _waves(shape)
    gain = np.exp(-((np.pi * cells) ** 2) * (rows**2 + columns**2))
    one = np.fft.irfft2(gain, shape[-2:])
    return gain / np.sqrt(np.square(one).sum())


def smooth(noise: np.ndarray, cells: float) -> np.ndarray:
    """White noise (..., H, W) with a correlation length, variance 1."""
    return np.fft.irfft2(np.fft.rfft2(noise) * spectrum(noise.shape, cells), noise.shape[-2:])


def _torus(shape: tuple[int, int]) -> tuple[int, int]:
    return BEYOND * shape[0], BEYOND * shape[1]


def _waves(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])


def _kept(hours: float) -> float:
    return float(np.exp(-1 / hours))
