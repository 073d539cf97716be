"""A run as one page to send: tables, figures, settings, plan and history in a single HTML file."""

import base64
import html
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tds_jax.data import json_file
from tds_jax.data.whole_file import whole_file
from tds_jax.engine import lock
from tds_jax.engine.report import Report

PAGE = "report.html"
SHOWN = (".png", ".gif", ".html")  # endings of figures
REMEDY = "delete it"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
td { overflow-wrap: anywhere; } tr.bold { font-weight: 600; background: #f2f6fb; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption { font-weight: 600; }
iframe { width: 100%; height: 42rem; border: 0; }
.words td:first-child { white-space: nowrap; } td { vertical-align: top; }
.note { color: #555; } nav a { margin-right: 1rem; } .wide { overflow-x: auto; }
"""


def write(place: Path, workdir: Path) -> Path:
    """report.html beside the report.json of `place`; settings and history are of the workdir.

    Who comes last has read what all before have written.
    """
    path = place / PAGE
    with lock.in_turn(place):
        text = _document(place, workdir)
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _document(place: Path, workdir: Path) -> str:
    about = (_figures(place), _settings(workdir), _plan(workdir), _history(workdir))
    parts = [*_splits(place), *itertools.chain(*about)]
    title = html.escape(f"{place.absolute().name}: a run of tds_jax")
    links = " ".join(
        f'<a href="#{name}">{name}</a>' for name in ("test", "figures", "settings", "history")
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1><nav>{links}</nav>{chr(10).join(parts)}</html>\n"
    )


def _heading(name: str, words: str = "") -> str:
    return f'<h2 id="{html.escape(name)}">{html.escape(words or name)}</h2>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], bold: str = "", kind: str = ""
) -> str:
    """HTML of a table. bold: first cell of a row to stress; kind: its class."""
    names = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    lines = [f"<tr>{names}</tr>"] if names else []
    for row in rows:
        style = ' class="bold"' if bold and row[0] == bold else ""
        lines.append(f"<tr{style}>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table class="{kind}">{"".join(lines)}</table></div>'


def _text(value: Any) -> str:
    return html.escape(str(value))


def _splits(place: Path) -> list[str]:
    """Of every split evaluated so far, `test` first."""
    stored = json_file.read(place / "report.json", REMEDY)
    parts = []
    for split in sorted(stored.get("shown", {}), key=lambda name: name != "test"):
        try:
            report = Report.read(place, split)
        except FileNotFoundError as error:  # numbers alone, in report.json, make no page
            gone = f"{error.filename} is gone; evaluate --split={split} makes it anew"
            parts += [_heading(split), f'<p class="note">{_text(gone)}</p>']
            continue
        about = stored.get("evaluated", {}).get(split, {})
        parts += [_heading(split, f"{split}, step {about.get('step', 'unknown')}")]
        parts += [table((), about.items(), kind="words")]
        parts += [f"<p>{_text(line)}</p>" for line in report.verdict]
        for grid in report.grids(split):
            rows = [(name, *cells) for name, cells in grid.rows]
            parts += [f"<h3>{_text(grid.title)}</h3>"]
            parts += [table((grid.names, *grid.columns), rows, grid.bold)]
        parts += [f'<p class="note">{_text(note)}</p>' for note in report.notes]
    return parts


def _figures(place: Path) -> list[str]:
    """Every picture, film and page, in the file itself."""
    found = sorted(path for path in (place / "plots").glob("*") if path.suffix in SHOWN)
    shown = (
        f"<figure><figcaption>{_text(path.name)}</figcaption>{_shown(path)}</figure>"
        for path in found
    )
    return [_heading("figures"), *shown]


def _shown(path: Path) -> str:
    if path.suffix == ".html":
        inside = _text(path.read_text(encoding="utf-8", errors="replace"))
        return f'<iframe title="{_text(path.stem)}" srcdoc="{inside}"></iframe>'
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{_text(path.stem)}" src="data:image/{path.suffix[1:]};base64,{data}">'


def _settings(workdir: Path) -> list[str]:
    config = json_file.read(workdir / "config.json", REMEDY)
    rows = []
    for group, values in config.items():
        inner = values.items() if isinstance(values, dict) else [("", values)]
        rows += [(f"{group}.{name}".rstrip("."), _plain(value)) for name, value in inner]
    return [_heading("settings"), table(("setting", "value"), rows, kind="words")]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plan(workdir: Path) -> list[str]:
    path = workdir / "plan.json"
    if not path.exists():
        return []
    plan = json_file.read(path, REMEDY)
    rows = plan.get("rows", [])
    changes = table(("changed", "to"), plan["changes"].items(), kind="words")
    tried = [table(list(rows[0]), [list(row.values()) for row in rows])] if rows else []
    return [_heading("plan"), changes, *tried]


def _history(workdir: Path) -> list[str]:
    lines = json_file.read_lines(workdir / "history.jsonl")[0]
    rows = [
        (line.get("time", ""), line.get("event", ""), line.get("how") or line.get("command", ""))
        for line in lines
    ]
    return [_heading("history"), table(("time, UTC", "event", "what"), rows, kind="words")]
