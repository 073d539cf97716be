"""Volumes that are kept are those of the files, read once."""

import os
import pickle

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data.kept import OBJECTS, KeptVolumes
from tds_jax.voxel.data.volumes import Place, Volume, read_volume, write_npz
from tests.kept import require_as_set
from tests.voxel.small import small_task

SHAPE = (7, 6, 4)


def volume(seed, shape=SHAPE, count=9):
    rng = np.random.default_rng(seed)
    cells = rng.choice(int(np.prod(shape)), count, replace=False)
    features = rng.uniform(1, 2, (count, 4)).astype(np.float32)
    return Volume(np.stack(np.unravel_index(cells, shape), axis=1), features, shape)


@pytest.fixture
def places(tmp_path):
    """Of three volumes of nine voxels."""
    for seed in range(3):
        write_npz(tmp_path / f"{seed}.npz", volume(seed))
    return [Place(str(tmp_path / f"{seed}.npz")) for seed in range(3)]


def kept(count):
    """What keeps so many of them."""
    return KeptVolumes(1, 0, int(count * (9 * (3 * 2 + 4 * 4) + OBJECTS)))


def gone(places):
    for place in places:
        os.remove(place.path)


def test_a_kept_volume_is_that_of_its_file_and_can_be_asked_for_when_that_has_gone(places):
    files = kept(3)
    first = [files.read(place, "radar") for place in places]
    gone(places)
    for seed, place in enumerate(places):
        again = files.read(place, "radar")
        for found in (first[seed], again):
            np.testing.assert_array_equal(found.coords, volume(seed).coords)
            np.testing.assert_array_equal(found.features, volume(seed).features)
            assert found.coords.dtype == np.int64
            assert found.shape == SHAPE
        again.coords[...] = -1  # the caller's own
        np.testing.assert_array_equal(files.read(place, "radar").coords, volume(seed).coords)


def test_what_a_caller_shares_cannot_be_written_to(places):
    files = kept(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            files.read(places[0], "radar").features[...] = 0


def test_no_more_are_kept_than_fit_and_the_rest_is_read_every_time(places):
    files = kept(2.9)
    for place in places:
        files.read(place, "radar")
    gone(places)
    for place in places[:2]:
        assert len(files.read(place, "radar").coords) == 9
    with pytest.raises(UserError, match=r"2\.npz: no such file"):
        files.read(places[2], "radar")


def test_a_place_is_kept_of_each_kind(tmp_path):
    files = KeptVolumes(1, 0, 2**20)
    write_npz(tmp_path / "0.npz", volume(0))
    place = Place(str(tmp_path / "0.npz"))
    files.read(place, "radar")
    os.remove(place.path)
    files.read(place, "radar")
    with pytest.raises(UserError, match="no such file"):
        files.read(place, "target")


def test_a_grid_of_more_cells_than_two_bytes_count_is_kept_too(tmp_path):
    wide = volume(0, (2**16 + 3, 1, 1))
    wide.coords[0, 0] = 2**16 + 2
    write_npz(tmp_path / "0.npz", wide)
    files, place = KeptVolumes(1, 0, 2**20), Place(str(tmp_path / "0.npz"))
    for _ in range(2):
        np.testing.assert_array_equal(files.read(place, "radar").coords, wide.coords)
    np.testing.assert_array_equal(read_volume(place.path).coords, wide.coords)


def test_a_copy_for_another_process_has_none_and_reads_them_itself(places):
    files = kept(3)
    empty = len(pickle.dumps(files))
    files.read(places[0], "radar")
    packed = pickle.dumps(files)
    assert len(packed) == empty
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read(places[0], "radar").coords, volume(0).coords)
    gone(places)
    assert len(again.read(places[0], "radar").coords) == 9


@pytest.mark.parametrize("keep", [0, 2**20])
def test_a_run_keeps_what_its_setting_says_and_a_plan_counts_it(tmp_path, monkeypatch, keep):
    task, calls = small_task(tmp_path, data__keep_bytes=keep), []

    def counting(path):
        calls.append(path)
        return read_volume(path)

    monkeypatch.setattr("tds_jax.voxel.data.volumes.read_volume", counting)
    require_as_set(task, calls, 0)
