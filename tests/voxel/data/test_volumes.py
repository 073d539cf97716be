"""Volumes come back as written, in (Z, X, Y) order; scenes pair by name; faults name their file."""

import errno
import pickle

import numpy as np
import pytest

from tds_jax.data.order import by_number
from tds_jax.errors import UserError
from tds_jax.voxel.data.naming import frames_of
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes, read_volume, write_npz
from tests.voxel.files import SHAPE, make_volume, write_scene, write_scenes


def same(a, b):
    return (
        np.array_equal(a.coords, b.coords)
        and np.array_equal(a.features, b.features)
        and a.shape == b.shape
    )


def test_sparse_and_dense_files_give_the_volume_written(tmp_path):
    volume = make_volume(0)
    write_npz(tmp_path / "a.npz", volume)
    dense = volume.dense().transpose(1, 2, 0, 3)  # (Z, X, Y) -> (X, Y, Z)
    np.save(tmp_path / "a.npy", dense)
    assert same(read_volume(str(tmp_path / "a.npz")), volume)
    assert same(read_volume(str(tmp_path / "a.npy")), volume)
    (tmp_path / "a.npy").rename(tmp_path / "b.NPY")
    assert same(read_volume(str(tmp_path / "b.NPY")), volume)
    with np.load(tmp_path / "a.npz") as arrays:
        assert {k: (v.dtype.str, v.shape) for k, v in arrays.items()} == {
            "coords": ("<i8", (12, 3)),
            "features": ("<f4", (12, 4)),
            "shape": ("<i8", (4,)),
        }
        assert arrays["shape"].tolist() == [*SHAPE, 4]


def test_arrays_are_indexed_z_x_y_and_padded_at_the_ends():
    volume = make_volume(1)
    dense = volume.dense()
    assert dense.shape == (4, 6, 8, 4)
    for (x, y, z), row in zip(volume.coords, volume.features, strict=True):
        np.testing.assert_array_equal(dense[z, x, y], row)
    assert np.count_nonzero(dense[..., 0]) == len(volume.coords)
    padded = volume.dense((5, 8, 8))
    np.testing.assert_array_equal(padded[:4, :6, :8], dense)
    assert padded[4:].sum() == padded[:, 6:].sum() == 0


def test_voxels_without_occupancy_do_not_count(tmp_path):
    volume = make_volume(2)
    volume.features[:5, 0] = 0
    write_npz(tmp_path / "a.npz", volume)
    np.testing.assert_array_equal(read_volume(str(tmp_path / "a.npz")).coords, volume.coords[5:])


def test_scenes_are_folders_with_both_kinds_paired_by_name(tmp_path):
    write_scene(tmp_path, "loop", frames=3)
    write_scene(tmp_path, "garden", frames=2)
    for other in ("lidar_voxel", "cache/radar_voxel", ".git"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "policy.json").write_text("{}")
    # Endings may differ between the two.
    place = tmp_path / "loop" / "target_voxel"
    np.save(
        place / "000001.npy", read_volume(str(place / "000001.npz")).dense().transpose(1, 2, 0, 3)
    )
    (place / "000001.npz").unlink()
    (place / "000002.npz").unlink()
    garden, loop = find_scenes(tmp_path)
    assert (garden.name, loop.name) == ("garden", "loop")
    assert [frame.name for frame in loop.frames] == ["000000", "000001"]
    assert loop.unpaired == ("000002",)
    files = VolumeFiles(2, 2**20)
    frame = loop.frames[1]
    assert same(files.read(frame.radar, "radar"), make_volume(2))
    assert same(files.read(frame.target, "target"), make_volume(3))


def test_files_travel_to_workers(tmp_path):
    frame = find_scenes(write_scenes(tmp_path))[0].frames[0]
    files = pickle.loads(pickle.dumps(VolumeFiles(2, 2**20)))
    assert same(files.read(frame.radar, "radar"), make_volume(0))


def spoiled(**changes):
    volume = make_volume(0)
    arrays = {
        "coords": volume.coords,
        "features": volume.features,
        "shape": np.array([*SHAPE, 4]),
    }
    for name, change in changes.items():
        arrays[name] = change(arrays[name].copy())
    return {name: array for name, array in arrays.items() if array is not None}


def outside(coords):
    coords[3] = (6, 0, 0)
    return coords


