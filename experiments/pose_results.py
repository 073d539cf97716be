"""How good are pose models beside strong baselines, and can the generated recordings tell?

    python -m experiments.pose_results [--emg_hands=DIR] [--seeds 0 1 2] [--all | --only NAME ...]
        [--quick]

First what the generated recordings are: the share of five principal components in their labels,
and R² of an oracle that knows at every moment which of 13 poses (k-means of the train split) is
nearest. Then each case trains through the doors, seed by seed (of the recordings and of training,
all cases having the same recordings of a seed): R² and mean absolute error on unseen sessions of
seen users, `linear` beside them, mean ± SD over seeds; of the first seed the 95 % interval, and
that of the paired difference; unseen users and stages, means over seeds; and what the older
recordings or baselines gave.
With --workdir a run that is there is not trained again, and one that was stopped goes on. --quick:
two updates of each on seconds of recordings, to try the script.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.cluster import vq

from tds_jax.pose import synthetic

POSES, FREEDOMS, REAL = "poses", "freedoms", "emg_hands"


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: a config, what is set beside it, its data, and what it gave before (R², MAE)."""

    config: str
    data: str = FREEDOMS
    settings: tuple[str, ...] = ()
    before: str = ""


# Presets as they are, of the recordings that `powers` learns from.
EIGHT = ("data.synthetic_users=8", "data.synthetic_unseen=5", "data.synthetic_seconds=75.0")
AT_RANDOM = "model.start_at_mean=False"
# `powers` in two lesser widths, all else alike.
NARROW = ("model.groups=(4,)", "model.widths=(4,)", "model.mlp_hidden=(64,32)")
MIDDLE = ("model.groups=(8,)", "model.widths=(8,)", "model.mlp_hidden=(128,64)")
MAIN = {
    "powers": Case("powers", before="0.730 ± 0.037, 0.131 ± 0.009 of 3 users"),
    "emg_hands": Case(
        "emg_hands", REAL, before="-, 0.360 ± 0.011 (ridge 0.450); 0.237 ± 0.016 of 0.5 s"
    ),
}
# And others of `powers`, and presets that read the waveform.
OTHERS = {
    "powers, narrow": Case("powers", settings=NARROW),
    "powers, middle": Case("powers", settings=MIDDLE),
    "powers, for strangers": Case("powers", settings=("data.gain_spread=0.3",)),
    "quick_demo": Case("quick_demo", before="0.883 ± 0.009, 0.075 ± 0.003"),
    "quick_demo, log powers": Case("quick_demo", settings=("model.log_power_frames=20",)),
    "quick_demo, 8 users": Case("quick_demo", settings=EIGHT),
    "default, 8 users": Case("default", settings=(*EIGHT, "eval.every=100")),
    "default, at random": Case("default", settings=(*EIGHT, "eval.every=100", AT_RANDOM)),
    "high_performance, 8 users": Case(
        "high_performance", settings=(*EIGHT, "eval.every=100", "data.workers=0")
    ),
    "quick_demo, poses": Case("quick_demo", POSES, before="0.883 ± 0.009, 0.075 ± 0.003"),
}
CASES = MAIN | OTHERS
OLDER = (
    "13 poses: five components 0.993, this oracle 0.901 (of the poses themselves and their timing "
    "0.969), ridge R² 0.76"
)
TRY = ("optim.steps=2", "eval.every=2", "data.eval_window=4000", "optim.warmup_steps=1")
TRY_GENERATED = (
    "data.synthetic_users=1",
    "data.synthetic_sessions=3",
    "data.synthetic_seconds=6.0",
)
FINGERS = "('thumb','index','middle','ring','pinky')"
ELSEWHERE = ("user", "stage", "user_stage")


def labels(simulation, chosen):
    """(N, 20) labelled angles of the sessions chosen, 50 a second."""
    step = round(simulation.sample_rate / 50)
    quiet = dataclasses.replace(simulation, units=1)
    found = [
        synthetic.record(quiet, one)[1][::step]
        for one in synthetic.sessions(simulation)
        if chosen(one)
    ]
    rows = np.concatenate(found).astype(np.float64)
    return rows[rows.any(axis=1)]


def what_the_data_are(simulation):
    """{name: number} that a pose index and few components must not make high."""
    train = labels(simulation, lambda one: one.split == "train")
    test = labels(simulation, lambda one: one.generalization == "session" and one.split == "test")
    variances = np.linalg.eigvalsh(np.cov(train.T))[::-1]
    poses, _ = vq.kmeans2(train[::5], 13, minit="++", seed=0)
    nearest = np.linalg.norm(test[:, None] - poses, axis=2).argmin(axis=1)
    left = np.square(test - poses[nearest]).sum() / np.square(test - test.mean(axis=0)).sum()
    return {"five components": variances[:5].sum() / variances.sum(), "oracle R²": 1 - left}


