"""The mesh, the shardings of a tree, and process-local batches made global.

One device is a mesh of one, so the training step is written once: the batch is split over the
axis `data`; the state is replicated, or (memory.shard='fsdp') its large leaves are split over the
same axis and made whole where they are used. Domains never see any of this.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tds_jax.errors import UserError

# Leaves of fewer entries are not split: fetching them costs more than keeping them.
SPLIT = 2**14


def make_mesh(micro_batch: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh `data` over all devices; each must get the same number of examples."""
    count = len(devices or jax.devices())
    if micro_batch % count:
        raise UserError(
            f"optim.batch_size/optim.accumulate={micro_batch} examples cannot be shared equally by "
            f"{count} devices; use a micro-batch that is a multiple of {count}"
        )
    return all_devices(devices)


def all_devices(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh `data` over all devices."""
    # Auto axes: since jax 0.9 the default of make_mesh is Explicit, which needs sharding in types.
    count = len(devices or jax.devices())
    return jax.make_mesh((count,), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def for_reading() -> Mesh:
    """One device of this process; of several processes all devices, since they read together."""
    if jax.process_count() > 1:
        return all_devices()
    return jax.make_mesh((1,), ("data",), devices=jax.local_devices()[:1])


def here(tree: Any) -> Any:
    """A tree of arrays that every device holds, on one of this process alone."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(jnp.asarray, jax.device_get(tree))


def rounded_up(examples: int, mesh: Mesh) -> int:
    """The least multiple of the mesh's devices that holds so many examples."""
    return -(-examples // mesh.size) * mesh.size


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """The axis of examples split over the devices: the leading one, or the second of several
    micro-batches."""
    return NamedSharding(mesh, PartitionSpec(None, "data") if several else PartitionSpec("data"))


def stacked(spec: Any, count: int) -> Any:
    """The shapes of so many micro-batches along a new leading axis; of one, its own."""
    if count == 1:
        return spec
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), spec)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole of an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """A tree of global arrays, whole on every device."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)


def shardings_for(tree: Any, mesh: Mesh, split: bool = False) -> Any:
    """The sharding of every leaf: replicated; with `split`, large ones along their longest axis
    that the devices can share equally."""
    return jax.tree.map(lambda leaf: _sharding(leaf.shape, mesh, split), tree)


def _sharding(shape: tuple[int, ...], mesh: Mesh, split: bool) -> NamedSharding:
    shared = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
    if not split or not shared or math.prod(shape) < SPLIT:
        return replicated(mesh)
    longest = max(shared, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))


def abstract(tree: Any, mesh: Mesh, shardings: Any = None) -> Any:
    """ShapeDtypeStructs with shardings (replicated, if none are given), to compile or to restore
    into without allocating."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings_for(tree, mesh) if shardings is None else shardings,
    )


def bytes_on_each(tree: Any, shardings: Any) -> int:
    """Of a tree's arrays, or of their shapes, what one device holds."""
    held = jax.tree.map(
        lambda leaf, sharding: math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        tree,
        shardings,
    )
    return sum(jax.tree.leaves(held))


def abstract_batch(spec: Any, mesh: Mesh, several: bool = False) -> Any:
    """A batch's ShapeDtypeStructs with the axis of examples split over the devices."""
    sharding = batch_sharding(mesh, several)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), spec
    )


def put_batch(
    batch: dict[str, np.ndarray], mesh: Mesh, micro_batches: int = 1
) -> dict[str, jax.Array]:
    """This process's share of a batch -> global arrays (asynchronous copy to the devices).

    Of several micro-batches, one after the other in `batch`, leaves become (K, B, ...). All leaves
    go in one call where one process holds all devices.
    """
    several = micro_batches > 1
    sharding = batch_sharding(mesh, several)
    if several:
        batch = {
            name: value.reshape(micro_batches, -1, *value.shape[1:])
            for name, value in batch.items()
        }
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    with jax.transfer_guard_host_to_device("allow"):  # as device_put, this is asked for by name
        return {
            name: jax.make_array_from_process_local_data(sharding, value)
            for name, value in batch.items()
        }
