"""A short run through the engine: it learns, resumes and is evaluated by the doors' functions."""

import json

import pytest

from tds_jax import evaluate
from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tests.forecast.small import small_task, write_record


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(task, workdir) after 40 steps on a record whose weather forgets in days."""
    folder = tmp_path_factory.mktemp("training")
    changes = {"optim__steps": 40, "optim__learning_rate": 1e-2, "eval__every": 20}
    changes |= {"log__plots": False, "model__prior": "none", "optim__batch_size": 16}
    task = small_task(write_record(folder / "daily.nc", count=560), folder, **changes)
    run = folder / "run"
    workdir.claim(run, task.config, task.inputs(), task.digest(), task.data_files())
    assert loop.fit(Blueprint(task, task.config), run).complete
    return task, run


def test_training_lowers_the_error_and_says_so(trained):
    _, run = trained
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert train[-1]["loss"] < 0.8 * train[0]["loss"]
    val = [line for line in lines if line["split"] == "val"]
    assert {"rmse", "mae", "skill", "loss"} <= set(val[-1])


@pytest.mark.long
def test_the_best_checkpoint_beats_the_climatology_it_was_given(trained):
    task, run = trained
    report = evaluate.evaluate(Blueprint(task, task.config), run, "test")
    # Weather of 0.8 from day to day: at most 0.64 of its variance can be known a day ahead.
    assert 0.15 < report.value("skill_clim", group="lead/1") < 0.7
