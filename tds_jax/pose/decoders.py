"""Features -> joint angles, one step at a time, each step seeing the pose it made before."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.nn import deferred
from tds_jax.nn.deferred import Matrices, Product
from tds_jax.nn.linear import Linear, add_bias, matmul
from tds_jax.nn.lstm import LSTM
from tds_jax.nn.module import Module
from tds_jax.nn.norm import LayerNorm
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import in_chunks
from tds_jax.pose import fused

OUTPUTS = ("position", "velocity", "hybrid")
DROPOUT_LAYER = 100  # the encoder's stages count from 0

Carry = dict[str, Any]
"""pose (B, J) and the core's state, f32; step (B,) int32, the number of steps taken."""


class LSTMCore(Module, entries=("prepare", "step")):
    """[feature, pose] -> LSTM -> LeakyReLU -> linear."""

    read_out = "head"  # the last linear layer

    def __init__(
        self,
        features: int,
        feedback: int,
        outputs: int,
        *,
        hidden: int,
        layers: int,
        dropout: float,
        slope: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.slope = slope
        self.feedback = feedback
        self.lstm = LSTM(
            features + feedback, hidden, layers, dropout=dropout, dtype=dtype, rngs=rngs
        )
        self.head = Linear(hidden, outputs, dtype=dtype, rngs=rngs)

    def initial_state(self, batch: int) -> Any:
        """Zeros for every layer."""
        return self.lstm.initial_carry(batch)

    def prepare(self, features: jax.Array) -> jax.Array:
        """features (..., F) -> what one step needs of them; no feedback involved."""
        return self.lstm.input_gates(features)

    def masks(self, keys: jax.Array | None, steps: int) -> list[jax.Array]:
        """Dropout between layers, (N, B, H) each."""
        return self.lstm.masks(keys, steps, DROPOUT_LAYER)

    def matrices(self) -> Matrices:
        """What every step multiplies by."""
        head = (self.head.matrix(), self.head.bias[...])
        return self.lstm.matrices(self.feedback) | {"head": head}

    def step(
        self,
        state: Any,
        prepared: jax.Array,
        pose: jax.Array,
        masks: Sequence[jax.Array],
        product: Product,
    ) -> tuple[Any, jax.Array]:
        """One step: (state, raw output (B, O)); product multiplies by one of `matrices`."""
        state, hidden = self.lstm.step(state, prepared, pose, masks, product)
        return state, product("head", jax.nn.leaky_relu(hidden, self.slope))


class MLPCore(Module, entries=("prepare", "step")):
    """[feature, pose] -> (linear, LayerNorm, LeakyReLU) per hidden size -> linear; no memory."""

    linear_0: Linear

    def __init__(
        self,
        features: int,
        feedback: int,
        outputs: int,
        *,
        sizes: Sequence[int],
        slope: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise UserError(
                f"model.mlp_hidden={tuple(sizes)} needs one or more positive sizes; use (256, 128)"
            )
        self.slope = slope
        self.feedback = feedback
        self.depth = len(sizes)
        self.read_out = f"linear_{self.depth}"  # the last linear layer
        ends = [features + feedback, *sizes, outputs]
        for n, (a, b) in enumerate(itertools.pairwise(ends)):
            setattr(self, f"linear_{n}", Linear(a, b, dtype=dtype, rngs=rngs))
        for n, size in enumerate(sizes):
            setattr(self, f"norm_{n}", LayerNorm(size, dtype=dtype))

    def initial_state(self, batch: int) -> Any:
        """Nothing."""
        return ()

    def prepare(self, features: jax.Array) -> jax.Array:
        """features (..., F) -> their half of the first product, with its bias."""
        kernel = self.linear_0.matrix()[: features.shape[-1]]
        return add_bias(matmul(features.astype(kernel.dtype), kernel), self.linear_0.bias[...])

    def masks(self, keys: jax.Array | None, steps: int) -> list[jax.Array]:
        """None: the MLP has no dropout."""
        return []

    def matrices(self) -> Matrices:
        """What every step multiplies by: the feedback's half of the first kernel, the others."""
        matrices: Matrices = {"feedback": (self.linear_0.matrix()[-self.feedback :],)}
        for n in self._later():
            linear: Linear = getattr(self, f"linear_{n}")
            matrices[f"linear_{n}"] = (linear.matrix(), linear.bias[...])
        return matrices

    def step(
        self,
        state: Any,
        prepared: jax.Array,
        pose: jax.Array,
        masks: Sequence[jax.Array],
        product: Product,
    ) -> tuple[Any, jax.Array]:
        """One step: (state, raw output (B, O)); product multiplies by one of `matrices`."""
        x = prepared + product("feedback", pose)
        for n in self._later():
            x = jax.nn.leaky_relu(getattr(self, f"norm_{n - 1}")(x), self.slope)
            x = product(f"linear_{n}", x)
        return state, x

    def _later(self) -> range:
        return range(1, self.depth + 1)


class Decoder(Module, entries=("rollout", "step")):
    """Rolls a core out over features and turns its outputs into poses.

    output 'position': pose = scale * out. 'velocity': pose = previous + scale * out. 'hybrid': out
    has both halves; position for the first `position_steps` steps, velocity afterwards.
    The previous pose is always the model's own (no teacher forcing). chunk: see `in_chunks`.
    kernel: how `rollout` runs, with the same result: 'scan', a loop of products (`nn.deferred`), or
    'fused', one kernel of a card (`pose.fused`). 'auto' is the faster one where both were measured.
    That is nowhere yet: it is 'scan'.
    """

    def __init__(
        self,
        core: LSTMCore | MLPCore,
        *,
        num_joints: int,
        output: str,
        output_scale: float,
        position_steps: int,
        chunk: int,
        dtype: jnp.dtype,
        kernel: str = "auto",
    ) -> None:
        self.core = core
        self.num_joints = num_joints
        self.output = output
        self.output_scale = output_scale
        self.position_steps = position_steps
        self.chunk = chunk
        self.carry_dtype = at_least_f32(dtype)
        self.form = self._fused() if kernel == "fused" else None

    def _fused(self) -> fused.Form:
        assert isinstance(self.core, LSTMCore)
        lstm, given = self.core.lstm, (self.output, self.output_scale, self.core.slope)
        return fused.Form(*given, self.position_steps, lstm.hidden, lstm.layers)

    def initial_carry(self, pose: jax.Array) -> Carry:
        """The carry before the first step, from pose (B, J) radians."""
        batch = pose.shape[0]
        return {
            "pose": pose.astype(self.carry_dtype),
            "state": self.core.initial_state(batch),
            "step": jnp.zeros((batch,), jnp.int32),
        }

    def step(self, carry: Carry, feature: jax.Array) -> tuple[Carry, jax.Array]:
        """feature (B, F) -> (carry, pose (B, J)), without dropout."""
        product = deferred.direct(self.core.matrices())
        return self._step(product, carry, (self.core.prepare(feature), []))

    def rollout(
        self, features: jax.Array, carry: Carry, keys: jax.Array | None = None
    ) -> tuple[jax.Array, Carry]:
        """features (B, N, F) -> (poses (B, N, J) in f32 radians, carry after the last step)."""
        matrices = deferred.join(self.core.matrices())
        # Outside of the chunks in f32, so that their gradients add up over chunks in f32.
        wide = jax.tree.map(lambda m: m.astype(at_least_f32(m.dtype)), matrices)
        scan = (
            functools.partial(fused.rollout, self.form)
            if self.form
            else functools.partial(deferred.scan, self._step)
        )

        # Gates are 16 times as wide as features: a chunk makes its own, and only features are kept.
        def run(carry: Carry, xs: tuple[jax.Array, list[jax.Array]]) -> tuple[Carry, jax.Array]:
            frames, masks = xs
            xs = (self.core.prepare(frames), masks)
            narrow = jax.tree.map(lambda w, m: w.astype(m.dtype), wide, matrices)
            return scan(narrow, carry, xs)

        masks = self.core.masks(keys, features.shape[1])
        frames = jnp.swapaxes(features, 0, 1)
        carry, poses = in_chunks(run, carry, (frames, masks), self.chunk)
        return jnp.swapaxes(poses, 0, 1), carry

    def _step(
        self, product: Product, carry: Carry, x: tuple[jax.Array, list[jax.Array]]
    ) -> tuple[Carry, jax.Array]:
        prepared, masks = x
        state, out = self.core.step(carry["state"], prepared, carry["pose"], masks, product)
        out = out.astype(self.carry_dtype) * self.output_scale
        pose = self._pose(out, carry["pose"], carry["step"])
        return {"pose": pose, "state": state, "step": carry["step"] + 1}, pose

    def _pose(self, out: jax.Array, previous: jax.Array, step: jax.Array) -> jax.Array:
        if self.output == "position":
            return out
        if self.output == "velocity":
            return previous + out
        position, velocity = jnp.split(out, 2, axis=-1)
        return jnp.where((step < self.position_steps)[:, None], position, previous + velocity)


def num_outputs(output: str, num_joints: int) -> int:
    """Size of the core's output for an `output` kind."""
    if output not in OUTPUTS:
        raise UserError(f"model.output={output!r} is not known; use one of {', '.join(OUTPUTS)}")
    return 2 * num_joints if output == "hybrid" else num_joints
