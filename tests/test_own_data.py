"""Data that a source of one's own gives are those of files that hold the same."""

import pickle

import jax
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.voxel.task import VoxelTask
from tests.forecast import small as forecast
from tests.pose import small as pose
from tests.pose.small import LENGTHS, SPLITS
from tests.voxel import small as voxel
from tests.voxel.files import write_scenes

RECORDINGS = "tests.python.parts:Recordings"


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def emg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_recordings")
    pose.write_recordings(folder / "data", LENGTHS, SPLITS)
    return folder


def test_recordings_of_a_source_are_cut_like_those_of_files(emg):
    files = pose.small_task(emg / "data", emg)
    own = pose.small_task(emg / "data", emg, data__source=RECORDINGS)
    assert own.inputs() == files.inputs()
    for split in ("train", "val", "test"):
        one, other = files.source(split), pickle.loads(pickle.dumps(own.source(split)))
        assert len(one) == len(other)
        for index in (0, len(one) - 1):
            rngs = [np.random.default_rng(index) for _ in range(2)]
            assert_same(one.example(index, rngs[0]), other.example(index, rngs[1]))
    statistics = (task.fit_statistics()["normalizer"] for task in (files, own))
    assert_same(*statistics)
    assert own.data_files() == {}
    assert set(own.table.group_of("user")) == {"u0", "u1"}
    about = own.data_about()
    assert (about.folder, about.generated) == (RECORDINGS, False)
    assert "6 sessions of 2 users (train 3, val 1, test 2)" in about.words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tests.python.parts:Broken", "Broken/0: split is 'training', expected one of train, val"),
        ("tests.python.parts:Failing", r"gives no number 0 \(OSError: the disk is gone\)"),
        ("tests.python.parts:Joints", "needs 'num_channels', which is not offered"),
        ("fractions:Fraction", "makes a Fraction; make what has a length and gives by number"),
        ("Recordings", "must be 'package.module:Name', or '' for data.path"),
    ],
)
def test_a_source_that_gives_no_recordings_is_one_line(emg, name, text):
    with pytest.raises(UserError, match=text):
        pose.small_task(emg / "data", emg, data__source=name)


def test_fields_of_a_source_are_cut_like_those_of_files(tmp_path):
    path = forecast.write_record(tmp_path / "train.nc", count=120)
    files = forecast.small_task(path, tmp_path)
    own = forecast.small_task(path, tmp_path, data__source="tests.python.parts:fields")
    assert own.inputs() == files.inputs()
    assert own.digest() == files.digest()
    for split in ("train", "test"):
        one, other = files.source(split), own.source(split)
        assert len(one) == len(other)
        assert_same(one.example(3, None), other.example(3, None))
    assert own.data_files() == {}
    with pytest.raises(UserError, match=r"gives a Other; give an xarray\.Dataset"):
        forecast.small_task(path, tmp_path, data__source="tests.python.parts:Other")


SOURCE = "tests.python.parts:Volumes"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("own_volumes") / "data")


def of_scenes(scenes, **changes):
    given = {"data__path": str(scenes), "data__grid": "pad", "data__multiple": (2, 2, 2)}
    return VoxelTask(voxel.small_config(scenes.parent, **given | changes))


def test_volumes_of_a_source_are_paired_like_those_of_files(scenes):
    files, own = of_scenes(scenes), of_scenes(scenes, data__source=SOURCE)
    assert own.inputs() == files.inputs()
    for split in ("train", "val", "test"):
        one, other = (task.data.pairs(split) for task in (files, own))
        other = pickle.loads(pickle.dumps(other))
        assert [frame.scene for frame in one.frames] == [frame.scene for frame in other.frames]
        assert_same(one.example(2, None), other.example(2, None))
    assert own.data_files() == {}
    first = own.data.contents("train")
    assert first == of_scenes(scenes, data__source=SOURCE).data.contents("train")
    assert first != own.data.contents("val")


def test_a_network_of_ones_own_answers_to_a_radar(scenes):
    task = of_scenes(scenes, model__name="tests.python.parts:Cells", model__base=3)
    assert task.generates
    assert task.memory_options() == {}
    assert set(task.batch_spec(2)) >= {"radar", "target", "weight"}
    examples = [task.source("train").example(i, None) for i in range(2)]
    batches = [
        {name: np.stack([examples[i][name], examples[j][name]]) for name in examples[0]}
        | {"key": np.zeros((2, 2), np.uint32)}
        for i, j in ((0, 1), (0, 0), (1, 1))
    ]
    model = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), params)
    nnx.replace_by_pure_dict(rest, task.fit_statistics())

    def charge(params, batch):
        model = nnx.merge(graphdef, params, rest)
        return task.loss(model, batch, True)[0].sum, task.method.volumes(model, batch)["model"]

    slope = jax.jit(jax.value_and_grad(charge, has_aux=True))
    ((whole, volume), slopes), *pure = (slope(params, batch) for batch in batches)
    # A sum of two examples in f32: each is charged alone.
    np.testing.assert_allclose(sum(one[0][0] for one in pure) / 2, whole, rtol=1e-6)
    slopes = jax.tree.leaves(slopes)
    assert len(slopes) == 4
    assert all(np.abs(slope).max() > 0 for slope in slopes)
    assert volume.shape == batches[0]["target"].shape
    assert ((volume[..., 0] > 0) & (volume[..., 0] < 1)).all()
