"""A PyTorch checkpoint becomes a workdir on which the other doors work as on train's own."""

import json
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from configs import emg2pose_tracking
from tds_jax import config as configuration
from tds_jax import import_torch, tasks
from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.errors import UserError
from tds_jax.interchange import torch_format
from tests.data.sessions import make_rows, write_rows
from tests.doors import door
from tests.interchange.torch_files import Calls, Tensor, lightning, write_zip
from tests.pose.small import write_recordings

# The benchmark's tracking config, shrunk: 200 Hz recordings of 4 channels and 3 joints.
SETTINGS = {
    "model.conv_kernels": (3, 2), "model.conv_strides": (2, 2), "model.groups": (2, 2),
    "model.widths": (2, 3), "model.tds_kernels": (1, 2), "model.tds_blocks": (0, 1),
    "model.hidden": 5, "model.out_features": 4, "loss.fingertip_weight": 0.0,
    "data.window": 120, "data.stride": 60, "data.eval_window": 120, "data.rotation": 1,
    "optim.batch_size": 4, "optim.accumulate": 2, "optim.steps": 3, "optim.learning_rate": 1e-2,
    "eval.every": 3, "eval.batch_size": 2, "log.every": 1, "log.plots": False,
    "checkpoint.every": 3,
}  # fmt: skip
SHAPES = {
    "network.layers.0.conv.0.weight": (4, 4, 3), "network.layers.0.conv.0.bias": (4,),
    "network.layers.0.norm.weight": (4,), "network.layers.0.norm.bias": (4,),
    "network.layers.1.layers.conv1dblock.conv.0.weight": (6, 4, 2),
    "network.layers.1.layers.conv1dblock.conv.0.bias": (6,),
    "network.layers.1.layers.conv1dblock.norm.weight": (6,),
    "network.layers.1.layers.conv1dblock.norm.bias": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.0.conv2d.weight": (2, 2, 1, 2),
    "network.layers.1.layers.tds_block.tds_conv_blocks.0.conv2d.bias": (2,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.0.layer_norm.weight": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.0.layer_norm.bias": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.0.weight": (6, 6),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.0.bias": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.2.weight": (6, 6),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.2.bias": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.layer_norm.weight": (6,),
    "network.layers.1.layers.tds_block.tds_conv_blocks.1.layer_norm.bias": (6,),
    "network.layers.1.linear_layer.weight": (4, 6), "network.layers.1.linear_layer.bias": (4,),
    "decoder.lstm.weight_ih_l0": (20, 7), "decoder.lstm.weight_hh_l0": (20, 5),
    "decoder.lstm.bias_ih_l0": (20,), "decoder.lstm.bias_hh_l0": (20,),
    "decoder.lstm.weight_ih_l1": (20, 5), "decoder.lstm.weight_hh_l1": (20, 5),
    "decoder.lstm.bias_ih_l1": (20,), "decoder.lstm.bias_hh_l1": (20,),
    "decoder.mlp_out.1.weight": (3, 5), "decoder.mlp_out.1.bias": (3,),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with recordings in data/ and a Lightning checkpoint last.ckpt."""
    base = tmp_path_factory.mktemp("import")
    write_recordings(base / "data", (1,) * 5, ("train", "train", "val", "test", "test"))
    for i in range(5):
        rows = make_rows(400, rate=200.0, seed=i)
        rows["joint_angles"][30:60] = 0
        write_rows(base / "data" / f"s{i}.hdf5", rows, attributes={"sample_rate": 200.0})
    rng = np.random.default_rng(0)
    drawn = {f"model.{k}": rng.normal(0, 0.3, s).astype("f4") for k, s in SHAPES.items()}
    content = lightning({name: Tensor.of(value) for name, value in drawn.items()})
    write_zip(base / "last.ckpt", content | {"ema": content["state_dict"]})
    return base


def settings(base, data=True):
    path = {"data.path": base / "data"} if data else {}
    return SETTINGS | path | {"data.cache_dir": base / "cache"}


def flags(values):
    return [f"--config.{name}={value}" for name, value in values.items()]


def imported(base, folder, *more, checkpoint="last.ckpt", data=True):
    return door(
        "import_torch", "--config=configs/emg2pose_tracking.py", *flags(settings(base, data)),
        f"--checkpoint={base / checkpoint}", f"--workdir={folder}", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(base):
    done = imported(base, base / "run")
    assert done.returncode == 0, done.stderr
    assert "read: 30 tensors from state_dict of" in done.stdout
    assert "averaged weights (ema); --weights=ema takes them" in done.stdout
    assert "optimizer_states" in done.stdout
    assert "(the optimizer starts afresh)" in done.stdout
    assert done.stdout.endswith("parameters, step 0\n")
    return base / "run"


def resolved(base, **changes):
    values = emg2pose_tracking.get_config()
    for name, value in (settings(base) | changes).items():
        group, _, field = name.rpartition(".")
        (values[group] if group else values)[field] = (
            str(value) if isinstance(value, Path) else value
        )
    return configuration.resolve(values.to_dict(), tasks.groups("pose"))


def test_it_is_evaluated_as_what_it_is(run, base):
    done = door("evaluate", f"--workdir={run}", f"--json={base / 'report.json'}")
    assert done.returncode == 0, done.stderr
    assert "(best checkpoint: step 0)" in done.stdout
    test = json.loads((base / "report.json").read_text())["splits"]["test"]
    assert np.isfinite(test["model"]["mae_rad"])
    assert "hold_initial" in test["baselines"]


def test_it_predicts_every_sample_after_the_left_context(run, base):
    source, target = base / "data" / "s3.hdf5", base / "p.hdf5"
    done = door("predict", f"--workdir={run}", f"--input={source}", f"--output={target}")
    assert done.returncode == 0, done.stderr
    with h5py.File(target) as file:
        angles = file["prediction/joint_angles"][:]
    task = tasks.get(configuration.resolve(workdir.read_config(run), tasks.groups("pose")))
    blank = np.isnan(angles).all(axis=1)
    assert blank[: task.left_context].all()
    assert np.isfinite(angles[task.left_context :]).all()


@pytest.mark.long
def test_training_goes_on_from_its_parameters(run, base, tmp_path):
    config = resolved(base)
    task = tasks.get(config)
    before = workdir.load_model(Blueprint(task, config), run)[1].state
    assert int(before.opt_state.gradient_step) == 0
    copied = tmp_path / "run"
    import_torch.import_checkpoint(config, tensors_of(base), copied)
    workdir.claim(copied, config, task.inputs(), task.digest(), task.data_files())
    assert loop.fit(Blueprint(task, config), copied).complete
    after = workdir.load_model(Blueprint(task, config), copied)[1].state
    assert int(after.opt_state.gradient_step) == 3
    # Adam moves a parameter by at most the learning rate in each of 3 updates.
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.params, before.params)
    assert 0 < max(jax.tree.leaves(apart)) < 3.1e-2
    logged = (copied / "metrics.jsonl").read_text().splitlines()
    assert json.loads(logged[0])["step"] == 1


def tensors_of(base):
    return torch_format.read(base / "last.ckpt").tensors


def test_without_data_the_shapes_say_what_recordings_it_needs(base, tmp_path):
    folder = tmp_path / "run"
    config = resolved(base, **{"data.path": ""})
    import_torch.import_checkpoint(config, tensors_of(base), folder)
    inputs = workdir.read_inputs(folder)
    assert inputs == {"num_channels": 4, "num_joints": 3, "sample_rate": 2000.0}
    # The first data it sees may be any that fit; from then on they are its own.
    seen = resolved(base, **{"data.stride": 40})
    workdir.claim(folder, seen, inputs, "a", {})
    with pytest.raises(UserError, match="begun with other data"):
        workdir.claim(folder, seen, inputs, "b", {})
    with pytest.raises(UserError, match=r"data\.stride: 40 -> 60"):
        workdir.claim(folder, config, inputs, "a", {})


def test_other_settings_than_data_may_not_change_before_training(base, tmp_path):
    folder = tmp_path / "run"
    config = resolved(base, **{"data.path": ""})
    import_torch.import_checkpoint(config, tensors_of(base), folder)
    changed = resolved(base, **{"model.output_scale": 1.0})
    with pytest.raises(UserError, match=r"model\.output_scale: 0\.01 -> 1"):
        workdir.claim(folder, changed, workdir.read_inputs(folder), "a", {})


def test_a_folder_with_checkpoints_is_left_alone(run, base):
    before = (run / "config.json").read_text()
    with pytest.raises(UserError, match="has checkpoints already; name a new folder"):
        import_torch.import_checkpoint(resolved(base, seed=3), tensors_of(base), run)
    assert (run / "config.json").read_text() == before


def test_an_import_that_was_stopped_when_it_was_whole_goes_on(base, tmp_path):
    config, folder = resolved(base), tmp_path / "run"
    import_torch.import_checkpoint(config, tensors_of(base), folder)
    before = {path: path.read_bytes() for path in folder.glob("checkpoints/0/**/*.json")}
    import_torch.import_checkpoint(config, tensors_of(base), folder)
    assert before == {path: path.read_bytes() for path in folder.glob("checkpoints/0/**/*.json")}
    others = {name: value + 1 for name, value in tensors_of(base).items()}
    with pytest.raises(UserError, match="has checkpoints already"):
        import_torch.import_checkpoint(config, others, folder)


def test_a_hostile_or_cut_file_is_one_line_and_no_workdir(base, tmp_path):
    mark = tmp_path / "mark"
    content = {"state_dict": {"a": Tensor.of(np.ones(2, "f4"))}}
    write_zip(base / "hostile.ckpt", content | {"x": Calls("os", "system", f"touch {mark}")})
    whole = (base / "last.ckpt").read_bytes()
    (base / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name, text in (("hostile", "asks for os.system"), ("cut", "damaged, cut off or not")):
        done = imported(base, tmp_path / "run", checkpoint=f"{name}.ckpt", data=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: --checkpoint=")
        assert text in line
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_another_models_file_names_the_tensor_and_both_shapes(base, tmp_path):
    config = resolved(base, **{"model.hidden": 6})
    with pytest.raises(UserError, match=r"'model\.decoder.*shape \(.*\) but the model has \("):
        import_torch.import_checkpoint(config, tensors_of(base), tmp_path / "run")
    assert not (tmp_path / "run").exists()
