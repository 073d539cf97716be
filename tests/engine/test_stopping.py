"""The rules of stopping early, and of stopping when told to."""

import functools
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from tds_jax.engine import stopping
from tds_jax.engine.stopping import EarlyStopping, StopError, StopSignal


def observe(scores, min_delta=0.0, patience=2):
    return functools.reduce(EarlyStopping.observe, scores, EarlyStopping(min_delta, patience))


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ([], False),
        ([3, 2, 1, 0], False),
        ([1, 2], False),
        ([1, 2, 2], True),
        ([1, 2, 0.5, 2], False),
        ([1, 1, 1], True),  # equal is no improvement
        ([1, math.nan, math.nan], True),
        ([math.inf, math.inf], True),
    ],
)
def test_it_stops_after_patience_evaluations_without_improvement(scores, stops):
    assert observe(scores).stop is stops


def test_patience_zero_never_stops():
    assert not observe([1] * 100, patience=0).stop


def test_improvements_within_min_delta_do_not_count_but_add_up():
    state = observe([1.0, 0.95, 0.91], min_delta=0.1)
    assert (state.best, state.bad, state.last) == (1.0, 2, 0.91)
    assert observe([1.0, 0.95, 0.89], min_delta=0.1).best == 0.89


def test_an_improvement_starts_the_count_anew():
    assert observe([1, 2, 0.5]).bad == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_ctrl_c_interrupts_and_a_second_sigterm_does_not():
    with StopSignal():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_leaves_nothing_to_save_is_ended_at_once(number):
    with StopSignal() as stop:
        with pytest.raises(StopError), stop.raising():
            signal.raise_signal(number)
        with pytest.raises(StopError), stop.raising():
            raise AssertionError("it began although a signal had come")


class Garbage:
    """A cycle, so that only the collector frees it."""

    def __init__(self):
        self.myself = self


def in_a_finalizer(signalled):
    Garbage.__del__ = lambda self: signalled()
    Garbage()
    gc.collect()
    del Garbage.__del__


def in_a_weak_reference(signalled):
    thing = Garbage()
    kept = weakref.ref(thing, lambda _: signalled())
    del thing
    gc.collect()
    assert kept() is None


def in_a_callback_of_the_collector(signalled):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signalled()

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "where", [in_a_finalizer, in_a_weak_reference, in_a_callback_of_the_collector]
)
def test_a_signal_that_comes_where_python_drops_errors_ends_such_work_too(
    number, where, capfd, monkeypatch
):
    # Of a large heap and on a busy machine a collection is native code for longer than that.
    monkeypatch.setattr(stopping, "GRACE", 60.0)
    dropped = []

    def signalled():
        dropped.append(number)
        signal.raise_signal(number)

    def work():
        where(signalled)
        threading.Event().wait(10)

    with StopSignal() as stop, pytest.raises(StopError), stop.raising():
        work()
    assert stop
    assert dropped == [number]
    assert "Traceback" not in capfd.readouterr().err


def test_other_errors_that_python_drops_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fail():
        raise ValueError("mine")

    with StopSignal() as stop, stop.raising():
        in_a_finalizer(fail)
    assert [lost.exc_type for lost in told] == [ValueError]
    assert sys.unraisablehook == told.append


def test_a_dropped_signal_does_not_come_after_the_end(monkeypatch):
    monkeypatch.setattr(stopping, "AGAIN", 0.2)

    class Ends:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with StopSignal() as stop, stop.raising():
        Ends()  # and gone
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    threading.Event().wait(0.4)
    signal.signal(signal.SIGTERM, before)
    assert not came


def test_outside_such_work_a_signal_waits():
    with StopSignal() as stop:
        with stop.raising():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop


NATIVE = """
import hashlib, threading
from tds_jax.engine import stopping
stopping.GRACE = %s
with stopping.StopSignal() as stop, stop.raising(lambda: print("finished")):
    threading.Timer(0.5, print, ["busy"], {"flush": True}).start()  # hashing by then
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**31 - 1)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_native_code_does_not_keep_a_signal_waiting(number, status):
    command, pipe = [sys.executable, "-c", NATIVE % 0.2], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        try:
            words, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == status
    assert words.startswith("finished\nstopped; what was saved stays")


def test_native_code_does_not_keep_its_acknowledgement_waiting():
    command, pipe = [sys.executable, "-c", NATIVE % 3600], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        timer = threading.Timer(20, process.kill)
        timer.start()
        assert process.stderr.readline() == "Ctrl-C: stopping\n"
        process.kill()
        timer.cancel()


def test_a_signal_is_answered_once_and_by_what_comes_first(capfd, monkeypatch):
    monkeypatch.setattr(stopping, "GRACE", 0.0)
    with StopSignal(meanwhile=", all is saved") as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop
    stop._watcher.join()
    assert capfd.readouterr().err == "SIGTERM: stopping, all is saved\n"


def test_other_doors_clear_away_what_they_write():
    cleared, before = [], signal.getsignal(signal.SIGTERM)

    def write():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleared.append(True)

    with pytest.raises(StopError), StopSignal() as stop, stop.raising():
        write()
    assert cleared
    assert signal.getsignal(signal.SIGTERM) == before
