"""One writer per folder, and no lock that a person must remove."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading

import pytest

from tds_jax.engine import lock
from tds_jax.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from tds_jax.engine import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def hold(folder):
    with lock.held(folder):
        return json.loads((folder / lock.LOCK).read_text())


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path, other):
    words = rf"is being written by process {other.pid} on {platform.node()}; "
    with pytest.raises(UserError, match=words):
        hold(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_needs_no_person(tmp_path, other, number):
    other.send_signal(number)
    other.wait()
    assert hold(tmp_path) == {"host": platform.node(), "process": os.getpid()}


def test_a_lock_may_be_taken_again_and_in_a_new_folder(tmp_path):
    assert hold(tmp_path / "new") == hold(tmp_path / "new")
    assert (tmp_path / "new" / lock.LOCK).read_text() == ""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder last held by another host, and short beats."""
    monkeypatch.setattr(lock, "BEAT", 0.05)
    (tmp_path / lock.LOCK).write_text(json.dumps({"host": "elsewhere", "process": 7}))
    return tmp_path


def test_a_holder_goes_on_touching_its_file_after_a_touch_that_failed(tmp_path, monkeypatch):
    touched, twice, utime = [], threading.Event(), os.utime

    def fails_once(*args):
        touched.append(args)
        if len(touched) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        utime(*args)
        twice.set()

    monkeypatch.setattr(lock, "BEAT", 0.01)
    monkeypatch.setattr(os, "utime", fails_once)
    with lock.held(tmp_path):
        assert twice.wait(10)


def test_a_silent_holder_on_another_host_is_dead(elsewhere):
    assert hold(elsewhere)["host"] == platform.node()


def test_a_holder_on_another_host_that_touches_its_file_lives(elsewhere):
    stop = threading.Event()
    with (elsewhere / lock.LOCK).open("a") as file:
        beating = threading.Thread(target=lock._beat, args=(file, stop))
        beating.start()
        with pytest.raises(UserError, match="process 7 on elsewhere"):
            hold(elsewhere)
        stop.set()
        beating.join()


def test_a_file_system_without_locks_is_judged_by_age(tmp_path, monkeypatch, elsewhere):
    def refuse(file, how):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert hold(elsewhere)["process"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_lock_file_that_says_nothing_is_free(tmp_path, text):
    (tmp_path / lock.LOCK).write_text(text)
    assert hold(tmp_path)["process"] == os.getpid()


def test_a_full_disk_is_told_by_the_lock_that_found_it(tmp_path, full_disk):
    def take():
        with lock.held(tmp_path):
            raise AssertionError("held by nothing")

    with full_disk(0), pytest.raises(OSError) as caught:
        take()
    assert caught.value.filename == str(tmp_path / ".lock")
