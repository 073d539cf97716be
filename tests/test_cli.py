"""Doors: exit codes, one line for what the user can fix, and who may import what."""

import ast
import errno
import functools
import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

import tds_jax
from tds_jax import cli, presets
from tds_jax.data import json_file

ROOT = Path(__file__).parents[1]
DOMAINS = {"pose", "forecast", "voxel"}


def run(*arguments, module="tds_jax.train", cwd=ROOT):
    """(exit code, stdout, stderr) of a door."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/default.py", "--confg=3"], ["--confg is not a flag", "--config? See"]),
        (
            ["--config=configs/default.py", "--stepps=9"],
            ["flag; did you mean --config.optim.steps? "],
        ),
        (["--config=configs/default.py", "--optim.steps=9"], ["mean --config.optim.steps? See"]),
        (["--config=configs/default.py", "--data=emg"], ["did you mean --config.data.NAME"]),
        (
            ["--config=configs/none.py", "--workdr=x"],
            ["--workdr is not", "did you mean --workdir?"],
        ),
        (["--workdr=x"], ["did you mean --workdir? See --help"]),
        (["--config=configs/default.py", "--qqq=9"], ["--qqq is not a flag; see --help"]),
        (["--config=configs/default.py", "--config.optim.batchsize=8"], ["batchsize"]),
        (["--config=configs/none.py"], ["configs/none.py"]),
        (["--config=configs/default.py", "--config.optim.steps=many"], ["steps", "many"]),
        (["--config=configs/default.py", "--config.optim.steps=8.5"], ["steps", "8.5"]),
        (["--config=configs/default.py", "steps=3"], ["'steps=3'", "--config.optim.steps"]),
        ([], ["--config"]),
        (
            [
                "--config=configs/default.py",
                "--config.optim.batch_size=60",
                "--config.optim.accumulate=8",
            ],
            ["batch_size=60 is not divisible by", "; use optim.batch_size=56 or 64"],
        ),
    ],
)
def test_a_wrong_command_line_exits_2_with_one_line(arguments, words):
    code, _, stderr = run(*arguments)
    assert code == 2, stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert stderr.startswith("error: ")
    assert all(word in stderr for word in words)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=low_memory", "--x=1"], ["--config=FOLDER/low_memory.py", "--x=1"]),
        (["-config", "low_memory:a"], ["-config", "FOLDER/low_memory.py:a"]),
        (["--config=default"], ["--config=default"]),  # a file of that name wins
        (["--config=base"], ["--config=base"]),
        (["--config=configs/low_memory.py"], ["--config=configs/low_memory.py"]),
        (["low_memory"], ["low_memory"]),
    ],
)
def test_a_config_that_is_no_file_may_be_named(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").touch()
    found = presets.files_in_place_of_names(arguments)
    assert [word.replace(str(presets.FOLDER), "FOLDER") for word in found] == expected


def test_a_named_config_is_ours_beside_a_folder_with_configs_of_the_users(tmp_path):
    theirs = tmp_path / "configs" / "default.py"
    theirs.parent.mkdir()
    theirs.write_text("raise SystemExit('theirs')")
    code, _, stderr = run("--config=low_memory", "steps=3", cwd=tmp_path)
    assert (code, stderr.split(";")[0]) == (2, "error: 'steps=3' is not a flag")
    _, _, stderr = run("--config=configs/low_memory.py", cwd=tmp_path)
    assert "--config=low_memory is the one that tds_jax brings" in stderr


def test_the_package_lists_its_doors_and_its_version():
    code, stdout, _ = run(module="tds_jax")
    listed = {line.split()[0] for line in stdout.splitlines() if line.startswith("  ")}
    doors = {
        path.stem for path in (ROOT / "tds_jax").glob("*.py") if "cli.launch(" in path.read_text()
    }
    assert (code, doors - listed) == (0, set())
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"tds-jax", *(f"tds-jax-{name}".replace("_", "-") for name in doors)}
    for module, words in (("tds_jax", ["--version"]), ("tds_jax", ["plan", "--version"])):
        assert run(*words, module=module)[:2] == (0, f"tds_jax {tds_jax.__version__}\n")
    assert run("teach", module="tds_jax")[0] == 2


def outcome(main, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["program"])
    monkeypatch.setattr(cli, "_parse", lambda *argv: None)
    with pytest.raises(SystemExit) as caught:
        cli.launch(main)
    return caught.value.code, capfd.readouterr().err


def test_done_is_0_and_a_users_error_is_2(monkeypatch, capfd):
    assert outcome(lambda: None, monkeypatch, capfd) == (0, "")

    def wrong():
        raise cli.UserError("two\nlines")

    assert outcome(wrong, monkeypatch, capfd) == (2, "error: two lines\n")


STOPPED = """
import atexit, signal, sys
from tds_jax import cli
atexit.register(print, "Python's own end, which may crash")
sys.argv = ["door"]
cli.launch(lambda: signal.raise_signal(signal.%s))
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_door_that_was_stopped_ends_at_once(name, status):
    """Python's own end waits for threads that compile, up to half a minute."""
    command = [sys.executable, "-c", STOPPED % name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "")


