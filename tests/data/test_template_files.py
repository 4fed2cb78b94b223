"""Prompt templates in Jinja files: exact texts, shots, and refusals that name what is wrong."""

import itertools

import pytest

from nft_jax.data import template_process
from nft_jax.data.template_files import render_file

MESSAGES = [("system", "Be brief."), ("user", "1+1="), ("assistant", "2"), ("user", "2+2="), ("assistant", "4")]
WHOLE = (
    "{{ system }}\n{% for s in shots %}Q: {{ s.problem }}\nA: {{ s.response }}\n\n{% endfor %}Q: {{ problem }}\nA:\n"
)
number = itertools.count()


def render_one(path, problem, messages):
    return render_file(path, [(messages, problem)])[0]


@pytest.fixture
def write(tmp_path):
    """`(text) -> path` of a new template file."""

    def get(text: str) -> str:
        path = tmp_path / f"{next(number)}.jinja"
        path.write_text(text)
        return str(path)

    return get


def test_render_file_gives_the_exact_text(write):
    assert render_one(write("{{ problem }}"), "{{ x }} of \\boxed{} & <y>", ()) == "{{ x }} of \\boxed{} & <y>"
    assert render_one(write(WHOLE), "3+3=", MESSAGES) == ("Be brief.\nQ: 1+1=\nA: 2\n\nQ: 2+2=\nA: 4\n\nQ: 3+3=\nA:")
    assert render_one(write(WHOLE), "3+3=", ()) == "\nQ: 3+3=\nA:"
    # Of the line breaks at the end of a file, only the last is left out.
    assert render_one(write("{{ problem }}\n\n"), "1", ()) == "1\n"


@pytest.mark.parametrize(
    ("text", "messages", "words"),
    [
        ("{{ problme }}", (), "uses problme; it may use problem, system, shots"),
        ("no place", (), "does not use `problem`: write {{ problem }} where it goes"),
        ("{{ problem", (), "is no Jinja template: "),
        ("{{ problem }}", MESSAGES[:1], "does not use `system`, which config.data.system gives"),
        ("{{ system }}{{ problem }}", MESSAGES, "does not use `shots`, which config.data.shots gives"),
        ("{{ problem.x.y }}", (), "'str object' has no attribute 'x'"),
        ("{{ problem.__class__.__mro__[1] }}", (), "access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_render_file_names_what_is_wrong(write, text, messages, words):
    path = write(text)
    with pytest.raises(ValueError) as raised:
        render_one(path, "1", messages)
    assert f"config.data.template={path}" in str(raised.value)
    assert words in str(raised.value)


def test_render_file_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.jinja: no such file; it would be a Jinja template"):
        render_one(str(tmp_path / "gone.jinja"), "1", ())


# Templates that would take all time or memory.

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "computes": "{{ 9 ** (9 ** 9) }}",
    "recurses": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
}
HUGE = {
    "fills the memory": "{{ 'x' * 10 ** 11 }}",
    "doubles": "{% set n = namespace(x='x' * 1000) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "is long": "{{ 'x' * 20000000 }}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "reaches out": "{{ ''.__class__.__mro__ }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_render_file_ends_a_template_that_does_not_end(write, name, monkeypatch):
    monkeypatch.setattr(template_process, "_SECONDS", 0.5)
    with pytest.raises(ValueError, match="more than 0.5 s of processor time"):
        render_one(write(f"{ENDLESS[name]}{{{{ problem }}}}"), "1", ())


@pytest.mark.parametrize("name", HUGE)
def test_render_file_refuses_a_template_that_explodes(write, name):
    path = write(f"{HUGE[name]}{{{{ problem }}}}")
    with pytest.raises(ValueError, match=f"config.data.template={path}: ."):
        render_one(path, "1", ())


@pytest.mark.parametrize("text", ["{{" * 100_000, "{% if x %}" * 5000, "{{ " + "(" * 50_000 + " }}", "\n" * 10**6])
def test_render_file_refuses_text_that_no_parser_likes(write, text):
    with pytest.raises(ValueError, match=r"config\.data\.template=.*(is no Jinja template|does not use `problem`)"):
        render_one(write(text), "1", ())


def test_render_file_renders_a_template_of_a_million_lines(write):
    assert render_one(write("\n" * 10**6 + "{{ problem }}"), "1", ()) == "\n" * 10**6 + "1"
