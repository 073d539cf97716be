"""3D autoencoder whose latents are entries of a codebook."""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import special

from tds_jax.errors import UserError
from tds_jax.nn.module import Module
from tds_jax.nn.noise import key_of
from tds_jax.voxel.networks.coder import Autoencoder, Coding, wide

EPS = 1e-5  # of the Laplace smoothing of code sizes, in tokens
DISTANCES = 1 << 22  # of tokens to codes alive at once: 16 MiB
RESTART = 0x5B  # stream of an example's key that candidates for dead codes are drawn from


class CodeState(nnx.Variable):
    """A part of the codebook that training moves without gradients; saved with the model."""


class Quantized(NamedTuple):
    """What the codebook makes of a latent.

    z: (B, d, h, w, C) the nearest codes; its gradient goes to the latent as if nothing had been
    done (straight through). indices: (B, d, h, w) int32. commitment, codebook: (B,) mean squared
    distance of the latent from its codes, with a gradient to the latent, to the codes.
    """

    z: jax.Array
    indices: jax.Array
    commitment: jax.Array
    codebook: jax.Array


class Codebook(Module):
    """`size` codes of `channels` numbers, each the running mean of the latents nearest to it.

    decay: share of the old mean that one update leaves; 0 makes codes a parameter instead, learned
    through `Quantized.codebook` as the reference does (whose running means are never updated).
    window: examples in one update, as many as the optimizer's: codes move once the last has been
    seen, by the counts of all, so that the split into micro-batches does not matter.
    restart_below: an average number of tokens per update; a code with fewer becomes a latent of
    the batch, drawn by the examples' keys. 0 never does.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        decay: float,
        window: int,
        restart_below: float,
        rngs: nnx.Rngs,
    ) -> None:
        if not 0 <= decay < 1:
            raise UserError(
                f"model.codebook_decay={decay} is not in [0, 1); use 0.99, or 0 for off"
            )
        self.size, self.decay = size, decay
        self.window, self.restart_below = window, restart_below
        codes = jax.random.uniform(
            rngs.params(), (size, channels), jnp.float32, -1 / size, 1 / size
        )
        if decay == 0:
            self.codes: nnx.Variable = nnx.Param(codes)
            return
        self.codes = CodeState(codes)
        self.sizes = CodeState(jnp.ones((size,), jnp.float32))
        self.seen = CodeState(jnp.zeros((), jnp.int32))
        self.counts = CodeState(jnp.zeros((size,), jnp.float32))
        self.sums = CodeState(jnp.zeros((size, channels), jnp.float32))
        self.priority = CodeState(jnp.zeros((size,), jnp.float32))
        self.candidates = CodeState(jnp.zeros((size, channels), jnp.float32))

    def __call__(self, z: jax.Array, keys: jax.Array | None = None) -> Quantized:
        """z (B, d, h, w, C) f32; keys (B, 2) uint32 mean training: the codes follow the latents."""
        codes = self.codes[...].astype(z.dtype)
        indices = nearest(jax.lax.stop_gradient(z), jax.lax.stop_gradient(codes))
        found = codes[indices]
        if keys is not None and self.decay > 0:
            self._follow(jax.lax.stop_gradient(z).astype(jnp.float32), indices, keys)
        fixed = jax.lax.stop_gradient(found)
        axes = tuple(range(1, z.ndim))
        return Quantized(
            z=z + jax.lax.stop_gradient(found - z),
            indices=indices,
            commitment=jnp.mean((z - fixed) ** 2, axis=axes),
            codebook=jnp.mean((found - jax.lax.stop_gradient(z)) ** 2, axis=axes),
        )

    def _follow(self, z: jax.Array, indices: jax.Array, keys: jax.Array) -> None:
        """Adds a micro-batch; after the window's last one, moves the codes."""
        tokens, flat = z.reshape(-1, z.shape[-1]), indices.reshape(-1)
        counts = self.counts[...].at[flat].add(1.0)
        sums = self.sums[...].at[flat].add(tokens)
        priority, candidates = self._candidates(z.reshape(len(z), -1, z.shape[-1]), keys)
        seen = self.seen[...] + len(z)
        full = seen >= self.window
        sizes, codes = self._moved(counts, sums, candidates)
        self.seen[...] = jnp.where(full, 0, seen)
        self.sizes[...] = jnp.where(full, sizes, self.sizes[...])
        self.codes[...] = jnp.where(full, codes, self.codes[...])
        self.counts[...] = jnp.where(full, 0, counts)
        self.sums[...] = jnp.where(full, 0, sums)
        self.priority[...] = jnp.where(full, 0, priority)
        self.candidates[...] = candidates

    def _moved(
        self, counts: jax.Array, sums: jax.Array, candidates: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(sizes, codes) after one update."""
        old = self.codes[...] * self._smoothed(self.sizes[...])[:, None]
        sizes = self.decay * self.sizes[...] + (1 - self.decay) * counts
        means = self.decay * old + (1 - self.decay) * sums
        codes = means / self._smoothed(sizes)[:, None]
        dead = sizes < self.restart_below
        # A new code has as long to prove itself as those of the start.
        return jnp.where(dead, 1, sizes), jnp.where(dead[:, None], candidates, codes)

    def _smoothed(self, sizes: jax.Array) -> jax.Array:
        """Laplace: sizes that are never 0, with the same total."""
        total = jnp.sum(sizes, dtype=jnp.float32)
        return (sizes + EPS) / (total + self.size * EPS) * total

    def _candidates(self, tokens: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(priority (size,), latents (size, C)): for every code one token of the window at random.

        tokens: (B, N, C). Each example offers each code one of its tokens at a random priority and
        the highest of the window wins, so that the order and split of examples do not matter.
        """

        def offer(key: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            key = key_of(key, RESTART)
            one, two = jax.random.split(key)
            which = jax.random.randint(two, (self.size,), 0, len(tokens))
            return jax.random.uniform(one, (self.size,)), tokens[which]

        priority, offered = jax.vmap(offer)(keys, tokens)
        priority = jnp.concatenate([self.priority[...][None], priority])
        offered = jnp.concatenate([self.candidates[...][None], offered])
        best = jnp.argmax(priority, axis=0)[None]
        chosen = jnp.take_along_axis(offered, best[..., None], axis=0)[0]
        return jnp.max(priority, axis=0), chosen


class VQVAE3D(Autoencoder):
    """Volumes (B, D, H, W, in) -> codes -> volumes (B, D, H, W, out), no activation.

    codes: their number; each has latent_channels numbers. commitment: weight of that loss. The
    codebook's options: see `Codebook`; the rest as in `vae.VAE3D`. The reference always has
    attention, 8192 codes and commitment 0.25.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_channels: int,
        *,
        codes: int,
        decay: float,
        window: int,
        restart_below: float,
        commitment: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        **coder: Unpack[Coding],
    ) -> None:
        sizes = in_channels, out_channels, latent_channels, latent_channels
        super().__init__(*sizes, dtype=dtype, rngs=rngs, **coder)
        self.commitment = commitment
        self.codebook = Codebook(
            codes,
            latent_channels,
            decay=decay,
            window=window,
            restart_below=restart_below,
            rngs=rngs,
        )

    def encode(self, x: jax.Array) -> jax.Array:
        """x (B, D, H, W, in) -> the latent before its code is looked up, f32."""
        self.latent_shape(x.shape)
        return wide(self.encoder(x))

    def latent(self, x: jax.Array) -> jax.Array:
        """x (B, D, H, W, in) -> its codes (B, d, h, w, latent), f32."""
        return self.codebook(self.encode(x)).z

    def learned(self, z: jax.Array) -> jax.Array:
        """(B, d, h, w, latent) -> the nearest codes, f32."""
        return self.codebook(wide(z)).z

    def decode(self, z: jax.Array) -> jax.Array:
        """Codes (B, d, h, w, latent) -> (B, D, H, W, out), f32."""
        return wide(self.decoder(z))

    def quantization_loss(self, quantized: Quantized) -> jax.Array:
        """(B,): what to add to the reconstruction's loss."""
        loss = self.commitment * quantized.commitment
        return loss if self.codebook.decay > 0 else quantized.codebook + loss

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, Quantized]:
        """(reconstruction, what the codebook made of the latent); keys mean training."""
        quantized = self.codebook(self.encode(x), keys)
        return self.decode(quantized.z), quantized


def nearest(z: jax.Array, codes: jax.Array) -> jax.Array:
    """Indices (...) int32 of the codes (K, C) at the least distance from z (..., C).

    At most DISTANCES distances exist at a time; of equal ones the first code wins.
    """
    tokens = z.reshape(-1, z.shape[-1])
    size = max(1, DISTANCES // len(codes))
    norms = 0.5 * jnp.sum(codes**2, axis=1)

    def of(tokens: jax.Array) -> jax.Array:
        products = jnp.matmul(tokens, codes.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(norms[None] - products, axis=1).astype(jnp.int32)

    padded = jnp.pad(tokens, ((0, -len(tokens) % size), (0, 0))) if len(tokens) > size else tokens
    found = jax.lax.map(of, padded.reshape(-1, min(size, len(padded)), z.shape[-1]))
    return found.reshape(-1)[: len(tokens)].reshape(z.shape[:-1])


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of how often codes are used, counts (K,): 1 (one code) to K (all alike).

    Not linear in the batch: add up counts first. On the host, where log lines are made.
    """
    shares = counts / (counts.sum() or 1)
    return float(np.exp(special.entr(shares).sum()))


def usage(indices: jax.Array, size: int) -> jax.Array:
    """How often each of `size` codes is used, (size,) f32."""
    return jnp.zeros((size,), jnp.float32).at[indices.reshape(-1)].add(1.0)
