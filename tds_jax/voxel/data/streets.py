"""Streets to generate volumes from: boxes along a road, and what two sensors see of them.

Metres in the frame of the sensors: x forward, y to the left, z up, the sensors at the origin and
GROUND below them. The ground itself is not seen, as if removed.
"""

import dataclasses

import numpy as np

from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.echoes import ghosts_of

GROUND = -1.8
# Per kind: mean radar intensity (dB), radar detections relative to a wall, mean LiDAR reflectivity.
MATERIALS = {
    "wall": (8.0, 1.0, 40.0),
    "pole": (14.0, 3.0, 70.0),
    "rail": (16.0, 2.0, 120.0),
    "vehicle": (20.0, 2.5, 90.0),
}
KINDS = tuple(MATERIALS)
WALL, VEHICLE = KINDS.index("wall"), KINDS.index("vehicle")
BEHIND_DB, GHOST_DB = 6.0, 8.0  # weaker than what is seen: under a vehicle, off a wall


@dataclasses.dataclass(frozen=True)
class Boxes:
    """centre, size: (N, 3) metres; speed: (N,) m/s along x; kind: (N,) index in KINDS; tint: (N,)
    factor on reflectivity."""

    centre: np.ndarray
    size: np.ndarray
    speed: np.ndarray
    kind: np.ndarray
    tint: np.ndarray

    def at(self, seconds: float, ego: float) -> "Boxes":
        """The same after some time, seen from a vehicle that has moved `ego` metres along x."""
        centre = self.centre.copy()
        centre[:, 0] += self.speed * seconds - ego
        return dataclasses.replace(self, centre=centre)

    def within(self, ranges: tuple[float, ...]) -> "Boxes":
        """Those that overlap x0 ... x1 of the ranges."""
        half = self.size[:, 0] / 2
        low, high = self.centre[:, 0] - half, self.centre[:, 0] + half
        kept = (high > ranges[0]) & (low < ranges[1])
        return Boxes(*(getattr(self, f.name)[kept] for f in dataclasses.fields(self)))


def random_street(length: float, rng: np.random.Generator) -> Boxes:
    """A straight road with buildings, poles, rails, parked and moving vehicles; `length` metres."""
    half_road = rng.uniform(5.2, 6.8)  # room for a parked row beside each lane
    rows: list[tuple[float, ...]] = []
    for side in (-1, 1):
        rows += _buildings(length, side, half_road + rng.uniform(2.0, 4.5), rng)
        rows += _poles(length, side * (half_road + 0.8), rng)
        rows += _parked(length, side * (half_road - 1.1), rng)
        if rng.uniform() < 0.4:
            rows += _rails(length, side * (half_road + 0.3), rng)
        rows += _moving(length, side, rng)
    table = np.array(rows)
    return Boxes(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7].astype(int), table[:, 8])


def _box(
    x: float, y: float, length: float, width: float, height: float, speed: float, kind: str,
    tint: float,
) -> tuple[float, ...]:  # fmt: skip
    """A box that stands on the ground, its middle at (x, y)."""
    return (x, y, GROUND + height / 2, length, width, height, speed, KINDS.index(kind), tint)


def _buildings(
    length: float, side: int, front: float, rng: np.random.Generator
) -> list[tuple[float, ...]]:
    rows, x = [], rng.uniform(-15.0, 0.0)
    while x < length:
        long, deep, high = rng.uniform(6.0, 16.0), rng.uniform(4.0, 8.0), rng.uniform(3.0, 7.0)
        y = side * (front + rng.uniform(0.0, 1.5) + deep / 2)
        rows.append(_box(x + long / 2, y, long, deep, high, 0.0, "wall", rng.uniform(0.5, 1.5)))
        x += long + rng.uniform(2.0, 7.0)
    return rows


def _poles(length: float, y: float, rng: np.random.Generator) -> list[tuple[float, ...]]:
    gap, high = rng.uniform(8.0, 14.0), rng.uniform(3.5, 6.5)
    places = np.arange(rng.uniform(-gap, 0.0), length, gap)
    return [_box(float(x), y, 0.3, 0.3, high, 0.0, "pole", 1.0) for x in places]


def _rails(length: float, y: float, rng: np.random.Generator) -> list[tuple[float, ...]]:
    rows, x = [], rng.uniform(-20.0, 10.0)
    while x < length:
        long = rng.uniform(10.0, 25.0)
        rows.append(_box(x + long / 2, y, long, 0.2, 0.9, 0.0, "rail", 1.0))
        x += long + rng.uniform(5.0, 20.0)
    return rows


