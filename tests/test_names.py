"""Lookups of names, and the nearest known name in their errors."""

import subprocess
import sys

import pytest

from nft_jax.names import lookup, quote, suggestion, unknown

KNOWN = {"greedy": 1, "sampled": 2}


@pytest.mark.parametrize(
    ("given", "ending"), [("greddy", "; did you mean 'greedy'?"), ("zzz", ""), ("", ""), (7, ""), (None, "")]
)
def test_suggestion_is_the_nearest_name_or_nothing(given, ending):
    assert suggestion(given, KNOWN) == ending


def test_quote_cuts_what_is_long():
    assert [quote(value) for value in (3, "a", [1, None])] == ["3", "'a'", "[1, None]"]
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10**6, list(range(10**5)), 10**5000, deep):
        assert len(quote(value)) < 130


def test_unknown_lists_what_is_known():
    assert unknown("score", "greddy", KNOWN) == (
        "unknown score 'greddy': known are greedy, sampled; did you mean 'greedy'?"
    )
    assert unknown("option", "x", (), "loss 'rft'") == "unknown option 'x' of loss 'rft': known are none"


def test_lookup_gives_the_value_or_raises():
    assert lookup(KNOWN, "sampled", "score") == 2
    with pytest.raises(ValueError, match="unknown score 'sample'.*did you mean 'sampled'"):
        lookup(KNOWN, "sample", "score")


def test_names_imports_no_jax():
    code = "import sys, nft_jax.names; assert not {'jax', 'numpy', 'ml_collections'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
