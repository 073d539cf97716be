"""JSON files: whole after a crash, damage in one line."""

import pytest

from tds_jax.data import json_file
from tds_jax.errors import UserError


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.json"
    json_file.write(path, {"a": [1, None]})
    assert json_file.read(path, "") == {"a": [1, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    json_file.write(path, {"a": 1})
    with pytest.raises(TypeError):
        json_file.write(path, {"a": object()})
    assert json_file.read(path, "") == {"a": 1}


def test_damage_is_one_line_with_the_remedy(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is not JSON \(.*\); delete it") as caught:
        json_file.read(path, "delete it")
    assert "\n" not in str(caught.value)
