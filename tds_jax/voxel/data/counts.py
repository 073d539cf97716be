"""How often each voxel is occupied, and by what: sums over frames that can be taken out again."""

import dataclasses
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of the targets of some frames; 20 bytes per voxel, however many frames.

    sums: (D, H, W, 4) f32, Σ target. valid: (D, H, W) f32, in how many its Doppler is valid.
    frames: how many there are.
    """

    sums: np.ndarray
    valid: np.ndarray
    frames: int

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Self:
        """Of no frame; shape: (D, H, W)."""
        return cls(np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32), 0)

    def plus(self, target: np.ndarray) -> Self:
        """And of one target (D, H, W, 4): added in place."""
        seen = target[..., 0] > 0
        known = seen & (target[..., 3] > 0)
        for channel, where in enumerate((seen, seen, known, seen)):
            self.sums[where, channel] += target[where, channel]
        self.valid[known] += 1
        return dataclasses.replace(self, frames=self.frames + 1)

    def without(self, other: Self) -> Self:
        """Of the frames that are not among the other's, which are all among these."""
        return dataclasses.replace(
            self,
            sums=self.sums - other.sums,
            valid=self.valid - other.valid,
            frames=self.frames - other.frames,
        )

    def prior(self, unknown: np.ndarray) -> np.ndarray:
        """(D, H, W, 4) f32: share of frames in which a voxel is occupied, and mean values there.

        unknown: (4,) what stands where nothing was counted; in channel 0 that is without a frame.
        """
        often = self.sums[..., 0]
        counts = np.stack([np.full_like(often, self.frames), often, self.valid, often], axis=-1)
        known = counts > 0
        return np.where(known, self.sums / np.maximum(counts, 1), unknown).astype(np.float32)


def spread_over(count: int, chosen: int) -> np.ndarray:
    """Indices of at most `chosen` of `count` frames, from the first to the last, evenly."""
    return np.unique(np.linspace(0, count - 1, min(chosen, count)).astype(int))
