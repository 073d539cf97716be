"""What a card is asked, and how its answers are read; nothing here needs one."""

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from experiments import card, card_cases
from experiments.measuring import load

LINES = [
    {"step": 10, "examples": 640, "split": "train", "perf/time": 131.0, "perf/samples_per_s": 64.0},
    {"step": 20, "examples": 1280, "split": "train", "perf/samples_per_s": 500.0},
    {"step": 20, "examples": 1280, "split": "val"},
    {"step": 30, "examples": 1920, "split": "train", "perf/samples_per_s": 700.0},
]
OUTPUT = """a step needs 83 MiB on the device (predicted; compiled in 48 s)
host peak 1.21 GiB measured (all processes)
device, compiling: 180 MiB measured
device, stepping: 83 MiB predicted, at most 180 MiB measured
"""


def test_a_runs_speed_and_bytes_are_read_from_what_it_says():
    waits = {10: 0.9, 20: 0.1, 30: 0.3}
    lines = [line | {"perf/input_wait": waits[line["step"]]} for line in LINES]
    found = card_cases.told(OUTPUT, "\n".join(map(json.dumps, lines)), began=100.0)
    assert found == {
        "first update [s]": 131 - 100 - 640 / 64,
        "compiled [s]": 48,
        "windows/s": 600.0,
        "input wait": pytest.approx(0.2),
        "host peak": "1.21 GiB",
        "device": "compiling: 180 MiB measured; "
        "stepping: 83 MiB predicted, at most 180 MiB measured",
    }


def test_distances_are_relative_to_the_loss_and_to_norms():
    want = (2.0, {"a": np.array([3.0, 4.0]), "b": np.array([12.0])})
    found = (1.0, {"a": np.array([3.0, 5.0]), "b": np.array([12.0])})
    away = card_cases.distance(found, want)
    assert away == pytest.approx({"loss": 0.5, "gradients": 1 / 13, "worst gradient": 0.2})


def test_a_case_that_fails_costs_its_own_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(card, "CACHE", tmp_path)
    read = {"text": OUTPUT, "metrics": json.dumps(LINES[0]), "began": 0.0}
    cases = [card.Case("absent", "absent", {}), card.Case("told", "broken", read)]
    found = card.campaign(cases, seconds=60, together=2)
    assert "no attribute 'absent'" in found["absent"][0]["why"]
    assert "no mean" in found["told"][0]["why"] or "no median" in found["told"][0]["why"]
    assert card.campaign(cases, seconds=0, together=2)["told"] == [
        {"case": "broken", "why": "no time was left"}
    ]


def test_what_is_not_known_is_said_to_be_not_measured():
    assert card.shown(None) == "not measured"
    assert card.shown(0.01234) == "0.0123"
    assert card.shown(12345.6) == "12,346"


def test_every_case_is_a_function_and_takes_what_it_is_given():
    both = card.on_card("cuda"), card.on_cpu("cpu")
    for case in itertools.chain(*both):
        function = getattr(card_cases, case.kind)
        taken = set(function.__code__.co_varnames[: function.__code__.co_argcount])
        assert set(case.arguments) <= taken
        assert case.kind in card.TITLES
        json.dumps(case.arguments)
    for cases in both:  # their rows are kept by their names
        assert len({case.name for case in cases}) == len(cases)


def test_what_a_card_is_asked_names_presets_and_settings_of_today_and_no_file():
    """A machine with a card may have neither network nor recordings."""
    generated = {"swvl1", "ro", "e", "tp"}
    for case in card.on_card("cuda"):
        if "preset" in case.arguments:
            config = load(case.arguments["preset"], **case.arguments.get("changes", {}))
        if case.kind == "product":
            assert config.data.path == ""
            assert config.task != "forecast" or set(config.data.variables) <= generated


def test_a_case_that_takes_too_long_is_ended_with_all_below_it():
    code = "import subprocess, sys; subprocess.run(['sleep', '60'], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (below := psutil.Process(process.pid).children()):
        time.sleep(0.01)
    card.end_all(process)
    assert process.returncode == -signal.SIGKILL
    gone, alive = psutil.wait_procs(below, timeout=10)
    assert gone
    assert not alive
