"""Laws of windows: none crosses a gap, no split shares a target, nothing missing counts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from tds_jax.config import SPLITS
from tds_jax.data.pipeline import Loader
from tds_jax.errors import UserError
from tds_jax.forecast.windows import (
    ForecastWindows,
    WindowSpec,
    require_windows,
    split_days,
    window_starts,
)
from tests.forecast.files import ArrayFields, dates

SPEC = WindowSpec(inputs=3, leads=2)


def gappy_days(seed, count=60):
    """About `count` days of 100, so with many gaps."""
    rng = np.random.default_rng(seed)
    return dates("2020-01-01", 100)[np.sort(rng.choice(100, count, replace=False))]


def crossing(source):
    """Examples whose values, which are dates, are not those of consecutive days."""
    found = []
    for i in range(len(source)):
        example = source.example(i, None)
        seen = [*example["fields"][:, 0, 0, 0], *example["target"][:, 0, 0]]
        if (np.diff(seen) != 1).any():
            found.append(i)
    return found


def dated_fields(days):
    """Fields whose value is the day's number."""
    numbers = (days - days[0]).astype(int) + 1.0
    return ArrayFields(np.tile(numbers[:, None, None, None], (1, 2, 2, 1)), days)


def test_the_facts_air_temperature_has_137_test_windows_117_of_them_strict():
    days, spec = dates("2013-01-01", 730), WindowSpec(20, 10)
    parts = split_days(730, (0.7, 0.1, 0.2))
    assert (parts["train"], parts["val"]) == (range(511), range(511, 584))
    assert parts["test"] == range(584, 730)
    counts = {gap: len(window_starts(days, spec, parts["test"], gap)) for gap in (0, 20, 30)}
    assert counts == {0: 137, 20: 117, 30: 107}
    assert window_starts(days, spec, parts["test"], 0)[[0, -1]].tolist() == [564, 700]
    assert len(window_starts(days, spec, range(584), 0)) == 584 - 29


def test_no_window_crosses_a_gap_and_a_planted_one_is_found():
    for seed in range(5):
        days = gappy_days(seed, 80)
        fields = dated_fields(days)
        everything = range(len(days))
        honest = window_starts(days, SPEC, everything, 0)
        assert len(honest)
        assert crossing(ForecastWindows(fields, SPEC, honest)) == []
        planted = np.arange(len(days) - SPEC.length + 1)  # as if there were no gap
        leaks = crossing(ForecastWindows(fields, SPEC, planted))
        assert sorted({*planted} - {*honest}) == leaks != []


@pytest.mark.parametrize("gap", [0, 3, 5])
def test_splits_share_no_target_and_keep_their_distance(gap):
    for seed in range(5):
        days = gappy_days(seed, 90)
        parts = split_days(len(days), (0.6, 0.2, 0.2))
        targets, inputs = {}, {}
        for name in SPLITS:
            starts = window_starts(days, SPEC, parts[name], gap)
            targets[name] = {d for s in starts for d in days[s + 3 : s + 5]}
            inputs[name] = {d for s in starts for d in days[s : s + 3]}
            assert targets[name] <= set(days[parts[name]])
        for earlier, later in (("train", "val"), ("val", "test")):
            assert not targets[earlier] & targets[later]
            end = days[parts[earlier].stop - 1]
            if targets[later]:
                assert (min(targets[later]) - end).astype(int) > gap
            if gap >= SPEC.inputs:
                assert not inputs[later] & set(days[parts[earlier]])


def test_every_window_that_may_be_is_there():
    days = gappy_days(7, 90)
    parts = split_days(len(days), (0.6, 0.2, 0.2))
    for name in SPLITS:
        part = parts[name]
        wanted = [
            s
            for s in range(len(days) - 4)
            if (np.diff(days[s : s + 5]).astype(int) == 1).all()
            and all(k in part for k in (s + 3, s + 4))
        ]
        assert window_starts(days, SPEC, part, 0).tolist() == wanted


def test_a_window_longer_than_every_stretch_is_refused_by_name():
    days = np.concatenate([dates("2020-01-01", 12), dates("2020-02-01", 20)])
    require_windows(days, WindowSpec(12, 8))
    with pytest.raises(UserError, match=r"need 21 days in a row, the longest stretch has 20"):
        require_windows(days, WindowSpec(12, 9))


