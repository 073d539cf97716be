"""Poses from EMG as it arrives: the samples of now in, the poses they complete out.

Poses are those of alignment 'fixed': pose n is the one at sample left_context + n * step of the
stream and is made as soon as that sample is there, from it and the samples before it; no later
sample is waited for. Where frames are rarer than steps (steps_per_frame > 1) a pose uses the newest
frame, up to (steps_per_frame - 1) * step samples old. Memory and work per step are constant.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.nn.precision import at_least_f32
from tds_jax.pose.models import PoseModel

Memory = dict[str, Any]
"""One decoder step's memory, between two calls of `advance`.

histories: per encoder layer, its inputs (B, K - stride, C) that the next frame reads again.
samples (B, hop - step, C): EMG that waits for the rest of a frame's hop.
feature (B, F): of the newest frame. decoder: its carry. step () int32: steps taken since the
receptive field was filled, negative until then.
"""


def streamable(model: nnx.Module) -> PoseModel:
    """The model under alignment 'fixed'; raises UserError if it has no causal form."""
    if not isinstance(model, PoseModel):
        raise UserError(
            f"{type(model).__name__} sees the whole window at once and cannot be streamed; "
            "predict whole files, or train model.name='tds'"
        )
    if model.reference_rate:
        raise UserError(
            "model.reference_rate=True spreads poses over the whole window and cannot be "
            "streamed; predict whole files, or train with model.reference_rate=False"
        )
    return model.aligned("fixed")


def warm_up(model: PoseModel) -> int:
    """Calls of `advance` before the one that gives the first pose."""
    return -(-model.receptive_field // model.step) - 1


def padding(model: PoseModel) -> int:
    """Zeros before the first sample that put the poses on the grid of a whole-file prediction."""
    return -model.receptive_field % model.step


def initial_memory(model: PoseModel, batch: int, initial_pose: jax.Array | None) -> Memory:
    """The memory before the first sample; initial_pose as in `PoseModel.initial_carry`."""
    channels, dtype = model.normalizer.mean.shape[0], model.normalizer.mean.dtype
    hop = model.step * model.steps_per_frame
    x = jax.ShapeDtypeStruct((batch, hop, channels), dtype)
    histories = []
    for layer, overlap in model.encoder.layers():
        histories.append(jnp.zeros((batch, max(0, overlap), x.shape[2]), x.dtype))
        x = jax.ShapeDtypeStruct((batch, x.shape[1] + overlap, x.shape[2]), x.dtype)
        x = jax.eval_shape(layer, x)
    return {
        "histories": histories,
        "samples": jnp.zeros((batch, hop - model.step, channels), dtype),
        "feature": jnp.zeros((batch, x.shape[2]), at_least_f32(x.dtype)),
        "decoder": model.initial_carry(batch, initial_pose),
        "step": jnp.asarray(-warm_up(model), jnp.int32),
    }


def advance(model: PoseModel, memory: Memory, samples: jax.Array) -> tuple[Memory, jax.Array]:
    """One decoder step: samples (B, step, C) -> (memory, pose (B, J) at the last of them).

    The pose is NaN for the first `warm_up(model)` calls.
    """
    recent = jnp.concatenate([memory["samples"], samples], axis=1)
    histories, feature = jax.lax.cond(
        memory["step"] % model.steps_per_frame == 0,
        lambda: _encode(model, memory["histories"], recent),
        lambda: (memory["histories"], memory["feature"]),
    )
    carry, pose = jax.lax.cond(
        memory["step"] >= 0,
        lambda: model.decode_step(memory["decoder"], feature),
        lambda: (memory["decoder"], jnp.full_like(memory["decoder"]["pose"], jnp.nan)),
    )
    new = {
        "histories": histories,
        "samples": recent[:, model.step :],
        "feature": feature,
        "decoder": carry,
        "step": memory["step"] + 1,
    }
    return new, pose


def _encode(
    model: PoseModel, histories: list[jax.Array], samples: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
    """(histories, feature (B, F)): valid layers on what they have kept and what is new."""
    x, kept = model.normalizer(samples), []
    for (layer, overlap), history in zip(model.encoder.layers(), histories, strict=True):
        x = jnp.concatenate([history, x], axis=1)[:, max(0, -overlap) :]
        kept.append(x[:, x.shape[1] - history.shape[1] :])
        x = layer(x)
    feature = jnp.mean(x.astype(at_least_f32(x.dtype)), axis=1)
    return kept, model.film(feature[:, None])[:, 0] if model.film else feature


class StreamState(NamedTuple):
    """All that a stream remembers.

    pending (B, < step, C): samples that do not fill a step yet. memory: see `Memory`; step: its
    own, where the host can read it without waiting.
    """

    pending: np.ndarray
    memory: Memory
    step: int


class Stream:
    """`(params, state, chunk) -> (state, poses)` for chunks of any length.

    A pure function: states may be kept, and gone back to. One compilation, at the first step.
    params: the model's own.
    """

    def __init__(self, model: nnx.Module) -> None:
        self.model = model = streamable(model)
        graphdef, params = nnx.split(model)
        # Restored ones lie on a mesh, new states do not: their first step would compile twice.
        self.params = jax.device_put(jax.device_get(params))

        def start(params: nnx.State, batch: int, initial_pose: jax.Array | None) -> Memory:
            return initial_memory(nnx.merge(graphdef, params), batch, initial_pose)

        def step(params: nnx.State, memory: Memory, x: jax.Array) -> tuple[Memory, jax.Array]:
            return advance(nnx.merge(graphdef, params), memory, x)

        self._start = jax.jit(start, static_argnames="batch")
        self._step = jax.jit(step)

    def start(
        self, params: nnx.State, batch: int = 1, initial_pose: np.ndarray | None = None
    ) -> StreamState:
        """Before the first sample. initial_pose (B, J) radians with 'given', else None."""
        memory = self._start(params, batch, initial_pose)
        shape = (batch, padding(self.model), self.model.normalizer.mean.shape[0])
        pending = np.zeros(shape, memory["samples"].dtype)
        return StreamState(pending, memory, -warm_up(self.model))

    def __call__(
        self, params: nnx.State, state: StreamState, chunk: np.ndarray
    ) -> tuple[StreamState, np.ndarray]:
        """chunk (B, n, C), n >= 0, in the recording's units -> poses (B, m, J) in radians.

        m is the number of steps that the chunk completes, 0 until `receptive_field` samples have
        come. Samples with NaN or Inf in a channel count as zeros, which the decoder survives.
        """
        finite = np.isfinite(chunk).all(axis=-1, keepdims=True)
        samples = np.concatenate([state.pending, np.where(finite, chunk, 0)], axis=1)
        samples = samples.astype(state.pending.dtype, copy=False)
        memory, poses = state.memory, []
        steps = samples.shape[1] // self.model.step
        *hops, pending = np.split(samples, np.arange(1, steps + 1) * self.model.step, axis=1)
        for hop in hops:
            memory, pose = self._step(params, memory, hop)
            poses.append(pose)
        shape = (len(chunk), 0, self.model.num_joints)
        poses = poses[max(0, -state.step) :]
        found = np.stack(poses, axis=1) if poses else np.empty(shape, np.float32)
        return StreamState(pending, memory, state.step + steps), found
