"""The LSTM decoder's rollout as one kernel of a card, forward and back, written in Pallas.

A scan starts about nine kernels a step each way, of a microsecond or two each, whatever they do.
Here one program takes ROWS examples through all steps: what is fed back stays in its registers, and
weights come from the card's second-level cache at every step. So a step takes as long as one
processor needs to read them (about 100 GB/s on an H100): 4 to 8 us for two layers of 128, 60 to 120
for two of 512, which a scan beats; so `hidden` has a limit. By arithmetic: no card was at hand to
measure.

Weights' gradients are formed after the loop in one product each, as `nn.deferred` does. Elsewhere
than on CUDA the same kernel is interpreted: right, and slow. More than one device: not divided.

Lowered by Triton, which both ends of the range of jax have, in one place: `_for_triton`. jax has
deprecated it since 0.11.0 and will remove it; its successor, Mosaic GPU, is for Hopper and newer.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from tds_jax.errors import UserError
from tds_jax.nn.deferred import Joined
from tds_jax.nn.linear import matrix_gradient
from tds_jax.pose.fused_steps import ROWS, Cotangents, Form, Given, Kept, Weights, backward, forward


def rollout(form: Form, matrices: dict[str, Joined], carry: Any, xs: Any) -> tuple[Any, jax.Array]:
    """As `deferred.scan` of the decoder's step: (carry, (prepared, masks)) -> (carry, poses)."""
    prepared, masks = xs
    batch, joints = carry["pose"].shape
    wide = max(ROWS, pl.next_power_of_2(joints))
    more = -batch % ROWS
    cells, hidden = ([pair[n] for pair in carry["state"]] for n in (0, 1))
    fed, rows = functools.partial(_more_rows, more, 1), functools.partial(_more_rows, more, 0)
    pose = jnp.pad(carry["pose"], ((0, 0), (0, wide - joints)))
    given = Given(fed(prepared), fed(list(masks)), *rows((pose, cells, hidden, carry["step"])))
    kept = _run(form, _padded(form, matrices, joints, wide), given)
    state = [(c[-1, :batch], h[-1, :batch]) for c, h in zip(kept.cells, kept.hidden, strict=True)]
    poses = kept.poses[:, :batch, :joints]
    after = {"pose": poses[-1], "state": tuple(state), "step": carry["step"] + len(prepared)}
    return after, poses[1:]


def _more_rows(more: int, axis: int, tree: Any) -> Any:
    """The arrays with so many rows of zeros more, of examples that nobody reads."""

    def padded(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, more if n == axis else 0) for n in range(x.ndim)])

    return jax.tree.map(padded, tree)