def random_fields(seed=0, share=0.2):
    """Days of 6 x 5 cells and two variables with holes; the first column is sea."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(12, 6, 5, 2))
    values[rng.uniform(size=values.shape) < share] = np.nan
    values[:, :, 0, 0] = np.nan
    return ArrayFields(values)


def test_an_example_holds_its_days_and_nothing_missing_counts():
    fields = random_fields()
    source = ForecastWindows(fields, SPEC, np.array([4, 2]))
    example = source.example(0, None)
    values = fields.values[4:9]
    known = np.isfinite(values)
    np.testing.assert_array_equal(example["fields"], np.where(known, values, 0)[:3])
    np.testing.assert_array_equal(example["present"], known[:3])
    np.testing.assert_array_equal(example["target"], np.where(known, values, 0)[3:, ..., 0])
    np.testing.assert_array_equal(example["weight"], known[3:, ..., 0])
    assert not example["weight"][..., 0].any()
    assert (example["start"], example["origin"].tolist()) == (4, [0, 0])
    np.testing.assert_allclose(example["phase"], np.arange(4, 9) / 366, rtol=1e-6)
    kinds = {name: leaf.dtype.name for name, leaf in example.items()}
    assert kinds["present"] == "uint8"
    assert kinds["start"] == kinds["origin"] == "int32"
    assert {kinds[name] for name in ("fields", "target", "weight", "phase")} == {"float32"}


def test_no_value_counts_outside_the_land():
    fields = random_fields(share=0)
    fields.land = np.zeros_like(fields.land)
    fields.land[2, 3] = True
    weight = ForecastWindows(fields, SPEC, np.arange(3)).example(1, None)["weight"]
    assert np.argwhere(weight.any(axis=0)).tolist() == [[2, 3]]


def test_a_crop_is_a_part_of_the_whole_that_has_land():
    fields = random_fields()
    fields.land[:] = False
    fields.land[3, 1] = True
    source = ForecastWindows(fields, SPEC, np.arange(4), (2, 3))
    whole = source.example(3, None)
    places = set()
    for seed in range(30):
        crop = source.example(3, np.random.default_rng(seed))
        row, column = crop["origin"]
        places.add((int(row), int(column)))
        region = slice(row, row + 2), slice(column, column + 3)
        assert fields.land[region].any()
        for name in ("fields", "present", "target", "weight"):
            np.testing.assert_array_equal(crop[name], whole[name][:, *region])
    assert places == {(row, column) for row in (2, 3) for column in (0, 1)}
    assert whole["fields"].shape == (3, 6, 5, 2)


def test_the_same_generator_gives_the_same_example_also_after_a_pickle():
    source = ForecastWindows(random_fields(), SPEC, np.arange(8), (2, 2))
    copy = pickle.loads(pickle.dumps(source))
    one, two = (s.example(5, np.random.default_rng(3)) for s in (source, copy))
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name])


@pytest.mark.parametrize("crop", [(7, 2), (2, 6), (0, 3), (-1, 2)])
def test_crops_that_do_not_fit_are_refused_by_name(crop):
    with pytest.raises(UserError, match=rf"data\.crop=\({crop[0]}, {crop[1]}\) does not fit"):
        ForecastWindows(random_fields(), SPEC, np.arange(3), crop)


def test_reading_windows_does_not_import_jax():
    """A data worker must not: it costs memory there, and would start a device."""
    code = "import sys, tds_jax.forecast.windows; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_loader_takes_them_and_pads_with_weight_zero():
    source = ForecastWindows(random_fields(), SPEC, np.arange(3), (4, 2))
    loader = Loader(source, micro_batch=2, seed=0, train=True, workers=0, threads=0, prefetch=1)
    first, last = list(loader.eval_batches())
    assert first["fields"].shape == (2, 3, 6, 5, 2)
    assert last["weight"][0].any()
    assert not last["weight"][1].any()
    assert next(loader.train_batches(0))["target"].shape == (2, 2, 4, 2)
    loader.close()
