"""Several targets of one network: each is what it is alone, in its place, unit and rows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx

import tds_jax
from tds_jax import tasks
from tds_jax.engine import step
from tds_jax.engine.report import Report
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, evaluation, export, figures, prediction
from tds_jax.forecast.arrays import Answer
from tds_jax.forecast.metrics import Cells
from tds_jax.forecast.task import ForecastTask
from tds_jax.interchange import artefact
from tests.doors import door
from tests.forecast.small import SEA, SETTINGS, batch_of, record, small_config, small_task

NAMES = ("swvl1", "t2m")
HOLE = np.zeros((5, 6), bool)  # where there is never a temperature
HOLE[0, 5] = HOLE[4, 0] = True
AWAY = slice(30, 33)  # days without one
BOTH = {"data__variables": NAMES, "data__more_targets": ("t2m",)}
FITTED = {
    "model__prior": "linear",
    "model__local_days": 2,
    "model__local_kernel": 3,
    "model__local_means": (2, 4),
    "model__noise": 2,
}
ALL_FITTED = FITTED | {
    "model__local_wide": (1, 1),
    "model__local_place": True,
    "model__local_folds": 2,
}


def pair(count=240, seed=0, **options):
    """`record` with a temperature for its rain, over the sea too, but not everywhere and always."""
    data = record(count=count, seed=seed, **options)
    rng = np.random.default_rng(seed + 100)
    weather = np.zeros((count, 5, 6))
    for t in range(1, count):
        weather[t] = 0.6 * weather[t - 1] + rng.normal(0, 2, (5, 6))
    season = 8 * np.cos(2 * np.pi * np.arange(count) / 365)[:, None, None]
    values = np.where(HOLE, np.nan, 280 + season + weather).astype("f4")
    values[AWAY] = np.nan
    return data.drop_vars("tp").assign(t2m=(data.swvl1.dims, values, {"units": "K"}))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("targets") / "daily.nc"
    pair().to_netcdf(place, engine="h5netcdf")
    return place


def task_of(path, tmp_path, **changes):
    return small_task(path, tmp_path, **BOTH | changes)


def alone(path, tmp_path, name, **changes):
    """The same run of one target."""
    one = {"data__variables": NAMES, "data__target": name}
    return small_task(path, tmp_path, **one | changes)


def ready(task, silent=False):
    """A model with the task's statistics; silent: whose network answers 0."""
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    rest = step.replace_leaves(rest, task.fit_statistics())
    mix = {name: params[name] for name in ("mix",) if name in params}
    params = jax.tree.map(jnp.zeros_like, params) | mix if silent else params
    return nnx.merge(graphdef, params, rest)


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


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
    pair(count=130).to_netcdf(path, engine="h5netcdf")
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


@pytest.fixture(scope="module")
def evaluated(path, tmp_path_factory):
    """(task, model, report, folder), of an ensemble whose network is silent."""
    folder = tmp_path_factory.mktemp("evaluated")
    task = task_of(path, folder, **FITTED | {"eval__members": 4})
    model = ready(task, silent=True)
    report = evaluation.evaluate(task, model, "test", folder)
    report.write(folder, {})
    return task, model, report, folder


def test_rows_of_a_target_are_those_of_a_run_of_it_alone(evaluated, path, tmp_path):
    _, _, report, _ = evaluated
    found = {(row.group, row.method, row.metric): row for row in report.rows}
    assert {row.group for row in report.rows} == {
        *("all", "lead/1", "lead/2", "lead/3", "against_model"),
        *(f"against_model/lead/{n}" for n in (1, 2, 3)),
        *("of/t2m", "of/t2m/lead/1", "of/t2m/lead/2", "of/t2m/lead/3"),
        *("against_model/of/t2m", *(f"against_model/of/t2m/lead/{n}" for n in (1, 2, 3))),
    }
    for name, of in zip(NAMES, ("", "of/t2m"), strict=True):
        task = alone(path, tmp_path, name, **FITTED | {"eval__members": 4})
        single = evaluation.evaluate(task, ready(task, silent=True), "test", None)
        for row in single.rows:
            place = row.group if not of else row.group.replace("all", of)
            if of and "lead/" in place:
                place = place.replace("lead/", f"{of}/lead/")
            elif of and place == "against_model":
                place = f"{place}/{of}"
            own = found[place, row.method, row.metric]
            assert own.count == row.count
            ends = [(own.value, row.value), (own.low, row.low), (own.high, row.high)]
            for one, other in ends:
                # Rounding of two programs, of f32 near 280 beside errors of 2 and ends near 0.
                assert (one is None) == (other is None)
                assert other is None or one == pytest.approx(other, rel=2e-3, abs=2e-3, nan_ok=True)


