import os
import pickle

import h5py
import numpy as np
import pytest

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.windows import WindowSpec
from tds_jax.errors import UserError
from tds_jax.pose.folds import require_fold
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.selection import Selection
from tds_jax.pose.sessions import load_sessions
from tds_jax.pose.splits import split_by_hash
from tds_jax.pose.statistics import fit_normalizer
from tds_jax.pose.windows import PoseWindows, session_blocks
from tests.data.sessions import make_rows, write_folder, write_rows


@pytest.fixture
def files():
    made = RowFiles(4, 1 << 20, 0.75)
    yield made
    made.close()


EVERYTHING = Selection((), (), (), 1.0, (), (), ())


def load(folder, files, **changes):
    settings = {
        "selection": EVERYTHING,
        "seed": 0,
        "group": "emg2pose",
        "window": 40,
        "split_by": "session",
        "split_ratio": (0.6, 0.2, 0.2),
        "fold": "",
        "angle_unit": "auto",
        "max_bad_sessions": 0,
        "cache_dir": None,
    } | changes
    return load_sessions(str(folder), files=files, **settings)


def rewrite(path, change):
    with h5py.File(path) as file:
        rows = file["emg2pose/timeseries"][:]
        attributes = dict(file["emg2pose"].attrs)
    changed = change(rows)
    write_rows(path, rows if changed is None else changed, attributes=attributes)


def drop_field(name):
    return lambda rows: np.array(
        rows[[n for n in rows.dtype.names if n != name]].tolist(),
        [(n, rows.dtype[n]) for n in rows.dtype.names if n != name],
    )


def set_value(field, value, *where):
    def change(rows):
        rows[field][where] = value

    return change


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def use_unknown_filter(path):
    rows = make_rows(50)
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((50,))
        plan.set_filter(32_123, h5py.h5z.FLAG_OPTIONAL)
        group = file.create_group("emg2pose")
        h5py.h5d.create(
            group.id,
            b"timeseries",
            h5py.h5t.py_create(rows.dtype),
            h5py.h5s.create_simple((50,)),
            plan,
        )


def damage_a_chunk(path):
    write_rows(path, make_rows(3000), chunks=(3000,), compression="gzip")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)


# Each makes s1.hdf5 of a folder of three unusable; the line must name the file and the remedy.
SKIPPED = {
    "not HDF5": (
        lambda path: path.write_text("hello"),
        "s1.hdf5: not an HDF5 file; replace it or move it away",
    ),
    "empty file": (lambda path: path.write_bytes(b""), "s1.hdf5: not an HDF5 file"),
    "truncated": (truncate, "s1.hdf5: truncated HDF5 file; copy or download it again"),
    "damaged chunk": (
        damage_a_chunk,
        "s1.hdf5: rows 0 to 3000 of emg2pose/timeseries cannot be read",
    ),
    "filter": (
        use_unknown_filter,
        "s1.hdf5: HDF5 filter 32123 is not installed; pip install hdf5plugin, or rewrite",
    ),
    "no group": (
        lambda path: write_rows(path, make_rows(50), group="other"),
        "s1.hdf5: group 'emg2pose' is missing, the file has ['other']; set data.group",
    ),
    "no dataset": (
        lambda path: write_rows(path, make_rows(50), name="series"),
        "s1.hdf5: dataset emg2pose/timeseries is missing, the group has ['series']",
    ),
    "no compound": (
        lambda path: write_rows(path, np.zeros((50, 4))),
        "s1.hdf5: dataset emg2pose/timeseries has shape (50, 4) and type float64, expected one",
    ),
    "no emg": (
        lambda path: rewrite(path, drop_field("emg")),
        "s1.hdf5: field 'emg' is missing, the rows have ['joint_angles', 'time']; rename",
    ),
    "no angles": (
        lambda path: rewrite(path, drop_field("joint_angles")),
        "s1.hdf5: field 'joint_angles' is missing, the rows have ['emg', 'time']; rename",
    ),
    "scalar emg": (
        lambda path: write_rows(
            path, np.zeros(50, [("emg", "<f4"), ("joint_angles", "<f4", (3,))])
        ),
        "s1.hdf5: field 'emg' has row shape () and type float32, expected a vector of numbers",
    ),
    "no rate": (
        lambda path: write_rows(
            path, drop_field("time")(make_rows(50)), attributes={"session": "r1"}
        ),
        "s1.hdf5: attribute 'sample_rate' of group 'emg2pose' is None, expected samples per sec",
    ),
    "rate 0": (
        lambda path: write_rows(path, make_rows(50), attributes={"sample_rate": 0.0}),
        "s1.hdf5: attribute 'sample_rate' of group 'emg2pose' is 0.0, expected",
    ),
    "time backwards": (
        lambda path: rewrite(path, set_value("time", 0.0, 30)),
        "s1.hdf5: time runs backwards at row 30; sort the rows or cut the file there",
    ),
    "short": (
        lambda path: write_rows(path, make_rows(39)),
        "s1.hdf5: 39 samples are shorter than a window of 40; lower data.window",
    ),
    "no rows": (lambda path: write_rows(path, make_rows(0)), "s1.hdf5: 0 samples are shorter"),
    "all failed": (
        lambda path: rewrite(path, set_value("joint_angles", 0, slice(None))),
        "s1.hdf5: no row has valid joint angles; leave the file out",
    ),
}


