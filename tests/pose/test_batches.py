"""A batch read at once holds what its windows hold when each is read as rows."""

import h5py
import numpy as np
import pandas
import pytest
from scipy import io

from tds_jax.data.session_files import SessionFiles
from tds_jax.data.windows import WindowSpec
from tds_jax.errors import UserError
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.selection import Selection
from tds_jax.pose.sessions import load_sessions
from tds_jax.pose.windows import PoseWindows, place_windows
from tests.data.sessions import make_rows, write_rows

ROWS = 1200  # at 100 Hz: enough for three parts a second apart
SPEC = WindowSpec(40, 17, 8, 5)
SPARSE = np.arange(ROWS) % 4 == 1


def separate(path, rows):
    with h5py.File(path, "w") as file:
        file.attrs["sample_rate"] = 100.0
        file.attrs["side"] = "left"
        for name in rows.dtype.names:
            file[name] = rows[name]


def matlab(path, rows):
    arrays = {name: rows[name] for name in rows.dtype.names}
    io.savemat(path, arrays | {"fs": 100.0, "side": "right"})


def csv(path, rows):
    parts = {"time": rows["time"]} | {f"emg_{i}": rows["emg"][:, i] for i in range(4)}
    parts |= {f"joint_{i}": rows["joint_angles"][:, i] for i in range(3)}
    pandas.DataFrame(parts).to_csv(path, index=False)


def make_all_kinds(folder):
    made = [make_rows(ROWS, seed=i, dtype="<f8" if i % 2 else "<f4") for i in range(7)]
    for rows in made:
        rows["joint_angles"][300:340] = 0  # failed
    made[2]["joint_angles"] *= 180 / np.pi
    made[3]["joint_angles"][~SPARSE] = np.nan
    sides = [{"sample_rate": 100.0, "side": side} for side in ("left", "right")]
    write_rows(folder / "0.hdf5", made[0], attributes=sides[0])
    gzip = {"chunks": (64,), "compression": "gzip"}
    write_rows(folder / "1.hdf5", made[1], attributes=sides[1], **gzip)
    write_rows(folder / "2.hdf5", made[2], attributes=sides[0] | {"angle_unit": "deg"})
    write_rows(folder / "3.hdf5", made[3], attributes=sides[0], **gzip)
    separate(folder / "4.h5", made[4])
    matlab(folder / "5.mat", made[5])
    csv(folder / "6.csv", made[6])


def read_alone(source, files, index):
    """The example at an index of unmoved windows, by its rows."""
    session, start, repeated = place_windows(source.table, SPEC, "mask").locate(index)
    emg, angles = source.table.rows(files, session, start, start + SPEC.window)
    angles = angles[SPEC.label_offset :: SPEC.label_stride]
    valid = valid_rows(angles)
    weight = valid.astype(np.float32)
    weight[:repeated] = 0
    angles = np.where(valid[:, None], angles, np.float32(0))
    number = np.int32(source.table.number[session])
    return {"emg": emg, "joint_angles": angles, "weight": weight, "session": number}


def load(folder, files, **changes):
    chosen = {"channels": (2, 0), "flip_left": (), "joint_names": ()} | changes
    return load_sessions(
        str(folder), files=files, selection=Selection((), (), (), 1.0, **chosen), seed=0,
        group="emg2pose", window=40, split_by="time", split_ratio=(0.6, 0.2, 0.2),
        fold="", angle_unit="auto", max_bad_sessions=0, cache_dir=None,
    )[0]  # fmt: skip


@pytest.mark.parametrize("flip_left", [(), ("joint_1",)])
def test_a_batch_of_every_kind_of_recording_is_its_windows_one_by_one(tmp_path, flip_left):
    make_all_kinds(tmp_path)
    if flip_left:
        (tmp_path / "6.csv").unlink()  # tells no side
    files = SessionFiles(3, 1 << 20, 0.75)
    table = load(tmp_path, files, flip_left=flip_left)
    kinds = [len(set(of.tolist())) for of in (table.label_step, table.scale)]
    assert (kinds, table.first.max() > 0) == ([2, 2], True)
    source = PoseWindows(table, files, SPEC, jitter=False)
    assert source.table is table
    indices = np.random.default_rng(0).permutation(len(source)).tolist()
    batch = source.examples(indices, None)
    for n, index in enumerate(indices):
        for name, leaf in read_alone(source, files, index).items():
            np.testing.assert_array_equal(batch[name][n], leaf)
            assert batch[name].dtype == leaf.dtype
    files.close()


@pytest.mark.parametrize("write", [write_rows, separate])
def test_rows_that_are_there_no_more_are_never_others(tmp_path, write):
    """Behind a table's last row lie the file's other bytes."""
    for number in range(3):
        write(tmp_path / f"{number}.h5", make_rows(ROWS, seed=number))
    files = SessionFiles(1, 1 << 20, 0.75)
    source = PoseWindows(load(tmp_path, files), files, SPEC, jitter=False)
    files.close()
    for number in range(3):
        write(tmp_path / f"{number}.h5", make_rows(30, seed=number))
    with pytest.raises(UserError, match=r"timeseries has 30 rows, not those from 0 to 40 that"):
        source.examples([0], None)
