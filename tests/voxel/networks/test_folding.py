"""Laws of cells folded into channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.networks.folding import Folding, folded, unfolded


def test_folding_keeps_blocks_together_and_loses_nothing():
    x = np.arange(2 * 4 * 6 * 8 * 3, dtype=np.float32).reshape(2, 4, 6, 8, 3)
    by = (2, 3, 4)
    inner = np.asarray(folded(jnp.asarray(x), by))
    assert inner.shape == (2, 2, 2, 2, 72)
    np.testing.assert_array_equal(inner[1, 1, 0, 1], x[1, 2:4, 0:3, 4:8].ravel())
    np.testing.assert_array_equal(unfolded(jnp.asarray(inner), by), x)


def test_a_volume_that_blocks_do_not_fill_is_refused():
    network = Folding(4, (2, 2, 2))
    assert network.latent_shape((3, 4, 6, 8, 4)) == (3, 2, 3, 4, 32)
    with pytest.raises(UserError, match=r"multiples of \(2, 2, 2\) and channels 4, pad"):
        network.latent(jnp.zeros((1, 4, 5, 8, 4)))
