"""Volumes that cannot be used are left out by name, up to a limit; each file is read once."""

import os

import h5py
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.checking import Check
from tds_jax.voxel.data.looking import usable
from tds_jax.voxel.data.stores import write_store
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tests.voxel.files import SHAPE, make_volume, write_scene, write_scenes


def look(root, limit=9, cache=None, files=None):
    files = files or VolumeFiles(2, 2**20)
    return usable(root, find_scenes(root), files, limit, cache)


def zeroed(path):
    """Bytes of the features, as a page that was never written leaves them."""
    content = bytearray(path.read_bytes())
    middle = content.index(b"features.npy") + 60
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)


def linked(path):
    path.unlink()
    path.symlink_to("gone.npz")


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "cannot be read"),
        (zeroed, "cannot be read"),
        (linked, "a link to gone.npz, which is not there; fetch it"),
        (folder, "cannot be opened"),
    ],
)
def test_one_damaged_volume_is_left_out_by_name(tmp_path, spoil, words):
    write_scenes(tmp_path, count=3, frames=3)
    whole, warnings = look(tmp_path)
    assert warnings == []
    assert whole == find_scenes(tmp_path)
    spoil(tmp_path / "b" / "target_voxel" / "000001.npz")
    scenes, (line,) = look(tmp_path, limit=1)
    assert line.startswith(f"left out {tmp_path}/b/target_voxel/000001.npz: {words}")
    assert [[frame.name[-1] for frame in scene.frames] for scene in scenes] == [
        ["0", "1", "2"], ["0", "2"], ["0", "1", "2"]
    ]  # fmt: skip
    assert [scenes[0], scenes[2]] == [whole[0], whole[2]]
    with pytest.raises(UserError, match=r"1 files of volumes cannot be used, more than data.max_b"):
        look(tmp_path, limit=0)


def test_a_volume_of_another_grid_is_left_out_even_if_it_is_the_first(tmp_path):
    write_scene(tmp_path, "a", frames=1, shape=(6, 8, 6))
    write_scene(tmp_path, "b", frames=3)
    (kept,), lines = look(tmp_path)
    assert kept.name == "b"
    assert (
        "a/radar_voxel/000000.npz: the grid (X, Y, Z) is (6, 8, 6), most have (6, 8, 4)" in lines[0]
    )


def stores(root):
    """Two stores of two frames in one scene, each frame a chunk of its own."""
    (root / "a").mkdir(parents=True)
    for first in (0, 2):
        pairs = {f"{n:06d}": (make_volume(n), make_volume(9 + n)) for n in (first, first + 1)}
        write_store(root / "a" / f"{first:06d}.h5", pairs, SHAPE, "", None)
    return sorted((root / "a").glob("*.h5"))


def rewritten(path, kind, change):
    with h5py.File(path, "r+") as file:
        rows = file[f"{kind}/voxels"][()]
        change(rows)
        file[f"{kind}/voxels"][...] = rows


def test_a_store_is_left_out_by_frames_and_whole_where_it_cannot_be_opened(tmp_path):
    first, second = stores(tmp_path)

    def spoil(rows):
        rows["coords"][-1] = 99  # outside of the grid, in the second frame

    rewritten(first, "radar", spoil)
    (scene,), (line,) = look(tmp_path)
    assert [frame.name for frame in scene.frames] == ["000000", "000002", "000003"]
    assert "000000.h5: radar: coords from " in line
    assert line.endswith("(so 1 of its 4 volumes)")
    second.write_bytes(second.read_bytes()[:1000])
    (scene,), lines = look(tmp_path)
    assert [frame.name for frame in scene.frames] == ["000000"]
    assert "000002.h5: truncated HDF5 file" in lines[0]
    checked = Check().run(tmp_path, lambda done, total: None)
    assert [line.split(": ")[1] for line in checked.findings["unreadable"]] == [
        "truncated HDF5 file; copy or download it again", "radar"
    ]  # fmt: skip
    first.write_bytes(b"")
    with pytest.raises(UserError, match=r"000000.h5: .*\(2 stores are unusable\)$"):
        find_scenes(tmp_path)


class Counting(VolumeFiles):
    """Remembers what it was asked for."""

    def __init__(self):
        super().__init__(2, 2**20)
        self.asked = []

    def read(self, place, kind):
        self.asked.append((os.path.basename(place.path), kind))
        return super().read(place, kind)


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    root, cache = tmp_path / "in", tmp_path / "cache"
    write_scene(root, "a", frames=2)
    stores(root / "b")

    def asked():
        files = Counting()
        look(root, cache=cache, files=files)
        return files.asked

    assert len(asked()) == 4
    assert asked() == []
    broken = root / "a" / "radar_voxel" / "000001.npz"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    for _ in range(2):  # what cannot be read is tried each time
        assert asked() == [("000001.npz", "radar")]
    broken.write_bytes(whole)
    assert asked() == [("000001.npz", "radar")]
    assert asked() == []
    (written,) = cache.iterdir()
    written.write_text("{")
    scenes, (line,) = look(root, cache=cache)
    assert "not as it was written" in line
    assert scenes == find_scenes(root)


def test_without_any_usable_frame_the_first_fault_is_said(tmp_path):
    write_scene(tmp_path, "a", frames=1)
    (tmp_path / "a" / "radar_voxel" / "000000.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"no frame is usable; first: .*radar_voxel.000000.npz"):
        look(tmp_path)
