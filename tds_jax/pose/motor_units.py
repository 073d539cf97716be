"""Surface EMG of a wrist from muscle drive: motor-unit pools, action potentials, geometry.

The pool (thresholds, rates, interspike intervals) follows Fuglevand, Winter & Patla 1993.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tds_jax.pose.muscles import Compartment

_RECRUITMENT_RANGE = 30.0
_MIN_RATE, _PEAK_RATE, _PEAK_RATE_DROP = 8.0, 35.0, 10.0  # firings per second
_INTERVAL_CV, _INTERVAL_CLIP = 0.2, 3.9  # of the interspike interval; clip in SDs
_FORCE_RANGE = 100.0  # largest over smallest twitch force; amplitude goes with its root
_POLES = np.array([24.6, -35.4, 10.8])  # sum 0; with the positions below, zero dipole moment
_POLE_POSITIONS = np.array([0.0, 2.1, 6.9])  # mm
_ANISOTROPY = 4.4  # conductivity along over across the fibres
_ELECTRODE_DISTANCE = 10.0  # mm between the two poles of a bipolar channel
_SNIPPET_SECONDS = 0.03
_MICROVOLTS = 45.0  # per unit of the formula: ~15 µV RMS on a channel over a strong muscle


@dataclasses.dataclass(frozen=True)
class Wrist:
    """One person's motor units, the unit axis M in compartment-major order.

    radius_mm, and per unit: angle (rad), radial position (mm from the axis), conduction velocity
    (mm/s), offset of the innervation zone from the electrodes (mm).
    """

    units: int
    radius_mm: float
    angles: np.ndarray
    radii_mm: np.ndarray
    velocities: np.ndarray
    offsets_mm: np.ndarray


def random_wrist(
    compartments: Sequence[Compartment], units: int, rng: np.random.Generator
) -> Wrist:
    """Draws a wrist with `units` motor units in each compartment."""
    count = len(compartments) * units
    radius = 27.0 + 2.0 * rng.uniform(-1, 1)
    fat = rng.uniform(0.5, 2.5)
    angles = np.repeat([np.deg2rad(c.angle_deg) for c in compartments], units)
    depths = np.repeat([float(c.depth_mm) for c in compartments], units)
    depths = np.maximum(depths + rng.normal(0, 1.5, count), 1.0) + fat
    return Wrist(
        units=units,
        radius_mm=radius,
        angles=angles + np.deg2rad(rng.normal(0, 4, count)),
        radii_mm=np.maximum(radius - depths, 0.0),
        velocities=1000.0 * rng.normal(4.0, 0.4, count).clip(2.5, 5.5),
        offsets_mm=rng.uniform(-4, 4, count),
    )


def _fraction(units: int) -> np.ndarray:
    """(N,) place in the recruitment order, 1/N .. 1."""
    return np.arange(1, units + 1) / units


def firing_rates(drive: np.ndarray, units: int) -> np.ndarray:
    """(T, N) firings per second of one compartment's pool at (T,) drive in [0, 1].

    A unit is silent below its threshold, starts at 8/s and gains 1/s per unit of excitation up to
    a peak that falls from the first recruited (35/s) to the last (25/s).
    """
    thresholds = np.exp(np.log(_RECRUITMENT_RANGE) * _fraction(units))
    peaks = _PEAK_RATE - _PEAK_RATE_DROP * thresholds / thresholds[-1]
    excitation = drive[:, None] * (thresholds[-1] + peaks[-1] - _MIN_RATE)
    rates = np.minimum(excitation - thresholds + _MIN_RATE, peaks)
    return np.where(excitation >= thresholds, rates, 0.0)


def _pool_spikes(
    drive: np.ndarray, units: int, control_rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Firing times in control steps and the unit of each, for one compartment.

    A renewal process in operational time: the n-th firing is where the integral of the rate
    crosses the sum of n Gaussian intervals of mean 1.
    """
    phases = np.cumsum(firing_rates(drive, units) / control_rate, axis=0)
    most = int(phases[-1].max()) + 20
    most += int(np.sqrt(most))  # spare intervals: over 5 SD (.2·√most) of where the last one ends
    intervals = 1 + _INTERVAL_CV * rng.normal(size=(units, most)).clip(
        -_INTERVAL_CLIP, _INTERVAL_CLIP
    )
    intervals[:, 0] *= rng.uniform(size=units)
    targets = np.cumsum(intervals, axis=1)
    times, owners = [], []
    for unit in range(units):
        reached = targets[unit, : np.searchsorted(targets[unit], phases[-1, unit])]
        step = np.searchsorted(phases[:, unit], reached)
        end = phases[step, unit]
        start = np.where(step > 0, phases[step - 1, unit], 0.0)
        times.append(step + (reached - start) / (end - start))
        owners.append(np.full(len(reached), unit))
    return np.concatenate(times), np.concatenate(owners)


