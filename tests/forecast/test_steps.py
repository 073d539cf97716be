"""Steps finer than a day: what they are made of, and that all that speaks of days follows them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx

from tds_jax.engine import step
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, evaluation, export, prediction
from tds_jax.forecast.arrays import Answer
from tds_jax.forecast.checking import Check
from tds_jax.forecast.climatology import basis, fit_climatology, fit_damping
from tds_jax.forecast.cycles import cycles
from tds_jax.forecast.day_of_year import at_phase, fit_day_of_year
from tds_jax.forecast.days import gap_lines, phases
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.prepare import Prepare
from tds_jax.forecast.steps import STEP_HOURS, Step
from tds_jax.forecast.windows import WindowSpec, window_starts
from tds_jax.interchange import artefact
from tds_jax.progress import silent
from tests.forecast.files import LAT, LON, ArrayFields, dataset, hours, write
from tests.forecast.small import batch_of, small_config, small_task

OPEN = {"accumulated": (), "land_mask": "", "downsample": 1}
SIX = np.dtype("datetime64[6h]")


def times(count, first="2020-01-01"):
    """`count` steps of six hours."""
    return np.datetime64(first).astype(SIX) + np.arange(count)


def usual_of(days):
    """(n,): a season, and a cycle of the day that is twice as high in summer as in winter."""
    year, day = 2 * np.pi * phases(days).T
    return 280 - 8 * np.cos(year) + (3 - np.cos(year)) * np.sin(day)


def record(count=2400, weather=1.0, first="2020-01-01", seed=0):
    """6-hourly air over 3 x 4 cells: `usual_of` and weather that lasts for days."""
    rng = np.random.default_rng(seed)
    away = np.zeros((count, 3, 4))
    for t in range(1, count):
        away[t] = 0.95 * away[t - 1] + rng.normal(0, 0.3, (3, 4))
    days = times(count, first)
    values = usual_of(days)[:, None, None] + weather * away
    axes = {
        "time": days.astype("datetime64[ns]"),
        "lat": 50.0 - np.arange(3),
        "lon": np.arange(4.0),
    }
    air = (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})
    return xr.Dataset({"air": air}, axes)


SETTINGS = {
    "data__variables": ("air",),
    "data__target": "air",
    "data__step_hours": 6,
    "data__input_days": 1.0,
    "data__lead_days": 0.75,
    "model__extra_inputs": ("time_of_day",),
    "eval__batch_size": 48,
}


def task_of(folder, **changes):
    source = folder / "air.nc"
    if not source.exists():
        record().to_netcdf(source, engine="scipy")
    return small_task(source, folder, **SETTINGS | changes)


def fresh(task, silent=False):
    """A model with its statistics; silent: whose network says nothing."""
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    params = jax.tree.map(jnp.zeros_like, params) if silent else params
    return nnx.merge(graphdef, params, step.replace_leaves(rest, task.fit_statistics()))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(task, a model that is its damped persistence, folder)."""
    folder = tmp_path_factory.mktemp("steps")
    task = task_of(folder)
    (folder / "run").mkdir()
    return task, fresh(task, silent=True), folder


