"""What is read from files once and then kept, by the setting of a run."""

import dataclasses

import numpy as np

from tds_jax.budget import host


def require_as_set(task, calls, number):
    """An example is the same again, read anew only if nothing is kept, and a plan counts what is.

    calls: the list to which each reading of a file is added. number: of the example.
    """
    source, keep = task.source("train"), task.config.data.keep_bytes
    first = source.example(number, None)
    asked = len(calls)
    again = source.example(number, None)
    for name, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[name])
    assert asked > 0
    assert len(calls) == (asked if keep else 2 * asked)
    data = dataclasses.replace(task.config.data, workers=2)
    without = dataclasses.replace(data, keep_bytes=0)
    counted, others = (host.predict(one, 1, 0, 0, 0).cache for one in (data, without))
    assert counted - others == 3 * keep
