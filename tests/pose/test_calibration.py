"""Laws of calibration: vectors of the user's other stretches, remembered by one model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import replace_leaves, split
from tds_jax.errors import UserError
from tds_jax.pose import calibration
from tds_jax.pose.calibrating import calibrated
from tds_jax.pose.stream import Stream
from tds_jax.run import Run
from tests.pose.small import small_task, write_recordings
from tests.pose.test_models import run, small

LENGTHS = (400, 330, 290, 210, 263)
SPLITS = ("train", "train", "train", "val", "test")
USERS = {"user": ("ann", "bob", "ann", "ann", "bob")}
EMBEDDED = {"model__user_embedding": 3, "data__calibration_seconds": 1.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A task, and a model that has its statistics and tells users apart."""
    base = tmp_path_factory.mktemp("calibration")
    rows = write_recordings(base / "data", LENGTHS, SPLITS, USERS)
    task = small_task(base / "data", base, **EMBEDDED)
    graph, params, rest = split(task.init(nnx.Rngs(0)))
    out = params["film"]["out"]
    out["kernel"] = jax.random.normal(jax.random.key(0), out["kernel"].shape)
    rest = replace_leaves(rest, task.fit_statistics())
    return task, nnx.merge(graph, params, rest), rows


def test_a_vector_is_of_strengths_and_likenesses_whatever_the_offset():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 1))
    emg = np.concatenate([shared, 3 * shared, rng.normal(size=(4000, 1))], axis=1)
    found = calibration.describe(emg + np.array([100, -5, 0]), 200.0)
    assert found.shape == (calibration.size(3),)
    # Blocks of 20 samples about their means lose 1/20 of the power; a log of 200 such is ±0.02.
    np.testing.assert_allclose(found[:3], np.log([1, 3, 1]) - 0.05, atol=0.05)
    np.testing.assert_allclose(found[6:], [1, 0, 0], atol=0.06)
    louder = calibration.describe(2 * emg, 200.0)
    np.testing.assert_allclose(louder - found, [np.log(2)] * 3 + [0] * 6, atol=1e-4)
    emg[:40] = np.nan
    assert np.isfinite(calibration.describe(emg, 200.0)).all()
    with pytest.raises(UserError, match=r"no 0\.1 s of finite EMG"):
        calibration.describe(np.full((400, 3), np.nan), 200.0)


def test_a_window_gets_other_sessions_of_its_user_and_its_own_only_without_others(trained):
    task, _, rows = trained
    source, table = task.source("train"), task.table.select("train")
    assert [len(source._calibrations.vectors), *table.group_of("user")] == [9, "ann", "bob", "ann"]
    vectors = {  # stretches of 100 samples
        s: [calibration.describe(rows[s]["emg"][a : a + 100], 100.0)
            for a in range(0, len(rows[s]["emg"]) - 99, 100)] for s in range(3)
    }  # fmt: skip
    for session, other in ((0, 2), (2, 0), (1, 1)):
        drawn = [source._calibrations.of(np.array([session]), [np.random.default_rng(n)])[0]
                 for n in range(40)]  # fmt: skip
        assert {tuple(v) for v in drawn} == {tuple(v) for v in vectors[other]}
        plain = source._calibrations.of(np.array([session]), None)
        np.testing.assert_array_equal(plain[0], vectors[other][0])
    batch = source.examples([0, len(source) - 1], None)
    expected = source._calibrations.of(batch["session"], None)
    np.testing.assert_array_equal(batch["calibration"], expected)
    assert batch["calibration"].shape[1:] == task.batch_spec(2)["calibration"].shape[1:]


def test_training_and_evaluation_see_the_vectors_and_a_fresh_model_does_not_change_by_them(trained):
    task, model, _ = trained
    batch = {k: jnp.asarray(v) for k, v in task.source("val").examples([0, 0], None).items()}
    other = batch | {"calibration": batch["calibration"] + 1}
    for one, alike in ((model, False), (task.init(nnx.Rngs(0)), True)):
        same = np.allclose(task.poses(one, batch, False), task.poses(one, other, False), atol=1e-6)
        assert same == alike


def test_a_calibrated_model_remembers_what_a_batch_would_bring(trained):
    task, model, rows = trained
    emg = rows[4]["emg"]
    own = calibrated(task, model, emg, rate_hz=100.0)
    from_file = calibrated(task, model, task.table.path(4))
    vector = calibration.describe(emg, 100.0)[None]
    window = jnp.asarray(np.nan_to_num(emg[None, :100]))
    expected = run(lambda x, c: model(x, calibration=c), window, jnp.asarray(vector))
    for one in (own, from_file):
        # The same f32 operations compiled apart.
        np.testing.assert_allclose(run(one, window), expected, atol=1e-5)
    assert np.abs(run(model, window) - expected).max() > 1e-4, "the model given stays"


def test_a_run_gives_a_run_of_its_users_own(trained):
    task, model, rows = trained
    mine = Run.__new__(Run)  # of a folder that is not there
    mine.config, mine._task, mine.model = task.config, task, model
    mine.__dict__["answer"] = "compiled for the average user"
    own = mine.calibrate(rows[4]["emg"], rate_hz=100.0)
    assert np.abs(own.model.film.user[...]).max() > 0.1
    assert np.abs(mine.model.film.user[...]).max() == 0
    assert ("answer" in own.__dict__, "answer" in mine.__dict__) == (False, True)
    with pytest.raises(UserError, match="calibrate needs rate_hz"):
        mine.calibrate(rows[4]["emg"])
    with pytest.raises(UserError, match="calibrate of task 'pose' takes emg, rate_hz"):
        mine.calibrate(rows[4]["emg"], rate=100.0)


def test_a_stream_of_a_calibrated_model_is_its_prediction():
    model = small(user_embedding=3)
    model.film.out.kernel[...] = jax.random.normal(jax.random.key(0), model.film.out.kernel.shape)
    model.film.remember(jnp.arange(model.film.user.shape[0], dtype=jnp.float32))
    samples = np.random.default_rng(0).normal(size=(1, 200, 3)).astype(np.float32)
    stream = Stream(model)
    _, poses = stream(stream.params, stream.start(stream.params), samples)
    whole = run(model, jnp.asarray(samples))
    np.testing.assert_allclose(poses, whole, atol=1e-5)  # as in test_stream


def test_a_model_without_an_embedding_is_not_calibrated(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS, USERS)
    task = small_task(tmp_path / "data", tmp_path)
    with pytest.raises(UserError, match=r"trained with model\.user_embedding above 0"):
        calibrated(task, task.init(nnx.Rngs(0)), np.zeros((100, 4)), rate_hz=100.0)
    small_task(tmp_path / "data", tmp_path, **EMBEDDED)
    with pytest.raises(UserError, match="use 1 or more"):
        small_task(tmp_path / "data", tmp_path, data__calibration_seconds=0.5)