@pytest.mark.parametrize(("make_bad", "text"), SKIPPED.values(), ids=SKIPPED.keys())
def test_a_bad_session_is_one_line_and_counts_against_the_limit(tmp_path, files, make_bad, text):
    write_folder(tmp_path, [50, 50, 50])
    make_bad(tmp_path / "s1.hdf5")
    table, warnings = load(tmp_path, files, max_bad_sessions=1)
    assert len(table) == 2
    skips = [line for line in warnings if line.startswith("skipped ")]
    assert len(skips) == 1
    assert text in skips[0]
    assert "\n" not in skips[0]
    with pytest.raises(UserError) as error:
        load(tmp_path, files)
    assert "1 sessions cannot be used, more than data.max_bad_sessions=0: " in str(error.value)
    assert text in str(error.value)


def metadata(text, encoding="utf-8"):
    return lambda folder: (folder / "metadata.csv").write_text(text, encoding)


# Each spoils a folder of three good sessions beyond what training can go on with.
FATAL = {
    "missing folder": (
        lambda folder: os.rename(folder, f"{folder}x"),
        "no such folder; check the path",
    ),
    "no sessions": (
        lambda folder: [os.remove(folder / name) for name in os.listdir(folder)],
        "no session files (.hdf5, .h5, .mat, .csv) in the folder; give the folder that holds them",
    ),
    "rates": (
        lambda folder: write_rows(
            folder / "s1.hdf5", make_rows(50), attributes={"sample_rate": 250.0}
        ),
        "sessions differ in sample rate (Hz): s0.hdf5 has 100, s1.hdf5 has 250; train on one kind",
    ),
    "channels": (
        lambda folder: write_rows(folder / "s2.hdf5", make_rows(50, channels=16)),
        "sessions differ in EMG channels: s0.hdf5 has 4, s2.hdf5 has 16",
    ),
    "joints": (
        lambda folder: write_rows(folder / "s1.hdf5", make_rows(50, joints=20)),
        "sessions differ in joints: s0.hdf5 has 3, s1.hdf5 has 20",
    ),
    "column": (
        metadata("filename,user\ns0,a\n"),
        "metadata.csv: missing column split, found ['filename', 'user']; add it or remove",
    ),
    "encoding": (
        metadata("filename,split\nü,train\n", "latin-1"),
        "metadata.csv is no CSV in UTF-8 ('utf-8' codec can't decode byte 0xfc",
    ),
    "empty metadata": (metadata(""), "metadata.csv: missing column filename, split, found []"),
    "no rows": (metadata("filename,split\n"), "metadata.csv names no session; add one row"),
    "unknown split": (
        metadata("filename,split\ns0,train\ns1,dev\n"),
        "metadata.csv: line 3 has split 'dev', expected one of train, val, test; correct it",
    ),
    "row cut short": (
        metadata("split,filename\ntrain,s0\nval\n"),
        "metadata.csv: line 3 names no file; complete or remove it",
    ),
    "twice": (
        metadata("filename,split\ns0,train\ns0.hdf5,val\n"),
        "metadata.csv: line 3 names s0.hdf5 again; keep one row per file",
    ),
}


