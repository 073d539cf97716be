"""Several targets of one network: each is what it is alone, in its place, unit and rows."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from tds_jax import tasks
from tds_jax.errors import UserError
from tds_jax.forecast import baselines
from tests.forecast.several import (
    ALL_FITTED,
    FITTED,
    HOLE,
    NAMES,
    alone,
    on_device,
    pair,
    ready,
    task_of,
)
from tests.forecast.small import SEA, batch_of, small_config


@pytest.mark.parametrize("crop", [(0, 0), (3, 4)])
def test_examples_hold_targets_one_after_the_other_where_each_is(path, tmp_path, crop):
    both = task_of(path, tmp_path, data__crop=crop)
    one = both.source("train").example(28, None)
    assert one["target"].shape == (6, 5, 6)
    for k, name in enumerate(NAMES):
        wanted = alone(path, tmp_path, name).source("train").example(28, None)
        own = slice(3 * k, 3 * k + 3)
        np.testing.assert_array_equal(one["target"][own], wanted["target"])
        np.testing.assert_array_equal(one["weight"][own], wanted["weight"])
    # Days 32, 33 and 34 are forecast after 28 ... 31; of the first there is no temperature.
    assert one["weight"][:3].any(axis=(1, 2)).all()
    assert one["weight"][3:].any(axis=(1, 2)).tolist() == [False, True, True]
    assert (one["weight"][4] == ~HOLE).all()
    spec = both.batch_spec(1, train=False)
    for split in ("val", "test"):
        example = both.source(split).example(0, None)
        assert {n: (1, *leaf.shape) for n, leaf in example.items()} == {
            n: spec[n].shape for n in example
        }


@pytest.mark.parametrize("changes", [{}, ALL_FITTED], ids=("damped", "linear"))
def test_statistics_of_a_target_are_those_it_has_alone_bit_for_bit(tmp_path, changes):
    path = tmp_path / "daily.nc"
    pair(count=130).to_netcdf(path, engine="scipy")
    both = task_of(path, tmp_path, **changes).fit_statistics()
    each = [alone(path, tmp_path, name, **changes).fit_statistics() for name in NAMES]
    assert ("wide" in both) == bool(changes)
    for name, leaf in both.items():
        if name in ("area", "centre", "scale"):
            np.testing.assert_array_equal(leaf, each[0][name])
        else:
            axis = 0 if name in ("damping", "spread") else -1
            wanted = np.concatenate([one[name] for one in each], axis)
            np.testing.assert_array_equal(leaf, wanted)
    apart = np.abs(both["damping"][:3] - both["damping"][3:])[:, ~SEA & ~HOLE]
    assert np.median(apart) > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        FITTED | {"model__local_wide": (1, 1)},
        {"model__prior": "last", "model__normalize": "scalar"},
        {"model__prior": "none", "model__normalize": "cell"},
    ],
    ids=("linear", "last", "none"),
)
def test_where_the_network_is_silent_a_target_is_forecast_as_alone(path, tmp_path, changes):
    both = task_of(path, tmp_path, **changes)
    batch = batch_of(both.source("test"), (0, 5))
    found = ready(both, silent=True)(on_device(batch), False)
    for k, name in enumerate(NAMES):
        task = alone(path, tmp_path, name, **changes)
        own = on_device(batch_of(task.source("test"), (0, 5)))
        wanted = ready(task, silent=True)(own, False)
        # The same sums of f32 by two programs; values are near 0.3, and near 280.
        atol = 1e-6 if name == "swvl1" else 1e-3
        np.testing.assert_allclose(found[:, 3 * k : 3 * k + 3], wanted, rtol=0, atol=atol)


def test_a_silent_network_leaves_the_damped_persistence_of_each_target(path, tmp_path):
    task = task_of(path, tmp_path)
    days = task.split["train"]
    batch = on_device(batch_of(task.source("test"), (0, 5)))
    found = np.asarray(ready(task, silent=True)(batch, False))
    for k, name in enumerate(NAMES):
        fitted = baselines.fit(task.fields.aimed(name), days, 3, 1, False)
        wanted = baselines.forecasts(fitted, batch, k, False)["damped_persistence"]
        # f32 near 0.3 and near 280, two orders of summing the same terms.
        own = found[:, 3 * k : 3 * k + 3]
        np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=(1e-6, 1e-3)[k])
        assert np.abs(own - baselines.forecasts(fitted, batch, k, False)["climatology"]).max() > 0


def test_means_of_last_days_are_of_the_target_that_they_say_something_of(path, tmp_path):
    task = task_of(path, tmp_path, **FITTED)
    model = ready(task, silent=True)
    batch = on_device(batch_of(task.source("test"), (0, 5)))
    model.slow[...] = jnp.zeros((2, 6))
    without = np.asarray(model(batch, False))
    model.slow[...] = jnp.zeros((2, 6)).at[0].set(1)
    moved = np.asarray(model(batch, False)) - without
    mean = np.asarray(model.normalized(batch))[:, -2:].mean(axis=1)
    for k in range(2):
        wanted = mean[:, None, ..., k] * np.asarray(model.scale)[0, 0, k]
        wanted = np.broadcast_to(wanted, moved[:, :3].shape)
        # Differences of f32 numbers near 0.3, and near 280.
        own = moved[:, 3 * k : 3 * k + 3]
        np.testing.assert_allclose(own, wanted, rtol=0, atol=(1e-6, 1e-3)[k])


def test_a_crop_of_several_targets_sees_the_statistics_of_its_place(path, tmp_path):
    fitted = {name: FITTED[name] for name in ("model__prior", "model__local_kernel")}
    fitted |= {"model__local_days": 1, "model__local_means": (2,)}
    task = task_of(path, tmp_path, data__crop=(3, 4), **fitted)
    source, model = task.source("train"), ready(task, silent=True)
    crop = source.example(5, np.random.default_rng(3)) | {"key": np.uint32([0, 1])}
    row, column = crop["origin"]
    assert (row, column) != (0, 0)
    part = model(on_device({name: leaf[None] for name, leaf in crop.items()}), False)
    whole = model(on_device(batch_of(source, (5,))), False)
    # In the middle of the crop no map reads beyond it.
    inside = whole[:, :, row + 1 : row + 2, column + 1 : column + 3]
    assert part.shape == (1, 6, 3, 4)
    np.testing.assert_allclose(part[:, :, 1:2, 1:3][:, :3], inside[:, :3], atol=1e-5)


def test_each_target_has_its_floor_and_the_rest_none(path, tmp_path):
    changes = {"model__normalize": "scalar", "model__prior": "last"}
    batch = on_device(batch_of(task_of(path, tmp_path).source("test"), (0, 5)))
    free = ready(task_of(path, tmp_path, **changes), silent=True)(batch, False)
    for floor, lows in (((0.31,), (0.31, -np.inf)), ((-1e9, 284.0), (-1e9, 284.0))):
        model = ready(task_of(path, tmp_path, model__floor=floor, **changes), silent=True)
        low = np.repeat(np.float32(lows), 3)[None, :, None, None]
        np.testing.assert_array_equal(model(batch, False), np.maximum(free, low))
        np.testing.assert_array_equal(model.members(batch, False, 1)[:, 0], model(batch, False))
        assert (np.asarray(free) < low).any()


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_the_objective_counts_cells_of_a_target_by_its_weight(path, tmp_path, weights):
    task = task_of(path, tmp_path, loss__target_weights=weights, loss__mae_weight=0.5)
    model = ready(task)
    batch = batch_of(task.source("train"), (0, 28, 40))
    objective, states = task.loss(model, on_device(batch), False)
    scale = np.repeat(np.asarray(model.scale)[0, 0], 3)[None, :, None, None]
    error = (np.asarray(model(on_device(batch), False)) - batch["target"]) / scale
    shares = np.float64(weights or (1, 1))
    each = [batch["weight"][:, own] for own in (slice(0, 3), slice(3, 6))]
    pairs = [*zip(each, np.split(error, 2, axis=1), strict=True)]
    cost = [(w * (e**2 + 0.5 * np.abs(e))).sum() for w, e in pairs]
    # f32 sums of some hundred terms; an error of 280 in f32 is good to 1e-5 of the spread.
    np.testing.assert_allclose(objective.sum, shares @ cost, rtol=1e-4)
    np.testing.assert_allclose(objective.weight, shares @ [w.sum() for w in each], rtol=1e-6)
    values = {}
    for name, state in states.items():
        values |= state.compute(name)
    squares = [(w * e**2).sum() / w.sum() for w, e in pairs]
    wanted = np.sqrt(np.average(squares, weights=shares))
    assert values["nrmse"] == pytest.approx(wanted, rel=1e-4)
    for k, name in enumerate(("rmse", "rmse/t2m")):
        rmse = np.sqrt(squares[k]) * float(np.asarray(model.scale)[0, 0, k])
        assert values[name] == pytest.approx(rmse, rel=1e-4)
    assert {"mae", "skill", "mae/t2m", "skill/t2m"} < set(values)


def test_skill_of_a_further_target_is_against_its_own_last_day(path, tmp_path):
    changes = {"model__normalize": "scalar", "model__prior": "last"}
    both = task_of(path, tmp_path, **changes)
    batch = on_device(batch_of(both.source("test"), (0, 5)))
    states = both.loss(ready(both, silent=True), batch, False)[1]
    for name, of in (("errors", ""), ("errors1", "/t2m")):
        # The last day itself, normalised and back in f32.
        assert states[name].compute(name)[f"skill{of}"] == pytest.approx(0, abs=1e-4)


def test_land_masks_are_of_all_targets_and_networks_run_where_any_is(path, tmp_path):
    changes = {"model__extra_inputs": ("land_mask",), "model__land_only": True}
    task = task_of(path, tmp_path, **changes)
    assert task.recorded.land == (~SEA | ~HOLE).sum()
    found = task.fit_statistics()
    np.testing.assert_array_equal(found["static"][..., 0], ~SEA & ~HOLE)
    np.testing.assert_array_equal(found["network"]["cells"], np.flatnonzero(~SEA | ~HOLE))
    share = xr.Dataset({"lsm": (("lat", "lon"), np.float32(~SEA))}, {"lat": pair().lat})
    share.assign_coords(lon=pair().lon).to_netcdf(tmp_path / "land.nc", engine="scipy")
    masked = task_of(path, tmp_path, data__land_mask=f"{tmp_path}/land.nc:lsm")
    np.testing.assert_array_equal(masked.seen, [~SEA, ~SEA & ~HOLE])
    weight = masked.source("train").example(0, None)["weight"]
    assert weight[3:, ~SEA & ~HOLE].all()
    assert not weight[3:, SEA].any()
    assert np.isnan(masked.fields.read(0, 3, ("t2m",))[:, SEA]).all()


def test_coarse_fields_have_the_land_of_each_target(path, tmp_path):
    task = task_of(path, tmp_path, data__downsample=2)
    lands = [task.fields.aimed(name).land for name in NAMES]
    blocks = [np.add.reduceat(np.add.reduceat(~sea, [0, 2, 4]), [0, 2, 4], 1) > 0
              for sea in (SEA, HOLE)]  # fmt: skip
    np.testing.assert_array_equal(lands, blocks)
    assert (lands[0] != lands[1]).any()
    assert task.fields.digest() != task.fields.aimed("t2m").digest()


def test_noise_moves_the_leads_of_every_target(path, tmp_path):
    task = task_of(path, tmp_path, **FITTED)
    model = ready(task, silent=True)
    np.testing.assert_array_equal(model.mix[...], [[1, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]])
    batch = on_device(batch_of(task.source("test"), (0, 5)))
    members = np.asarray(model.members(batch, False, 8))
    moved = members - np.asarray(model(batch, False))[:, None]
    unit = np.asarray(model.spread) * np.repeat(np.asarray(model.scale)[0, 0], 3)[:, None, None]
    share = (moved / unit)[..., ~SEA & ~HOLE].std(axis=(0, 1, 3))
    # 16 draws of fields that are alike over 3 cells, of a grid of 5 x 6.
    assert (np.abs(share - 1) < 0.35).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"data__more_targets": ("t2m", "t2m")},
            r"data\.more_targets=\('t2m', 't2m'\) name 't2m' again beside data\.target='swvl1'; na",
        ),
        ({"data__more_targets": ("swvl1",)}, r"name 'swvl1' again beside data\.target='swvl1'"),
        (
            {"data__more_targets": ("rain",)},
            r"data\.more_targets='rain' is not known; use one of swvl1, t2m",
        ),
        (
            {"data__variables": (*NAMES, "rain"), "data__more_targets": ("rain",)},
            r"variable 'rain' is missing; found .*swvl1",
        ),
        (
            {"data__variables": (*NAMES, "t2m@0"), "data__more_targets": ("t2m@0",)},
            r"data\.more_targets='t2m@0' is an hour of a day; forecast 't2m'",
        ),
        (
            {"loss__target_weights": (1.0, 2.0, 3.0)},
            r"loss\.target_weights=\(1\.0, 2\.0, 3\.0\) are 3 numbers for 2 targets \(swvl1, t2m\)",
        ),
        ({"loss__target_weights": (1.0, 0.0)}, r"target_weights=\(1\.0, 0\.0\) must be above 0"),
        ({"model__floor": (0.0, 0.0, 0.0)}, r"model\.floor=\(0\.0, 0\.0, 0\.0\) must be one numb"),
        (
            {"model__floor": (0.0, 1.0), "data__more_targets": ()},
            r"model\.floor=\(0\.0, 1\.0\) must be one number for each target \(swvl1\)",
        ),
        ({"model__head": "repeat"}, r"model\.head='repeat' is one map for all that is forecast"),
        ({"eval__metric": "skill/t2m"}, r"eval\.metric=skill/t2m should rise"),
    ],
)
def test_what_cannot_be_is_one_line(path, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        task_of(path, tmp_path, **changes)


def test_a_choice_by_the_headline_alone_is_said(path, tmp_path):
    def said(**changes):
        return [w for w in task_of(path, tmp_path, **changes).warnings() if "eval.metric" in w]

    (line,) = said()
    assert line.startswith("eval.metric=rmse is of swvl1 alone, by which the best checkpoint is c")
    assert said(eval__metric="nrmse") == said(eval__every=0) == said(data__more_targets=()) == []


def test_what_a_run_holds_is_said_and_an_older_one_has_one_target(path, tmp_path):
    assert task_of(path, tmp_path).data_about().words.endswith("swvl1, t2m -> swvl1, t2m")
    values = small_config(path, tmp_path).to_dict()
    del values["data"]["more_targets"], values["loss"]["target_weights"]
    found = tasks.today(values)
    assert (*found["data"]["more_targets"], *found["loss"]["target_weights"]) == ()
