"""The pages of the repository and the notebooks, taken apart: cells, snippets, and the commands in them."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from nft_jax.config import default

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SKIPPED = {"runs", "build", "dist", "node_modules"}
MAGIC = re.compile(r"^%(?!%).*$", re.MULTILINE)
SETTING = re.compile(r"(?<!\w)config\.([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)")


def find_pages(root: Path) -> list[Path]:
    """The pages below a folder, without those of hidden folders and of virtual environments, whatever their names."""
    environments = {path.parent for path in root.rglob("pyvenv.cfg")}

    def is_ours(page: Path) -> bool:
        names = page.relative_to(root).parts
        return not any(name in SKIPPED or name.startswith(".") for name in names) and not environments & {*page.parents}

    return sorted(page for page in root.rglob("*.md") if is_ours(page))


PAGES = find_pages(ROOT)


class Cell(NamedTuple):
    """A code cell: `kind` is "python", or the magic that rules it, such as "bash"."""

    kind: str
    source: str
    outputs: list
    count: int | None

    @property
    def tree(self) -> ast.Module:
        """Its Python, without the lines that are none."""
        return ast.parse(MAGIC.sub("", self.source))


def cells(path: Path) -> list[Cell]:
    """The code cells of a notebook."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            magic = re.match(r"%%(\w+)", source)
            found.append(Cell(magic[1] if magic else "python", source, cell["outputs"], cell["execution_count"]))
    return found


def snippets(path: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands(script: str) -> list[list[str]]:
    """The words of each `python -m nft_jax.…` of a shell script, from the module's name on."""
    lines = re.sub(r"\\\n\s*", " ", script).splitlines()
    words = [shlex.split(line.split("|")[0].split("#")[0]) for line in lines if "python -m nft_jax" in line]
    return [row[row.index("-m") + 1 :] for row in words]


def is_setting(path: str) -> bool:
    """Whether `config.<path>` is there; options of a loss of one's own may be any."""
    value = default()
    for name in path.split("."):
        if path.startswith("loss.own."):
            return True
        if not hasattr(value, "keys") or name not in value:
            return False
        value = value[name]
    return True