@pytest.mark.parametrize(("spoil", "text"), FATAL.values(), ids=FATAL.keys())
def test_what_training_cannot_go_on_with_is_one_line(tmp_path, files, spoil, text):
    folder = tmp_path / "d"
    write_folder(folder, [50, 50, 50])
    spoil(folder)
    with pytest.raises(UserError) as error:
        load(folder, files, max_bad_sessions=9)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_of_more_than_the_folder_holds_is_a_note(tmp_path, files):
    write_folder(tmp_path, [50, 50, 50])
    (tmp_path / "metadata.csv").write_text("filename,split\ns0,train\nx,val\ny.hdf5,val\ns1,val\n")
    table, warnings = load(tmp_path, files)
    assert table.names.tolist() == [b"s0.hdf5", b"s1.hdf5"]
    assert (
        f"{tmp_path}/metadata.csv: 2 of 4 named files are not in the folder: x, y.hdf5" in warnings
    )


def test_sessions_come_in_the_order_of_their_numbers_without_hidden_twins(tmp_path, files):
    for i in (10, 2, 1):
        write_rows(tmp_path / f"s{i}.hdf5", make_rows(50, seed=i))
    (tmp_path / "._s1.hdf5").write_bytes(b"Mac OS X")
    table, warnings = load(tmp_path, files)
    assert table.names.tolist() == [b"s1.hdf5", b"s2.hdf5", b"s10.hdf5"]
    assert f"{tmp_path}: 1 hidden files are no sessions: ._s1.hdf5" in warnings


def test_a_link_to_another_session_does_not_count_twice(tmp_path, files):
    inside = tmp_path / "in"
    inside.mkdir()
    write_rows(inside / "s1.hdf5", make_rows(50))
    write_rows(tmp_path / "elsewhere.hdf5", make_rows(50, seed=1))
    for name, target in (
        ("s0", "s1.hdf5"), ("s2", "../elsewhere.hdf5"), ("s3", "../elsewhere.hdf5")
    ):  # fmt: skip
        (inside / f"{name}.hdf5").symlink_to(target)
    table, warnings = load(inside, files)
    assert table.names.tolist() == [b"s1.hdf5", b"s2.hdf5"]
    assert f"{inside}: 2 links to other sessions do not count: s0.hdf5, s3.hdf5" in warnings


def test_no_usable_session_says_why_of_one(tmp_path, files):
    write_folder(tmp_path, [5, 6])
    with pytest.raises(UserError, match=r"none of the 2 sessions is usable; .*shorter than"):
        load(tmp_path, files, max_bad_sessions=9)
    with pytest.raises(UserError, match="is a file; give the folder"):
        load(tmp_path / "s0.hdf5", files)


def test_metadata_gives_splits_and_groups_and_files_fill_the_gaps(tmp_path, files):
    write_folder(tmp_path, [50, 50, 50, 50])
    metadata(
        "filename,user,split,generalization\ns2.hdf5,u2,test,user\ns0,u0,train,none\ns1,,val,\n"
    )(tmp_path)
    table, warnings = load(tmp_path, files)
    assert table.names.tolist() == [b"s0.hdf5", b"s1.hdf5", b"s2.hdf5"]
    assert [SPLITS[i] for i in table.split] == ["train", "val", "test"]
    assert table.group_of("user") == ["u0", "", "u2"]
    assert table.group_of("session") == ["r0", "r1", "r2"]
    assert table.group_of("generalization") == ["none", "", "user"]
    assert len(warnings) == 1
    assert "1 files are not in metadata.csv and stay unused (first: s3.hdf5)" in warnings[0]
    picked = table.select("test")
    assert (picked.number.tolist(), picked.path(0)) == ([2], str(tmp_path / "s2.hdf5"))


@pytest.mark.parametrize("n", range(3, 40))
def test_hash_splits_are_never_empty_and_close_to_the_ratio(n):
    split = split_by_hash([f"session{i}" for i in range(n)], (0.7, 0.15, 0.15))
    counts = np.bincount(split, minlength=3)
    assert counts.min() >= 1
    assert np.abs(counts[1:] - 0.15 * n).max() <= 1


