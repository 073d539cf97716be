"""The promise of the README, in small: kill -9 and SIGTERM leave no trace in a run."""

import signal

import jax
import pytest

from experiments.kill_resume import prove
from tds_jax.engine import workdir
from tests.engine import toy
from tests.engine.test_loop import assert_same, final
from tests.engine.test_processes import trained
from tests.engine.together import ended, peers


def test_a_process_killed_at_a_step_leaves_what_goes_on_bit_for_bit(tmp_path):
    ((status, *said),) = ended(
        peers(tmp_path / "killed", 1, jax.device_count(), at=3, what="SIGKILL")
    )
    assert status == -signal.SIGKILL, said
    assert workdir.has_checkpoint(tmp_path / "killed")
    for name in ("calm", "killed"):
        trained(tmp_path / name)
    config = toy.config()
    assert_same(final(config, tmp_path / "killed"), final(config, tmp_path / "calm"))


@pytest.mark.long  # three processes of 10 to 15 CPU seconds each
def test_a_run_killed_equals_an_undisturbed_one_bit_for_bit(tmp_path, capsys):
    equal = prove(tmp_path, steps=35, kills=1, terms=0, seed=1)
    assert equal, capsys.readouterr().out
