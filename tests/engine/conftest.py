"""The same programs are compiled again and again by these tests: once is enough."""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def _compile_once(tmp_path_factory):
    changes = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for name, value in changes.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
