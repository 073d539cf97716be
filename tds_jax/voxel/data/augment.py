"""Random changes of a radar/target pair, each with its own probability."""

import dataclasses

import numpy as np

from tds_jax.fields import require, require_between


@dataclasses.dataclass(frozen=True)
class Augment:
    """Probabilities and sizes; probability 0 switches a change off, all 0 changes nothing.

    flip: mirrors the lateral axis (W) of both; Doppler is radial and stays. noise: adds
    N(0, intensity_noise) to the radar's intensity and N(0, doppler_noise) m/s to its Doppler, in
    occupied voxels. dropout: empties a share dropout_rate of the radar's voxels. intensity: scales
    the intensity of both by one factor of 1 ± intensity_scale. doppler: adds one value within
    ± doppler_shift m/s to the Doppler of both, where they have one.
    """

    flip: float
    noise: float
    intensity_noise: float
    doppler_noise: float
    dropout: float
    dropout_rate: float
    intensity: float
    intensity_scale: float
    doppler: float
    doppler_shift: float

    def __post_init__(self) -> None:
        for name in ("flip", "noise", "dropout", "dropout_rate", "intensity", "doppler"):
            require_between(f"data.augment_{name}", getattr(self, name), 0, 1)
        require_between("data.augment_intensity_scale", self.intensity_scale, 0, 0.99)
        for name in ("intensity_noise", "doppler_noise", "doppler_shift"):
            value = getattr(self, name)
            require(value >= 0, f"data.augment_{name}={value} must not be negative")

    def __call__(
        self, radar: np.ndarray, target: np.ndarray, weight: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New (D, H, W, 4), (D, H, W, 4) and weight (D, H, W); the given arrays are changed."""
        # Drawn whether used or not, so that one probability does not move the others' numbers.
        happens = dict(zip(CHANGES, rng.uniform(size=len(CHANGES)), strict=True))
        scale = 1 + self.intensity_scale * rng.uniform(-1, 1)
        shift = self.doppler_shift * rng.uniform(-1, 1)
        if happens["intensity"] < self.intensity:
            radar[..., 1] *= scale
            target[..., 1] *= scale
        if happens["doppler"] < self.doppler:
            radar[..., 2] += shift * (radar[..., 0] > 0)
            target[..., 2] += shift * (target[..., 3] > 0)
        if happens["noise"] < self.noise:
            occupied = radar[..., 0] > 0
            noise = rng.standard_normal((occupied.sum(), 2), np.float32)
            radar[occupied, 1:3] += noise * [self.intensity_noise, self.doppler_noise]
        if happens["dropout"] < self.dropout:
            places = np.argwhere(radar[..., 0] > 0)
            lost = places[rng.uniform(size=len(places)) < self.dropout_rate]
            radar[tuple(lost.T)] = 0
        if happens["flip"] < self.flip:
            radar, target, weight = (np.flip(a, axis=2) for a in (radar, target, weight))
        return radar, target, weight


CHANGES = ("flip", "noise", "dropout", "intensity", "doppler")
