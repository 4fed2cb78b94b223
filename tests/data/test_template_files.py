"""Prompt templates in Jinja files: exact texts, shots, and refusals that name what is wrong."""

import itertools

import pytest

from nft_jax.data.template_files import render_file

MESSAGES = [("system", "Be brief."), ("user", "1+1="), ("assistant", "2"), ("user", "2+2="), ("assistant", "4")]
WHOLE = (
    "{{ system }}\n{% for s in shots %}Q: {{ s.problem }}\nA: {{ s.response }}\n\n{% endfor %}Q: {{ problem }}\nA:\n"
)
number = itertools.count()


@pytest.fixture
def write(tmp_path):
    """`(text) -> path` of a new template file."""

    def get(text: str) -> str:
        path = tmp_path / f"{next(number)}.jinja"
        path.write_text(text)
        return str(path)

    return get


def test_render_file_gives_the_exact_text(write):
    assert render_file(write("{{ problem }}"), "{{ x }} of \\boxed{} & <y>", ()) == "{{ x }} of \\boxed{} & <y>"
    assert render_file(write(WHOLE), "3+3=", MESSAGES) == ("Be brief.\nQ: 1+1=\nA: 2\n\nQ: 2+2=\nA: 4\n\nQ: 3+3=\nA:")
    assert render_file(write(WHOLE), "3+3=", ()) == "\nQ: 3+3=\nA:"
    # Of the line breaks at the end of a file, only the last is left out.
    assert render_file(write("{{ problem }}\n\n"), "1", ()) == "1\n"


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
        render_file(path, "1", messages)
    assert f"config.data.template={path}" in str(raised.value)
    assert words in str(raised.value)


def test_render_file_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.jinja: no such file; it would be a Jinja template"):
        render_file(str(tmp_path / "gone.jinja"), "1", ())
