"""Bytes: XLA's account is arithmetic, and the host's meter counts what is held."""

import mmap
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.budget import heap, memory

MIB = 2**20


def compiled(f, *shapes, **options):
    specs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return memory.predict(jax.jit(f, **options).lower(*specs).compile())


def test_arguments_and_outputs_are_counted_byte_for_byte():
    found = compiled(lambda a, b: (a @ b, a.sum()), (64, 32), (32, 16))
    assert found.arguments == 4 * (64 * 32 + 32 * 16)
    # 16 B for the table of the two outputs
    assert 0 <= found.outputs - 4 * (64 * 16 + 1) <= 16
    assert found.scratch == 4 * 32 * (64 + 16)  # both sides of the product
    assert found.total == found.arguments + found.outputs + found.temporaries + found.scratch


def test_a_donated_argument_is_not_counted_twice():
    kept = compiled(lambda a: a + 1, (256, 256))
    donated = compiled(lambda a: a + 1, (256, 256), donate_argnums=0)
    assert kept.total - donated.total == 4 * 256 * 256


def test_temporaries_grow_with_what_a_backward_pass_keeps():
    def loss(w, x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, 50)[0].sum()

    small = compiled(jax.grad(loss), (64, 64), (8, 64)).temporaries
    large = compiled(jax.grad(loss), (64, 64), (64, 64)).temporaries
    kept = 50 * 56 * 64 * 4  # one carry of 56 more rows a step
    assert large - small >= kept


def test_host_bytes_count_pages_of_this_process_and_its_children():
    before = memory.host_bytes()
    block = np.frombuffer(mmap.mmap(-1, 64 * MIB), np.uint8)  # not of what malloc has in store
    block[:] = 1
    assert memory.host_bytes() - before > 60 * MIB
    code = "import sys; b = b'1' * (64 * 2**20); print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        child.stdout.readline()
        assert memory.host_bytes() - before > 120 * MIB
        child.stdin.close()
    del block


def test_the_meter_remembers_a_peak_that_is_gone():
    with memory.HostMeter(seconds=0.01) as meter:
        before = memory.host_bytes()
        block = np.ones(128 * MIB, np.uint8)
        time.sleep(0.3)
        del block
        heap.trim()
    assert meter.peak - before > 100 * MIB
    assert memory.host_bytes() < meter.peak - 50 * MIB


def test_the_cpu_keeps_no_device_peak():
    assert memory.device_peak() is None


def test_each_work_is_told_its_own_peak_or_that_it_took_no_more(monkeypatch):
    peaks = iter([10, 90, 90, 90, 95, 95])
    monkeypatch.setattr(memory, "device_peak", lambda: next(peaks))
    meter = memory.DeviceMeter()
    for work in ("compiling", "stepping", "evaluating", "stepping", "evaluating"):
        meter.note(work)
    assert meter.found == {
        "compiling": (90, True), "stepping": (95, True), "evaluating": (90, False),
    }  # fmt: skip
    assert meter.own("stepping") == 95
    assert meter.own("evaluating") is None
    assert meter.own("predicting") is None


def test_a_device_that_keeps_no_peak_is_told_nothing_of():
    meter = memory.DeviceMeter()
    meter.note("stepping")
    assert meter.found == {}
