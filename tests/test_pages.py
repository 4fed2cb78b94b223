"""Every path, link, command, flag and setting that a page of the repository names exists."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import run
from helpers.documents import PAGES, ROOT, SETTING, commands, find_pages, is_setting, snippets
from nft_jax.config import default

LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:nft_jax|tests|configs|launch|colab)/[\w./*]*)`")
SHORT_SETTING = re.compile(r"`([a-z_]+\.[a-z_.]+?)(?:=[^`]*)?`")
SCRIPT = re.compile(r"\b(?:bash )?(launch/[\w/]+\.sh)")
FLAG = re.compile(r"(?<![\w-])--([a-z_]+)")
# Its tables hold the settings of other libraries, which begin with the same words.
FOREIGN = ROOT / "colab" / "from_other_libraries.md"
# Not settings, but files whose names look like one.
SUFFIXES = {"py", "json", "jsonl", "md", "sh", "png", "npz", "ipynb", "txt", "toml", "yaml"}
MOST_LINES = 150  # of the README at the top
MOST_FILES = 9  # from a prompt to an update

page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def named_settings(page: Path) -> set[str]:
    """The settings of a page: after `config.`, and in backticks beginning with the name of a section."""
    text = page.read_text()
    short = {name for name in SHORT_SETTING.findall(text) if name.split(".")[0] in default() and page != FOREIGN}
    return {name for name in {*SETTING.findall(text)} | short if name.split(".")[-1] not in SUFFIXES}


@functools.cache
def read_help(module: str) -> str:
    """What a command of the package prints for `--help`."""
    return run(module, "--help").stdout


def page_commands(page: Path) -> list[list[str]]:
    """The words of each `python -m nft_jax.…` in the shell snippets of a page."""
    return [words for script in snippets(page, "bash") for words in commands(script)]


@page_by_page
def test_links_lead_to_files(page):
    links = [link.split("#")[0] for link in LINK.findall(page.read_text()) if ":" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@page_by_page
def test_paths_exist(page):
    assert [path for path in PATH.findall(page.read_text()) if not [*ROOT.glob(path.rstrip("/"))]] == []


@page_by_page
def test_settings_exist(page):
    assert sorted(name for name in named_settings(page) if not is_setting(name)) == []


@page_by_page
def test_commands_and_their_flags_exist(page):
    for module, *words in page_commands(page):
        flags = {flag for word in words for flag in FLAG.findall(word.split("=")[0])} - {"config", "help"}
        known = {*re.findall(r"--(?:\[no\])?([a-z_]+)", read_help(module))}
        assert flags <= known, (module, flags - known)


@page_by_page
def test_launch_scripts_exist(page):
    assert [script for script in SCRIPT.findall(page.read_text()) if not (ROOT / script).is_file()] == []


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


def test_pages_of_environments_are_not_ours(tmp_path):
    foreign = (".hidden/page.md", "runs/page.md", "env/lib/package/page.md", "env/pyvenv.cfg")
    for name in ("page.md", "docs/page.md", *foreign):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_pages(tmp_path) == [tmp_path / "docs" / "page.md", tmp_path / "page.md"]


def test_way_of_a_prompt_names_files_that_step_imports():
    text = (ROOT / "nft_jax" / "README.md").read_text()
    table = text.split("## The way of a prompt")[1].split("\n## ")[0]
    files = re.findall(r"^\| \[([\w/]+\.py)\]", table, re.MULTILINE)
    assert files[0] == "step.py"
    assert 5 < len(files) <= MOST_FILES
    code = "import sys, nft_jax.step; print(*(m for m in sys.modules if m.startswith('nft_jax.')))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = ["nft_jax." + file.removesuffix(".py").replace("/", ".") for file in files]
    assert [name for name in names if name not in loaded.split()] == []


def test_rooms_are_all_on_the_map():
    table = (ROOT / "nft_jax" / "README.md").read_text().split("## Folders")[1].split("\n## ")[0]
    folders = {path.parent.name for path in (ROOT / "nft_jax").glob("*/__init__.py")}
    assert {name for name in folders if f"{name}/" not in table} == set()