def test_a_new_session_moves_few_others_and_order_does_not_matter():
    keys = [f"session{i}" for i in range(100)]
    before = split_by_hash(keys, (0.7, 0.15, 0.15))
    after = split_by_hash([*keys, "new"], (0.7, 0.15, 0.15))
    assert np.sum(before != after[:100]) <= 2
    np.testing.assert_array_equal(split_by_hash(keys[::-1], (0.7, 0.15, 0.15)), before[::-1])


def test_files_of_one_session_share_a_split(tmp_path, files):
    assert set(split_by_hash(["a", "b", "c", "a"], (1, 1, 1))[[0, 3]].tolist()) != {0, 1}
    for i in range(8):
        attributes = {"sample_rate": 100.0, "session": f"r{i // 2}"}
        write_rows(tmp_path / f"s{i}.hdf5", make_rows(50, seed=i), attributes=attributes)
    table, _ = load(tmp_path, files)
    np.testing.assert_array_equal(table.split[::2], table.split[1::2])
    assert set(table.split.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("n", "ratio", "counts"),
    [
        (1, (0.7, 0.15, 0.15), [1, 0, 0]),
        (2, (0.7, 0.15, 0.15), [1, 1, 0]),
        (9, (0.8, 0.2, 0), [7, 2, 0]),
        (9, (0.1, 0.8, 0.1), [1, 7, 1]),
    ],
)
def test_splits_of_few_sessions_and_zero_shares(n, ratio, counts):
    split = split_by_hash([str(i) for i in range(n)], ratio)
    assert np.bincount(split, minlength=3).tolist() == counts


def test_an_empty_split_is_a_warning(tmp_path, files):
    write_folder(tmp_path, [50, 50])
    assert any("the test split has no session" in line for line in load(tmp_path, files)[1])


def make_dirty_folder(folder):
    """Failed, NaN-labelled and NaN-EMG rows in sessions of awkward lengths."""
    lengths = [203, 97, 40, 151]
    clean = write_folder(folder, lengths)
    for i, rows in enumerate(clean):
        rows["joint_angles"][10 + i : 25] = 0
        rows["joint_angles"][30, 1] = np.nan
        rows["emg"][90:91, 2] = np.inf
        attributes = {"sample_rate": 100.0, "session": f"r{i}"}
        write_rows(folder / f"s{i}.hdf5", rows, attributes=attributes)
    return clean


SPEC = WindowSpec(40, 7, 9, 4)
TILE = WindowSpec(40, None, 9, 4)


def assert_is_window(example, rows, start, spec):
    """Example equals the rows read with numpy; returns the label rows it counts."""
    emg = rows["emg"][start : start + spec.window]
    labels = np.arange(start + spec.label_offset, start + spec.window, spec.label_stride)
    angles = rows["joint_angles"][labels]
    valid = np.isfinite(angles).all(1) & (np.abs(angles) > 1e-8).any(1)
    assert np.isfinite(example["emg"]).all()
    np.testing.assert_array_equal(example["emg"], emg)
    np.testing.assert_array_equal(example["joint_angles"][valid], angles[valid])
    assert not example["joint_angles"][~valid].any()
    assert not example["weight"][~valid].any()
    return labels[example["weight"] > 0], valid


@pytest.mark.parametrize("storage", [{}, {"compression": "gzip", "chunks": (16,)}])
def test_windows_hold_the_rows_of_the_file_with_masks(tmp_path, files, storage):
    clean = make_dirty_folder(tmp_path)
    for i, rows in enumerate(clean):
        kind = [(n, rows.dtype[n].base if n == "time" else (np.float64, rows.dtype[n].shape))
                for n in rows.dtype.names]  # fmt: skip
        if storage:
            write_rows(tmp_path / f"s{i}.hdf5", rows.astype(kind), **storage)
    table, warnings = load(tmp_path, files)
    assert sum("rows have NaN or Inf in emg" in line for line in warnings) == 4
    source = PoseWindows(table, files, SPEC, jitter=False)
    seen = set()
    for i in range(len(source)):
        example = source.example(i, np.random.default_rng(i))
        session = int(example["session"])
        start = next(
            s
            for s in range(0, len(clean[session]) - 39, 7)
            if np.array_equal(clean[session]["emg"][s : s + 40], example["emg"])
        )
        counted, valid = assert_is_window(example, clean[session], start, SPEC)
        assert len(counted) == valid.sum() > 0
        seen.add((session, start))
    assert len(seen) == len(source)


