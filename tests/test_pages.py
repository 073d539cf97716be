"""Documents keep their word: what they link to, command, quote and copy from the code is there.

`tests/python/test_docs.py` runs what docs/python.md and docs/own_parts.md show, `test_data_page.py`
what docs/data.md writes.
"""

import dataclasses
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments import settings_page
from tds_jax import presets, tasks
from tests.doors import ROOT

PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "experiments/*.md", "tds_jax/*/*.md")
    for page in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
COMMAND = re.compile(r"python -m (tds_jax\.\w+|experiments\.\w+)((?:\\\n|[^\n`|])*)")
DEFINED = re.compile(r"DEFINE_\w+\(\s*\"(\w+)\"|\w+ = config_flags.DEFINE_config_file\(\"(\w+)\"")
STANDS_FOR = ("DIR", "FILE", "NAME", "…", "...")  # in commands, for what a reader has


def text_of(page):
    return (ROOT / page).read_text()


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_somewhere(page):
    for pair in LINK.findall(FENCE.sub("", text_of(page))):
        target, _, anchor = "".join(pair).partition("#")
        if not target.startswith("http"):
            place = (ROOT / page).parent / target if target else ROOT / page
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), f"{target}#{anchor}"


def commands(page):
    """(module, its flags) of every command a page shows."""
    for module, rest in COMMAND.findall(text_of(page)):
        words = shlex.split(re.sub(r"[\[\]()]", " ", rest.replace("\\\n", " ")), comments=True)
        yield module, dict(w[2:].partition("=")[::2] for w in words if w.startswith("--"))


@functools.cache
def flags_of(door):
    """Names of a door's own flags, and of those that the jobs of any task give it."""
    text = Path(importlib.util.find_spec(door).origin).read_text()
    found = {"".join(pair) for pair in DEFINED.findall(text)} | {"help", "version"}
    name = door.rpartition(".")[2]
    for task in tasks.DOMAINS:
        for job in {"predict": ("predict", "stream")}.get(name, (name,)) if "jobs." in text else ():
            cls = tasks.job(job, task) if tasks.offers(job, task) else None
            found |= (
                {each.name for each in dataclasses.fields(cls)} if isinstance(cls, type) else set()
            )
    return found | ({"task"} if "jobs.define" in text else set())


@pytest.mark.parametrize("page", PAGES)
def test_a_command_has_flags_and_settings_that_are_there(page):
    for module, given in commands(page):
        assert importlib.util.find_spec(module), module
        if module.startswith("experiments"):
            continue
        config = given.get("config", "default")
        if not any(mark in config for mark in STANDS_FOR):
            name = Path(config).stem
            assert config in presets.names() or (ROOT / config).is_file(), config
            asked = {flag.removeprefix("config.") for flag in given if flag.startswith("config.")}
            assert not asked - set(settings_page.flat(name)) - {"seed"}, config
        for flag in given:
            there = flag.removeprefix("no") in flags_of(module) or flag in flags_of(module)
            assert there or flag.startswith("config."), f"{module} --{flag}"


def test_settings_are_those_of_the_configs():
    page = text_of("docs/settings.md")
    assert page == settings_page.page(), "stale: run python -m experiments.settings_page"


@pytest.mark.parametrize("base", ["base", *settings_page.BASES.values()])
def test_every_setting_says_what_it_does(base):
    engine = set() if base == "base" else set(settings_page.said("base"))
    says = settings_page.said(base)
    silent = {name for name, about in says.items() if not about.words}
    assert len(says) > 20
    assert silent - engine <= {"seed", "task"}
