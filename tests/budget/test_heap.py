"""A program that asks for huge pages starts anew with them, once, and keeps its arguments."""

import os
import subprocess
import sys

import pytest

from tds_jax.budget import heap

CODE = """
import os, sys
from tds_jax.budget import heap
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


def test_malloc_keeps_small_pages_where_a_card_holds_the_step(tmp_path, monkeypatch):
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never")
    monkeypatch.setattr(heap, "_HUGE_PAGES", pages)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(heap.cards, "present", lambda: True)
    heap.use_huge_pages()
    assert started == []
    monkeypatch.setattr(heap.cards, "present", lambda: False)
    monkeypatch.setenv("GLIBC_TUNABLES", "to be put back")
    monkeypatch.delenv("GLIBC_TUNABLES")
    heap.use_huge_pages()
    assert len(started) == 1


def test_the_users_own_number_of_arenas_wins(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: 1 / 0)
    heap.limit_arenas()
