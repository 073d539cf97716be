"""Trading time for memory: what a block keeps for its backward pass, and scans in chunks."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from tds_jax.errors import UserError
from tds_jax.fields import require_choice

BLOCK = "block"

# Kept for the backward pass of a block, and the price. "none": everything, no extra work.
# "dots": results of matrix products and convolutions; normalisations and activations are redone.
# "names": what `keep` marked, the output of every residual block; one block's inside is redone.
# "full": the block's input only; its whole forward pass runs twice (about a third more work).
POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "names": jax.checkpoint_policies.save_only_these_names(BLOCK),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def keep(x: jax.Array) -> jax.Array:
    """Marks x as worth keeping under the policy "names"."""
    return checkpoint_name(x, BLOCK)


def checkpoint(f: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """f with its intermediate values kept or redone as `policy` says; same values and gradients.

    f must be stateless: updates of Variables inside are lost. XLA on CPU undoes this outside scans.
    """
    require_choice("memory.remat", policy, tuple(POLICIES))
    return f if policy == "none" else jax.checkpoint(f, policy=POLICIES[policy])


def in_chunks(
    scan: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, chunk: int
) -> tuple[Any, Any]:
    """scan(init, xs) -> (carry, ys), redone chunk by chunk going backward instead of kept.

    scan: `jax.lax.scan` or `deferred.scan` of some step; xs leaves are (N, ...). chunk 0 keeps
    everything. Otherwise N / chunk carries + one chunk's intermediates are alive instead of N
    intermediates (fewest near chunk = sqrt(N)), for at most one more forward pass. N need not
    be a multiple.
    """
    total = jax.tree.leaves(xs)[0].shape[0]
    if chunk < 0:
        raise UserError(f"chunk={chunk} is negative; use 0 (off) or a length")
    if chunk == 0 or chunk >= total:
        return scan(init, xs)
    run = jax.checkpoint(scan)
    whole = total - total % chunk
    split = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(run, init, split)
    ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
    if whole == total:
        return carry, ys
    carry, rest = run(carry, jax.tree.map(lambda x: x[whole:], xs))
    return carry, jax.tree.map(lambda a, b: jax.numpy.concatenate([a, b]), ys, rest)
