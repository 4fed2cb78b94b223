"""The rooms of the package import one way, and no modules import one another in a circle."""

import ast
from pathlib import Path

import pytest

from helpers.documents import ROOT

# A room imports only rooms of the lines above its own, and itself.
ORDER = """
    compat names types files rounding printing
    own_code command_words
    precision randomness losses
    parallel
    verify
    config
    config_files
    data
    models
    rollout
    update
    state
    processes
    run
    step
    evaluation
    resolve verifier base teacher
    experiment
    cli
    machine
    loop supervised report start_table rehearsal
    sft
    trainer
    train evaluate export
    compare
    plan
    bench
    smoke
"""
RANK = {room: place for place, line in enumerate(ORDER.strip().splitlines()) for room in line.split()}


def read_modules(package: Path) -> dict[str, Path]:
    """The modules of a package by dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def read_imports(modules: dict[str, Path]) -> dict[str, set[str]]:
    """For each module the modules of the package that it imports, anywhere in its text."""
    imports = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imports[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
                source = ".".join(part for part in (base, node.module) if part)
                names = [f"{source}.{alias.name}" for alias in node.names] + [source]
            for target in names:
                if target in modules and target != name and target not in (package, "nft_jax"):
                    imports[name].add(target)
    return imports


def room_of(module: str) -> str:
    """The room of a module: its first part below the package."""
    return module.split(".")[1]


def find_circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import one another (strongly connected components of two or more)."""
    reached = {name: _reach(imports, name) for name in imports}
    circles = {frozenset(other for other in reached[name] if name in reached[other]) for name in imports}
    return [set(circle) for circle in circles if len(circle) > 1]


def find_upward(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports of a room that does not stand above in `ORDER`."""
    pairs = [(name, target) for name, targets in imports.items() for target in targets if "." in name]
    return [(a, b) for a, b in pairs if room_of(a) != room_of(b) and RANK[room_of(b)] >= RANK[room_of(a)]]


def _reach(imports, start):
    seen, waiting = {start}, [start]
    while waiting:
        for target in imports[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


@pytest.fixture(scope="module")
def imports():
    """The imports of the package."""
    return read_imports(read_modules(ROOT / "nft_jax"))


def test_every_room_has_a_place_in_order(imports):
    assert {room_of(name) for name in imports if "." in name} <= RANK.keys()


def test_no_module_imports_itself_through_others(imports):
    assert find_circles(imports) == []


def test_no_room_imports_a_room_above_it(imports):
    assert sorted(find_upward(imports)) == []


def test_find_circles_and_find_upward_find_what_is_wrong(tmp_path):
    package = tmp_path / "nft_jax"
    for name, text in {
        "__init__.py": "",
        "types.py": "",
        "step.py": "from nft_jax.types import Array\nfrom nft_jax import state",
        "state.py": "def late():\n    from . import step",
        "losses/__init__.py": "",
        "losses/nft.py": "from ..types import Array\nimport nft_jax.step",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = read_imports(read_modules(package))
    assert found["nft_jax.losses.nft"] == {"nft_jax.types", "nft_jax.step"}
    assert find_circles(found) == [{"nft_jax.step", "nft_jax.state"}]
    assert sorted(find_upward(found)) == [
        ("nft_jax.losses.nft", "nft_jax.step"),
        ("nft_jax.state", "nft_jax.step"),
    ]
