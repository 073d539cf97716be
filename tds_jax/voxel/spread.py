"""Which frames are drawn together for intervals: a scene's are much alike."""

from collections.abc import Sequence

import numpy as np

from tds_jax.engine.intervals import LEAST, Drawn
from tds_jax.voxel.data.volumes import Frame

ENOUGH = 10  # parts that few scenes are cut into, together
RUN = 8  # frames of a part, at least


def blocks_of(frames: Sequence[Frame]) -> tuple[np.ndarray, Drawn]:
    """((N,) the number of each frame's block, what blocks are).

    Scenes; of fewer than intervals want, runs of frames within each, which are not independent:
    intervals are then too narrow, and say nothing of other scenes.
    """
    names = list(dict.fromkeys(frame.scene for frame in frames))
    scene = np.array([names.index(frame.scene) for frame in frames])
    if len(names) >= LEAST:
        return scene, Drawn(len(names), "scenes")
    found = np.zeros(len(frames), int)
    count = 0
    for number in range(len(names)):
        own = np.flatnonzero(scene == number)
        parts = min(max(len(own) // RUN, 1), -(-ENOUGH // len(names)))
        found[own] = count + np.arange(len(own)) * parts // len(own)
        count += parts
    return found, Drawn(count, f"runs of frames of {len(names)} scene{'s' * (len(names) > 1)}")
