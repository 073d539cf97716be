"""A run within its budgets: the plan made at its start and kept in its folder.

`config` is what the user asked for plus what the plan changed; config.json holds the sum, plan.json
the question, the changes and the table behind them.
"""

import copy
from pathlib import Path
from typing import Any

import jax

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.budget import calls, planner, table, targets
from tds_jax.budget.needs import Build
from tds_jax.budget.plan import Plan
from tds_jax.budget.planner import Planner
from tds_jax.config import Config
from tds_jax.data import json_file
from tds_jax.progress import table_console, working

PLAN = "plan.json"


def planned_settings(config: Config) -> dict[str, Any]:
    """What a plan depends on and may change: 'group.name' -> value."""
    names = configuration.marked(config, "planned")
    return {name: configuration.value(config, name) for name in names}


def decided(build: Build, config: Config, target: targets.Target) -> Config:
    """The config with `memory.call` decided for a target and the budget it gives."""
    return calls.decided(build, config, target, planner.device_budget(config.memory.budget, target))


def settle(build: Build, config: Config, folder: Path) -> tuple[Config, Plan | None]:
    """The config to run with, and the plan if one was made now, which is printed.

    A plan in the folder is kept while the question and the device stay the same, so that a run
    that goes on does so bit for bit. Without a budget and without such a plan: the config itself.
    """
    stored = _read(folder)
    if stored and stored["device"] == _device() and _same_question(stored, config):
        if stored["changes"]:
            print(f"keeping the plan in {folder / PLAN}: {_words(stored['changes'])}")
        return configuration.replace(config, stored["changes"]), None
    if not (config.memory.budget or config.memory.host_budget):
        return config, None
    plan = make(build, config, targets.find("here"), whole=False)
    table.show(plan, table_console())
    return plan.config, plan


def make(build: Build, config: Config, target: targets.Target, whole: bool) -> Plan:
    """The plan for a config's own budgets. whole: look at every split, not just until one fits.

    Raises UserError where nothing fits.
    """
    config = decided(build, config, target)
    with working("planning") as say:
        found = Planner(build, config, target, say)
        if whole:
            found.explore()
        device = planner.device_budget(config.memory.budget, target)
        return found.choose(device, planner.host_budget(config.memory.host_budget))


def keep(folder: Path, asked: Config, config: Config, plan: Plan | None) -> None:
    """Writes plan.json for what was asked and what is run; no plan now leaves an older one's table.

    A run that never had a plan gets none.
    """
    wanted = asked.memory.budget or asked.memory.host_budget
    if plan is None and asked == config and not wanted:
        (folder / PLAN).unlink(missing_ok=True)
        return
    before, after = planned_settings(asked), planned_settings(config)
    values = (table.to_dict(plan) if plan else _read(folder)) or {}
    values |= {
        "asked": before,
        "config": asked.to_dict(),
        "device": _device(),
        "changes": {name: after[name] for name in after if after[name] != before[name]},
    }
    json_file.write(folder / PLAN, values)


def _same_question(stored: dict[str, Any], config: Config) -> bool:
    """True if neither what a plan may change nor the model, data or optimizer have changed."""
    free = configuration.marked(config, "free").keys() - configuration.marked(config, "planned")
    return not configuration.differences(stored["config"], config.to_dict(), free)


def _read(folder: Path) -> dict[str, Any] | None:
    """The plan in a folder, its settings under the names of now."""
    path = folder / PLAN
    if not path.exists():
        return None
    stored = json_file.read(path, "delete it to plan anew")
    asked, run = stored["config"], copy.deepcopy(stored["config"])
    for setting, value in stored["changes"].items():
        group, name = setting.split(".")
        run[group][name] = value
    asked, run = tasks.today(asked), tasks.today(run)
    changed = {
        f"{group}.{name}": value
        for group, values in run.items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value != asked[group][name]
    }
    return stored | {"config": asked, "changes": changed}


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())
