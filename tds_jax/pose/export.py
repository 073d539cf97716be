"""A pose model as one file: `offline` for windows, `start` and `step` for streams."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.interchange import artefact
from tds_jax.interchange.artefact import Artefact, Form, Weights
from tds_jax.pose import stream
from tds_jax.pose.models import PoseModel
from tds_jax.pose.task import PoseTask

# Radians. The same operations compiled again: rounding over a window of recurrent steps.
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2}
CHECKED_STEPS = 8  # of the streaming form


def write(task: PoseTask, model: nnx.Module, target: Path) -> str:
    """Writes the file and says what is in it.

    offline(weights, emg (B, data.window, C)[, initial_pose (B, J) with 'given']) -> poses
    (B, N, J) radians, as the config's alignment has them. B is free; the window is not, since the
    number of recurrent steps must be known. Where the model can be streamed also
    start(weights, initial_pose (B, J)) -> state (models that start by themselves take only B from
    it) and step(weights, state, emg (B, S, C)) -> (state, pose (B, J)), see `stream.advance`.
    Raises RuntimeError, and writes nothing, if a form read back differs from the model.
    """
    forms, about = _forms(task, model), _about(task, model)
    weights = artefact.flatten(nnx.to_pure_dict(nnx.state(model)))
    error = artefact.write(target, forms, weights, about, lambda file: _check(task, model, file))
    return (
        f"{target} ({target.stat().st_size / 2**20:.1f} MiB): {', '.join(forms)} for "
        f"{', '.join(artefact.PLATFORMS)}; differs from the checkpoint by at most {error:.1e} rad"
    )


def _bound(model: nnx.Module) -> Callable[[Weights], Any]:
    graphdef = nnx.graphdef(model)
    return lambda weights: nnx.merge(graphdef, artefact.nested(weights))


def _is_streamable(model: nnx.Module) -> bool:
    return isinstance(model, PoseModel) and not model.reference_rate


def _forms(task: PoseTask, model: Any) -> dict[str, Form]:
    (batch,) = jax.export.symbolic_shape("B")
    channels, window = task.recorded.num_channels, task.config.data.window

    def array(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)

    pose = array(task.recorded.num_joints)
    merge = _bound(model)
    inputs = (array(window, channels), *([pose] if model.initial_pose == "given" else []))
    forms = {"offline": Form(lambda weights, *inputs: merge(weights)(*inputs), inputs)}
    if not _is_streamable(model):
        return forms
    fixed = stream.streamable(model)
    merge_fixed = _bound(fixed)

    def start(weights: Weights, initial_pose: jax.Array) -> stream.Memory:
        given = initial_pose if fixed.initial_pose == "given" else None
        return stream.initial_memory(merge_fixed(weights), initial_pose.shape[0], given)

    def step(
        weights: Weights, memory: stream.Memory, emg: jax.Array
    ) -> tuple[stream.Memory, jax.Array]:
        return stream.advance(merge_fixed(weights), memory, emg)

    weights = artefact.flatten(nnx.to_pure_dict(nnx.state(model)))
    memory = jax.eval_shape(start, weights, pose)
    forms["start"] = Form(start, (pose,))
    forms["step"] = Form(step, (memory, array(fixed.step, channels)))
    return forms


def _about(task: PoseTask, model: Any) -> dict[str, Any]:
    """What a consumer must know; lengths in samples."""
    about = task.inputs() | {
        "task": "pose",
        "jax": jax.__version__,
        "units": {"emg": "as in the recordings", "poses": "rad", "sample_rate": "Hz"},
        "initial_pose": model.initial_pose,
        "offline": {
            "window": task.config.data.window,
            "first_pose_at": model.left_context,
            "step": model.step,
            "alignment": model.alignment if _is_streamable(model) else "window",
        },
    }
    if _is_streamable(model):
        fixed = stream.streamable(model)
        about["stream"] = {
            "step": fixed.step,
            "calls_before_first_pose": stream.warm_up(fixed),
            "zeros_before_first_sample": stream.padding(fixed),
            "newest_feature_age": (fixed.steps_per_frame - 1) * fixed.step,
            "delay": 0,
        }
    return about


def _check(task: PoseTask, model: Any, file: Artefact) -> float:
    """The largest difference [rad] between the file's forms and the model, on noise."""
    rng = np.random.default_rng(0)
    channels, joints = task.recorded.num_channels, task.recorded.num_joints
    emg = rng.normal(size=(2, task.config.data.window, channels)).astype(np.float32)
    initial = rng.normal(size=(2, joints)).astype(np.float32)
    given = [initial] if model.initial_pose == "given" else []
    run = nnx.jit(lambda model, *inputs: model(*inputs))
    errors = {"offline": _distance(file.functions["offline"](emg, *given), run(model, emg, *given))}
    if "step" in file.functions:
        fixed = stream.streamable(model)
        length = fixed.receptive_field + (CHECKED_STEPS - 1) * fixed.step
        emg = rng.normal(size=(2, length, channels)).astype(np.float32)
        errors["step"] = _distance(_streamed(fixed, file, emg, initial), run(fixed, emg, *given))
    worst = max(errors, key=lambda name: errors[name])
    allowed = TOLERANCES[task.config.memory.dtype]
    if not errors[worst] <= allowed:
        raise RuntimeError(
            f"the exported form {worst!r} differs from the checkpoint by {errors[worst]:.1e} rad, "
            f"more than {allowed}; nothing was written"
        )
    return errors[worst]


def _streamed(model: PoseModel, file: Artefact, emg: np.ndarray, initial: np.ndarray) -> np.ndarray:
    emg = np.pad(emg, ((0, 0), (stream.padding(model), 0), (0, 0)))
    state, poses = file.functions["start"](initial), []
    for first in range(0, emg.shape[1], model.step):
        state, pose = file.functions["step"](state, emg[:, first : first + model.step])
        poses.append(np.asarray(pose))
    return np.stack(poses[stream.warm_up(model) :], axis=1)


def _distance(found: Any, expected: Any) -> float:
    return float(np.max(np.abs(np.asarray(found) - np.asarray(expected))))
