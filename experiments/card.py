"""What a card shows: speed, launches, bytes, seconds of compiling, and whether a run repeats.

    python -m experiments.card [--json FILE] [--only NAME ...] [--seconds 460] [--together 4]

Every case is a process of its own, so that a failure costs its rows alone; the largest questions
come first, up to four at a time on the one card. Times are therefore upper bounds, bytes are exact;
--only=NAME --together=1 measures one case alone. Programs stay in runs/card, so that a second call
compiles little: its starts are warm. Whatever has not been run before the seconds are over is said
to be not measured, and so is on CPU, where the same code runs with small cases, what only a card
can tell.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import card_cases
from experiments.card_cases import FULL, ROOT, TRACKING
from experiments.kill_resume import SETTINGS

MISSING = "not measured"
CACHE = ROOT / "runs" / "card"
ANSWER = "answer: "
TITLES = {
    "product": "train, as a user runs it",
    "step": "updates on random numbers; bytes: predicted, measured (<=: something else took more)",
    "eager": "the same network in plain PyTorch",
    "repeats": "bit for bit?",
    "killed": "bit for bit?",
    "parity": "against f32 on CPU, relative",
    "width_conv": "the convolution of a TDS block, forward and backward",
    "volume_conv": "convolutions of volumes, forward and backward",
    "host": "host memory of a cold start of low_memory",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of card_cases and what it is called with. limit: seconds it may take."""

    kind: str
    name: str
    arguments: dict[str, Any]
    limit: float = 300.0