def train(case, seed, folder, options):
    """(numbers of the test split, minutes) of one training through the door."""
    settings = [*case.settings, f"seed={seed}"]
    if case.data == REAL:
        settings += [f"data.path={options.emg_hands}", f"data.joint_names={FINGERS}"]
    else:
        settings += [f"data.synthetic_motion={case.data}", f"data.synthetic_seed={seed}"]
    if options.quick:
        settings += [*TRY, *(() if case.data == REAL else TRY_GENERATED)]
    if options.cache_dir:
        settings.append(f"data.cache_dir={options.cache_dir}")
    command = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{case.config}.py"]
    started = time.perf_counter()
    flags = [f"--config.{one}" for one in settings]
    written = Path(folder, "report.json")
    if not written.exists():
        subprocess.run(
            [*command, *flags, f"--workdir={folder}"], stdout=subprocess.DEVNULL, check=True
        )
    report = json.loads(written.read_text())["splits"]["test"]
    return report, (time.perf_counter() - started) / 60


def spread(values, digits=3):
    """'0.512 ± 0.004', the second where there are two."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def ends(place, metric):
    """'0.48..0.53' of a metric's interval; '-' where there is none."""
    low, high = (place.get(f"{metric}_{end}") for end in ("low", "high"))
    return "-" if low is None else f"{low:.3g}..{high:.3g}"


def elsewhere(reports, metric="mae_deg"):
    """'11.8 (12.3)': model (linear) on what is unseen, mean over seeds, of each kind there is."""
    found = []
    for kind in ELSEWHERE:
        groups = [report["groups"].get(f"generalization/{kind}") for report in reports]
        if all(groups):
            model = np.mean([group["model"][metric] for group in groups])
            linear = np.mean([group["baselines"]["linear"][metric] for group in groups])
            found.append(f"{model:.1f} ({linear:.1f})")
    return " ".join(found) or "-"


def row(name, case, reports, minutes):
    """The cells of one case."""
    models = [report["model"] for report in reports]
    first = reports[0]
    linear, median = (
        [report["baselines"][name] for report in reports] for name in ("linear", "linear_median")
    )
    each = (spread([one["mae_rad"] for one in method]) for method in (linear, median))
    apart = first["groups"].get("against_model", {}).get("baselines", {}).get("linear", {})
    return (
        *(name, str(len(reports)), spread([one["r2"] for one in models]), ends(models[0], "r2")),
        *(spread([one["r2"] for one in linear]), ends(apart, "r2")),
        *(spread([one["mae_rad"] for one in models]), "{} ({})".format(*each)),
        ends(apart, "mae_rad"),
        elsewhere(reports),
        *(case.before, f"{np.mean(minutes):.1f}"),
    )


COLUMNS = (
    *("case", "seeds", "R²", "its interval", "linear", "linear minus model", "MAE, rad"),
    "linear (median)",
    *("linear minus model", "user, stage, both: ° (linear)", "before: R², MAE", "min"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emg_hands", default="", help="folder of these recordings; '' = without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(MAIN), choices=list(CASES))
    parser.add_argument("--all", action="store_true", help="the other presets, too: hours")
    parser.add_argument("--cache_dir", default="", help="where generated recordings are kept")
    parser.add_argument("--workdir", default="", help="keeps the runs")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    console = Console(width=200)
    for motion in (POSES, FREEDOMS):
        seconds = {"seconds": 6.0} if options.quick else {}
        found = what_the_data_are(synthetic.Simulation(motion=motion, **seconds))
        console.print(f"{motion}: {', '.join(f'{n} {value:.3f}' for n, value in found.items())}")
    console.print(f"before: {OLDER}")
    table = Table(title="unseen sessions of seen users")
    for name in COLUMNS:
        table.add_column(name)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(options.workdir or temporary)
        for name in CASES if options.all else options.only:
            case = CASES[name]
            if case.data == REAL and not options.emg_hands:
                continue
            place = name.replace(",", "").replace(" ", "_")
            runs = [train(case, seed, base / f"{place}_{seed}", options) for seed in options.seeds]
            table.add_row(*row(name, case, *map(list, zip(*runs, strict=True))))
            console.print(table)  # what there is so far, should this one be stopped


if __name__ == "__main__":
    main()
