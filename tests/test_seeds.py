"""Several seeds of one training: each its own folder, none of them lost."""

import pytest

from tds_jax import compare, seeds
from tds_jax.errors import UserError


def test_each_seed_is_trained_by_the_same_flags_until_one_fails(tmp_path, monkeypatch):
    commands, shown = [], []
    monkeypatch.setattr(compare, "show", lambda folders, *more: shown.append(folders))
    statuses = iter([0, 0, 0, 130])
    monkeypatch.setattr(
        seeds, "_run", lambda command: (commands.append(command), next(statuses))[1]
    )
    argv = [
        "--config=a.py",
        "--seeds",
        "3",
        "--workdir=x",
        "-config.seed=9",
        "--config.optim.steps=2",
    ]
    assert seeds.train(2, 5, tmp_path, argv) == 0
    kept = ["--config=a.py", "--config.optim.steps=2"]
    assert [command[3:] for command in commands] == [
        [*kept, f"--workdir={tmp_path}/seed{seed}", f"--config.seed={seed}"] for seed in (5, 6)
    ]
    assert shown == [[str(tmp_path)]]
    assert seeds.train(3, 0, tmp_path, argv) == 130
    assert (len(commands), len(shown)) == (4, 1)
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match="is a run; name another --workdir"):
        seeds.train(2, 0, tmp_path, argv)
