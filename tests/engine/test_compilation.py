"""The folder of compiled programs: where it is, and what is said where it cannot be."""

import os
import subprocess
import sys
import zlib

import jax
import pytest

from tds_jax.config import REPEATS
from tds_jax.engine import compilation
from tds_jax.errors import UserError


@pytest.fixture(autouse=True)
def setting():
    names = ["compilation_cache_dir"]
    names += ["persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes"]
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_beside_the_workdir_or_where_asked_or_nowhere(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    compilation.keep_programs("off", tmp_path / "run")
    assert jax.config.jax_compilation_cache_dir == before
    compilation.keep_programs("auto", tmp_path / "runs" / "a")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "runs" / ".compiled")
    compilation.keep_programs(str(tmp_path / "x" / "y"), tmp_path / "run")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "x" / "y")
    assert not any((tmp_path / "x" / "y").iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    before = jax.config.jax_compilation_cache_dir
    with pytest.raises(UserError, match=r"cannot be written .*; name another folder, or off"):
        compilation.keep_programs(str(tmp_path / "file" / "cache"), tmp_path)
    assert jax.config.jax_compilation_cache_dir == before


def test_a_run_whose_parent_cannot_be_written_compiles_at_every_start(tmp_path, capsys):
    (tmp_path / ".compiled").write_text("")
    before = jax.config.jax_compilation_cache_dir
    compilation.keep_programs("auto", tmp_path / "run")
    assert jax.config.jax_compilation_cache_dir == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: memory.compile_cache=auto: ")


def test_small_programs_are_kept_too(tmp_path):
    compilation.keep_programs(str(tmp_path), tmp_path)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    assert jax.config.jax_persistent_cache_min_entry_size_bytes == 0


START = """
import jax, sys
from pathlib import Path
from tds_jax.engine import compilation
compilation.keep_programs(sys.argv[1], Path())
jax.block_until_ready(jax.jit(lambda x: 3 * x + 1)(1.0))
"""


def test_a_program_that_was_cut_short_is_compiled_anew_and_said_once(tmp_path):
    def started():
        command = [sys.executable, "-c", START, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stderr

    assert started() == ""
    for entry in tmp_path.glob("*-cache"):
        whole = entry.read_bytes()
        entry.write_bytes(whole[: len(whole) // 2])
    said = started()
    assert said.startswith("note: ")
    assert f"1 compiled program in {tmp_path} was cut short" in said
    assert len(said.splitlines()) == 1
    assert started() == ""
    assert entry.read_bytes()[:2] == whole[:2]
    assert len(entry.read_bytes()) > len(whole) // 2


def test_only_what_is_no_whole_program_is_deleted(tmp_path, capsys):
    whole = zlib.compress(b"a program")
    entries = {"whole": whole, "other": b"\x28\xb5 zstd", "cut": whole[:-1], "none": b""}
    entries |= {"zeros": bytes(100), "wrong": whole[:4] + b"?" + whole[5:]}
    for name, text in entries.items():
        (tmp_path / f"{name}-cache").write_bytes(text)
    (tmp_path / "theirs").write_text("")
    compilation.keep_programs(str(tmp_path), tmp_path)
    left = {path.name.removesuffix("-cache") for path in tmp_path.iterdir()}
    assert left == {"whole", "other", "theirs", compilation.LOOKED}
    assert capsys.readouterr().err.startswith("note: 4 compiled programs in ")


def test_a_program_is_looked_at_once(tmp_path, monkeypatch):
    (tmp_path / "old-cache").write_bytes(zlib.compress(b"a program"))
    os.utime(tmp_path / "old-cache", (1e9, 1e9))
    seen = []
    monkeypatch.setattr(compilation, "_is_whole", lambda entry: not seen.append(entry))
    for _ in range(2):
        compilation.keep_programs(str(tmp_path), tmp_path)
    assert len(seen) == 1


@pytest.fixture
def told(monkeypatch):
    """told(deterministic, XLA_FLAGS, whether there is a card's compiler): XLA_FLAGS afterwards."""

    def tell(deterministic, given="", compiler=True):
        monkeypatch.setenv("XLA_FLAGS", given)
        monkeypatch.setattr(compilation.cards, "has_compiler", lambda: compiler)
        compilation.tell_compiler(deterministic)
        return os.environ["XLA_FLAGS"]

    return tell


def test_a_cards_compiler_is_told_what_must_repeat(told):
    assert told("card", "--a=1") == "--a=1 --xla_gpu_deterministic_ops=true"
    assert told("run") == "--xla_gpu_exclude_nondeterministic_ops=true"
    assert told("off", "--a=1") == "--a=1"
    assert told("card", "--a=1", compiler=False) == "--a=1"
    mine = "--xla_gpu_deterministic_ops=false"
    assert told("card", mine) == mine


def test_xla_here_knows_every_flag(told):
    flags = " ".join({told(words) for words in REPEATS})
    code = "import jax; jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
