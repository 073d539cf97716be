"""The report: baselines as published for the real record, every number where it is looked for."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import forecast_air_temperature
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine import processes, step
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, evaluation, figures, rows
from tds_jax.forecast.days import year_fraction
from tests.engine.together import OfTheFirst
from tests.forecast.small import SEA, record, small_task, write_record

RECORD = pathlib.Path(__file__).parents[3] / "shared/data/air_temperature/air_temperature.nc"
# RMSE in K at leads 1 ... 10 and over all, test windows of the last 20 % of days.
PUBLISHED = {
    "persistence": "2.580 3.608 4.008 4.338 4.514 4.611 4.749 4.903 5.061 5.140 4.414",
    "climatology": "3.641 3.655 3.669 3.688 3.708 3.722 3.735 3.753 3.783 3.810 3.717",
    "damped_persistence": "2.405 3.126 3.352 3.500 3.580 3.624 3.666 3.703 3.746 3.776 3.471",
    "linear": "2.171 3.021 3.296 3.460 3.558 3.611 3.656 3.694 3.735 3.767 3.428",
}
BY_AREA = {
    "persistence": 3.962,
    "climatology": 3.338,
    "damped_persistence": 3.122,
    "linear": 3.076,
}


def fresh(task):
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    return nnx.merge(graphdef, params, step.replace_leaves(rest, task.fit_statistics()))


@pytest.mark.long
def test_baselines_of_the_real_record_are_the_published_ones_to_three_decimals(tmp_path):
    if not RECORD.exists():
        pytest.skip(f"{RECORD.name} is not beside this checkout")
    values = forecast_air_temperature.get_config()
    values.data.path = str(RECORD)
    values.model.hidden, values.model.lstm_hidden, values.model.groups = 4, 1, 1
    values.eval.batch_size = 69
    task = tasks.get(configuration.resolve(values.to_dict(), tasks.groups("forecast")))
    assert len(task.source("test")) == 137
    report = evaluation.evaluate(task, fresh(task), "test", None)
    for name, numbers in PUBLISHED.items():
        groups = [f"lead/{n}" for n in range(1, 11)] + ["all"]
        found = [f"{report.value('rmse', name, group):.3f}" for group in groups]
        assert found == numbers.split(), name
        assert f"{report.value('rmse_area', name):.3f}" == f"{BY_AREA[name]:.3f}"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(task, model, report, workdir) of a small record with sea."""
    folder = tmp_path_factory.mktemp("evaluation")
    task = small_task(write_record(folder / "daily.nc"), folder)
    (folder / "run").mkdir()
    model = fresh(task)
    report = evaluation.evaluate(task, model, "test", folder / "run")
    report.write(folder / "run", {})
    return task, model, report, folder / "run"


def test_the_report_has_every_method_at_every_lead(evaluated):
    task, _, report, workdir = evaluated
    stored = json.loads((workdir / "report.json").read_text())["splits"]["test"]
    assert set(stored["baselines"]) == set(baselines.NAMES)
    for lead in (1, 2, 3):
        group = stored["groups"][f"lead/{lead}"]
        assert group["model"]["rmse"] == report.value("rmse", group=f"lead/{lead}")
        assert set(group["baselines"]) == set(baselines.NAMES)
    names = ("rmse", "mae", "bias", "ubrmse", "r2", *rows.SKILLS.values())
    wanted = {name + suffix for name in names for suffix in ("", "_area")} | {"acc"}
    drawn = {f"{n}_{end}" for n in ("rmse", "rmse_area", "acc") for end in ("low", "high")}
    assert set(stored["model"]) == wanted | drawn
    assert stored["baselines"]["persistence"]["skill_pers"] == 0
    assert stored["baselines"]["climatology"]["acc"] is None  # it has no anomalies
    counted = {row.count for row in report.rows if row.group == "all"}
    windows = len(task.source("test"))
    assert counted == {windows * 3 * (~SEA).sum()}  # the last batch's padding left out


def test_all_leads_together_are_the_mean_square_of_each(evaluated):
    _, _, report, _ = evaluated
    for method in ("model", *baselines.NAMES):
        each = [report.value("rmse", method, f"lead/{n}") ** 2 for n in (1, 2, 3)]
        assert report.value("rmse", method) ** 2 == pytest.approx(np.mean(each), rel=1e-6)
        skill = 1 - report.value("rmse", method) ** 2 / report.value("rmse", "persistence") ** 2
        assert report.value("skill_pers", method) == pytest.approx(skill, abs=1e-9)


def test_baselines_are_fitted_on_the_days_before_a_split_and_kept(evaluated, monkeypatch):
    task, _, _, workdir = evaluated
    kept = evaluation.fitted_baselines(task, "test", workdir)
    before = baselines.fit(task.fields, range(task.split["test"].start), 3, 1, False)
    np.testing.assert_array_equal(kept.coefficients, before.coefficients)
    np.testing.assert_array_equal(kept.damping, before.damping)
    monkeypatch.setattr(baselines, "fit", lambda *_: pytest.fail("fitted again"))
    evaluation.fitted_baselines(task, "test", workdir)
    monkeypatch.undo()
    train = evaluation.fitted_baselines(task, "train", None)
    assert train.digest.endswith(f"0..{task.split['train'].stop}")


def test_baselines_are_fitted_by_the_first_of_several_processes(evaluated, tmp_path, monkeypatch):
    task, model, *_ = evaluated
    monkeypatch.setattr(baselines, "fit", lambda *_: pytest.fail("fitted here"))
    monkeypatch.setattr(processes, "by_first", OfTheFirst.asked)
    with pytest.raises(OfTheFirst):
        evaluation.evaluate(task, model, "test", tmp_path)


