"""Everything that reads what others wrote: a good example of each, and how a door reads it."""

import csv
import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import xarray as xr
from safetensors.numpy import save_file
from scipy import io

from tds_jax.data import json_file
from tds_jax.data.hdf5_write import write_session
from tds_jax.data.scan import scan_file
from tds_jax.data.session_files import SessionFiles
from tds_jax.engine import workdir
from tds_jax.forecast.opened import open_fields
from tds_jax.interchange import checkpoint
from tds_jax.pose.metadata import read_metadata
from tds_jax.pose.table import GROUP, layout
from tds_jax.voxel.data import ply
from tds_jax.voxel.data.clouds import read_cloud
from tds_jax.voxel.data.volumes import (
    FRAME_ROW,
    VOXEL_ROW,
    Volume,
    VolumeFiles,
    find_scenes,
    read_volume,
    write_npz,
)

ROWS = 400
DAYS = 5
SHAPE = (4, 6, 3)


class Parser(NamedTuple):
    """make(folder): writes a good file or store and returns its path. read(path): as a door does.

    Reading a damaged one must give a value or a UserError, soon, and in little memory.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def _session(compression: str | None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        path = folder / "session.hdf5"
        attributes = {"sample_rate": 2000.0, "user": "ann", "session": "a"}
        angles, emg = rng.normal(size=(ROWS, 3)), rng.normal(size=(ROWS, 4))
        write_session(path, GROUP, np.arange(ROWS) / 2000, angles, emg, attributes, compression)
        return path

    return make


def _read_session(path: Path) -> object:
    files = SessionFiles(1, 2**20, 1.0)
    try:
        return scan_file(files, str(path), layout(GROUP))
    finally:
        files.close()


def _columns() -> dict[str, np.ndarray]:
    """time, emg and joint_angles as separate tables have them."""
    rng = np.random.default_rng(0)
    emg, angles = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, 3))
    return {"time": np.arange(ROWS) / 2000, "emg": emg, "joint_angles": angles}


def _separate(folder: Path) -> Path:
    with h5py.File(folder / "session.hdf5", "w") as file:
        for name, values in _columns().items():
            file[name] = values
    return folder / "session.hdf5"


def _matlab(folder: Path) -> Path:
    io.savemat(folder / "session.mat", _columns())
    return folder / "session.mat"


def _csv(folder: Path) -> Path:
    path = folder / "session.csv"
    emg, angles = _columns()["emg"].T, _columns()["joint_angles"].T
    wide = {f"emg_{i}": column for i, column in enumerate(emg)}
    wide |= {f"joint_angles_{i}": column for i, column in enumerate(angles)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *wide])
        writer.writerows(zip(_columns()["time"], *wide.values(), strict=True))
    return path


def _metadata(folder: Path) -> Path:
    path = folder / "metadata.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["filename", "split", "user"], ["a", "train", "ann"], ["b", "test", ""]])
    return path


def _fields(ending: str, engine: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        dims = ("time", "latitude", "longitude")
        times = np.datetime64("2020-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
        axes = {"time": times, "latitude": [52.0, 51, 50], "longitude": [5.0, 6]}
        swvl1 = (dims, rng.random((DAYS, 3, 2)).astype(np.float32), {"units": "m3 m-3"})
        data, path = xr.Dataset({"swvl1": swvl1}, axes), folder / f"fields.{ending}"
        if engine == "zarr":
            data.to_zarr(path, consolidated=False, zarr_format=2 if ending == "v2.zarr" else 3)
        else:
            data.to_netcdf(path, engine=engine)
        return path

    return make


def _read_fields(path: Path) -> object:
    fields = open_fields(path, ("swvl1",), "swvl1", accumulated=(), land_mask="", downsample=1)
    return fields.read(0, len(fields.days))


def _volume() -> Volume:
    rng = np.random.default_rng(0)
    coords = np.argwhere(rng.random(SHAPE) < 0.5)
    return Volume(coords, rng.normal(size=(len(coords), 4)).astype(np.float32), SHAPE)


def _npz(folder: Path) -> Path:
    write_npz(folder / "volume.npz", _volume())
    return folder / "volume.npz"


def _npy(folder: Path) -> Path:
    np.save(folder / "volume.npy", np.random.default_rng(0).random((*SHAPE, 4), np.float32))
    return folder / "volume.npy"


def _store(folder: Path) -> Path:
    scene = folder / "scenes" / "a"
    scene.mkdir(parents=True)
    volume = _volume()
    index, rows = np.zeros(1, FRAME_ROW), np.zeros(len(volume.coords), VOXEL_ROW)
    index["name"], index["stop"] = "000000", len(rows)
    rows["coords"], rows["features"] = volume.coords, volume.features
    with h5py.File(scene / "000000-000000.h5", "w") as file:
        for kind in ("radar", "target"):
            group = file.create_group(kind)
            group.attrs.update({"shape": json.dumps(SHAPE), "channels": 4})
            group["frames"], group["voxels"] = index, rows
    return folder / "scenes"


def _read_store(path: Path) -> object:
    files = VolumeFiles(1, 2**20)
    try:
        frames = [frame for scene in find_scenes(path) for frame in scene.frames]
        return [files.read(frame.radar, "radar") for frame in frames]
    finally:
        files.close()


def _bin(folder: Path) -> Path:
    np.random.default_rng(0).normal(size=(50, 5)).astype("<f4").tofile(folder / "cloud.bin")
    return folder / "cloud.bin"


def _pcd(folder: Path) -> Path:
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\n"
        "COUNT 1 1 1 1\nWIDTH 50\nHEIGHT 1\nPOINTS 50\nDATA binary\n"
    )
    points = np.random.default_rng(0).normal(size=(50, 4)).astype("<f4")
    (folder / "cloud.pcd").write_bytes(header.encode() + points.tobytes())
    return folder / "cloud.pcd"


def _ply(folder: Path) -> Path:
    columns = dict(zip("xyz", np.random.default_rng(0).normal(size=(3, 50)), strict=True))
    (folder / "cloud.ply").write_bytes(ply.encoded(columns))
    return folder / "cloud.ply"


def _safetensors(folder: Path) -> Path:
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    save_file({"weight": weights, "bias": weights[0].copy()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def _checkpoint(folder: Path) -> Path:
    """A zip of a state dict, whose pickle is written opcode by opcode: nothing here has torch."""
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype("<f4")
    program = (
        b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02("
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        b"K\x0ctQK\x00K\x03K\x04\x86K\x04K\x01\x86\x89ccollections\nOrderedDict\n)RtRs."
    )
    path, packed = folder / "model.pt", BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", program)
        archive.writestr("model/byteorder", "little")
        archive.writestr("model/data/0", weights.tobytes())
        archive.writestr("model/version", "3\n")
    path.write_bytes(packed.getvalue())
    return path


def _run(folder: Path) -> Path:
    (folder / "run").mkdir()
    config = {
        "task": "pose",
        "model": {},
        "optim": {"steps": 10},
        "log": {},
        "data": {"group": GROUP},
        "memory": {},
        "loss": {},
        "eval": {},
    }
    json_file.write(folder / "run" / workdir.CONFIG, config)
    inputs = {"inputs": {"channels": 4}, "digest": "a", "files": {"a": "1 2 b"}}
    json_file.write(folder / "run" / workdir.INPUTS, inputs)
    return folder / "run"


def _read_workdir(path: Path) -> object:
    return workdir.read_config(path), workdir.read_inputs(path)


PARSERS = {
    "session, contiguous": Parser(_session(None), _read_session),
    "session, gzip": Parser(_session("gzip"), _read_session),
    "session, separate": Parser(_separate, _read_session),
    "session, MATLAB 5": Parser(_matlab, _read_session),
    "session, CSV": Parser(_csv, _read_session),
    "metadata.csv": Parser(_metadata, lambda path: read_metadata(str(path.parent), ["a.hdf5"])),
    "NetCDF 4": Parser(_fields("nc", "h5netcdf"), _read_fields),
    "NetCDF 3": Parser(_fields("cdf", "scipy"), _read_fields),
    "Zarr 2": Parser(_fields("v2.zarr", "zarr"), _read_fields),
    "Zarr 3": Parser(_fields("v3.zarr", "zarr"), _read_fields),
    "volume .npz": Parser(_npz, lambda path: read_volume(str(path))),
    "volume .npy": Parser(_npy, lambda path: read_volume(str(path))),
    "volumes .h5": Parser(_store, _read_store),
    "cloud .bin": Parser(_bin, lambda path: read_cloud(path, "ntu_radar")),
    "cloud .pcd": Parser(_pcd, lambda path: read_cloud(path, "ntu_radar")),
    "cloud .ply": Parser(_ply, lambda path: read_cloud(path, "ntu_radar")),
    "checkpoint .pt": Parser(_checkpoint, checkpoint.read),
    "checkpoint .safetensors": Parser(_safetensors, checkpoint.read),
    "json of a run": Parser(_run, _read_workdir),
}
