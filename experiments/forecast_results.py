"""What forecasts are worth beside their baselines, with 95 % intervals: a run for each seed.

    python -m experiments.forecast_results --data=air_temperature.nc [--seeds=0,1,2]
        [--config=configs/forecast_air_ensemble.py] [--folder=DIR]

Prints the tables of experiments/README.md: every method's RMSE and CRPS of the test split with its
interval, by lead (in days, of steps finer than that in hours), and how far each baseline lies above
the first seed's model. Runs that are in the folder already are not trained again. Minutes: those of
the config for each seed, and 1.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tds_jax
from tds_jax.engine.report import AGAINST_MODEL, ALL, MODEL, Report, Row
from tds_jax.forecast.figures import LEAD

LEADS = (1, 2, 3, 5, 7, 10)  # shown of more than COLUMNS
COLUMNS = 8
METRICS = ("rmse", "crps")


def report_of(config: str, data: str | None, folder: Path, seed: int) -> Report:
    """The test report of a seed's run, trained and evaluated if it is not there."""
    place = folder / f"seed{seed}"
    if not (place / "report_test.csv").exists():
        tds_jax.train(config, data=data, workdir=place, seed=seed)
    return Report.read(place, "test")


def rows_of(report: Report, metric: str) -> dict[tuple[str, str], Row]:
    """(group, method) -> row."""
    return {(row.group, row.method): row for row in report.rows if row.metric == metric}


def leads_of(report: Report) -> list[int]:
    """The leads that a table shows."""
    names = (row.group.removeprefix(LEAD) for row in report.rows if row.group.startswith(LEAD))
    every = sorted({int(name) for name in names})
    return every if len(every) <= COLUMNS else [lead for lead in every if lead in LEADS]


def spoken(row: Row | None, ends: bool) -> str:
    """A number, with its interval."""
    if row is None or not np.isfinite(row.value):
        return ""
    known = ends and row.low is not None and row.high is not None
    return f"{row.value:.3f} ({row.low:.3f}..{row.high:.3f})" if known else f"{row.value:.3f}"


def table(reports: dict[int, Report], metric: str) -> list[str]:
    """Lines of one metric's table, models first; none where no method has it."""
    first = rows_of(next(iter(reports.values())), metric)
    methods = [method for group, method in first if group == ALL and method != MODEL]
    rows = {f"model, seed {seed}": (rows_of(one, metric), MODEL) for seed, one in reports.items()}
    rows |= {method: (first, method) for method in methods}
    if (ALL, MODEL) not in first:
        return []
    leads = leads_of(next(iter(reports.values())))
    lines = [
        f"| {metric} | {' | '.join(f'lead {n}' for n in leads)} | all | above the model |",
        "|" + "---|" * (len(leads) + 3),
    ]
    for name, (found, method) in rows.items():
        days = [spoken(found.get((f"{LEAD}{n}", method)), False) for n in leads]
        apart = spoken(found.get((AGAINST_MODEL, method)), True)
        lines.append(
            f"| {name} | {' | '.join(days)} | {spoken(found[ALL, method], True)} | {apart} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="forecast_air_ensemble")
    parser.add_argument("--data")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder")
    asked = parser.parse_args(arguments)
    folder = Path(asked.folder or tempfile.mkdtemp())
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    reports = {seed: report_of(asked.config, asked.data, folder, seed) for seed in seeds}
    for report in reports.values():
        print(*report.verdict, sep="\n")
    for metric in METRICS:
        print("", *table(reports, metric), sep="\n")


if __name__ == "__main__":
    main()
