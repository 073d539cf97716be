"""Work that takes long is never silent: a log gets a line now and again."""

import time

import pytest

from tds_jax import progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)
    monkeypatch.setattr(progress, "NEXT_LINE", 0.02)


def test_a_log_is_told_of_work_that_takes_long_and_of_no_other(quick, capsys, monkeypatch):
    with progress.working("compiling") as say:
        say("16 x 4")
        time.sleep(0.2)
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == second == "compiling: for 0:00:00, 16 x 4"
    monkeypatch.setattr(progress, "FIRST_LINE", 60.0)
    started = time.monotonic()
    with progress.progress_bar("reading") as show:
        show(1, 2)
    assert capsys.readouterr().err == ""
    assert time.monotonic() - started < 30  # nor does it wait for the next line


@pytest.mark.parametrize(
    ("done", "words", "line"),
    [
        (3, "a.hdf5", "preparing: 3 of 12, for 0:00:40, 0:02:00 to go, a.hdf5"),
        (0, "", "preparing: 0 of 12, for 0:00:40"),
    ],
)
def test_a_line_says_how_far_work_is_and_what_is_left(done, words, line):
    assert progress.in_words("preparing", done, 12, words, 40.0) == line
