"""A workdir belongs to one config; its best model can be had without the trainer."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.errors import UserError
from tds_jax.evaluate import place_of as place
from tds_jax.tasks import DataAbout
from tests.engine import toy

INPUTS = {"features": 4}


def begun(folder, config):
    """A folder in which a run has saved its first checkpoint."""
    workdir.claim(folder, config, INPUTS, "a", {})
    (folder / "checkpoints" / "8").mkdir(parents=True)
    return folder


def test_a_folder_begun_with_other_settings_is_refused_with_their_names(tmp_path):
    folder = begun(tmp_path / "a", toy.config())
    before = (folder / "config.json").read_text()
    other = toy.config(optim__learning_rate=0.5, eval__every=5, data__workers=2)
    with pytest.raises(UserError) as caught:
        workdir.claim(folder, other, INPUTS, "a", {})
    text = str(caught.value)
    assert "eval.every: 2 -> 5; optim.learning_rate: 0.05 -> 0.5" in text
    assert "workers" not in text
    assert "\n" not in text
    assert (folder / "config.json").read_text() == before


def test_a_folder_of_another_task_is_told_by_that_and_many_settings_are_counted(tmp_path):
    folder = begun(tmp_path / "a", toy.config())
    values = json.loads((folder / "config.json").read_text())
    values["optim"] |= {f"gone{i:02}": i for i in range(20)}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"gone11: 11 -> None; and 8 more\); use the same sett"):
        workdir.claim(folder, toy.config(), INPUTS, "a", {})
    (folder / "config.json").write_text(json.dumps(values | {"task": "tea"}))
    with pytest.raises(UserError, match=r"another config \(task: tea -> toy\); use the same"):
        workdir.claim(folder, toy.config(), INPUTS, "a", {})


def test_a_folder_begun_with_other_data_is_refused(tmp_path):
    folder = begun(tmp_path, toy.config())
    with pytest.raises(UserError, match=r"inputs\.features: 4 -> 5"):
        workdir.claim(folder, toy.config(), {"features": 5}, "a", {})
    with pytest.raises(UserError, match="begun with other data"):
        workdir.claim(folder, toy.config(), INPUTS, "b", {})
    with pytest.raises(UserError, match="features: 4 -> 5"):
        workdir.require_inputs(folder, {"features": 5})
    workdir.require_inputs(folder, INPUTS)


class Data:
    """Of a task, what tells its data from others."""

    def __init__(self, folder, digest="a"):
        self.folder, self._digest = folder, digest

    def data_about(self):
        return DataAbout(str(self.folder), "", False)

    def digest(self):
        return self._digest

    def data_files(self):
        return {path.name: str(path) for path in self.folder.iterdir()}


def test_other_data_are_told_from_the_runs_own_wherever_these_have_moved(tmp_path):
    for name, text in (("own", "x"), ("moved", "x"), ("other", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    run, own = tmp_path / "run", Data(tmp_path / "own")
    workdir.claim(run, toy.config(), INPUTS, own.digest(), own.data_files())
    moved, other = Data(tmp_path / "moved"), Data(tmp_path / "other")
    assert [place(task, run) for task in (own, moved)] == [run, run]
    elsewhere = {place(task, run) for task in (other, Data(tmp_path / "own", "split otherwise"))}
    assert {path.parent for path in elsewhere} == {run}
    assert {path.name.rpartition("_")[0] for path in elsewhere} == {"on_other", "on_own"}
    workdir.claim(tmp_path / "imported", toy.config(), INPUTS, "", {})
    assert place(other, tmp_path / "imported") == tmp_path / "imported"


def test_a_folder_without_a_checkpoint_may_be_begun_anew(tmp_path):
    workdir.claim(tmp_path, toy.config(), INPUTS, "a", {})
    workdir.claim(tmp_path, toy.config(optim__learning_rate=0.5), {"features": 5}, "b", {})
    assert workdir.read_config(tmp_path)["optim"]["learning_rate"] == 0.5
    assert workdir.read_inputs(tmp_path) == {"features": 5}


@pytest.mark.parametrize("text", ['{"name": "theirs"}', "[]", "name: theirs"])
def test_a_config_of_another_program_is_not_overwritten(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="another program's; name another --workdir"):
        workdir.claim(tmp_path, toy.config(), INPUTS, "a", {})
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_may_be_taken_up_with_other_workers_and_more_steps(tmp_path):
    folder = begun(tmp_path, toy.config())
    workdir.claim(
        folder, toy.config(optim__steps=9, data__workers=2, log__every=7), INPUTS, "a", {}
    )
    stored = workdir.read_config(folder)
    assert (stored["optim"]["steps"], stored["data"]["workers"]) == (9, 2)
    assert json.loads(json.dumps(toy.config().to_dict())).keys() == stored.keys()


def test_a_damaged_config_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not JSON .*; restore it or train anew"):
        workdir.read_config(tmp_path)


def test_a_folder_that_train_did_not_write_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--workdir=.* has no config.json"):
        workdir.read_config(tmp_path)


def test_a_run_without_checkpoints_has_no_model(tmp_path):
    with pytest.raises(UserError, match="no checkpoint yet; train first"):
        workdir.load_model(Blueprint(toy.ToyTask(), toy.config()), tmp_path)


def test_the_model_is_the_best_checkpoints(tmp_path):
    config = toy.config(eval__every=1, optim__steps=3)
    loop.fit(Blueprint(toy.ToyTask(worsen=True), config), tmp_path)
    _, restored = workdir.load_model(Blueprint(toy.ToyTask(), config), tmp_path)
    assert restored.position == 8
    assert int(restored.state.opt_state.gradient_step) == 1


def test_a_folder_of_an_older_version_is_the_same_run(tmp_path):
    folder = begun(tmp_path, toy.config())
    older = {"inputs": INPUTS, "sessions": "a"}  # the digest's name then
    (folder / workdir.INPUTS).write_text(json.dumps(older))
    assert workdir.read_inputs(folder) == INPUTS
    with pytest.raises(UserError, match="begun with other data"):
        workdir.claim(folder, toy.config(), INPUTS, "b", {})
    workdir.claim(folder, toy.config(), INPUTS, "a", {})
    assert json.loads((folder / workdir.INPUTS).read_text())["digest"] == "a"


def test_a_reader_falls_back_to_the_next_best_and_leaves_the_damaged_one(tmp_path, capsys):
    config = toy.config(eval__every=1, optim__steps=3)
    loop.fit(Blueprint(toy.ToyTask(worsen=True), config), tmp_path)
    (tmp_path / "checkpoints" / "8" / "progress" / "metadata").unlink()
    _, restored = workdir.load_model(Blueprint(toy.ToyTask(), config), tmp_path)
    assert restored.position == 16
    assert "checkpoint 8 in" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "8").exists()


def recorded(folder):
    """Two files of data, and a run begun with them."""
    files = {name: str(folder / name) for name in ("a.h5", "b.h5")}
    for path in files.values():
        Path(path).write_bytes(bytes(1000))
    workdir.claim(folder / "run", toy.config(), INPUTS, "a", files)
    (folder / "run" / "checkpoints" / "8").mkdir(parents=True)
    return files


def go_on(folder, files):
    workdir.claim(folder / "run", toy.config(), INPUTS, "a", files)


def test_a_file_whose_bytes_have_changed_is_refused_by_name(tmp_path):
    files = recorded(tmp_path)
    Path(files["b.h5"]).write_bytes(bytes(999) + b"!")
    before = (tmp_path / "run" / "inputs.json").read_text()
    with pytest.raises(UserError, match=r"begun with other data \(b.h5 has changed\)"):
        go_on(tmp_path, files)
    with pytest.raises(UserError, match=r"\(b.h5 is missing, c.h5 is new\)"):
        go_on(tmp_path, {"a.h5": files["a.h5"], "c.h5": files["a.h5"]})
    assert (tmp_path / "run" / "inputs.json").read_text() == before


def test_data_that_were_touched_copied_or_moved_are_the_same(tmp_path):
    files = recorded(tmp_path)
    os.utime(files["a.h5"], (1, 1))
    go_on(tmp_path, files)
    moved = {name: str(tmp_path / "elsewhere" / name) for name in files}
    (tmp_path / "elsewhere").mkdir()
    for name, path in files.items():
        shutil.move(path, moved[name])
    go_on(tmp_path, moved)


def test_a_run_of_an_older_version_takes_the_files_that_come_first(tmp_path):
    files = recorded(tmp_path)
    older = {"inputs": INPUTS, "digest": "a"}
    (tmp_path / "run" / workdir.INPUTS).write_text(json.dumps(older))
    go_on(tmp_path, files)
    Path(files["a.h5"]).write_bytes(b"other")
    with pytest.raises(UserError, match=r"a\.h5 has changed"):
        go_on(tmp_path, files)
