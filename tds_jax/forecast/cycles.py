"""Waves of the year and of the day, at places in them that batches hold."""

import jax
import jax.numpy as jnp


def split(phase: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """`days.phases` (B, N) or (B, N, 2) -> places in the year (B, N), and in the day or None."""
    return (phase, None) if phase.ndim == 2 else (phase[..., 0], phase[..., 1])


def waves(phase: jax.Array, terms: int) -> list[jax.Array]:
    """sin 2πp, cos 2πp, sin 4πp, … at phases p: terms - 1 arrays like `phase`."""
    angles = [2 * jnp.pi * n * phase for n in range(1, (terms - 1) // 2 + 1)]
    return [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]


def cycles(phase: jax.Array, terms: int, daily: int) -> list[jax.Array]:
    """Of `climatology.basis` all but the first, which is 1: terms - 1 arrays (B, N).

    phase: `days.phases`. daily: waves of the day among the terms.
    """
    year, day = split(phase)
    if day is None or not daily:
        return waves(year, terms)
    annual = waves(year, terms // (1 + 2 * daily))
    found = annual
    for wave in waves(day, 1 + 2 * daily):
        found = [*found, wave, *(wave * one for one in annual)]
    return found
