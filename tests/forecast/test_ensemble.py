"""Ensembles: scores by their definitions, noise that is smooth and each example's own, members."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx

from tds_jax.engine.step import replace_leaves, split
from tds_jax.errors import UserError
from tds_jax.forecast import ensemble, evaluation, prediction
from tds_jax.forecast.arrays import Answer
from tds_jax.forecast.metrics import Ensemble
from tests.forecast.small import SEA, batch_of, record, small_task, write_record

NOISY = {
    "model__prior": "linear",
    "model__local_days": 2,
    "model__local_kernel": 3,
    "model__local_means": (3,),
    "model__noise": 2,
    "loss__crps_weight": 1.0,
    "loss__mse_weight": 0.0,
    "eval__members": 6,
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    return small_task(write_record(folder / "daily.nc"), folder, **NOISY)


@pytest.fixture(scope="module")
def model(task):
    return ready(task)


def ready(task):
    """A fresh model that knows the train days."""
    graphdef, params, rest = split(task.init(nnx.Rngs(0)))
    return nnx.merge(graphdef, params, replace_leaves(rest, task.fit_statistics()))


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def test_fair_crps_is_the_mean_over_pairs_of_different_members():
    rng = np.random.default_rng(0)
    members, truth = rng.normal(size=(2, 5, 3, 2, 2)), rng.normal(size=(2, 3, 2, 2))
    away = np.abs(members - truth[:, None]).mean(axis=1)
    pairs = [np.abs(members[:, i] - members[:, j]) for i, j in itertools.permutations(range(5), 2)]
    wanted = away - np.mean(pairs, axis=0) / 2
    found = ensemble.fair_crps(jnp.asarray(members, jnp.float32), jnp.asarray(truth, jnp.float32))
    np.testing.assert_allclose(found, wanted, atol=2e-6)  # f32 sums of a few numbers of about 1


@pytest.mark.long
def test_few_members_of_a_normal_forecast_score_as_the_whole_distribution():
    """Fair: on average, members drawn from N(1, 2²) score what its closed form says."""
    rng = np.random.default_rng(1)
    truth = np.float32(0.3)
    members = rng.normal(1, 2, size=(40_000, 3, 1)).astype("f4")
    found = ensemble.fair_crps(jnp.asarray(members), jnp.full((40_000, 1), truth))
    wanted = float(ensemble.normal_crps(jnp.float32(1 - truth), jnp.float32(2.0)))
    # Standard error of one score is about 1.6, of the mean of 40,000 8e-3; three of these.
    assert abs(float(found.mean()) - wanted) < 0.025
    grid = np.linspace(-30, 30, 60_001)
    below = np.asarray(jax.scipy.stats.norm.cdf((grid - 1) / 2))
    integral = np.square(below - (grid >= truth)).sum() * 1e-3
    assert wanted == pytest.approx(integral, abs=2e-3)  # steps of 1e-3 about one jump


def test_noise_is_normal_smooth_and_the_examples_own():
    keys = jnp.asarray(np.random.default_rng(0).integers(2**32, size=(3000, 2), dtype=np.uint32))
    noise = np.asarray(ensemble.smooth_noise(keys, 0, 2, (4, 9)))
    # Variances of 3000 draws: 1 ± 3 √(2 / 3000); correlations of a smoothing: exp(-d² / 4 REACH²).
    np.testing.assert_allclose(noise.var(axis=0), 1, atol=0.1)
    apart = (noise[:, 0, 0, 0] * noise[:, 0, ::4, 0].T).mean(axis=1)
    np.testing.assert_allclose(apart, np.exp(-np.square([0, 4, 8]) / 36), atol=0.1)
    assert abs((noise[..., 0] * noise[..., 1]).mean()) < 0.1
    alone = ensemble.smooth_noise(keys[7:8], 0, 2, (4, 9))
    np.testing.assert_allclose(alone[0], noise[7], atol=1e-6)
    assert np.abs(ensemble.smooth_noise(keys[:9], 1, 2, (4, 9)) - noise[:9]).max() > 1
    # As a product with a band, an H100's compiler had no way for 16 forecasts of 25 x 53 cells.
    program = jax.make_jaxpr(lambda keys: ensemble.smooth_noise(keys, 0, 2, (4, 9)))(keys[:2])
    assert "dot_general" not in str(program)


@pytest.mark.long
def test_members_spread_as_the_prior_errs_before_any_training(task, model):
    """A network that answers 0: the members' spread is the train days' own, lead by lead."""
    graphdef, params, rest = split(model)
    mix = params["mix"]
    silent = nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, params) | {"mix": mix}, rest)
    source = task.source("train")
    batch = on_device(batch_of(source, range(0, len(source), 2)))
    members = np.asarray(jax.jit(lambda batch: silent.members(batch, False, 6))(batch))
    error = np.asarray(members.mean(axis=1) - batch["target"])[..., ~SEA]
    spread = np.sqrt(members.var(axis=1, ddof=1)[..., ~SEA].mean(axis=(0, 2)))
    rmse = np.sqrt(np.square(error).mean(axis=(0, 2)) / (1 + 1 / 6))
    # Over about 115 examples whose 6 members are of smooth fields, and whose errors are in common.
    np.testing.assert_allclose(spread, rmse, rtol=0.12)
    middle = np.asarray(silent(batch, False))
    assert np.abs(middle - members.mean(axis=1))[..., ~SEA].max() < 5 * spread.max()


def test_the_same_day_has_the_same_ensemble_wherever_it_is_made(task, model, tmp_path):
    source = task.source("test")
    batch = on_device(batch_of(source, (3, 4)))
    run = jax.jit(lambda batch: model.members(batch, False, 6))
    both = np.asarray(run(batch))
    alone = np.asarray(run(jax.tree.map(lambda leaf: leaf[1:], batch)))
    np.testing.assert_allclose(alone[0], both[1], rtol=1e-5)  # f32, of values near 0.3
    assert np.abs(both[0, 0] - both[0, 1]).max() > 1e-3

    last = source.starts[[3, 4]] + task.spec.inputs - 1
    run = prediction.Runner(task, model)
    blocks = prediction.forecasts(task, model, run, task.fields, last, task.spec.leads)
    written = np.concatenate([*blocks])[:, :, 0]
    assert written.shape == (2, 6, 3, 5, 6)
    np.testing.assert_allclose(written[..., ~SEA], both[..., ~SEA], rtol=1e-5)
    assert np.isnan(written[..., SEA]).all()


def test_training_draws_are_the_examples_and_its_loss_is_the_fair_crps(task, model):
    batch = on_device(batch_of(task.source("train"), (0, 9)))
    objective, _ = task.loss(model, batch, True)
    members = model.members(batch, True, task.config.loss.members)
    scale = model.target_scale(batch)
    crps = ensemble.fair_crps(members / scale[:, None], batch["target"] / scale)
    np.testing.assert_allclose(objective.sum, (batch["weight"] * crps).sum(), rtol=1e-5)
    other = batch | {"key": batch["key"] + jnp.uint32(1)}
    assert np.abs(model.members(other, True, 2) - members).max() > 1e-3


def test_the_report_of_an_ensemble_judges_it_beside_normal_baselines(task, model, tmp_path):
    report = evaluation.evaluate(task, model, "test", tmp_path)
    for method in ("model", "climatology", "damped_persistence", "linear"):
        whole = [report.value("crps", method, f"lead/{n}") for n in (1, 2, 3)]
        assert report.value("crps", method) == pytest.approx(np.mean(whole), rel=1e-6)
        # CRPS of a normal forecast of the right spread s is s / √π; all are near it.
        rmse = report.value("rmse", method)
        assert 0.9 < report.value("crps", method) / (rmse / np.sqrt(np.pi)) < 1.1
        assert 0.8 < report.value("spread_skill", method) < 1.2
    with pytest.raises(KeyError):
        report.value("crps", "persistence")
    assert report.verdict
    assert any(line.startswith("crps: ") for line in report.verdict)
    assert (tmp_path / "plots" / "test_ensemble.png").stat().st_size > 5000


def test_ranks_and_spread_count_what_they_say():
    rng = np.random.default_rng(0)
    members, truth = rng.normal(size=(50, 4, 1, 6, 6)), rng.normal(size=(50, 1, 6, 6))
    weight = np.ones(truth.shape)
    weight[:, :, 0] = 0
    ranks = np.asarray(ensemble.rank_counts(*map(jnp.asarray, (members, truth, weight))))
    below = (members < truth[:, None]).sum(axis=1)[:, :, 1:]
    np.testing.assert_array_equal(ranks[0], [(below == n).sum() for n in range(5)])
    variance, error = members.var(axis=1, ddof=1), members.mean(axis=1) - truth
    state = Ensemble.of(*map(jnp.asarray, (variance, variance, error, weight, ranks)))
    counts = weight > 0
    wanted = np.sqrt(variance[counts].mean() / np.square(error[counts]).mean())
    assert state.values()["spread_skill"] == pytest.approx(wanted, rel=1e-5)


def test_a_truth_that_equals_members_leaves_ranks_of_a_good_ensemble_even():
    """Rain, of which there mostly is none: counted as lowest it would say that all are too wet."""
    rng = np.random.default_rng(0)
    drawn = np.maximum(rng.normal(-0.5, 1, size=(400, 4, 1, 6, 6)), 0).astype("f4")
    members, truth = jnp.asarray(drawn[:, :3]), jnp.asarray(drawn[:, 3])
    ranks = np.asarray(ensemble.rank_counts(members, truth, jnp.ones(truth.shape)))[0]
    assert ranks.sum() == pytest.approx(truth.size, rel=1e-5)
    # 14,400 cells in four ranks: 3,600 each, +- 60 by chance, less where they are shared.
    np.testing.assert_allclose(ranks, truth.size / 4, atol=4 * 60)


DROPPING = {"model__dropout": 0.3, "eval__dropout": True, "eval__members": 3}


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A task whose ensemble is of dropout, and its model."""
    folder = tmp_path_factory.mktemp("dropping")
    task = small_task(write_record(folder / "daily.nc"), folder, **DROPPING)
    return task, ready(task)


