"""Two CPU devices for every test; no silent broadcasting over missing axes; compile once.

Many tests compile the same programs, also in doors that they start: a folder keeps them until the
run of the tests ends. Compiling is most of the work, so programs are not optimised, which takes a
third less of it, and not made by XLA's fusion emitters, which takes two thirds less of what is left
(of a small run 0.9 instead of 2.8 s of CPU), but in modules marked `optimised`: they hold the laws
of numbers that a compiler could break (accumulation, checkpoints, recomputation), as users compile.
JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests everything so.

Intervals are of 100 draws, not of 1000, but in the module of their own, marked `every_draw`.

A door reads the bytecode that the first of them has left: without it, each begins with 1.4 s more.

Hypothesis draws the same examples in every run; HYPOTHESIS_PROFILE=search draws others, and more.
"""

import atexit
import collections
import contextlib
import gc
import os
import resource
import shutil
import sys
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2")
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A process ends at an option that it does not know: jaxlib of other versions is not asked.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the one that starts them
    _COMPILED = tempfile.mkdtemp(prefix="tds_jax_compiled_")
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jax
import pytest
from absl import flags
from hypothesis import settings
from jax._src import compiler

from tds_jax.engine import intervals
from tds_jax.news import only_news

UNOPTIMISED = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
EMITTERS = "xla_cpu_use_fusion_emitters"
PLAIN = f"{EMITTERS}=false" in os.environ["XLA_FLAGS"]
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
settings.register_profile("suite", max_examples=60, derandomize=True, deadline=None, database=None)
settings.register_profile("search", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
os.fsync = lambda descriptor: None  # thousands of files, and no machine that fails
if not flags.FLAGS.is_parsed():  # grain reads absl flags when it starts workers
    flags.FLAGS.mark_as_parsed()


def pytest_collection_modifyitems(items):
    """Slow files first, then those of many tests: whole files go to workers, in this order, and
    one that takes a minute must not begin when the other worker has finished."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    count = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -count[item.path]))


def pytest_collection_finish():
    """Tracing makes objects by the million, whose cycles Python looks for among all that modules
    hold. Here it leaves these out, and looks less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def with_emitters(*args, options=compiler.get_compile_options, **named):
    """jax's compile options, with the fusion emitters that the environment has turned off."""
    asked = named.pop("env_options_overrides", None) or {}
    return options(*args, env_options_overrides={EMITTERS: True} | asked, **named)


@pytest.fixture(autouse=True, scope="module")
def compiled_as_the_module_says(request):
    """Programs of a module marked `optimised` are compiled as users' are, and only by it."""
    if request.node.get_closest_marker("optimised") is None:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # the setting is no part of what jit remembers a program by
    with pytest.MonkeyPatch.context() as patch:
        if PLAIN:
            patch.setattr(compiler, "get_compile_options", with_emitters)
        yield
    jax.config.update("jax_disable_most_optimizations", UNOPTIMISED)
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def as_many_draws_as_the_module_says(request):
    """A thousand take most of a small evaluation; a module marked `every_draw` has them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("every_draw") is None:
            patch.setattr(intervals, "DRAWS", 100)
        yield


@pytest.fixture
def full_disk():
    """full_disk(bytes): a block in which no file can grow beyond that."""

    @contextlib.contextmanager
    def limited(largest):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def said(monkeypatch, caplog):
    """What would have been said: by loggers, and of errors that nobody can catch."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: unraisable.append(repr(it.exc_value)))
    only_news()
    return lambda: [*unraisable, *(record.getMessage() for record in caplog.records)]
