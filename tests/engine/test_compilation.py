"""The folder of compiled programs: where it is, and what is said where it cannot be."""

import os
import subprocess
import sys

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
