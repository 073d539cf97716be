"""A published checkpoint becomes a workdir that is evaluated as what it is."""

import jax
import numpy as np
import pytest
from flax import nnx

from tds_jax import evaluate, import_torch, tasks
from tds_jax.engine import step, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.errors import UserError
from tds_jax.interchange import torch_format
from tests.forecast.published import weights_by_rule
from tests.forecast.small import small_config, write_record
from tests.interchange.torch_files import Tensor, write_zip

# Raw values in, one map repeated out, no extra: what the published models compute.
PUBLISHED = {
    "model__layout": "reference", "model__head": "repeat", "model__norm": "batch",
    "model__normalize": "none", "model__prior": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    data = tmp_path_factory.mktemp("import") / "daily.nc"
    return write_record(data, count=60)


def config_of(name, path, tmp_path, **changes):
    sizes = {"model__name": name, "model__hidden": 0, "model__lstm_hidden": 0}
    return small_config(path, tmp_path, **PUBLISHED | sizes | changes)


@pytest.mark.parametrize(
    "name", ["convlstm", pytest.param("cnn3d_lstm_micro", marks=pytest.mark.long)]
)
def test_a_rule_filled_file_is_read_and_evaluated(name, path, tmp_path):
    tensors = weights_by_rule(name, channels=2) if name == "convlstm" else of_micro()
    file = write_zip(tmp_path / "a.pth", {k: Tensor.of(v) for k, v in tensors.items()})
    config, folder = config_of(name, path, tmp_path), tmp_path / "run"
    import_torch.import_checkpoint(config, torch_format.read(file).tensors, folder)
    task = tasks.get(config)
    model, restored = workdir.load_model(Blueprint(task, config), folder)
    assert restored.position == 0
    # Each number of the file once: all but the counters of BatchNorm.
    network = jax.tree.leaves(step.split(model.network)[1:])
    wanted = sum(np.size(v) for k, v in tensors.items() if not k.endswith("tracked"))
    assert sum(leaf.size for leaf in network) == wanted
    report = evaluate.evaluate(Blueprint(task, config), folder, "test")
    assert np.isfinite(report.value("rmse"))
    # One map for all leads, whatever the day; a raw forecast of untrained weights has no skill.
    assert report.value("skill_clim") < 0


def of_micro():
    """The micro network's tensors at two channels: those of four with two left out."""
    tensors = weights_by_rule("cnn3d_lstm_micro")
    return tensors | {"conv3d1.weight": tensors["conv3d1.weight"][:, :2]}


def test_its_forecast_is_the_networks_own_output(path, tmp_path):
    config = config_of("cnn3d_lstm_micro", path, tmp_path)
    task = tasks.get(config)
    model = task.init(nnx.Rngs(0))
    batch = task.source("test").example(0, None)
    batch = {name: np.asarray(leaf)[None] for name, leaf in batch.items()}
    found = model(jax.tree.map(jax.numpy.asarray, batch), False)
    own = model.network(jax.numpy.asarray(batch["fields"]), False)
    np.testing.assert_array_equal(found, own)


def test_without_data_the_generated_grid_completes_what_tensors_do_not_say(tmp_path):
    config = config_of("cnn3d_lstm_micro", "", tmp_path, data__variables=("swvl1", "tp"),
                       data__accumulated=("tp",), data__synthetic_months=2,
                       data__synthetic_grid=(6, 7), data__synthetic_missing_month="")  # fmt: skip
    import_torch.import_checkpoint(config, of_micro(), tmp_path / "run")
    inputs = workdir.read_inputs(tmp_path / "run")
    assert (inputs["height"], inputs["width"], inputs["variables"]) == (6, 7, ["swvl1", "tp"])


def test_another_models_file_is_one_line_and_no_workdir(path, tmp_path):
    config = config_of("convlstm", path, tmp_path)
    with pytest.raises(UserError, match=r"set\s+model\.name"):
        import_torch.import_checkpoint(config, of_micro(), tmp_path / "run")
    narrow = config_of("cnn3d_lstm_micro", path, tmp_path, data__variables=("swvl1",))
    with pytest.raises(UserError, match=r"conv3d1\.weight.*but the model has"):
        import_torch.import_checkpoint(narrow, of_micro(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
