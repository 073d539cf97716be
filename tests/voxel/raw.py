"""Scenes of raw clouds in two layouts, and the settings that prepare them."""

import dataclasses

import numpy as np

from tds_jax.voxel.data.resize import Grid
from tds_jax.voxel.data.source import VoxelPairs, native_shape
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tds_jax.voxel.prepare import Prepare
from tests.voxel.files import write_kitti, write_vod_radar

RANGES = (0.0, 8.0, -4.0, 4.0, -2.0, 2.0)
JOB = Prepare(ranges=RANGES, resolution=0.5, frames_per_file=2)
VOD = dataclasses.replace(
    JOB, radar="radar", lidar="lidar", radar_layout="vod_radar", lidar_layout="vod_lidar"
)


def quiet(done, total):
    pass


def points(seed, count=60):
    return np.random.default_rng(seed).uniform((0, -4, -2), (8, 4, 2), (count, 3))


def write_ntu(scene, radar_s=(0.1, 0.2, 0.3), lidar_s=(0.11, 0.21, 0.31), seed=0):
    """Raw clouds of a scene, named by their time."""
    for folder, times, columns in (
        ("radar_pcl", radar_s, 2),
        ("livox_lidar", lidar_s, 1),
    ):
        (scene / folder).mkdir(parents=True)
        for i, time in enumerate(times):
            cloud = points(seed + i)
            more = np.random.default_rng(i).normal(size=(len(cloud), columns))
            rows = np.column_stack([cloud, more]).astype(np.float32)
            np.save(scene / folder / f"{time:.6f}.npy", rows)


def write_vod(scene, frames=3):
    for folder in ("radar", "lidar"):
        (scene / folder).mkdir(parents=True)
    for i in range(frames):
        speed = np.linspace(-3, 3, 20)
        write_vod_radar(scene / "radar" / f"{i:05d}.bin", points(i, 20), np.arange(20), speed)
        write_kitti(scene / "lidar" / f"{i:05d}.bin", points(100 + i), np.ones(60))


def pairs_of(root):
    files = VolumeFiles(2, 2**20)
    frames = [frame for scene in find_scenes(root) for frame in scene.frames]
    shape = native_shape(frames, files)
    return VoxelPairs(frames, files, Grid("native", (0, 0, 0), (2, 4, 4)), shape, None)
