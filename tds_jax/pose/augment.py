"""Training windows as another session might have recorded them.

Drawn on the device from the keys that travel with every example, so an example's noise depends on
(seed, epoch, example) alone: not on the micro-batch, workers, or where a run was interrupted.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tds_jax.nn.noise import key_of
from tds_jax.nn.normalizer import Normalizer

LAYER = 300  # of the draws; dropout layers and the draw of 'mixed' count below


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a window, in units of each channel's spread in the train split.

    noise: standard deviation of white noise. gain_spread: of the natural log of a gain per channel
    and window. channel_drop: probability that a channel stays at its mean throughout a window.
    """

    noise: float
    gain_spread: float
    channel_drop: float

    def __call__(self, emg: jax.Array, normalizer: Normalizer, keys: jax.Array) -> jax.Array:
        """emg (B, T, C) in the recordings' unit; keys (B, 2) uint32. As it is if all are 0."""
        if not (self.noise or self.gain_spread or self.channel_drop):
            return emg
        changed = jax.vmap(self._one)(normalizer(emg), keys)
        scale, mean = (v[...].astype(emg.dtype) for v in (normalizer.scale, normalizer.mean))
        spread = jnp.broadcast_to(scale, emg.shape)
        return changed * spread + jnp.broadcast_to(mean, emg.shape)

    def _one(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """x (T, C), normalised. Noise comes last: an electrode's own does not follow its gain."""
        channels = x.shape[1:]
        gain = jnp.exp(self.gain_spread * jax.random.normal(key_of(key, LAYER), channels, x.dtype))
        kept = jax.random.bernoulli(key_of(key, LAYER + 1), 1 - self.channel_drop, channels)
        noise = self.noise * jax.random.normal(key_of(key, LAYER + 2), x.shape, x.dtype)
        heard = jnp.broadcast_to(kept.astype(x.dtype), x.shape)
        return (x * jnp.broadcast_to(gain, x.shape) + noise) * heard
