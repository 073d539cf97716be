"""Laws of prediction: one stretch whatever the blocks, NaN where nothing is known, whole files."""

import contextlib
import functools

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.data.hdf5_write import write_prediction
from tds_jax.engine import processes
from tds_jax.errors import UserError
from tds_jax.pose import prediction
from tests.data.sessions import make_rows, write_rows
from tests.engine.together import OneOf
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = tmp_path_factory.mktemp("prediction")
    write_recordings(made / "data", LENGTHS, SPLITS)
    return made


def task_and_model(base, **changes):
    task = small_task(base / "data", base, **changes)
    return task, task.init(nnx.Rngs(1))


def read(path):
    with h5py.File(path) as file:
        assert list(file) == ["prediction"]
        return file["prediction/time"][:], file["prediction/joint_angles"][:]


def predict(base, tmp_path, rows, name="x", **changes):
    """(task, model, time, angles) for a recording of these rows."""
    task, model = task_and_model(base, **changes)
    source, target = (tmp_path / place / f"{name}.hdf5" for place in ("", "out"))
    write_rows(source, rows)
    try:
        (written,) = prediction.predict(task, model, source, target, overwrite=True)
    finally:
        task.files.close()
    return task, model, *read(written)


def whole(model, rows, initial=None):
    """(T, J): one call for the whole recording, spread to every row by numpy."""
    emg = jnp.asarray(rows["emg"])[None]
    steps = np.asarray(model(emg, initial)[0], np.float64)
    at = model.left_context + np.arange(len(steps)) * model.step
    every = np.arange(len(rows))
    angles = np.stack([np.interp(every, at, column) for column in steps.T], 1)
    angles[: model.left_context] = np.nan
    return angles


GRIDS = {
    "steps of two frames": {},
    "a frame every three steps": {
        "model__conv_strides": (6,),
        "model__rollout_freq": 50.0,
        "model__conv_kernels": (7,),
    },
    "velocity": {"model__output": "velocity", "model__output_scale": 0.01},
    "mlp": {"model__decoder": "mlp", "model__mlp_hidden": (8,)},
}


