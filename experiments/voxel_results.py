"""Does what samples beat what answers once, and that the linear one, on unseen streets?

    python -m experiments.voxel_results [--seeds=1] [--folder=runs/voxel_results] [--all]
        [--at_once=2]

Trains the chain of configs/voxel_*.py on generated streets through the doors, each run as soon as
those are done that it needs, two at once: what answers once, of one radar sweep and of four,
samples of the cells around the latter, and their student; with --all, too, what answers once and
has learned for longer, samples around that, samples around the answer of one sweep, the
autoencoders, samples of latents and their students. Prints every method's numbers on the test split
with their 95 % intervals over streets, the lines of who beats whom, how far what a run is beside
lies from it, and the numbers of before (other streets: without ghosts in walls and echoes from
under vehicles, an older chain). A run that is done is not done again: the same command goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from tds_jax.engine.report import AGAINST_MODEL

METRICS = ("iou", "chamfer_m", "bev_iou", "count_ratio", "pattern_jsd", "ece")
METRICS += ("sample_iou", "best_iou", "diversity", "intensity_mae")
PAIRED = ("iou", "chamfer_m", "bev_iou", "pattern_jsd")
SWEEPS = {"data.sweeps": 4}
# (name, config, what of it is shown, settings), in the order in which runs begin: after those that
# they need. What nobody waits for begins when its core would else wait.
CHAIN = (
    ("direct_4_sweeps", "voxel_direct", ("model", "linear"), SWEEPS),
    ("folded_4_sweeps", "voxel_folded", ("model", "direct"),
     {"model.direct": "direct_4_sweeps", **SWEEPS}),
    ("direct", "voxel_direct", ("model", "linear", "radar", "radar_dilated", "prior"), {}),
    ("folded_4_sweeps_consistency", "voxel_folded_consistency", ("model", "teacher"),
     {"model.teacher": "folded_4_sweeps", "model.direct": "direct_4_sweeps", **SWEEPS}),
)  # fmt: skip
OTHERS = (
    ("direct_4_sweeps_longer", "voxel_direct", ("model",), {"optim.steps": 700, **SWEEPS}),
    ("folded_4_sweeps_longer", "voxel_folded", ("model", "direct"),
     {"model.direct": "direct_4_sweeps_longer", "optim.steps": 400, **SWEEPS}),
    ("folded", "voxel_folded", ("model", "direct"), {"model.direct": "direct"}),
    ("folded_consistency", "voxel_folded_consistency", ("model", "teacher"),
     {"model.teacher": "folded", "model.direct": "direct"}),
    ("ultra", "voxel_ultra", ("model",), {}),
    ("vqvae", "voxel_vqvae", ("model",), {}),
    ("diffusion", "voxel_diffusion", ("model", "sample", "direct"),
     {"model.autoencoder": "ultra", "model.direct": "direct"}),
    ("consistency", "voxel_consistency", ("model", "sample", "1_step", "2_steps", "teacher"),
     {"model.teacher": "diffusion", "model.direct": "direct"}),
)  # fmt: skip
SHOWN = {name: shown for name, _, shown, _ in (*CHAIN, *OTHERS)}
STUDENTS = ("folded_4_sweeps_consistency", "folded_consistency", "consistency")
BESIDE = ("linear", "direct", "teacher")
FOLDERS = ("model.autoencoder", "model.direct", "model.teacher")
# Of the streets before: README of November 2026; the regression is a reviewer's, of 189 terms.
BEFORE = {
    "VAE": {"iou": 0.776, "chamfer_m": 0.29},
    "linear (189 terms)": {"iou": 0.499, "chamfer_m": 0.93},
    "diffusion, one sample": {"iou": 0.398, "chamfer_m": 1.16, "bev_iou": 0.458},
    "consistency, 4 steps": {"iou": 0.413, "chamfer_m": 1.11, "bev_iou": 0.465},
    "radar": {"iou": 0.272, "chamfer_m": 1.52, "bev_iou": 0.520},
}

Reports = dict[str, list[dict]]
"""Run -> its report of the test split, seed by seed."""


def trained(folder: Path, name: str, config: str, settings: dict, seed: int) -> dict:
    """The report of the test split of one run, which is trained unless it is there."""
    workdir = folder / f"seed{seed}" / name
    if not (workdir / "report.json").exists():
        flags = [f"--config.{key}={value}" for key, value in settings.items()]
        command = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{config}.py", *flags]
        started = time.perf_counter()
        subprocess.run(
            [*command, f"--config.seed={seed}", f"--workdir={workdir}"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        print(f"{workdir}: {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)
    return json.loads((workdir / "report.json").read_text())


def reports(folder: Path, seeds: int, chain: tuple, extra: dict, at_once: int) -> Reports:
    """Reports of a whole chain."""
    begun: dict[tuple[str, int], Future] = {}

    def run(name: str, config: str, settings: dict, seed: int) -> dict:
        needed = {key: value for key, value in settings.items() if key in FOLDERS}
        for other in needed.values():  # begun before this one: none waits for what has no thread
            begun[other, seed].result()
        placed = {key: str(folder / f"seed{seed}" / other) for key, other in needed.items()}
        return trained(folder, name, config, settings | placed | extra, seed)

    with ThreadPoolExecutor(at_once) as pool:
        for seed in range(seeds):
            for name, config, _, settings in chain:
                begun[name, seed] = pool.submit(run, name, config, settings, seed)
    each = range(seeds)
    return {name: [begun[name, seed].result() for seed in each] for name, *_ in chain}


def codes_in_use(workdir: Path) -> float:
    """How many codes of a VQ-VAE are in use, by its last look at validation."""
    looks = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [look["perplexity"] for look in looks if look["split"] == "val"][-1]


def rows(found: Reports) -> Iterator[tuple[str, list[dict]]]:
    """(what is shown, {metric: value} seed by seed)."""
    for name, runs in found.items():
        for method in SHOWN[name]:
            label = name if method == "model" else f"{name}: {method}"
            each = [report["splits"]["test"] for report in runs]
            yield label, [one["model"] if method == "model" else one["baselines"][method]
                          for one in each]  # fmt: skip


def cell(values: list[dict], metric: str) -> str:
    """The mean over seeds, their standard deviation if there are several, and the first's
    interval."""
    known = [one[metric] for one in values if one.get(metric) is not None]
    if not known:
        return ""
    digits = ".4f" if metric == "pattern_jsd" else ".3f"  # some thousandths apart
    spread = f" ± {statistics.stdev(known):{digits}}" if len(known) > 1 else ""
    lines = (f"{statistics.mean(known):{digits}}{spread}", ends(values[0], metric, digits))
    return "\n".join(filter(None, lines))


def ends(values: dict, metric: str, digits: str = ".3f") -> str:
    """'0.425..0.477', a metric's interval; '' where there is none."""
    low, high = (values.get(f"{metric}_{end}") for end in ("low", "high"))
    return "" if low is None else f"{low:{digits}}..{high:{digits}}"


