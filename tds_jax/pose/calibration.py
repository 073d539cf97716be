"""What a short recording tells of a user and a wearing of the band, without labels and gradients.

A vector of how strong the electrodes are and how alike, from which `film` makes scales and shifts
of the encoder's features. In training every window gets the vector of another stretch of its user.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tds_jax.data.hdf5 import RowFiles
from tds_jax.errors import UserError
from tds_jax.pose.table import SessionTable

BLOCK_SECONDS = 0.1
MOST_STRETCHES = 8  # of a session: a long one must not cost a reading of all of it


def describe(emg: np.ndarray, rate_hz: float) -> np.ndarray:
    """(2 C + C (C - 1) / 2,) f32 of EMG (T, C), a block or more.

    Over blocks of 0.1 s about their means: mean and spread of the log of each channel's RMS, and
    the mean correlation of every pair. Rows with NaN or Inf make no block.
    """
    samples = round(BLOCK_SECONDS * rate_hz)
    blocks = emg[: len(emg) // samples * samples].astype(np.float64)
    blocks = blocks.reshape(-1, samples, emg.shape[1])
    blocks = blocks[np.isfinite(blocks).all(axis=(1, 2))]
    if not len(blocks):
        raise UserError(f"calibration has no {BLOCK_SECONDS:g} s of finite EMG; give more of it")
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    moments = np.einsum("nsc,nsd->ncd", blocks, blocks) / samples
    rms = np.sqrt(np.diagonal(moments, axis1=1, axis2=2)) + 1e-6
    alike = (moments / (rms[:, :, None] * rms[:, None])).mean(axis=0)
    logs = np.log(rms)
    pairs = alike[np.triu_indices(emg.shape[1], 1)]
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0), pairs]).astype(np.float32)


def size(channels: int) -> int:
    """Numbers of `describe` for C channels."""
    return 2 * channels + channels * (channels - 1) // 2


@dataclasses.dataclass(frozen=True)
class Calibrations:
    """Vectors of stretches of a table's sessions, and which of them a session may be given.

    vectors: (M, K) f32. rows, offsets: those of session i are rows[offsets[i] : offsets[i + 1]], of
    the other sessions of its user, or of itself where there is no other.
    """

    vectors: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray

    def of(self, sessions: np.ndarray, rngs: Sequence[np.random.Generator] | None) -> np.ndarray:
        """(B, K): any of a session's, each as likely; the first without generators."""
        first, count = self.offsets[sessions], self.offsets[sessions + 1] - self.offsets[sessions]
        drawn = [0] * len(sessions) if rngs is None else [
            int(rng.integers(n)) for rng, n in zip(rngs, count.tolist(), strict=True)
        ]  # fmt: skip
        found: np.ndarray = self.vectors[self.rows[first + np.array(drawn, np.int64)]]
        return found


def read(table: SessionTable, files: RowFiles, seconds: float) -> Calibrations:
    """The stretches, of `seconds` each, from the start of every session of a table.

    One shorter than that is one stretch. Reads up to MOST_STRETCHES of them of each session.
    """
    length, vectors, owner = round(seconds * table.rate_hz), [], []
    for session, rows in enumerate(table.samples.tolist()):
        for start in range(0, max(1, rows - length + 1), length)[:MOST_STRETCHES]:
            emg = table.emg(files, session, start, min(start + length, rows))
            vectors.append(describe(emg, table.rate_hz))
            owner.append(session)
    users, whose = table.group_of("user"), np.array(owner)
    names = np.array([user or f"{n}" for n, user in enumerate(users)])
    lists = []
    for session in range(len(table)):
        same = np.flatnonzero(names[whose] == names[session])
        others = same[whose[same] != session]
        lists.append(others if len(others) else same)
    offsets = np.cumsum([0, *map(len, lists)])
    return Calibrations(np.stack(vectors), np.concatenate(lists), offsets)


def statistics(stretches: Calibrations) -> dict[str, np.ndarray]:
    """{'mean', 'scale'}: (K,) f32 over the stretches; the scale of what does not vary is 1."""
    spread = stretches.vectors.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1).astype(np.float32)
    return {"mean": stretches.vectors.mean(axis=0), "scale": scale}
