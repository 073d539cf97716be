"""Host memory: what is left, what a run will take, what reading can give up."""

import psutil
import pytest

from tds_jax.budget import host
from tds_jax.config import LoaderConfig
from tds_jax.sizes import GIB, MIB


def loader(**changes):
    values = {"workers": 2, "threads": 2, "prefetch": 4, "persistent_workers": True}
    return LoaderConfig(**values | changes)


def test_without_a_limit_what_the_system_has_counts(tmp_path):
    free = psutil.virtual_memory().available
    assert host.available(tmp_path) == pytest.approx(free, rel=0.2)


@pytest.mark.parametrize(
    ("limit", "use", "cache"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_a_container_counts_with_the_file_cache_it_can_drop(tmp_path, limit, use, cache):
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text(f"{100 * MIB}\n")
    (tmp_path / use).write_text(f"{90 * MIB}\n")
    (tmp_path / use).with_name("memory.stat").write_text(f"anon 1\n{cache} {30 * MIB}\n")
    assert host.available(tmp_path) == 40 * MIB


@pytest.mark.parametrize("limited", ["job_7/step_0", "job_7", ""])
@pytest.mark.parametrize(
    ("line", "mounted", "limit", "use", "cache"),
    [
        ("0::/job_7/step_0", "", "memory.max", "memory.current", "inactive_file"),
        (
            "5:cpuset,memory:/job_7/step_0",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_the_least_room_of_a_processs_groups_and_of_those_above_counts(
    tmp_path, line, mounted, limit, use, cache, limited
):
    """As a cluster's jobs have it: the limit may stand on the step, the job or the mount."""
    for folder in ("job_7/step_0", "job_7", "", "job_8"):
        group = tmp_path / "fs" / mounted / folder
        group.mkdir(parents=True, exist_ok=True)
        room = {limited: 40, "job_8": 1}.get(folder, 50)
        (group / limit).write_text(f"{(30 + room) * MIB}\n")
        (group / use).write_text(f"{35 * MIB}\n")
        (group / "memory.stat").write_text(f"{cache} {5 * MIB}\n")
    own = tmp_path / "cgroup"
    own.write_text(f"1:name=systemd:/job_8\n{line}\n")
    assert host.available(tmp_path / "fs", own) == 40 * MIB


def test_a_container_without_a_limit_is_no_limit(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert host.available(tmp_path) > 5 * MIB


def test_the_peak_is_compiling_or_training_not_both():
    sizes = {"batch": 10 * MIB, "runtime": 200 * MIB}
    one = host.predict(loader(), device=100 * MIB, compiling=500 * MIB, **sizes)
    assert one.total == 700 * MIB
    two = host.predict(loader(), device=1 * GIB, compiling=500 * MIB, **sizes)
    reading = 2 * host.WORKER + 2 * 4 * 10 * MIB
    assert two.total == 200 * MIB + 1 * GIB + reading


def test_reading_gives_up_batches_ahead_before_processes_and_ends():
    steps, data = [], loader()
    while (data := host.smaller(data)) is not None:
        steps.append((data.prefetch, data.workers))
    assert steps == [(2, 2), (1, 2), (1, 1), (1, 0)]