def test_a_record_without_all_seasons_is_compared_with_its_mean_and_says_so(tmp_path):
    task = small_task(write_record(tmp_path / "short.nc", count=90), tmp_path)
    report = evaluation.evaluate(task, fresh(task), "test", None)
    days = evaluation.days_before(task, "test")
    known = task.fields.read(days.start, days.stop, ("swvl1",))[..., 0]
    truth = np.stack([task.source("test").example(i, None)["target"] for i in range(9)])
    error = (truth - known.mean(axis=0))[..., ~SEA]
    assert len(task.source("test")) == 9
    # Values near 0.3 in f32, squared differences near 0.03.
    found = report.value("rmse", "climatology")
    np.testing.assert_allclose(found, np.sqrt(np.square(error).mean()), rtol=1e-4)
    assert report.notes[0].startswith("no day before test lies in 81% of the year: climatology")


def test_pictures_and_notes_show_what_the_rows_hold(evaluated):
    _, _, report, workdir = evaluated
    for name in ("leads", "maps", "rmse"):
        assert (workdir / "plots" / f"test_{name}.png").stat().st_size > 5000
    (line,) = [note for note in report.notes if note.startswith("rmse by lead, model:")]
    numbers = [f"{report.value('rmse', group=f'lead/{n}'):.4g}" for n in (1, 2, 3)]
    assert line.split(": ")[1].split() == numbers


def test_a_map_of_nothing_is_drawn_too(tmp_path):
    canvas = figures.Canvas(np.array([1.0, 0.0]), np.array([0.0, 1.0]), "x", "1")
    nothing = np.full((3, 2, 2), np.nan)
    figures.draw_maps(
        tmp_path / "a.png", figures.Sample(nothing, nothing, nothing[0], "never"), canvas
    )
    figures.draw_error_map(tmp_path / "b.png", nothing[0], canvas, "test")
    assert (tmp_path / "b.png").exists()


def test_baselines_know_the_units_and_values_of_the_files(tmp_path):
    found = set()
    for name, units, factor in (("a", "K", 1), ("b", "degC", 1), ("c", "K", 2)):
        (tmp_path / name).mkdir()
        data = record(count=400)
        data["swvl1"] = (factor * data["swvl1"]).assign_attrs(units=units)
        path = tmp_path / name / "record.nc"
        data.to_netcdf(path, engine="scipy")
        task = small_task(path, tmp_path)
        assert task.data_files() == {"record.nc": str(path)}
        found.add(baselines.digest(task.fields, range(10), False))
    assert len(found) == 3


def test_another_period_is_judged_whole_beside_what_the_run_has_learnt(evaluated, tmp_path):
    task, model, _, workdir = evaluated
    run = tmp_path / "run"
    (run / "on_other").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    later = write_record(tmp_path / "later.nc", count=420, first="2019-06-01", seed=1)
    other = small_task(later, tmp_path)
    with pytest.raises(UserError, match="has no baselines of test for other data; evaluate the r"):
        evaluation.evaluate(other, model, "test", run / "on_other")
    (run / "baselines_test.npz").write_bytes((workdir / "baselines_test.npz").read_bytes())
    learnt = baselines.Fitted.read(run / "baselines_test.npz")
    days = task.fields.days
    assert learnt.days == (str(days[0]), str(days[task.split["test"].start - 1]))

    report = evaluation.evaluate(other, model, "test", run / "on_other")
    assert not (run / "on_other" / "baselines_test.npz").exists()
    after = other.fields.days > np.datetime64(learnt.days[1])
    first, last = np.flatnonzero(after)[0], len(other.fields.days) - 1
    counted = {row.count for row in report.rows if row.group == "lead/1"}
    assert counted == {(last - first - 1) * (~SEA).sum()}  # three leads: two starts fewer than days
    assert report.notes[0].startswith(f"{last - first - 1} forecasts of {other.fields.days[first]}")
    truth = other.fields.read(first, last + 1, ("swvl1",))[..., 0]
    phase = jnp.asarray(year_fraction(other.fields.days[first:])[None], jnp.float32)
    usual = np.asarray(baselines._usual(learnt.coefficients[..., 0], phase, 0))[0]
    squares = [np.square(truth[n : len(truth) - 2 + n] - usual[n : len(truth) - 2 + n])[:, ~SEA]
               for n in range(3)]  # fmt: skip
    # f32 of values near 0.3, squared differences near 1e-3
    wanted = np.sqrt(np.mean(squares))
    assert report.value("rmse", "climatology") == pytest.approx(wanted, rel=1e-4)

    early = small_task(write_record(tmp_path / "same.nc", count=300), tmp_path)
    with pytest.raises(UserError, match="which the run has learnt from; give another period"):
        evaluation.evaluate(early, model, "test", run / "on_other")


def test_intervals_are_of_blocks_as_long_as_a_window_and_stand_at_every_lead(evaluated):
    task, _, report, _ = evaluated
    starts = task.source("test").starts
    count = len(set(starts // task.spec.length))
    assert report.drawn == f"{count} blocks of forecasts of 7 days"
    assert count < len(starts) / 5
    found = {(row.group, row.method, row.metric): row for row in report.rows}
    for lead in (1, 2, 3):
        own, other = (found[f"lead/{lead}", method, "rmse"] for method in ("model", "linear"))
        assert own.low < own.value < own.high
        apart = found[f"against_model/lead/{lead}", "linear", "rmse"]
        assert apart.value == pytest.approx(other.value - own.value)
        assert apart.low < apart.value < apart.high
    assert any(line.startswith("rmse: ") for line in report.verdict)