def test_baselines_of_each_target_are_kept_by_its_own_identity(evaluated, path, monkeypatch):
    task, _, _, folder = evaluated
    kept = {name: evaluation.fitted_baselines(task, "test", folder, name=name) for name in NAMES}
    files = sorted(one.name for one in folder.glob("baselines*"))
    assert files == ["baselines_test.npz", "baselines_test_t2m.npz"]
    monkeypatch.setattr(baselines, "fit", lambda *_: pytest.fail("fitted again"))
    for name in NAMES:
        again = evaluation.fitted_baselines(task, "test", folder, name=name)
        np.testing.assert_array_equal(again.damping, kept[name].damping)
    assert kept["swvl1"].digest != kept["t2m"].digest
    monkeypatch.undo()
    single = evaluation.fitted_baselines(alone(path, folder, "t2m"), "test", None)
    np.testing.assert_array_equal(kept["t2m"].linear, single.linear)
    np.testing.assert_array_equal(kept["t2m"].spread_linear, single.spread_linear)


def test_tables_name_every_target_with_its_unit_and_fit_eighty_columns(
    evaluated, capsys, monkeypatch
):
    _, _, report, folder = evaluated
    monkeypatch.setenv("COLUMNS", "80")
    again = Report.read(folder, "test")
    again.show("test", "test")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(len(line) for line in lines) <= 80
    first, second = lines.index("swvl1 [m**3 m**-3]"), lines.index("t2m [K]")
    for start, group in ((first, "all"), (second, "of/t2m")):
        row = next(line for line in lines[start:] if line.startswith("│ model"))
        assert f"{report.value('rmse', group=group):.4g}" in row
        row = next(line for line in lines[start:] if line.startswith("│ linear "))
        assert f"{report.value('rmse', 'linear', group):.4g}" in row
    assert any(line.startswith("swvl1, rmse: ") for line in report.verdict)
    assert any(line.startswith("t2m, rmse: ") for line in report.verdict)
    assert "note: errors of of/t2m are of t2m [K]" in out
    titles = [grid.title for grid in report.grids("test")]
    assert titles[:3] == ["swvl1 [m**3 m**-3]", titles[1], "t2m [K]"]
    assert titles[-1] == "t2m [K], model by lead"
    assert f"{report.value('rmse', group='of/t2m'):.4g}" in str(report.table())
    stored = json.loads((folder / "report.json").read_text())["splits"]["test"]["groups"]
    assert stored["of/t2m"]["model"]["rmse"] == report.value("rmse", group="of/t2m")
    assert set(stored["of/t2m"]["baselines"]) == set(baselines.NAMES)


def test_each_target_has_figures_of_its_own(evaluated):
    folder = evaluated[3] / "plots"
    sizes = {one.name: one.stat().st_size for one in folder.glob("*.png")}
    for kind in ("leads", "maps", "rmse", "ensemble"):
        first, second = f"test_{kind}.png", f"test_t2m_{kind}.png"
        assert min(sizes[first], sizes[second]) > 5000
        assert (folder / first).read_bytes() != (folder / second).read_bytes()