def test_tiled_windows_count_every_valid_row_once(tmp_path, files):
    clean = write_folder(tmp_path, [203, 97, 40, 151])
    for i, rows in enumerate(clean):
        rows["joint_angles"][10:60] = 0
        write_rows(tmp_path / f"s{i}.hdf5", rows)
    table, _ = load(tmp_path, files)
    source = PoseWindows(table, files, TILE, jitter=False)
    total = sum(source.example(i, None)["weight"].sum() for i in range(len(source)))
    expected = 0
    for rows in clean:
        last = (len(rows) - 40) // 4 * 4 + 9 + 28
        expected += valid_rows(rows["joint_angles"][np.arange(9, last + 1, 4)]).sum()
    assert total == expected


def test_jitter_moves_windows_inside_session_and_clear_of_broken_rows(tmp_path, files):
    clean = make_dirty_folder(tmp_path)
    table, _ = load(tmp_path, files)
    plain, moved = (PoseWindows(table, files, SPEC, jitter=j) for j in (False, True))
    shifts = set()
    for i in range(len(moved)):
        for seed in range(12):
            example = moved.example(i, np.random.default_rng(seed))
            rows = clean[int(example["session"])]
            home = plain.example(i, None)["emg"]
            start, origin = (
                next(
                    s
                    for s in range(len(rows) - 39)
                    if np.array_equal(rows["emg"][s : s + 40], emg, equal_nan=True)
                )
                for emg in (example["emg"], home)
            )
            assert_is_window(example, rows, start, SPEC)
            assert example["weight"].any()
            shifts.add(start - origin)
    assert shifts == set(range(7))
    np.testing.assert_array_equal(moved.example(3, None)["emg"], plain.example(3, None)["emg"])


def test_rotation_rolls_electrodes_both_ways_alike_in_training_only(tmp_path, files):
    rows = write_folder(tmp_path, [200])[0]
    table, _ = load(tmp_path, files)
    source = PoseWindows(table, files, SPEC, jitter=False, rotation=1)
    plain = source.example(0, None)
    np.testing.assert_array_equal(plain["emg"], rows["emg"][: len(plain["emg"])])
    shifts = []
    for seed in range(600):
        found = source.example(0, np.random.default_rng(seed))
        np.testing.assert_array_equal(found["joint_angles"], plain["joint_angles"])
        (shift,) = (
            s for s in (-1, 0, 1) if np.array_equal(np.roll(plain["emg"], s, 1), found["emg"])
        )
        shifts.append(shift)
    # 600 draws of three: standard deviation of a share 0.019
    assert all(abs(shifts.count(s) / 600 - 1 / 3) < 0.08 for s in (-1, 0, 1))


def test_jitter_never_leaves_a_window_without_a_valid_row(tmp_path, files):
    rows = make_rows(200)
    rows["joint_angles"][:60] = 0
    rows["joint_angles"][61:] = 0
    write_rows(tmp_path / "s0.hdf5", rows)
    source = PoseWindows(load(tmp_path, files)[0], files, SPEC, jitter=True)
    for i in range(len(source)):
        for seed in range(20):
            assert source.example(i, np.random.default_rng(seed))["weight"].sum() == 1


def test_a_batch_holds_its_examples_whatever_stands_beside_them(tmp_path, files):
    rows = make_dirty_folder(tmp_path)[0]
    lonely = make_rows(len(rows), seed=9)
    lonely["joint_angles"] = 0
    lonely["joint_angles"][60] = 1  # most moves lose the only row that counts
    write_rows(tmp_path / "s0.hdf5", lonely)
    source = PoseWindows(load(tmp_path, files)[0], files, SPEC, jitter=True, rotation=1)
    indices = [*range(len(source))][::-1] * 2
    batch = source.examples(indices, [np.random.default_rng(n) for n in range(len(indices))])
    for n, index in enumerate(indices):
        for name, leaf in source.example(index, np.random.default_rng(n)).items():
            np.testing.assert_array_equal(batch[name][n], leaf)
            assert batch[name].dtype == leaf.dtype


