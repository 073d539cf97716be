"""history.jsonl tells what happened to a run, whatever happened to its writer."""

import contextlib

import pytest

from tds_jax.engine import history
from tds_jax.engine.stopping import StopError


def hows(folder):
    return [line.get("how", line["event"]) for line in history.read(folder)]


def test_a_run_that_ends_says_how_and_one_that_was_killed_is_found_at_the_next_start(tmp_path):
    history.end(tmp_path, "complete")
    assert hows(tmp_path) == []  # none began
    history.start(tmp_path, "micro-batch 1 x 1")
    history.start(tmp_path, "micro-batch 1 x 1")
    history.end(tmp_path, "complete", steps=3)
    history.end(tmp_path, "error: too late")
    assert hows(tmp_path)[::2] == ["start", "start"]
    assert hows(tmp_path)[1].startswith("killed")
    assert hows(tmp_path)[3] == "complete"
    first = history.read(tmp_path)[0]
    told = {"time", "host", "process", "version", "device", "command", "plan"}
    assert told <= first.keys()
    assert first["plan"] == "micro-batch 1 x 1"
    assert history.read(tmp_path)[3]["steps"] == 3


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (StopError("SIGTERM"), "stopped by SIGTERM"),
        (ValueError("two\nlines"), "error: ValueError: two lines"),
        (KeyboardInterrupt(), "error: KeyboardInterrupt"),
    ],
)
def test_what_ends_a_run_is_noted_and_raised(tmp_path, error, how):
    with pytest.raises(type(error)), history.recorded(tmp_path, "plan"):
        raise error
    assert hows(tmp_path) == ["start", how]


@pytest.mark.parametrize("torn", ['{"event": "en', "\xff\n", "[]\n", "\n"])
def test_a_torn_line_spoils_no_other(tmp_path, torn):
    history.start(tmp_path, "plan")
    with (tmp_path / history.HISTORY).open("ab") as file:
        file.write(torn.encode("latin-1"))
    history.start(tmp_path, "plan")
    assert [line["event"] for line in history.read(tmp_path)] == ["start", "end", "start"]


def test_a_full_disk_does_not_hide_what_filled_it(tmp_path, full_disk):
    def run(until_the_end_is_noted):
        with history.recorded(tmp_path, "plan"):
            size = (tmp_path / history.HISTORY).stat().st_size
            until_the_end_is_noted.enter_context(full_disk(size))
            raise ValueError("the reason")

    with contextlib.ExitStack() as stack, pytest.raises(ValueError, match="the reason"):
        run(stack)
    with full_disk(1), pytest.raises(OSError, match=r"history\.jsonl"):
        history.start(tmp_path, "plan")