def test_curves_of_a_target_are_its_own_rows(evaluated, monkeypatch):
    task, _, report, folder = evaluated
    drawn = []
    for name in ("draw_maps", "draw_error_map"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    monkeypatch.setattr(figures, "draw_leads", lambda path, curves, unit: drawn.append(curves))
    states = {"cells": Cells(*np.ones((3, 3, 5, 6)))}
    for target, of in zip(evaluation.targets_of(task), ("", "of/t2m/"), strict=True):
        evaluation._draw(task, target, folder, report, "test", None, states)
        values = drawn[-1].values("rmse")["linear"]
        assert values == {n: report.value("rmse", "linear", f"{of}lead/{n}") for n in (1, 2, 3)}


def test_another_period_is_judged_beside_the_runs_baselines_of_each_target(evaluated, tmp_path):
    _, model, _, folder = evaluated
    run = tmp_path / "run"
    (run / "on_other").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for one in folder.glob("baselines*"):
        (run / one.name).write_bytes(one.read_bytes())
    pair(count=60, first="2020-06-01", seed=1).to_netcdf(tmp_path / "later.nc", engine="h5netcdf")
    other = task_of(tmp_path / "later.nc", tmp_path, **FITTED | {"eval__members": 4})
    report = evaluation.evaluate(other, model, "test", run / "on_other")
    assert 0 < report.value("rmse", "linear") < 0.2
    assert 2 < report.value("rmse", "linear", "of/t2m") < 20
    (run / "baselines_test_t2m.npz").unlink()
    with pytest.raises(UserError, match="has no baselines of test for other data"):
        evaluation.evaluate(other, model, "test", run / "on_other")


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_predictions_have_a_variable_for_each_target(path, tmp_path, ending):
    task = task_of(path, tmp_path)
    known = ForecastTask(task.config, task.inputs())  # as the door does: without training data
    np.testing.assert_array_equal(known.seen, [~SEA, ~HOLE])
    new = pair(count=30, first="2021-03-01", seed=5)
    new.to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    model, out = ready(task, silent=True), tmp_path / f"out.{ending}"
    prediction.predict(known, model, tmp_path / "new.nc", out)
    kind = {"engine": "zarr", "consolidated": False} if ending == "zarr" else {}
    with xr.open_dataset(out, decode_timedelta=True, **kind) as data:
        found = data.load()
    assert set(found.data_vars) == set(NAMES)
    assert (found.swvl1.attrs["units"], found.t2m.attrs["units"]) == ("m**3 m**-3", "K")
    assert found.swvl1.attrs["long_name"] == "Soil water"
    assert "long_name" not in found.t2m.attrs
    assert found.attrs["title"] == "forecasts of swvl1, t2m"
    for name, sea in zip(NAMES, (SEA, HOLE), strict=True):
        single = alone(path, tmp_path, name)
        wanted = Answer(single, ready(single, silent=True))(new)[name]
        np.testing.assert_allclose(found[name].values, wanted.values, rtol=1e-5)
        assert np.isnan(found[name].values[..., sea]).all()
        assert np.isfinite(found[name].values[..., ~sea]).all()
    xr.testing.assert_equal(Answer(known, model)(new), found)


def test_a_run_that_forecasts_all_it_reads_goes_on_from_its_own_forecasts(path, tmp_path):
    """Each variable from its own, whatever the order: days 4 to 6 are the first after these."""
    task = task_of(path, tmp_path, data__target="t2m", data__more_targets=("swvl1",))
    answer = Answer(task, ready(task))
    before = pair(count=60).isel(time=slice(50, 60))
    longer = answer(before, lead=6).isel(time=-1)
    said = longer.isel(prediction_timedelta=slice(0, 3))
    after = before.isel(time=slice(-3, None)).copy(
        data={name: said[name].transpose(..., "lat", "lon").values for name in NAMES}
    )
    after["time"] = before.time[-3:].values + np.timedelta64(3, "D")
    again = answer(xr.concat([before, after], "time")).isel(time=-1)
    for name in NAMES:
        np.testing.assert_allclose(longer[name].values[3:], again[name].values, rtol=1e-5)
    more = small_task(path, tmp_path, data__variables=NAMES)
    with pytest.raises(UserError, match="would need those of t2m too"):
        Answer(more, ready(more))(before, lead=6)


def test_an_exported_file_names_its_targets_and_gives_all_their_maps(path, tmp_path):
    task = task_of(path, tmp_path, **FITTED)
    model = ready(task)
    export.write(task, model, tmp_path / "model.npz")
    file = artefact.read(tmp_path / "model.npz")
    assert (file.about["target"], file.about["targets"]) == ("swvl1", list(NAMES))
    batch = batch_of(task.source("test"), (0, 5))
    fields = np.where(batch["present"] > 0, batch["fields"], np.float32(np.nan))
    found = file.functions["offline"](fields, batch["phase"])
    np.testing.assert_allclose(found, model(on_device(batch), False), rtol=1e-5, atol=1e-6)


def test_land_masks_are_of_all_targets_and_networks_run_where_any_is(path, tmp_path):
    changes = {"model__extra_inputs": ("land_mask",), "model__land_only": True}
    task = task_of(path, tmp_path, **changes)
    assert task.recorded.land == (~SEA | ~HOLE).sum()
    found = task.fit_statistics()
    np.testing.assert_array_equal(found["static"][..., 0], ~SEA & ~HOLE)
    np.testing.assert_array_equal(found["network"]["cells"], np.flatnonzero(~SEA | ~HOLE))
    share = xr.Dataset({"lsm": (("lat", "lon"), np.float32(~SEA))}, {"lat": pair().lat})
    share.assign_coords(lon=pair().lon).to_netcdf(tmp_path / "land.nc", engine="h5netcdf")
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


@pytest.fixture
def train(path, tmp_path):
    """Trains two targets by the door, in a folder, so many steps."""
    settings = SETTINGS | {"data.variables": NAMES, "data.more_targets": ("t2m",)}
    settings |= {"data.path": str(path), "eval.metric": "nrmse", "eval.every": 2, "log.every": 1}
    settings |= {"log.plots": False, "optim.learning_rate": 0.3, "loss.target_weights": (1.0, 2.0)}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    config = "--config=configs/forecast_soil_moisture.py"

    def trained(folder, steps, *more):
        place = f"--workdir={tmp_path / folder}"
        return door("train", config, place, *flags, f"--config.optim.steps={steps}", *more)

    return trained


@pytest.mark.long  # the engine's runs go on so, whatever they are of
def test_a_run_of_several_targets_goes_on_as_an_undisturbed_one(train, tmp_path):
    for folder, steps in (("run", 2), ("run", 6), ("straight", 6)):
        done = train(folder, steps)
        assert done.returncode == 0, done.stderr
    run, straight = (tds_jax.load(tmp_path / name) for name in ("run", "straight"))
    for one, other in zip(
        jax.tree.leaves(run.params), jax.tree.leaves(straight.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_doors_train_and_forecast_several_targets_and_keep_to_their_list(train, tmp_path):
    """The best checkpoint is that of all targets."""
    done = train("run", 6)
    assert done.returncode == 0, done.stderr
    refused = train("run", 6, "--config.data.more_targets=()", "--config.loss.target_weights=()")
    assert refused.returncode == 2
    assert "was begun with another config (data.more_targets" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: ")

    run = tds_jax.load(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    val = {line["step"]: line for line in lines if line["split"] == "val"}
    assert run.step == min(val, key=lambda step: val[step]["nrmse"])
    stored = json.loads((tmp_path / "run/report.json").read_text())["splits"]["test"]
    assert stored["groups"]["of/t2m"]["model"]["rmse"] > 1 > stored["model"]["rmse"]
    report = run.evaluate()
    assert report.value("rmse", group="of/t2m") == pytest.approx(
        stored["groups"]["of/t2m"]["model"]["rmse"], rel=1e-6
    )

    new = pair(count=30, first="2021-03-01", seed=5)
    new.to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    out = tmp_path / "out.nc"
    places = f"--workdir={tmp_path / 'run'}", f"--input={tmp_path / 'new.nc'}", f"--output={out}"
    done = door("predict", *places, "--lead=5")
    assert done.returncode == 0, done.stderr
    with xr.open_dataset(out, decode_timedelta=True) as written:
        found = run.predict(new, lead=5)
        for name in NAMES:
            assert found[name].sizes["prediction_timedelta"] == 5
            xr.testing.assert_equal(found[name], written[name])
