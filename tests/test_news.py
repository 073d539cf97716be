"""Work in the background raises its first error, and is silent about the others."""

import asyncio
import contextlib
import gc
import logging
import os
import threading

import h5netcdf
import pytest
import tensorstore

from tds_jax.news import only_news

FULL = OSError(28, os.strerror(28))


async def fails():
    raise FULL


def first_error(*writes):
    """Of writes at once: as Orbax runs them, whose loop is closed when the first has failed."""

    async def all_at_once():
        await asyncio.gather(*writes)

    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), pytest.raises(OSError, match="No space left"):
        loop.run_until_complete(all_at_once())
    del loop
    gc.collect()


def tensor_written_late():
    """An array of a checkpoint."""
    promise, future = tensorstore.Promise.new()

    async def write():
        await future

    first_error(write(), fails())
    thread = threading.Thread(target=promise.set_result, args=(0,))
    thread.start()
    thread.join()


def error_as_the_loop_stops():
    """Errors in the turns after the first: there is one in which nobody asks for them any more."""

    async def fails_later(turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        raise FULL

    for turns in range(8):
        first_error(fails(), fails_later(turns))


@pytest.mark.parametrize(
    "second", [tensor_written_late, pytest.param(error_as_the_loop_stops, marks=pytest.mark.long)]
)
def test_a_write_that_ends_after_one_beside_it_failed_says_nothing(said, second):
    second()
    gc.collect()
    assert said() == []


def test_a_file_that_cannot_be_opened_is_one_error(said, tmp_path, monkeypatch):
    """h5netcdf fails between opening it and knowing how."""
    path = tmp_path / "a.nc"
    with h5netcdf.File(path, "w"):
        pass

    def fail(*args):
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("h5py.AttributeManager.get", fail)
    with pytest.raises(OSError, match="Input/output error"):
        h5netcdf.File(path)
    gc.collect()
    assert said() == []


def test_what_else_cannot_be_raised_is_said_once(said):
    class Broken:
        def __del__(self):
            raise RuntimeError("another reason")

    only_news()
    Broken()
    gc.collect()
    assert said() == ["RuntimeError('another reason')"]


def test_what_is_no_traceback_is_said(said):
    logging.getLogger("asyncio").warning("slow")
    assert said() == ["slow"]
