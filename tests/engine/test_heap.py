"""A program that asks for huge pages starts anew with them, once, and keeps its arguments."""

import os
import subprocess
import sys

import pytest

from tds_jax.engine import heap

CODE = """
import os, sys
from tds_jax.engine import heap
heap.use_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def run(**settings):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | settings
    command = [sys.executable, "-c", CODE, "--name=a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split(" ", 1)


def test_the_second_start_has_huge_pages_and_the_same_arguments():
    if not heap._HUGE_PAGES.exists() or "[madvise]" not in heap._HUGE_PAGES.read_text():
        pytest.skip("this system gives huge pages always or never")
    tunables, rest = run()
    assert tunables == "glibc.malloc.hugetlb=1"
    assert rest.strip() == "['--name=a b']"


def test_a_setting_of_the_users_wins():
    assert run(GLIBC_TUNABLES="glibc.malloc.hugetlb=0")[0] == "glibc.malloc.hugetlb=0"


KEEP = """
import ctypes, resource, sys
from tds_jax.engine import heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "keep":
    heap.keep()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64_000_000)
    ctypes.memset(block, 1, 64_000_000)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_is_kept_is_not_asked_for_again():
    def faults(how):
        command = [sys.executable, "-c", KEEP, how]
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    if faults("give back") < 10_000:
        pytest.skip("this system's malloc keeps 64 MB blocks anyway")
    assert faults("keep") < 500  # 64 MB are 15 625 pages