def test_names_that_the_output_cannot_spell_are_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["door"])
    with pytest.raises(SystemExit) as stop:
        cli.launch(lambda: print("für", os.fsdecode(b"\xff")))
    assert stop.value.code == 0
    assert written.getvalue() == b"f\\xfcr \\udcff\n"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "give the same command again"),
        (errno.ESTALE, "give the same command again"),
        (errno.EMFILE, "raise the limit (ulimit -n 4096), or lower data.max_open_files"),
    ],
)
def test_a_drive_that_fails_is_one_line(monkeypatch, capfd, number, remedy):
    def read():
        raise OSError(number, os.strerror(number), "a.hdf5")

    expected = f"error: a.hdf5: {os.strerror(number)}; {remedy}"
    code, text = outcome(read, monkeypatch, capfd)
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(expected)


def test_a_place_that_cannot_be_written_is_one_line(monkeypatch, capfd, tmp_path):
    file = tmp_path / "file"
    file.touch()
    code, text = outcome(lambda: (file / "runs").mkdir(), monkeypatch, capfd)
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(f"error: {file}/runs: Not a directory; name another place")


def test_a_file_to_write_is_no_folder_and_has_one(tmp_path):
    with pytest.raises(cli.UserError, match=r"--json=.* is a folder; name a file in it"):
        cli.require_writable("--json", str(tmp_path))
    with pytest.raises(cli.UserError, match="its folder does not exist"):
        cli.require_writable("--json", str(tmp_path / "none" / "a.json"))
    cli.require_writable("--json", str(tmp_path / "a.json"))
    with pytest.raises(cli.UserError, match=r"--json=/proc/a\.json: /proc cannot be written \(No"):
        cli.require_writable("--json", "/proc/a.json")  # before the work, not after it
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_that_names_the_file(monkeypatch, capfd, tmp_path, full_disk):
    path = tmp_path / "a.json"

    def writes():
        with full_disk(1000):
            json_file.write(path, "x" * 2000)

    assert outcome(writes, monkeypatch, capfd) == (
        2,
        f"error: {path}: File too large; name another place or make room for it\n",
    )


def test_anything_else_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_parse", lambda *argv: None)
    with pytest.raises(ZeroDivisionError):
        cli.launch(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/low_memory.py"], "runs/low_memory"),
        (["-config=low_memory.py:variant"], "runs/low_memory"),
        (["--config", "configs/low_memory.py"], "runs/low_memory"),
        (["--config.optim.steps=3", "--config=a/b.py"], "runs/b"),
    ],
)
def test_the_default_workdir_is_the_configs_name(monkeypatch, arguments, expected):
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    assert cli.default_workdir() == Path(expected)


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_the_users_own_allocator_settings_win(monkeypatch, fraction):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "mine")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "mine")
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    cli._set_allocator(False, fraction)
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "mine"
    assert "XLA_CLIENT_MEM_FRACTION" not in os.environ


@functools.cache
def imports():
    """[(file below tds_jax, imported module)] of every import statement, nested ones too."""
    return list(_imports())


def _imports():
    for path in sorted((ROOT / "tds_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = path.relative_to(ROOT / "tds_jax")
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


def importers(package):
    """Files that import a package."""
    return {str(file) for file, name in imports() if name.split(".")[0] == package}


def test_only_checkpoint_imports_orbax():
    assert importers("orbax") == {"engine/checkpoint.py"}


@pytest.mark.parametrize("package", ["grain", "h5py"])
def test_only_data_imports_grain_and_h5py(package):
    files = importers(package)
    assert files
    assert all(file.startswith("data/") for file in files), files


def test_shared_code_imports_no_domain_and_domains_not_each_other():
    for file, name in imports():
        parts = name.split(".")
        if parts[0] != "tds_jax" or parts[1] not in DOMAINS:
            continue
        assert file.parts[0] not in ("engine", "nn", "data"), f"{file} imports {name}"
        assert file.parts[0] not in DOMAINS - {parts[1]}, f"{file} imports {name}"


def test_jax_stays_out_of_what_data_workers_import_again():
    code = (
        "import multiprocessing, sys; "
        "multiprocessing.current_process().name = 'grain-process-prefetch-0'; "
        "import runpy; runpy.run_module('tds_jax.train', run_name='__mp_main__'); "
        "print(sys.modules['jax'], {'orbax', 'flax', 'optax', 'jaxlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "None set()\n", done.stderr


def test_a_setting_that_is_given_again_is_what_it_was_given_last():
    words = ["train", "--config=a", "--config.model.groups=(8,)", "--workdir", "x"]
    assert cli.last_of_each(words) == words
    again = [*words, "--config.seed", "3", "--config.model.groups=(4,)", "--config.seed", "4"]
    kept = [word for word in words if "groups" not in word]
    assert cli.last_of_each(again) == [
        *kept, "--config.model.groups=(4,)", "--config.seed", "4"
    ]  # fmt: skip


def test_a_tuple_that_is_given_twice_is_the_last(monkeypatch):
    own, words = flags.FlagValues(), ["train", "--config.groups=(8,)", "--config.groups=(4, 2)"]
    monkeypatch.setattr(sys, "argv", words)  # where ml_collections looks for settings
    values = ConfigDict({"groups": (1,)})
    config_flags.DEFINE_config_dict("config", values, flag_values=own)
    monkeypatch.setattr(cli.flags, "FLAGS", own)
    assert cli._read_flags(words) == ["train"]
    assert own.config.groups == (4, 2)


@pytest.mark.parametrize("module", ["tds_jax", "tds_jax.plan"])
def test_a_reader_that_has_gone_is_no_error(module):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
