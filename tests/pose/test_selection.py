"""Which sessions, electrodes and signs a run uses, and that it uses the same ones everywhere."""

import itertools

import h5py
import numpy as np
import pytest
from flax import nnx

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.windows import WindowSpec
from tds_jax.errors import UserError
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.prediction import predict
from tds_jax.pose.selection import Selection, sampled
from tds_jax.pose.sessions import load_sessions
from tds_jax.pose.windows import PoseWindows, session_blocks
from tds_jax.progress import silent
from tests.data.sessions import make_rows, write_rows
from tests.pose.small import small_task, write_recordings

USERS = ("ann", "ann", "bob", "bob", "cleo", "cleo")
SIDES = ("left", "right") * 3
SPLIT = ("train", "train", "train", "val", "test", "train")


@pytest.fixture
def files():
    made = RowFiles(4, 1 << 20, 0.75)
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(folder, rows of its six sessions)."""
    made = tmp_path_factory.mktemp("selection") / "data"
    columns = {"user": USERS, "side": SIDES}
    return made, write_recordings(made, (200, 210, 220, 230, 240, 250), SPLIT, columns)


def load(path, files, *, cache_dir=None, seed=0, progress=silent, **changes):
    values = {
        "users": (), "stages": (), "sides": (), "subsample": 1.0, "channels": (), "flip_left": (),
        "joint_names": (),
    }  # fmt: skip
    return load_sessions(
        str(path),
        group="emg2pose",
        window=60,
        split_by="session",
        split_ratio=(0.6, 0.2, 0.2),
        fold="",
        angle_unit="auto",
        max_bad_sessions=0,
        selection=Selection(**(values | changes)),
        seed=seed,
        cache_dir=cache_dir,
        files=files,
        progress=progress,
    )


def names(table):
    return [name.decode() for name in table.names]


def test_filters_leave_the_sessions_that_pass_all_of_them_and_open_no_other(folder, files):
    seen = []
    table, _ = load(
        folder[0],
        files,
        users=("ann", "cleo"),
        sides=("left",),
        progress=lambda done, total, name: seen.append(name),
    )
    assert names(table) == ["s0.hdf5", "s4.hdf5"] == seen
    assert [SPLITS[i] for i in table.split] == ["train", "test"]


def test_filters_read_the_files_attributes_where_there_is_no_metadata(tmp_path, files):
    for i, user in enumerate(("ann", "bob", "bob", "bob")):
        attributes = {"sample_rate": 100.0, "user": user}
        write_rows(tmp_path / f"s{i}.hdf5", make_rows(100, seed=i), attributes=attributes)
    table, _ = load(tmp_path, files, users=("bob",))
    assert names(table) == ["s1.hdf5", "s2.hdf5", "s3.hdf5"]
    assert sorted(table.split.tolist()) == [0, 1, 2], "splits are dealt among what is left"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"users": ("anm",)}, "data.users has 'anm', which is not there; did you mean: ann"),
        ({"sides": ("up",)}, "data.sides has 'up', which is not there; known here: left, right"),
        ({"stages": ("x",)}, "data.stages has 'x', which is not there; known here: none"),
        ({"flip_left": ("joint_9",)}, "data.flip_left has 'joint_9', which is not there; did you"),
        ({"channels": (0, 4)}, "has 4 channels, numbered from 0, but data.channels asks for 4"),
    ],
)
def test_what_is_not_there_is_one_line_with_what_is(folder, files, changes, text):
    with pytest.raises(UserError) as error:
        load(folder[0], files, **changes)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_filters_that_exclude_each_other_are_one_line(tmp_path, files):
    columns = {"user": ("ann", "bob"), "side": ("left", "right")}
    write_recordings(tmp_path, (100, 100), ("train", "test"), columns)
    with pytest.raises(UserError, match=r"no session has all of .*ann.*right.*; ask for fewer"):
        load(tmp_path, files, users=("ann",), sides=("right",))


def test_a_share_of_the_train_sessions_is_part_of_a_larger_share(folder, files):
    kept = {}
    for share in (0.01, 0.25, 0.5, 0.75, 1.0):
        table, _ = load(folder[0], files, subsample=share)
        kept[share] = set(names(table.select("train")))
        assert len(kept[share]) == max(1, round(4 * share))
        assert names(table.select("val")) == ["s3.hdf5"]
        assert names(table.select("test")) == ["s4.hdf5"]
    shares = sorted(kept)
    assert all(kept[a] <= kept[b] for a, b in itertools.pairwise(shares))
    chosen = {tuple(names(load(folder[0], files, subsample=0.5, seed=s)[0])) for s in range(8)}
    assert len(chosen) > 1, "another seed chooses others"


def test_a_new_session_does_not_reorder_the_others():
    before = [b"s%d" % i for i in range(50)]
    few = {before[i] for i in sampled(before, 0.2, 7)}
    more = [*before, b"new"]
    assert len(few - {more[i] for i in sampled(more, 0.2, 7)}) <= 1


SPEC = WindowSpec(20, 5, 3, 4)


@pytest.mark.parametrize("failures", ["mask", "blocks", "reference"])
def test_each_rule_for_failed_rows_gives_its_windows(folder, files, failures):
    table, _ = load(folder[0], files)
    source = PoseWindows(table, files, SPEC, jitter=False, failures=failures)
    found = []
    for i in range(len(source)):
        example = source.example(i, None)
        rows = folder[1][int(example["session"])]["emg"]
        hits = (
            s for s in range(len(rows) - 19) if np.array_equal(rows[s : s + 20], example["emg"])
        )
        found.append((int(example["session"]), next(hits)))
        assert failures == "mask" or example["weight"].all()
    expected = []
    for session, rows in enumerate(folder[1]):
        valid = valid_rows(rows["joint_angles"])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], valid, [0]]).astype(int)))
        runs = [(0, len(rows))] if failures == "mask" else edges.reshape(-1, 2).tolist()
        lost = 2 if failures == "reference" else 0
        for begin, end in runs:
            starts = range(begin, end - lost - 19, 5)
            expected += [(session, s) for s in starts if valid[s + 3 : s + 20 : 4].any()]
    assert found == expected


def test_the_reference_rule_loses_two_samples_of_a_run(tmp_path, files):
    write_recordings(tmp_path, (60, 60, 60), SPLITS)
    for i in range(3):
        write_rows(tmp_path / f"s{i}.hdf5", make_rows(60))  # no failed row
    table, _ = load(tmp_path, files)
    sizes = {"mask": (60, 1), "blocks": (60, 1), "reference": (58, 1)}
    for rule, (longest, _) in sizes.items():
        spec = WindowSpec(longest, 1, 0, 1)
        assert len(PoseWindows(table, files, spec, jitter=False, failures=rule)) == 3
    with pytest.raises(UserError, match="59 samples whose rows are all valid"):
        PoseWindows(table, files, WindowSpec(59, 1, 0, 1), jitter=False, failures="reference")


def test_jitter_stays_inside_a_run_of_valid_rows(folder, files):
    table, _ = load(folder[0], files)
    source = PoseWindows(table, files, SPEC, jitter=True, failures="blocks")
    moved = 0
    for i in range(len(source)):
        for seed in range(5):
            example = source.example(i, np.random.default_rng(seed))
            assert example["weight"].all()
            moved += not np.array_equal(example["emg"], source.example(i, None)["emg"])
    assert moved


def test_a_train_rule_leaves_evaluation_as_it_is(folder, tmp_path):
    tasks = {
        rule: small_task(folder[0], tmp_path, data__failures=rule, data__window=20)
        for rule in ("mask", "blocks")
    }
    assert len(tasks["blocks"].source("train")) < len(tasks["mask"].source("train"))
    for split in ("val", "test"):
        assert len(tasks["blocks"].source(split)) == len(tasks["mask"].source(split))


CHANNELS = (3, 0, 2)


def test_chosen_electrodes_come_in_their_order_wherever_rows_are_read(folder, files):
    table, _ = load(folder[0], files, channels=CHANNELS)
    assert table.channels == 3
    rows = folder[1][0]["emg"][:, list(CHANNELS)]
    source = PoseWindows(table, files, SPEC, jitter=False)
    session, start, _ = source._windows.locate(4)
    assert session == 0
    np.testing.assert_array_equal(source.example(4, None)["emg"], rows[start : start + 20])
    np.testing.assert_array_equal(source.with_history(4, 7)[0], rows[start - 7 : start + 20])
    (block,) = session_blocks(table, files, 0, 1000)
    np.testing.assert_array_equal(block.emg, rows)


def test_left_hands_change_sign_wherever_labels_are_read(folder, files):
    table, _ = load(folder[0], files, flip_left=("joint_0", "joint_2"))
    plain, _ = load(folder[0], files)
    signs = {"left": [-1, 1, -1], "right": [1, 1, 1]}
    for session, side in enumerate(SIDES):
        (flipped,) = session_blocks(table, files, session, 1000)
        (block,) = session_blocks(plain, files, session, 1000)
        np.testing.assert_array_equal(flipped.joint_angles, block.joint_angles * signs[side])
        np.testing.assert_array_equal(flipped.valid, block.valid)
    pairs = [PoseWindows(one, files, SPEC, jitter=False) for one in (table, plain)]
    for i in range(len(pairs[0])):
        flipped, example = (source.example(i, None) for source in pairs)
        side = SIDES[int(example["session"])]
        np.testing.assert_array_equal(
            flipped["joint_angles"], example["joint_angles"] * signs[side]
        )


def test_signs_that_depend_on_an_unknown_side_are_refused(tmp_path, files):
    write_recordings(tmp_path, (100, 100), ("train", "test"), {"side": ("left", "")})
    with pytest.raises(UserError, match=r"s1\.hdf5: side is '', but data\.flip_left needs 'left'"):
        load(tmp_path, files, flip_left=("joint_0",))
    assert len(load(tmp_path, files)[0]) == 2


def test_predict_reads_the_electrodes_and_signs_of_training(folder, tmp_path):
    """The answer equals that for a file that was cut and flipped beforehand."""
    own = {"data__channels": CHANNELS, "data__flip_left": ("joint_1",)}
    task = small_task(folder[0], tmp_path, model__initial_pose="given", **own)
    assert task.inputs()["num_channels"] == 3
    assert task.batch_spec(2)["emg"].shape == (2, 60, 3)
    assert task.fit_statistics()["normalizer"]["mean"].shape == (3,)
    model = task.init(nnx.Rngs(0))
    model.eval()
    rows = make_rows(120, seed=5)
    attributes = {"sample_rate": 100.0, "side": "left"}
    given = write_rows(tmp_path / "full.hdf5", rows, attributes=attributes)
    cut = make_rows(120, channels=3)
    cut["emg"], cut["time"] = rows["emg"][:, list(CHANNELS)], rows["time"]
    cut["joint_angles"] = rows["joint_angles"] * np.float32([1, -1, 1])
    done = write_rows(tmp_path / "cut.hdf5", cut)
    plain = small_task(done_folder(tmp_path), tmp_path, model__initial_pose="given")
    answers = []
    for one, path in ((task, given), (plain, done)):
        (place,) = predict(one, model, type(tmp_path)(path), tmp_path / "out" / path[-8:])
        with h5py.File(place) as file:
            answers.append(file["prediction/joint_angles"][:])
    np.testing.assert_array_equal(*answers)
    assert np.isfinite(answers[0][20:]).all()
    unknown = write_rows(tmp_path / "unknown.hdf5", rows)
    with pytest.raises(UserError, match=r"unknown\.hdf5: side is ''"):
        predict(task, model, type(tmp_path)(unknown), tmp_path / "out.hdf5")


def done_folder(tmp_path):
    """A folder of three-channel recordings, to build a task without any selection."""
    folder = tmp_path / "three"
    write_recordings(folder, (100,) * 3, SPLITS)
    for i in range(3):
        write_rows(folder / f"s{i}.hdf5", make_rows(100, channels=3, seed=i))
    return folder
