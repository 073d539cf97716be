"""Writes docs/settings.md: every setting with its default, what it may be, and what it does.

    python -m experiments.settings_page

Defaults and words are those of configs/base.py and of the three tasks' bases, what a setting may be
is that of its dataclass. `tests/test_pages.py` fails when the page is not what this writes.
"""

import ast
import dataclasses
import importlib
import io
import tokenize
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tds_jax import tasks
from tds_jax.config import Config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"
ENGINE = "base"
BASES = {"pose": "default", "forecast": "forecast_soil_moisture", "voxel": "voxel_base"}
TITLES = {
    "pose": "Pose: EMG to joint angles",
    "forecast": "Forecast: gridded days",
    "voxel": "Voxel: radar volumes",
}
HEAD = "| setting | default | may be | what it does |\n|---|---|---|---|\n"
INTRO = """# Settings

<!-- Written by `python -m experiments.settings_page` from configs/ and their dataclasses. -->

Every setting stands once, in `configs/base.py` (engine) or in the base of its task. Override any:
`--config.optim.steps=2000` on the command line, `**{"optim.steps": 2000}` in Python. A run that
goes on in its folder may have other values of those marked ↻; of the others only those it began
with.

- [Engine](#engine): the same for every task
"""


class Said(NamedTuple):
    """What a config file says of a setting: its value and the words beside it."""

    value: str
    words: str


def said(name: str) -> dict[str, Said]:
    """'group.setting' -> what configs/{name}.py says of it, in its order."""
    text = (ROOT / "configs" / f"{name}.py").read_text()
    comments = dict(_comments(text))
    lines = text.splitlines()
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and (path := _path(node.targets[0])):
            value = ast.get_source_segment(text, node.value) or ""
            if value != "ConfigDict()" and not value.endswith(".get_config()"):
                above = []
                number = node.lineno - 1
                while lines[number - 1].strip().startswith("#"):
                    above.insert(0, comments[number])
                    number -= 1
                beside = [comments.get(n, "") for n in range(node.lineno, node.end_lineno + 1)]
                words = " ".join(filter(None, [*above, *beside]))
                found[path] = Said(" ".join(value.split()), words)
    return found


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("#").strip()


def _path(target: ast.expr) -> str:
    """'optim.steps' of `config.optim.steps`, 'seed' of `config.seed`; '' of another name."""
    parts = ast.unparse(target).split(".")
    return ".".join(parts[1:]) if parts[0] == "config" else ""


def fields(classes: Mapping[str, type]) -> dict[str, tuple[dataclasses.Field, Any]]:
    """'group.setting' -> its field and type."""
    return {
        f"{group}.{field.name}": (field, typing.get_type_hints(cls)[field.name])
        for group, cls in classes.items()
        for field in dataclasses.fields(cls)
    }


def engine_classes() -> dict[str, type]:
    """The engine's dataclasses by group."""
    hints = typing.get_type_hints(Config)
    return {name: cls for name, cls in hints.items() if dataclasses.is_dataclass(cls)}


def may_be(field: dataclasses.Field, kind: Any) -> str:
    """What a field's metadata allow, in a few words."""
    says = field.metadata
    several = "each " if typing.get_origin(kind) is tuple else ""
    if kind is bool:
        return "`True`, `False`"
    if choices := says.get("choices"):
        own = " or `module:Name`" if says.get("own") else ""
        return several + ", ".join(f"`{one}`" for one in choices) + own
    if "high" in says:
        return f"{several}{says['low']:g} to {says['high']:g}"
    if "low" in says:
        return f"{several}{says['low']:g} or more"
    return {int: "whole number", float: "number", str: "text"}.get(kind, "tuple")


def row(name: str, about: Said, field: dataclasses.Field, kind: Any) -> str:
    """A line of a table."""
    mark = " ↻" if field.metadata.get("free") else ""
    cells = (f"`{name}`{mark}", f"`{about.value}`", may_be(field, kind), about.words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _tables(says: Mapping[str, Said], known: Mapping[str, tuple[dataclasses.Field, Any]]) -> str:
    """A table for each group, of the settings that are known."""
    groups: dict[str, str] = {}
    for name, about in says.items():
        if name in known:
            group = name.partition(".")[0]
            groups[group] = groups.get(group, "") + row(name, about, *known[name])
    return "".join(f"\n{HEAD}{rows}" for rows in groups.values())


def flat(config: str) -> dict[str, Any]:
    """'group.setting' -> value of configs/{config}.py."""
    values = importlib.import_module(f"configs.{config}").get_config().to_dict()
    return {
        f"{group}.{name}": value
        for group, settings in values.items()
        if isinstance(settings, dict)
        for name, value in settings.items()
    }


def _changes(values: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    changed = {name: value for name, value in values.items() if base.get(name) != value}
    return ", ".join(f"`{name}={value!r}`" for name, value in changes_in_order(changed))


def changes_in_order(changed: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By group, as config files write them."""
    order = ("model", "data", "loss", "optim", "memory", "eval", "checkpoint", "log")
    return sorted(changed.items(), key=lambda pair: order.index(pair[0].partition(".")[0]))


def _presets(task: str) -> str:
    base = flat(BASES[task])
    rows = ""
    for path in sorted((ROOT / "configs").glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        if path.stem not in (ENGINE, BASES[task]) and module.get_config().get("task") == task:
            rows += f"| `{path.stem}` | {_changes(flat(path.stem), base)} |\n"
    return f"\nWhat its presets change in `{BASES[task]}`:\n\n| preset | |\n|---|---|\n{rows}"


def _task(task: str) -> str:
    says, engine = said(BASES[task]), said(ENGINE)
    known = fields({**engine_classes(), **tasks.groups(task)})
    own = {name: about for name, about in says.items() if name not in engine}
    other = {n: flat(BASES[task])[n] for n in says if n in engine}
    words = ", ".join(f"`{name}={value!r}`" for name, value in changes_in_order(other))
    return (
        f"\n## {TITLES[task]}\n\n`configs/{BASES[task]}.py`. Of the engine's settings it changes "
        f"{words}.\n{_tables(own, known)}{_presets(task)}"
    )


def page() -> str:
    """The text of docs/settings.md."""
    links = "".join(
        f"- [{title}](#{title.lower().replace(':', '').replace(' ', '-')})\n"
        for title in TITLES.values()
    )
    engine = _tables(said(ENGINE), fields(engine_classes()))
    words = "\n## Engine\n\n`configs/base.py`. `seed=0`: what everything drawn depends on.\n"
    return INTRO + links + words + engine + "".join(map(_task, TITLES))


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE.relative_to(ROOT)}")