@pytest.mark.parametrize("wanted", [hours for hours in STEP_HOURS if hours < 24])
@pytest.mark.parametrize("kind", ["running", "step"])
def test_a_step_is_the_mean_of_its_hours_and_its_part_of_a_total(tmp_path, kind, wanted):
    rng = np.random.default_rng(4)
    days = 10
    amounts = rng.random((24 * days, len(LAT), len(LON))) ** 6
    data = dataset(hours("2020-03-01", 24 * days + 1), names=("sm", "tp"))
    stored = amounts.reshape(days, 24, *amounts.shape[1:]).cumsum(axis=1).reshape(amounts.shape)
    stored = stored if kind == "running" else amounts
    data.tp[...] = np.concatenate([np.zeros((1, *amounts.shape[1:])), stored])
    data.tp.attrs["GRIB_stepType"] = "accum"
    fields = open_fields(
        write(data, tmp_path / "a.nc"), ("sm", "tp"), "sm", step_hours=wanted, **OPEN
    )
    assert fields.kinds["tp"] == kind
    # The last stamp, midnight, is a whole step of hours alone.
    count = 24 * days // wanted + (wanted == 1)
    first = np.datetime64("2020-03-01T00")
    np.testing.assert_array_equal(fields.days, first + wanted * np.arange(count))
    assert Step.of(fields.days) == Step(wanted)
    found = fields.read(0, 24 * days // wanted)
    means, totals = (
        values.reshape(-1, wanted, *amounts.shape[1:])
        for values in (data.sm.values[:-1].astype("f8"), amounts)
    )
    np.testing.assert_allclose(found[..., 0], means.mean(axis=1), atol=1e-6)
    # Differences of running totals in f32, up to 24 large: eps / 2 of them, twice.
    np.testing.assert_allclose(found[..., 1], totals.sum(axis=1), rtol=3e-6, atol=4e-6)


def test_a_step_whose_running_total_has_no_beginning_or_no_end_is_missing(tmp_path):
    data = dataset(hours("2020-03-01", 97), names=("tp",))
    data.tp[...] = ((np.arange(97) - 1) % 24 + 1)[:, None, None]
    gone = data.isel(valid_time=np.delete(np.arange(97), 30))  # 06 UTC of the second day
    kinds = OPEN | {"accumulated": ("tp=running",)}
    source = write(gone, tmp_path / "a.nc")
    fields = open_fields(source, ("tp",), "tp", step_hours=6, **kinds)
    np.testing.assert_array_equal(fields.days, np.delete(times(16, "2020-03-01"), [4, 5]))
    assert (fields.read(0, 14) == 6).all()
    (line,) = fields.notes
    assert line.startswith("tp: 2 of 16 steps of 6 hours lack some of theirs and are left out")


@pytest.mark.parametrize(
    ("wanted", "every", "line"),
    [
        (
            4,
            6,
            "data.step_hours=4 cannot be made of steps 6 hours apart, as sm has; use 6 or 12 or",
        ),
        (3, 6, "use 6 or 12 or 24"),
        (1, 24, "data.step_hours=1 cannot be made of steps 24 hours apart, as sm has; use 24"),
        (5, 1, "data.step_hours=5 must make up a day; use one of 1, 2, 3, 4, 6, 8, 12, 24"),
    ],
)
def test_a_step_that_the_files_steps_do_not_make_is_refused(tmp_path, wanted, every, line):
    source = write(dataset(hours("2020-03-01", 40, every), names=("sm",)), tmp_path / "a.nc")
    with pytest.raises(UserError, match=line):
        open_fields(source, ("sm",), "sm", step_hours=wanted, **OPEN)


def test_what_is_of_days_alone_is_refused_where_steps_are_finer(tmp_path):
    source = write(dataset(hours("2020-03-01", 48), names=("sm", "tp")), tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"sm@18 is an hour of a day, but data.step_hours=6"):
        open_fields(source, ("sm", "sm@18"), "sm", step_hours=6, **OPEN)
    daily = dataset(hours("2020-03-01", 9, 24), names=("e",))
    write(daily, tmp_path / "b.nc")
    with pytest.raises(UserError, match=r"data.step_hours=6 cannot be made of steps 24 .*as e has"):
        open_fields(tmp_path, ("sm", "e"), "sm", step_hours=6, **OPEN | {"accumulated": ("e",)})
    data = dataset(hours("2020-03-01", 49), names=("sm", "tp"))
    data.tp[...] = 0.0  # nothing that could contradict what is asked
    source = write(data, tmp_path / "c.nc")
    with pytest.raises(UserError, match=r"tp holds totals of a day.*use 24"):
        open_fields(
            source, ("sm", "tp"), "sm", step_hours=6, **OPEN | {"accumulated": ("tp=midnight",)}
        )
    with pytest.raises(UserError, match="time_of_day is the same on all days"):
        task_of(tmp_path, data__step_hours=24, data__lead_days=1.0)


def test_settings_in_days_are_days_of_time_and_whole_steps(tmp_path):
    changes = {"model__prior": "linear", "model__local_days": 0.5, "model__local_means": (1,)}
    task = task_of(tmp_path, **changes, data__split_gap=2)
    assert task.spec == WindowSpec(inputs=4, leads=3)
    assert task.config.data.gap == 8
    around = task.around()
    assert (around.local[1], around.means) == (2, (4,))
    shapes = {name: leaf.shape for name, leaf in task.batch_spec(2).items()}
    assert (shapes["fields"][1], shapes["phase"]) == (4, (2, 7, 2))
    with pytest.raises(
        UserError, match=r"data.input_days=0.3 days are 1.2 steps of 6 .*0.25 or 0.5"
    ):
        small_config("a.nc", tmp_path, **SETTINGS | {"data__input_days": 0.3})
    with pytest.raises(UserError, match=r"data.lead_days=0 is too small"):
        small_config("a.nc", tmp_path, **SETTINGS | {"data__lead_days": 0.0})
    with pytest.raises(UserError, match=r"data.input_days=0.5 days are 0.5 steps of 24 hours"):
        small_config("a.nc", tmp_path, data__input_days=0.5)


def test_windows_cross_no_gap_of_a_step_and_gaps_are_counted_in_steps():
    days = np.delete(times(40), [17, 18, 19])
    assert gap_lines(days) == ["3 steps of 6 hours missing between 2020-01-05T00 and 2020-01-06T00"]
    starts = window_starts(days, WindowSpec(4, 3), range(37), 0)
    assert starts.tolist() == [*range(11), *range(17, 31)]
    # More than two days, eight steps, after the last of the split before.
    assert window_starts(days, WindowSpec(4, 3), range(20, 37), 8)[0] == 24


def test_a_climatology_has_the_cycle_of_the_day_at_its_time_of_the_year():
    days = times(4 * 730)
    values = np.broadcast_to(usual_of(days)[:, None, None, None], (len(days), 2, 2, 1))
    fields = ArrayFields(values, days)
    usual = fit_climatology(fields, range(2000), "anomaly", 1, daily=2)
    later = days[2000:]
    # The record is f32 near 280: eps / 2 of that, averaged away.
    np.testing.assert_allclose(usual.at(later)[:, 0, 0, 0], usual_of(later), atol=1e-4)
    without = fit_climatology(fields, range(2000), "anomaly", 1, daily=0)
    assert np.abs(without.at(later)[:, 0, 0, 0] - usual_of(later)).max() > 3.5
    # Half a year is no season: its mean stays, and the cycle of the day beside it.
    half = fit_climatology(fields, range(700), "anomaly", 1, daily=2)
    apart = half.at(later[1:2]) - half.at(later[3:4])
    assert 5 < apart[0, 0, 0, 0] < 7
    assert np.ptp(half.at(later[::4])) < 1e-9


@pytest.mark.parametrize(("annual", "daily"), [(1, 0), (1, 2), (2, 1)])
def test_waves_of_a_batch_are_those_that_climatologies_are_fitted_with(annual, daily):
    days = times(4 * 366)[::7]
    wanted = basis(days, annual, daily)
    terms = (1 + 2 * annual) * (1 + 2 * daily)
    found = cycles(jnp.asarray(phases(days)[None], jnp.float32), terms, daily)
    assert wanted.shape == (len(days), terms)
    # f32 angles of up to 4 pi: eps / 2 of that, twice in a product.
    np.testing.assert_allclose(np.stack(found)[:, 0].T, wanted[:, 1:], atol=4e-6)


def test_damping_is_of_leads_in_steps():
    rng = np.random.default_rng(1)
    away = np.zeros((3000, 2, 2, 1))
    for t in range(1, 3000):
        away[t] = 0.8 * away[t - 1] + rng.normal(size=(2, 2, 1))
    fields = ArrayFields(away, times(3000))
    usual = fit_climatology(fields, range(3000), "scalar", 0)
    damping = fit_damping(fields, range(3000), usual, 3)
    # 3000 steps say each to 0.02 or 0.03; the mean of four cells is nearer.
    np.testing.assert_allclose(damping.mean(axis=(1, 2)), [0.8, 0.64, 0.512], atol=0.06)


def test_smoothed_days_of_the_year_are_of_one_time_of_the_day():
    days = times(4 * 730)
    fields = ArrayFields(
        np.broadcast_to(usual_of(days)[:, None, None, None], (2920, 1, 2, 1)), days
    )
    bins = fit_day_of_year(fields, range(1460))
    assert bins.shape[0] == 4 * 73
    found = at_phase(jnp.asarray(bins), jnp.asarray(phases(days[1460:])[None], jnp.float32))
    # Triangles of 65 days flatten the season by 2.5 %: of 8 + 1 K 0.2.
    np.testing.assert_allclose(found[0, :, 0, 0], usual_of(days[1460:]), atol=0.3)


def test_model_and_baselines_expect_the_usual_value_of_each_hour(made):
    task, model, _ = made
    batch = jax.tree.map(jnp.asarray, batch_of(task.source("test"), [0, 1, 2, 3, 40]))
    ends = task.fields.days[np.asarray(batch["start"]) + 4]
    coming = ends[:, None] + np.arange(3)
    wanted = usual_of(coming.ravel()).reshape(coming.shape)[..., None, None]
    fitted = baselines.fit(task.fields, task.split["train"], 3, 1, False, task.daily)
    found = baselines.forecasts(fitted, batch, 0, False, task.daily)
    # A year of weather that lasts for days moves the fitted waves by some 0.3 K.
    assert np.abs(found["climatology"] - wanted).max() < 1.0
    assert np.abs(found["day_of_year"] - wanted).max() < 1.5
    # The model has the same usual values and damping: f32 of numbers near 280.
    np.testing.assert_allclose(model(batch, False), found["damped_persistence"], atol=1e-3)
    wrong = batch | {"phase": batch["phase"].at[..., 1].add(0.5)}  # as if noon were midnight
    assert np.abs(model(wrong, False) - found["damped_persistence"]).max() > 3


def test_inputs_of_the_time_of_day_are_of_each_step(made):
    task, model, _ = made
    batch = jax.tree.map(jnp.asarray, batch_of(task.source("test"), [0, 1]))
    x = model._inputs(model.normalized(batch), batch, None)
    day = 2 * np.pi * phases(task.fields.days[np.asarray(batch["start"])[:, None] + np.arange(4)])
    assert x.shape[-1] == task.around().inputs == 3
    expected = np.stack([np.sin(day[..., 1]), np.cos(day[..., 1])], axis=-1)
    np.testing.assert_allclose(x[:, :, 1, 2, 1:], expected, atol=1e-5)


def test_a_report_is_of_hours_ahead_and_its_blocks_are_days_of_time(made):
    task, model, folder = made
    report = evaluation.evaluate(task, model, "test", folder / "run")
    groups = {row.group for row in report.rows if row.group.startswith("lead/")}
    assert groups == {"lead/6", "lead/12", "lead/18"}
    value = functools.partial(report.value, "rmse")
    # Of the next step in a cycle of 3 K: the last one is the worst guess, the usual one a good one.
    assert value("climatology", "lead/6") < 1.2 < 2 < value("persistence", "lead/6")
    damped = value("damped_persistence", "lead/6")
    assert damped == pytest.approx(value("model", "lead/6"), rel=1e-3)
    assert damped < value("damped_persistence", "lead/18")
    assert report.drawn.endswith("of forecasts of 10 days")
    starts = task.source("test").starts
    assert report.drawn.startswith(f"{len(np.unique(starts // 40))} blocks")
    row = next(r for r in report.rows if (r.group, r.method) == ("lead/12", "linear") and r.low)
    assert row.low < row.value < row.high
    assert any("rmse by lead, every 6 h, persistence" in line for line in report.notes)
    assert (folder / "run/plots/test_leads.png").exists()


def test_predictions_are_hours_ahead_of_the_step_they_follow(made):
    task, model, folder = made
    source, out = folder / "new.nc", folder / "out.nc"
    new = record(24, first="2021-07-01", seed=3)
    new.to_netcdf(source, engine="scipy")
    known = type(task)(task.config, task.inputs())
    prediction.predict(known, model, source, out, lead=1.5)
    with xr.open_dataset(out, decode_timedelta=True) as found:
        found.load()
    with xr.open_dataset(out, decode_times=False) as raw:
        assert raw.prediction_timedelta.attrs["units"] == "hours"
        assert raw.prediction_timedelta.values.tolist() == [6, 12, 18, 24, 30, 36]
        assert raw.air.attrs["comment"].startswith("of the 6 hours that begin at valid_time")
        assert "beyond 18 hours" in raw.air.attrs["comment"]
    last = times(24, "2021-07-01")[3:]
    np.testing.assert_array_equal(found.time.values, last.astype("datetime64[ns]"))
    valid = last[:, None] + np.arange(1, 7)
    np.testing.assert_array_equal(found.valid_time.values, valid.astype("datetime64[ns]"))
    sums = found.time.values[:, None] + found.prediction_timedelta.values
    np.testing.assert_array_equal(found.valid_time.values, sums)
    again = Answer(known, model)(new, lead=1.5)
    xr.testing.assert_equal(again.air, found.air)
    # Damped weather about what is usual, which in July swings by 4 K a day.
    assert (
        np.abs(
            found.air.values - usual_of(valid.ravel()).reshape(valid.shape)[..., None, None]
        ).max()
        < 3
    )
    with pytest.raises(UserError, match=r"--lead=0.3 days are 1.2 steps of 6 hours"):
        prediction.predict(known, model, source, out, lead=0.3)


def test_hourly_files_are_forecast_in_steps_of_six_hours(made, tmp_path):
    task, model, _ = made
    coarse = record(16, first="2021-07-01", seed=3)
    fine = coarse.isel(time=np.repeat(np.arange(16), 6))
    stamps = coarse.time.values[0] + np.arange(96) * np.timedelta64(1, "h")
    fine = fine.assign_coords(time=stamps.astype("datetime64[ns]"))
    run = Answer(type(task)(task.config, task.inputs()), model)
    # Means of six alike, in f64 and rounded once.
    np.testing.assert_allclose(run(fine).air, run(coarse).air, rtol=0, atol=2e-4)
    with pytest.raises(UserError, match="step_hours=6 cannot be made of steps 12 hours apart"):
        run(coarse.isel(time=slice(None, None, 2)))


def test_an_exported_file_takes_the_places_in_year_and_day(made):
    task, _, folder = made
    model = fresh(task)
    export.write(task, model, folder / "model.npz")
    file = artefact.read(folder / "model.npz")
    batch = batch_of(task.source("test"), [0, 5])
    found = file.functions["offline"](batch["fields"], batch["phase"])
    wanted = model(jax.tree.map(jnp.asarray, batch), False)
    np.testing.assert_allclose(found, wanted, atol=1e-3)  # f32 near 280
    assert (file.about["step_hours"], file.about["lead_days"]) == (6, 0.75)


def test_check_and_prepare_make_the_same_steps(tmp_path):
    (tmp_path / "in").mkdir()
    data = dataset(hours("2020-03-01", 24 * 40), names=("sm",)).isel(
        valid_time=np.delete(np.arange(960), 100)
    )
    write(data, tmp_path / "in/a.nc")
    checked = Check(step_hours=6).run(tmp_path / "in", silent)
    assert checked.summary["steps of 6 h"] == checked.usable == 159
    assert checked.findings["gap"] == [
        "1 steps of 6 hours missing between 2020-03-04T18 and 2020-03-05T06"
    ]
    folder = tmp_path / "out"
    Prepare(variables=("sm",), step_hours=6).run(tmp_path / "in", folder, silent)
    first, second = (
        open_fields(place, ("sm",), "sm", step_hours=6, **OPEN)
        for place in (tmp_path / "in", f"{folder}/2020.nc")
    )
    np.testing.assert_array_equal(first.days, second.days)
    np.testing.assert_array_equal(first.read(0, 159), second.read(0, 159))
    with pytest.raises(UserError, match="prepared in another way"):
        Prepare(variables=("sm",)).run(tmp_path / "in", folder, silent)