def _parked(length: float, y: float, rng: np.random.Generator) -> list[tuple[float, ...]]:
    rows, x = [], rng.uniform(-5.0, 5.0)
    while x < length:
        rows.append(_vehicle(x, y + rng.uniform(-0.2, 0.2), 0.0, rng))
        x += 5.5 + rng.exponential(8.0)
    return rows


def _moving(length: float, side: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Right-hand traffic: the right lane drives away, the left one comes; one speed per lane."""
    rows, x, speed = [], rng.uniform(6.0, 20.0), -side * rng.uniform(3.0, 12.0)
    while x < length + 60.0:
        rows.append(_vehicle(x, side * 1.8, speed, rng))
        x += 10.0 + rng.exponential(20.0)
    return rows


def _vehicle(x: float, y: float, speed: float, rng: np.random.Generator) -> tuple[float, ...]:
    size = rng.uniform(3.8, 5.2), rng.uniform(1.7, 2.1), rng.uniform(1.4, 2.2)
    return _box(x, y, *size, speed, "vehicle", rng.uniform(0.3, 1.7))


@dataclasses.dataclass(frozen=True)
class Surface:
    """Points (N, 3) on what the sensors can see, and the number of the box of each (N,)."""

    points: np.ndarray
    box: np.ndarray


def surfaces(boxes: Boxes, spacing: float) -> tuple[Surface, Surface]:
    """Points every `spacing` metres on the faces turned to the origin, (seen, veiled).

    Seen: nothing else hides them. Veiled: vehicles alone hide them, under which a radar looks
    through.
    """
    pieces = [
        (points, np.full(len(points), i))
        for i in range(len(boxes.kind))
        for points in _faces(boxes.centre[i], boxes.size[i], spacing)
    ]
    if not pieces:
        nothing = Surface(np.zeros((0, 3)), np.zeros(0, np.int64))
        return nothing, nothing
    points, box = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    nearest = np.argsort(np.abs(boxes.centre).sum(axis=1))  # the near ones hide most
    vehicles = boxes.kind[nearest] == VEHICLE
    kept = np.arange(len(box))
    for i in nearest[~vehicles]:
        kept = kept[_not_behind(points[kept], box[kept], boxes, i)]
    seen = kept
    for i in nearest[vehicles]:
        seen = seen[_not_behind(points[seen], box[seen], boxes, i)]
    veiled = np.setdiff1d(kept, seen, assume_unique=True)
    return Surface(points[seen], box[seen]), Surface(points[veiled], box[veiled])


def visible_surface(boxes: Boxes, spacing: float) -> Surface:
    """What a LiDAR sees, the first of `surfaces`."""
    return surfaces(boxes, spacing)[0]


def _not_behind(points: np.ndarray, box: np.ndarray, boxes: Boxes, i: int) -> np.ndarray:
    """(N,) which of (N, 3) points, of the boxes `box`, box i leaves to be seen."""
    ways = np.ascontiguousarray(points.T)
    return (box == i) | ~_passes(ways, boxes.centre[i], boxes.size[i])


def _passes(ways: np.ndarray, centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(N,) whether the way from the origin to each of (3, N) points goes through a box."""
    low, high = ((centre + sign * size / 2)[:, None] for sign in (-1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Shares of the way at which each pair of opposite faces is crossed. NaN for a way within
        # a face's plane: it compares as False, hence does not pass.
        first, second = low / ways, high / ways
    enters = np.maximum.reduce(np.minimum(first, second), axis=0)
    leaves = np.minimum.reduce(np.maximum(first, second), axis=0)
    return (enters < leaves) & (leaves > 0) & (enters < 1)


def _faces(centre: np.ndarray, size: np.ndarray, spacing: float) -> list[np.ndarray]:
    """Points on the faces of a box that are turned to the origin."""
    found = []
    for axis in range(3):
        for sign in (-1, 1):
            middle = centre[axis] + sign * size[axis] / 2
            if middle * sign >= 0:
                continue
            lines = [_line(centre[k], size[k], spacing) for k in range(3)]
            # A little inside, so that a face on a voxel's border falls to the box's side of it.
            lines[axis] = np.array([middle - sign * 1e-3])
            found.append(np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3))
    return found


def _line(centre: float, size: float, spacing: float) -> np.ndarray:
    count = max(int(np.ceil(size / spacing)), 1)
    return centre + size * ((np.arange(count) + 0.5) / count - 0.5)


@dataclasses.dataclass(frozen=True)
class RadarNoise:
    """detections_per_m2: on a wall near by; they fall with the distance. missed: share of objects
    unseen in a frame. clutter: false points per frame, on average. distance_m, azimuth_deg,
    elevation_deg, doppler_m_s, intensity_db: standard deviations. veiled: detections of what
    vehicles hide, relative to what they do not. ghosts: share of mirror images in walls heard."""

    detections_per_m2: float
    missed: float
    clutter: float
    distance_m: float
    azimuth_deg: float
    elevation_deg: float
    doppler_m_s: float
    intensity_db: float
    veiled: float
    ghosts: float


def lidar_cloud(boxes: Boxes, surface: Surface, rng: np.random.Generator) -> Cloud:
    """The visible surface with its reflectivity, 0 ... 255."""
    mean = _material(boxes, 2)[surface.box] * boxes.tint[surface.box]
    value = np.clip(mean + rng.normal(0, 4.0, len(mean)), 1, 255)
    return Cloud.of(surface.points, value, np.zeros(len(value)))


def radar_cloud(
    boxes: Boxes,
    seen: Surface,
    veiled: Surface,
    spacing: float,
    ego_speed: float,
    noise: RadarNoise,
    ranges: tuple[float, ...],
    rng: np.random.Generator,
) -> Cloud:
    """A few noisy points of the surfaces with Doppler (positive: going away), of their mirror
    images in walls, and clutter."""
    there = rng.uniform(size=len(boxes.kind)) >= noise.missed
    parts = [
        _detected(boxes, surface, spacing**2 * share * noise.detections_per_m2, there, rng)
        for surface, share in ((seen, 1.0), (veiled, noise.veiled))
    ]
    points = np.concatenate([part.points for part in parts])
    box = np.concatenate([part.box for part in parts])
    weaker = np.repeat([0.0, BEHIND_DB], [len(part.box) for part in parts])
    walls = [(boxes.centre[i], boxes.size[i]) for i in np.flatnonzero(boxes.kind == WALL)]
    images = ghosts_of(points, walls, noise.ghosts, rng)
    points = np.concatenate([points, images.points])
    box = np.concatenate([box, box[images.origin]])
    weaker = np.concatenate([weaker, weaker[images.origin] + GHOST_DB])
    direction = points / np.linalg.norm(points, axis=1, keepdims=True)
    doppler = (boxes.speed[box] - ego_speed) * direction[:, 0]
    intensity = _material(boxes, 0)[box] - weaker
    false = rng.uniform(ranges[::2], ranges[1::2], (rng.poisson(noise.clutter), 3))
    away = false[:, 0] / np.linalg.norm(false, axis=1)
    points = np.concatenate([_blurred(points, noise, rng), false])
    doppler = np.concatenate([doppler, rng.normal(-ego_speed, 3.0, len(false)) * away])
    intensity = np.concatenate([intensity, np.full(len(false), 5.0)])
    doppler += rng.normal(0, noise.doppler_m_s, len(doppler))
    intensity += rng.normal(0, noise.intensity_db, len(intensity))
    return Cloud.of(points, intensity, doppler)


def _detected(
    boxes: Boxes, surface: Surface, rate: float, there: np.ndarray, rng: np.random.Generator
) -> Surface:
    """Points of a surface that a radar hears: `rate` of those on a wall near by, fewer far off."""
    distance = np.linalg.norm(surface.points, axis=1)
    chance = rate * np.exp(-((distance / 60.0) ** 2)) * (_material(boxes, 1) * there)[surface.box]
    hit = rng.uniform(size=len(chance)) < chance
    return Surface(surface.points[hit], surface.box[hit])


def _blurred(points: np.ndarray, noise: RadarNoise, rng: np.random.Generator) -> np.ndarray:
    """Points with errors in distance, azimuth and elevation: they grow sideways with distance."""
    distance = np.linalg.norm(points, axis=1)
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    elevation = np.arcsin(points[:, 2] / distance)
    distance = distance + rng.normal(0, noise.distance_m, len(points))
    azimuth += np.deg2rad(rng.normal(0, noise.azimuth_deg, len(points)))
    elevation += np.deg2rad(rng.normal(0, noise.elevation_deg, len(points)))
    flat = distance * np.cos(elevation)
    parts = flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)
    return np.stack(parts, axis=1)


def _material(boxes: Boxes, column: int) -> np.ndarray:
    return np.array([MATERIALS[kind][column] for kind in KINDS])[boxes.kind]
