"""Does a default test see it when the user of a formula is wrong, though the formula is right?

    python -m experiments.mutations [--only voxel] [--keep]

One at a time, in a copy of the tree, a line of a class that uses a formula is changed: the wrong
split, a condition that the network does not see, a weight that is dropped. The named tests, without
`long` ones, must then fail; the first that does is shown. About half a minute of CPU time each.
Ends with 1 if a change passed. --keep leaves the copy, to look at.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("tds_jax", "configs", "tests", "experiments", "docs")


class Mutation(NamedTuple):
    """In `file` below tds_jax, `right`, which is there once, becomes `wrong`; tests are below
    tests, with the options that choose among them."""

    what: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "thresholds are chosen on test",
        "voxel/evaluation.py",
        'task.data.pairs("val")',
        'task.data.pairs("test")',
        ("voxel/test_evaluation.py",),
    ),
    Mutation(
        "a student has no boundary condition",
        "voxel/methods/distillation.py",
        "by = diffusion.boundary_mix(sigma, levels.data, levels.lowest)",
        "by = diffusion.mix(sigma, levels.data)",
        ("voxel/test_task.py::test_a_students_answer_at_the_lowest_level_is_the_point_itself",),
    ),
    Mutation(
        "diffusion trains without the radar",
        "voxel/methods/generation.py",
        'draws, batch["key"], open_to_it, truth, model.condition(batch["radar"])',
        'draws, batch["key"], open_to_it, truth, model.condition(0 * batch["radar"])',
        ("voxel/test_task.py::test_a_denoiser_learns_from_what_the_radar_saw",),
    ),
    Mutation(
        "levels are not weighted",
        "voxel/methods/generation.py",
        "diffusion.loss_weight(sigma, model.data) * error",
        "error",
        ("voxel/test_task.py::test_a_silent_network_is_charged_what_the_levels_weigh",),
    ),
    Mutation(
        "the teacher does not see the radar",
        "voxel/methods/distillation.py",
        'teacher.condition(batch["radar"]),',
        'teacher.condition(0 * batch["radar"]),',
        ("voxel/test_task.py::test_the_teacher_is_asked_with_the_radar",),
    ),
    Mutation(
        "samples do not lie around the answer",
        "voxel/methods/generation.py",
        "return anchor + diffusion.sample",
        "return diffusion.sample",
        ("voxel/test_folded.py",),
    ),
    Mutation(
        "what cells say is charged without the answer they lie around",
        "voxel/methods/generation.py",
        "missed(model, truth + wrong, truth)",
        "missed(model, clean + wrong, clean)",
        ("voxel/test_folded.py::test_cells_that_are_neither_full_nor_empty_are_charged",),
    ),
    Mutation(
        "every method is judged at the model's threshold",
        "voxel/evaluation.py",
        "states = _states(task, frame, volume, thresholds.of(name))",
        "states = _states(task, frame, volume, thresholds.of(MODEL))",
        ("voxel/test_evaluation.py",),
    ),
    Mutation(
        "padded volumes count in training",
        "voxel/methods/generation.py",
        "return Objective(jnp.sum(weight * charge), jnp.sum(weight)), states",
        "return Objective(jnp.sum(charge), jnp.sum(weight)), states",
        ("voxel/test_task.py::test_the_objective_is_a_sum_over_examples",),
    ),
    Mutation(
        "static maps are those of the first corner",
        "forecast/model.py",
        "static = self._crop(batch, self.static[...])[:, None]",
        "static = jnp.roll(self._crop(batch, self.static[...]), 1, axis=1)[:, None]",
        ("forecast/test_inputs.py", "forecast/test_task.py"),
    ),
    Mutation(
        "the season is that of the coming days",
        "forecast/model.py",
        'year, day = split(batch["phase"][:, : x.shape[1]])',
        'year, day = split(batch["phase"][:, -x.shape[1] :])',
        ("forecast/test_inputs.py", "forecast/test_task.py"),
    ),
    Mutation(
        "cells without a target count",
        "forecast/objective.py",
        "total = jnp.sum(weight * cost, dtype=jnp.float32)",
        "total = jnp.sum(cost, dtype=jnp.float32)",
        ("forecast/test_task.py", "forecast/test_cells.py"),
    ),
    Mutation(
        "statistics are those of the test days",
        "forecast/task.py",
        'days, crew = self.split["train"], processes.crew()',
        'days, crew = self.split["test"], processes.crew()',
        ("forecast/test_leak.py", "forecast/test_task.py"),
    ),
    Mutation(
        "the network's answer is not in the target's unit",
        "forecast/model.py",
        "return usual + y * self.target_scale(batch)",
        "return usual + y",
        ("forecast/test_task.py",),
    ),
    Mutation(
        "CRPS is of members that are not scaled",
        "forecast/objective.py",
        'fair_crps(members / scale[:, None], batch["target"] / scale)',
        'fair_crps(members, batch["target"])',
        ("forecast/test_ensemble.py", "forecast/test_task.py"),
    ),
    Mutation(
        "EMG is normalised by the test split",
        "pose/task.py",
        'data, train = self.config.data, self.table.select("train")',
        'data, train = self.config.data, self.table.select("test")',
        ("pose/test_task.py",),
    ),
    Mutation(
        "rows without labels count in training",
        "pose/task.py",
        "total = jnp.sum(weight * row, dtype=jnp.float32)",
        "total = jnp.sum(row, dtype=jnp.float32)",
        ("pose/test_task.py",),
    ),
    Mutation(
        "`linear` is chosen on the train split",
        "pose/evaluation.py",
        'baselines.fit(_chunks(task, "val"), fit.val)',
        'baselines.fit(_chunks(task, "train"), fit.val)',
        ("pose/test_evaluation.py", "pose/test_baselines.py"),
    ),
    Mutation(
        "tracking begins at the second pose",
        "pose/task.py",
        'initial = batch["joint_angles"][:, 0] if told else None',
        'initial = batch["joint_angles"][:, 1] if told else None',
        ("pose/test_task.py",),
    ),
    Mutation(
        "a hand's errors are of unweighted rows",
        "pose/task.py",
        "mean = (weight[:, ::k] * apart).sum(axis=1) / jnp.maximum(compared, 1)",
        "mean = apart.sum(axis=1) / jnp.maximum(compared, 1)",
        ("pose/test_task.py", "pose/test_fingertips.py"),
    ),
    Mutation(
        "a read-out begins at the mean of labels that failed, too",
        "pose/statistics.py",
        "yield angles[valid_rows(angles)]",
        "yield angles",
        ("pose/test_task.py",),
    ),
    Mutation(
        "a new run begins at random all the same",
        "engine/loop.py",
        "return beginning_with(state, replace_leaves(state.params, first)) if first else state",
        "return state",
        ("engine/test_loop.py",),
    ),
)


def copied(folder: Path) -> Path:
    """The tree, in a folder."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def seen(tree: Path, mutation: Mutation) -> str:
    """The first test that fails with it; '' if all pass."""
    path = tree / "tds_jax" / mutation.file
    text = path.read_text()
    if text.count(mutation.right) != 1:
        raise SystemExit(f"{mutation.file} has not once: {mutation.right}")
    path.write_text(text.replace(mutation.right, mutation.wrong))
    tests = [f"tests/{name}" for name in mutation.tests]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *tests],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    path.write_text(text)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ran.stdout, re.M)
    if ran.returncode not in (0, 1) or (ran.returncode and not failed):
        raise SystemExit(f"{mutation.what}: {(ran.stdout + ran.stderr)[-2000:]}")
    return failed[1] if failed else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="those whose file or words begin so")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    tree = copied(Path(tempfile.mkdtemp(prefix="mutations_")))
    table = Table("file", "what is wrong", "seen by", "s")
    missed = 0
    for one in MUTATIONS:
        if not (one.file.startswith(options.only) or one.what.startswith(options.only)):
            continue
        started = time.perf_counter()
        by = seen(tree, one)
        missed += not by
        cells = one.file, one.what, by or "NOBODY", f"{time.perf_counter() - started:.0f}"
        print(" | ".join(cells), file=sys.stderr, flush=True)
        table.add_row(*cells)
    Console(width=160).print(table)
    if not options.keep:
        shutil.rmtree(tree)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
