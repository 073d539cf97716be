"""What does the speed-adaptive output filter cost in error, and buy in smoothness?

    python -m experiments.output_filter --workdir runs/quick_demo [--split test]

Predicts every recording of a split once, filters the poses with each cut-off and gain, and prints
per kind of session: error, mean speed and mean jerk of the poses (of the labels: in brackets).
Gain 0 is an ordinary low-pass.
"""

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from tds_jax import cli, tasks
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.pose.filters import SpeedAdaptiveFilter
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.prediction import Runner
from tds_jax.pose.recording import FileRecording
from tds_jax.pose.table import DATASET, FIELDS

CUTOFFS, GAINS, SPEED_CUTOFF = (1.0, 2.0, 4.0), (0.0, 1.0, 2.0, 4.0, 8.0), 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    config = cli.resolve(workdir.read_config(options.workdir))
    task = tasks.get(config)
    model, _ = workdir.load_model(Blueprint(task, config), options.workdir)
    found = predictions(task, model, options.split)
    rate = config.model.rollout_freq
    for kind, pairs in found.items():
        labels = np.mean([speed(labels, rate) for _, labels in pairs])
        print(f"{kind}: {len(pairs)} sessions, speed of the labels {labels:.1f} deg/s")
        show("none", pairs, rate, lambda poses: poses)
        for cutoff, gain in itertools.product(CUTOFFS, GAINS):
            smooth = SpeedAdaptiveFilter(cutoff, gain, SPEED_CUTOFF, rate)
            show(f"{cutoff:g} Hz + {gain:g} Hz per rad/s", pairs, rate, smoothed(smooth))


def predictions(task, model, split):
    """kind of session -> [(poses, labels) on the model's grid, radians]."""
    table, group, run = task.table.select(split), task.config.data.group, Runner(task, model)
    found, kinds = defaultdict(list), table.group_of("generalization")
    for i in range(len(table)):
        path = table.path(i)
        recording = FileRecording(task, path)
        poses = np.concatenate(list(run(recording)))
        (labels,) = task.files.rows(path, group, DATASET, 0, recording.rows, FIELDS[1:])
        at = model.left_context + np.arange(len(poses)) * model.step
        found[kinds[i]].append((poses, labels[at]))
    return found


def smoothed(smooth):
    return lambda poses: np.asarray(
        smooth(jnp.asarray(poses)[None], smooth.initial(jnp.asarray(poses[:1])))[0][0]
    )


def speed(poses, rate):
    return np.degrees(np.abs(np.diff(poses, axis=0)).mean() * rate)


def show(name, pairs, rate, smooth):
    pairs = [(smooth(poses), labels) for poses, labels in pairs]
    error = [np.abs(poses - labels)[valid_rows(labels)].mean() for poses, labels in pairs]
    jerk = [np.abs(np.diff(poses, 3, axis=0)).mean() * rate**3 for poses, _ in pairs]
    print(f"  {name:24} mae {np.degrees(np.mean(error)):6.3f} deg  "
          f"speed {np.mean([speed(poses, rate) for poses, _ in pairs]):5.1f} deg/s  "
          f"jerk {np.degrees(np.mean(jerk)):7.0f} deg/s3")  # fmt: skip


if __name__ == "__main__":
    main()
