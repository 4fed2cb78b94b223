"""`configs/official.md` says of the official configs what they load as, and leaves out nothing that they set."""

import ast
import functools
import re

import pytest

from helpers.configs import flat
from helpers.documents import ROOT
from nft_jax import config_files
from nft_jax.config import default, load, to_dict

PAGE = (ROOT / "configs" / "official.md").read_text(encoding="utf-8")
SIZES = {"7B": "qwen25_math_7b_nft", "32B": "qwen25_32b_nft"}
CELL = re.compile(r"(?<!\\)\|")
# They fit a run to a machine, or give the model's shape, which its folder says too.
MACHINE = ("packing.", "mesh.", "record.", "rollout.slots", "verify.workers", "model.")


def tables() -> list[list[dict[str, str]]]:
    """The rows of each table, by the words above their cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in CELL.split(line)[1:-1]] for line in block.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


@functools.cache
def values(config: str) -> dict:
    """The settings of a config as it loads; the options of its loss have the loss's name before them."""
    loaded = load(config_files.config(config))
    read = flat(to_dict(loaded))
    options = {f"loss.{loaded.loss.name}.{name}": value for name, value in loaded.loss.options.items()}
    return read | options


def read_value(cell: str):
    (text,) = re.findall(r"`(.*?)`", cell)
    return {"true": True, "false": False}[text] if text in ("true", "false") else ast.literal_eval(text)


RECIPE, SIBLINGS, *_ = tables()
CLAIMS = [(config, row["setting"], row[size]) for row in RECIPE for size, config in SIZES.items()]
CLAIMS += [(row["config"].strip("`"), row["setting"], row["here"]) for row in SIBLINGS]


@pytest.mark.parametrize(("config", "setting", "cell"), CLAIMS, ids=lambda text: text.strip("`"))
def test_page_has_the_values_that_the_configs_load(config, setting, cell):
    assert values(config)[setting.strip("`")] == read_value(cell)


@pytest.mark.parametrize("config", SIZES.values())
def test_page_names_every_setting_that_a_recipe_changes(config):
    named, before = {row["setting"].strip("`") for row in RECIPE}, flat(default().to_dict())
    changed = {name for name, value in flat(config_files.config(config).to_dict()).items() if value != before[name]}
    assert {name for name in changed - named if not name.startswith(MACHINE)} == set()


def test_siblings_differ_from_nft_only_in_what_the_page_or_their_docstring_names():
    """Of a sibling's settings only those of its loss and of its selection differ from NFT's at its size."""
    for path in sorted((ROOT / "configs").glob("qwen25_*b_*.py")):
        size = next((nft for nft in SIZES.values() if path.stem.startswith(nft.removesuffix("nft"))), None)
        if size is None:
            continue
        one, other = (config_files.config(name).to_dict() for name in (path.stem, size))
        differ = {name for name, value in flat(one).items() if value != flat(other)[name]}
        assert {name for name in differ if not name.startswith(("loss.", "selection."))} == set(), path.stem
