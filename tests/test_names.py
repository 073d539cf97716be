"""A profile of each domain's training step can be read: its parts stand in the compiled text."""

import re

import pytest

from tds_jax.engine import sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.pose.task import PoseTask
from tests.forecast import small as forecast
from tests.pose import small as pose
from tests.voxel import small as voxel


def pose_task(folder):
    config = pose.small_config(folder, folder)
    return PoseTask(config, {"num_channels": 4, "num_joints": 3, "sample_rate": 100.0})


def forecast_task(folder):
    return forecast.small_task(forecast.write_record(folder / "days.nc"), folder)


PARTS = {
    pose_task: ("encoder/stage_0/block_0/fc_1", "decoder", "core/lstm/layer_0"),
    forecast_task: ("network/block_0", "network/lstm/forward", "network/out"),
    voxel.small_task: ("encoder/mid_0/conv_1", "decoder/mid_2/norm_2", "decoder/out/conv"),
}


def plain(name):
    """'transpose(jvp(core))/lstm' -> 'core/lstm'."""
    return re.sub(r"transpose\(|jvp\(|\)", "", name)


SLOW = pytest.param(voxel.small_task, marks=pytest.mark.long)


@pytest.mark.parametrize("make", [*(m for m in PARTS if m != voxel.small_task), SLOW])
def test_the_training_step_names_its_parts_forward_and_backward(make, tmp_path):
    task = make(tmp_path)
    traced = Blueprint(task, task.config).trace_step(sharding.all_devices())
    names = set(re.findall(r'op_name="([^"]*)"', traced.lower().compile().as_text()))
    backward = {name for name in names if "transpose(jvp" in name}
    for part in PARTS[make]:
        assert any(f"/{part}/" in plain(name) for name in names - backward), part
        assert any(f"/{part}/" in plain(name) for name in backward), part
    assert any("/optimizer/" in name for name in names)
