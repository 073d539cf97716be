"""A card is there when its device file is and jax was not told to leave it alone."""

import importlib.machinery

import pytest

from tds_jax.budget import cards


@pytest.mark.parametrize("name", ["nvidia0", "kfd", "accel0"])
def test_a_card_is_seen_by_its_device_file(tmp_path, monkeypatch, name):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert not cards.present(tmp_path)
    (tmp_path / name).write_text("")
    assert cards.present(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert cards.present(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not cards.present(tmp_path)


def test_a_compiler_for_cards_is_a_plugin_of_jax(tmp_path, monkeypatch):
    spec = importlib.machinery.ModuleSpec("jax_plugins", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(cards.importlib.util, "find_spec", lambda name: spec)
    (tmp_path / "tpu").mkdir()
    assert not cards.has_compiler()
    (tmp_path / "xla_cuda13").mkdir()
    (tmp_path / "xla_cuda13" / "__init__.py").write_text("")
    assert cards.has_compiler()
    monkeypatch.setattr(cards.importlib.util, "find_spec", lambda name: None)
    assert not cards.has_compiler()
