"""A voxel model on clouds and volumes in memory."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from tds_jax.fields import require
from tds_jax.voxel.prediction import Answering, Found, Predict
from tds_jax.voxel.task import VoxelTask

NAME = "x"


class Answer:
    """Volumes for volumes or clouds in memory: what `predict` writes for a file of the same."""

    def __init__(self, task: VoxelTask, model: nnx.Module, workdir: Path | None = None) -> None:
        self._task = task
        self._run = Answering(task, model, workdir)

    def __call__(
        self,
        x: np.ndarray | Mapping[str, np.ndarray],
        *,
        layout: str = "",
        rotation: Sequence[float] = (),
        translation: Sequence[float] = (),
    ) -> Found:
        """What generators see in a radar's volume or cloud, and autoencoders in a target's.

        x: a dense volume (X, Y, Z, 4) on the run's grid; a sparse one as a mapping of 'coords',
        'features' and 'shape', as in .npz files; points (N, columns) as `layout` says ('kitti', or
        'x,y,z,rcs,…'; '' = as the run's data); or columns by name, {'x': …, 'y': …, 'z': …, …}.
        rotation (9,), translation (3,) metres: radar clouds to the grid's frame; none: as the run's
        data. UserError where x is none of these, lies on another grid, or wholly outside of it, and
        of a run of several sweeps, of which x is one.
        """
        sweeps = self._task.data.sweeps
        require(
            sweeps == 1 or not self._task.generates,
            f"{NAME} is one sweep, but the run merges data.sweeps={sweeps} of the radar by their "
            "poses; predict the volumes of a scene by python -m tds_jax.predict "
            "--input=SCENE/radar_voxel",
        )
        job = Predict(layout, tuple(rotation), tuple(translation))
        cloud = not isinstance(x, Mapping) and np.ndim(x) == 2
        cloud = cloud or (isinstance(x, Mapping) and "coords" not in x)
        how = job.arriving(self._task, cloud)
        found = self._run(how.take(NAME, x))
        for line in how.points.lines():
            print(f"note: {line}", file=sys.stderr)
        return found
