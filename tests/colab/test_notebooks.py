"""The notebooks: whole, short, in step with the package, and, slowly, executed from a clean kernel."""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.documents import FOLDER, NOTEBOOKS, ROOT, SETTING, cells, commands, is_setting
from nft_jax import config_files

LARGEST = 400_000
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# What makes a notebook short enough to test: settings that it holds, and what stands for them.
FASTER = {
    "1_the_loss": {
        "nft_jax.sft --config=equivalence": "nft_jax.sft --config=equivalence --config.warm_start.steps=3",
        "--config.updates_per_step=4": "--config.updates_per_step=4 --config.prompts_per_step=8 "
        "--config.evaluation.max_problems=8",
    },
    "2_equivalence": {
        "settings.mesh.tensor = 1": "settings.mesh.tensor, settings.updates_per_step = 1, 2",
    },
    "3_train_tiny": {
        "--workdir=runs/colab_tiny": "--workdir=runs/colab_tiny --config.warm_start.steps=3 --config.steps=2 "
        "--config.evaluation.max_problems=8",
    },
    "4_verify_and_evaluate": {
        "--config.warm_start.steps=300": "--config.warm_start.steps=3 --config.evaluation.max_problems=8",
        "--config.steps=8": "--config.steps=8 --config.prompts_per_step=8 --config.answers_per_prompt=4",
    },
}


def version() -> str:
    return re.search(r'version="(.*?)"', (ROOT / "setup.py").read_text())[1]


def test_all_begin_with_the_same_short_cell():
    first, *others = {cells(path)[0].source for path in NOTEBOOKS}
    assert not others
    assert len(first.splitlines()) <= 25
    assert f'REPOSITORY, TAG = "", "v{version()}"' in first


@each
def test_it_has_a_badge_that_opens_it(path):
    text = path.read_text()
    badge = f"https://colab.research.google.com/github/OWNER/REPOSITORY/blob/v{version()}/colab/{path.name}"
    assert text.count(badge) == 1
    assert path.name in (FOLDER / "README.md").read_text()


@each
def test_it_is_small_and_was_run_from_its_first_cell_to_its_last(path):
    assert path.stat().st_size < LARGEST
    assert [cell.count for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    kinds = [output["output_type"] for cell in cells(path) for output in cell.outputs]
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in cells(path) for output in cell.outputs)


@each
def test_it_names_nothing_of_a_machine(path):
    assert not re.search(r"/home/|/root/|/work/|/tmp/", path.read_text())


@each
def test_what_it_takes_from_the_package_is_there(path):
    found = imported(path)
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            thing = found.get(node.value.id)
            assert not isinstance(thing, ModuleType) or hasattr(thing, node.attr), ast.unparse(node)


@each
def test_it_redefines_nothing_of_the_package(path):
    mine = {name for cell in cells(path) if cell.kind == "python" for name in _defined(cell.tree)}
    theirs = {name for file in (ROOT / "nft_jax").rglob("*.py") for name in _defined(ast.parse(file.read_text()))}
    theirs.discard("draw")  # many a module draws something of its own
    assert not mine & theirs


@each
def test_its_commands_can_be_given(path):
    given = [command for cell in cells(path) if cell.kind == "bash" for command in commands(cell.source)]
    for module, *words in given:
        assert (ROOT / Path(*module.split(".")).with_suffix(".py")).exists()
        assert all(is_setting(name) for word in words for name in SETTING.findall(word.split("=")[0])), words
        assert all(word[9:] in config_files.names() for word in words if word.startswith("--config=")), words


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@each
def test_it_runs_from_a_clean_kernel(path, tmp_path, monkeypatch):
    """In a checkout of its own, with settings that make it short; minutes each."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("nft_jax", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(FOLDER, tmp_path / "colab")
    notebook = nbformat.reads(faster(path), 4)
    # One device, as a notebook's runtime has.
    monkeypatch.delenv("XLA_FLAGS")
    nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "colab")}}
    ).execute()
    assert (tmp_path / "runs").is_dir()


def faster(path: Path) -> str:
    """The notebook with its settings exchanged, each of which must be in it."""
    text = path.read_text()
    for old, new in FASTER[path.stem].items():
        assert re.search(rf"{re.escape(old)}(?!\d)", text), f"{path.name} no longer has {old}"
        text = re.sub(rf"{re.escape(old)}(?!\d)", new, text)
    json.loads(text)
    return text


def nodes(path: Path) -> list[ast.AST]:
    """All of the notebook's Python."""
    return [node for cell in cells(path) if cell.kind == "python" for node in ast.walk(cell.tree)]


def imported(path: Path) -> dict[str, Any]:
    """What the notebook imports from the package, by the name that it gives it; fails where it isn't there."""
    found = {}
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "nft_jax":
            for alias in node.names:
                module = importlib.import_module(node.module)
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                found[alias.asname or alias.name] = getattr(module, alias.name)
    return found


def _defined(tree):
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
