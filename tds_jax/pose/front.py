"""What happens to normalised EMG before the encoder: filters, and powers instead of the waveform.

Both are valid layers like the encoder's own (no padding, no state), so whole files, windows and
streams give the same numbers, and a run's predictions use what it was trained with.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from tds_jax.fields import require
from tds_jax.nn.conv import width_conv1d

ORDER = 2  # of the Butterworth band
# A notch's ring decays by exp(-RING) over the filter's length.
RING = 4.0
FLOOR = 1e-6  # of a power, in units of the train split's: a dead electrode gives -6.9, not -inf


def causal_filter(
    rate_hz: float, highpass_hz: float, lowpass_hz: float, notch_hz: tuple[float, ...], taps: int
) -> np.ndarray:
    """(taps,) f64 weights of the newest `taps` samples, oldest first; 0 Hz = no such edge.

    The impulse response of a Butterworth band and notches, cut at `taps`, then moved by the least
    squares that make it exactly 0 at each notch, and at 0 Hz with a high-pass: cutting alone would
    let an offset through. Minimum phase: what it passes comes a few samples late, not taps / 2.
    """
    impulse = np.zeros(taps)
    impulse[0] = 1
    edges = [f for f in (highpass_hz, lowpass_hz) if f]
    if edges:
        kind = "band" if len(edges) == 2 else "high" if highpass_hz else "low"
        sections = signal.butter(ORDER, edges if len(edges) == 2 else edges[0], kind,
                                 fs=rate_hz, output="sos")  # fmt: skip
        impulse = signal.sosfilt(sections, impulse)
    for hum in notch_hz:
        impulse = signal.lfilter(*signal.iirnotch(hum, np.pi * hum * taps / rate_hz / RING,
                                                  fs=rate_hz), impulse)  # fmt: skip
    nulls = ([0.0] if highpass_hz else []) + list(notch_hz)
    time = np.arange(taps) / rate_hz
    waves = [w(2 * np.pi * f * time) for f in nulls for w in (np.cos, np.sin) if f or w is np.cos]
    if waves:
        basis = np.stack(waves, axis=1)
        impulse -= basis @ np.linalg.lstsq(basis, impulse, rcond=None)[0]
    return impulse[::-1].copy()


def make_front(
    rate_hz: float,
    band: tuple[float, float],
    notch: tuple[float, ...],
    seconds: float,
    rms: tuple[int, int],
) -> "Front":
    """The layers that the settings ask for.

    band: (high-pass, low-pass) in Hz, notch: Hz, both seeing `seconds` of EMG; see `causal_filter`.
    rms: (samples, stride) of `LogRms`, samples 0 = the waveform.
    """
    layers: tuple[SignalFilter | LogRms, ...] = ()
    if any(band) or notch:
        weights = _weights(rate_hz, band, notch, seconds)
        layers += (SignalFilter(tuple(weights.tolist())),)
    if rms[0]:
        layers += (LogRms(*rms),)
    return Front(layers)


def _weights(
    rate_hz: float, band: tuple[float, float], notch: tuple[float, ...], seconds: float
) -> np.ndarray:
    named = {"model.highpass_hz": band[0], "model.lowpass_hz": band[1]}
    for name, hz in [*named.items(), *(("model.notch_hz", hz) for hz in notch)]:
        require(
            hz < rate_hz / 2,
            f"{name} has {hz:g} Hz, which recordings of {rate_hz:g} Hz do not hold; use less than "
            f"{rate_hz / 2:g}",
        )
    taps = round(seconds * rate_hz)
    lowest = min(hz for hz in (band[0], *notch, rate_hz / 2) if hz)
    require(
        seconds * lowest >= 1,
        f"model.filter_seconds={seconds:g} is less than a period of {lowest:g} Hz; use "
        f"{1 / lowest:.2g} or more",
    )
    return causal_filter(rate_hz, *band, notch, taps)


@dataclasses.dataclass(frozen=True)
class SignalFilter:
    """(B, T, C) -> (B, T - taps + 1, C): every channel through `causal_filter`."""

    weights: tuple[float, ...]
    stride = 1

    @property
    def overlap(self) -> int:
        """Inputs that the next output reads again."""
        return len(self.weights) - 1

    def __call__(self, x: jax.Array) -> jax.Array:
        return width_conv1d(x, jnp.asarray(self.weights, x.dtype)[:, None, None])


@dataclasses.dataclass(frozen=True)
class LogRms:
    """(B, T, C) -> (B, N, C): log of each channel's RMS over `samples`, every `stride`."""

    samples: int
    stride: int

    @property
    def overlap(self) -> int:
        """Inputs that the next output reads again."""
        return self.samples - self.stride

    def __call__(self, x: jax.Array) -> jax.Array:
        window, strides = (1, self.samples, 1), (1, self.stride, 1)
        total = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, window, strides, "VALID")
        return 0.5 * jnp.log(total / self.samples + FLOOR)


@dataclasses.dataclass(frozen=True)
class Front:
    """Valid layers one after the other, none by default; without parameters.

    A result depends on `left_context` + 1 samples; `stride` samples are between two.
    """

    layers: tuple[SignalFilter | LogRms, ...] = ()

    @property
    def stride(self) -> int:
        """Samples from one result to the next; only the last layer's is not 1."""
        return math.prod(layer.stride for layer in self.layers)

    @property
    def left_context(self) -> int:
        """Samples before its newest that a result depends on."""
        return sum(layer.overlap + layer.stride - 1 for layer in self.layers)


WAVEFORM = Front()
