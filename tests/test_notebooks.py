"""Notebooks are kept as they ran, and run: without the real data on what they make themselves."""

import json
import re

import matplotlib
import pytest

from tests.doors import ROOT

pytestmark = pytest.mark.optimised
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes: text, and a figure or two
STEPS = "25"  # more than the updates over which the configs warm up


def code_of(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def texts(outputs):
    """All that the outputs of a cell say."""
    for output in outputs:
        yield "".join(output.get("text", []))
        yield from ("".join(text) for text in output.get("data", {}).values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran_from_its_first_cell_to_its_last(path):
    cells = code_of(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(cells) >= 5
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    said = [text for text in texts(outputs) if not re.fullmatch(r"[A-Za-z0-9+/=\n]+", text)]
    assert not re.findall(r"(?:^|[\s'\"(])(/(?:tmp|home|root|work)\b\S*)", "\n".join(said))
    assert path.stat().st_size < LARGEST


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", STEPS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("EMG_HANDS", "AIR_TEMPERATURE"):
        monkeypatch.delenv(name, raising=False)
    matplotlib.use("agg")
    names = {}
    for cell in code_of(path):
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert names["run"].step <= int(STEPS)
    assert names["report"].value("mae_deg" if path.stem == "pose" else "rmse") > 0
    assert "persistence" in capsys.readouterr().out or path.stem == "pose"
