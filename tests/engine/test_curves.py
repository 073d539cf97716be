"""A run whose loss has gone wrong is told so; one that is noisy is not."""

import json

import pytest

from tds_jax.engine import curves

FALLING = [1.0 / (1 + n) for n in range(40)]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (FALLING, ""),
        ([1.0, 9.0], ""),  # too few to tell
        ([], ""),
        ([0.5, 1.0, 10.5], "was 0.5 at step 0 and ended at 10.5 (means of 1 line)"),
        ([*FALLING[:39], 0.1], ""),  # one line of the last four
        ([*FALLING[:20], *FALLING[19::-1]], "was 0.05132 at step 21"),  # rose to where it began
        ([0.5] * 20 + [0.6] * 20, "began at 0.5, was 0.5 at step 3 and ended at 0.6"),
        ([*FALLING, *[0.1] * 4], "was 0.026 at step 39 and ended at 0.1"),
        ([*FALLING, None], "not finite in 1 of 41 lines"),
        # A student's, whose aim moves with it: a line more or less is noise.
        ([22.53, 22.22, 24.16, 20.87, 22.24, 21.57, 22.68, 22.59], ""),
        ([22.53, 22.22, 23.16, 22.87, 24.02, 26.05, 27.68, 28.59], "ended at 28.59"),
        ([-0.1, *[-1.0 - n / 40 for n in range(40)]], ""),  # twice the lowest means nothing
    ],
)
def test_a_loss_that_ends_above_its_beginning_or_thrice_its_lowest_has_diverged(
    tmp_path, losses, words
):
    lines = [
        {"split": "train", "step": n, "examples": n, "loss": value}
        for n, value in enumerate(losses)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    found = curves.diverged(tmp_path)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("own", "words"),
    [(0.4, ""), (4.9, ""), (5.1, "mae_rad on test is 5.1, that of its worst baseline 0.5"),
     (None, "mae_rad on test is not finite")],
)  # fmt: skip
def test_a_loss_that_was_large_from_its_first_line_is_told_by_the_baselines(tmp_path, own, words):
    line = {"split": "train", "step": 10, "examples": 80, "loss": 1e25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    baselines = {"zero": {"mae_rad": 0.5}, "ridge": {"mae_rad": 0.2}, "other": {"iou": 0.01}}
    test = {"model": {"iou": 0.9, "mae_rad": own}, "baselines": baselines}
    report = {"splits": {"test": test}, "shown": {"test": {"headline": ["iou", "mae_rad"]}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    found = curves.diverged(tmp_path)
    assert words in found
    assert bool(words) == bool(found)