def test_splits_share_no_row(tmp_path, files):
    write_folder(tmp_path, [90] * 6)
    table, _ = load(tmp_path, files)
    sessions = [
        {int(source.example(i, None)["session"]) for i in range(len(source))}
        for split in SPLITS
        for source in [PoseWindows(table.select(split), files, SPEC, jitter=False)]
    ]
    assert sum(len(part) for part in sessions) == len(set().union(*sessions)) == 6


def test_a_pickled_source_is_small_and_reads_the_same(tmp_path, files):
    make_dirty_folder(tmp_path)
    source = PoseWindows(load(tmp_path, files)[0], files, SPEC, jitter=True)
    expected = source.example(2, np.random.default_rng(1))
    stored = pickle.dumps(source)
    assert len(stored) < 6000
    assert len(repr(source)) < 200
    found = pickle.loads(stored).example(2, np.random.default_rng(1))
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)
        assert found[name].dtype == leaf.dtype


def test_a_table_without_windows_is_an_error(tmp_path, files):
    write_folder(tmp_path, [50, 50, 50])
    table, _ = load(tmp_path, files)
    with pytest.raises(UserError, match="hold no window of 60 samples"):
        PoseWindows(table, files, WindowSpec(60, None, 5, 1), jitter=False)
    with pytest.raises(ValueError, match="count rows of tiled windows twice"):
        PoseWindows(table, files, TILE, jitter=True)


@pytest.mark.parametrize("block_rows", [1, 33, 1000])
def test_blocks_join_to_the_whole_session(tmp_path, files, block_rows):
    clean = make_dirty_folder(tmp_path)
    table, _ = load(tmp_path, files)
    blocks = list(session_blocks(table, files, 0, block_rows))
    assert max(len(block.emg) for block in blocks) <= block_rows
    emg, angles, valid = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("emg", "joint_angles", "valid")
    )
    finite = np.isfinite(clean[0]["emg"]).all(1)
    np.testing.assert_array_equal(emg, clean[0]["emg"])
    np.testing.assert_array_equal(valid, finite & valid_rows(clean[0]["joint_angles"]))
    np.testing.assert_array_equal(angles[valid], clean[0]["joint_angles"][valid])
    assert np.isfinite(angles).all()


def test_normalizer_equals_numpy_over_all_finite_rows(tmp_path, files):
    clean = make_dirty_folder(tmp_path)
    table, _ = load(tmp_path, files)
    train = table.select("train")
    rows = np.concatenate([clean[i]["emg"] for i in train.number]).astype(np.float64)
    rows = rows[np.isfinite(rows).all(1)]
    found = fit_normalizer(train, files, 0, 64)
    # float32 storage of the result: half an ulp, 6e-8.
    np.testing.assert_allclose(found["mean"], rows.mean(0), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found["scale"], rows.std(0), rtol=1e-7)
    sampled = fit_normalizer(train, files, 50, 64)
    assert np.abs(sampled["scale"] / found["scale"] - 1).max() < 0.5
    assert not np.array_equal(sampled["scale"], found["scale"])


def test_sparse_labels_are_met_by_every_grid_wherever_they_stand(tmp_path, files):
    """Labels on every fourth row, in each of the four phases, under a grid of every fourth row."""
    line = np.arange(200)[:, None] / 100 + [1.0, 2.0, 3.0]
    for phase in range(4):
        files.close()
        write_folder(tmp_path, [200, 200, 200])
        on = (np.arange(200) % 4 == phase)[:, None]
        for i in range(3):
            rewrite(tmp_path / f"s{i}.hdf5", set_value("joint_angles", np.where(on, line, np.nan)))
        table, warnings = load(tmp_path, files)
        assert table.label_step.tolist() == [4] * 3
        assert warnings == [
            f"{tmp_path}: labels stand on every 4th row in 3 of 3 sessions (first: "
            f"{tmp_path}/s0.hdf5): those of the rows between are interpolated, 9 rows have none "
            "near (weight 0)"
        ]
        windows = PoseWindows(table.select("train"), files, WindowSpec(40, 20, 8, 4), jitter=False)
        first = windows.example(1, None)  # rows 20 to 59: labels on both sides of all
        assert first["weight"].tolist() == [1] * 8
        # interpolated in f32: values below 8
        np.testing.assert_allclose(first["joint_angles"], line[28:60:4], atol=8 * 2**-23)
        (block,) = session_blocks(table, files, 0, 1000)
        assert block.valid.sum() == 197
        np.testing.assert_allclose(block.joint_angles[block.valid][:190], line[phase:][:190], 1e-6)