def apart(report: dict, method: str) -> str:
    """'iou -0.060..-0.038, …': 95 % intervals of a method less the model, street by street."""
    lies = report["splits"]["test"]["groups"][AGAINST_MODEL]["baselines"][method]
    return ", ".join(f"{metric} {ends(lies, metric, '.3g')}" for metric in PAIRED)


def show(found: Reports) -> None:
    """Prints the tables."""
    console = Console(width=180)
    table = Table(
        Column("run", min_width=27),
        *METRICS,
        title="unseen streets; below: 95 % interval over them",
    )
    for label, values in rows(found):
        table.add_row(label, *(cell(values, metric) for metric in METRICS))
    console.print(table)
    before = Table("before", *METRICS[:3], title="on the streets of before")
    for label, values in BEFORE.items():
        before.add_row(label, *(f"{values[m]:.3f}" if m in values else "" for m in METRICS[:3]))
    console.print(before)
    for name, each in found.items():
        for line in each[0]["shown"]["test"]["verdict"]:
            console.print(f"{name}: {line}", highlight=False)
    for name, each in found.items():
        known = each[0]["splits"]["test"]["baselines"]
        for method in (one for one in BESIDE if one in known):
            line = f"{name}: {method} less the model: {apart(each[0], method)}"
            console.print(line, highlight=False)
    shown = dict(rows(found))
    for name in set(STUDENTS) & set(found):
        each = shown[f"{name}: teacher"], shown[name]
        teacher, student = (statistics.mean(one["iou"] for one in values) for values in each)
        lost = 1 - student / teacher
        console.print(f"{name} loses {lost:.1%} of its teacher's IoU (the bar: 5 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/voxel_results"))
    parser.add_argument("--at_once", type=int, default=2, help="runs, of a core or two each")
    parser.add_argument(
        "--all", action="store_true", help="longer trainings, one sweep's samples and latents, too"
    )
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run, name=value")
    chosen = parser.parse_args()
    extra = dict(one.split("=", 1) for one in chosen.set)
    chain = (*CHAIN, *OTHERS) if chosen.all else CHAIN
    show(reports(chosen.folder, chosen.seeds, chain, extra, chosen.at_once))
    if chosen.all:
        each = [codes_in_use(chosen.folder / f"seed{n}" / "vqvae") for n in range(chosen.seeds)]
        print(f"vqvae: {statistics.mean(each):.0f} codes in use (perplexity, validation)")


if __name__ == "__main__":
    main()
