"""Do the benchmark's recipes learn, and carry over to users and stages they have not seen?

    python -m experiments.emg2pose_small [--configs emg2pose_tracking ...] [--steps 800]

Trains shrunken benchmark configs on generated recordings through the doors and prints, for each
kind of test session, the error of the model and of what it has to beat: holding the true first pose
(tracking) or the mean pose (regression). Of generated recordings that had 13 poses in training and
6 others in the held-out stage; today's have no poses, and have not been tried here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

# 252 thousand parameters instead of 6 million, 2-second windows, 16 at a time.
SHRUNK = {
    "model.groups": (8, 8, 8, 8),
    "model.widths": (8, 8, 8, 8),
    "model.hidden": 64,
    "model.mlp_hidden": (64, 64),
    "model.dropout": 0.2,
    "data.window": 5790,
    "data.stride": 2000,
    # Generated bands turn by 17 degrees at most, less than the 22.5 between two electrodes.
    "data.rotation": 0,
    "data.normalize": True,
    "optim.batch_size": 16,
    "optim.accumulate": 1,
    "optim.optimizer": "adamw",
    "optim.weight_decay": 0.05,
    "optim.learning_rate": 4e-3,
    "optim.schedule": "warmup_cosine",
    "optim.warmup_steps": 40,
    "optim.end_factor": 0.0,
    "eval.every": 200,
}
# What each must beat. The published output scale of 0.01 needs the published number of updates.
CONFIGS = {
    "emg2pose_tracking": ("hold_initial", {"model.output_scale": 0.1}),
    "emg2pose_regression": ("constant", {"model.output_scale": 0.1}),
    "emg2pose_tuned": ("constant", {}),
}
GROUPS = ("session", "user", "stage", "user_stage")


def train(name, steps, folder):
    """(report of the test split, minutes) of one config."""
    settings = SHRUNK | CONFIGS[name][1] | {"optim.steps": steps}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{name}.py", *flags]
    started = time.perf_counter()
    subprocess.run([*command, f"--workdir={folder}/{name}"], stdout=subprocess.DEVNULL, check=True)
    report = json.loads(Path(folder, name, "report.json").read_text())
    return report["splits"]["test"]["groups"], (time.perf_counter() - started) / 60


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--steps", type=int, default=800)
    options = parser.parse_args()
    table = Table(
        title=f"MAE in degrees, {options.steps} updates of 16 x 2 s: model / what it must beat"
    )
    for title in ("config", "minutes", "must beat", *(f"unseen {group}" for group in GROUPS)):
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.configs:
            groups, minutes = train(name, options.steps, folder)
            floor = CONFIGS[name][0]
            cells = []
            for group in GROUPS:
                values = groups[f"generalization/{group}"]
                model, other = values["model"], values["baselines"][floor]
                cells.append(f"{model['mae_deg']:.1f} / {other['mae_deg']:.1f}")
            table.add_row(name, f"{minutes:.1f}", floor, *cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
