"""The package keeps to the words of its glossary (nft_jax/README.md), to American spelling, and to verbs in names."""

import ast
import io
import re
import tokenize

import pytest

from helpers.documents import PAGES, ROOT

# Dialect that the glossary replaces, and British spellings.
FORBIDDEN = re.compile(
    r"\b(told|tally|tallies|one's own|whose own|normalis\w+|tokenis\w+|optimis(e|ed|er|ers|ing|ation)|summaris\w+|"
    r"initialis\w+|colour\w*|centred|behaviour|grey|labelled)\b",
    re.IGNORECASE,
)
# Functions do something or return something: their names are verbs or nouns, not what has been done to a value.
PARTICIPLE = re.compile(
    r"_?(described|told|asked|searched|sized|laid|taken|compared|written|found|said|placed|paired|measured|changed|timed|"
    r"drifted|updated|summari[sz]ed|stopped|fitted|joined|merged|resolved|stored|shipped|checked|evaluated|answered|"
    r"opened|attached|noted|gathered|marked|made|rounded|listed|padded|widened|permuted|mixed|dropped|cleaned|started|"
    r"limited|assumed|moved|counted|held|kept|pulled|offloaded|shrunk|raised|announced|detected)"
)
MODULES = sorted((ROOT / "nft_jax").rglob("*.py"))


def find_forbidden(text: str) -> list[str]:
    """Returns the forbidden words of a text."""
    return [match[0] for match in FORBIDDEN.finditer(text)]


def read_prose(source: str) -> str:
    """Returns the comments and strings of Python source."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return "\n".join(token.string for token in tokens if token.type in kinds)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_and_names_of_a_module(module):
    source = module.read_text(encoding="utf-8")
    assert find_forbidden(read_prose(source)) == []
    names = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [name for name in names if PARTICIPLE.fullmatch(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_of_a_page(page):
    assert find_forbidden(page.read_text(encoding="utf-8")) == []


def test_find_forbidden_and_read_prose():
    assert find_forbidden("The colour is told to the tokeniser.") == ["colour", "told", "tokeniser"]
    assert find_forbidden("A color is optimistic; folded, totaled.") == []
    assert "colour" in read_prose("x = 1  # a colour\n") and "colour" not in read_prose("colour = 1\n")
