"""What happens to normalised EMG before the encoder: filters, and powers instead of the waveform.

Both are valid layers like the encoder's own (no padding, no state), so whole files, windows and
streams give the same numbers, and a run's predictions use what it was trained with.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

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
    from scipy import signal  # slow to import

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
    powers: tuple[str, tuple[int, ...], int, tuple[int, ...]],
    normalize: bool,
) -> "Front":
    """The layers that the settings ask for.

    band: (high-pass, low-pass) in Hz, notch: Hz, both seeing `seconds` of EMG; see `causal_filter`.
    powers: kind, samples and stride of `Powers`; kind 'none' = the waveform. normalize: powers.
    """
    layers: tuple[SignalFilter | Powers, ...] = ()
    if any(band) or notch:
        weights = _weights(rate_hz, band, notch, seconds)
        layers += (SignalFilter(tuple(weights.tolist())),)
    if powers[0] == "none":
        return Front(layers)
    return Front((*layers, Powers(*powers)), normalize)


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
class Powers:
    """(B, T, C) -> (B, N, F): how strong the electrodes are, and how alike, every `stride` samples.

    samples: lengths of the stretches looked at, all with the same end, multiples of stride; one
    after the other in F. kind 'rms': the log of each channel's RMS. 'covariance': the correlation
    of every pair besides, C (C - 1) / 2: of the same muscle's units two electrodes hear the same
    spikes. T / stride · C² numbers are held for it. correlated: the lengths of these stretches, the
    same as of the others where there are none; a correlation needs more samples than a strength.
    """

    kind: str
    samples: tuple[int, ...]
    stride: int
    correlated: tuple[int, ...] = ()

    @property
    def parts(self) -> list[tuple[bool, int]]:
        """(whether of correlations, else of strengths; length), one after the other in F."""
        if self.kind == "rms":
            return [(False, n) for n in self.samples]
        if self.correlated:
            return [(False, n) for n in self.samples] + [(True, n) for n in self.correlated]
        return [(pairs, n) for n in self.samples for pairs in (False, True)]

    @property
    def longest(self) -> int:
        """Of the stretches."""
        return max(n for _, n in self.parts)

    @property
    def overlap(self) -> int:
        """Inputs that the next output reads again."""
        return self.longest - self.stride

    def __call__(self, x: jax.Array) -> jax.Array:
        whole = x[:, : x.shape[1] // self.stride * self.stride]
        blocks = whole.reshape(x.shape[0], -1, self.stride, x.shape[2])
        if self.kind == "rms":
            moments = jnp.sum(blocks * blocks, axis=2)
        else:
            moments = jnp.einsum("bnsc,bnsd->bncd", blocks, blocks)
        found = [self._features(moments, *part) for part in self.parts]
        return jnp.concatenate(found, axis=2)

    def _features(self, moments: jax.Array, pairs: bool, length: int) -> jax.Array:
        later = (self.longest - length) // self.stride
        window = (1, length // self.stride, *[1] * (moments.ndim - 2))
        ones = (1,) * moments.ndim
        total = jax.lax.reduce_window(moments[:, later:], 0.0, jax.lax.add, window, ones, "VALID")
        mean = total / length
        power = (mean if self.kind == "rms" else jnp.diagonal(mean, axis1=2, axis2=3)) + FLOOR
        if not pairs:
            return 0.5 * jnp.log(power)
        first, second = np.triu_indices(mean.shape[2], 1)
        alike: jax.Array = mean[:, :, first, second]
        return alike / jnp.sqrt(power[:, :, first] * power[:, :, second])

    def features(self, channels: int) -> int:
        """F for C channels."""
        sizes = channels, channels * (channels - 1) // 2
        return sum(sizes[pairs] for pairs, _ in self.parts)

    def newest(self, channels: int) -> int:
        """How many of F, the last ones, are for the newest frame of what comes next: a correlation
        of half a second, read again at each frame, tells of little but its noise."""
        return len(self.correlated) * (channels * (channels - 1) // 2)


@dataclasses.dataclass(frozen=True)
class Front:
    """Valid layers one after the other, none by default; without parameters.

    A result depends on `left_context` + 1 samples; `stride` samples are between two. normalize: the
    encoder takes each of its numbers about the train split's mean, in units of its spread there.
    """

    layers: tuple[SignalFilter | Powers, ...] = ()
    normalize: bool = False

    @property
    def stride(self) -> int:
        """Samples from one result to the next; only the last layer's is not 1."""
        return math.prod(layer.stride for layer in self.layers)

    @property
    def left_context(self) -> int:
        """Samples before its newest that a result depends on."""
        return sum(layer.overlap + layer.stride - 1 for layer in self.layers)

    def features(self, channels: int) -> int:
        """What comes out for C channels."""
        last = self.layers[-1] if self.layers else None
        return last.features(channels) if isinstance(last, Powers) else channels

    def newest(self, channels: int) -> int:
        """See `Powers.newest`; 0 without."""
        last = self.layers[-1] if self.layers else None
        return last.newest(channels) if isinstance(last, Powers) else 0


WAVEFORM = Front()
