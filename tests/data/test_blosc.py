"""A damaged chunk of Blosc's is refused before Blosc reads behind it."""

import numcodecs
import numpy as np
import pytest
import xarray as xr

from tds_jax.data import blosc, formats

# What does not shrink is stored as it is; what does is packed in blocks.
CONTENTS = {
    "stored": np.random.default_rng(0).integers(0, 256, 120, np.uint8),
    "packed": np.tile(np.arange(250, dtype=np.uint8), 4000),
}


def chunk(content):
    return np.frombuffer(numcodecs.Blosc("lz4", shuffle=1).encode(CONTENTS[content]), np.uint8)


@pytest.mark.parametrize("content", CONTENTS)
def test_whole_chunks_are_what_they_were(content):
    found = blosc.Blosc().decode(chunk(content))
    np.testing.assert_array_equal(np.frombuffer(found, np.uint8), CONTENTS[content])


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("place", [7, 11, 15])  # the highest byte of each size
def test_a_size_that_cannot_be_is_refused(content, place):
    damaged = chunk(content).copy()
    damaged[place] ^= 0x40
    with pytest.raises(ValueError, match=r"a chunk of \d+ bytes says"):
        blosc.require_sound(damaged)


@pytest.mark.parametrize("length", [0, 15, 60])
def test_a_cut_chunk_is_refused(length):
    with pytest.raises(ValueError, match=f"a chunk of {length} bytes"):
        blosc.require_sound(chunk("stored")[:length])


def test_files_are_read_by_it(tmp_path):
    """Zarr 2, whose chunks are Blosc's where nothing else is said."""
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"t": ("x", CONTENTS["stored"].astype("f4"))})
    data.to_zarr(path, zarr_format=2, consolidated=False)
    (file,) = path.glob("t/0")
    damaged = bytearray(file.read_bytes())
    damaged[7] ^= 0x40
    file.write_bytes(damaged)
    with formats.opened(str(path)) as found, pytest.raises(ValueError, match="a chunk of"):
        found["t"].to_numpy()
