"""Days that are kept are those of the files, read once."""

import pickle

import numpy as np
import pytest

from tds_jax.data.grid_record import WHOLE
from tds_jax.forecast.kept import KeptDays
from tds_jax.forecast.opened import open_fields
from tests.forecast.small import record, small_task
from tests.kept import require_as_set

NAMES = ("swvl1", "tp")
SHAPE = (80, 5, 6)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("kept") / "daily.nc"
    record(count=SHAPE[0]).to_netcdf(place, engine="h5netcdf")
    return place


def opened(path, keep_bytes, land_mask=""):
    how = {"accumulated": (), "land_mask": land_mask, "downsample": 1, "keep_bytes": keep_bytes}
    return open_fields(path, NAMES, "swvl1", **how)


def counted(fields):
    """Calls of what reads a record's files, of the fields that keep its days."""
    calls, read = [], fields._record.read

    def counting(name, start, stop, *more):
        calls.append((name, start, stop))
        return read(name, start, stop, *more)

    fields._record.read = counting
    return calls


def test_kept_days_are_those_of_the_files_in_any_order_of_any_region_and_variable(path):
    plain, kept = opened(path, 0), opened(path, KeptDays.size(SHAPE, NAMES))
    calls, rng = counted(kept), np.random.default_rng(0)
    for _ in range(60):
        start, stop = np.sort(rng.choice(SHAPE[0] + 1, 2, replace=False)).tolist()
        rows, columns = (slice(*np.sort(rng.choice(n + 1, 2, replace=False))) for n in SHAPE[1:])
        names = [(), NAMES, NAMES[::-1], NAMES[:1], NAMES[1:]][rng.integers(5)]
        region = (rows, columns) if rng.integers(2) else WHOLE
        found = kept.read(start, stop, names, region)
        np.testing.assert_array_equal(found, plain.read(start, stop, names, region))
        found[...] = -1  # the caller's own
    days = {name: [d for n, *run in calls if n == name for d in range(*run)] for name in NAMES}
    assert days == {name: list({}.fromkeys(days[name])) for name in NAMES}  # none is read twice
    np.testing.assert_array_equal(kept.land, plain.land)


def test_a_record_that_does_not_fit_is_not_kept(path):
    fields = opened(path, KeptDays.size(SHAPE, NAMES) - 1)
    calls = counted(fields)
    for _ in range(2):
        fields.read(0, 3)
    assert calls == 2 * [("swvl1", 0, 3), ("tp", 0, 3)]


def test_a_mask_hides_cells_of_kept_days_and_another_target_shares_them(path, tmp_path):
    land = record(count=1).isel(time=0, drop=True)[["swvl1"]]
    land.swvl1[...] = np.arange(6) > 2
    land.to_netcdf(tmp_path / "land.nc", engine="h5netcdf")
    asked = path, 2**20, f"{tmp_path}/land.nc:swvl1"
    fields = opened(*asked)
    calls = counted(fields)
    for one in (fields, fields.aimed("tp"), fields):
        found = one.read(4, 9)
        assert np.isnan(found[..., :3, 0]).all()
        assert np.isfinite(found[..., :3, 1]).any()
    assert len(calls) == 2


def test_a_copy_for_another_process_has_none_and_reads_them_itself(path):
    fields = opened(path, 2**20)
    whole = fields.read(0, SHAPE[0])
    packed = pickle.dumps(fields)
    assert len(packed) < whole.nbytes / 2 + len(pickle.dumps(opened(path, 0)))
    again = pickle.loads(packed)
    calls = counted(again)
    np.testing.assert_array_equal(again.read(3, 8), whole[3:8])
    assert calls == [("swvl1", 3, 8), ("tp", 3, 8)]


@pytest.mark.parametrize("keep", [0, 2**20])
def test_a_run_keeps_what_its_setting_says_and_a_plan_counts_it(path, tmp_path, keep):
    task = small_task(path, tmp_path, data__variables=NAMES, data__keep_bytes=keep)
    task.source("train")  # which looks for land
    require_as_set(task, counted(task.fields), 3)