def spike_trains(
    drive: np.ndarray,
    units: int,
    control_rate: float,
    samples: int,
    sample_rate: float,
    rng: np.random.Generator,
) -> sparse.csr_array:
    """(samples, M) f32 counts of firings, from (S, muscles) drive at `control_rate`."""
    rows, columns = [], []
    for muscle in range(drive.shape[1]):
        times, owners = _pool_spikes(drive[:, muscle], units, control_rate, rng)
        rows.append(np.clip(times * sample_rate / control_rate, 0, samples - 1).astype(np.int32))
        columns.append((owners + muscle * units).astype(np.int32))
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (samples, drive.shape[1] * units)
    return sparse.coo_array((np.ones(len(row), np.float32), (row, column)), shape).tocsr()


def action_potentials(
    wrist: Wrist, num_channels: int, rotation: float, sample_rate: float
) -> np.ndarray:
    """(M, K, C) f32 microvolts: each unit's travelling tripole seen by C bipolar electrodes.

    rotation: rad, of the whole band. K covers 30 ms. The potential of a pole is its charge over
    sqrt(anisotropy·r² + z²), r from unit to electrode across, z along the fibre.
    """
    electrodes = 2 * np.pi * np.arange(num_channels) / num_channels + rotation
    cosine = np.cos(wrist.angles[:, None] - electrodes)
    rho = wrist.radii_mm[:, None]
    across = wrist.radius_mm**2 + rho**2 - 2 * wrist.radius_mm * rho * cosine  # (M, C) mm²
    samples = round(_SNIPPET_SECONDS * sample_rate)
    time = (np.arange(samples) - 0.35 * samples) / sample_rate
    along = wrist.velocities[:, None] * time - wrist.offsets_mm[:, None]  # (M, K) mm
    waves = np.zeros((len(rho), samples, num_channels), np.float32)
    spread = (_ANISOTROPY * across)[:, None, :].astype(np.float32)
    for shift, sign in ((0.0, 1.0), (_ELECTRODE_DISTANCE, -1.0)):
        for charge, position in zip(_POLES, _POLE_POSITIONS, strict=True):
            z = (along - position - shift)[:, :, None].astype(np.float32)
            waves += np.float32(sign * charge) / np.sqrt(spread + z**2)
    size = np.exp(0.5 * np.log(_FORCE_RANGE) * _fraction(wrist.units))
    muscles = len(rho) // wrist.units
    return waves * (_MICROVOLTS * np.tile(size, muscles))[:, None, None].astype(np.float32)


def superpose(spikes: sparse.csr_array, waves: np.ndarray, block: int) -> np.ndarray:
    """(T, C) f32 sum of every unit's action potentials; the tails beyond T are cut.

    spikes: (T, M) counts. waves: (M, K, C). Works on `block` rows at a time, so the largest
    temporary is block·K·C floats: 2000 × 60 × 16 × 4 B = 7.7 MB.
    """
    units, length, channels = waves.shape
    flat = waves.reshape(units, length * channels)
    total = spikes.shape[0]
    emg = np.zeros((total + length, channels), np.float32)
    for start in range(0, total, block):
        part = (spikes[start : start + block] @ flat).reshape(-1, length, channels)
        for k in range(length):
            emg[start + k : start + k + len(part)] += part[:, k]
    return emg[:total]