@pytest.mark.parametrize("changes", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("block", [1, 7, 10])
def test_blocks_join_to_one_call_for_the_whole_recording(
    base, tmp_path, monkeypatch, changes, block
):
    monkeypatch.setattr(prediction, "BLOCK_STEPS", block)
    rows = make_rows(333, seed=7)
    _, model, time, angles = predict(base, tmp_path, rows, **changes)
    # The same f32 operations in other batches of rows: 80 recurrent steps of eps = 1e-7.
    np.testing.assert_allclose(angles, whole(model, rows), atol=1e-5)
    assert np.nanstd(angles) > 1e-3, "a constant would agree as well"
    np.testing.assert_array_equal(time, rows["time"])
    assert (time.dtype, angles.dtype) == (np.float64, np.float32)


@pytest.mark.parametrize("length", [9, 10, 12, 13, 59, 60, 61, 2009])
def test_any_length_from_the_receptive_field_on(base, tmp_path, length):
    """9 is the receptive field; 2009 is one row more than the first block reads."""
    rows = make_rows(length, seed=3)
    _, model, time, angles = predict(base, tmp_path, rows)
    assert model.receptive_field == 9
    assert (len(time), angles.shape) == (length, (length, 3))
    np.testing.assert_allclose(angles, whole(model, rows), atol=1e-5)
    with pytest.raises(UserError, match=r"x\.hdf5 has 8 samples, fewer than .* field of 9; give"):
        predict(base, tmp_path, make_rows(8))


def test_tracking_starts_from_the_label_at_the_end_of_the_left_context(base, tmp_path):
    rows = make_rows(333, seed=7)
    changes = {"model__initial_pose": "given", "model__output": "velocity"}
    _, model, _, angles = predict(base, tmp_path, rows, **changes)
    initial = jnp.asarray(rows["joint_angles"][8:9])
    np.testing.assert_allclose(angles, whole(model, rows, initial), atol=1e-5)
    rows["joint_angles"][8] = 0
    with pytest.raises(UserError, match=r"no valid joint angles at row 8, where tracking starts"):
        predict(base, tmp_path, rows, **changes)
    unlabelled = np.zeros(333, [("emg", "<f4", (4,))])
    with pytest.raises(UserError, match="field 'joint_angles' is missing"):
        predict(base, tmp_path, unlabelled, **changes)


@pytest.mark.parametrize("initial", ["zeros", "given"])
def test_windowed_models_answer_at_every_row(base, tmp_path, initial):
    rows = make_rows(150, seed=7)
    changes = {"model__reference_rate": True, "model__initial_pose": initial}
    _, model, _, angles = predict(base, tmp_path, rows, **changes)
    assert np.isfinite(angles).all()
    start = rows["joint_angles"][:1] if initial == "given" else None
    first = model(jnp.asarray(rows["emg"])[None, :60], start)[0]
    np.testing.assert_allclose(angles[:60], first, atol=1e-5)
    start = angles[89:90] if initial == "given" else None
    last = model(jnp.asarray(rows["emg"])[None, 90:], start)[0]
    np.testing.assert_allclose(angles[120:], last[30:], atol=1e-5)


@pytest.mark.parametrize("initial", ["zeros", "given"])
def test_windows_of_the_benchmarks_alignment_follow_one_another(base, tmp_path, initial):
    """Left context 6: windows of 60 rows begin at 0, 54, 108 and, for the end of the file, 140."""
    rows = make_rows(200, seed=7)
    changes = {"model__alignment": "reference", "model__initial_pose": initial}
    _, model, _, angles = predict(base, tmp_path, rows, **changes)
    assert np.isnan(angles[:6]).all()
    assert np.isfinite(angles[6:]).all()
    for start, fresh in ((0, 0), (54, 0), (108, 0), (140, 22)):
        before = angles[start + 5 : start + 6] if start else rows["joint_angles"][6:7]
        emg = jnp.asarray(rows["emg"])[None, start : start + 60]
        poses = model(emg, before if initial == "given" else None)[0]
        np.testing.assert_allclose(angles[start + 6 + fresh : start + 60], poses[fresh:], atol=1e-5)


def test_rows_with_broken_emg_have_no_prediction_and_do_not_spread(base, tmp_path):
    rows = make_rows(400, seed=7)
    rows["emg"][200:203, 1] = np.nan
    rows["emg"][300, 0] = np.inf
    _, model, _, angles = predict(base, tmp_path, rows)
    broken = np.r_[200:203, 300]
    assert np.isnan(angles[broken]).all()
    assert np.isfinite(np.delete(angles[8:], broken - 8, axis=0)).all()
    rows["emg"][broken] = 0
    expected = whole(model, rows)
    expected[broken] = np.nan
    np.testing.assert_allclose(angles, expected, atol=1e-5)


def test_the_file_keeps_its_own_rate_and_clock(base, tmp_path):
    rows = make_rows(300, seed=7)
    rows["time"] += 86_400
    _, _, time, _ = predict(base, tmp_path, rows)
    np.testing.assert_array_equal(time, rows["time"])
    bare = np.zeros(300, [("emg", "<f4", (4,))])
    _, _, time, _ = predict(base, tmp_path, bare)
    np.testing.assert_allclose(time, np.arange(300) / 100.0)


BAD = {
    "channels": (
        lambda path: write_rows(path, make_rows(300, channels=6)),
        r"x\.hdf5 has 6 EMG channels, the model was trained on 4; give recordings of the same",
    ),
    "rate": (
        lambda path: write_rows(path, make_rows(300), attributes={"sample_rate": 200.0}),
        r"x\.hdf5 has 200 samples per second, the model was trained on 100; resample it first",
    ),
    "rate by time": (
        lambda path: write_rows(path, make_rows(300, rate=250.0), attributes={}),
        r"x\.hdf5 has 250 samples per second, the model was trained on 100; resample",
    ),
    "rate in words": (
        lambda path: write_rows(path, make_rows(300), attributes={"sample_rate": "fast"}),
        r"x\.hdf5: attribute 'sample_rate' is 'fast'; write it as a number",
    ),
    "not HDF5": (lambda path: path.write_text("hi"), r"x\.hdf5: not an HDF5 file; replace"),
    "absent": (lambda path: None, r"--input=.*x\.hdf5: no such file or folder; check"),
}


@pytest.mark.parametrize(("make", "text"), BAD.values(), ids=BAD.keys())
def test_a_wrong_recording_is_one_line_and_leaves_nothing(base, tmp_path, make, text):
    task, model = task_and_model(base)
    source, target = tmp_path / "x.hdf5", tmp_path / "out" / "x.hdf5"
    make(source)
    with pytest.raises(UserError, match=text) as error:
        prediction.predict(task, model, source, target)
    assert "\n" not in str(error.value)
    assert not target.parent.exists()


def test_a_folder_of_recordings_keeps_its_names(base, tmp_path):
    task, model = task_and_model(base)
    source = tmp_path / "in"
    source.mkdir()
    lengths = {"b.hdf5": 100, "a.h5": 140, "C.HDF5": 80}
    for name, length in lengths.items():
        write_rows(source / name, make_rows(length))
    (source / "notes.txt").write_text("not a recording")
    written = prediction.predict(task, model, source, tmp_path / "out" / "deep")
    assert written == [tmp_path / "out" / "deep" / name for name in sorted(lengths)]
    assert {path.name for path in (tmp_path / "out" / "deep").iterdir()} == set(lengths)
    for path in written:
        assert len(read(path)[0]) == lengths[path.name]


def test_a_prediction_that_is_there_is_replaced_only_when_told_to(base, tmp_path):
    """Of a folder none is, where one is there: it is refused before anything is computed."""
    task, model = task_and_model(base)
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_rows(tmp_path / "in" / f"{name}.hdf5", make_rows(60))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.hdf5").write_bytes(b"of another day")
    (tmp_path / "out" / "c.hdf5").write_bytes(b"of another recording")
    run = functools.partial(prediction.predict, task, model, tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match=r"^\S+/b.hdf5 is there already; .*with --overwrite$"):
        run()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b.hdf5", "c.hdf5"}
    assert (tmp_path / "out" / "b.hdf5").read_bytes() == b"of another day"
    assert len(run(overwrite=True)) == 2
    assert len(read(tmp_path / "out" / "b.hdf5")[0]) == 60
    assert (tmp_path / "out" / "c.hdf5").read_bytes() == b"of another recording"
    with pytest.raises(UserError, match=r"/a.hdf5, \S+/b.hdf5 are there already; .* replace them"):
        run()


PLACES = {
    "itself": ("x.hdf5", "x.hdf5", r"is the input itself; choose another file"),
    "a folder": ("x.hdf5", "in", r"is a folder; name a file"),
    "under a file": ("x.hdf5", "x.hdf5/o.hdf5", r"its folder cannot be made .*; name another"),
    "folder to itself": ("in", "in", r"must be another folder"),
    "folder to file": ("in", "x.hdf5", r"must be another folder"),
    "empty folder": ("empty", "out", r"holds no \.hdf5 or \.h5 or \.mat or \.csv file"),
}


@pytest.mark.parametrize(("source", "target", "text"), PLACES.values(), ids=PLACES.keys())
def test_a_wrong_place_is_one_line_and_the_input_stays(base, tmp_path, source, target, text):
    task, model = task_and_model(base)
    for name in ("in", "empty"):
        (tmp_path / name).mkdir()
    for path in (tmp_path / "x.hdf5", tmp_path / "in" / "y.hdf5"):
        write_rows(path, make_rows(100))
    before = (tmp_path / "x.hdf5").read_bytes()
    with pytest.raises(UserError, match=text) as error:
        prediction.predict(task, model, tmp_path / source, tmp_path / target)
    assert "\n" not in str(error.value)
    assert (tmp_path / "x.hdf5").read_bytes() == before


def test_a_file_that_cannot_be_predicted_is_named_and_the_others_are(base, tmp_path, capsys):
    task, model = task_and_model(base)
    (tmp_path / "in").mkdir()
    for name in ("s10", "s9", "s2"):
        write_rows(tmp_path / "in" / f"{name}.hdf5", make_rows(100))
    content = (tmp_path / "in" / "s9.hdf5").read_bytes()
    (tmp_path / "in" / "s9.hdf5").write_bytes(content[: len(content) // 2])
    (tmp_path / "in" / "._s2.hdf5").write_bytes(b"Mac OS X")
    with pytest.raises(UserError, match=r"^1 of 3 files in --input=.* have no prediction"):
        prediction.predict(task, model, tmp_path / "in", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"s2.hdf5", "s10.hdf5"}
    note, left_out = capsys.readouterr().err.splitlines()
    assert note.endswith("1 hidden files are no sessions: ._s2.hdf5")
    assert left_out.startswith("warning: left out ")
    assert "s9.hdf5: truncated HDF5 file" in left_out


def test_emg_in_another_unit_than_the_runs_is_refused(base, tmp_path):
    """1000 times is mV for µV; 20 times may be another hand, and rows that are all alike tell
    nothing."""
    task, model = task_and_model(base)
    for factor, text in ((1e3, "is 1e.03 times"), (1e-3, "is 0.001 times"), (20, ""), (0, "")):
        rows = make_rows(100)
        rows["emg"] *= factor * np.asarray(model.normalizer.scale[...]) / rows["emg"].std(axis=0)
        write_rows(tmp_path / "x.hdf5", rows)
        with pytest.raises(UserError, match=text) if text else contextlib.nullcontext():
            prediction.predict(task, model, tmp_path / "x.hdf5", tmp_path / "y.hdf5")
        assert (tmp_path / "y.hdf5").exists() == (not text)
        (tmp_path / "y.hdf5").unlink(missing_ok=True)


def test_processes_share_the_files_of_a_folder(base, tmp_path, monkeypatch):
    task, model = task_and_model(base)
    (tmp_path / "in").mkdir()
    for name in "abc":
        write_rows(tmp_path / "in" / f"{name}.hdf5", make_rows(60))
    for index, names in enumerate((["a.hdf5", "c.hdf5"], ["b.hdf5"])):
        monkeypatch.setattr(processes, "_peers", OneOf(index, 2))
        prediction.predict(task, model, tmp_path / "in", tmp_path / str(index))
        assert sorted(path.name for path in (tmp_path / str(index)).iterdir()) == names


def test_an_interrupted_prediction_leaves_what_was_there(base, tmp_path, monkeypatch):
    rows = make_rows(300)
    predict(base, tmp_path, rows)
    target = tmp_path / "out" / "x.hdf5"
    before = target.read_bytes()
    honest = prediction._rows

    def killed(*arguments):
        yield next(honest(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "BLOCK_STEPS", 20)
    monkeypatch.setattr(prediction, "_rows", killed)
    for name, exists in (("x", True), ("new", False)):
        with pytest.raises(KeyboardInterrupt):
            predict(base, tmp_path, rows, name=name)
        assert (tmp_path / "out" / f"{name}.hdf5").exists() == exists
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["x.hdf5"]


def test_a_prediction_calls_the_joints_as_the_run_does(base, tmp_path):
    for given, said in (
        ((), ["joint_0", "joint_1", "joint_2"]),
        (("a", "b", "c"), ["a", "b", "c"]),
    ):
        predict(base, tmp_path, make_rows(100), data__joint_names=given)
        with h5py.File(tmp_path / "out" / "x.hdf5") as file:
            assert list(file["prediction/joint_angles"].attrs["joint_names"]) == said


def test_a_prediction_says_its_units_joints_and_model(tmp_path):
    block = (np.zeros(3), np.zeros((3, 2), np.float32))
    made = {"run": "a", "step": 7, "version": "tds_jax 0"}
    write_prediction(tmp_path / "o.hdf5", 3, ("a", "b"), [block], made)
    with h5py.File(tmp_path / "o.hdf5") as file:
        angles = file["prediction/joint_angles"]
        assert angles.attrs["units"] == "rad"
        assert list(angles.attrs["joint_names"]) == ["a", "b"]
        assert file["prediction/time"].attrs["units"] == "s"
        assert dict(file["prediction"].attrs) == made


def test_a_prediction_with_rows_missing_is_not_a_file(tmp_path):
    block = (np.zeros(3), np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="blocks hold 3 rows, expected 5"):
        write_prediction(tmp_path / "o.hdf5", 5, ("a", "b"), [block], {})
    assert not list(tmp_path.iterdir())


def test_evaluation_and_prediction_agree_where_both_start_at_row_0(base, tmp_path):
    """The first evaluation window of a session is the beginning of its prediction."""
    task, model = task_and_model(base, model__dropout=0.2)
    source = task.source("test")
    example = source.example(0, None)
    poses = task.poses(
        model, {name: jnp.asarray(leaf)[None] for name, leaf in example.items()}, train=False
    )
    (written,) = prediction.predict(
        task, model, tmp_path / source.table.path(0), tmp_path / "o.hdf5"
    )
    _, angles = read(written)
    np.testing.assert_allclose(angles[8:100:4], poses[0], atol=1e-5)
