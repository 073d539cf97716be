"""Variables of MATLAB files are scipy's, and a file that would end the interpreter is refused."""

import numpy as np
import pytest
from scipy import io

from tds_jax.data import matlab

VARIABLES = {
    "emg": np.random.default_rng(0).normal(size=(50, 4)),
    "small": np.array([[1.0]]),
    "counts": np.arange(5, dtype=np.int16),
    "single": np.ones((5, 2), np.float32),
    "phase": np.array([1 + 2j]),
    "side": "lüft",
    "nothing": np.zeros((0, 0)),
}
OTHERS = {"notes": {"a": 1.0}, "list": np.array([1, "a"], dtype=object)}


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_and_texts_are_read_and_other_kinds_left_out(tmp_path, compressed):
    path = str(tmp_path / "a.mat")
    io.savemat(path, VARIABLES | OTHERS, do_compression=compressed)
    found, expected = matlab.read(path), io.loadmat(path)
    assert found.keys() == VARIABLES.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_real_numbers_that_are_flagged_complex_are_refused(tmp_path):
    """scipy reads on behind them and the interpreter ends."""
    path = tmp_path / "a.mat"
    io.savemat(path, {"emg": VARIABLES["emg"]})
    content = bytearray(path.read_bytes())
    content[matlab.HEADER + 17] |= matlab.COMPLEX >> 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match="an array of 4 parts"):
        matlab.read(str(path))
