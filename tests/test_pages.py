"""Documents keep their word: what they link to, command, quote and copy from the code is there.

`tests/python/test_docs.py` runs what docs/python.md and docs/own_parts.md show, `test_data_page.py`
what docs/data.md writes.
"""

import ast
import dataclasses
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments import settings_page
from tds_jax import cli, presets, several, tasks
from tds_jax.settings import settings as named_settings
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


def test_a_picture_is_small_enough_to_be_cloned_by_everybody():
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    assert len(pictures) >= 4
    assert max(picture.stat().st_size for picture in pictures) < 150_000


def commands(page):
    """(module, its flags) of every command a page shows."""
    for module, rest in COMMAND.findall(text_of(page)):
        words = shlex.split(re.sub(r"[\[\]()]", " ", rest.replace("\\\n", " ")), comments=True)
        yield module, dict(w[2:].partition("=")[::2] for w in words if w.startswith("--"))


@functools.cache
def flags_of(door):
    """Names of a door's own flags, and of those that the jobs of any task give it."""
    text = Path(importlib.util.find_spec(door).origin).read_text()
    if "cli.define_processes" in text:
        text += Path(cli.__file__).read_text()
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


QUOTED = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)


@functools.cache
def texts_of_the_code():
    """Every string of the package; what is put in when it runs is '…', also at both ends."""
    found = set()
    for path in (ROOT / "tds_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = getattr(node, "values", [node])
            if isinstance(node, ast.JoinedStr | ast.Constant):
                texts = [getattr(part, "value", "") for part in parts]
                found.add("…".join(text if isinstance(text, str) else "" for text in texts))
    return found


def is_said(message, texts):
    """Whether one of the texts has all that a message quotes, in its order."""
    parts = [part.strip() for part in message.split("…")]
    return any(holds_in_order(text, parts) for text in texts)


def holds_in_order(text, parts):
    end = 0
    for part in parts:
        start = text.find(part, end)
        if start < 0:
            return False
        end = start + len(part)
    return True


def test_a_message_that_is_explained_is_one_that_the_code_says():
    quoted = QUOTED.findall(text_of("docs/troubleshooting.md"))
    assert len(quoted) > 50
    texts = [text for text in texts_of_the_code() if len(text) > 20]
    unknown = [message for message, _ in quoted if not is_said(message, texts)]
    assert not unknown
    assert len({message for message, _ in quoted}) == len(quoted)
    assert not is_said("memory.budget=… is too large: the least is …", texts)


def test_the_sweep_that_is_shown_is_one(tmp_path):
    page = text_of("docs/compare.md")
    (tmp_path / "sweep.json").write_text(re.search(r"^```json\n(.*?)^```", page, re.M | re.S)[1])
    found = several.sweep(str(tmp_path / "sweep.json"))
    three = several.together([found, several.seeds(3, 0)])
    assert f"trains {len(three)} times" in page
    assert f"`{next(iter(three))}`" in page
    for changes in found.values():
        cli.checked(named_settings("low_memory", changes))
