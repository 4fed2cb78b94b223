"""Modules of a user's own: what is wrong with one stands in one sentence, and its digest is that of its source."""

import sys
import textwrap

import pytest

from nft_jax import own_code
from nft_jax.losses import resolve


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`(name, source)` writes a user's module where it is found."""
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}

    def write(name, source):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    yield write
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# What a module holds, and what is said of the function `mine` in it; FILE is its path.
BROKEN = {
    "raises when imported": ("\nx = {}\nx['key']\n", "can't be imported: KeyError: 'key', in FILE:3"),
    "exits": ("import sys\n\nsys.exit(3)\n", "can't be imported: it exits, by SystemExit: 3, in FILE:3"),
    "syntax": ("def mine(a, b)\n    return a\n", "can't be imported: SyntaxError: expected ':', in FILE:1"),
    "indentation": ("def mine(a, b):\nreturn a\n", "can't be imported: IndentationError: expected an indented block"),
    "null byte": ("x = 1\0", "can't be imported: SyntaxError: source code string cannot contain null bytes"),
    "imports what is not there": ("import no_such_library\n", "No module named 'no_such_library', in FILE:1"),
    "no function": ("def other(a, b):\n    return a\n", "unknown function 'mine' of module"),
    "no function at all": ("mine = 3\n", "is a int, not a function"),
}
LOSSES = {
    "too few arguments": ("def mine(logp_BT):\n    return logp_BT\n", "(bad.py:1) has the arguments (logp_BT), but"),
    "too many arguments": ("def mine(a, b, c):\n    return a\n", "but it is called as loss(logp_BT, batch)"),
    "raises": ("\ndef mine(a, batch):\n    return a * batch.reward\n", "no attribute 'reward', in FILE:3"),
    "wrong shape": ("def mine(a, b):\n    return a.sum()\n", "want float32[2,3]"),
    "wrong type": ("def mine(a, b):\n    return 'x'\n", "returned a value of type <class 'str'>"),
    "exits when called": (
        "import sys\n\ndef mine(a, b):\n    sys.exit()\n",
        "it exits, by SystemExit, in FILE:4",
    ),
}


@pytest.mark.parametrize("name", [*BROKEN, *LOSSES])
def test_resolve_says_in_one_line_what_is_wrong_with_a_loss(write, name):
    source, words = (BROKEN | LOSSES)[name]
    path = write("bad.py", source)
    with pytest.raises(ValueError) as caught:
        resolve("bad:mine", {})
    assert words.replace("FILE", str(path)) in str(caught.value)
    assert "'bad:mine'" in str(caught.value) or "module 'bad'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_names_a_module_that_is_not_there():
    with pytest.raises(ValueError, match="grader 'nowhere.at_all:f' can't be imported: there is no module 'nowhere'; "):
        own_code.load("nowhere.at_all:f", "grader")


def test_describe_error_names_the_innermost_place_in_own_code(write):
    path = write("calls.py", "import json\n\ndef mine(a, b):\n    return json.loads('[')\n")
    function = own_code.load("calls:mine", "grader")
    with pytest.raises(ValueError) as caught:
        function("1", "1")
    assert own_code.is_own(caught.value)
    assert own_code.describe_error(caught.value).endswith(f", in {path}:4")
    with pytest.raises(ZeroDivisionError) as other:
        1 // 0  # noqa: B018
    assert not own_code.is_own(other.value)
    assert own_code.describe_error(other.value).startswith("ZeroDivisionError: ")


def test_describe_error_of_an_error_that_can_not_speak(write):
    write(
        "mute.py",
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n\ndef f(a, b):\n    raise Mute\n",
    )
    function = own_code.load("mute:f", "grader")
    with pytest.raises(Exception) as caught:
        function("1", "1")
    assert own_code.describe_error(caught.value).startswith("Mute, in ")


# The digest.


def test_digest_depends_on_the_module_and_on_its_neighbors_alone(write):
    folder = write("mine.py", "import near\nfrom numpy import array\n\ndef f(a, b):\n    raise SystemExit\n").parent
    write("near.py", "import nearer.part\n")
    write("nearer/__init__.py", "")
    write("nearer/part.py", "from . import other\nfrom .other import x\n")
    write("nearer/other.py", "x = 1\n")
    write("far.py", "x = 1\n")
    assert set(own_code.own_sources("mine:f")) == {"mine", "near", "nearer", "nearer.part", "nearer.other"}
    first = own_code.digest("mine:f")
    write("far.py", "x = 2\n")
    assert own_code.digest("mine:f") == first
    seen = {first}
    for name in ("mine.py", "near.py", "nearer/__init__.py", "nearer/part.py", "nearer/other.py"):
        with open(folder / name, "a") as file:
            file.write("y = 3\n")
        seen.add(own_code.digest("mine:f"))
    assert len(seen) == 6
    assert "mine" not in sys.modules and "near" not in sys.modules


def test_digest_is_that_of_the_source_wherever_it_is(write):
    write("one/pack/__init__.py", "import os\n")
    write("one/pack/mine.py", "from pack import near\n")
    write("one/pack/near.py", "x = 1\n")
    folder = write("one/x", "").parent
    sys.path.insert(0, str(folder))
    try:
        first = own_code.digest("pack.mine:f")
        assert set(own_code.own_sources("pack.mine:f")) == {"pack", "pack.mine", "pack.near"}
        folder.rename(folder.with_name("two"))
        sys.path[0] = str(folder.with_name("two"))
        assert own_code.digest("pack.mine:f") == first
    finally:
        del sys.path[0]


@pytest.mark.parametrize("name", ["nft", "nft_jax.losses.nft:nft", "no_such_module_at_all:f", "a b:f", ""])
def test_digest_is_none_for_what_is_not_ones_own(name):
    assert own_code.digest(name) is None


def test_digest_of_an_installed_module_does_not_follow_its_neighbors():
    assert set(own_code.own_sources("jinja2.sandbox:f")) >= {"jinja2", "jinja2.sandbox"}
    assert {name.partition(".")[0] for name in own_code.own_sources("jinja2.sandbox:f")} == {"jinja2"}