def _padded(form: Form, matrices: dict[str, Joined], joints: int, wide: int) -> Weights:
    """The weights with as many joints as tensor cores multiply by; those added stay at zero."""
    layers = [matrices[f"layer_{n}"] for n in range(form.layers)]
    fed, own = layers[0].matrix[:joints], layers[0].matrix[joints:]
    first = jnp.concatenate([jnp.pad(fed, ((0, wide - joints), (0, 0))), own])
    head, head_bias = matrices["head"].matrix, matrices["head"].bias
    parts = range(0, head.shape[1], joints)
    columns = [jnp.pad(head[:, n : n + joints], ((0, 0), (0, wide - joints))) for n in parts]
    assert head_bias is not None
    biases = [jnp.pad(head_bias[n : n + joints], (0, wide - joints)) for n in parts]
    return Weights(
        [first, *(layer.matrix for layer in layers[1:])],
        [layer.bias for layer in layers[1:] if layer.bias is not None],
        jnp.concatenate(columns, axis=1),
        jnp.concatenate(biases),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(form: Form, weights: Weights, given: Given) -> Kept:
    return _call(form, weights, given, keep=False)


def _run_forward(form: Form, weights: Weights, given: Given) -> tuple[Kept, Any]:
    kept = _call(form, weights, given, keep=True)
    cells, hidden = ([x[-1:] for x in group] for group in (kept.cells, kept.hidden))
    return Kept(kept.poses, cells, hidden, gates=[]), (weights, given, kept)


def _run_backward(form: Form, saved: Any, cotangent: Kept) -> tuple[Weights, Given]:
    weights, given, kept = saved
    d = _call_back(form, weights, given, kept, cotangent)
    nothing: Any = None  # of masks, which come from keys, and of the count of steps
    before = Given(d.gates[0], nothing, d.pose + cotangent.poses[0], d.cells, d.hidden, nothing)
    return _gradients(form, weights, given, kept, d), before


_run.defvjp(_run_forward, _run_backward)


def _gradients(form: Form, weights: Weights, given: Given, kept: Kept, d: Cotangents) -> Weights:
    below = kept.poses[:-1]
    matrices, biases = [], []
    for n, (hidden, g) in enumerate(zip(kept.hidden, d.gates, strict=True)):
        inputs = (x.astype(g.dtype) for x in (below, hidden[:-1]))
        matrices.append(jnp.concatenate([matrix_gradient(x, g) for x in inputs]))
        biases.append(jnp.sum(g, (0, 1), dtype=given.pose.dtype))
        below = hidden[1:] * given.masks[n] if n < len(given.masks) else hidden[1:]
    read = jax.nn.leaky_relu(kept.hidden[-1][1:], form.slope).astype(d.out.dtype)
    head_bias = jnp.sum(d.out, (0, 1), dtype=given.pose.dtype)
    return Weights(matrices, biases[1:], matrix_gradient(read, d.out), head_bias)


def _blocks(tree: Any, axis: dict[int, int]) -> Any:
    """Specs of arrays that programs share out by rows; axis: of the rows, by the number of axes."""

    def block(x: jax.ShapeDtypeStruct | jax.Array) -> pl.BlockSpec:
        place = axis.get(x.ndim)
        shape = tuple(ROWS if n == place else size for n, size in enumerate(x.shape))
        return pl.BlockSpec(shape, lambda b: tuple(b if n == place else 0 for n in range(x.ndim)))

    return jax.tree.map(block, tree)


_BY_ROWS = {1: 0, 2: 0, 3: 1}


def _for_triton() -> Any:
    """What has a kernel lowered by Triton. A jax without it still runs every other decoder."""
    try:
        from jax.experimental.pallas import triton
    except ImportError as error:
        raise UserError(
            f"model.decoder_kernel='fused' needs Pallas' Triton, which jax {jax.__version__} does "
            "not have; use 'scan'"
        ) from error
    return triton.CompilerParams(num_warps=4, num_stages=1)


def _pallas(kernel: Callable[..., None], name: str, out: Any, weights: Any, *rows: Any) -> Any:
    """kernel(weights, *rows, out), a program for every ROWS rows; interpreted but on CUDA."""

    params = _for_triton()

    def call(interpret: bool) -> Callable[..., Any]:
        return pl.pallas_call(
            kernel,
            out_shape=[out],
            grid=(jax.tree.leaves(rows)[0].shape[1] // ROWS,),
            in_specs=[_blocks(weights, {}), *(_blocks(x, _BY_ROWS) for x in rows)],
            out_specs=[_blocks(out, _BY_ROWS)],
            interpret=interpret,
            name=name,
            compiler_params=params,
        )

    return jax.lax.platform_dependent(weights, *rows, cuda=call(False), default=call(True))[0]


def _call(form: Form, weights: Weights, given: Given, *, keep: bool) -> Kept:
    steps, batch, _ = given.prepared.shape
    rows = steps + 1 if keep else 1
    made: Any = functools.partial(jax.ShapeDtypeStruct, dtype=given.pose.dtype)
    wide = [made((rows, batch, form.hidden))] * form.layers
    gates = [made((steps, batch, 4 * form.hidden))] * (form.layers if keep else 0)
    out = Kept(made((steps + 1, *given.pose.shape)), wide, wide, gates)
    kernel = functools.partial(forward, form, steps)
    return _pallas(kernel, "decoder_forward", out, weights, given)


def _call_back(
    form: Form, weights: Weights, given: Given, kept: Kept, cotangent: Kept
) -> Cotangents:
    made: Any = functools.partial(jax.ShapeDtypeStruct, dtype=weights.head.dtype)
    steps, batch, _ = given.prepared.shape
    gates = [made((steps, batch, 4 * form.hidden))] * form.layers
    before = jax.eval_shape(lambda: (given.pose, given.cells, given.hidden))
    out = Cotangents(gates, made((steps, batch, weights.head.shape[1])), *before)
    kernel = functools.partial(backward, form, steps)
    return _pallas(kernel, "decoder_backward", out, weights, given, kept, cotangent)
