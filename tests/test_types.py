"""The axis legend of `nft_jax/types.py` and the suffixes of the package's identifiers."""

import ast
import re
from pathlib import Path

import nft_jax.types

PACKAGE = Path(nft_jax.types.__file__).parent
SUFFIX = re.compile(r"_?[a-z][a-z0-9_]*_([A-Z][A-Za-z0-9]*)")


def legend() -> list[str]:
    """The letters of the legend, in its order."""
    return re.findall(r"^    ([A-Z])  \S", nft_jax.types.__doc__, re.MULTILINE)


def identifiers(source: str) -> set[str]:
    """All names of variables, arguments, attributes and fields."""
    try:
        tree = ast.parse(source)
    except SystemError:  # Python 3.11 can lose count of its depth once, while other threads parse
        tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return names | {node.arg for node in nodes if isinstance(node, ast.arg | ast.keyword) and node.arg}


def suffixes(source: str) -> set[str]:
    """The axis suffixes of a module's identifiers, such as "QKT" of `token_QKT`."""
    return {match[1] for name in identifiers(source) if (match := SUFFIX.fullmatch(name))}


def test_suffixes_are_read_from_identifiers():
    source = "def f(token_QKT, *, key_B=None): MAX_TOKENS, self._rest_OXu, of_class = g(width_D=1), 2, 'x_Z'"
    assert suffixes(source) == {"QKT", "B", "OXu", "D"}


def test_types_legend_names_each_letter_once():
    letters = legend()
    assert letters == sorted(set(letters))
    assert len(letters) > 20


def test_types_legend_has_every_suffix_of_the_package():
    used = {path.name: suffixes(path.read_text()) for path in PACKAGE.rglob("*.py")}
    letters = {letter for found in used.values() for suffix in found for letter in suffix if not letter.isdigit()}
    assert {letter.upper() for letter in letters} == set(legend())
