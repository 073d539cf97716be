"""Folders of small volumes in the layout of the preprocessed recordings."""

import struct

import h5py
import numpy as np

from tds_jax.voxel.data.volumes import Volume, write_npz

SHAPE = (6, 8, 4)  # X, Y, Z


def make_volume(seed, count=12, shape=SHAPE):
    """A volume of `count` occupied voxels with values in every channel; the last is a flag."""
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(np.prod(shape), count, replace=False))
    coords = np.stack(np.unravel_index(cells, shape), axis=1)
    features = rng.normal(5, 2, (count, 4)).astype(np.float32)
    features[:, 0] = 1
    features[:, 3] = rng.integers(0, 2, count)
    return Volume(coords, features, shape)


def write_scene(root, name, frames=4, seed=0, shape=SHAPE):
    """A scene of npz pairs: radar frame i is make_volume(seed + 2 i), its target the next seed."""
    for side, kind in enumerate(("radar_voxel", "target_voxel")):
        (root / name / kind).mkdir(parents=True)
        for i in range(frames):
            volume = make_volume(seed + 2 * i + side, shape=shape)
            write_npz(root / name / kind / f"{i:06d}.npz", volume)


def write_scenes(root, count=3, frames=4):
    """Scenes 'a', 'b' … with different volumes."""
    for i in range(count):
        write_scene(root, "abcdefgh"[i], frames, seed=100 * i)
    return root


def write_kitti(path, points, reflectance):
    """The .bin of KITTI and of View-of-Delft's LiDAR: x, y, z, reflectance as float32."""
    np.column_stack([points, reflectance]).astype("<f4").tofile(path)


def write_vod_radar(path, points, rcs, v_r):
    """View-of-Delft's radar .bin: x, y, z, RCS, v_r, v_r compensated, time as float32."""
    more = np.column_stack([v_r + 1, np.zeros(len(v_r))])
    np.column_stack([points, rcs, v_r, more]).astype("<f4").tofile(path)


def write_pcd(path, columns, data="binary"):
    """A PCD v0.7 file of named float32 columns; lists of them are fields with a count."""
    count = len(columns["x"])
    arrays = {
        name: np.asarray(column, "<f4").reshape(count, np.size(column) // max(count, 1) or 1)
        for name, column in columns.items()
    }
    header = [
        "# .PCD v0.7",
        "VERSION 0.7",
        f"FIELDS {' '.join(arrays)}",
        f"SIZE {' '.join('4' for _ in arrays)}",
        f"TYPE {' '.join('F' for _ in arrays)}",
        f"COUNT {' '.join(str(a.shape[1]) for a in arrays.values())}",
        f"WIDTH {count}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {count}",
        f"DATA {data}",
    ]
    rows = np.hstack(list(arrays.values()))
    body = rows.tobytes()
    if data == "ascii":
        body = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in rows).encode()
    if data == "binary_compressed":
        whole = b"".join(array.tobytes() for array in arrays.values())
        small = lzf(whole)
        body = struct.pack("<II", len(small), len(whole)) + small
    path.write_bytes("\n".join(header).encode() + b"\n" + body)


def lzf(data):
    """Compressed by HDF5's LZF, which is none of ours; all literals where it cannot be smaller."""
    array = np.frombuffer(data, np.uint8)
    if not array.size:
        return b""
    with h5py.File("lzf", "w", driver="core", backing_store=False) as file:
        rows = file.create_dataset("rows", data=array, chunks=array.shape, compression="lzf")
        skipped, small = rows.id.read_direct_chunk((0,))
    if skipped:
        parts = [data[i : i + 32] for i in range(0, len(data), 32)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return small