def test_sessions_whose_labels_meet_no_grid_are_named(tmp_path, files):
    write_folder(tmp_path, [200, 200])
    lone = np.where((np.arange(200) == 33)[:, None], np.ones((200, 3)), np.nan)
    rewrite(tmp_path / "s1.hdf5", set_value("joint_angles", lone))
    table, _ = load(tmp_path, files, split_ratio=(1, 0, 0))
    windows = PoseWindows(table, files, WindowSpec(40, 20, 8, 4), jitter=False)
    (line,) = windows.empty()
    assert line.startswith("1 of 2 sessions hold no window of 40 samples with a label on the model")
    assert line.endswith(f"are left out: {tmp_path}/s1.hdf5")
    every = PoseWindows(table, files, WindowSpec(40, 20, 8, 1), jitter=False)
    assert every.empty() == []


def test_degrees_are_refused_until_they_are_declared_and_then_radians(tmp_path, files):
    made = write_folder(tmp_path, [50, 50, 50])
    for i in range(3):
        rewrite(tmp_path / f"s{i}.hdf5", set_value("joint_angles", made[i]["joint_angles"] * 90))
    with pytest.raises(UserError, match=r"reach 8\d\.\d+, which looks like degrees; declare them"):
        load(tmp_path, files)
    for setting, factor in (("deg", np.pi / 180), ("rad", 1)):
        table, warnings = load(tmp_path, files, angle_unit=setting)
        _, angles = table.rows(files, 1, 10, 20)
        expected = made[table.number[1]]["joint_angles"][10:20] * np.float32(90) * factor
        np.testing.assert_allclose(angles, expected, rtol=3e-7)  # three roundings in float32
        assert any("3 of 3 sessions are in degrees" in line for line in warnings) == (factor < 1)
    files.close()
    for i in range(3):
        with h5py.File(tmp_path / f"s{i}.hdf5", "r+") as file:
            file["emg2pose"].attrs["angle_unit"] = "degrees"
    assert load(tmp_path, files)[0].highest.max() < np.pi / 2
    files.close()
    for i in range(3):
        with h5py.File(tmp_path / f"s{i}.hdf5", "r+") as file:
            file["emg2pose"].attrs["angle_unit"] = "rad"
    assert load(tmp_path, files)[0].highest.max() > 80, "what the file says is believed"
    files.close()
    with h5py.File(tmp_path / "s1.hdf5", "r+") as file:
        file["emg2pose"].attrs["angle_unit"] = "turns"
    with pytest.raises(UserError, match="attribute 'angle_unit' is 'turns', expected 'rad' or"):
        load(tmp_path, files)
    assert len(load(tmp_path, files, max_bad_sessions=1, split_ratio=(1, 0, 0))[0]) == 2


def test_splits_by_user_keep_all_sessions_of_one_together(tmp_path, files):
    write_folder(tmp_path, [50] * 12)
    for i in range(12):
        with h5py.File(tmp_path / f"s{i}.hdf5", "r+") as file:
            file["emg2pose"].attrs["user"] = f"u{i % 4}"
    table, _ = load(tmp_path, files, split_by="user")
    pairs = set(zip(table.group_of("user"), table.split.tolist(), strict=True))
    assert sorted(split for _, split in pairs) == [0, 0, 1, 2]  # four users, each in one