def test_members_of_dropout_leave_out_channels_and_the_middle_none(dropping):
    task, model = dropping
    batch = on_device(batch_of(task.source("test"), (3, 4)))
    members = np.asarray(model.members(batch, False, 3, dropout=True))
    assert members.shape == (2, 3, 3, 5, 6)
    assert min(np.abs(members[:, i] - members[:, j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0
    # By hand: the network with the member's own keys of dropout, as in training.
    keys = ensemble.member_keys(ensemble.keys_of_days(batch["phase"][:, 3]), 1)
    as_trained = np.asarray(model(batch | {"key": keys}, True))
    np.testing.assert_allclose(members[:, 1], as_trained, rtol=1e-5)
    np.testing.assert_array_equal(model.members(batch, False, 3)[:, 0], model(batch, False))


def test_an_ensemble_of_dropout_is_written_and_judged_as_one(dropping):
    task, model = dropping
    batch = on_device(batch_of(task.source("test"), (3, 4)))
    last = task.source("test").starts[[3, 4]] + task.spec.inputs - 1
    run = prediction.Runner(task, model)
    blocks = prediction.forecasts(task, model, run, task.fields, last, 3)
    written = np.concatenate([*blocks])[:, :, 0]
    wanted = np.asarray(model.members(batch, False, 3, dropout=True))
    np.testing.assert_allclose(written[..., ~SEA], wanted[..., ~SEA], rtol=1e-5)
    fitted = evaluation.fitted_baselines(task, "test", None)
    of = evaluation.targets_of(task)
    beside = {"swvl1": fitted}, jnp.ones(5)
    states = evaluation.compared(task, of, *beside, model, batch)[1]["swvl1"]
    error = np.asarray(ensemble.fair_crps(jnp.asarray(wanted), batch["target"]))
    total = (error * np.asarray(batch["weight"])).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(states["model"]["ensemble"].crps, total, rtol=1e-4)


def test_an_ensemble_of_no_dropout_is_refused(tmp_path):
    path = write_record(tmp_path / "daily.nc", count=60)
    with pytest.raises(UserError, match=r"eval.dropout=True draws from dropout, but .*=0.0 has"):
        small_task(path, tmp_path, **DROPPING | {"model__dropout": 0.0})


@pytest.mark.parametrize("changes", [{}, NOISY | {"model__local_means": ()}], ids=("one", "noise"))
def test_a_longer_forecast_is_what_a_record_continued_by_the_forecast_gives(changes, tmp_path):
    """Each member by its own days: its fourth to sixth day are the first three after them."""
    path = write_record(tmp_path / "daily.nc", count=200)
    task = small_task(path, tmp_path, **{"data__variables": ("swvl1",)} | changes)
    model = ready(task)
    answer = Answer(task, model)
    before = record(count=200).isel(time=slice(60, 70))[["swvl1"]]
    longer = answer(before, lead=8).swvl1.isel(time=-1)
    assert longer.sizes["prediction_timedelta"] == 8
    members = longer if "realization" in longer.dims else longer.expand_dims("realization")
    for n, member in enumerate(members[:2]):
        said = member.isel(prediction_timedelta=slice(0, 3)).values
        after = before.isel(time=slice(-3, None)).copy(data={"swvl1": said})
        after["time"] = before.time[-3:].values + np.timedelta64(3, "D")
        again = answer(xr.concat([before, after], "time")).swvl1.isel(time=-1)
        wanted = again.isel(realization=n) if "realization" in again.dims else again
        # f32 of values near 0.3, by two programs.
        np.testing.assert_allclose(member.values[3:6][:, ~SEA], wanted.values[:, ~SEA], rtol=1e-5)
    assert np.isnan(members.values[..., SEA]).all()
    assert np.isfinite(members.values[..., ~SEA]).all()


def test_a_longer_forecast_of_a_run_that_reads_more_is_refused(task, model):
    with pytest.raises(UserError, match=r"lead=4 is beyond the 3 days .* need those of tp too"):
        Answer(task, model)(record(count=20), lead=4)
    assert Answer(task, model)(record(count=20), lead=2).sizes["prediction_timedelta"] == 2
