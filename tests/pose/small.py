"""A small pose run on small recordings, shared by the tests of the task and of the doors."""

import numpy as np

from configs import default
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.pose.task import PoseTask
from tests.data.sessions import make_rows, write_rows

SETTINGS = {
    "model.conv_kernels": (3,),
    "model.conv_strides": (2,),
    "model.groups": (2,),
    "model.widths": (4,),
    "model.tds_kernels": (3,),
    "model.tds_blocks": (1,),
    "model.hidden": 8,
    "model.layers": 1,
    "model.rollout_freq": 25.0,
    "data.window": 60,
    "data.stride": 20,
    "data.eval_window": 100,
    "optim.batch_size": 8,
    "optim.warmup_steps": 0,
    "optim.schedule": "constant",
}  # 100 Hz recordings of 4 channels and 3 joints: a step is 4 samples, the left context 8


def small_config(folder, tmp_path, **changes):
    """The default config, shrunk; changes are named group__field."""
    values = default.get_config()
    values.data.path, values.data.cache_dir = str(folder), str(tmp_path / "cache")
    named = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in {**SETTINGS, **named}.items():
        group, field = name.split(".")
        values[group][field] = value
    return configuration.resolve(values.to_dict(), tasks.groups("pose"))


def small_task(folder, tmp_path, **changes):
    return PoseTask(small_config(folder, tmp_path, **changes))


def write_recordings(folder, lengths, splits, columns=None, joints=3):
    """s0.hdf5 … with runs of failed rows of many lengths, and metadata.csv; returns their rows.

    columns: texts per session of further metadata columns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = columns or {}
    table = [["filename", "split", *columns]]
    made = []
    for i, (length, split) in enumerate(zip(lengths, splits, strict=True)):
        rows = make_rows(length, joints=joints, seed=i)
        rng = np.random.default_rng(100 + i)
        for start in range(0, length, 50):
            begin = start + rng.integers(40)
            rows["joint_angles"][begin : begin + rng.integers(30)] = 0
        write_rows(folder / f"s{i}.hdf5", rows)
        table.append([f"s{i}", split, *(texts[i] for texts in columns.values())])
        made.append(rows)
    text = "".join(",".join(line) + "\n" for line in table)
    (folder / "metadata.csv").write_text(text)
    return made


SPLITS = ("train", "train", "train", "val", "test", "test")
LENGTHS = (400, 333, 290, 210, 263, 187)
