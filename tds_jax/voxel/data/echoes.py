"""What a radar hears that no LiDAR sees: mirror images in walls.

A wall beside the road is a mirror: what stands before it is heard once more behind it, as far
behind as it is before. Only who knows where the wall is can tell such a ghost from an object.
"""

from typing import NamedTuple

import numpy as np


class Ghosts(NamedTuple):
    """points: (N, 3) metres where something is heard. origin: (N,) which of the points given it
    mirrors."""

    points: np.ndarray
    origin: np.ndarray


def mirrored(points: np.ndarray, centre: np.ndarray, size: np.ndarray) -> Ghosts:
    """Images of (N, 3) points in a box's face along the road that is turned to the origin.

    centre, size: (3,) metres of the box. A point has an image if it is before the face and the way
    from the origin to the image meets the face: there the wave is thrown back.
    """
    side = np.sign(centre[1])
    face = centre[1] - side * size[1] / 2
    before = (
        np.flatnonzero(side * (face - points[:, 1]) > 0) if side * face > 0 else np.zeros(0, int)
    )
    images = points[before] * (1, -1, 1) + (0, 2 * face, 0)
    meets = images * (face / images[:, 1:2])
    inside = (np.abs(meets - centre) <= size / 2)[:, [0, 2]].all(axis=1)
    return Ghosts(images[inside], before[inside])


def ghosts_of(
    points: np.ndarray, walls: list[tuple[np.ndarray, np.ndarray]], share: float,
    rng: np.random.Generator,
) -> Ghosts:  # fmt: skip
    """Of all images in all walls (centre, size), each heard with probability `share`."""
    found = [mirrored(points, *wall) for wall in walls]
    images = np.concatenate([np.zeros((0, 3)), *(one.points for one in found)])
    origin = np.concatenate([np.zeros(0, int), *(one.origin for one in found)])
    heard = rng.uniform(size=len(origin)) < share
    return Ghosts(images[heard], origin[heard])