def product(preset: str, updates: int, more: dict[str, Any] | None = None, words: str = "") -> Case:
    """A preset trained for some updates, evaluated once on the way and at the end."""
    settings = {"optim.steps": updates, "optim.warmup_steps": 2, "eval.every": updates // 2}
    cache = str(CACHE / "products" / preset)
    made = {"preset": preset, "settings": settings | (more or {}), "cache": cache, "words": words}
    return Case("product", f"train {preset}", made)


def step(preset: str, note: str = "", **changes: Any) -> Case:
    """An update of a preset, with settings changed."""
    made = {"preset": preset, "changes": changes, "note": note, "cache": str(CACHE / "steps")}
    size = changes.get("optim__batch_size", "")
    return Case("step", f"step {preset} {size}".strip() + note, made)


def full(batch: int, note: str = "", **changes: Any) -> Case:
    """An update of the full-size network, which is step_vs_pytorch's."""
    return step(TRACKING, note, optim__batch_size=batch, **FULL, **changes)


def kernels() -> list[Case]:
    """The full-size step with the decoder's scan and with its kernel, if there is such a choice."""
    from experiments.measuring import load

    if not hasattr(load(TRACKING).model, "decoder_kernel"):
        return []
    return [full(64, f", decoder {kind}", model__decoder_kernel=kind) for kind in ("scan", "fused")]


def on_card(platform: str) -> list[Case]:
    """What is asked of a card, the largest questions first."""
    return [
        product("low_memory", 80),
        full(64),
        *kernels(),
        Case("eager", "eager", {"batch": 64, "device": platform}),
        step("low_memory"),
        step("low_memory", ", at once", optim__accumulate=1),
        Case("repeats", "repeats", {"platform": platform, "steps": 40}),
        Case("killed", "killed", {"platform": platform, "steps": 80, "kills": 3, "terms": 1}),
        product("quick_demo", 80),
        Case("parity", "parity", {"preset": TRACKING, "changes": {"optim__batch_size": 8} | FULL}),
        full(8),
        full(64, ", bf16", memory__dtype="bfloat16"),
        Case("width_conv", "width_conv", {"preset": "low_memory", "batch": 16}),
        Case("width_conv", "width_conv_full", {"preset": TRACKING, "batch": 8}),
        product("forecast_soil_moisture", 40),
        product("voxel_ultra", 40),
        step("voxel_ultra"),
        step("voxel_ultra", ", at once", optim__accumulate=1),
        Case("volume_conv", "volume_conv", {"batches": [1, 8]}),
        full(8, ", bf16", memory__dtype="bfloat16"),
        full(8, ", highest", memory__matmul_precision="highest"),
        step("quick_demo"),
        step("forecast_air_temperature"),
        *(
            full(64, f", repeats {how}", memory__deterministic=how)
            for how in ("run", "off")
        ),
        *(
            step("low_memory", f", repeats {how}", memory__deterministic=how)
            for how in ("run", "off")
        ),
        *(
            Case("host", f"host {n}", {"settings": {"optim.steps": 20, "optim.warmup_steps": 2},
                                       "environment": environment})
            for n, environment in enumerate(HOSTS)
        ),
    ]  # fmt: skip


HOSTS = (
    {},
    {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    {"MALLOC_ARENA_MAX": "16"},
    {"XLA_FLAGS": "--xla_gpu_force_compilation_parallelism=2"},
)


def on_cpu(platform: str) -> list[Case]:
    """The same code with small cases."""
    small = {name: value for name, value in SETTINGS.items() if name != "log.plots"}
    return [
        product("default", 20, small, ", tiny"),
        step("quick_demo"),
        step("quick_demo", ", bf16", memory__dtype="bfloat16", optim__batch_size=4),
        Case("width_conv", "width_conv", {"preset": "low_memory", "batch": 2}),
        Case("volume_conv", "volume_conv", {"batches": [1]}),
        Case("parity", "parity", {"preset": "quick_demo", "changes": {"optim__batch_size": 2}}),
        Case("eager", "eager", {"batch": 1, "device": platform}),
        Case("repeats", "repeats", {"platform": platform, "steps": 10}, limit=900),
        Case("killed", "killed", {"platform": platform, "steps": 45, "kills": 1, "terms": 1}, 900),
    ]


class Running:
    """A case's process, and what it has answered."""

    def __init__(self, case: Case) -> None:
        self.case, self.started = case, time.monotonic()
        (CACHE / "words").mkdir(parents=True, exist_ok=True)
        self._words = CACHE / "words" / f"{case.name.replace(' ', '_').replace(',', '')}.txt"
        command = [sys.executable, "-m", "experiments.card", "--case", json.dumps(
            {"kind": case.kind, "arguments": case.arguments})]  # fmt: skip
        # Several share the card.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with self._words.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )  # fmt: skip

    def over(self, end: float) -> bool:
        """Whether it has ended, if only because it took too long."""
        if self.process.poll() is None and time.monotonic() > min(
            end, self.started + self.case.limit
        ):
            end_all(self.process)
        return self.process.poll() is not None

    def rows(self) -> list[dict[str, Any]]:
        """Its rows; one that says why there are none."""
        text = self._words.read_text()
        answers = [line for line in text.splitlines() if line.startswith(ANSWER)]
        if answers and not self.process.returncode:
            return json.loads(answers[-1].removeprefix(ANSWER))
        killed = self.process.returncode == -signal.SIGKILL
        last = (text.strip().splitlines() or ["no word"])[-1][:160]
        return [{"case": self.case.name, "why": "out of time" if killed else last}]


def end_all(process: subprocess.Popen) -> None:
    """Kills a process and all below it, also those that lead groups of their own."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def campaign(cases: list[Case], seconds: float, together: int) -> dict[str, list[dict[str, Any]]]:
    """Kind -> rows of all its cases, in their order."""
    end = time.monotonic() + seconds
    waiting, running, done = list(cases), [], {}
    while waiting or running:
        while waiting and len(running) < together and time.monotonic() < end:
            running.append(Running(waiting.pop(0)))
        for one in [one for one in running if one.over(end)]:
            running.remove(one)
            done[one.case.name] = one.rows()
            print(f"{one.case.name}: {time.monotonic() - one.started:.0f} s", file=sys.stderr)
        if not running and time.monotonic() >= end:
            break
        time.sleep(0.2)
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        rows = done.get(case.name, [{"case": case.name, "why": "no time was left"}])
        found.setdefault(case.kind, []).extend(rows)
    return found


def shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def table(kind: str, rows: list[dict[str, Any]]) -> Table:
    """Rows under the union of their names; those that failed say why."""
    made = Table(title=f"{kind}: {TITLES[kind]}")
    names = list(dict.fromkeys(name for row in rows if "why" not in row for name in row))
    for name in names or ["case"]:
        made.add_column(escape(name), justify="right", overflow="fold")
    for row in rows:
        if "why" in row:
            made.add_row(escape(f"{row['case']}: {MISSING} ({row['why']})"))
        else:
            made.add_row(*(shown(row.get(name)) for name in names))
    return made


def device() -> tuple[str, str]:
    """(platform, kind) of what jax finds, asked in a process of its own: it would keep the card."""
    code = "import jax; d = jax.devices()[0]; print(jax.__version__, d.platform, d.device_kind)"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )  # fmt: skip
    version, platform, kind = made.stdout.strip().splitlines()[-1].split(" ", 2)
    return {"gpu": "cuda"}.get(platform, platform), f"{kind}, jax {version}"


def absent() -> list[str]:
    """What tds_jax depends on and is not installed; a machine with a card may have no network."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split("[<>=!~; ]", one)[0] for one in wanted if "< '3.12'" not in one]
    there = {one.name.lower().replace("_", "-") for one in importlib.metadata.distributions()}
    return [name for name in names if name not in there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="names or kinds of cases")
    parser.add_argument("--seconds", type=float, help="460 on a card, 2400 on CPU")
    parser.add_argument("--together", type=int, default=4)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = json.loads(options.case)
        rows = getattr(card_cases, case["kind"])(**case["arguments"])
        print(f"{ANSWER}{json.dumps(rows)}", flush=True)
        return
    if names := absent():
        print(f"not installed, cases that need them will fail: {', '.join(names)}", file=sys.stderr)
    platform, words = device()
    cases = on_cpu(platform) if platform == "cpu" else on_card(platform)
    chosen = [c for c in cases if not options.only or {c.name, c.kind} & set(options.only)]
    seconds, together = (2400, 1) if platform == "cpu" else (460, options.together)
    found = campaign(chosen, options.seconds or seconds, together)
    if options.json:
        options.json.write_text(json.dumps({"device": words, "tables": found}, indent=1))
    console = Console(width=170)
    console.print(words)
    for kind, rows in found.items():
        console.print(table(kind, rows))
    for kind in TITLES.keys() - found.keys():
        console.print(f"{kind}: {MISSING} here")


if __name__ == "__main__":
    main()
