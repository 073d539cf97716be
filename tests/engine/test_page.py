"""The page of a run stands alone: all in one file, and whatever is in it is text."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tds_jax.engine import page
from tds_jax.engine.report import Report, Row

PNG = b"\x89PNG\r\n\x1a\n not much of a picture"


def test_a_page_has_all_of_a_run_and_asks_for_no_other_file(tmp_path):
    report = Report(
        [
            Row("test", "all", "model", "mse", 0.5, None, 10),
            Row("test", "all", "<b>zero</b>", "mse", 2.0, None, 10),
            Row("test", "user/a", "model", "mse", 0.25, None, 5),
        ],
        ("mse",), ("user",), notes=("1 < 2",), verdict=("zero > model",),
        whole="easy ones", leading=("user",),
    )  # fmt: skip
    place = tmp_path / "other"
    (place / "plots").mkdir(parents=True)
    (place / "plots" / "curves.png").write_bytes(PNG)
    (place / "plots" / "hand.gif").write_bytes(b"GIF89a not much of a film")
    (place / "plots" / "street.html").write_text('<p title="a & b">3-D</p><script>1</script>')
    report.write(place, {"step": 7, "data": "/a & b"})
    assert Report.read(place, "test") == report
    (tmp_path / "config.json").write_text(json.dumps({"task": "pose", "optim": {"steps": [3]}}))
    plan = {"changes": {"optim.accumulate": 8}, "rows": [{"micro_batch": 2, "from": "line"}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    line = {"event": "start", "time": "2026-01-01", "command": "train --config=<x>"}
    (tmp_path / "history.jsonl").write_text(json.dumps(line) + "\n")
    text = page.write(place, tmp_path).read_text()
    for part in (
        "test, step 7", "<td>/a &amp; b</td>", "<h3>model by user</h3>", "<h3>easy ones</h3>",
        '<tr class="bold"><td>model</td><td>0.5</td></tr>', "&lt;b&gt;zero", "1 &lt; 2",
        "zero &gt; model",
        "<td>optim.steps</td><td>[3]</td>", "<td>optim.accumulate</td><td>8</td>",
        "train --config=&lt;x&gt;", 'src="data:image/gif;base64,R0lGODlh', 'title="street" srcdoc="'
        "&lt;p title=&quot;a &amp; b&quot;&gt;3-D",
    ):  # fmt: skip
        assert part in text, part
    assert text.index("model by user") < text.index("easy ones")
    links = re.findall(r'(?:src|href)="([^"]*)', text)
    assert len(links) == 6
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert "<script" not in text


def test_a_split_whose_table_has_gone_is_said_to_be_and_the_others_are_shown(tmp_path):
    for split in ("test", "val"):
        Report([Row(split, "all", "model", "mse", 0.5, None, 1)], ("mse",), ()).write(tmp_path, {})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "report_val.csv").unlink()
    text = page.write(tmp_path, tmp_path).read_text()
    assert "report_val.csv is gone; evaluate --split=val makes it anew" in text
    assert text.count('<tr class="bold"><td>model</td><td>0.5</td></tr>') == 1


def test_a_run_that_was_not_planned_has_no_plan(tmp_path):
    Report([], (), ()).write(tmp_path, {})
    (tmp_path / "config.json").write_text("{}")
    assert 'id="plan"' not in page.write(tmp_path, tmp_path).read_text()


def test_the_page_of_two_evaluations_at_once_has_both(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    one, other = (
        Report([Row(name, "all", "model", name, 1.0, None, 1)], (name,), ())
        for name in ("test", "val")
    )
    has_read = threading.Event()

    def slowly(place, read=page._splits):
        found = read(place)
        has_read.set()
        time.sleep(0.2)  # for the other to write all of its own, if nothing keeps it from that
        return found

    monkeypatch.setattr(page, "_splits", slowly)
    one.write(tmp_path, {})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(page.write, tmp_path, tmp_path)
        assert has_read.wait(10)
        monkeypatch.undo()
        other.write(tmp_path, {})
        text = page.write(tmp_path, tmp_path)
        first.result()
    assert all(f'<h2 id="{name}">' in text.read_text() for name in ("test", "val"))
