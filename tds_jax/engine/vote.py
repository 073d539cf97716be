"""Whether to stop, asked of all processes at every call of the training step."""

import collections

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tds_jax.engine import processes, sharding


class Vote:
    """True once any process wants it, in all processes after the same call.

    The answer is the one of so many calls ago (`behind`), so that no device waits for the host.
    """

    def __init__(self, mesh: Mesh, behind: int) -> None:
        self._behind = behind
        self._cast: collections.deque[jax.Array] = collections.deque()
        if processes.several():
            each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            mine = np.ones(jax.local_device_count(), np.int32)
            self._no, self._yes = (
                jax.make_array_from_process_local_data(each, mine * vote) for vote in (0, 1)
            )
            self._most = jax.jit(lambda votes: votes.max(), out_shardings=sharding.replicated(mesh))

    def __call__(self, wanted: bool) -> bool:
        """What has been decided, after this process's wish."""
        if not processes.several():
            return wanted
        self._cast.append(self._most(self._yes if wanted else self._no))
        return len(self._cast) > self._behind and bool(self._cast.popleft())
