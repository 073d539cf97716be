"""The folder of compiled programs: where it is, and what is said where it cannot be."""

import jax
import pytest

from tds_jax.engine import compilation
from tds_jax.errors import UserError


@pytest.fixture(autouse=True)
def setting():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


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
