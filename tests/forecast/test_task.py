"""The task: what a model is given, what stands around its network, and what training minimises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax import tasks
from tds_jax.engine import step
from tds_jax.engine.blueprint import Blueprint
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, linear
from tds_jax.forecast.recorded import packed
from tests.forecast.small import SEA, batch_of, record, small_config, small_task, write_record


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("forecast") / "daily.nc")


def silent(task, statistics=True):
    """A model whose network answers 0, with the task's statistics."""
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    if statistics:
        rest = step.replace_leaves(rest, task.fit_statistics())
    return nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, params), rest)


def forecast(model, batch):
    batch = jax.tree.map(jnp.asarray, batch)
    return np.asarray(jax.jit(lambda batch: model(batch, False))(batch))


def test_batches_have_the_shapes_that_are_promised(path, tmp_path):
    task = small_task(path, tmp_path, data__crop=(3, 4))
    for split, rng in (("train", np.random.default_rng(0)), ("val", None), ("test", None)):
        example = task.source(split).example(0, rng)
        spec = task.batch_spec(1, train=split == "train")
        assert set(spec) - set(example) == {"example", "key"}
        for name, leaf in example.items():
            assert (1, *leaf.shape) == spec[name].shape, name
            assert leaf.dtype == spec[name].dtype, name


def test_every_statistic_has_its_place(path, tmp_path):
    for changes in (
        {"model__normalize": "none", "model__prior": "none"},
        {"model__normalize": "scalar", "model__prior": "last"},
        {"model__normalize": "cell"},
        {"model__extra_inputs": ("land_mask", "day_of_year", "coordinates")},
        {"model__land_only": True},
    ):
        task = small_task(path, tmp_path, **changes)
        rest = step.split(task.init(nnx.Rngs(0)))[2]
        filled = step.replace_leaves(rest, task.fit_statistics())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(filled))
    assert task.inputs() == {
        "height": 5,
        "width": 6,
        "variables": ["swvl1", "tp"],
        "grid": "lat 60..56, lon 0..5",
        "land": int((~SEA).sum()),
        "seen": packed(~SEA),
        "units": ["m**3 m**-3", "m"],
    }


def test_data_to_evaluate_on_are_brought_to_units_and_longitudes_of_the_run(path, tmp_path):
    run = small_task(path, tmp_path).inputs()
    data = record()
    data = data.assign(swvl1=data.swvl1 * 100).assign_coords(lon=data.lon + 360)
    data.swvl1.attrs["units"] = "percent"
    data.tp.attrs["units"] = "meter"
    data.to_netcdf(tmp_path / "other.nc", engine="scipy")
    config = small_config(tmp_path / "other.nc", tmp_path)
    task = tasks.get_for_data(config, run)
    assert task.inputs() == run
    wanted = small_task(path, tmp_path).fields.read(0, 9)
    # Times 100 and back: two roundings of f32 numbers near 0.3.
    np.testing.assert_allclose(task.fields.read(0, 9), wanted, atol=1e-6)
    other = data.isel(lat=slice(None, None, -1))
    other.to_netcdf(tmp_path / "south.nc", engine="scipy")
    south = tasks.get_for_data(small_config(tmp_path / "south.nc", tmp_path), run)
    assert south.inputs()["grid"] == "lat 56..60, lon 0..5"  # which the door refuses


def test_a_silent_network_leaves_the_damped_persistence_baseline(path, tmp_path):
    task = small_task(path, tmp_path)
    batch = batch_of(task.source("test"), range(4))
    fitted = baselines.fit(task.fields, task.split["train"], 3, 1, False)
    expected = baselines.forecasts(fitted, jax.tree.map(jnp.asarray, batch), 0, False)
    found = forecast(silent(task), batch)
    # f32 near 0.3, two orders of summing the same terms.
    np.testing.assert_allclose(found, expected["damped_persistence"], atol=1e-6)
    # Weights of a condition of some hundreds, of f32 inputs, stored as f32; the spread is 0.02.
    fit = {"model__prior": "linear", "model__local_days": 2, "model__local_ridge": linear.RIDGE}
    found = forecast(silent(small_task(path, tmp_path, **fit)), batch)
    np.testing.assert_allclose(found, expected["linear_inputs"], atol=1e-5)
    assert np.abs(found - expected["damped_persistence"]).max() > 1e-3
    alone = small_task(path, tmp_path, **fit, data__variables=("swvl1",))
    one = batch_of(alone.source("test"), range(4))
    np.testing.assert_allclose(forecast(silent(alone), one), expected["linear"], atol=1e-5)
    found = forecast(silent(task), batch)
    last = silent(small_task(path, tmp_path, model__prior="last", model__normalize="scalar"))
    wanted = np.broadcast_to(batch["fields"][:, -1:, ..., 0], found.shape)
    known = np.broadcast_to(batch["present"][:, -1:, ..., 0] > 0, found.shape)
    np.testing.assert_allclose(forecast(last, batch)[known], wanted[known], atol=1e-6)