def not_finite(features):
    features[2, 1] = np.nan
    return features


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (spoiled(features=lambda a: None), "'features' is missing"),
        (spoiled(features=lambda a: a[:-1]), r"\(12, 3\) and features \(11, 4\)"),
        (spoiled(features=lambda a: a[:, :3]), r"features \(12, 3\)"),
        (spoiled(shape=lambda a: a[:3]), r"shape \[6, 8, 4\], expected \[X, Y, Z, 4\]"),
        (spoiled(coords=outside), "leave the grid"),
        (spoiled(coords=lambda a: a - 1), "leave the grid"),
        (spoiled(features=not_finite), "NaN or Inf"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, arrays, text):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=text) as caught:
        read_volume(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# np.load leaves a .npy that begins like an archive open, and mapped files have to be named to it.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"nothing of the kind"])
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_a_broken_file_is_named(tmp_path, content, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.{ending}: cannot be read"):
        read_volume(str(path))


def test_a_drive_that_fails_is_no_bad_volume(tmp_path, monkeypatch):
    """It would be left out of a run, which would go on with less."""

    def fails(*args, **options):
        raise OSError(errno.EIO, "Input/output error")

    write_npz(tmp_path / "a.npz", make_volume(0))
    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(OSError, match=r"a\.npz"):
        read_volume(str(tmp_path / "a.npz"))


def test_wrong_dense_arrays_and_absent_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 6, 8)))
    with pytest.raises(UserError, match=r"a.npy: shape \(4, 6, 8\), expected"):
        read_volume(str(tmp_path / "a.npy"))
    with pytest.raises(UserError, match=r"b.npz: no such file"):
        read_volume(str(tmp_path / "b.npz"))


def test_folders_without_scenes_or_pairs_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        find_scenes(tmp_path / "absent")
    with pytest.raises(UserError, match="no scene, expected folders"):
        find_scenes(tmp_path)
    (tmp_path / "prepared.json").write_text("{}")
    with pytest.raises(UserError, match=r"no scene, for tds_jax\.prepare wrote it and could"):
        find_scenes(tmp_path)
    write_scene(tmp_path, "a", frames=1)
    place = tmp_path / "a" / "radar_voxel"
    (place / "000000.npz").rename(place / "7.npz")
    with pytest.raises(UserError, match=r"a: no radar frame.*unpaired: 000000, 7"):
        find_scenes(tmp_path)


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    write_scene(tmp_path, "s", frames=12)
    for folder in ("radar_voxel", "target_voxel"):
        for path in sorted((tmp_path / "s" / folder).iterdir()):
            path.rename(path.with_name(f"{int(path.stem)}.npz"))
    names = [frame.name for frame in find_scenes(tmp_path)[0].frames]
    assert names == [str(number) for number in range(12)]


def test_names_are_ordered_by_exact_numbers():
    names = ["9", "10", "1.25", "1.5", "007", "7", "a2", "a10", "1705391169225675899"]
    names.append("1705391169225675898")  # one nanosecond: f64 has no two numbers for them
    ordered = ["1.25", "1.5", "007", "7", "9", "10", "1705391169225675898", "1705391169225675899"]
    assert sorted(names, key=by_number) == [*ordered, "a2", "a10"]


def test_upper_case_endings_are_read_and_twins_of_another_system_are_not(tmp_path):
    write_scene(tmp_path, "s", frames=2)
    for folder in ("radar_voxel", "target_voxel"):
        first = tmp_path / "s" / folder / "000000.npz"
        first.rename(first.with_suffix(".NPZ"))
        (tmp_path / "s" / folder / "._000001.npz").write_bytes(b"no archive")
    (scene,) = find_scenes(tmp_path)
    assert ([frame.name for frame in scene.frames], scene.unpaired) == (["000000", "000001"], ())
    assert len(read_volume(scene.frames[0].radar.path).coords)


def test_a_scene_that_is_linked_does_not_count_twice(tmp_path):
    write_scene(tmp_path, "s")
    (tmp_path / "t").symlink_to(tmp_path / "s")
    with pytest.raises(UserError, match=r"t: the same folder as .*s by a link, .* remove one"):
        find_scenes(tmp_path)


def test_nan_in_a_dense_occupancy_is_refused_as_in_a_sparse_one(tmp_path):
    dense = np.zeros((*SHAPE, 4), np.float32)
    dense[0, 0, 0, 0], dense[1, 0, 0, 0] = 1, np.nan
    np.save(tmp_path / "a.npy", dense)
    with pytest.raises(UserError, match=r"features hold NaN or Inf"):
        read_volume(str(tmp_path / "a.npy"))


def test_two_files_of_one_frame_are_refused_and_those_of_an_archiver_are_none(tmp_path):
    for name in ("2.npz", "10.NPY", "._2.npz"):
        (tmp_path / name).touch()
    assert list(frames_of(tmp_path, (".npz", ".npy"))) == ["2", "10"]
    (tmp_path / "11.npz").symlink_to(tmp_path / "2.npz")
    with pytest.raises(UserError, match=r"11.npz: a link to 2.npz beside it, .* remove it"):
        frames_of(tmp_path, (".npz", ".npy"))
    (tmp_path / "11.npz").unlink()
    (tmp_path / "2.npy").touch()
    with pytest.raises(UserError, match=r"are of one frame; remove one"):
        frames_of(tmp_path, (".npz", ".npy"))
