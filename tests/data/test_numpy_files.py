"""Files of NumPy's that many threads read, while jax's collector interrupts whom it likes."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from tds_jax.voxel.data.volumes import read_volume

PACKAGE = Path(__file__).parents[2] / "tds_jax"


@pytest.fixture
def interrupted():
    """The collector begins at every hand's turn, and threads take turns as often."""
    jax.numpy.zeros(1).block_until_ready()
    assert gc.callbacks, "jax has none any more, or another way: what else runs in a collection?"
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(30), sys.setswitchinterval(1e-5)
    yield
    gc.set_threshold(*threshold), sys.setswitchinterval(interval)


@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_a_whole_file_is_whole_to_every_thread(ending, tmp_path, interrupted):
    volume = np.zeros((4, 3, 2, 4), np.float32)
    volume[1, 2, 0] = 1, 50, -3, 1
    path = str(tmp_path / f"000000.{ending}")
    if ending == "npy":
        np.save(path, volume)
    else:
        shape = np.array(volume.shape)
        np.savez(path, coords=[[1, 2, 0]], features=volume[1:2, 2, 0], shape=shape)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_volume, [path] * 1500))
    for one in found:
        np.testing.assert_array_equal(one.coords, [[1, 2, 0]])
        np.testing.assert_array_equal(one.features, volume[1:2, 2, 0])


def test_whoever_reads_a_file_of_numpys_takes_turns():
    callers = [path for path in PACKAGE.rglob("*.py") if "np.load(" in path.read_text()]
    assert callers == [PACKAGE / "data" / "numpy_files.py"]