@pytest.mark.parametrize("normalize", ["scalar", "cell", "anomaly"])
def test_without_a_prior_a_silent_network_gives_what_is_usual(path, tmp_path, normalize):
    task = small_task(path, tmp_path, model__normalize=normalize, model__prior="none")
    batch = batch_of(task.source("train"), range(2))
    found = forecast(silent(task), batch)
    days = task.fields.days[batch["start"][:, None] + np.arange(4, 7)]
    usual = task.fit_statistics()["centre"]
    assert usual.shape[0] == (3 if normalize == "anomaly" else 1)
    values = task.fields.read(*(task.split["train"].start, task.split["train"].stop))[..., 0]
    land = ~SEA
    if normalize == "scalar":
        expected = np.full(found.shape, np.nanmean(values))
    elif normalize == "cell":
        expected = np.broadcast_to(np.nanmean(np.where(land, values, 0), axis=0), found.shape)
    else:
        t = (days - np.datetime64("2019-01-01")) / np.timedelta64(1, "D") / 365 * 2 * np.pi
        basis = np.stack([np.ones_like(t), np.sin(t), np.cos(t)])
        expected = np.einsum("kbl,khw->blhw", basis, usual[..., 0])
    np.testing.assert_allclose(found[..., land], expected[..., land], atol=2e-6)


def test_a_crop_sees_the_statistics_of_its_place(path, tmp_path):
    task = small_task(path, tmp_path, data__crop=(3, 4))
    source = task.source("train")
    crop = source.example(5, np.random.default_rng(3)) | {"key": np.uint32([0, 1])}
    whole = source.example(5, None) | {"key": np.uint32([0, 1])}
    row, column = crop["origin"]
    assert (row, column) != (0, 0)
    model = silent(task)
    part = forecast(model, {name: leaf[None] for name, leaf in crop.items()})
    full = forecast(model, {name: leaf[None] for name, leaf in whole.items()})
    inside = full[:, :, row : row + 3, column : column + 4]
    np.testing.assert_allclose(part, inside, atol=1e-6)
    area = model.area_of({name: jnp.asarray(leaf[None]) for name, leaf in crop.items()})
    expected = task.fit_statistics()["area"][row : row + 3]
    np.testing.assert_allclose(area[0, 0, :, 0], expected, rtol=1e-6)


def test_a_linear_map_of_the_last_days_can_be_persistence(path, tmp_path):
    changes = {"model__prior": "none", "model__local_days": 2, "model__local_kernel": 3}
    task = small_task(path, tmp_path, **changes)
    model = silent(task)
    kernel = np.zeros(model.local.shape, "f4")
    kernel[1, 1, 2] = 1  # the middle cell, the last day's first variable
    model.local[...] = jnp.asarray(kernel)
    batch = batch_of(task.source("test"), range(2))
    found = (forecast(model, batch) - forecast(silent(task), batch)) / np.asarray(model.scale)[
        0, 0, 0
    ]
    last = np.asarray(model.normalized(jax.tree.map(jnp.asarray, batch)))[:, -1:, ..., 0]
    np.testing.assert_allclose(found, np.broadcast_to(last, found.shape), atol=1e-4)


def test_the_objective_is_a_sum_over_known_cells_in_units_of_the_spread(path, tmp_path):
    task = small_task(path, tmp_path, loss__mse_weight=0.5, loss__mae_weight=2.0)
    model = silent(task)
    batch = batch_of(task.source("val"), range(3))
    objective, states = task.loss(model, jax.tree.map(jnp.asarray, batch), train=False)
    error = (forecast(model, batch) - batch["target"]) / np.asarray(model.scale)[0, 0, 0]
    cost = batch["weight"] * (0.5 * error**2 + 2 * np.abs(error))
    np.testing.assert_allclose(objective.sum, cost.sum(), rtol=1e-4)
    assert objective.weight == batch["weight"].sum() == 3 * 3 * (~SEA).sum()
    values = states["errors"].compute("")
    squared = (batch["weight"] * (forecast(model, batch) - batch["target"]) ** 2).sum()
    np.testing.assert_allclose(values["rmse"] ** 2, squared / objective.weight, rtol=1e-4)
    behind = batch["fields"][:, -1:, ..., 0] - batch["target"]
    skill = 1 - squared / (batch["weight"] * behind**2).sum()
    np.testing.assert_allclose(values["skill"], skill, atol=1e-4)