def test_one_recording_is_cut_in_time_and_no_part_sees_another(tmp_path, files):
    (rows,) = write_folder(tmp_path, [1200])
    table, (line,) = load(tmp_path, files)
    assert "1 sessions are fewer than the splits: each recording is cut in time, 1 s" in line
    # 1200 rows at 100 Hz less two gaps of 100: 1000, in shares of 0.6, 0.2 and 0.2
    assert table.first.tolist() == [0, 700, 1000]
    assert table.samples.tolist() == [600, 200, 200]
    assert table.split.tolist() == [0, 1, 2]
    for part in range(3):
        begin, count = int(table.first[part]), int(table.samples[part])
        emg, angles = table.rows(files, part, 0, count)
        np.testing.assert_array_equal(emg, rows["emg"][begin : begin + count])
        np.testing.assert_array_equal(angles, rows["joint_angles"][begin : begin + count])
        np.testing.assert_array_equal(table.emg(files, part, 3, 9), emg[3:9])
        (block,) = session_blocks(table, files, part, 1000)
        np.testing.assert_array_equal(block.emg, emg)
        windows = PoseWindows(table.take(np.array([part])), files, TILE, jitter=False)
        assert sum(windows.example(i, None)["weight"].sum() for i in range(len(windows))) <= count
    with pytest.raises(UserError, match="too few for train, val and test parts"):
        load(tmp_path, files, split_by="time", window=201)
    assert len(load(tmp_path, files, window=201)[0]) == 1  # nothing to cut: all is for training


def test_labels_and_broken_rows_stay_where_they_are_when_a_recording_is_cut(tmp_path, files):
    write_folder(tmp_path, [1200])
    rewrite(tmp_path / "s0.hdf5", set_value("joint_angles", 0, slice(550, 800)))
    rewrite(tmp_path / "s0.hdf5", set_value("emg", np.nan, 1010))
    table, _ = load(tmp_path, files)
    assert [table.valid.of(i).tolist() for i in range(3)] == [[[0, 550]], [[100, 200]], [[0, 200]]]
    assert [table.broken.of(i).tolist() for i in range(3)] == [[], [], [[10, 11]]]


def folded(tmp_path, files, fold, **changes):
    table, warnings = load(tmp_path, files, fold=fold, **changes)
    return [SPLITS[i] for i in table.split], warnings, table


def test_each_recording_is_the_test_of_one_fold_and_chooses_in_another(tmp_path, files):
    users = ("ann", "ann", "bob", "cleo", "", "dora", "dora")
    for i, user in enumerate(users):
        attributes = {"sample_rate": 100.0, "session": f"r{i}", "user": user}
        write_rows(tmp_path / f"s{i}.hdf5", make_rows(50, seed=i), attributes=attributes)
    of = [folded(tmp_path, files, f"{n}/3")[0] for n in (1, 2, 3)]
    for i in range(len(users)):
        assert sorted(split[i] for split in of) == ["test", "train", "val"]
    assert sorted(split.count("test") for split in of) == [2, 2, 3]
    by_user, warnings, table = folded(tmp_path, files, "1/5", split_by="user")
    assert warnings == []
    assert len(set(zip(table.group_of("user"), by_user, strict=True))) == 5, "no user is in two"
    assert set(by_user) == set(SPLITS)
    rest = ["train"] * 3
    assert folded(tmp_path, files, "user=bob")[0] == ["train", "train", "test", "val", *rest]
    assert folded(tmp_path, files, "user=dora")[0] == ["val", "val", *rest, "test", "test"]
    (tmp_path / "metadata.csv").write_text(
        "filename,split,generalization\n" + "".join(f"s{i},train,user\n" for i in range(7))
    )
    split, warnings, table = folded(tmp_path, files, "1/3")
    assert set(table.group_of("generalization")) == {""}, "that of the other splits"
    assert split == of[0]
    assert "splits are those of data.fold=1/3, not of metadata.csv" in warnings[0]
    for fold, words in (
        ("1/9", "data.fold='1/9' needs 9 sessions or more, the data have 7"),
        ("user=eve", "data.fold has 'eve', which is not there; known here: ann, bob"),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path, files, fold=fold)


@pytest.mark.parametrize("fold", ["2", "0/5", "6/5", "1/2", "a/b"])
def test_what_is_no_fold_is_one_line(fold):
    with pytest.raises(UserError, match="must be a part of 3 or more, such as '2/5'"):
        require_fold(fold)
