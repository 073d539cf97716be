"""Laws of export: what is read back is the model, for any batch, or nothing is written."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from tds_jax.interchange import artefact
from tds_jax.pose import export
from tests.data.sessions import make_rows
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings

README = Path(__file__).parents[1] / "tds_jax" / "pose" / "README.md"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = tmp_path_factory.mktemp("export")
    write_recordings(made / "data", LENGTHS, SPLITS)
    return made


def task_and_model(base, **changes):
    task = small_task(base / "data", base, **changes)
    return task, task.init(nnx.Rngs(1))


@pytest.fixture(scope="module")
def exported(base):
    """(model, file) of a tracking network whose frames are rarer than its steps."""
    changes = {
        "model__initial_pose": "given", "model__output": "velocity", "model__rollout_freq": 50.0,
        "model__conv_strides": (6,), "model__conv_kernels": (7,),
    }  # fmt: skip
    task, model = task_and_model(base, **changes)
    line = export.write(task, model, base / "model.npz")
    assert "offline, start, step for cpu, cuda, tpu; differs from the checkpoint by" in line
    return model, base / "model.npz"


def emg(batch, length):
    rows = [make_rows(length, seed=n)["emg"] for n in range(batch)]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.long), 3])
def test_one_file_serves_every_batch_size(exported, batch):
    model, path = exported
    functions = artefact.read(path).functions
    initial = np.full((batch, 3), 0.5, np.float32)
    expected = model(emg(batch, 60), initial)
    found = functions["offline"](emg(batch, 60), initial)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    state = functions["start"](initial)
    state, pose = functions["step"](state, emg(batch, model.step))
    assert pose.shape == (batch, 3)


def test_the_description_tells_how_to_align_a_stream(exported):
    model, path = exported
    file = artefact.read(path)
    samples, initial = emg(2, 300), np.zeros((2, 3), np.float32)
    expected, about = np.asarray(model(samples, initial)), file.about["stream"]
    samples = np.pad(samples, ((0, 0), (about["zeros_before_first_sample"], 0), (0, 0)))
    state, poses = file.functions["start"](initial), []
    for first in range(0, samples.shape[1] - about["step"] + 1, about["step"]):
        state, pose = file.functions["step"](state, samples[:, first : first + about["step"]])
        poses.append(np.asarray(pose))
    poses = np.stack(poses, axis=1)
    first = about["calls_before_first_pose"]
    assert np.isnan(poses[:, :first]).all()
    np.testing.assert_allclose(poses[:, first:], expected, atol=1e-5)


def test_models_of_whole_windows_have_an_offline_form_only(base, tmp_path):
    task, model = task_and_model(base, model__reference_rate=True)
    assert "MiB): offline for" in export.write(task, model, tmp_path / "m.npz")
    file = artefact.read(tmp_path / "m.npz")
    assert set(file.functions) == {"offline"}
    assert "stream" not in file.about
    found = file.functions["offline"](emg(2, 60))
    np.testing.assert_allclose(found, model(emg(2, 60)), atol=1e-5)


def test_a_form_that_differs_from_the_model_is_not_written(base, tmp_path, monkeypatch):
    task, model = task_and_model(base, model__reference_rate=True)
    (tmp_path / "m.npz").write_text("before")
    honest = export._forms

    def wrong(*arguments):
        forms = honest(*arguments)
        offline = forms["offline"]
        return forms | {
            "offline": offline._replace(function=lambda *x: offline.function(*x) + 2e-5)
        }

    monkeypatch.setattr(export, "_forms", wrong)
    with pytest.raises(RuntimeError, match=r"'offline' differs from the checkpoint by 2\.0e-05"):
        export.write(task, model, tmp_path / "m.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]
    assert (tmp_path / "m.npz").read_text() == "before"


def test_the_consumer_of_the_readme_runs_without_the_project(base, tmp_path):
    task, model = task_and_model(base)
    export.write(task, model, tmp_path / "model.npz")
    section = README.read_text().split("## Export")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert len(code.splitlines()) <= 20
    code += "\nimport sys\nassert not any(name.startswith('tds_jax') for name in sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "poses (1, 13, 3) and (11, 1, 3)" in done.stdout
