"""How much memory does a training step of a volume autoencoder need, and what does each means save?

    python -m experiments.voxel_memory [--target=h100|cpu|here] [--rows=ultra] [--measure]

One row per model, grid and way of running: bytes of temporaries that the compiler of the target
lays out for one step at batch 1 (forward, squared error + 1e-6 KL, backward, AdamW, the state
donated), for the latents of one volume, or for the volume of its latents. Arguments (state and
volume) are apart. Reference: what the original keeps for its backward pass alone with its
checkpointing, f32; the rest of its step comes on top. XLA on CPU undoes recomputation outside
loops, so that only tiles save there.
--measure runs each step on the device here and adds its peak and its seconds.
"""

import argparse
import dataclasses
import time

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from tds_jax.budget import memory, targets
from tds_jax.engine.step import split
from tds_jax.sizes import GIB, format_bytes
from tds_jax.voxel.networks.vae import PRESETS, VAE3D, kl_divergence

SMALL, RESIZED, PADDED = (16, 64, 64), (32, 128, 128), (96, 608, 224)
CHANNELS = 4
# GiB kept by the reference per model and grid, without and with its checkpointing.
REFERENCE = {
    ("ultra", SMALL): (0.142, 0.050),
    ("ultra", RESIZED): (1.14, 0.40),
    ("ultra", PADDED): (28.3, 9.9),
    ("light_32", SMALL): (0.310, 0.105),
    ("light_32", RESIZED): (2.48, 0.84),
    ("light_32", PADDED): (61.9, 21.0),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One way of running one model. work: "step", "latents" or "decode"; bar: GiB to stay below."""

    model: str
    grid: tuple[int, int, int]
    dtype: str
    span: str
    remat: str
    tile: int
    work: str = "step"
    bar: float | None = None

    @property
    def name(self) -> str:
        tile = f", tile {self.tile >> 10}Ki" if self.tile else ""
        return f"{self.model} {self.dtype} {self.span} {self.remat}{tile}, {self.work}"


MI = 1 << 20
ROWS = (
    Row("ultra", RESIZED, "float32", "block", "none", 0),
    Row("ultra", RESIZED, "float32", "block", "full", 0),
    Row("ultra", RESIZED, "bfloat16", "block", "none", 0),
    Row("ultra", RESIZED, "bfloat16", "block", "full", 0, bar=0.20),
    Row("ultra", RESIZED, "bfloat16", "stage", "full", 0),
    Row("ultra", RESIZED, "bfloat16", "coder", "full", 0),
    Row("ultra", RESIZED, "bfloat16", "block", "full", MI // 8, bar=0.20),
    Row("ultra", RESIZED, "float32", "block", "full", MI // 8),
    Row("ultra", PADDED, "float32", "block", "none", 0),
    Row("ultra", PADDED, "float32", "block", "full", 0),
    Row("ultra", PADDED, "bfloat16", "block", "full", 0),
    Row("ultra", PADDED, "bfloat16", "block", "full", MI, bar=5.0),
    Row("ultra", PADDED, "float32", "block", "full", MI),
    Row("light_32", RESIZED, "bfloat16", "block", "full", MI // 8),
    Row("light_32", PADDED, "bfloat16", "block", "full", MI, bar=8.0),
    Row("light_32", PADDED, "float32", "block", "full", MI),
    Row("ultra", PADDED, "bfloat16", "block", "full", MI, work="latents", bar=1.0),
    Row("light_32", PADDED, "bfloat16", "block", "full", MI, work="latents", bar=1.0),
    Row("ultra", PADDED, "bfloat16", "block", "full", MI, work="decode"),
    Row("light_32", PADDED, "bfloat16", "block", "full", MI, work="decode"),
)


def build(row):
    return VAE3D(
        CHANNELS,
        CHANNELS,
        CHANNELS,
        **PRESETS[row.model],
        span=row.span,
        remat=row.remat,
        tile=row.tile,
        dtype=jnp.dtype(row.dtype),
        rngs=nnx.Rngs(0),
    )


def program(row):
    """(jitted function, its abstract arguments)."""
    graphdef, params, rest = split(nnx.eval_shape(lambda: build(row)))
    optimizer = optax.adamw(1e-4, weight_decay=1e-4)
    x = jax.ShapeDtypeStruct((1, *row.grid, CHANNELS), jnp.float32)

    def loss(params, x, keys):
        again, mean, logvar = nnx.merge(graphdef, params, rest)(x, keys)
        return jnp.mean((again - x) ** 2) + 1e-6 * jnp.mean(kl_divergence(mean, logvar))

    def step(params, state, x, keys):
        value, gradient = jax.value_and_grad(loss)(params, x, keys)
        update, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, update), state, value

    def latent(params, x):
        return nnx.merge(graphdef, params, rest).latent(x)

    def decode(params, z):
        return nnx.merge(graphdef, params, rest).decode(z)

    if row.work == "latents":
        return jax.jit(latent), (params, x)
    if row.work == "decode":
        return jax.jit(decode), (params, jax.eval_shape(latent, params, x))
    keys = jax.ShapeDtypeStruct((1, 2), jnp.uint32)
    state = jax.eval_shape(optimizer.init, params)
    return jax.jit(step, donate_argnums=(0, 1)), (params, state, x, keys)


def compile_for(row, mesh):
    """The compiled program and the seconds that took."""
    f, arguments = program(row)
    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), arguments
    )
    started = time.perf_counter()
    compiled = f.lower(*arguments).compile()
    return compiled, arguments, time.perf_counter() - started


def measured(compiled, arguments):
    """(peak bytes on the device or None, seconds of the second call) with arguments of zeros."""

    def run():
        given = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype, device=a.sharding), arguments)
        started = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        return time.perf_counter() - started

    run()
    return memory.device_peak(), run()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="h100", choices=targets.NAMES)
    parser.add_argument("--rows", default="", help="rows whose name contains this")
    parser.add_argument("--grid", default=0, type=int, help="rows of this depth only")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    targets.prepare(options.target)
    target = targets.find(options.target)
    mesh = target.mesh(1)
    table = Table(title=f"temporaries on {target.kind}")
    for title in ("grid", "way", "reference", "arguments", "temporaries", "bar", "compile [s]"):
        table.add_column(title, justify="right")
    for row in ROWS:
        if options.rows not in row.name or options.grid not in (0, row.grid[0]):
            continue
        compiled, arguments, seconds = compile_for(row, mesh)
        predicted = memory.predict(compiled)
        reference = REFERENCE.get((row.model, row.grid), ("", ""))[1]
        cells = ["x".join(map(str, row.grid)), row.name, f"{reference} GiB"]
        cells += [format_bytes(predicted.arguments), f"{predicted.temporaries / GIB:.3f} GiB"]
        cells += [f"{row.bar} GiB" if row.bar else "", f"{seconds:.0f}"]
        if options.measure:
            peak, step = measured(compiled, arguments)
            cells[-1] += f"; peak {format_bytes(peak or 0)}, {step:.3f} s"
        table.add_row(*cells)
        Console(width=140).print(" | ".join(cells))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
