"""The promise of the README, in small: kill -9 and SIGTERM leave no trace in a run."""

import pytest

from experiments.kill_resume import prove


@pytest.mark.slow  # three processes of 10 to 15 CPU seconds each
def test_a_run_killed_equals_an_undisturbed_one_bit_for_bit(tmp_path, capsys):
    equal = prove(tmp_path, steps=35, kills=1, terms=0, seed=1)
    assert equal, capsys.readouterr().out