def test_area_moves_weight_to_large_cells(path, tmp_path):
    batch = batch_of(small_task(path, tmp_path).source("val"), range(2))
    sums = []
    for area in (False, True):
        task = small_task(path, tmp_path, loss__area=area)
        sums.append(task.loss(silent(task), jax.tree.map(jnp.asarray, batch), train=False)[0])
    rows = task.fit_statistics()["area"][:, None]
    np.testing.assert_allclose(sums[1].weight, (batch["weight"] * rows).sum(), rtol=1e-6)
    assert sums[1].sum != sums[0].sum


def test_accumulation_with_batch_norm_is_warned_of(path, tmp_path):
    def warned(**changes):
        return [w for w in small_task(path, tmp_path, **changes).warnings() if "BatchNorm" in w]

    (line,) = warned(model__norm="batch", optim__accumulate=4)
    assert line.startswith("optim.accumulate=4: BatchNorm takes its statistics over 1 examples")
    assert warned(model__norm="batch") == warned(optim__accumulate=4) == []
    assert warned(model__name="convlstm", model__norm="batch", optim__accumulate=4) == []


def test_a_climatology_without_a_whole_year_is_warned_of(path, tmp_path):
    (line,) = small_task(path, tmp_path).warnings()  # 240 days of train
    assert line.startswith("no train day lies in 35% of the year: the climatology is a guess")
    assert small_task(path, tmp_path, model__normalize="cell").warnings() == []


def test_memory_options_are_settings_of_the_config(path, tmp_path):
    for name in ("convlstm", "cnn3d_lstm_micro"):
        task = small_task(path, tmp_path, model__name=name)
        for setting, values in task.memory_options().items():
            for value in values:
                small_config(path, tmp_path, **{f"memory__{setting}": value})
    assert task.memory_options()["pixel_chunk"] == (0, 65_536, 16_384, 4_096)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model__name": "resnet"},
            r"model\.name='resnet' is not known; use one of convlstm",
        ),
        ({"data__target": "t2m"}, r"data\.target='t2m' is not known; use one of swvl1, tp"),
        ({"data__crop": (9, 9)}, r"data\.crop=\(9, 9\) does not fit the grid of 5 x 6"),
        ({"data__crop": (3, 3), "model__land_only": True}, r"moves the cells that model\.land"),
        ({"model__land_only": True, "model__name": "convlstm"}, "needs an LSTM per pixel"),
        ({"model__normalize": "none"}, r"'damped' damps what differs.*use 'anomaly'"),
        ({"model__local_days": 9}, r"model\.local_days=9 is more than data\.input_days=4"),
        ({"model__local_kernel": 4, "model__local_days": 1}, "no middle cell; use an odd"),
        ({"data__input_days": 500}, r"input_days=500.*the longest stretch has 400"),
        ({"data__split_ratio": (0.98, 0.01, 0.01)}, "the val split has no window of 7 days"),
        ({"data__variables": ("swvl1", "soil")}, r"variable 'soil' is missing; found .*swvl1"),
    ],
)
def test_what_cannot_be_is_one_line(path, tmp_path, changes, words):
    def begin():
        task = small_task(path, tmp_path, **changes)
        return [task.source(split) for split in ("train", "val", "test")]

    with pytest.raises(UserError, match=words):
        begin()


def test_the_state_of_training_is_built_without_data(path, tmp_path):
    config = small_config(path, tmp_path)
    task = small_task(path, tmp_path)
    known = type(task)(config, task.inputs())
    shapes = Blueprint(known, config).shapes
    assert "fields" not in vars(known)
    rest = step.replace_leaves(
        jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes.rest), task.fit_statistics()
    )
    assert {"centre", "scale", "damping", "area"} <= set(rest)


def test_it_says_where_its_data_are_and_how_much_of_what_they_hold(path, tmp_path):
    place, words, generated = small_task(path, tmp_path).data_about()
    assert (place, generated) == (str(path), False)
    assert words == (
        "400 days 2019-01-01 to 2020-02-04 (train 240, val 80, test 80), 5 x 6 cells, lat 60..56, "
        "lon 0..5; swvl1, tp -> swvl1"
    )


def test_no_forecast_is_below_the_floor_but_in_training(path, tmp_path):
    task = small_task(path, tmp_path, model__floor=(0.31,), model__normalize="scalar",
                      model__prior="last")  # fmt: skip
    model = silent(task)
    batch = jax.tree.map(jnp.asarray, batch_of(task.source("test"), (0, 5)))
    free = np.asarray(model(batch, True))
    raised = np.asarray(model(batch, False))
    assert (free < 0.31).any()
    assert (free > 0.31).any()
    np.testing.assert_array_equal(raised, np.maximum(free, np.float32(0.31)))
    np.testing.assert_array_equal(model.members(batch, False, 1)[:, 0], raised)
