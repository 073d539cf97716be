"""Begins a run from a PyTorch checkpoint; needs no PyTorch and executes nothing in the file.

    python -m tds_jax.import_torch --config=configs/emg2pose_tracking.py --checkpoint=FILE \\
        --workdir=runs/b [--config.data.path=DIR]

Reads .safetensors, and Lightning's .ckpt, .pt and .pth with a state dict; of a file that holds the
trained weights and their average --weights=ema takes the average. Afterwards evaluate and predict
work on the workdir, and train, given the same --config, goes on from its parameters.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from tds_jax import cli, tasks
from tds_jax.config import Config
from tds_jax.errors import UserError

if TYPE_CHECKING:
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.step import TrainState


def main() -> None:
    """Flags -> import_checkpoint."""
    import jax

    from tds_jax.interchange import checkpoint

    config = cli.resolve(flags.FLAGS.config.to_dict())
    archive = checkpoint.read(Path(flags.FLAGS.checkpoint), flags.FLAGS.weights)
    folder = Path(flags.FLAGS.workdir)
    state = import_checkpoint(config, archive.tensors, folder)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    place = f"{archive.source} of " if archive.source else ""
    print(f"read: {len(archive.tensors)} tensors from {place}{flags.FLAGS.checkpoint}")
    if archive.averages:
        beside = ", ".join(archive.averages)
        print(f"note: the file also has averaged weights ({beside}); --weights=ema takes them")
    if archive.others:
        afresh = " (the optimizer starts afresh)" * any("optim" in key for key in archive.others)
        print(f"ignored: {', '.join(archive.others)}{afresh}")
    print(f"written: {folder}, {count:,} parameters, step 0")


def import_checkpoint(config: Config, tensors: dict[str, Any], folder: Path) -> "TrainState":
    """Writes a workdir whose step 0 has the parameters `tensors`; returns its state.

    What a model must know of its data, and statistics of them, come from data.path; without, the
    first from the tensors, and statistics stay as in a fresh model. Where tensors tell nothing
    (volumes), generated data stand in.
    Raises UserError if the folder has another checkpoint or the tensors are another model's.
    """
    import jax
    import jax.numpy as jnp

    from tds_jax.budget.plan import describe
    from tds_jax.engine import history, lock, step, workdir
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.loop import Standing
    from tds_jax.engine.program import RUNS_ONCE
    from tds_jax.engine.stopping import EarlyStopping

    told = tasks.inputs_of(config.task, tensors)
    seen = bool(config.data.path) or not told
    task = tasks.get(config, None if seen else told)
    workdir.require_apart(folder, task.data_about().folder if seen else "")
    blueprint = Blueprint(task, config)
    state = jax.jit(blueprint.init, compiler_options=RUNS_ONCE)(blueprint.key)
    rest = step.replace_leaves(state.rest, task.fit_statistics() if seen else {})
    params, rest = task.import_params(state.params, rest, tensors)

    def like(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), old, new)

    params = like(state.params, params)
    ema = jax.tree.map(jnp.copy, params) if state.ema else {}
    state = dataclasses.replace(state, params=params, rest=like(state.rest, rest), ema=ema)
    progress = Standing(0, 0, EarlyStopping(config.eval.min_delta, config.eval.patience))
    remembered = dataclasses.asdict(progress) | {"step": 0, "config": config.to_dict()}
    if workdir.has_checkpoint(folder) and not _is_there(blueprint, folder, state, remembered):
        raise UserError(f"--workdir={folder} has checkpoints already; name a new folder")
    with lock.held(folder):
        workdir.claim(
            folder,
            config,
            task.inputs(),
            task.digest() if seen else "",
            task.data_files() if seen else {},
        )
        with history.recorded(folder, describe(config)):
            checkpoints = workdir.open_checkpoints(folder, config)
            checkpoints.save(0, state, remembered, score=None)
            checkpoints.close()
            history.end(folder, "imported", steps=0)
    return state


def _is_there(
    blueprint: "Blueprint", folder: Path, state: "TrainState", remembered: dict[str, Any]
) -> bool:
    """Whether all that the folder has is this import: one stopped when it was whole goes on."""
    import jax
    import numpy as np

    from tds_jax.engine import workdir

    try:
        _, found = workdir.load_model(blueprint, folder)
    except UserError:  # another model's, or damaged
        return False
    same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), found.state, state)
    plain = json.loads(json.dumps(remembered))
    return found.position == 0 and found.progress == plain and all(jax.tree.leaves(same))


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, cli.CONFIG)
    flags.mark_flag_as_required("config")
    flags.DEFINE_string(
        "checkpoint", None, "File: .safetensors, or PyTorch's .ckpt, .pt or .pth.", required=True
    )
    flags.DEFINE_enum("weights", "model", ("model", "ema"), "As trained, or their average.")
    flags.DEFINE_string("workdir", None, "Folder to make.", required=True)
    cli.launch(main)
